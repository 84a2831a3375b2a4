"""The book in a real browser: every page, light and dark, on a telephone and on a desk.

The book is built once, and each page opened once. The first tests need no browser.
"""

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
import urllib.parse
from html.parser import HTMLParser

import pytest
from filelock import FileLock

from course.lesson_files import ROOT
from tests.browser.test_browser import BROWSER, FLAGS

pytest.importorskip("myst_nb", reason="the book's tools are not installed: pip install -e '.[dev]'")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.base", reason="axe is not installed")
pytestmark = pytest.mark.slow
in_browser = pytest.mark.skipif(not BROWSER, reason="there is no Chromium")

FORK = "https://github.com/somebody/a-fork"
LESSON = "lessons/04_relative_attention.html"


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The book as a fork's workflow makes it, built once for all of pytest's workers; warnings
    would make it fail."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = base / "book", base / "book.done"
    command = [sys.executable, "-m", "course.book", "--to", str(folder), "--repository", FORK]
    command.append("--strict")
    with FileLock(base / "book.lock"):
        if not done.exists():
            run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            assert run.returncode == 0, run.stderr[-3000:]
            done.touch()
    return folder


def pages(book):
    names = (path.relative_to(book).as_posix() for path in book.rglob("*.html"))
    return sorted(name for name in names if not name.startswith("_static"))


class Links(HTMLParser):
    """What a page links to, the anchors that it has, and its pictures."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.pictures = [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found.get("id"), found.get("name")}
        if tag == "img":
            self.pictures.append(found)
        self.links += [found[key] for key in ("href", "src") if found.get(key)]


def test_no_internal_link_is_dead(book):
    parsed = {page: Links(book / page) for page in pages(book)}
    dead, followed = [], 0
    for page, links in parsed.items():
        for link in links.links:
            target, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:|//", link) or (not target and not anchor):
                continue
            path = (book / page).parent / urllib.parse.unquote(target.partition("?")[0])
            path = (path if target else book / page).resolve()
            path = path / "index.html" if path.is_dir() else path
            name = path.relative_to(book.resolve()).as_posix()
            followed += 1
            if not path.exists() or (
                anchor
                and name in parsed
                and urllib.parse.unquote(anchor) not in parsed[name].anchors
            ):
                dead.append(f"{page}: {link}")
    assert followed > 1000
    assert dead == []


def test_lessons_link_to_each_other_and_to_the_code(book):
    links = Links(book / LESSON).links
    assert "../api/coatnet.attention.html" in {link.partition("#")[0] for link in links}
    assert "05_staged_coatnet.html" in links
    assert "03_mbconv.html" in links
    assert "../_modules/coatnet/attention.html" in {
        link.partition("#")[0] for link in Links(book / "api/coatnet.attention.html").links
    }


def test_every_picture_has_words(book):
    pictures = [(page, picture) for page in pages(book) for picture in Links(book / page).pictures]
    figures = [p for page, p in pictures if page.startswith("lessons/")]
    assert len(figures) > 30
    assert [(page, p["src"]) for page, p in pictures if not p.get("alt", "").strip()] == []
    assert [p for p in figures if re.search(r"[0-9a-f]{20}", p["alt"])] == []  # a file's name


def test_a_lesson_is_under_two_megabytes(book):
    lessons = [page for page in pages(book) if page.startswith("lessons/")]
    assert len(lessons) == 8
    for page in lessons:
        pictures = [(book / page).parent / p["src"] for p in Links(book / page).pictures]
        size = (book / page).stat().st_size + sum(path.stat().st_size for path in pictures)
        assert size < 2e6, f"{page} has {size / 1e6:.1f} MB"


def test_launch_buttons_lead_to_the_repository_that_it_was_made_from(book):
    links = set(Links(book / LESSON).links)
    name = "04_relative_attention.ipynb"
    assert {
        "https://codespaces.new/somebody/a-fork",
        f"https://mybinder.org/v2/gh/somebody/a-fork/HEAD?urlpath=lab/tree/work/{name}",
        f"https://colab.research.google.com/github/somebody/a-fork/blob/gh-pages/notebooks/{name}",
        f"../notebooks/{name}",
    } <= links
    assert f"git+{FORK}" in (book / "notebooks" / name).read_text()


@pytest.fixture(scope="module")
def site(book):
    handler = functools.partial(Quiet, directory=book)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    yield page
    page.close()


def watch(page, site):
    """A list that fills with what goes wrong: console errors, failed or foreign requests."""
    wrong = []
    page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
    page.on("response", lambda r: r.status >= 400 and wrong.append(f"{r.status}: {r.url}"))
    own = (site, "data:", "blob:")
    page.on("request", lambda r: r.url.startswith(own) or wrong.append(f"outside: {r.url}"))
    return wrong


def open_page(page, address):
    page.goto(address)
    page.wait_for_load_state("load")
    if page.locator(".math").count():
        page.wait_for_function(
            "!window.MathJax?.startup || document.querySelector('mjx-container')"
        )


@in_browser
def test_every_page(book, site, browser):
    """No error in the console, nothing from elsewhere, only code and tables scroll sideways, and
    nothing serious that axe knows: all its rules in the light, contrast in the dark as well.

    Pages with a module's source differ in nothing but its text: one of them is opened."""
    context = browser.new_context(color_scheme="light", viewport={"width": 1280, "height": 900})
    context.add_init_script(axe.AXE_SCRIPT)
    page = context.new_page()
    wrong, found, dark = watch(page, site), [], {"runOnly": ["color-contrast"]}
    source = "_modules/coatnet/attention.html"
    written = [name for name in pages(book) if not name.startswith("_modules/")]
    assert len(written) > 50
    for name in [*written, source]:
        open_page(page, f"{site}/{name}")
        assert theme(page) == "light"
        faults = [too_wide(page), *violations(page)]
        page.set_viewport_size({"width": 375, "height": 900})
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
        faults += [too_wide(page), *violations(page, dark)]
        page.set_viewport_size({"width": 1280, "height": 900})
        found += [f"{name}: {fault}" for fault in [*faults, *wrong] if fault]
        wrong.clear()
    context.close()
    assert found == [], "\n".join(found)


def theme(page):
    return page.evaluate("document.documentElement.dataset.theme")


def too_wide(page):
    wide, width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    return f"{wide} px wide in a window of {width}" if wide > width else None


def violations(page, options=None):
    """What axe finds that is serious: the rule and the first elements that break it."""
    # preload: axe would fetch style sheets by itself, from wrong addresses
    options = {"resultTypes": ["violations"], "preload": False, **(options or {})}
    result = page.evaluate("options => axe.run(options)", options)
    return [
        f"{theme(page)}: {found['id']}: {[node['html'][:120] for node in found['nodes'][:3]]}"
        for found in result["violations"]
        if found["impact"] in ("serious", "critical")
    ]


@in_browser
def test_mathematics_is_set(site, page):
    open_page(page, f"{site}/{LESSON}")
    assert page.locator("mjx-container").count() > 10
    assert page.locator("mjx-merror").count() == 0


@in_browser
def test_search_finds_the_relative_bias(site, page):
    page.goto(f"{site}/search.html?q=relative+bias")
    results = page.locator("#search-results li")
    results.first.wait_for()
    page.get_by_text("Search finished").or_(page.get_by_text("found")).first.wait_for()
    assert any("Relative attention" in text for text in results.all_inner_texts())


@in_browser
@pytest.mark.parametrize("what", ["Show a solution", "Hint"])
def test_folding_by_mouse_and_keyboard(site, page, what):
    open_page(page, f"{site}/{LESSON}")
    details = page.locator("details").filter(has=page.locator("summary", has_text=what)).first
    summary = details.locator("summary")
    assert details.get_attribute("open") is None  # folded at first
    summary.click()
    assert details.get_attribute("open") is not None
    summary.click()
    assert details.get_attribute("open") is None
    summary.focus()
    page.keyboard.press("Enter")
    assert details.get_attribute("open") is not None
    page.keyboard.press("Space")
    assert details.get_attribute("open") is None


@in_browser
def test_the_theme_can_be_chosen(site, page):
    open_page(page, f"{site}/index.html")
    theme = page.locator("html")
    before = theme.get_attribute("data-theme")
    page.locator(".theme-switch-button").first.click()
    page.get_by_role("button", name="Dark").or_(
        page.locator("[data-mode=dark]:visible")
    ).first.click()
    assert theme.get_attribute("data-theme") == "dark" != before
