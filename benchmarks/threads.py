"""PyTorch's threads on a quiet and on a busy machine, by their settings.

    .venv/bin/python benchmarks/threads.py

20 steps of a small ViT, and coatnet_0_224's forward pass, beside no, one and four other processes
that never rest. Settings take turns, each in a process of its own; the table has the median of the
rounds. What takes longer than --limit seconds is stopped there.
"""

import argparse
import os
import statistics
import subprocess
import sys

SETTINGS = {
    "PyTorch's default": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "the course's": {"COURSE": "1"},
}
WORK = """
import os, time
if os.environ.get("COURSE"):
    import course
import torch
from coatnet import create_model
from course.models import make_vit, make_optimizer
torch.manual_seed(0)
if {what!r} == "vit":
    model = make_vit(100, 32)
    optimizer = make_optimizer(model, 1e-3, 0.05)
    images, targets = torch.randn(32, 3, 32, 32), torch.arange(32)
    def work():
        for _ in range(20):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), targets).backward()
            optimizer.step()
else:
    model, images = create_model("coatnet_0_224").eval(), torch.randn(1, 3, 224, 224)
    def work():
        with torch.no_grad():
            model(images)
work()
times = []
for _ in range({repeats}):
    started = time.perf_counter()
    work()
    times.append(time.perf_counter() - started)
print(sorted(times)[len(times) // 2])
"""


def seconds(what, setting, limit, repeats=3):
    """The median time of the work, in a new process with these variables; `limit` if it is over."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    command = [sys.executable, "-c", WORK.format(what=what, repeats=repeats)]
    environment = kept | SETTINGS[setting]
    try:
        shown = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return float(limit)
    return float(shown.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--limit", type=int, default=90, help="seconds a measurement (default: 90)")
    args = parser.parse_args()
    print(f"{os.cpu_count()} cores; seconds, and how many times those of the best setting\n")
    print("| | other processes | " + " | ".join(SETTINGS) + " |")
    print("|---" * (2 + len(SETTINGS)) + "|")
    for what, name in (("vit", "20 steps of a ViT"), ("coatnet", "coatnet_0 forward")):
        for others in (0, 1, 4):
            busy = [
                subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(others)
            ]
            times = {setting: [] for setting in SETTINGS}
            try:
                for _ in range(args.rounds):
                    for setting, found in times.items():
                        found.append(seconds(what, setting, args.limit))
            finally:
                for process in busy:
                    process.kill()
                    process.wait()
            medians = {setting: statistics.median(found) for setting, found in times.items()}
            best = min(medians.values())
            row = [
                f"{'over ' if value >= args.limit else ''}{value:.2f} ({value / best:.2f}x)"
                for value in medians.values()
            ]
            print(f"| {name} | {others} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
