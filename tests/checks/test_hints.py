"""A sample of the hints, of which each must be shown; `python -m tests.checks.hints` tries all."""

import pytest

from tests.checks import hints
from tests.checks.harness import lesson, lessons

SAMPLE = 3  # an exercise
OPEN = {  # hints that other ones of the same exercise still hide
    "stage",
    "mbconv-rw",
    "coatnet-staged",
    "coatnet-rw",
    "soft",
    "shift",
}
CASES = [
    (found, exercise) for found in lessons() for exercise in found.checks if exercise not in OPEN
]


@pytest.mark.parametrize(("lesson", "exercise"), CASES, ids=[exercise for _, exercise in CASES])
def test_hints_are_shown_for_their_mistake(lesson, exercise):
    found = hints.hidden(lesson, exercise, SAMPLE)
    assert not found, found


def test_a_hint_that_another_hides_would_show(monkeypatch):
    right = hints.comparisons

    def doubled(*args):
        (function, given, options), *_ = right(*args)
        (_, mistake), *others = given[3]
        return [
            (function, (*given[:3], [("first", mistake), ("second", mistake), *others]), options)
        ]

    monkeypatch.setattr(hints, "comparisons", doubled)
    assert hints.hidden(lesson(1), "feed-forward") == {"second": "first"}
