// JupyterLab shows a picture without the alt text that its output carries (course/alt_text.py makes
// it). This plugin, written as the module that JupyterLab loads, gives it to the picture.
const plugin = {
  id: "alt-text:plugin",
  description: "Alt text for figures",
  autoStart: true,
  activate: (app) => {
    const describe = (widget) => { // an area of outputs, also one that a slider draws into
      if (widget.node.classList.contains("jp-OutputArea")) {
        widget.widgets.forEach((output, place) => {
          const alt = widget.model.get(place)?.metadata?.["image/png"]?.alt;
          const pictures = output.node.querySelectorAll(".jp-RenderedImage img");
          if (alt) pictures.forEach((picture) => { picture.alt = alt; });
        });
      }
      for (const child of widget.children()) describe(child);
    };
    const describeAll = () => {
      for (const panel of app.shell.widgets("main")) {
        for (const { outputArea } of panel.content?.widgets ?? []) {
          if (outputArea) describe(outputArea);
        }
      }
    };
    let waiting = false; // many changes at once are one look
    new MutationObserver(() => {
      if (waiting) return;
      waiting = true;
      setTimeout(() => { waiting = false; describeAll(); }, 200);
    }).observe(document.body, { childList: true, subtree: true });
  },
};
window._JUPYTERLAB = window._JUPYTERLAB || {};
window._JUPYTERLAB["alt-text"] = {
  init: () => {},
  get: () => Promise.resolve(() => ({ __esModule: true, default: plugin })),
};
