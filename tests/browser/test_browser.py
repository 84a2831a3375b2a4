"""A student's way through lesson 2 in a real browser, JupyterLab started as `make learn` does.

Screenshots are kept in build/browser/. Needs playwright (`pip install playwright`) and Chromium.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest

from course.lesson_files import ROOT
from tests.checks.harness import exercise_cells

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not BROWSER or not shutil.which("make"), reason="there is no Chromium, or no make"
    ),
]

LESSON = "02_cnn_stem_hybrid"
SOLUTION = exercise_cells(LESSON)["cnn-stem"]
WRONG = SOLUTION.replace(", padding=1", "")
SCREENSHOTS = ROOT / "build" / "browser"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
PATIENCE = 60_000  # milliseconds for a slow machine; it usually takes a second


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """A copy of what `make learn` needs; lesson 2 with one exercise open and runs of two steps."""
    folder = tmp_path_factory.mktemp("course")
    for name in ("Makefile", "requirements.txt", "pyproject.toml", "vit.py"):
        shutil.copy2(ROOT / name, folder)
    for name in ("notebooks", "coatnet", "course", "lessons"):
        shutil.copytree(ROOT / name, folder / name)
    path = folder / "notebooks" / f"{LESSON}.ipynb"
    lesson = nbformat.read(path, as_version=4)
    for cell in lesson.cells:
        cell.source = re.sub(r"\bsteps=\d+", "steps=2", cell.source)
        if cell.id == "exercise-coatnet-hybrid":
            cell.source = exercise_cells(LESSON)["coatnet-hybrid"]
    nbformat.write(lesson, path)
    return folder


@pytest.fixture(scope="module")
def lab(course):
    """The address of a running JupyterLab, with its token."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = course / "settings"
    command = make_learn(port)
    own = {  # not what this person's JupyterLab is set to, and had open
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(course / "workspaces"),
        "JUPYTER_TOKEN": "course",
    }
    server = subprocess.Popen(
        command,
        cwd=course,
        env={k: v for k, v in os.environ.items() if k != "COURSE_STATIC"} | own,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    address = f"http://127.0.0.1:{port}"
    for _ in range(240):
        assert server.poll() is None, "make learn ended"
        try:
            urllib.request.urlopen(f"{address}/api?token=course", timeout=1)
            break
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.5)
    yield address
    os.killpg(server.pid, 15)
    server.wait(timeout=30)


def make_learn(port):
    """The command; the environment that runs this test is ready, whatever its name."""
    command = ["make", "learn", "NO_BROWSER=1", f"PORT={port}"]
    return [*command, "-o", ".venv/ready", f"BIN={Path(sys.executable).parent}"]


def write_setting(settings, name, values):
    folder = settings / "@jupyterlab" / "apputils-extension"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.jupyterlab-settings").write_text(json.dumps(values))


@pytest.fixture(scope="module")
def page(lab):
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_default_timeout(PATIENCE)
        page.goto(f"{lab}/lab/tree/work/{LESSON}.ipynb?token=course")
        idle(page)
        yield page
        browser.close()


def idle(page):
    """Waits until the kernel has nothing more to do."""
    page.get_by_text("| Idle").wait_for()


def focus(cell):
    cell.locator(".cm-content").click()
    cell.locator(".cm-focused").wait_for()


def cell_with(page, text):
    return page.locator(".jp-CodeCell").filter(has_text=text).first


def run(page, cell):
    """Runs a cell as a student does, with Shift+Enter, and waits for it."""
    before = cell.locator(".jp-InputPrompt").inner_text()
    focus(cell)
    page.keyboard.press("Shift+Enter")
    for _ in range(PATIENCE // 100):
        prompt = cell.locator(".jp-InputPrompt").inner_text()
        if prompt != before and re.search(r"\d", prompt):
            return
        page.wait_for_timeout(100)
    screenshot(page, cell, "failed")
    pytest.fail(f"the cell is still at {prompt}")


def output(cell):
    return cell.locator(".jp-OutputArea-output").all_inner_texts()


def write(page, cell, source):
    focus(cell)
    page.keyboard.press("Control+A")
    page.keyboard.insert_text(source)


def screenshot(page, cell, name):
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    cell.scroll_into_view_if_needed()
    page.wait_for_timeout(1000)  # cells around it are drawn when they come into view
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def run_all(page):
    page.get_by_role("menuitem", name="Kernel", exact=True).click()
    page.get_by_role("menuitem", name="Restart Kernel and Run All Cells…").click()
    page.get_by_role("button", name="Confirm Kernel Restart").click()
    last = page.locator(".jp-CodeCell").last
    page.wait_for_function(
        "prompt => /\\d/.test(prompt.innerText)",
        arg=last.locator(".jp-InputPrompt").element_handle(),
        timeout=15 * PATIENCE,
    )
    idle(page)


def test_first_contact(page, lab, course):
    """No news over the lesson, nothing to save before anything was done, only lessons in sight."""
    page.wait_for_timeout(3000)  # the news came a second or two after the kernel
    assert page.locator(".jp-NotebookPanel").count() == 1
    assert page.locator(".Toastify__toast").count() == 0
    assert page.locator(".jp-mod-dirty").count() == 0
    files = page.locator(".jp-DirListing-itemText").all_inner_texts()
    assert files == [path.name for path in sorted((course / "work").glob("*.ipynb"))]
    assert len(files) == 8
    # The course's folder is the root, so that links to ../vit.py and ../solutions/ lead somewhere
    with urllib.request.urlopen(f"{lab}/api/contents/vit.py?token=course", timeout=60) as answer:
        assert answer.status == 200


def test_a_second_make_learn_finds_the_first(lab, course):
    environment = {**os.environ, "JUPYTER_TOKEN": "course"}
    again = subprocess.run(
        make_learn(lab.rpartition(":")[2]),
        cwd=course,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert again.returncode == 0, again.stderr
    assert f"open already: {lab}/lab/tree/work/01_vit_recap.ipynb?token=" in again.stdout.replace(
        "localhost", "127.0.0.1"
    )


def test_run_all_goes_on_below_open_exercises(lab, page):
    other = page.context.browser.new_page(viewport={"width": 1200, "height": 900})
    other.set_default_timeout(PATIENCE)
    other.goto(f"{lab}/lab/workspaces/other/tree/work/04_relative_attention.ipynb?token=course")
    idle(other)
    run_all(other)
    panel = other.locator(".jp-NotebookPanel")
    assert re.search(
        r"\d", panel.locator(".jp-CodeCell").last.locator(".jp-InputPrompt").inner_text()
    )
    screenshot(other, panel.locator(".jp-CodeCell").last, "0-run-all-of-open-exercises")
    pictures = other.locator(".jp-RenderedImage img").all()
    words = [picture.get_attribute("alt") for picture in pictures]
    assert words
    assert all(words)  # JupyterLab by itself gives none
    other.close()


def test_a_student_in_a_browser(page, course):
    first = page.locator(".jp-CodeCell").first
    exercise, check = cell_with(page, "class CNNStem"), cell_with(page, "check.cnn_stem(CNNStem)")
    run(page, first)
    run(page, exercise)
    run(page, check)
    (line,) = output(check)
    assert line.strip().startswith("○")
    assert "not attempted yet" in line
    assert len(line.strip().splitlines()) == 1
    screenshot(page, check, "1-not-attempted")

    write(page, exercise, WRONG)
    run(page, exercise)
    run(page, check)
    (text,) = output(check)
    assert text.strip().startswith("✗")
    assert "padding" in text
    assert "Traceback" not in text
    screenshot(page, check, "2-wrong")

    write(page, exercise, SOLUTION)
    run(page, exercise)
    run(page, check)
    (line,) = output(check)
    assert line.strip().startswith("✓")
    screenshot(page, check, "3-right")

    run_all(page)
    assert output(check)[0].strip().startswith("✓")
    screenshot(page, check, "4-run-all")

    page.keyboard.press("Control+S")
    page.wait_for_timeout(2000)
    saved = nbformat.read(course / "work" / f"{LESSON}.ipynb", as_version=4)
    source = next(cell.source for cell in saved.cells if cell.id == "exercise-cnn-stem")
    assert source == SOLUTION  # as typed, and under the id that progress and updates go by


def test_messages_in_the_dark_theme(page, course):
    write_setting(course / "settings", "themes", {"theme": "JupyterLab Dark"})
    page.reload()
    page.wait_for_selector("body[data-jp-theme-light=false]", state="attached")
    idle(page)
    exercise, check = cell_with(page, "class CNNStem"), cell_with(page, "check.cnn_stem(CNNStem)")
    for name, source, mark in (("wrong", WRONG, "✗"), ("right", SOLUTION, "✓")):
        write(page, exercise, source)
        run(page, exercise)
        run(page, check)
        assert output(check)[0].strip().startswith(mark)
        screenshot(page, check, f"5-dark-{name}")
