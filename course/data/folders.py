"""Any folder of images, whose layout it finds out."""

import os
from pathlib import Path
from typing import Any

from course.data.images import Numbers
from course.data.layout import LAYOUT, class_root, find_listings, find_splits, list_files, name_some
from course.data.reading import Images, Reading


def load_folder(
    folder: str | os.PathLike,
    image_size: int,
    *,
    memory: str | int | None = None,
    hold_out: float = 0.2,
    seed: int = 0,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    crop_share: float = 1.0,
    interpolation: str = "bilinear",
    workers: int | None = None,
) -> tuple[Images, Images]:
    """A folder of images as (training, held out), two `ImageData` or two `StreamedImages`.

    It holds train/<class>/* and val/<class>/*, in any capitals; valid, validation and test will do
    for val. Without one of these, or with nothing but a folder a class, the share `hold_out` of
    each class is held out, which ones by `seed`. Images may lie in folders below their class's.

    Every image is turned upright, made RGB (on white where it is transparent), its shorter side
    brought to image_size / crop_share by `interpolation`, "bilinear" or "bicubic", and its central
    square cut out. Squares that are smaller and all have one size are kept so. What has more than
    8 bits a value is scaled by as many as the folder's images hold. Mean and std are the training
    images' own, unless both are given.

    What would take more than `memory`, bytes or text such as "4G", by default half of what is free,
    is streamed: decoded by `workers` processes, one a core by default, whenever it is needed. Mean
    and std then are those of a sample.

    What the system left between the images is passed over. A file that is no readable image is
    skipped, with one warning a split that says why.

    Raises FileNotFoundError where a folder is missing, and ValueError for no class, a class that
    only one split has, or one without a readable image.
    """
    how = Reading(image_size, memory, mean, std, crop_share, interpolation, workers)
    train, held_out = find_listings(existing(folder), hold_out, seed)
    images = how.load(train, held_out)
    return images[0], images[1]


def load_held_out_folder(
    folder: str | os.PathLike,
    image_size: int,
    *,
    classes: list[str] | None = None,
    hold_out: float = 0.2,
    seed: int = 0,
    **options: Any,
) -> Images:
    """The held-out images alone of a folder, which need not have any to train on.

    That is its val (or valid, validation, test); the part that `load_folder` holds out where there
    is only train; or all images of a folder of class folders. Targets count in `classes`, in their
    order, where they are given: then the folder may lack some, but have no others. `options` are
    those of `load_folder`; mean and std, unless given, are these images' own.

    Raises what `load_folder` does.
    """
    how = Reading(image_size, **options)
    folder = existing(folder)
    train, held_out = find_splits(folder)
    if held_out:
        listing = list_files(held_out[0], classes)
    elif train is not None:
        _, listing = find_listings(folder, hold_out, seed)
        if classes is not None and classes != listing.classes:
            raise ValueError(f"{folder} has other classes: {name_some(listing.classes)}")
    else:
        listing = list_files(class_root(folder), classes)
    return how.load(listing)[0]


def existing(folder: str | os.PathLike) -> Path:
    """The folder's absolute path. FileNotFoundError or ValueError where it is none."""
    path = Path(os.path.abspath(Path(folder).expanduser()))
    if path.is_file():
        raise ValueError(f"{path} is a file: unpack it, and name the folder")
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}: {LAYOUT}")
    return path
