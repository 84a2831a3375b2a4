"""What became of an exercise, and how to say it in one line."""

import re
from dataclasses import dataclass

from course.classroom.planning import Step

PASSED, FAILING = "passed", "failing"
NOT_ATTEMPTED, NOT_SUBMITTED = "not attempted", "not submitted"
MARKS = {PASSED: "✓", FAILING: "✗", NOT_ATTEMPTED: "○", NOT_SUBMITTED: "-"}


@dataclass(frozen=True)
class Row:
    """What became of one exercise; `message` is one line, empty where there is nothing to say."""

    lesson: str
    number: str
    exercise: str
    outcome: str = FAILING
    message: str = ""


@dataclass(frozen=True)
class Failure:
    """How a cell ended: the exception's name and message. Without a name it did not end by itself,
    but was stopped or took its process with it."""

    name: str
    message: str


def verdict(step: Step, failure: Failure | None, troubles: dict) -> tuple[str, str]:
    """The outcome of a check and one line about it.

    troubles: (exercise, in its cells or below them) -> the first failure there.
    """
    in_answer = troubles.get((step.exercise, True))
    answer = step.exercise.answer if step.exercise else ""
    if failure is None:
        return PASSED, step.note
    if failure.name == "NotAttempted":
        outcome, message = NOT_ATTEMPTED, open_still(failure.message)
        if in_answer:
            outcome, message = FAILING, in_answer
    elif failure.name == "CheckFailed":
        outcome, message = FAILING, gist(failure.message)
    elif failure.name == "NameError" and f"'{answer}'" in failure.message:
        missing = f"the notebook has no {answer}: was its cell deleted?"
        outcome, message = FAILING, in_answer or missing
    else:
        outcome, message = FAILING, said(failure)
    below = troubles.get((step.exercise, False))
    below = below and f"a cell below it fails: {below}"
    return outcome, "; ".join(filter(None, (message, below, step.note)))


def open_still(message: str) -> str:
    """What is left to do, or "" where nothing is begun: that stands in the outcome."""
    text = first_line(message)
    text = text.partition(": ")[2] if text.startswith("○ ") else text
    return "" if text.startswith("not attempted yet") else text


def gist(message: str) -> str:
    """The most useful line of what a failed check says."""
    rows = dict(
        re.findall(r"^  (expected|came|likely) +(.*(?:\n {4,}.*)*)$", message, re.MULTILINE)
    )
    rows = {label: re.sub(r"\s*\n\s+", " ", text) for label, text in rows.items()}
    came = f"expected {rows.get('expected', '')}, came {rows.get('came', '')}"
    return first_line(rows.get("likely") or came)


def said(failure: Failure) -> str:
    """A failure in one line."""
    if failure.name == "StdinNotImplementedError":
        return "it waits for input(), and nobody is there to type"
    # The cell is named by a file that nobody knows
    text = re.sub(
        r"\(\S+\.py, line (\d+)\)$", r"(line \1 of its cell)", first_line(failure.message)
    )
    return ": ".join(filter(None, (failure.name, text)))


def first_line(text: str) -> str:
    """The first line with something in it, without colours and at a length that fits a table."""
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).encode("utf-8", "replace").decode()
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    line = "".join(letter if letter.isprintable() else " " for letter in line)
    return line if len(line) <= 300 else f"{line[:299]}…"


def counts(rows: list[Row]) -> dict[str, int]:
    """How many rows there are of each outcome that there is."""
    found = {outcome: sum(row.outcome == outcome for row in rows) for outcome in MARKS}
    return {outcome: number for outcome, number in found.items() if number}


def summary(rows: list[Row]) -> str:
    parts = [f"{number} {outcome}" for outcome, number in counts(rows).items()]
    return f"{len(rows)} exercises: {', '.join(parts)}"
