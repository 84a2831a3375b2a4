"""Files into images: decoded once into memory, or streamed where they would not fit."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from course.data.images import ImageData, Numbers, Statistics, pixel_statistics
from course.data.layout import Listing, Paths, is_first, name_some, say
from course.data.memory import default_workers, memory_budget
from course.data.streaming import NAMED, StreamedImages
from course.data.workers import Decoded, Decoder, Job, WorkerPool

Images = ImageData | StreamedImages

FEW = 500  # files that are read here, since workers would take longer to start
SAMPLE = 2000  # images that stand for a folder's, where looking at all would take long
CHUNK = 64  # files to a worker at a time


@dataclass(frozen=True)
class Reading:
    """How a folder's images are read; `load_folder` says what each of these is."""

    image_size: int
    memory: str | int | None = None
    mean: Numbers | None = None
    std: Numbers | None = None
    crop_share: float = 1.0
    interpolation: str = "bilinear"
    workers: int | None = None

    def __post_init__(self):
        if (self.mean is None) != (self.std is None):
            raise ValueError("give mean and std together, or neither")
        if not 0 < self.crop_share <= 1:
            raise ValueError(f"crop_share={self.crop_share}: from above 0 to 1")
        if self.interpolation not in {"bilinear", "bicubic"}:
            raise ValueError(f"interpolation={self.interpolation!r}: bilinear or bicubic")
        memory_budget(self.memory)  # says what is wrong with it

    def load(self, *splits: Listing) -> list[Images]:
        """Each split's images, all in memory or all streamed; mean and std are the first one's."""
        for split in splits:
            check_classes(split, set(split.targets))
        try:
            return self.load_at(splits, [self.stored_side(split) for split in splits])
        except SidesDiffer:
            return self.load_at(splits, [self.image_size] * len(splits))

    def load_at(self, splits: Sequence[Listing], sides: list[int]) -> list[Images]:
        """The splits' images as squares of these sides in memory, or streamed."""
        needed = sum(len(s.names) * 3 * side**2 for s, side in zip(splits, sides, strict=True))
        budget = memory_budget(self.memory)
        if needed <= budget:
            return self.keep(splits, sides)
        workers = default_workers() if self.workers is None else self.workers
        say(
            f"{sum(len(split.names) for split in splits):,} images would take {in_bytes(needed)},"
            f" more than the {in_bytes(budget)} that they may: streamed by {workers} workers"
        )
        first = self.stream_first(splits[0])
        return [first, *(self.stream(split, first) for split in splits[1:])]

    def keep(self, splits: Sequence[Listing], sides: list[int]) -> list[Images]:
        """The splits in memory; mean and std are the first one's."""
        loaded: list[Images] = []
        statistics, depth = self.statistics, 8
        for split, side in zip(splits, sides, strict=True):
            images, targets, depth = self.read(split, side, depth)
            statistics = statistics or pixel_statistics(images)
            loaded.append(
                ImageData(
                    images, targets, split.classes, *statistics, self.image_size, self.interpolation
                )
            )
        return loaded

    @property
    def statistics(self) -> Statistics | None:
        """Mean and std, where they are given."""
        return None if self.mean is None or self.std is None else (self.mean, self.std)

    def stored_side(self, split: Listing) -> int:
        """The side of the squares to keep: the images' own, if a sample has one that is smaller."""
        sides = set()
        for name in split.names[:: max(1, len(split.names) // SAMPLE)]:
            with suppress(Exception), Image.open(split.root / name) as image:
                sides.add(min(image.size))  # of what can be read
            if len(sides) > 1:
                break
        own = sides.pop() if len(sides) == 1 else self.image_size
        return min(own, self.image_size) if self.crop_share == 1 else self.image_size

    def read(self, split: Listing, side: int, depth: int = 8) -> tuple[Tensor, Tensor, int]:
        """uint8 [N, 3, side, side], targets int64 [N], and the bits a value of the deepest.

        These are all that can be read; `depth` is what the bits are at least. Raises `SidesDiffer`
        where a side of less than `image_size` is not that of all images.
        """
        count = len(split.names)
        images = torch.empty(count, 3, side, side, dtype=torch.uint8)
        failed: dict[int, str] = {}
        depths: dict[int, int] = {}
        numbers = np.arange(count)
        for job, batch in self.read_some(split, side, numbers, depth):
            if side < self.image_size and batch.sides - {side}:
                raise SidesDiffer
            images[job.indices] = torch.as_tensor(batch.images)
            failed |= batch.failed
            depths |= batch.depths
        deepest = max(depths.values(), default=depth)
        shallow = np.array([i for i, bits in depths.items() if bits < deepest], dtype=np.int64)
        if len(shallow):  # they are of a kind with the others, only darker
            for job, batch in self.read_some(split, side, shallow, deepest):
                images[job.indices] = torch.as_tensor(batch.images)
        if depths:
            say(f"{len(depths):,} images in {split.root} were taken to have {deepest} bits a value")
        names = {split.names[i]: reason for i, reason in failed.items()}
        report_skipped(split.root, names | split.skipped, count + len(split.skipped))
        targets = torch.tensor(split.targets)
        if failed:
            kept = np.setdiff1d(numbers, list(failed))
            check_classes(split, set(targets[kept].tolist()))
            for goal, number in enumerate(kept.tolist()):  # in place: there may be no second room
                images[goal] = images[number]
            images, targets = images[: len(kept)], targets[kept]
        return images, targets, deepest

    def read_some(
        self, split: Listing, side: int, numbers: np.ndarray, depth: int
    ) -> Iterator[tuple[Job, Decoded]]:
        """(job, batch) for the files with these numbers, behind a progress bar."""
        workers = default_workers() if self.workers is None else self.workers
        decoder = Decoder(
            Paths(split.root, split.names),
            np.array(split.targets),
            side,
            self.crop_share,
            self.interpolation,
            depth,
            stand_ins=False,
        )
        workers = 0 if len(numbers) < FEW else workers
        jobs = [Job(part) for part in np.split(numbers, range(CHUNK, len(numbers), CHUNK))]
        pool = WorkerPool(decoder, workers, False, CHUNK * 3 * side**2)
        with tqdm(
            total=len(numbers), desc=f"Reading {split.root}", leave=False, mininterval=0.5
        ) as bar:
            for job, batch in zip(jobs, pool.run(jobs), strict=True):
                yield job, batch
                bar.update(len(job.indices))

    def stream(self, split: Listing, like: StreamedImages | None = None) -> StreamedImages:
        """A split that is streamed, with another one's mean, std and depth."""
        report_skipped(split.root, split.skipped, len(split.names) + len(split.skipped))
        mean, std = (like.mean, like.std) if like else self.statistics or ((0.5,) * 3, (0.5,) * 3)
        return StreamedImages(
            Paths(split.root, split.names),
            torch.tensor(split.targets),
            split.classes,
            mean,
            std,
            self.image_size,
            self.interpolation,
            self.crop_share,
            self.workers,
            like.depth if like else 8,
        )

    def stream_first(self, split: Listing) -> StreamedImages:
        """A split that is streamed; a sample says its mean and std, if they are not given."""
        stream = self.stream(split)
        if self.statistics:
            return stream
        some = torch.randperm(len(stream), generator=torch.Generator().manual_seed(0))[:SAMPLE]
        say(f"mean and std of {split.root} are those of {len(some):,} of its images")
        return stream.with_statistics_of(some.sort().values)


class SidesDiffer(Exception):
    """The images do not all have one size, as their sample had."""


def check_classes(split: Listing, found: set[int]) -> None:
    """ValueError where a class folder has no image."""
    if empty := [split.classes[target] for target in split.present if target not in found]:
        raise ValueError(f"no readable image in {split.root} for {name_some(empty)}: add some")


def report_skipped(root: Path, skipped: dict[str, str], total: int) -> None:
    """One warning that counts the files of `total` that were left out, and says why."""
    if not skipped or not is_first():
        return
    lines = [f"  {name}: {reason}" for name, reason in list(skipped.items())[:NAMED]]
    if len(skipped) > NAMED:
        lines.append(f"  and {len(skipped) - NAMED:,} more")
    head = f"skipped: {len(skipped):,} of {total:,} files in {root} are no readable images"
    warnings.warn("\n".join([head, *lines]), stacklevel=6)  # points to who called load_data


def in_bytes(size: float) -> str:
    """A size as one reads it: "512 MB", "4.0 GB"."""
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{size / 2**20:.0f} MB"
