"""What a check may say, and how a notebook shows it: a few lines, never a traceback."""

import textwrap
from typing import Any

WIDTH = 95  # notebooks break longer lines in mid-word
LABEL = 12  # columns before a row's text


class Shown(Exception):
    """An outcome that a notebook shows as its message alone, without a traceback."""

    def _render_traceback_(self) -> list[str]:  # IPython asks for this before it formats one
        return str(self).splitlines()  # no colours: they clash with one theme or the other


class NotAttempted(Shown):
    """The exercise still holds its placeholder."""

    def __str__(self) -> str:
        return wrapped(super().__str__())


class CheckFailed(Shown):
    """The answer is wrong: what was expected, what came, the likeliest mistake, where to look.

    shapes: of the two tensors that could not be put together, where that is what happened.
    """

    def __init__(
        self,
        expected: Any,
        came: Any,
        likely: str = "",
        look_at: str = "",
        title: str = "",
        shapes: tuple = (),
    ):
        self.rows = {"expected": expected, "came": came, "likely": likely, "look at": look_at}
        self.title = title
        self.notes: list[str] = []
        self.shapes = shapes
        super().__init__(expected, came)

    def __str__(self) -> str:
        lines = [f"✗ {self.title}"]
        for label, text in self.rows.items():
            if str(text):
                lines.append(f"  {label:<{LABEL - 2}}{wrapped(text, LABEL).lstrip()}")
        lines += [f"  ({wrapped(note, 3).lstrip()})" for note in self.notes]
        return "\n".join(lines)


class CheckBroke(Shown):
    """The check itself failed, on an answer that its author did not think of."""

    def __init__(self, title: str, error: Exception):
        super().__init__(title, error)
        self.title, self.error = title, error

    def __str__(self) -> str:
        said = f"{type(self.error).__name__}: {self.error}".strip()
        return "\n".join(
            [
                f"! {self.title}: the check itself broke off; that says nothing of your answer.",
                f"  It said   {wrapped(textwrap.shorten(said, 200), LABEL).lstrip()}",
                "  Go on with the next cells; a report of this and your cell helps the course.",
            ]
        )


def wrapped(text: Any, indent: int = 0) -> str:
    """The text in lines of at most WIDTH columns, all of them indented. Line breaks stay."""
    room = WIDTH - indent
    lines = []
    for line in str(text).splitlines() or [""]:
        hanging = " " * (len(line) - len(line.lstrip()))
        lines += textwrap.wrap(
            line,
            room,
            subsequent_indent=hanging,
            break_long_words=False,
            break_on_hyphens=False,
        ) or [""]
    return textwrap.indent("\n".join(lines), " " * indent)
