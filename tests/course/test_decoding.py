"""course/data/decoding.py: files of every kind as 8-bit RGB, and why others are none."""

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, PngImagePlugin

from course.data import decoding
from course.data.decoding import Picture, Unreadable, explain_unknown


def read(path, **options):
    """The file's pixels, uint8 [H, W, 3]."""
    return Picture(path).pixels(**options).permute(1, 2, 0).numpy()


def noise(height=12, width=20, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png16(path, values):
    """Writes uint16 [H, W, C] as a PNG of 16 bits a colour, which Pillow itself can't write."""
    height, width, channels = values.shape

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


def tiff(path, data, width, height, bits, samples=1):
    """Writes an uncompressed TIFF of `bits` a value, little-endian."""
    tags = [(256, 3, 1, width), (257, 3, 1, height), (259, 3, 1, 1)]
    tags += [(262, 3, 1, 2 if samples == 3 else 1), (277, 3, 1, samples), (278, 3, 1, height)]
    tags += [(279, 4, 1, len(data))]
    start = 8 + 2 + 12 * (len(tags) + 2) + 4
    extra = struct.pack("<3H", bits, bits, bits) if samples == 3 else b""
    tags += [(258, 3, samples, start if samples == 3 else bits), (273, 4, 1, start + len(extra))]
    directory = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + directory + struct.pack("<I", 0)
    path.write_bytes(head + extra + data)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_torchvision_and_pillow_decode_the_same_pixels(tmp_path, mode):
    image = Image.fromarray(noise(61, 83, len(mode)))
    image.save(tmp_path / "a.jpg", quality=80)
    picture = Picture(tmp_path / "a.jpg")
    assert picture.fast
    by_pillow = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB"))
    assert np.array_equal(read(tmp_path / "a.jpg"), by_pillow)


def test_without_torchvisions_decoders_pillow_does_it(tmp_path, monkeypatch):
    Image.fromarray(noise(61, 83)).save(tmp_path / "a.jpg")
    before = read(tmp_path / "a.jpg")
    monkeypatch.setattr(decoding, "decode_jpeg", None)
    assert not Picture(tmp_path / "a.jpg").fast
    assert np.array_equal(read(tmp_path / "a.jpg"), before)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_every_orientation_becomes_upright(tmp_path, orientation, ending):
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = orientation
    path = tmp_path / f"a.{ending}"
    Image.fromarray(noise(16, 24)).save(path, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(path))
    picture = Picture(path)
    assert (picture.width, picture.height) == upright.size
    assert np.array_equal(read(path), np.asarray(upright))


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size(tmp_path):
    small = Image.fromarray(noise(6, 8)).resize((800, 600), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[decoding.ORIENTATION] = 6
    small.save(tmp_path / "a.jpg", quality=95, exif=exif)
    whole = read(tmp_path / "a.jpg")
    assert whole.shape == (800, 600, 3)
    for shrink, factor in ((1.9, 1), (2, 2), (3.9, 2), (4, 4), (100, 8)):
        part = read(tmp_path / "a.jpg", shrink=shrink)
        assert part.shape == (800 // factor, 600 // factor, 3)
        means = whole.reshape(800 // factor, factor, 600 // factor, factor, 3).mean((1, 3))
        assert np.abs(part - means).max() < 8  # of 255


def test_a_large_png_is_shrunk_before_it_is_converted(tmp_path):
    pixels = noise(40, 60)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    part = read(tmp_path / "a.png", shrink=4.5)
    assert np.abs(part - pixels.reshape(10, 4, 15, 4, 3).mean((1, 3))).max() <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 0.2, 1]], np.float32), [0, 51, 255]),  # shares of white
        (np.array([[0, 51.2, 255]], np.float32), [0, 51, 255]),
        (np.array([[0, 13107, 65535]], np.float32), [0, 51, 255]),
        (np.array([[0, 51, 255]], np.int32), [0, 51, 255]),
        (np.array([[0, 819, 4095]], np.int32), [0, 51, 255]),
        (np.array([[0, 13107, 65535]], np.int32), [0, 51, 255]),
        (np.array([[0, 0, 0]], np.float32), [0, 0, 0]),
        (np.array([[0, 51, 255]], np.uint16), [0, 51, 255]),
        (np.array([[0, 819, 4095]], np.uint16), [0, 51, 255]),
        (np.array([[0, 3277, 16383]], np.uint16), [0, 51, 255]),
        (np.array([[0, 13107, 65535]], np.uint16), [0, 51, 255]),
    ],
)
def test_grey_values_are_scaled_by_what_they_hold(tmp_path, values, expected):
    Image.fromarray(values).save(tmp_path / "a.tif")
    pixels = read(tmp_path / "a.tif")
    assert pixels[0, :, 0].tolist() == expected
    assert (pixels == pixels[..., :1]).all()
    if values.dtype == np.uint16:
        Image.fromarray(values).save(tmp_path / "a.png")
        assert np.array_equal(read(tmp_path / "a.png"), pixels)


@pytest.mark.parametrize("highest", [255, 1023, 4095, 16383, 65535])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_of_16_bits_a_colour_is_scaled_by_what_it_holds(tmp_path, highest, channels):
    shares = np.linspace(0, 1, 6 * channels).reshape(2, 3, channels)
    has_alpha = channels in {2, 4}
    if has_alpha:
        shares[..., -1] = 1
    values = np.rint(shares * highest).astype(np.uint16)
    if has_alpha:
        values[..., -1] = 65535  # opaque, whatever the colours hold
    png16(tmp_path / "a.png", values)
    expected = np.rint(shares[..., :-1] * 255 if has_alpha else shares * 255)
    assert np.abs(read(tmp_path / "a.png") - expected).max() <= 1
    bits = Picture(tmp_path / "a.png")
    bits.pixels()
    assert 2**bits.depth - 1 == highest


def test_a_depth_is_at_least_the_folders(tmp_path):
    Image.fromarray(np.array([[0, 51, 200]], np.uint16)).save(tmp_path / "dark.png")
    assert read(tmp_path / "dark.png", depth=12)[0, :, 0].tolist() == [0, 3, 12]


def test_a_tiff_of_12_bits(tmp_path):
    values = [0, 819, 4095, 100]  # packed in pairs: 3 bytes for 2
    packed = int("".join(f"{v:03x}" for v in values), 16).to_bytes(6, "big")
    tiff(tmp_path / "a.tif", packed, 4, 1, 12)
    assert read(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 51, 255, 6]
    dark = int("".join(f"{v:03x}" for v in (0, 160, 80, 16)), 16).to_bytes(6, "big")
    tiff(tmp_path / "dark.tif", dark, 4, 1, 12)
    assert read(tmp_path / "dark.tif")[0, :, 0].tolist() == [0, 10, 5, 1]


def test_a_tiff_of_16_bits_a_colour(tmp_path):
    values = np.linspace(0, 65535, 12).astype("<u2")
    tiff(tmp_path / "full.tif", values.tobytes(), 4, 1, 16, samples=3)
    assert np.abs(read(tmp_path / "full.tif").ravel() - values / 257).max() <= 1
    tiff(tmp_path / "low.tif", (values // 16).tobytes(), 4, 1, 16, samples=3)
    with pytest.raises(Unreadable, match="16 bits a colour that hold 12 or fewer: save it as PNG"):
        read(tmp_path / "low.tif")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[-1, 1]], np.float32), "values from -1 to 1 are no pixels: scale them"),
        (np.array([[0, np.nan]], np.float32), "not finite"),
        (np.array([[0, np.inf]], np.float32), "not finite"),
        (np.array([[0, 1e6]], np.float32), "values from 0 to 1e\\+06 are no pixels"),
        (np.array([[-5, 100]], np.int32), "values from -5 to 100 are no pixels"),
        (np.array([[0, 70000]], np.int32), "values from 0 to 70000 are no pixels"),
    ],
)
def test_values_that_are_no_pixels_are_refused(tmp_path, values, reason):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(Unreadable, match=reason):
        read(tmp_path / "a.tif")


def test_two_megabytes_of_text_do_no_harm(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("story", "x" * 2_000_000, zip=True)
    pixels = noise()
    Image.fromarray(pixels).save(tmp_path / "a.png", pnginfo=info)
    assert np.array_equal(read(tmp_path / "a.png"), pixels)


@pytest.mark.slow
def test_two_hundred_megapixels_do_no_harm(tmp_path):
    image = Image.new("L", (20_000, 10_000), 100)
    assert image.width * image.height > 2 * 89_478_485  # where Pillow by itself refuses
    image.save(tmp_path / "a.png", compress_level=1)
    image.save(tmp_path / "a.jpg")
    for name in ("a.png", "a.jpg"):
        pixels = read(tmp_path / name, shrink=40)
        assert pixels.shape[0] < 2000
        assert (pixels == 100).all()


def test_too_many_pixels_are_refused(tmp_path, monkeypatch):
    Image.fromarray(noise(50, 50)).save(tmp_path / "a.png")
    monkeypatch.setattr(decoding, "MOST_PIXELS", 2000)
    with pytest.raises(Unreadable, match="megapixels are too many: make it smaller"):
        read(tmp_path / "a.png")


def reason(path):
    with pytest.raises(Unreadable) as caught:
        read(path)
    return str(caught.value)


def test_each_file_has_its_reason(tmp_path):
    content = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(content, "jpeg")
    (tmp_path / "cut.jpg").write_bytes(content.getvalue()[:1500])
    content = io.BytesIO()
    Image.fromarray(noise(64, 64)).save(content, "png")
    (tmp_path / "cut.png").write_bytes(content.getvalue()[:5000])
    (tmp_path / "empty.png").touch()
    (tmp_path / "notes.jpg").write_text("no image")
    (tmp_path / "head.jpg").write_bytes(b"\xff\xd8 and then nonsense")
    (tmp_path / "float64.tif").write_bytes(b"II*\0" + bytes(60))
    os.symlink(tmp_path / "nowhere.jpg", tmp_path / "link.jpg")
    assert reason(tmp_path / "cut.jpg") == "cut short"
    assert reason(tmp_path / "cut.png") == "cut short"
    assert reason(tmp_path / "empty.png") == "empty"
    assert reason(tmp_path / "notes.jpg") == "no picture that Pillow knows"
    assert reason(tmp_path / "head.jpg") == "damaged"
    assert "TIFF of a kind that Pillow can't read" in reason(tmp_path / "float64.tif")
    assert reason(tmp_path / "link.jpg") == "a link to nothing"
    assert reason(tmp_path / "gone.jpg") == "gone"


def test_heic_and_avif_say_what_to_install(tmp_path):
    for brand, package in ((b"heic", "pillow-heif"), (b"mif1", "pillow-heif"), (b"avif", "pillow")):
        path = tmp_path / brand.decode()
        path.write_bytes(struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + brand + bytes(40))
        assert explain_unknown(path).endswith(f"pip install --upgrade {package}") or (
            explain_unknown(path).endswith(f"pip install {package}")
        )


def test_avif_is_read(tmp_path):
    pixels = np.full((32, 48, 3), (200, 100, 50), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.avif", quality=100)
    assert np.abs(read(tmp_path / "a.avif").astype(int) - pixels).max() < 8


def test_heic_is_read_where_its_package_is_installed(tmp_path):
    pytest.importorskip("pillow_heif")
    pixels = np.full((64, 64, 3), (200, 100, 50), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.heic", quality=90)
    assert np.abs(read(tmp_path / "a.heic").astype(int) - pixels).max() < 8


def test_pixels_are_a_tensor_of_their_own(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as torch's of arrays that may not be written to
        pixels = Picture(tmp_path / "a.png").pixels()
    assert pixels.dtype == torch.uint8
    pixels.zero_()
