"""Which part of a picture becomes the image, and at what size."""

from torch import Tensor
from torch.nn.functional import interpolate

from course.data.decoding import Picture

# A JPEG is decoded at half its size or less where it still is this much larger than needed
MARGIN = 2


def resize(pixels: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    """uint8 [3, H, W] -> uint8 [3, height, width], smoothed where it shrinks."""
    if pixels.shape[1:] == (height, width):
        return pixels
    return interpolate(pixels[None], (height, width), mode=interpolation, antialias=True)[0]


def cut_centre(picture: Picture, share: float, size: int, interpolation: str, depth: int) -> Tensor:
    """uint8 [3, size, size]: the shorter side becomes size / share, and the centre is cut out.

    This is how timm and torchvision look at test images (`Resize`, then `CenterCrop`). With all of
    the shorter side, what is cut off has no influence on the border.
    """
    short = int(size / share)
    pixels = picture.pixels(min(picture.height, picture.width) / (MARGIN * short), depth)
    height, width = pixels.shape[1:]
    if share == 1:
        return resize(centre(pixels, min(height, width)), size, size, interpolation)
    if height < width:
        height, width = short, int(short * width / height)
    else:
        height, width = int(short * height / width), short
    return centre(resize(pixels, height, width, interpolation), size)


def centre(pixels: Tensor, side: int) -> Tensor:
    """The central square: [3, H, W] -> [3, side, side]."""
    top, left = (round((length - side) / 2) for length in pixels.shape[1:])
    return pixels[:, top : top + side, left : left + side]


def cut_part(
    picture: Picture,
    part: tuple[int, int, int, int],
    size: int,
    interpolation: str,
    depth: int,
) -> Tensor:
    """uint8 [3, size, size]: the part (top, left, height, width) of the picture."""
    top, left, height, width = part
    pixels = picture.pixels(min(height, width) / (MARGIN * size), depth)
    if (scale := pixels.shape[1] / picture.height) != 1:  # decoded at a fraction of its size
        top, left = round(top * scale), round(left * scale)
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
    return resize(pixels[:, top : top + height, left : left + width], size, size, interpolation)
