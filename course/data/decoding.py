"""An image file as uint8 RGB, whatever it holds; or the reason why not."""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
import torch
from PIL import Image, PngImagePlugin, UnidentifiedImageError
from torch import Tensor

try:  # torchvision says that its decoders will go; without them Pillow does it all, slower
    from torchvision.io import ImageReadMode, decode_jpeg, decode_png
except ImportError:
    ImageReadMode = decode_jpeg = decode_png = None

with suppress(ImportError):  # Pillow itself reads AVIF, but not HEIC
    import pillow_heif

    pillow_heif.register_heif_opener()

# Pillow's limits guard servers against strangers; a folder to learn from may hold a panorama
Image.MAX_IMAGE_PIXELS = 1_000_000_000
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 64 * 2**20
MOST_PIXELS = 300_000_000  # to decode at once, which takes Pillow 1.2 GB

JPEG = b"\xff\xd8"  # what a file begins with
ORIENTATION = 0x0112  # in EXIF; how each of its values is made upright
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
DEPTHS = (8, 10, 12, 14, 16)  # bits that a pixel's value may have
HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
AVIF = {b"avif", b"avis"}


class Unreadable(Exception):
    """Why a file can't be used, in a few words."""


class Picture:
    """An image file, opened but not decoded: `height` and `width` are those of the upright image.

    `depth` is how many bits its values were taken to have, once its pixels were asked for, where
    the file is not one of 8 bits a colour anyway. Raises `Unreadable`.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = path
        self.depth: int | None = None
        try:
            self.data = np.fromfile(path, np.uint8)
            content = self.data.tobytes()
            kinds = ("JPEG",) if content.startswith(JPEG) else None  # None: Pillow tries them all
            self.image = Image.open(io.BytesIO(content), formats=kinds)
        except Exception as error:  # whatever a decoder makes of a broken file
            raise Unreadable(explain(error, path)) from None
        self.layout = layout_of(self.image)
        self.orientation = 1
        if self.image.format != "TIFF":  # which Pillow turns itself
            with suppress(Exception):  # EXIF that can't be read says nothing
                self.orientation = self.image.getexif().get(ORIENTATION, 1)
        self.stored = self.width, self.height = self.image.size
        if self.orientation in {5, 6, 7, 8}:
            self.width, self.height = self.height, self.width

    def pixels(self, shrink: float = 1.0, depth: int = 8) -> Tensor:
        """uint8 [3, H, W]: upright, RGB, on white where it is transparent.

        It may come smaller, by a whole number that is no larger than `shrink`: a JPEG is decoded
        faster at a half, a quarter or an eighth of its size. What has more than 8 bits is scaled
        by the smallest of `DEPTHS` that holds all its values, at least `depth`. Raises
        `Unreadable`.
        """
        try:
            if self.fast and shrink < 2:  # the same pixels as Pillow's, sooner
                return decode_jpeg(torch.from_numpy(self.data), ImageReadMode.RGB)
            return self.by_pillow(shrink, depth)
        except Unreadable:
            raise
        except Exception as error:
            raise Unreadable(explain(error, self.path)) from None

    @property
    def fast(self) -> bool:
        """Whether torchvision decodes the file right."""
        plain = self.image.format == "JPEG" and self.image.mode in {"RGB", "L"}
        return plain and self.orientation not in UPRIGHT and decode_jpeg is not None

    def by_pillow(self, shrink: float, depth: int) -> Tensor:
        """As `pixels` says."""
        image = self.image
        if shrink >= 2:
            image.draft(None, (int(image.width / shrink), int(image.height / shrink)))
        if image.width * image.height > MOST_PIXELS:
            million = image.width * image.height / 1e6
            raise Unreadable(f"{million:,.0f} megapixels are too many: make it smaller")
        pixels = np.array(self.to_rgb(int(shrink), depth))  # a copy, which may be written to
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def to_rgb(self, shrink: int, depth: int) -> Image.Image:
        """The image by Pillow, as `pixels` says; a large one is made smaller while it is at it."""
        image: Image.Image = self.image
        if self.layout == "I;12":
            depth = max(depth, 12)
        if image.mode.startswith("I") or image.mode == "F":
            grey, self.depth = to_8_bits(np.asarray(image), depth)
            image = Image.fromarray(grey)
        elif ";16" in self.layout and image.format == "PNG" and decode_png is not None:
            image = self.wide_png(depth)
        elif ";16" in self.layout and np.asarray(image).max(initial=0) < 16:
            # Pillow keeps the upper byte of each colour, and these are as good as empty
            raise Unreadable("16 bits a colour that hold 12 or fewer: save it as PNG")
        if shrink >= 2 and image.mode in {"L", "RGB"} and image.size == self.stored:
            image = image.reduce(shrink)
        if self.orientation in UPRIGHT:
            image = image.transpose(UPRIGHT[self.orientation])
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")

    def wide_png(self, depth: int) -> Image.Image:
        """A PNG of 16 bits a colour, of which Pillow would keep the upper eight alone."""
        values = decode_png(torch.from_numpy(self.data), ImageReadMode.UNCHANGED)
        values = values.permute(1, 2, 0).numpy()  # uint16 [H, W, 2, 3 or 4]
        has_alpha = values.shape[2] in {2, 4}
        colours, self.depth = to_8_bits(values[..., :-1] if has_alpha else values, depth)
        if has_alpha:
            alpha, _ = to_8_bits(values[..., -1:], 8)
            colours = np.concatenate([colours, alpha], axis=2)
        return Image.fromarray(colours)


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings of a decoder's: what matters becomes an `Unreadable`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def layout_of(image: Image.Image) -> str:
    """How the file stores a pixel, in Pillow's words, such as "RGB;16B"; "" where it says not."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def to_8_bits(values: np.ndarray, depth: int) -> tuple[np.ndarray, int]:
    """Numbers of any type as uint8, and the bits that they were taken to have.

    Floats up to 1 are shares of white; other numbers are scaled by the smallest of `DEPTHS` that
    holds them, at least `depth`. Raises `Unreadable` where they are no pixels.
    """
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise Unreadable("holds values that are not finite")
    if low < 0 or high >= 2 ** DEPTHS[-1]:
        raise Unreadable(f"values from {low:g} to {high:g} are no pixels: scale them to 0..255")
    if values.dtype.kind == "f" and high <= 1:
        return np.rint(values * 255).astype(np.uint8), 8
    bits = next(bits for bits in DEPTHS if max(high, 2**depth - 1) < 2**bits)
    return np.rint(values * (255 / (2**bits - 1))).clip(0, 255).astype(np.uint8), bits


def explain(error: Exception, path: str | os.PathLike) -> str:
    """Why a file could not be read, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "a link to nothing" if os.path.islink(path) else "gone"
    if isinstance(error, PermissionError):
        return "may not be read: no permission"
    if isinstance(error, MemoryError | Image.DecompressionBombError):
        return "too large to decode: make it smaller"
    if isinstance(error, UnidentifiedImageError):
        return explain_unknown(path)
    lines = str(error).splitlines()
    message = lines[-1] if lines else type(error).__name__
    if any(word in message.lower() for word in ("truncated", "incomplete", "unexpected end")):
        return "cut short"
    return f"damaged ({message[:80]})"


def explain_unknown(path: str | os.PathLike) -> str:
    """What a file is that Pillow does not know."""
    with open(path, "rb") as file:
        head = file.read(64)
    if not head:
        return "empty"
    if head[4:8] == b"ftyp":
        brands = {head[i : i + 4] for i in range(8, len(head), 4)}
        if brands & AVIF:
            return "AVIF, which this Pillow can't read: pip install --upgrade pillow"
        if brands & HEIC:
            return "HEIC, which Pillow can't read: pip install pillow-heif"
    if head.startswith(JPEG) or head[:4] == b"\x89PNG":
        return "damaged"
    if head[:4] in {b"II*\0", b"MM\0*"}:
        return "a TIFF of a kind that Pillow can't read: save it as PNG"
    return "no picture that Pillow knows"
