"""A folder of large JPEG files, made from small photographs: what streaming is measured on.

python benchmarks/large_photographs.py FOLDER [--count 20000] [--photographs FOLDER]

Each photograph is enlarged to about 500 x 375 pixels and gets the grain of a film, so that a file
is as large, and takes as long to decode, as a photograph of that size: about 60 kB. They lie as
train/<class>/* and test/<class>/*, one in ten in test. The small ones are CIFAR-10 as JPEG files,
which the course's developers keep in ../shared/data, or those of another folder.
"""

import argparse
import sys
import tarfile
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

ARCHIVE = Path(__file__).parents[2] / "shared" / "data" / "cifar10-images.tar.gz"
GRAIN = 8  # standard deviation, of 256 levels


def enlarge(job: tuple[Path, Path], seed: int = 0) -> None:
    """Writes a large copy of the first file as the second one."""
    source, goal = job
    rng = np.random.default_rng([seed, *goal.name.encode()])
    width, height = 500 + rng.integers(-20, 21), 375 + rng.integers(-20, 21)
    image = Image.open(source).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    grain = rng.standard_normal((height, width, 3), dtype=np.float32) * GRAIN
    pixels = (np.asarray(image) + grain).clip(0, 255).astype(np.uint8)
    beside = goal.with_suffix(".part")
    Image.fromarray(pixels).save(beside, "jpeg", quality=90)
    beside.rename(goal)  # so that what an interrupted run left is whole


def plan(photographs: Path, folder: Path, count: int) -> list[tuple[Path, Path]]:
    """(small file, large file) for `count` of them, as many of each class and one in ten a test."""
    classes = sorted(path for path in (photographs / "train").iterdir() if path.is_dir())
    jobs = []
    for source in classes:
        small = sorted(source.iterdir())
        for number in range(count // len(classes)):
            split = "test" if number % 10 == 9 else "train"
            goal = folder / split / source.name / f"{number:05d}.jpg"
            jobs.append((small[number % len(small)], goal))
    return jobs


def make(folder: Path, count: int = 20_000, photographs: Path | None = None) -> None:
    """Fills `folder`; what is there already stays."""
    if photographs is None and not ARCHIVE.exists():
        sys.exit(f"{ARCHIVE.name} is not here: name a folder of photographs with --photographs")
    with tempfile.TemporaryDirectory() as scratch:
        if photographs is None:
            with tarfile.open(ARCHIVE) as archive:
                archive.extractall(scratch, filter="data")
        jobs = plan(photographs or Path(scratch), folder, count)
        jobs = [job for job in jobs if not job[1].exists()]
        for parent in {goal.parent for _, goal in jobs}:
            parent.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor() as pool:
            done = pool.map(partial(enlarge), jobs, chunksize=32)
            list(tqdm(done, f"Making {folder}", total=len(jobs)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=20_000, help="files (default: 20,000)")
    parser.add_argument("--photographs", type=Path, help=f"default: unpacks {ARCHIVE.name}")
    options = parser.parse_args()
    make(options.folder, options.count, options.photographs)


if __name__ == "__main__":
    main()
