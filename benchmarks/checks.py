"""How long a check takes, passing and failing: CPU seconds with one thread.

    python -m benchmarks.checks [EXERCISE ...] [--mutants]

Checks each solution, and each wrong answer of tests/checks/answers; with --mutants also every small
change that tests/checks/mutants.py makes. Prints a row for each exercise, and the slowest of all.
Only the check itself is timed, not the definition of the answer. The first check of a process also
imports what it needs, so each solution is checked twice, and the second time counts.
"""

import argparse
import io
import time
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress

import torch

from tests.checks.harness import Lesson, changed, define, lessons
from tests.checks.mutants import SECONDS, limit, mutants


def seconds(lesson: Lesson, exercise: str, source: str) -> float:
    """CPU seconds of one check, whatever it says."""
    namespace = lesson.solved(until=exercise)
    define(lesson.given, namespace)
    check, answer = lesson.checks[exercise]
    try:
        define(source, namespace)
    except NameError:  # no answer at all
        return 0.0
    start = time.process_time()
    with limit(SECONDS), redirect_stdout(io.StringIO()), suppress(Exception):
        check(namespace[answer])
    return time.process_time() - start


def wrong_answers(lesson: Lesson, exercise: str, every: bool) -> Iterator[tuple[str, str]]:
    """Pairs (what is changed, the answer's source)."""
    solution = lesson.solutions[exercise]
    for _, old, new, _ in (row for row in lesson.wrong if row[0] == exercise):
        yield new, changed(solution, old, new)
    for _, edits, _ in (row for row in lesson.several if row[0] == exercise):
        source = solution
        for old, new in edits:
            source = source.replace(old, new)
        yield edits[0][1], source
    if every:
        for mutant in mutants(solution):
            yield mutant.line, mutant.source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exercises", nargs="*", help="such as mbconv (default: all)")
    parser.add_argument("--mutants", action="store_true", help="every mutant as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| exercise | passing, s | failing, s | slowest failing of |\n|---|---|---|---|")
    slowest = {"passing": (0.0, ""), "failing": (0.0, "")}
    for lesson in lessons():
        for exercise in lesson.checks:
            if options.exercises and exercise not in options.exercises:
                continue
            solution = lesson.solutions[exercise]
            passing = [seconds(lesson, exercise, solution) for _ in range(2)][1]
            times = [
                (seconds(lesson, exercise, source), " ".join(what.split()))
                for what, source in wrong_answers(lesson, exercise, options.mutants)
            ]
            failing, what = max(times)
            print(f"| {exercise} | {passing:.2f} | {failing:.2f} | {len(times)} |", flush=True)
            slowest["passing"] = max(slowest["passing"], (passing, exercise))
            slowest["failing"] = max(slowest["failing"], (failing, f"{exercise}: {what[:90]}"))
    for kind, (value, what) in slowest.items():
        print(f"slowest {kind}: {value:.2f} s, {what}")


if __name__ == "__main__":
    main()
