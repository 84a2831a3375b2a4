"""One split of a dataset in memory, and its batches."""

from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F


@dataclass
class ImageData:
    """One split of a dataset in memory.

    `images` is uint8 [N, 3, H, W], `targets` int64 [N]; `mean` and `std` are three numbers each,
    for pixel values in [0, 1]; batches come at `image_size` x `image_size` pixels.
    """

    images: Tensor
    targets: Tensor
    classes: list[str]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: int

    def __len__(self):
        return len(self.targets)

    def normalise(self, images):
        """uint8 [B, 3, H, W] -> normalised float32 [B, 3, image_size, image_size], same device.

        Float images, with values in [0, 1], are taken too.
        """
        images = F.to_dtype(images, torch.float32, scale=True)
        size = [self.image_size, self.image_size]
        if list(images.shape[-2:]) != size:
            images = F.resize(images, size, antialias=True)  # bilinear
        return F.normalize(images, list(self.mean), list(self.std))

    def batches(
        self, batch_size, shuffle=False, seed=0, device="cpu", augment=None, mix=None, start=0
    ):
        """Yields (images, targets), float32 [B, 3, image_size, image_size] and int64 [B].

        Both are on `device`; the last batch may be smaller. `augment` gets each batch as it is
        stored, uint8 [B, 3, H, W] on `device`, before it is resized and normalised, and returns it
        as uint8 or as float in [0, 1]. `mix` gets the normalised images and the targets as
        probabilities [B, K] and returns both changed, such as `augmentation.mixup`.

        The order, and what `augment` and `mix` draw from torch's random state, depend on `seed`
        and the batch's place alone: with `start` the first batches are passed over, and the others
        stay what they were. The random state is left as it was.
        """
        if shuffle:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        else:
            order = torch.arange(len(self))
        batches = order.to(self.images.device).split(batch_size)
        for place, indices in enumerate(batches[start:], start):
            images = self.images.index_select(0, indices).to(device)
            targets = self.targets.index_select(0, indices).to(device)
            with _own_randomness(device, (seed << 32) + place):
                if augment is not None:
                    images = augment(images)
                images = self.normalise(images)
                if mix is not None:
                    targets = torch.nn.functional.one_hot(targets, len(self.classes)).float()
                    images, targets = mix(images, targets)
            yield images, targets


@contextmanager
def _own_randomness(device, seed):
    """Seeds torch's random state for a while, and then gives it back as it was."""
    devices = [device] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def in_memory(dataset, mean, std, image_size):
    """An `ImageData` of a dataset that has `data` [N, H, W, 3], `targets` and `classes`."""
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    targets = torch.tensor(dataset.targets)
    return ImageData(images, targets, list(dataset.classes), mean, std, image_size)


def pixel_statistics(images):
    """Mean and standard deviation of each channel of uint8 [N, 3, H, W], for values in [0, 1]."""
    values = torch.arange(256, dtype=torch.float64) / 255
    mean, std = [], []
    for channel in images.unbind(1):
        counts = sum(torch.bincount(part.flatten(), minlength=256) for part in channel.split(1000))
        share = counts / counts.sum()
        mean.append((share * values).sum().item())
        std.append((share * (values - mean[-1]) ** 2).sum().sqrt().clamp(min=1 / 255).item())
    return tuple(mean), tuple(std)
