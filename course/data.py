"""Datasets: one that the course makes itself, CIFAR-100 and CIFAR-10, and any folder of images.

`load_data` gives each of them as two `ImageData`, training and test: every image decoded once into
one uint8 tensor, then resized and normalised batch by batch on the device.
"""

import os
import socket
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import datasets
from torchvision.datasets.utils import check_integrity, download_and_extract_archive
from torchvision.transforms.v2 import functional as F
from tqdm import tqdm

CACHE = Path("~/.cache/coatnet-from-scratch")
BILINEAR = Image.Resampling.BILINEAR
IGNORED_FILES = {"thumbs.db", "desktop.ini"}  # and everything whose name begins with a dot

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


def wave(t):
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

    def __init__(self, train=True, size=None, seed=0, transform=None, target_transform=None):
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

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        image, target = Image.fromarray(self.data[index]), self.targets[index]
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return image, target

    @staticmethod
    def shape_of(targets):
        """The shape's number, 0 to 9, from a target or a tensor of targets."""
        return targets // 10

    @staticmethod
    def texture_of(targets):
        """The texture's number, 0 to 9, from a target or a tensor of targets."""
        return targets % 10


def draw_class(target, count, rng):
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


def in_memory(dataset, mean, std, image_size):
    """An `ImageData` of a dataset that has `data` [N, H, W, 3], `targets` and `classes`."""
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    targets = torch.tensor(dataset.targets)
    return ImageData(images, targets, list(dataset.classes), mean, std, image_size)


CIFAR = {  # the class, and its training images' mean and std
    "cifar100": (datasets.CIFAR100, (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "cifar10": (datasets.CIFAR10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}


def load_cifar(dataset, root):
    """torchvision's `dataset` as [training, test], downloaded to `root` unless it is there whole.

    Every file is checked by its md5; what is broken or half there is fetched or unpacked again.
    Raises RuntimeError where it cannot be had.
    """
    folder = root / dataset.base_folder
    files = dict(dataset.train_list) | dict(dataset.test_list)
    files[dataset.meta["filename"]] = dataset.meta["md5"]  # which download=True does not look at
    timeout = socket.getdefaulttimeout()
    try:
        if not all(check_integrity(folder / name, md5) for name, md5 in files.items()):
            socket.setdefaulttimeout(30)  # seconds; torchvision sets none and might wait for ever
            download_and_extract_archive(
                dataset.url, root, filename=dataset.filename, md5=dataset.tgz_md5
            )
        return [dataset(root, train=train) for train in (True, False)]
    except Exception as error:
        raise RuntimeError(
            f"could not get {dataset.filename} from {dataset.url} ({error}): check the connection,"
            f" or put the archive {dataset.filename} into {root}, or use"
            ' load_data("shapetexture100")'
        ) from None
    finally:
        socket.setdefaulttimeout(timeout)


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


def shape_texture_accuracy(predictions, targets):
    """How often the shape is right and how often the texture, each from 0 to 1, as two floats.

    `predictions` and `targets` are ShapeTexture100 classes, two integer tensors [N].
    """
    parts = ShapeTexture100.shape_of, ShapeTexture100.texture_of
    return tuple((part(predictions) == part(targets)).double().mean().item() for part in parts)
