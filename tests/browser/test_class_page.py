"""The page of a class of 300 in a real browser: nothing overflows, it sorts, it fits a phone."""

import itertools
from pathlib import Path

import pytest

from course import lesson_files
from course.classroom import pages
from course.classroom.engine import all_rows
from course.classroom.intake import Student
from course.classroom.results import FAILING, NOT_ATTEMPTED, NOT_SUBMITTED, PASSED, Row
from course.classroom.tables import ClassTable, Points

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.slow

BROWSERS = ("/usr/bin/chromium", "/usr/bin/google-chrome")
MESSAGES = ("a norm is missing", "<b>expected</b> [2, 3]", "x" * 250)


def page_of(students=300):
    lessons = {
        path.stem: lesson_files.read_lesson(path)
        for path in sorted((lesson_files.ROOT / "lessons").glob("*.py"))
    }
    exercises = [r for name, one in lessons.items() for r in all_rows(name, one, PASSED, "")]
    outcomes = itertools.cycle([PASSED, PASSED, FAILING, PASSED, NOT_ATTEMPTED, PASSED, PASSED])
    names = [Student(f"Student {number:03} Müller-Lüdenscheidt") for number in range(students)]
    rows = {}
    for number, student in enumerate(names):
        rows[student] = []
        for place, row in enumerate(exercises):
            outcome = next(outcomes) if place < 39 * number / students + 4 else NOT_SUBMITTED
            message = MESSAGES[(number + place) % 3] if outcome == FAILING else ""
            rows[student].append(Row(row.lesson, row.number, row.exercise, outcome, message))
    table = ClassTable(names, rows, Points({}), {})
    titles = {name: lesson_files.title_of(lesson) for name, lesson in lessons.items()}
    signs = [("Student 001", "01_vit_recap", ["it reaches into memory (ctypes)"])]
    problems = [("Student 002/essay.ipynb", "it has no exercise of the course")]
    notes = [("Student 003", "01_vit_recap: 2 versions: the newest counts")]
    return pages.class_page(table, titles, "Class", "autumn", signs, problems, notes)


@pytest.fixture(scope="module")
def browser():
    executable = next((path for path in BROWSERS if Path(path).exists()), None)
    if not executable:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
def test_the_page_of_a_class_of_300(browser, tmp_path, width, scheme):
    file = tmp_path / "index.html"
    file.write_text(page_of(), encoding="utf-8")
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    faults = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", lambda request: faults.append(request.url))
    page.goto(file.as_uri())
    assert page.locator("#class tbody tr").count() == 300
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    first = page.locator("#class tbody tr td").first
    assert first.inner_text().startswith("Student 000")
    page.locator("#class thead button").nth(1).click()  # by total, the best first
    assert first.inner_text().startswith("Student 2")
    page.locator("#class thead button").nth(1).click()
    assert first.inner_text().startswith("Student 0")
    assert page.locator("b").count() == 0  # what students write is text
    assert "<b>expected</b>" in page.locator(".mistakes").first.inner_text()
    page.locator(".matrix").evaluate("box => box.scrollLeft = 500")
    assert first.bounding_box()["x"] >= 0  # names stay in sight
    page.screenshot(path=tmp_path / f"{scheme}-{width}.png")
    context.close()
    assert faults == []
