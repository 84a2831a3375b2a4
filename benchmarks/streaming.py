"""Images a second and memory of streaming a folder, beside timm's own loader.

python benchmarks/streaming.py FOLDER [--batches 40] [--turns 5] [--workers N] [--json FILE]

FOLDER holds train/<class>/*; large_photographs.py makes one of 20,000 JPEG files. Both read the
same files with as many workers, cut the same random parts (`RandomResizedCrop`, bilinear, 224
pixels), mirror half of them, and give normalised float32 batches on the CPU. They take turns in one
run, with timm's loader as it comes (normalised in its workers) and with its prefetcher (normalised
in batches), of which the faster one counts. Then ours reads everything once, and its memory, of all
processes together (PSS, which counts shared pages once), is looked at every half second.
"""

import argparse
import json
import platform
import statistics
import threading
import time
from datetime import date
from pathlib import Path

import psutil
import torch
from timm.data import ImageDataset, create_loader

from course.augmentation import RandomResizedCrop
from course.data import StreamedImages, load_data
from course.data.memory import default_workers

SIZE, BATCH = 224, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def timms(folder: Path, workers: int, prefetcher: bool):
    """timm's loader, set to the same transforms."""
    return create_loader(
        ImageDataset(str(folder / "train")),
        input_size=(3, SIZE, SIZE),
        batch_size=BATCH,
        is_training=True,
        use_prefetcher=prefetcher,
        color_jitter=None,
        auto_augment=None,
        interpolation="bilinear",
        mean=MEAN,
        std=STD,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=False,
        device=torch.device("cpu"),
    )


def processor_seconds() -> float:
    """What this process and all below it have computed so far, on all cores."""
    process, total = psutil.Process(), 0.0
    for one in [process, *process.children(recursive=True)]:
        times = one.cpu_times()
        total += times.user + times.system
    return total


def speed(batches, count: int, warm_up: int) -> tuple[float, float]:
    """Images a second, and images for a second of a core, over `count` batches.

    Those that are prepared at the start are left out.
    """
    images = 0
    for place, (batch, _) in enumerate(batches):
        if place == warm_up:
            started, computed = time.perf_counter(), processor_seconds()
        if place >= warm_up:
            assert batch.shape[1:] == (3, SIZE, SIZE)
            images += len(batch)
        if place == warm_up + count - 1:
            break
    seconds, computed = time.perf_counter() - started, processor_seconds() - computed
    return images / seconds, images / computed


def memory() -> float:
    """MB of this process and all below it, shared pages counted once."""
    process, total = psutil.Process(), 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except psutil.Error:  # it has just ended
            continue
    return total / 1e6


class Watch(threading.Thread):
    """Looks at the memory every half second until `done` is set."""

    def __init__(self):
        super().__init__(daemon=True)
        self.done, self.samples = threading.Event(), []

    def run(self):
        while not self.done.wait(0.5):
            self.samples.append(memory())


def whole_pass(train: StreamedImages) -> tuple[float, list[float]]:
    """Images a second of reading everything once, and MB every half second."""
    watch, started = Watch(), time.perf_counter()
    watch.start()
    for _ in train.batches(BATCH, shuffle=True, seed=99, augment=RandomResizedCrop()):
        pass
    seconds = time.perf_counter() - started
    watch.done.set()
    watch.join()
    return len(train) / seconds, watch.samples


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--batches", type=int, default=40, help="of 64, in a turn (default: 40)")
    parser.add_argument("--turns", type=int, default=5, help="of each (default: 5)")
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    train, _ = load_data(
        options.folder, SIZE, memory=0, mean=MEAN, std=STD, workers=options.workers
    )
    assert isinstance(train, StreamedImages)
    loaders = {
        "timm": timms(options.folder, options.workers, prefetcher=False),
        "timm, prefetcher": timms(options.folder, options.workers, prefetcher=True),
    }
    speeds = {name: [] for name in [*loaders, "course"]}
    efforts = {name: [] for name in speeds}
    print(f"{date.today()}, {platform.machine()}, {options.workers} workers")
    print(f"{len(train):,} files of {options.folder}\n\nimages a second, turn by turn")
    for turn in range(options.turns):
        for name in speeds:
            source = loaders.get(name)
            if source is None:
                source = train.batches(BATCH, True, turn, augment=RandomResizedCrop())
            rate, effort = speed(source, options.batches, 3 * options.workers)
            speeds[name].append(rate)
            efforts[name].append(effort)
        print("  ".join(f"{name} {values[-1]:.0f}" for name, values in speeds.items()), flush=True)
    faster = max(loaders, key=lambda name: statistics.median(speeds[name]))
    for what, table in (("a second", speeds), ("for a second of a core", efforts)):
        ratios = [a / b for a, b in zip(table["course"], table[faster], strict=True)]
        medians = ", ".join(f"{name} {statistics.median(v):.0f}" for name, v in table.items())
        print(
            f"images {what}: {medians}; ratio to {faster}: {statistics.median(ratios):.2f}", end=""
        )
        print(f" (median), {min(ratios):.2f} to {max(ratios):.2f}", flush=True)
    loaders.clear()  # and their workers
    source = None
    rate, samples = whole_pass(train)
    tenth = max(1, len(samples) // 10)
    first, last = (statistics.mean(part) for part in (samples[tenth : 2 * tenth], samples[-tenth:]))
    print(f"\nall {len(train):,} once: {rate:.0f} images a second; memory of all processes at most")
    print(f"{max(samples):,.0f} MB; {first:,.0f} MB in the second tenth, {last:,.0f} in the last")
    if options.json:
        figures = {"speeds": speeds, "efforts": efforts, "memory": samples, "whole": rate}
        options.json.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
