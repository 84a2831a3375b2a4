"""One split of a dataset that is larger than memory: its files are decoded as they are needed."""

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from course.augmentation import RandomResizedCrop
from course.data.images import (
    Augment,
    Batches,
    Mix,
    Numbers,
    mixed_seed,
    pixel_counts,
    share_of,
    statistics_of,
)
from course.data.layout import Paths
from course.data.memory import default_workers
from course.data.workers import Decoded, Decoder, Job, WorkerPool

SAMPLED = 64  # images to a worker at a time, for the statistics
NAMED = 10  # files that can't be read, before they are only counted


@dataclass
class StreamedImages(Batches):
    """One split of a dataset on disk, used as `ImageData` is.

    `files` are the images' `Paths`, `targets` int64 [N]; `mean` and `std` are three numbers each,
    for pixel values in [0, 1]. Batches come at `image_size` x `image_size` pixels: the shorter side
    is brought to image_size / crop_share by `interpolation`, "bilinear" or "bicubic", and the
    centre cut out, unless a `RandomResizedCrop` augments them. `workers` processes decode the
    files, by default one a core; 0 decodes them here. `depth` is the number of bits that images of
    more than 8 are taken to have, at least.
    """

    files: Paths
    targets: Tensor
    classes: list[str]
    mean: Numbers
    std: Numbers
    image_size: int
    interpolation: str = "bilinear"
    crop_share: float = 1.0
    workers: int | None = None
    depth: int = 8
    unreadable: dict[str, str] = field(default_factory=dict, init=False)  # file -> why
    pools: list[WorkerPool] = field(default_factory=list, init=False, repr=False, compare=False)

    def select(self, which: Any) -> "StreamedImages":
        """The images that `which`, a slice or indices int64 [M], stands for."""
        numbers = torch.arange(len(self))[which].tolist()
        return replace(self, files=self.files.part(numbers), targets=self.targets[which])

    def batches(
        self,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
        augment: Augment | None = None,
        mix: Mix | None = None,
        start: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yields (images, targets), float32 [B, 3, image_size, image_size] and int64 [B].

        All is as `ImageData.batches` says, but for this: a `RandomResizedCrop` is drawn from `seed`
        and each image's number, before the image is shrunk; other augmentations get the images
        after they have been cut to their centre. Of several `processes`, each decodes its share
        alone, and draws its own for it, so that `mix` mixes within the share.

        Where a file can't be read, the next one of its class stands in for it, with a warning;
        ValueError if there is none. ChildProcessError where a worker process dies.
        """
        crop, rest = None, augment
        if isinstance(augment, RandomResizedCrop):
            crop, rest = augment, augment.then
        jobs, places = [], []
        for place, indices in self.plan(batch_size, shuffle, seed, start):
            share = share_of(len(indices), rank, processes)
            jobs.append(Job(indices[share].numpy(), crop, seed))
            places.append(place)
        pinned = torch.device(device).type == "cuda"
        for place, job, batch in zip(places, jobs, self.decode(jobs, pinned), strict=True):
            targets = self.targets[torch.from_numpy(job.indices)].to(device, non_blocking=True)
            images = torch.as_tensor(batch.images).to(device, non_blocking=True)
            own = mixed_seed(seed, place, rank) if rank else mixed_seed(seed, place)
            yield self.prepare(images, targets, own, rest, mix)

    def with_statistics_of(self, which: Tensor) -> "StreamedImages":
        """The same with the mean, std and depth that the images `which`, int64 [M], have."""
        jobs = [Job(part.numpy()) for part in which.split(SAMPLED)]
        counts, depth = torch.zeros(3, 256, dtype=torch.int64), self.depth
        for batch in tqdm(self.decode(jobs), "Looking at a sample", len(jobs), leave=False):
            counts += pixel_counts(torch.as_tensor(batch.images))
            depth = max(depth, *batch.depths.values(), 8)
        if depth > self.depth:  # then the sample has to be seen with it
            return replace(self, depth=depth).with_statistics_of(which)
        mean, std = statistics_of(counts)
        return replace(self, mean=mean, std=std)

    def decode(self, jobs: list[Job], pinned: bool = False) -> Iterator[Decoded]:
        """Each job `Decoded`, in order, by workers that wait for the next pass afterwards."""
        pool = self.pools.pop() if self.pools else self.new_pool(jobs, pinned)
        try:
            for job, batch in zip(jobs, pool.run(jobs), strict=True):
                self.note(job, batch)
                yield batch
        finally:
            if not pool.broken:
                self.pools.append(pool)

    def new_pool(self, jobs: list[Job], pinned: bool) -> WorkerPool:
        """Workers for these jobs and those of later passes."""
        decoder = Decoder(
            self.files,
            self.targets.numpy(),
            self.image_size,
            self.crop_share,
            self.interpolation,
            self.depth,
        )
        workers = default_workers() if self.workers is None else self.workers
        largest = max((len(job.indices) for job in jobs), default=0)
        return WorkerPool(decoder, workers, pinned, largest * 3 * self.image_size**2)

    def note(self, job: Job, batch: Decoded) -> None:
        """Warns of files that can't be read: the first ones by name, then now and then."""
        for index, reason in batch.failed.items():
            name = self.files.below(index)
            if name in self.unreadable:
                continue
            self.unreadable[name] = reason
            count = len(self.unreadable)
            if count <= NAMED:
                name = os.path.join(self.files.root, name)
                warnings.warn(f"{name}: {reason}; another of its class stands in", stacklevel=4)
            elif count & (count - 1) == 0:  # 16, 32, 64, ...
                warnings.warn(f"{count:,} files in {self.files.root} can't be read", stacklevel=4)
        if batch.missing:
            name = self.classes[self.targets[job.indices[batch.missing[0]]]]
            raise ValueError(f"no readable image in {self.files.root} for {name}: add some")
