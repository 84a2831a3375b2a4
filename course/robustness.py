"""What lesson 8 and benchmarks/robustness.py do to images, to see which model holds out."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coatnet import CoAtNEt
from vit import PatchEmbedding, ViT


def shift(images: Tensor, pixels: int) -> Tensor:
    """Moves images [B, C, H, W] right and down; the border is filled with its own colours."""
    height, width = images.shape[-2:]
    padded = F.pad(images, (pixels, 0, pixels, 0), mode="replicate")
    return padded[..., :height, :width]


def occlude(images: Tensor, side: int, seed: int = 0) -> Tensor:
    """Covers a square of `side` pixels in each image [B, C, H, W] with 0, at random places."""
    generator = torch.Generator().manual_seed(seed)
    covered = []
    for length in images.shape[-2:]:
        start = torch.randint(0, length - side + 1, (len(images), 1), generator=generator)
        place = torch.arange(length)
        covered.append((place >= start) & (place < start + side))  # [B, length]
    rows, columns = covered
    mask = rows[:, None, :, None] & columns[:, None, None, :]  # [B, 1, H, W]
    return images.masked_fill(mask.to(images.device), 0)


def shuffle_patches(images: Tensor, side: int, seed: int = 0) -> Tensor:
    """Cuts square images [B, C, H, H] into patches and lays these out in another order.

    The order is the same for all images. Raises ValueError where `side` does not divide H.
    """
    if images.shape[-1] % side:
        raise ValueError(f"patches of {side} pixels do not divide {images.shape[-1]}")
    grid = images.shape[-1] // side
    order = torch.randperm(grid * grid, generator=torch.Generator().manual_seed(seed))
    patches = F.unfold(images, side, stride=side)[..., order.to(images.device)]
    return F.fold(patches, images.shape[-2:], side, stride=side)


def at_size(model: ViT | CoAtNEt, img_size: int) -> ViT | CoAtNEt:
    """A copy of a `vit.ViT` or a `coatnet.CoAtNEt` for square images of another size.

    Its learned positions are interpolated on their grid; the one of the CLS token stays.
    """
    model = copy.deepcopy(model)
    if isinstance(model, CoAtNEt):
        embedding: CoAtNEt | PatchEmbedding = model
        stride = model.stem.stride
    else:
        embedding, stride = model.patch_embedding, model.patch_embedding.proj.stride[0]
    old, new = (math.ceil(size / stride) for size in (embedding.img_size, img_size))
    cls_token, grid = model.positions.detach().split([1, old * old], dim=1)
    grid = grid.transpose(1, 2).unflatten(2, (old, old))  # [1, D, h, w]
    grid = F.interpolate(grid, size=(new, new), mode="bicubic").flatten(2).transpose(1, 2)
    model.positions = nn.Parameter(torch.cat([cls_token, grid], dim=1))
    embedding.img_size = img_size
    return model
