"""Tables of a class: points, and what Moodle and Canvas take."""

import csv
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from course.classroom.intake import Student
from course.classroom.results import PASSED, Row

# https://docs.moodle.org/en/Grade_import, and the offline grading worksheet of an assignment, of
# which these columns are read: mod/assign/feedback/offline/importgradeslib.php
MOODLE = (
    *("Identifier", "Full name", "Grade", "Maximum grade", "Last modified (grade)"),
    "Feedback comments",
)
# https://community.canvaslms.com, "How do I import grades in the Gradebook?", and
# lib/gradebook_importer.rb: these five first, an assignment a column behind, and a row of maxima
CANVAS = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")


@dataclass(frozen=True)
class Points:
    """What each exercise is worth: one point, where no table says otherwise."""

    worth: dict[tuple[str, str], float]

    def of(self, row: Row) -> float:
        return self.worth.get((row.lesson, row.number), 1.0)


def read_points(path: Path | None, exercises: list[Row]) -> Points:
    """A file of lines `lesson,exercise,points`, such as `02,1,3` or `02_cnn_stem_hybrid,CNNStem,3`.

    Raises ValueError, with the line, for what is no exercise or no number.
    """
    worth: dict[tuple[str, str], float] = {}
    if not path:
        return Points(worth)
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = [line for line in csv.reader(file) if line and not line[0].startswith("#")]
    for line in lines:
        fields = [field.strip() for field in line]
        if fields[0].lower() == "lesson":
            continue
        found = [row for row in exercises if len(fields) == 3 and _is_of(row, *fields[:2])]
        try:
            value = float(fields[2])
            if not found or not 0 <= value < float("inf"):
                raise ValueError
        except (ValueError, IndexError):
            text = "no line of lesson, exercise, points, such as 02,1,3"
            raise ValueError(f"{path}: {','.join(line)!r} is {text}") from None
        worth |= {(row.lesson, row.number): value for row in found}
    return Points(worth)


def _is_of(row, lesson, exercise):
    number = row.lesson.partition("_")[0]
    lessons = (row.lesson, number, number.lstrip("0"))
    return lesson in lessons and exercise.casefold() in (row.number, row.exercise.casefold(), "*")


@dataclass
class ClassTable:
    """students: in order. rows: those of each student, for every lesson in order. late: hours that
    the latest of a student's notebooks came after the deadline."""

    students: list[Student]
    rows: dict[Student, list[Row]]
    points: Points
    late: dict[Student, float]

    @property
    def exercises(self) -> list[Row]:
        """A row for each exercise, whoever's."""
        return next(iter(self.rows.values()), [])

    def frame(self) -> pd.DataFrame:
        """One row a student and exercise, with its points and what it is worth."""
        records = [
            (student.label, r.lesson, r.number, r.exercise, r.outcome, r.message, self.points.of(r))
            for student in self.students
            for r in self.rows[student]
        ]
        names = ("student", "lesson", "number", "exercise", "outcome", "message", "worth")
        frame = pd.DataFrame(records, columns=list(names))
        frame["points"] = frame["worth"].where(frame["outcome"] == PASSED, 0.0)
        return frame

    def totals(self) -> pd.DataFrame:
        """Points by student and lesson, students in order."""
        found = self.frame().pivot_table(
            "points", "student", "lesson", aggfunc="sum", observed=True, sort=True
        )
        return found.reindex([student.label for student in self.students]).fillna(0.0)

    def maxima(self) -> pd.Series:
        """What each lesson is worth."""
        pairs = [(row.lesson, self.points.of(row)) for row in self.exercises]
        return pd.DataFrame(pairs, columns=["lesson", "worth"]).groupby("lesson")["worth"].sum()


def grades(table: ClassTable) -> pd.DataFrame:
    """One row a student: the totals, then each lesson's and each exercise's points."""
    totals, maxima = table.totals(), table.maxima()
    frame = table.frame()
    columns = {
        "Student": [_safe(student.name) for student in table.students],
        "ID": [student.id for student in table.students],
        "Total": totals.sum(axis=1).tolist(),
        "Maximum": maxima.sum(),
        "Hours late": [round(table.late.get(student, 0.0), 1) for student in table.students],
    }
    points = frame.set_index(["student", "lesson", "number"])["points"]
    for lesson in totals.columns:
        number = lesson.partition("_")[0]
        columns[f"Lesson {number}"] = totals[lesson].tolist()
        for row in (row for row in table.exercises if row.lesson == lesson):
            places = [(student.label, lesson, row.number) for student in table.students]
            columns[f"{number}.{row.number} {row.exercise}"] = points.loc[places].tolist()
    return pd.DataFrame(columns)


def moodle(table: ClassTable, feedback: dict[Student, str]) -> pd.DataFrame:
    """An assignment's offline grading worksheet, for those whose number Moodle's download tells."""
    totals, maximum = table.totals(), table.maxima().sum()
    records = [
        (
            f"Participant {student.id}",
            _safe(student.name),
            totals.loc[student.label].sum(),
            maximum,
            "-",
            feedback[student].replace("\n", "<br>"),
        )
        for student in table.students
        if student.platform == "Moodle"
    ]
    return pd.DataFrame(records, columns=list(MOODLE))


def canvas(table: ClassTable) -> pd.DataFrame:
    """Canvas's gradebook, an assignment a lesson; it finds students by ID, else by name."""
    totals, maxima = table.totals(), table.maxima()
    lessons = [f"Lesson {lesson.partition('_')[0]}" for lesson in totals.columns]
    first = ["    Points Possible", "", "", "", "", *maxima[totals.columns].tolist()]
    records = [
        [
            _safe(student.name),
            student.id if student.platform == "Canvas" else "",
            *("", "", ""),
            *totals.loc[student.label],
        ]
        for student in table.students
    ]
    return pd.DataFrame([first, *records], columns=[*CANVAS, *lessons])


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """With a mark that tells spreadsheets of UTF-8, and numbers without needless zeros."""
    part = path.with_suffix(".part")
    frame.to_csv(part, index=False, encoding="utf-8-sig", float_format="%g", lineterminator="\r\n")
    part.replace(path)


def _safe(name):
    """A name that a spreadsheet does not take for a formula."""
    return f"'{name}" if name[:1] in "=+-@\t\r" else name
