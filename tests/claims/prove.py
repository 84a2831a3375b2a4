"""Proves all claims and writes the table of them: `python -m tests.claims.prove [lesson ...]`."""

import argparse
import concurrent.futures
import multiprocessing
import os
import re
import time
from datetime import date

import torch
from tqdm import tqdm

from course import lesson_files
from tests.claims import ledger

RESULTS = lesson_files.ROOT / "benchmarks" / "claims.md"
HEADER = """# What the lessons claim of runs

Each sentence is quoted from a lesson and proved in `tests/claims/lessonNN.py`, over seeds and over
two accepted ways to write the answers. Written by `make claims`, or for some lessons by
`python -m tests.claims.prove 3 4`; a lesson's part has the date of its last run. The margin is that
of the run which comes nearest to breaking the sentence, as a share of the bound; "exact": a count.
"""
COLUMNS = "| claim | runs | held | nearest to its bound | margin |\n|---|---|---|---|---|\n"


def prove(job):
    """The facts of all claims that one reading of a lesson serves: {claim's place: facts}."""
    number, style, seed = job
    torch.set_num_threads(1)
    found = {}
    for place, claim in enumerate(ledger.claims(number)):
        if (style, seed) in claim.readings:
            found[place] = claim.facts(number, style, seed)
    ledger.reading.cache_clear()
    return number, found


def prove_all(numbers):
    """For each lesson a list with the facts of each run of each claim."""
    jobs = {(n, *r): 0 for n in numbers for claim in ledger.claims(n) for r in claim.readings}
    results = {n: [[] for _ in ledger.claims(n)] for n in numbers}
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
        runs = [pool.submit(prove, job) for job in jobs]
        for run in tqdm(concurrent.futures.as_completed(runs), "Readings", len(runs)):
            number, found = run.result()
            for place, facts in found.items():
                results[number][place].append(facts)
                for fact in facts:
                    if not fact.holds:
                        tqdm.write(f"lesson {number}, {ledger.claims(number)[place].name}: {fact}")
    return results


def row(claim, runs):
    """A line of the table, and its thinnest fact."""
    held = sum(all(fact.holds for fact in facts) for facts in runs)
    thinnest = min((fact for facts in runs for fact in facts), key=lambda fact: fact.margin)
    margin = "exact" if thinnest.margin > 1e9 else f"{thinnest.margin:.0%}"
    text = " ... ".join(claim.sentences).replace("|", r"\|")
    nearest = f"{thinnest.what}: {thinnest.value:,.4g} {thinnest.bound}"
    return f"| {text} | {len(runs)} | {held} | {nearest} | {margin} |", thinnest, held == len(runs)


def sections(path):
    """A written table's sections by lesson."""
    if not path.exists():
        return {}
    parts = re.split(r"^## Lesson (\d+)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {
        int(n): f"## Lesson {n}{text}" for n, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.claims.prove", description=__doc__)
    parser.add_argument("lessons", nargs="*", type=int, help="numbers of lessons (default: all)")
    numbers = parser.parse_args().lessons or ledger.numbers()
    started = time.perf_counter()
    results = prove_all(numbers)
    found, rows = sections(RESULTS), []
    for number in numbers:
        lines = [row(*pair) for pair in zip(ledger.claims(number), results[number], strict=True)]
        rows += [(number, *line) for line in lines]
        today = f"{date.today()}, torch {torch.__version__}"
        text = "\n".join(line for line, *_ in lines)
        found[number] = f"## Lesson {number}\n\n{today}\n\n{COLUMNS}{text}\n\n"
    body = "".join(found[number].rstrip() + "\n\n" for number in sorted(found))
    RESULTS.write_text(f"{HEADER}\n{body}".rstrip() + "\n", encoding="utf-8", newline="\n")

    print(f"\n{len(rows)} claims in {time.perf_counter() - started:.0f} s. The thinnest margins:")
    for number, line, thinnest, _ in sorted(rows, key=lambda r: r[2].margin)[:3]:
        print(f"  {thinnest.margin:6.0%}  lesson {number}: {line.split('|')[1].strip()[:90]}")
    broken = [f"lesson {number}: {line}" for number, line, _, holds in rows if not holds]
    if broken:
        raise SystemExit("\n".join(["These do not hold:", *broken]))


if __name__ == "__main__":
    main()
