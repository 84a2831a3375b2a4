"""Worker processes that decode image files into batches."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from course.augmentation import RandomResizedCrop
from course.data.decoding import Picture, Unreadable, quiet
from course.data.geometry import cut_centre, cut_part
from course.data.images import image_seeds, own_randomness
from course.data.layout import Paths

AHEAD = 2  # batches that each worker prepares before they are asked for
SHARED = "/dev/shm"  # where Linux keeps what processes share; a container's may be tiny


class Job(NamedTuple):
    """A batch to decode: the files' numbers, int64 [B], and what is drawn for them."""

    indices: np.ndarray
    crop: RandomResizedCrop | None = None
    seed: int = 0


@dataclass
class Decoded:
    """A batch: `images` uint8 [B, 3, S, S], and what is to be known of the files by number.

    `failed` says why files could not be read; their rows hold the next one of the class. `missing`
    are the rows for which there was none. `depths` are the bits that values were taken to
    have in files of other than 8, and `sides` the images' shorter sides.
    """

    images: Any
    failed: dict[int, str] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)
    depths: dict[int, int] = field(default_factory=dict)
    sides: set[int] = field(default_factory=set)

    def pin_memory(self) -> "Decoded":
        """In memory that a GPU can fetch from by itself; the loader calls this."""
        self.images = torch.as_tensor(self.images).pin_memory()
        return self


@dataclass(frozen=True)
class Decoder(Dataset[Decoded]):
    """What the workers do: `decoder[job]` is that job `Decoded`.

    `targets` is int64 [N], for the files' stand-ins; with `stand_ins` False there are none.
    """

    files: Paths
    targets: np.ndarray
    size: int
    crop_share: float
    interpolation: str
    depth: int
    stand_ins: bool = True
    as_array: bool = False  # not as a tensor, which would travel through shared memory

    def __getitem__(self, job: Job) -> Decoded:
        shape = len(job.indices), 3, self.size, self.size
        images = torch.empty(shape, dtype=torch.uint8)
        if get_worker_info() is not None and not self.as_array:
            images.share_memory_()  # now, while it is empty
        batch = Decoded(images)
        seeds = image_seeds(job.seed, job.indices).tolist()
        with own_randomness("cpu", 0), quiet():
            for row, (index, seed) in enumerate(zip(job.indices.tolist(), seeds, strict=True)):
                for candidate in self.candidates(index):
                    try:
                        images[row] = self.decode(candidate, job.crop, seed, batch)
                        break
                    except Unreadable as reason:
                        batch.failed[candidate] = str(reason)
                else:
                    batch.missing.append(row)
        if self.as_array:
            batch.images = images.numpy()
        return batch

    def candidates(self, index: int) -> Iterator[int]:
        """The file itself, and then those that may stand in for it."""
        yield index
        if self.stand_ins:
            others = np.flatnonzero(self.targets == self.targets[index])
            yield from np.roll(others, -np.searchsorted(others, index))[1:].tolist()

    def decode(
        self, index: int, crop: RandomResizedCrop | None, seed: int, batch: Decoded
    ) -> Tensor:
        """uint8 [3, S, S] from file `index`; what is drawn depends on `seed`."""
        picture = Picture(self.files[index])
        batch.sides.add(min(picture.height, picture.width))
        look = self.size, self.interpolation, self.depth
        if crop is None:
            image = cut_centre(picture, self.crop_share, *look)
        else:
            torch.default_generator.manual_seed(seed)
            part, mirrored = crop.draw(picture.height, picture.width)
            image = cut_part(picture, part, *look)
            image = image.flip(2) if mirrored else image
        if picture.depth is not None:
            batch.depths[index] = picture.depth
        return image


class Jobs(Sampler[Job]):
    """Hands out the jobs of one pass."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def __iter__(self) -> Iterator[Job]:
        return iter(self.jobs)

    def __len__(self) -> int:
        return len(self.jobs)


class WorkerPool:
    """Workers for one pass after another; they stay between passes, and end with the pool."""

    def __init__(self, decoder: Decoder, workers: int, pinned: bool, batch_bytes: int):
        if workers and not fits_shared_memory(batch_bytes * workers * (AHEAD + 1)):
            decoder = Decoder(**(vars(decoder) | {"as_array": True}))
        self.jobs, self.broken = Jobs(), False
        self.loader: DataLoader[Decoded] = DataLoader(
            decoder,
            batch_size=None,  # a job is a whole batch
            sampler=self.jobs,
            collate_fn=as_it_is,
            num_workers=workers,
            prefetch_factor=AHEAD if workers else None,
            persistent_workers=workers > 0,
            worker_init_fn=leave_signals,
            pin_memory=pinned,
            generator=torch.Generator(),  # so that torch's own random state stays as it is
        )

    def run(self, jobs: list[Job]) -> Iterator[Decoded]:
        """The jobs' results, in order. ChildProcessError where a worker dies."""
        self.jobs.jobs = jobs
        try:
            yield from self.loader
        except (RuntimeError, ConnectionError, EOFError) as error:  # the latter in mid-sentence
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            self.broken = True
            with suppress(RuntimeError):
                time.sleep(0.2)  # torch raises too, when it hears of the death: then here
            raise ChildProcessError(
                "a process that decodes images died, for lack of memory most likely: "
                "try fewer workers or smaller batches"
            ) from None


def as_it_is(batch: Any) -> Any:
    """No collating."""
    return batch


def leave_signals(worker: int) -> None:
    """Ctrl-C goes to every process of a terminal; what it ends is up to the main one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def fits_shared_memory(size: int) -> bool:
    """Whether so many bytes may travel through shared memory, with some room left."""
    return not os.path.isdir(SHARED) or shutil.disk_usage(SHARED).free > 1.5 * size
