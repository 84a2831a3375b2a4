"""Augmentation of whole batches on the device: what `fit` takes as `augment` and as `mix`."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import v2


@dataclass(frozen=True)
class RandomResizedCrop:
    """An `augment`: a random part of each image at the image's size, half of them mirrored.

    Parts have a share of the image's area from `scale` and a width by height from `ratio`, as in
    nearly every training on ImageNet (Szegedy et al., arXiv 1409.4842, section 6); `mirror` is the
    share of images that are flipped left to right. Streamed images are cut before they are shrunk,
    the others as they are stored. `then` is an `augment` for the batch that comes out.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    mirror: float = 0.5
    then: Callable[[Tensor], Tensor] | None = None

    def draw(self, height: int, width: int) -> tuple[tuple[int, int, int, int], bool]:
        """A part (top, left, height, width) of such an image, and whether it is mirrored.

        Draws from torch's random state.
        """
        image = torch.empty(1, height, width, device="meta")  # for its size
        part = transforms.RandomResizedCrop.get_params(image, list(self.scale), list(self.ratio))
        return part, torch.rand(()).item() < self.mirror

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 or float [B, C, H, W] -> the same."""
        size = list(images.shape[-2:])
        cut = torch.empty_like(images)
        for image, goal in zip(images, cut, strict=True):
            part, mirrored = self.draw(*size)
            image = v2.functional.resized_crop(image, *part, size, antialias=True)
            goal.copy_(image.flip(2) if mirrored else image)
        return cut if self.then is None else self.then(cut)


def flip_and_crop(images: Tensor, padding: int = 4) -> Tensor:
    """An `augment`: shifts each image by up to `padding` px and flips half of them left to right.

    uint8 or float [B, C, H, W] -> the same. Draws from torch's random state.
    """
    count, device = len(images), images.device
    down, right = torch.randint(-padding, padding + 1, (2, count), device=device)
    return shift_and_flip(images, down, right, torch.rand(count, device=device) < 0.5)


def shift_and_flip(images: Tensor, down: Tensor, right: Tensor, flipped: Tensor) -> Tensor:
    """Moves each image's window by whole pixels, and mirrors the images where `flipped`.

    images [B, C, H, W], down and right int64 [B], flipped bool [B] -> [B, C, H, W]. What is seen at
    (row, column) is what was at (row + down, column + right), or the nearest pixel of the border;
    then columns are turned around.
    """
    count, _, height, width = images.shape
    rows = (torch.arange(height, device=images.device) + down[:, None]).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) + right[:, None]).clamp(0, width - 1)
    columns = torch.where(flipped[:, None], columns.flip(1), columns)  # [B, W]; rows: [B, H]
    batch = torch.arange(count, device=images.device)[:, None, None]
    return images.movedim(1, 3)[batch, rows[:, :, None], columns[:, None]].movedim(3, 1)


def trivial_augment(images: Tensor, group: int = 8) -> Tensor:
    """An `augment`: after a flip and a crop, one random operation of TrivialAugment.

    uint8 [B, 3, H, W] -> the same. torchvision draws an operation and its strength for a whole
    tensor; here it does so for each `group` of images, which are shuffled anyway: nearly as varied,
    and much cheaper than one by one (Mueller and Hutter, arXiv 2103.10158). Some operations turn
    and shear, others recolour: it suits photographs.
    """
    policy = v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)
    return torch.cat([policy(part) for part in flip_and_crop(images).split(group)])


def mixup(images: Tensor, targets: Tensor, alpha: float = 0.2) -> tuple[Tensor, Tensor]:
    """A `mix`: each image faded into another of the batch, and its target by the same share.

    float [B, 3, H, W] and probabilities [B, K] -> the same. With one share for the batch, drawn
    from Beta(alpha, alpha): x <- share * x + (1 - share) * x', and likewise the targets (Zhang et
    al., arXiv 1710.09412, section 2).
    """
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    partner = torch.randperm(len(images), device=images.device)
    images = share * images + (1 - share) * images[partner]
    return images, share * targets + (1 - share) * targets[partner]
