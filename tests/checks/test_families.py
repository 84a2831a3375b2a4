"""A sample of the table of families; `python -m tests.checks.families` prints all of it."""

import random

import pytest

from tests.checks.families import FAMILIES, SENSELESS, Family, try_family
from tests.checks.harness import lessons

SAMPLE = 3  # families an exercise, others for each
CASES = [(lesson, exercise) for lesson in lessons() for exercise in lesson.checks]


@pytest.mark.parametrize(("lesson", "exercise"), CASES, ids=[exercise for _, exercise in CASES])
def test_families_are_told_apart(lesson, exercise):
    for family in random.Random(exercise).sample(FAMILIES, SAMPLE):
        cell = try_family(lesson, exercise, family)
        assert cell.mark in ("ok", "-"), f"{family.name}: {cell.mark}\n{cell.message}"


def test_a_family_that_changes_nothing_would_show():
    lesson, exercise = CASES[0]
    harmless = Family("harmless", False, "def built(self):\n    touched()")
    assert try_family(lesson, exercise, harmless).mark == "HOLE"
    broken = Family("broken", True, "def built(self):\n    self.register_parameter(None, 3)")
    assert try_family(lesson, exercise, broken).mark == "NO"


def test_reasons_are_of_exercises_and_families_that_exist():
    exercises = {exercise for _, exercise in CASES}
    for exercise, family in SENSELESS:
        assert exercise in exercises
        assert family in {f.name for f in FAMILIES}
