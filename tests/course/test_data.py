"""course/data.py: embedded bytes, CIFAR's archives from a local server, folders good and bad."""

import hashlib
import io
import pickle
import tarfile
import threading
import warnings
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from course.augmentation import flip_and_crop, mixup
from course.data import (
    DATASETS,
    ImageData,
    ShapeTexture100,
    load_data,
    shape_texture_accuracy,
)

PHOTOGRAPHS = Path(__file__).parents[3] / "shared" / "data" / "cifar10-images.tar.gz"


@pytest.fixture(scope="module")
def shape_texture():
    return load_data("ShapeTexture100")


def test_embedded_data_is_whole_and_balanced(shape_texture):
    for split, count in zip(shape_texture, (10_000, 2_000), strict=True):
        assert split.images.shape == (count, 3, 56, 56)
        assert split.images.dtype == torch.uint8
        assert split.targets.bincount().tolist() == [count // 100] * 100
        assert len(split) == count
        assert len(set(split.classes)) == 100
    assert len(torch.cat([s.images for s in shape_texture]).flatten(1).unique(dim=0)) == 12_000


def test_embedded_data_has_the_same_bytes_everywhere(shape_texture):
    digests = [hashlib.sha256(split.images.numpy()).hexdigest() for split in shape_texture]
    assert digests == [
        "2e46cec987f6c4ac2d6b508732e6786f2293afcb1935a71ce41849d05f5351eb",
        "3d4e56b649d690aed75b3f6ce291cad6c6023b08a9b0c2dda1b3b2737f9e8d43",
    ]


def test_embedded_statistics_are_those_of_the_training_images(shape_texture):
    train = shape_texture[0]
    pixels = train.images.double() / 255
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx(train.mean, abs=5e-4)
    assert pixels.std((0, 2, 3)).tolist() == pytest.approx(train.std, abs=5e-4)


def test_embedded_dataset_depends_on_seed_and_split_alone():
    np.random.seed(1)  # noqa: NPY002 (that this global state does not matter is the point)
    first = ShapeTexture100(train=False, size=200)
    np.random.seed(2)  # noqa: NPY002
    assert np.array_equal(first.data, ShapeTexture100(train=False, size=200).data)
    assert np.array_equal(first.data[:100], ShapeTexture100(train=False, size=100).data)
    assert not np.array_equal(first.data, ShapeTexture100(train=False, size=200, seed=1).data)
    assert not np.array_equal(first.data, ShapeTexture100(train=True, size=200).data)


def test_embedded_dataset_is_used_like_cifar100():
    dataset = ShapeTexture100(train=False, size=300, transform=np.asarray, target_transform=hex)
    image, target = dataset[123]
    assert (len(dataset), target) == (300, "0x17")
    assert np.array_equal(image, dataset.data[123])
    assert isinstance(ShapeTexture100(size=100)[0][0], Image.Image)
    assert dataset.data.shape == (300, 56, 56, 3)
    assert dataset.targets == list(range(100)) * 3
    assert dataset.class_to_idx[dataset.classes[42]] == 42
    shape, texture = ShapeTexture100.SHAPES[4], ShapeTexture100.TEXTURES[2]
    assert dataset.classes[42] == f"{shape} of {texture}"
    assert "300" in repr(dataset)


@pytest.mark.parametrize("size", [0, 50, 150, -100])
def test_embedded_dataset_refuses_an_unbalanced_size(size):
    with pytest.raises(ValueError, match=f"multiple of 100, not {size}"):
        ShapeTexture100(size=size)


def test_shapes_differ_in_arrangement_alone():
    data = ShapeTexture100(train=False, size=1000).data.astype(float)
    background = data[:, :1, :1]  # the top left corner is never inside a disc
    share = (np.abs(data - background).max(-1) > 4).mean((1, 2)).reshape(10, 10, 10).mean((0, 2))
    assert share.max() / share.min() < 1.1  # of the image that discs cover, by shape
    plain = data[9::10]
    contrast = np.abs(plain - plain[:, :1, :1]).max((1, 2, 3))
    assert contrast.min() > 50


def test_shape_texture_accuracy_by_hand():
    targets = torch.tensor([0, 11, 22, 99])
    predictions = torch.tensor(
        [9, 11, 32, 90]
    )  # shape right, both right, texture right, shape right
    assert shape_texture_accuracy(predictions, targets) == (0.75, 0.5)
    assert (ShapeTexture100.shape_of(47), ShapeTexture100.texture_of(47)) == (4, 7)


def numbered(count, height=4, width=4, **changes):
    """An ImageData whose image i has the pixel value i everywhere."""
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(1, 3, height, width)
    fields = {"mean": (0.5, 0.25, 0.0), "std": (1.0, 0.5, 0.25), "image_size": 4, **changes}
    return ImageData(images, torch.arange(count), ["a"], **fields)


def test_batches_are_normalised_and_in_order():
    batches = list(numbered(10).batches(4))
    assert [len(targets) for _, targets in batches] == [4, 4, 2]
    images, targets = batches[1]
    assert images.dtype == torch.float32
    assert images.shape == (4, 3, 4, 4)
    assert targets.tolist() == [4, 5, 6, 7]
    expected = [(5 / 255 - 0.5) / 1.0, (5 / 255 - 0.25) / 0.5, 5 / 255 / 0.25]
    assert images[1, :, 0, 0].tolist() == pytest.approx(expected)


def test_shuffling_depends_on_its_seed_alone():
    def order(seed):
        return torch.cat(
            [targets for _, targets in numbered(50).batches(8, shuffle=True, seed=seed)]
        )

    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = order(seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert torch.equal(order(seed=1), first)
    assert not torch.equal(order(seed=2), first)
    assert first.sort().values.tolist() == list(range(50))
    for images, targets in numbered(50).batches(8, shuffle=True, seed=1):
        assert (images[:, 2, 0, 0] * 0.25 * 255).round().long().tolist() == targets.tolist()


def test_batches_are_resized_with_antialiasing():
    small = numbered(3, 8, 8, image_size=16)
    images, _ = next(small.batches(3))
    assert images.shape == (3, 3, 16, 16)
    assert images[2].amin((1, 2)).tolist() == pytest.approx(images[2].amax((1, 2)).tolist())
    checks = (torch.arange(8).view(-1, 1) + torch.arange(8)) % 2 * 255
    fine = ImageData(checks.expand(1, 3, 8, 8).byte(), torch.zeros(1), ["a"], (0,) * 3, (1,) * 3, 2)
    assert next(fine.batches(1))[0].flatten().tolist() == pytest.approx([0.5] * 12, abs=0.05)


def test_augment_gets_uint8_before_resizing():
    def augment(images):
        assert (images.dtype, images.shape[-2:]) == (torch.uint8, (4, 4))
        return images.flip(0)

    images, targets = next(numbered(4, image_size=8).batches(4, augment=augment))
    assert images.shape == (4, 3, 8, 8)
    assert (images[:, 2, 0, 0] * 0.25 * 255).round().tolist() == [3, 2, 1, 0]
    assert targets.tolist() == [0, 1, 2, 3]


def drawn(seed, device="cpu"):
    """What an augmentation draws for each of three batches."""
    draws = []

    def augment(images):
        draws.append(tuple(torch.rand(3).tolist()))
        return images

    for _ in numbered(12).batches(4, seed=seed, augment=augment):
        pass
    return draws


def test_augmentation_is_drawn_anew_for_each_seed_and_batch():
    first, again, second, far = drawn(1), drawn(1), drawn(2), drawn(1 + 2**32)
    assert first == again
    assert len({*first, *second, *far}) == 9


def test_processes_share_the_batches_of_one():
    def parts(**share):
        data = replace(numbered(10), classes=list("abcdefghij"))
        return list(data.batches(4, True, augment=flip_and_crop, mix=mixup, **share))

    whole, shares = parts(), [parts(rank=rank, processes=3) for rank in range(3)]
    assert [len(targets) for _, targets in shares[0]] == [2, 2, 2]
    for k in (0, 1):
        for place, batch in enumerate(whole[:2]):
            assert torch.equal(torch.cat([share[place][k] for share in shares]), batch[k])
        for share in shares:  # two images for three: each has both
            assert torch.equal(share[2][k], whole[2][k])


def test_some_images_are_selected():
    data = numbered(10)
    assert data.select(slice(1, None, 4)).targets.tolist() == [1, 5, 9]
    part = data.select(torch.tensor([7, 2]))
    assert (part.images[:, 0, 0, 0].tolist(), part.targets.tolist()) == ([7, 2], [7, 2])
    assert (part.mean, part.image_size, len(part)) == (data.mean, data.image_size, 2)


@pytest.fixture
def fake_cifar(tmp_path, monkeypatch):
    """A tiny CIFAR-100 behind a local server: yields (folder that is served, list of requests)."""
    rng = np.random.default_rng(0)
    files = {
        name: {
            "data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
            "fine_labels": [i % 3 for i in range(count)],
        }
        for name, count in (("train", 6), ("test", 3))
    }
    contents = {name: pickle.dumps(content, protocol=2) for name, content in files.items()}
    contents["meta"] = pickle.dumps({"fine_label_names": ["apple", "bear", "cup"]}, protocol=2)
    served = tmp_path / "served"
    served.mkdir()
    archive = served / datasets.CIFAR100.filename
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"{datasets.CIFAR100.base_folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    requests = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            requests.append(self.command)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=served))
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    for name, value in {
        "url": f"http://127.0.0.1:{server.server_port}/{archive.name}",
        "tgz_md5": hashlib.md5(archive.read_bytes()).hexdigest(),
        "train_list": [["train", md5["train"]]],
        "test_list": [["test", md5["test"]]],
        "meta": {**datasets.CIFAR100.meta, "md5": md5["meta"]},
    }.items():
        monkeypatch.setattr(datasets.CIFAR100, name, value)
    yield served, requests, files
    server.shutdown()
    server.server_close()


def assert_whole(splits, files):
    for split, name in zip(splits, ("train", "test"), strict=True):
        assert np.array_equal(split.images.numpy().reshape(-1, 3072), files[name]["data"])
        assert split.targets.tolist() == files[name]["fine_labels"]
        assert split.classes == ["apple", "bear", "cup"]


def test_cifar_is_downloaded_once(fake_cifar, tmp_path):
    _, requests, files = fake_cifar
    train, test = load_data("CIFAR100", root=tmp_path / "cache")
    assert_whole((train, test), files)
    assert train.mean == (0.5071, 0.4867, 0.4408)
    assert train.std == (0.2675, 0.2565, 0.2761)
    assert next(train.batches(2))[0].shape == (2, 3, 56, 56)
    assert requests
    requests.clear()
    assert_whole(load_data("cifar100", root=tmp_path / "cache"), files)
    assert not requests


def test_a_broken_archive_is_downloaded_again(fake_cifar, tmp_path):
    served, requests, files = fake_cifar
    name = datasets.CIFAR100.filename
    content = (served / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    assert_whole(load_data("cifar100", root=tmp_path), files)
    assert "GET" in requests


@pytest.mark.parametrize("file", ["train", "test", "meta"])
@pytest.mark.parametrize("damage", ["missing", "half"])
def test_a_half_unpacked_folder_is_unpacked_again(fake_cifar, tmp_path, file, damage):
    _, requests, files = fake_cifar
    load_data("cifar100", root=tmp_path)
    requests.clear()
    path = tmp_path / datasets.CIFAR100.base_folder / file
    content = path.read_bytes()
    path.unlink()
    if damage == "half":
        path.write_bytes(content[: len(content) // 2])
    assert_whole(load_data("cifar100", root=tmp_path), files)
    assert not requests  # the archive beside it is whole


def test_an_archive_put_by_hand_needs_no_network(fake_cifar, tmp_path):
    served, requests, files = fake_cifar
    name = datasets.CIFAR100.filename
    (tmp_path / name).write_bytes((served / name).read_bytes())
    assert_whole(load_data("cifar100", root=tmp_path), files)
    assert not requests


@pytest.mark.parametrize("trouble", ["no server", "not found", "wrong bytes"])
def test_a_failed_download_says_what_to_do(fake_cifar, tmp_path, monkeypatch, trouble):
    served, _, _ = fake_cifar
    archive = served / datasets.CIFAR100.filename
    if trouble == "no server":
        monkeypatch.setattr(datasets.CIFAR100, "url", "http://127.0.0.1:9/cifar-100-python.tar.gz")
    elif trouble == "not found":
        archive.unlink()
    else:
        archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(RuntimeError) as caught:
        load_data("cifar100", root=tmp_path / "cache")
    message = str(caught.value)
    assert "\n" not in message
    assert "check the connection" in message
    assert f"put the archive {archive.name} into {tmp_path / 'cache'}" in message
    assert 'load_data("shapetexture100")' in message
    assert caught.value.__suppress_context__


def test_an_unknown_name_lists_the_known_ones():
    assert {"shapetexture100", "cifar100", "cifar10"} <= set(DATASETS)
    with pytest.raises(ValueError, match=rf"'cifar1000'.*{', '.join(DATASETS)}.*folder"):
        load_data("cifar1000")


@pytest.fixture
def folder(tmp_path):
    """train/ and test/ with two classes, each with two 8 x 8 images: red, then blue."""
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for colour in ("red", "blue"):
                path = tmp_path / "data" / split / name / f"{colour[0]}.png"
                Image.new("RGB", (8, 8), colour).save(path)
    return tmp_path / "data"


def centre(split, index):
    size = split.images.shape[-1]
    return split.images[index, :, size // 2, size // 2].tolist()


def test_a_folder_of_one_size_keeps_it(folder):
    train, test = load_data(str(folder), image_size=16)
    assert train.images.shape == (4, 3, 8, 8)
    assert (train.classes, train.targets.tolist()) == (["ant", "bee"], [0, 0, 1, 1])
    assert (centre(train, 0), centre(train, 1)) == ([0, 0, 255], [255, 0, 0])
    assert train.mean == pytest.approx((0.5, 0.0, 0.5))
    assert train.std == pytest.approx((0.5, 1 / 255, 0.5))
    assert test.mean == train.mean
    assert next(test.batches(4))[0].shape == (4, 3, 16, 16)


def test_hidden_files_are_passed_over(folder):
    (folder / "train" / ".cache").mkdir()
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (folder / "train" / "ant" / name).write_text("no image")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load_data(folder)[0]) == 4


def test_mixed_sizes_are_cut_to_the_central_square(folder):
    wide = Image.new("RGB", (90, 30), "red")
    wide.paste("lime", (30, 0, 60, 30))
    wide.save(folder / "train" / "ant" / "b.png")
    train, test = load_data(folder, image_size=20)
    assert train.images.shape == (4, 3, 20, 20)
    assert train.images[0].amin((1, 2)).tolist() == [0, 255, 0]
    assert train.images[0].amax((1, 2)).tolist() == [0, 255, 0]
    assert centre(train, 1) == [255, 0, 0]
    assert test.images.shape == (4, 3, 8, 8)


def test_every_mode_becomes_rgb(folder):
    ant = folder / "train" / "ant"
    Image.new("L", (8, 8), 100).save(ant / "m1.png")
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(ant / "m2.png")  # transparent: the white below
    Image.new("RGB", (8, 8), (10, 200, 30)).quantize(4).save(ant / "m3.png")
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(ant / "m4.tif")
    Image.fromarray(np.full((8, 8), 100 * 257, dtype=np.uint16)).save(ant / "m5.png")
    Image.new("1", (8, 8), 1).save(ant / "m6.png")
    Image.new("LA", (8, 8), (40, 255)).save(ant / "m7.png")
    train, _ = load_data(folder)
    colours = [[100] * 3, [255] * 3, [10, 200, 30], [255, 0, 0], [100] * 3, [255] * 3, [40] * 3]
    assert [centre(train, 1 + i) for i in range(7)] == colours


def test_photographs_are_turned_upright(folder):
    picture = Image.new("RGB", (8, 8), "red")
    picture.paste("blue", (0, 0, 8, 4))  # blue above red, as stored
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    picture.save(folder / "train" / "ant" / "a.png", exif=exif)
    upright = load_data(folder)[0].images[0]
    assert upright[:, 0, 0].tolist() == [255, 0, 0]
    assert upright[:, 7, 0].tolist() == [0, 0, 255]


def test_unreadable_files_are_counted_and_named_once(folder):
    ant = folder / "train" / "ant"
    (ant / "notes.txt").write_text("no image")
    (ant / "empty.png").touch()
    rng = np.random.default_rng(0)
    noise = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(noise, "jpeg")
    (ant / "cut.jpg").write_bytes(noise.getvalue()[:1000])
    with pytest.warns(UserWarning, match="skipped: 3 of 7 files") as caught:
        train, _ = load_data(folder)
    assert len(caught) == 1
    assert all(name in str(caught[0].message) for name in ("notes.txt", "empty.png", "cut.jpg"))
    assert (len(train), train.targets.tolist()) == (4, [0, 0, 1, 1])


def test_a_class_without_readable_images_is_an_error(folder):
    for path in (folder / "test" / "bee").iterdir():
        path.write_text("no image")
    with (
        pytest.warns(UserWarning, match="skipped: 2 of 4 files"),
        pytest.raises(ValueError, match=r"no readable image in .*test for bee: add"),
    ):
        load_data(folder)


def test_an_empty_class_is_an_error(folder):
    for split in ("train", "test"):
        (folder / split / "wasp").mkdir()
    with pytest.raises(ValueError, match=r"no readable image in .*train for wasp: add"):
        load_data(folder)


@pytest.mark.parametrize("split", ["train", "test"])
def test_both_splits_need_the_same_classes(folder, split):
    (folder / split / "wasp").mkdir()
    with pytest.raises(ValueError, match=r"not in both .*train and .*test: wasp"):
        load_data(folder)


def test_a_folder_without_training_images_is_an_error(folder):
    (folder / "train").rename(folder / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"no folder .*train to learn from: .*val/<class>"):
        load_data(folder)


def test_a_missing_folder_is_an_error(tmp_path):
    for name in (tmp_path / "nowhere", str(tmp_path / "nowhere")):
        with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
            load_data(name)


def test_a_folder_without_classes_is_an_error(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
    with pytest.raises(ValueError, match=r"train has no class folders: .*train/<class>/\*"):
        load_data(tmp_path)


def test_real_photographs(tmp_path):
    if not PHOTOGRAPHS.is_file():
        pytest.skip(f"needs the photographs in {PHOTOGRAPHS}")
    with tarfile.open(PHOTOGRAPHS) as tar:
        for member in tar:  # 20 images a class and split: not all 60,000
            if member.isfile() and Path(member.name).stem <= "0020":
                tar.extract(member, tmp_path, filter="data")
    train, test = load_data(tmp_path)
    assert len(train) == len(test)
    assert train.images.shape[1:] == (3, 32, 32)
    assert train.classes[0] == "airplane"
    assert train.classes[9] == "truck"
    assert len(set(train.targets.bincount().tolist())) == 1
    assert train.mean == pytest.approx((0.49, 0.48, 0.45), abs=0.03)
    path = sorted((tmp_path / "train" / "airplane").iterdir())[0]
    assert np.array_equal(train.images[0].permute(1, 2, 0), np.asarray(Image.open(path)))
    assert next(test.batches(5))[0].shape == (5, 3, 56, 56)


def test_flip_and_crop_gives_every_flip_and_shift_of_the_image():
    image = torch.arange(3 * 5 * 7, dtype=torch.uint8).reshape(3, 5, 7)
    torch.manual_seed(0)
    batch = flip_and_crop(image.expand(400, -1, -1, -1), padding=1)
    framed = torch.nn.functional.pad(image[None].float(), (1, 1, 1, 1), mode="replicate")[0].byte()
    crops = [framed[:, y : y + 5, x : x + 7] for y in range(3) for x in range(3)]
    possible = {tuple(crop.flatten().tolist()) for crop in crops}
    possible |= {tuple(crop.flip(2).flatten().tolist()) for crop in crops}
    assert batch.dtype == torch.uint8
    assert {tuple(crop.flatten().tolist()) for crop in batch} == possible
