"""What the book's pages are made of; tests/browser/test_book.py looks at the book itself."""

import pytest

from course import book, lesson_files
from course.lesson_files import ROOT

URL = "https://github.com/somebody/a-fork"


@pytest.mark.parametrize(
    ("target", "page"),
    [
        ("../coatnet/attention.py", "../api/coatnet.attention.md"),
        ("../vit.py", "../api/vit.md"),
        ("../course/training/__init__.py", "../api/course.training.md"),
        ("../course/training/loop.py", "../api/course.training.md"),  # where its names are given
        ("../course/grade.py", "../api/course.grade.md"),
        ("../course/classroom/README.md", "../grading.md"),
        ("05_staged_coatnet.ipynb#the-stem", "05_staged_coatnet.ipynb#the-stem"),
        ("../notebooks/01_vit_recap.ipynb", "01_vit_recap.ipynb"),
        ("../benchmarks/robustness.md", "../benchmarks/robustness.md"),
        ("../README.md", "../index.md"),
        ("../benchmarks/robustness.py", f"{URL}/blob/HEAD/benchmarks/robustness.py"),
        ("../course/checks/lesson01.py", f"{URL}/blob/HEAD/course/checks/lesson01.py"),
        ("https://arxiv.org", "https://arxiv.org"),
        ("#here", "#here"),
    ],
)
def test_links_lead_to_pages_or_else_to_the_repository(target, page):
    made = book.in_book(f"see [this]({target}).", "solutions/x.ipynb", "lessons/x.ipynb", URL)
    assert made == f"see [this]({page})."


def test_without_a_repository_what_has_no_page_is_words():
    text = "see [the code](../benchmarks/robustness.py), [it](../vit.py)"
    made = book.in_book(text, "solutions/x.ipynb", "lessons/x.ipynb", "")
    assert made == "see the code, [it](../api/vit.md)"


def test_each_exercise_stands_open_above_its_folded_solution():
    page = book.lesson_page(ROOT / "lessons" / "03_mbconv.py", URL)
    ids = [cell.id for cell in page.cells]
    exercises = [place for place, name in enumerate(ids) if name.startswith("exercise-")]
    assert len(exercises) >= 4
    for place in exercises:
        stub, solution = page.cells[place - 1 : place + 1]
        assert stub.id == f"open-{solution.id}"
        assert "# your code here" in stub.source
        assert "# your code here" not in solution.source
        assert "hide-input" in solution.metadata["tags"]
    text = "\n".join(cell.source for cell in page.cells)
    assert lesson_files.ALONE not in text
    assert "way-on" not in ids


def test_no_line_breaks_within_a_layout():
    page = book.lesson_page(ROOT / "lessons" / "05_staged_coatnet.py", URL)
    text = "\n".join(cell.source for cell in page.cells if cell.cell_type == "markdown")
    assert "C\u2011C\u2011T\u2011T" in text
    assert "C-C-T-T" not in text
