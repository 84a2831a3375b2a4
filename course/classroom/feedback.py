"""What a student gets: a file in plain words."""

import re
from pathlib import Path

from course.classroom.intake import Student
from course.classroom.results import FAILING, NOT_ATTEMPTED, NOT_SUBMITTED, PASSED, Row
from course.classroom.tables import Points

SAYS = {
    PASSED: "passed",
    FAILING: "not right yet",
    NOT_ATTEMPTED: "still open",
    NOT_SUBMITTED: "not handed in",
}


def feedback(
    student: Student, rows: list[Row], points: Points, titles: dict[str, str], notes: list[str]
) -> str:
    """One student's text. notes: such as which of two versions counts."""
    worth = sum(map(points.of, rows))
    got = sum(points.of(row) for row in rows if row.outcome == PASSED)
    lines = [f"Feedback for {student.name}", "", f"{got:g} of {worth:g} points.", ""]
    for lesson in dict.fromkeys(row.lesson for row in rows):
        own = [row for row in rows if row.lesson == lesson]
        lines.append(f"Lesson {lesson.partition('_')[0]} · {titles[lesson]}")
        if all(row.outcome == NOT_SUBMITTED for row in own):
            lines += ["  not handed in", ""]
            continue
        for row in own:
            lines.append(f"  {row.number} · {row.exercise}: {SAYS[row.outcome]}")
            if row.message:
                lines.append(f"      {row.message}")
        lines.append("")
    if any(row.outcome == FAILING for row in rows):
        text = "The check below an exercise says more about what is not right, and where to look."
        lines += [text, ""]
    lines += [*notes, ""] if notes else []
    return "\n".join(lines)


def file_name(student: Student) -> str:
    """A name that every file system takes, and that no other student has."""
    name = re.sub(r"[^\w .-]", "_", student.label).strip(" .") or "student"
    return f"{name[:100]}.txt"


def write_all(texts: dict[Student, str], folder: Path) -> None:
    """One file a student; those of names that look alike get a number."""
    folder.mkdir(exist_ok=True)
    taken = set()
    for student, text in texts.items():
        name, number = Path(file_name(student)), 2
        while name.name.casefold() in taken:
            name = name.with_stem(f"{Path(file_name(student)).stem} {number}")
            number += 1
        taken.add(name.name.casefold())
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
