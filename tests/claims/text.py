"""The numbers in a lesson's prose, and what stands behind each of them."""

import json
import re

from course import lesson_files
from tests.checks import harness
from tests.claims import ledger

# What a run gives is written with a decimal point, a thousands separator, a percent sign or a unit.
# Bare whole numbers ("3 x 3", "section 2", "7 tokens") are definitions and the arithmetic on them.
UNITS = (
    "ms|s|seconds?|minutes?|hours?|days?|million|billion|k|M|B|G|kB|MB|GB|[MGT]FLOPs?|times|points?"
)
UNITS += "|percent|parameters|multiplications|mistakes|errors"
NUMBER = re.compile(
    rf"(?<![\w.,])-?(?:\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|\d+\.\d+|\d+(?=[\s-]?(?:{UNITS})\b|x\b|\s?%))"
)
NO_NUMBERS = (
    r"\[[^\]]*\]\(https?://[^)]*\)",  # papers: arXiv 2106.04803
    r"`[^`]*`",  # code
    r"\(\d+ min, [★☆]+\)",  # exercises
    r"Plan on \*\*\d+ minutes\*\*[^.]*\.",  # proved by itself, in test_claims
)


def numbers_in(prose: str) -> list[tuple[int, str]]:
    """(place, number) of each number that states a result, such as "1,024", "4.6" or "71"."""
    for pattern in NO_NUMBERS:
        prose = re.sub(pattern, lambda found: " " * len(found[0]), prose)
    return [(found.start(), found[0]) for found in NUMBER.finditer(prose)]


def numbers_shown(number: int) -> set[float]:
    """All numbers that the stored outputs of a lesson's solution print; 71 for 0.71, too."""
    path = lesson_files.ROOT / "solutions" / f"{harness.lesson(number).name}.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    printed = " ".join("".join(output.get("text", [])) for output in outputs)
    found = re.findall(r"\d[\d,]*(?:\.\d+)?(?:e[-+]\d+)?", printed)
    values = {float(value.replace(",", "")) for value in found}
    return values | {round(100 * value, 6) for value in values}


def unfounded(number: int) -> list[str]:
    """The numbers in a lesson's prose that nothing stands behind, each with the words around it."""
    prose, shown = ledger.text_of(number), numbers_shown(number)
    quoted = [q for claim in ledger.claims(number) for q in claim.sentences]
    founded = [
        range(prose.find(quote), prose.find(quote) + len(quote))
        for quote in [*quoted, *ledger.table(number).DEFINED]
    ]
    return [
        f"{value}: ... {prose[max(0, place - 60) : place + 40]} ..."
        for place, value in numbers_in(prose)
        if abs(float(value.replace(",", ""))) not in shown
        and not any(place in span for span in founded)
    ]
