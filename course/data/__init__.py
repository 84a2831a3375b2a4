"""Datasets: one that the course makes itself, CIFAR-100 and CIFAR-10, and any folder of images.

`load_data` gives each of them as two `ImageData`, training and test: every image decoded once into
one uint8 tensor, then resized and normalised batch by batch on the device.
"""

import os
from pathlib import Path

from course.data.cifar import CIFAR, load_cifar
from course.data.folders import load_folder
from course.data.images import ImageData, in_memory
from course.data.shape_texture import ShapeTexture100, shape_texture_accuracy

__all__ = [
    "CIFAR",
    "ImageData",
    "ShapeTexture100",
    "in_memory",
    "load_cifar",
    "load_data",
    "load_folder",
    "shape_texture_accuracy",
]


CACHE = Path("~/.cache/coatnet-from-scratch")


def load_data(name, image_size=56, root=None):
    """A dataset as (training, test), two `ImageData` whose batches come at `image_size` pixels.

    `name` is "shapetexture100", "cifar100" or "cifar10", in any case, or the path of a folder with
    train/<class>/* and test/<class>/*. Downloads go to `root`, ~/.cache/coatnet-from-scratch by
    default. Raises ValueError for an unknown name, RuntimeError where a download fails, and what
    `load_folder` raises.
    """
    key = str(name).lower()
    if key == "shapetexture100":
        splits = [ShapeTexture100(train) for train in (True, False)]
        return tuple(in_memory(split, split.MEAN, split.STD, image_size) for split in splits)
    if key in CIFAR:
        dataset, mean, std = CIFAR[key]
        splits = load_cifar(dataset, Path(root or CACHE).expanduser())
        return tuple(in_memory(split, mean, std, image_size) for split in splits)
    folder = Path(name).expanduser()
    if not folder.exists() and isinstance(name, str) and not {"/", os.sep} & set(name):
        known = ", ".join(["shapetexture100", *CIFAR])
        raise ValueError(f"no dataset is called {name!r}: take one of {known}, or a folder's path")
    return load_folder(folder, image_size)
