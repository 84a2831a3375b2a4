// JupyterLab shows a picture without the alt text that its output carries (course/alt_text.py makes
// it). This plugin, written as the module that JupyterLab loads, gives it to the picture.
const plugin = {
  id: "alt-text:plugin",
  description: "Alt text for figures",
  autoStart: true,
  activate: (app) => {
    const describe = () => {
      for (const panel of app.shell.widgets("main")) {
        for (const { outputArea } of panel.content?.widgets ?? []) {
          outputArea?.widgets.forEach((output, place) => {
            const alt = outputArea.model.get(place)?.metadata?.["image/png"]?.alt;
            const pictures = output.node.querySelectorAll(".jp-RenderedImage img:not([alt])");
            if (alt) pictures.forEach((picture) => { picture.alt = alt; });
          });
        }
      }
    };
    let waiting = false; // many changes at once are one look
    new MutationObserver(() => {
      if (waiting) return;
      waiting = true;
      setTimeout(() => { waiting = false; describe(); }, 200);
    }).observe(document.body, { childList: true, subtree: true });
  },
};
window._JUPYTERLAB = window._JUPYTERLAB || {};
window._JUPYTERLAB["alt-text"] = {
  init: () => {},
  get: () => Promise.resolve(() => ({ __esModule: true, default: plugin })),
};
