"""Pages in HTML that need no other file and no network, from the templates beside this module."""

from collections import Counter

import jinja2

from course.classroom.results import (
    FAILING,
    MARKS,
    NOT_ATTEMPTED,
    NOT_SUBMITTED,
    PASSED,
    Row,
    counts,
    summary,
)
from course.classroom.tables import ClassTable

ORDER = {PASSED: 3, FAILING: 2, NOT_ATTEMPTED: 1, NOT_SUBMITTED: 0}  # for sorting
COMMONEST = 5  # mistakes of an exercise

_environment = jinja2.Environment(
    loader=jinja2.PackageLoader("course.classroom"),
    autoescape=True,  # what students write is text
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


def progress_page(rows: list[Row], titles: dict[str, str], source: str = "") -> str:
    """One student's rows, by lesson. source: where and when they are from."""
    lessons = [
        (name, titles.get(name, ""), [row for row in rows if row.lesson == name])
        for name in dict.fromkeys(row.lesson for row in rows)
    ]
    return _environment.get_template("progress.html").render(
        lessons=lessons, marks=MARKS, counts=counts, summary=summary(rows), source=source
    )


def class_page(
    table: ClassTable,
    titles: dict[str, str],
    title: str,
    source: str,
    signs: list[tuple[str, str, list[str]]],
    problems: list[tuple[str, str]],
    notes: list[tuple[str, str]],
) -> str:
    """A class as students x exercises, and the commonest mistakes of each exercise."""
    totals = table.totals().sum(axis=1)
    students = [(s, float(totals[s.label]), table.rows[s]) for s in table.students]
    rows = [row for student in table.students for row in table.rows[student]]
    return _environment.get_template("class.html").render(
        title=title,
        source=source,
        summary=f"{len(students)} students, {summary(rows)}",
        students=students,
        exercises=table.exercises,
        maximum=float(table.maxima().sum()),
        titles=titles,
        marks=MARKS,
        order=ORDER,
        mistakes=commonest_mistakes(table),
        signs=signs,
        problems=problems,
        notes=notes,
    )


def commonest_mistakes(table: ClassTable) -> list[tuple[str, list]]:
    """By lesson, for each exercise: its row, how many passed of how many handed in, and pairs of a
    message and how many have it, the commonest first."""
    lessons: dict[str, list] = {}
    for place, exercise in enumerate(table.exercises):
        own = [table.rows[student][place] for student in table.students]
        messages = Counter(row.message for row in own if row.outcome == FAILING and row.message)
        found = [(message, count) for message, count in messages.most_common(COMMONEST)]
        passed = sum(row.outcome == PASSED for row in own)
        submitted = sum(row.outcome != NOT_SUBMITTED for row in own)
        entry = exercise, passed, submitted, found
        lessons.setdefault(exercise.lesson, []).append(entry)
    return list(lessons.items())
