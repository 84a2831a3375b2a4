"""Any folder of images, decoded once."""

import warnings

import numpy as np
import torch
from PIL import Image, ImageOps
from tqdm import tqdm

from course.data.images import ImageData, pixel_statistics

BILINEAR = Image.Resampling.BILINEAR
IGNORED_FILES = {"thumbs.db", "desktop.ini"}  # and everything whose name begins with a dot


def load_folder(folder, image_size):
    """A folder with train/<class>/* and test/<class>/* as (training, test), two `ImageData`.

    Every image is turned upright, made RGB (on white where it is transparent), and cut to its
    central square, shrunk to `image_size` where larger. Squares that all have one size are kept so;
    otherwise all are brought to `image_size`. Mean and std are the training images' own. Hidden
    files, Thumbs.db and desktop.ini are passed over; a file that is no readable image is skipped,
    with one warning a split.

    Raises FileNotFoundError where a folder is missing, and ValueError for no class, a class that
    only one split has, or one without a readable image.
    """
    layout = "a folder of images holds train/<class>/* and test/<class>/*"
    classes = []
    for split in (folder / "train", folder / "test"):
        if not split.is_dir():
            raise FileNotFoundError(f"there is no folder {split}: {layout}")
        classes.append(sorted(path.name for path in visible(split) if path.is_dir()))
        if not classes[-1]:
            raise ValueError(f"{split} has no class folders: {layout}")
    train_classes, test_classes = classes
    if alone := sorted(set(train_classes) ^ set(test_classes)):
        raise ValueError(f"not in both {folder}/train and {folder}/test: {', '.join(alone)}")
    images, targets = read_split(folder / "train", train_classes, image_size)
    mean, std = pixel_statistics(images)
    train = ImageData(images, targets, train_classes, mean, std, image_size)
    images, targets = read_split(folder / "test", train_classes, image_size)
    return train, ImageData(images, targets, train_classes, mean, std, image_size)


def visible(folder):
    """The entries of a folder, without those that the system or an editor left there."""
    return [
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in IGNORED_FILES
    ]


def read_split(folder, classes, image_size):
    """The class folders' images, uint8 [N, 3, S, S], and targets [N], as `load_folder` says."""
    files = [(path, i) for i, name in enumerate(classes) for path in sorted(visible(folder / name))]
    squares, targets, bad = [], [], []
    for path, target in tqdm(files, f"Reading {folder}", leave=False):
        square = read_square(path, image_size)
        if square is None:
            bad.append(path.name)
        else:
            squares.append(square)
            targets.append(target)
    if bad:
        names = ", ".join(bad[:5]) + (", ..." if len(bad) > 5 else "")
        message = f"{len(bad)} of {len(files)} files in {folder} are no readable images: {names}"
        warnings.warn(f"skipped: {message}", stacklevel=4)  # points to who called load_data
    found = set(targets)
    if empty := [name for i, name in enumerate(classes) if i not in found]:
        raise ValueError(f"no readable image in {folder} for {', '.join(empty)}: add some")
    if len({square.size for square in squares}) > 1:
        squares = [square.resize((image_size, image_size), BILINEAR) for square in squares]
    images = torch.from_numpy(np.stack([np.asarray(square) for square in squares]))
    return images.permute(0, 3, 1, 2).contiguous(), torch.tensor(targets)


def read_square(path, image_size):
    """An image file's central square, as `load_folder` says, or None where it is unreadable."""
    try:
        with Image.open(path) as image:
            image.draft(None, (2 * image_size, 2 * image_size))  # a big JPEG decodes faster smaller
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode.startswith("I"):  # 16 bits a pixel, which convert("RGB") would clip
                image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            image = image.convert("RGB")
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            image = image.crop((left, top, left + side, top + side))
            return image if side <= image_size else image.resize((image_size,) * 2, BILINEAR)
    except Exception:  # whatever a decoder makes of a broken file
        return None
