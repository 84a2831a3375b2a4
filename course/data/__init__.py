"""Datasets: one that the course makes itself, CIFAR-100 and CIFAR-10, and any folder of images.

`load_data` gives each of them in two, training and held out. An `ImageData` has every image
decoded once in one uint8 tensor; `StreamedImages` decode a folder that is larger than memory as it
is needed. Both are used alike: resized and normalised batch by batch on the device.
"""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from course.data.cifar import CIFAR, load_cifar
from course.data.folders import load_folder, load_held_out_folder
from course.data.images import ImageData, in_memory
from course.data.memory import memory_budget
from course.data.reading import Images
from course.data.shape_texture import ShapeTexture100, shape_texture_accuracy
from course.data.streaming import StreamedImages

__all__ = [
    "DATASETS",
    "ImageData",
    "Images",
    "ShapeTexture100",
    "StreamedImages",
    "in_memory",
    "load_data",
    "load_folder",
    "load_held_out",
    "memory_budget",
    "shape_texture_accuracy",
]


CACHE = Path("~/.cache/coatnet-from-scratch")


def load_shape_texture(root: Path) -> tuple:
    train, test = (ShapeTexture100(train) for train in (True, False))
    return (train, test), train.MEAN, train.STD


# A name -> a function of the downloads' folder: ((training, test), mean, std). The two have `data`,
# uint8 [N, H, W, 3], `targets` and `classes`; mean and std are of training images from 0 to 1
DATASETS = {"shapetexture100": load_shape_texture} | {
    name: partial(load_cifar, name) for name in CIFAR
}


def load_data(
    name: str | os.PathLike,
    image_size: int = 56,
    root: str | os.PathLike | None = None,
    **options: Any,
) -> tuple[Images, Images]:
    """A dataset as (training, held out), whose batches come at `image_size` pixels.

    `name` is one of `DATASETS`, in upper or lower case, or the path of a folder of
    images, such as train/<class>/* and val/<class>/*; `load_folder` says what else it may hold, and
    what the `options` for it are. Downloads go to `root`, ~/.cache/coatnet-from-scratch by default.

    Raises ValueError for an unknown name, RuntimeError where a download fails, and what
    `load_folder` raises.
    """
    if splits := load_named(name, image_size, root):
        return splits
    return load_folder(name, image_size, **options)


def load_held_out(
    name: str | os.PathLike,
    image_size: int = 56,
    root: str | os.PathLike | None = None,
    *,
    classes: list[str] | None = None,
    **options: Any,
) -> Images:
    """A dataset's held-out images alone: a folder of them need not have any to train on.

    Its targets count in `classes`, in their order, where they are given. `options` are those of
    `load_folder`; a `mean` and `std` replace the dataset's own. Raises what `load_data` does, and
    ValueError for a class that is not in `classes`.
    """
    splits = load_named(name, image_size, root)
    if not splits:
        return load_held_out_folder(name, image_size, classes=classes, **options)
    held_out = splits[1]
    if classes is not None and classes != held_out.classes:
        raise ValueError(f"{name} has other classes than the {len(classes):,} that are wanted")
    given = {key: options[key] for key in ("mean", "std") if options.get(key) is not None}
    return replace(held_out, **given)


def load_named(
    name: str | os.PathLike, image_size: int, root: str | os.PathLike | None
) -> tuple[ImageData, ImageData] | None:
    """A dataset that has a name, or None for a folder. Raises ValueError for an unknown name."""
    if load := DATASETS.get(str(name).lower()):
        splits, mean, std = load(Path(root or CACHE).expanduser())
        train, test = (in_memory(split, mean, std, image_size) for split in splits)
        return train, test
    folder = Path(name).expanduser()
    if not folder.exists() and isinstance(name, str) and not {"/", os.sep} & set(name):
        known = ", ".join(DATASETS)
        raise ValueError(f"no dataset is called {name!r}: take one of {known}, or a folder's path")
    return None
