"""course/data/streaming.py: batches from files as they are needed are those from memory."""

import math
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from torch import nn
from torchvision import transforms
from torchvision.transforms.v2 import functional as F

from course.augmentation import RandomResizedCrop, flip_and_crop, mixup
from course.data import ImageData, StreamedImages, load_data, workers
from course.data.images import image_seeds
from course.training import evaluate, fit

SIZE = 32
HERE = {"workers": 0}  # decoded in this process, which is quicker for a few


def picture(height, width, seed):
    """A smooth picture, unlike any other seed's."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """train/ with 3 classes of 8 pictures and val/ with 3 of 5, of many sizes and shapes."""
    root = tmp_path_factory.mktemp("pictures")
    number = 0
    for split, count in (("train", 8), ("val", 5)):
        for name in ("ant", "bee", "cat"):
            (root / split / name).mkdir(parents=True)
            for place in range(count):
                number += 1
                image = picture(40 + 7 * number % 50, 60 + 11 * number % 40, number)
                image.save(root / split / name / f"{place}.jpg", quality=95)
    return root


@pytest.fixture
def streamed(folder):
    train, held_out = load_data(folder, SIZE, memory=0, **HERE)
    assert isinstance(train, StreamedImages)
    assert isinstance(held_out, StreamedImages)
    return train, held_out


def whole(data, batch_size=5, **options):
    """All images and targets of one pass."""
    images, targets = zip(*data.batches(batch_size, **options), strict=True)
    return torch.cat(images), torch.cat(targets)


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_what_is_streamed_is_what_would_be_in_memory(folder, streamed):
    kept = load_data(folder, SIZE, memory="1G")
    for data, other in zip(streamed, kept, strict=True):
        assert isinstance(other, ImageData)
        assert other.images.shape[2:] == (SIZE, SIZE)
        data = replace(data, mean=other.mean, std=other.std)
        for options in ({}, {"shuffle": True, "seed": 3, "start": 2}):
            assert same(whole(data, **options), whole(other, **options))
        options = {"shuffle": True, "seed": 3, "augment": flip_and_crop, "mix": mixup}
        assert same(whole(data, **options), whole(other, **options))
        assert (data.classes, data.targets.tolist()) == (other.classes, other.targets.tolist())
        assert len(data) == len(other)


def test_a_folder_is_streamed_when_it_is_larger_than_memory(folder, capsys):
    size = 39 * 3 * SIZE**2
    for memory, kind in ((size, ImageData), (size - 1, StreamedImages), ("1k", StreamedImages)):
        assert [type(data) for data in load_data(folder, SIZE, memory=memory, **HERE)] == [kind] * 2
    assert "39 images would take" in capsys.readouterr().out


def test_statistics_come_from_a_sample_or_are_given(folder, streamed, capsys):
    train, held_out = load_data(folder, SIZE, memory=0, **HERE)
    assert "mean and std" in (said := capsys.readouterr().out)
    assert "of 24 of its images" in said
    exact = load_data(folder, SIZE)[0]
    assert train.mean == pytest.approx(exact.mean)
    assert train.std == pytest.approx(exact.std)
    assert (held_out.mean, held_out.std) == (train.mean, train.std)
    given = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    for data in load_data(folder, SIZE, memory=0, **HERE, **given):
        assert (data.mean, data.std) == tuple(given.values())
    assert "sample" not in capsys.readouterr().out


def test_crops_depend_on_the_seed_and_the_image_alone(streamed):
    train, _ = streamed
    options = {"shuffle": True, "augment": RandomResizedCrop()}
    first = whole(train, 5, seed=1, **options)
    assert same(whole(train, 5, seed=1, **options), first)
    assert same(whole(train, 7, seed=1, **options), first)  # whatever the batches' size
    other = whole(train, 5, seed=2, **options)
    assert not torch.equal(other[1], first[1])
    in_order = [whole(train, seed=seed, augment=RandomResizedCrop())[0] for seed in (1, 2)]
    differ = (in_order[0] - in_order[1]).abs().amax((1, 2, 3))
    assert (differ > 0.01).all()


def test_a_pass_goes_on_where_it_was_left(streamed):
    options = {"shuffle": True, "seed": 4, "augment": RandomResizedCrop(then=flip_and_crop)}
    options["mix"] = mixup
    batches = list(streamed[0].batches(5, **options))
    for start in range(len(batches)):
        rest = list(streamed[0].batches(5, start=start, **options))
        assert len(rest) == len(batches) - start
        assert all(same(a, b) for a, b in zip(rest, batches[start:], strict=True))


def test_processes_decode_their_shares_alone(streamed, monkeypatch):
    options = {"shuffle": True, "seed": 4, "augment": RandomResizedCrop()}
    one = list(streamed[0].batches(7, **options))
    decoded = []
    decode = workers.Decoder.decode
    monkeypatch.setattr(workers.Decoder, "decode", lambda *a: decoded.append(a[1]) or decode(*a))
    shares = [list(streamed[0].batches(7, rank=r, processes=3, **options)) for r in range(3)]
    assert sorted(decoded) == list(range(24))
    assert [len(targets) for _, targets in shares[0]] == [3, 3, 3, 1]
    for place, batch in enumerate(one):
        for k in (0, 1):
            assert torch.equal(torch.cat([share[place][k] for share in shares]), batch[k])
    small = list(streamed[0].batches(11, rank=2, processes=3))  # 11, 11 and 2: too few to share
    assert [len(targets) for _, targets in small] == [3, 3, 2]


def test_a_crop_is_torchvisions(folder, streamed):
    train, _ = streamed
    images, _ = whole(train, seed=6, augment=RandomResizedCrop())
    files = sorted((folder / "train").glob("*/*.jpg"))
    mirrored = 0
    for file, seed in zip(files, image_seeds(6, np.arange(24)).tolist(), strict=True):
        torch.manual_seed(seed)
        full = Image.open(file)
        part = transforms.RandomResizedCrop.get_params(full, [0.08, 1], [3 / 4, 4 / 3])
        expected = F.pil_to_tensor(F.resized_crop(full, *part, [SIZE, SIZE]))
        if torch.rand(()) < 0.5:
            expected, mirrored = expected.flip(2), mirrored + 1
        found = images[files.index(file)] * torch.tensor(train.std)[:, None, None]
        found = (found + torch.tensor(train.mean)[:, None, None]) * 255
        assert (found - expected).abs().max() < 2  # of 255
    assert 4 < mirrored < 20


@pytest.mark.parametrize("crop_share", [0.875, 0.95])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_held_out_images_are_cut_as_timm_cuts_them(folder, crop_share, interpolation):
    look = {"crop_share": crop_share, "interpolation": interpolation}
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    _, held_out = load_data(folder, SIZE, memory=0, mean=mean, std=std, **look, **HERE)
    prepare = create_transform(
        SIZE, interpolation=interpolation, crop_pct=crop_share, mean=mean, std=std
    )
    files = sorted((folder / "val").glob("*/*.jpg"))
    expected = torch.stack([prepare(Image.open(file)) for file in files])
    assert (whole(held_out)[0] - expected).abs().max() < 2 / 255 / min(std)
    in_memory = load_data(folder, SIZE, mean=mean, std=std, **look)[1]
    assert isinstance(in_memory, ImageData)
    assert torch.equal(whole(in_memory)[0], whole(held_out)[0])


def test_torchs_random_state_stays_as_it_is(streamed):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    whole(streamed[0], shuffle=True, augment=RandomResizedCrop(then=flip_and_crop))
    assert torch.equal(torch.get_rng_state(), state)


def test_some_images_are_selected(streamed):
    train, _ = streamed
    images, targets = whole(train)
    for which in (slice(1, None, 4), torch.tensor([7, 2, 20])):
        part = train.select(which)
        assert same(whole(part), (images[which], targets[which]))
        assert len(part) == len(targets[which])


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 3))


def test_fit_learns_the_same_from_both(folder, streamed, capsys):
    kept = load_data(folder, SIZE)
    histories, results = [], []
    for train, held_out in (kept, streamed):
        train, held_out = (
            replace(data, mean=(0.5,) * 3, std=(0.25,) * 3) for data in (train, held_out)
        )
        learner = model()
        histories.append(fit(learner, train, held_out, epochs=2, batch_size=5, device="cpu"))
        results.append(evaluate(learner, held_out, batch_size=4))
    assert len(histories[0].losses) == 10
    assert histories[0].losses == histories[1].losses
    assert results[0].loss == results[1].loss
    assert torch.equal(results[0].predictions, results[1].predictions)


@pytest.fixture
def damaged(folder, tmp_path):
    """A copy of the folder in which files can't be read."""
    for path in folder.glob("*/*/*"):
        copy = tmp_path / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    for name in ("ant/7.jpg", "bee/3.jpg"):
        (tmp_path / "train" / name).write_bytes(b"\xff\xd8 nonsense")
    return tmp_path


def test_another_of_its_class_stands_in_for_a_damaged_file(damaged, streamed):
    look = {"mean": streamed[0].mean, "std": streamed[0].std}
    train, _ = load_data(damaged, SIZE, memory=0, **look, **HERE)
    with pytest.warns(UserWarning, match="stands in") as caught:
        images, targets = whole(train)
    texts = [str(warning.message) for warning in caught]
    assert [Path(text.split(":")[0]).name for text in texts] == ["7.jpg", "3.jpg"]
    assert all("damaged" in text and "stands in" in text for text in texts)
    assert set(train.unreadable) == {os.path.join("ant", "7.jpg"), os.path.join("bee", "3.jpg")}
    right, right_targets = whole(streamed[0])
    assert torch.equal(targets, right_targets)
    right[7], right[11] = right[0], right[12]  # the next one, from the class's end its first
    assert torch.equal(images, right)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # once is enough
        whole(train)


def test_a_class_of_damaged_files_is_an_error(damaged):
    for path in (damaged / "train" / "cat").iterdir():
        path.write_text("nothing")
    train, _ = load_data(damaged, SIZE, memory=0, mean=(0.5,) * 3, std=(0.5,) * 3, **HERE)
    with (
        pytest.warns(UserWarning, match="stands in"),
        pytest.raises(ValueError, match=r"no readable image in .*train for cat: add some"),
    ):
        whole(train)


def test_dark_pictures_are_scaled_like_the_others(tmp_path):
    """16-bit files that hold 12 bits, and a dark one that would fit in 8."""
    for name, values in (("a", (0, 4095)), ("b", (100, 200))):
        for place in range(2):
            path = tmp_path / "train" / name / f"{place}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((SIZE, SIZE), values[place], np.uint16)).save(path)
    for memory in (None, 0):
        train, held_out = load_data(tmp_path, SIZE, memory=memory, hold_out=0.5, **HERE)
        found = {}
        for data in (train, held_out):
            data = replace(data, mean=(0,) * 3, std=(1,) * 3)
            for image, target in zip(*whole(data), strict=True):
                found.setdefault(data.classes[target], []).append(round(image.max().item() * 4095))
        assert sorted(found["a"]) == pytest.approx([0, 4095])
        assert sorted(found["b"]) == pytest.approx([100, 200], abs=9), memory


def children():
    return {process.pid for process in psutil.Process().children()}


@pytest.mark.slow
def test_workers_decode_the_same_and_stay(folder, streamed):
    train = replace(streamed[0], workers=2)
    options = {"shuffle": True, "augment": RandomResizedCrop()}
    before = children()
    for seed in range(3):
        assert same(whole(train, seed=seed, **options), whole(streamed[0], seed=seed, **options))
        pids = children() - before
        assert len(pids) == 2
        for _ in train.batches(5, seed=seed, **options):
            break  # a pass may be left
    assert children() - before == pids
    both = zip(train.batches(5, seed=1), train.batches(5, seed=1), strict=True)
    assert all(same(a, b) for a, b in both)  # at the same time, with two more
    assert len(children() - before) == 4
    del both, train
    assert not children() - before


@pytest.mark.slow
def test_without_shared_memory_batches_are_sent(streamed, monkeypatch):
    monkeypatch.setattr(workers, "fits_shared_memory", lambda size: False)
    train = replace(streamed[0], workers=2)
    assert same(whole(train), whole(streamed[0]))
    assert train.pools[0].loader.dataset.as_array


KILL = """
import sys, psutil
from course.data import load_data
train, _ = load_data(sys.argv[1], 32, memory=0, workers=1)
batches = train.batches(1)
next(batches)
(process,) = psutil.Process().children()
process.kill()
try:
    list(batches)
except ChildProcessError as error:
    print(error)
print(sum(len(targets) for _, targets in train.batches(5)), len(train))
"""


@pytest.mark.slow
def test_a_killed_worker_is_one_line_and_the_next_pass_works(folder):
    """In a process of its own: torch raises wherever the parent is when a child dies."""
    run = subprocess.run(
        [sys.executable, "-c", KILL, folder],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    *_, said, passed = run.stdout.splitlines()
    assert "a process that decodes images died" in said
    assert len(set(passed.split())) == 1


SCRIPT = """
import sys, torch, torch.multiprocessing
from course.augmentation import RandomResizedCrop
from course.data import load_data
if __name__ == "__main__":
    torch.multiprocessing.set_start_method(sys.argv[2])
    sums = []
    for workers in (0, 2):
        train, _ = load_data(sys.argv[1], 32, memory=0, workers=workers)
        batches = train.batches(5, True, augment=RandomResizedCrop())
        sums.append([images.sum().item() for images, _ in batches])
    assert len(sums[0]) == 5
    assert sums[0] == sums[1]
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_may_be_started_in_any_way(folder, tmp_path, method):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    subprocess.run([sys.executable, script, folder, method], check=True, timeout=600)


def test_random_parts_of_images_in_memory():
    images = torch.arange(SIZE * SIZE * 3, dtype=torch.float32).view(1, 3, SIZE, SIZE)
    images = (images / images.max()).expand(200, -1, -1, -1)
    torch.manual_seed(0)
    cut = RandomResizedCrop()(images)
    assert cut.shape == images.shape
    mirrored = (cut[:, 0, :, 0] > cut[:, 0, :, -1]).all(1)
    assert 70 < mirrored.sum() < 130
    heights = (cut[:, 0, -1] - cut[:, 0, 0]).mean(1) * (images.numel() / 200) / SIZE  # in rows
    assert heights.min() < 0.5 * SIZE
    assert heights.max() > 0.9 * SIZE
    inverted = RandomResizedCrop(then=lambda batch: 1 - batch)
    torch.manual_seed(0)
    assert torch.equal(inverted(images), 1 - cut)
    torch.manual_seed(0)
    assert torch.equal(RandomResizedCrop(scale=(1, 1), ratio=(1, 1), mirror=0)(images), images)
    assert math.isclose(RandomResizedCrop().mirror, 0.5)
