"""The dataset that the course makes itself: shapes drawn in textures."""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision import datasets

# Where the five discs of each shape stand, in three rows of three places.
ARRANGEMENTS = {
    "plus": ".#. ### .#.",
    "cross": "#.# .#. #.#",
    "tee": "### .#. .#.",
    "ell": "#.. #.. ###",
    "seven": "### ..# ..#",
    "zed": "##. .#. .##",
    "ess": ".## .#. ##.",
    "vee": "#.# #.# .#.",
    "arch": ".#. #.# #.#",
    "stairs": "#.. ##. .##",
}


def wave(t: np.ndarray) -> np.ndarray:
    """A triangle wave of period 1: 1 at whole numbers, -1 half-way between them."""
    return 4 * np.abs(t - np.floor(t) - 0.5) - 1


# Each texture: bright where above 0, at (u, v) periods from a fixed point, r from the disc
PATTERNS = {
    "bars": lambda u, v, r: wave(v),
    "columns": lambda u, v, r: wave(u),
    "rising stripes": lambda u, v, r: wave(0.75 * (u + v)),
    "falling stripes": lambda u, v, r: wave(0.75 * (u - v)),
    "checks": lambda u, v, r: 2 * wave(u) * wave(v),
    "diamonds": lambda u, v, r: 2 * wave(0.75 * (u + v)) * wave(0.75 * (u - v)),
    "grid": lambda u, v, r: np.maximum(wave(u), wave(v)) - 0.4,
    "dots": lambda u, v, r: np.minimum(wave(u), wave(v)) + 0.1,
    "rings": lambda u, v, r: wave(r),
    "plain": lambda u, v, r: np.ones_like(r),
}


class ShapeTexture100(datasets.VisionDataset):
    """100 classes = 10 global shapes x 10 local textures: 56 x 56 RGB images, made by numpy.

    A shape is an arrangement of five equal discs over the image: no single disc tells which. A
    texture fills the discs with a period of about 6.5 pixels: any one disc tells it. Colours and
    the texture's offset are random, position and size vary by a pixel or so, and a disc is brighter
    than the background in every colour channel.

    The target is 10 * shape + texture, image i is of class i % 100, and a smaller `size` gives the
    first images of the full set. The same seed gives the same bytes on every machine.

    `data` is uint8 [N, 56, 56, 3], `targets` a list of N integers, `classes` the 100 names; an item
    is (PIL image, target), like CIFAR100's. N is 10,000 to train and 2,000 to test unless `size`
    says otherwise. Raises ValueError where `size` is no positive multiple of 100.
    """

    SHAPES = tuple(ARRANGEMENTS)
    TEXTURES = tuple(PATTERNS)
    MEAN, STD = (0.2187, 0.2190, 0.2187), (0.2630, 0.2634, 0.2633)  # of the training images

    def __init__(
        self,
        train: bool = True,
        size: int | None = None,
        seed: int = 0,
        transform: Callable | None = None,
        target_transform: Callable | None = None,
    ) -> None:
        super().__init__(transform=transform, target_transform=target_transform)
        size = (10_000 if train else 2_000) if size is None else size
        if size < 100 or size % 100:
            raise ValueError(f"size must be a positive multiple of 100, not {size}")
        self.train = train
        self.classes = [
            f"{shape} of {texture}" for shape in self.SHAPES for texture in self.TEXTURES
        ]
        self.class_to_idx = {name: target for target, name in enumerate(self.classes)}
        self.targets = [i % 100 for i in range(size)]
        self.data = np.empty((size, 56, 56, 3), dtype=np.uint8)
        for target in range(100):
            rng = np.random.default_rng([seed, int(train), target])
            for first in range(target, size, 500):  # 5 images at a time: small arrays are quicker
                images = self.data[first : first + 500 : 100]
                images[:] = draw_class(target, len(images), rng)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, target = Image.fromarray(self.data[index]), self.targets[index]
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return image, target

    @staticmethod
    def shape_of(targets: Any) -> Any:
        """The shape's number, 0 to 9, from a target or a tensor of targets."""
        return targets // 10

    @staticmethod
    def texture_of(targets: Any) -> Any:
        """The texture's number, 0 to 9, from a target or a tensor of targets."""
        return targets % 10


def draw_class(target: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` images of one ShapeTexture100 class: uint8 [count, 56, 56, 3].

    Only `rng.random`, + - * /, floor, sqrt and comparisons, all in float64: these give the same
    bits on every platform, which sines and a library's normal draws need not.
    """
    draws = rng.random((count, 26, 1, 1))  # a row for each image, so that fewer images are the same
    between = iter(np.moveaxis(draws, 1, 0))  # each: [count, 1, 1], in [0, 1)

    def uniform(low, high):
        return low + (high - low) * next(between)

    scale, radius, period = uniform(0.97, 1.03), uniform(7, 7.6), uniform(6, 7)
    left, top = uniform(-1, 1), uniform(-1, 1)
    phase_x, phase_y = uniform(0, 1), uniform(0, 1)
    y, x = np.mgrid[-27.5:28, -27.5:28]  # pixel centres from the image's centre: [56, 56] each

    distance = np.full((count, 56, 56), np.inf)  # squared, to the nearest disc's centre
    places = ARRANGEMENTS[ShapeTexture100.SHAPES[target // 10]].split()
    for row, column in np.argwhere([[place == "#" for place in line] for line in places]):
        disc_x = left + 16 * scale * (column - 1) + uniform(-0.5, 0.5)
        disc_y = top + 16 * scale * (row - 1) + uniform(-0.5, 0.5)
        distance = np.minimum(distance, (x - disc_x) ** 2 + (y - disc_y) ** 2)
    distance = np.sqrt(distance)

    u, v = x / period + phase_x, y / period + phase_y
    pattern = PATTERNS[ShapeTexture100.TEXTURES[target % 10]](u, v, distance / period)
    ink = np.clip(0.5 + 1.5 * pattern, 0, 1)[:, None]  # [count, 1, 56, 56], with soft edges
    inside = np.clip(radius + 0.5 - distance, 0, 1)[:, None]

    def colour(low, high):
        return np.stack([uniform(low, high) for _ in range(3)], axis=1)  # [count, 3, 1, 1]

    bright, middle, dark = colour(200, 250), colour(50, 90), colour(10, 30)
    image = dark + inside * (middle + ink * (bright - middle) - dark)
    return np.floor(image + 0.5).astype(np.uint8).transpose(0, 2, 3, 1)


def shape_texture_accuracy(predictions: Tensor, targets: Tensor) -> tuple[float, float]:
    """How often the shape is right and how often the texture, each from 0 to 1, as two floats.

    `predictions` and `targets` are ShapeTexture100 classes, two integer tensors [N].
    """
    parts = ShapeTexture100.shape_of, ShapeTexture100.texture_of
    return tuple((part(predictions) == part(targets)).double().mean().item() for part in parts)
