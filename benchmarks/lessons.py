"""How long each lesson takes from top to bottom: runs the solutions and prints a table.

python benchmarks/lessons.py [01_vit_recap ...]
"""

import argparse
import platform
import time
from datetime import date

import torch

from course import build, lesson_files


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="lessons to run (default: all)")
    names = parser.parse_args().names
    print(f"{date.today()}, {platform.machine()}, {torch.get_num_threads()} cores\n")
    print("| lesson | seconds |\n|---|---|")
    for path in sorted((lesson_files.ROOT / "lessons").glob("*.py")):
        if names and path.stem not in names:
            continue
        notebook = lesson_files.solution_version(lesson_files.read_lesson(path))
        started = time.perf_counter()
        build.execute(notebook, lesson_files.ROOT / "solutions")
        print(f"| {path.stem} | {time.perf_counter() - started:.0f} |", flush=True)


if __name__ == "__main__":
    main()
