"""Is every hint that the checks hold ready shown to someone: to whoever makes that mistake?

    python -m tests.checks.hints [EXERCISE ...]

Makes each known mistake in the reference, hands that to the same comparison as an answer, and
prints the hints that its message does not show. The suite takes a sample.
"""

import copy
import io
import random
import sys
from contextlib import redirect_stdout, suppress
from unittest.mock import patch

from course.checking import CheckFailed
from course.checking.guard import no_trace
from course.comparing import compare, compare_calls
from tests.checks.harness import lessons


def comparisons(lesson, exercise: str) -> list[tuple]:
    """The calls of compare and compare_calls that a check makes of the solution."""
    module, calls = sys.modules[lesson.checks[exercise][0].__module__], []

    def watching(function):
        def watched(*args, **kwargs):
            calls.append((function, args, kwargs))
            return function(*args, **kwargs)

        return watched

    with (
        patch.object(module, "compare", watching(compare), create=True),
        patch.object(module, "compare_calls", watching(compare_calls), create=True),
        redirect_stdout(io.StringIO()),
    ):
        lesson.run_check(exercise, lesson.solutions[exercise])
    return calls


def with_mistake(function, reference, mistake):
    """An answer with that mistake in the reference."""
    if function is compare_calls:
        return mistake

    def answer(**arguments):
        if hasattr(mistake, "build"):
            return mistake.build()
        module = copy.deepcopy(reference(**arguments))
        mistake(module)
        return module

    return answer


def hidden(lesson, exercise: str, sample: int | None = None) -> dict[str, str]:
    """The hints of an exercise that are not shown, each with what is said instead."""
    shown, chosen = {}, None
    calls = comparisons(lesson, exercise)
    known = list(dict.fromkeys(hint for _, args, _ in calls for hint, _ in args[3]))
    if sample is not None:
        chosen = set(random.Random(exercise).sample(known, min(sample, len(known))))
    for function, (_, reference, given, mistakes, *rest), options in calls:
        for hint, mistake in mistakes:
            if shown.get(hint) == hint or (chosen is not None and hint not in chosen):
                continue
            answer = with_mistake(function, reference, mistake)
            with no_trace(), suppress(Exception):  # it cannot be made at these sizes
                try:
                    function(answer, reference, given, mistakes, *rest, **options)
                except CheckFailed as failure:
                    shown[hint] = failure.rows["likely"]
    return {
        hint: shown.get(hint, "passes")
        for hint in known
        if shown.get(hint) != hint and (chosen is None or hint in chosen)
    }


def main(exercises: list[str]) -> int:
    count = 0
    for lesson in lessons():
        for exercise in lesson.checks:
            if exercises and exercise not in exercises:
                continue
            for hint, instead in hidden(lesson, exercise).items():
                count += 1
                print(f"{exercise}: {hint}\n    -> {instead}", flush=True)
    print(f"{count} hints are not shown")
    return count > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
