"""The website's settings: Sphinx, MyST-NB, and a book theme. `python -m course.book` calls it."""

import importlib.util
import re
import shutil
import textwrap
from pathlib import Path, PurePosixPath

project = "CoAtNet from scratch"
author = ""
html_title = project
html_favicon = "_static/favicon.svg"
html_context = {"default_mode": "auto"}
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
]
mathjax_path = "mathjax/tex-chtml.js"  # see copy_mathjax
mathjax3_config = {"options": {"enableMenu": False}}
nb_execution_mode = "off"  # the outputs are those that solutions/ holds
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
toc_object_entries_show_parents = "hide"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
suppress_warnings = ["mystnb.unknown_mime_type"]

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_js_files = ["course.js"]
html_extra_path = ["downloads"]  # the students' notebooks
html_sourcelink_suffix = ""
html_copy_source = False
html_show_copyright = False
html_theme_options = {
    "use_download_button": False,
    "home_page_in_toc": True,
    "navbar_persistent": [],  # the search field is in the sidebar
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "extra_footer": "Text and figures: CC BY 4.0. Code: MIT.",
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def launch_buttons(app, pagename, templatename, context, doctree):
    """On a lesson's page: ways to open its notebook, in the repository that the book is of."""
    folder, _, lesson = pagename.partition("/")
    if folder != "lessons" or "header_buttons" not in context:
        return
    up = "../" * (len(PurePosixPath(pagename).parts) - 1)
    links = [("Download the notebook", f"{up}notebooks/{lesson}.ipynb", "fas fa-download")]
    repository = app.config.repository.rstrip("/").removesuffix(".git")
    host, _, name = repository.removeprefix("https://").partition("/")
    if host == "github.com":
        colab = f"https://colab.research.google.com/github/{name}/blob/gh-pages/notebooks"
        work = f"lab/tree/work/{lesson}.ipynb"
        links += [
            ("Codespaces", f"https://codespaces.new/{name}", "fas fa-cloud"),
            ("Binder", f"https://mybinder.org/v2/gh/{name}/HEAD?urlpath={work}", "fas fa-rocket"),
            ("Colab", f"{colab}/{lesson}.ipynb", "fas fa-play"),
        ]
    context["header_buttons"].insert(
        0,
        {
            "type": "group",
            "label": "launch-buttons",
            "icon": "fas fa-rocket",
            "tooltip": "Open this lesson's notebook",
            "buttons": [
                {"type": "link", "text": text, "tooltip": text, "url": url, "icon": icon}
                for text, url, icon in links
            ],
        },
    )


def plain_docstring(app, what, name, obj, options, lines):
    """Docstrings are plain text with code in backticks: paragraphs stay such, what is indented or
    a list is shown as it stands."""
    made = []
    for paragraph in "\n".join(lines).split("\n\n"):
        if re.search(r"^( |- )", paragraph, re.MULTILINE):
            made.append("::\n\n" + textwrap.indent(paragraph, "    "))
        else:
            parts = paragraph.split("`")
            parts[::2] = [re.sub(r"([\\*_|])", r"\\\1", prose) for prose in parts[::2]]
            made.append("``".join(parts))
    lines[:] = "\n\n".join(made).splitlines()


def copy_mathjax(app, error):
    """The part of MathJax that is used, from the Python package that ships it: no network."""
    package = importlib.util.find_spec("sphinx-mathjax-offline").submodule_search_locations[0]
    shipped, target = Path(package, "static", "mathjax"), Path(app.outdir, "_static", "mathjax")
    if not error:
        fonts = "output/chtml/fonts/woff-v2"
        shutil.copytree(shipped / fonts, target / fonts, dirs_exist_ok=True)
        shutil.copy2(shipped / "tex-chtml.js", target)


def setup(app):
    app.add_config_value("repository", "", "html")  # its address, "" where it is not known
    app.connect("html-page-context", launch_buttons, priority=501)
    app.connect("build-finished", copy_mathjax)
    app.connect("autodoc-process-docstring", plain_docstring)
