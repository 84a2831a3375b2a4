"""Checks catch small changes of a solution that nobody wrote down: a sample of mutants.py."""

import random

import numpy as np
import pytest
import torch

from tests.checks import mutants
from tests.checks.harness import lessons

SAMPLE = 6  # an exercise; `python -m tests.checks.mutants` runs all of them
CASES = [(lesson, exercise) for lesson in lessons() for exercise in lesson.checks]


@pytest.mark.slow
@pytest.mark.parametrize(("lesson", "exercise"), CASES, ids=[exercise for _, exercise in CASES])
def test_mutants_are_caught(lesson, exercise):
    found = [
        mutant
        for mutant in mutants.mutants(lesson.solutions[exercise])
        if not mutants.is_equivalent(exercise, mutant)
    ]
    assert len(found) >= SAMPLE
    for mutant in random.Random(0).sample(found, SAMPLE):
        before = torch.get_rng_state()
        result = mutants.try_out(lesson.run_check, exercise, mutant)
        assert result.outcome == "caught", f"{mutant.line}\n{result.message}"
        assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("lesson", "exercise"), CASES, ids=[exercise for _, exercise in CASES])
def test_a_check_leaves_random_states_and_settings_alone(lesson, exercise):
    def state():
        settings = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
        legacy = str(np.random.get_state())  # noqa: NPY002 (what a student may use)
        numbers = torch.get_rng_state().tolist(), random.getstate(), legacy
        return settings, numbers, torch.is_grad_enabled(), torch.get_default_dtype()

    threads = torch.get_num_threads()
    torch.set_num_threads(3)  # which no check sets; in pytest's workers it is 1, as in some checks
    before = state()
    lesson.run_check(exercise, lesson.solutions[exercise])
    after = state()
    torch.set_num_threads(threads)
    assert after == before


def test_every_kind_of_change_is_made():
    source = """
def f(x, deep=True):
    y = nn.Sequential(nn.Linear(3, 4, bias=False), nn.GELU())
    x = x + y(x).mean(dim=1)
    return x.flatten(2) if deep else x
"""
    texts = {mutant.source for mutant in mutants.mutants(source)}
    for change in (
        "deep=False",
        "nn.Linear(3, 4)",
        "nn.Linear(4, 3, bias=False)",
        "nn.ReLU()",
        "Sequential(nn.GELU())",
        "x = x - y(x)",
        "x = y(x).mean(dim=1)\n",
        "mean(dim=2)",
        "y(x).sum(dim=1)",
        "return x.flatten(2)\n",
        "flatten(3)",
        "return x if deep else x",
        "pass\n",
    ):
        assert any(change in text + "\n" for text in texts), change


@pytest.mark.slow
def test_equivalent_mutants_still_exist():
    """A reason in the table that fits no mutant any more is a leftover."""
    lines = {
        (exercise, mutant.line)
        for lesson, exercise in CASES
        for mutant in mutants.mutants(lesson.solutions[exercise])
    }
    assert set(mutants.EQUIVALENT) <= lines


@pytest.mark.slow
def test_the_designs_pitfalls_are_named():
    assert [pitfall for pitfall, named in mutants.pitfalls() if not named] == []
