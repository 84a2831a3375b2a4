"""One split of a dataset in memory, and its batches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

Augment = Callable[[Tensor], Tensor]
Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Numbers = tuple[float, float, float]  # one a channel
Statistics = tuple[Numbers, Numbers]  # mean and std


class Batches:
    """What `ImageData` and `StreamedImages` share: the way of a batch once it is on the device."""

    targets: Tensor
    classes: list[str]
    mean: Numbers
    std: Numbers
    image_size: int
    interpolation: str

    def __len__(self) -> int:
        return len(self.targets)

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] -> normalised float32 [B, 3, image_size, image_size], same device.

        Float images, with values in [0, 1], are taken too.
        """
        size = [self.image_size, self.image_size]
        if images.dtype != torch.uint8 or list(images.shape[-2:]) != size:
            images = F.to_dtype(images, torch.float32, scale=True)
            if list(images.shape[-2:]) != size:
                mode = InterpolationMode(self.interpolation)
                images = F.resize(images, size, mode, antialias=True)
            return F.normalize(images, list(self.mean), list(self.std))
        # A few at a time on a CPU: they stay in its cache from one operation to the next
        normalised = torch.empty_like(images, dtype=torch.float32)
        few = 4 if images.device.type == "cpu" else max(1, len(images))
        mean, std = (
            torch.tensor(numbers, device=images.device).view(-1, 1, 1)
            for numbers in (self.mean, self.std)
        )
        for part, goal in zip(images.split(few), normalised.split(few), strict=True):
            part = F.to_dtype(part, torch.float32, scale=True)
            torch.div(part.sub_(mean), std, out=goal)
        return normalised

    def prepare(
        self,
        images: Tensor,
        targets: Tensor,
        seed: int,
        augment: Augment | None,
        mix: Mix | None,
        share: slice = slice(None),
    ) -> tuple[Tensor, Tensor]:
        """A batch as it is stored, on its device -> as `batches` yields it, a share of it.

        What is drawn from torch's random state depends on `seed` alone. What it does to an image
        depends on the image's place in the whole batch, and mixing on the others in it: so that
        several processes learn from the very images that one would, the share is taken last.
        """
        with own_randomness(images.device, seed):
            if augment is not None:
                images = augment(images)
            if mix is None:
                return self.normalise(images[share]), targets[share]
            images = self.normalise(images)
            targets = torch.nn.functional.one_hot(targets, len(self.classes)).float()
            images, targets = mix(images, targets)
        return images[share], targets[share]

    def plan(
        self, batch_size: int, shuffle: bool, seed: int, start: int
    ) -> Iterator[tuple[int, Tensor]]:
        """(place, indices int64 [B]) of each batch, from place `start` on."""
        if shuffle:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        else:
            order = torch.arange(len(self))
        yield from enumerate(order.split(batch_size)[start:], start)


@dataclass
class ImageData(Batches):
    """One split of a dataset in memory.

    `images` is uint8 [N, 3, H, W], `targets` int64 [N]; `mean` and `std` are three numbers each,
    for pixel values in [0, 1]; batches come at `image_size` x `image_size` pixels, by
    `interpolation`, "bilinear" or "bicubic", where the images have another size.
    """

    images: Tensor
    targets: Tensor
    classes: list[str]
    mean: Numbers
    std: Numbers
    image_size: int
    interpolation: str = "bilinear"

    def select(self, which: Any) -> "ImageData":
        """The images that `which`, a slice or indices int64 [M], stands for."""
        return replace(self, images=self.images[which], targets=self.targets[which])

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

        Both are on `device`; the last batch may be smaller. `augment` gets each batch as it is
        stored, uint8 [B, 3, H, W] on `device`, before it is resized and normalised, and returns it
        as uint8 or as float in [0, 1]. `mix` gets the normalised images and the targets as
        probabilities [B, K] and returns both changed, such as `augmentation.mixup`.

        The order, and what `augment` and `mix` draw from torch's random state, depend on `seed`
        and the batch's place alone: with `start` the first batches are passed over, and the others
        stay what they were. The random state is left as it was.

        Of several `processes`, the one of this `rank` gets its share of each batch: together they
        get the batches of one process; see `share_of`.
        """
        for place, indices in self.plan(batch_size, shuffle, seed, start):
            indices = indices.to(self.images.device)
            images = self.images.index_select(0, indices).to(device)
            targets = self.targets.index_select(0, indices).to(device)
            share = share_of(len(indices), rank, processes)
            yield self.prepare(images, targets, mixed_seed(seed, place), augment, mix, share)


def share_of(count: int, rank: int, processes: int) -> slice:
    """Which of a batch's `count` images process `rank` takes: as many as the others, or one more.

    All of them where there are fewer images than processes: each needs one to compute with.
    """
    if count < processes:
        return slice(0, count)
    each, more = divmod(count, processes)
    first = rank * each + min(rank, more)
    return slice(first, first + each + (rank < more))


def image_seeds(seed: int, numbers: np.ndarray) -> np.ndarray:
    """A seed of 32 bits for each image, by its number: int64 [B] -> int64 [B] (SplitMix64)."""
    z = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z += np.uint64(mixed_seed(seed))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return (z >> np.uint64(32)).astype(np.int64)


def mixed_seed(*numbers: int) -> int:
    """A seed of 32 bits, which is all that torch's generator on a CPU looks at, from several."""
    words = [number >> shift & 0xFFFFFFFF for number in numbers for shift in (0, 32)]
    return int(np.random.SeedSequence(words).generate_state(1)[0])


@contextmanager
def own_randomness(device: torch.device | str, seed: int) -> Iterator[None]:
    """Seeds torch's random state for a while, and then gives it back as it was."""
    devices = [device] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def in_memory(
    dataset: Any,
    mean: Numbers,
    std: Numbers,
    image_size: int,
) -> ImageData:
    """An `ImageData` of a dataset that has `data` [N, H, W, 3], `targets` and `classes`."""
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    targets = torch.tensor(dataset.targets)
    return ImageData(images, targets, list(dataset.classes), mean, std, image_size)


def pixel_statistics(images: Tensor) -> Statistics:
    """Mean and standard deviation of each channel of uint8 [N, 3, H, W], for values in [0, 1]."""
    return statistics_of(pixel_counts(images))


def pixel_counts(images: Tensor) -> Tensor:
    """How often each value occurs in each channel of uint8 [N, 3, H, W]: int64 [3, 256]."""
    counts = torch.zeros(3, 256, dtype=torch.int64)
    for part in images.split(1000):
        for channel, count in zip(part.unbind(1), counts, strict=True):
            count += torch.bincount(channel.flatten(), minlength=256)
    return counts


def statistics_of(counts: Tensor) -> Statistics:
    """Mean and standard deviation of each channel from `pixel_counts`, for values in [0, 1]."""
    values = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for count in counts:
        share = count / count.sum()
        mean.append((share * values).sum().item())
        std.append((share * (values - mean[-1]) ** 2).sum().sqrt().clamp(min=1 / 255).item())
    return tuple(mean), tuple(std)
