// What the theme leaves out for those who use a keyboard or a screen reader.
document.addEventListener("DOMContentLoaded", () => {
  for (const summary of document.querySelectorAll("summary")) {
    if (!summary.textContent.trim()) summary.setAttribute("aria-label", "Show or hide the pages below");
  }
  // The list of modules has lists directly in a list
  for (const list of document.querySelectorAll("article ul > ul")) list.previousElementSibling?.append(list);
});

function reachWhatScrolls() {
  for (const wide of document.querySelectorAll(".bd-article table, mjx-container[display]")) {
    if (wide.scrollWidth > wide.clientWidth) wide.tabIndex = 0;
  }
}
addEventListener("resize", reachWhatScrolls);
addEventListener("load", () => {
  reachWhatScrolls();
  window.MathJax?.startup?.promise?.then(reachWhatScrolls);
});
