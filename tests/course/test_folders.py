"""course/data/folders.py and what it stands on: layouts, what is left out, what is held out."""

import os
import signal
import subprocess
import sys
import time
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from course.data import ImageData, load_data, load_held_out, memory, reading
from course.data.layout import Paths, find_splits, list_files


def paint(path, colour="red", size=8):
    """A square picture of one colour, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), colour).save(path)


def fill(folder, classes=("ant", "bee"), count=2, size=8):
    for place, name in enumerate(classes):
        for number in range(count):
            paint(folder / name / f"{number}.png", (50 * place, number, 0), size)


def summary(data):
    """Classes, and each image's class and second colour, which `fill` numbers."""
    numbers = data.images[:, 1, 0, 0].tolist()
    return data.classes, [(data.classes[t], n) for t, n in zip(data.targets, numbers, strict=True)]


@pytest.mark.parametrize("train", ["train", "Train", "TRAIN", "training"])
@pytest.mark.parametrize("held_out", ["val", "valid", "Validation", "Test", "testing", "dev"])
def test_splits_have_many_names(tmp_path, train, held_out):
    fill(tmp_path / train, count=3)
    fill(tmp_path / held_out)
    (tmp_path / "labels.csv").write_text("not looked at")
    first, second = load_data(tmp_path)
    assert (len(first), len(second)) == (6, 4)
    assert summary(second) == (
        ["ant", "bee"],
        [("ant", 0), ("ant", 1), ("bee", 0), ("bee", 1)],
    )


def test_val_is_held_out_where_there_is_a_test_too(tmp_path, capsys):
    fill(tmp_path / "train")
    fill(tmp_path / "test", count=3)
    fill(tmp_path / "Val", count=1)
    assert len(load_data(tmp_path)[1]) == 2
    assert capsys.readouterr().out == f"held out: {tmp_path / 'Val'}; not looked at: test\n"


def test_a_test_folder_without_classes_is_no_split(tmp_path, capsys):
    fill(tmp_path / "train", count=5)
    paint(tmp_path / "test" / "0001.png")
    train, held_out = load_data(tmp_path)
    assert (len(train), len(held_out)) == (8, 2)
    assert f"held out: 2 of 10 images in {tmp_path / 'train'}, 20%" in capsys.readouterr().out


@pytest.mark.parametrize("inside", ["", "flowers", "flowers/flowers", "flowers/Train"])
def test_one_folder_a_class_is_split_by_class_and_seed(tmp_path, capsys, inside):
    classes = ("ant", "bee", "cat")
    fill(tmp_path / inside, classes, count=10)
    fill(tmp_path / inside, ("dog",), count=2)
    train, held_out = load_data(tmp_path)
    (said,) = capsys.readouterr().out.splitlines()
    assert "held out: 7 of 32 images" in said
    assert "20% of each class by seed 0, since there is no folder" in said
    assert train.classes == held_out.classes == [*classes, "dog"]
    assert train.targets.bincount().tolist() == [8, 8, 8, 1]
    assert held_out.targets.bincount().tolist() == [2, 2, 2, 1]
    both = summary(train)[1] + summary(held_out)[1]
    assert len(set(both)) == 32  # no image is in both
    again = load_data(tmp_path)[1]
    assert summary(again) == summary(held_out)
    other = load_data(tmp_path, seed=1)[1]
    assert summary(other) != summary(held_out)
    half = load_data(tmp_path, hold_out=0.5)[1]
    assert half.targets.bincount().tolist() == [5, 5, 5, 1]
    assert set(summary(half)[1]) > set(summary(held_out)[1])


def test_what_is_held_out_stays_so_when_images_are_added(tmp_path):
    fill(tmp_path, count=10)
    before = set(summary(load_data(tmp_path)[1])[1])
    fill(tmp_path, count=11)
    after = set(summary(load_data(tmp_path)[1])[1])
    assert len(before & after) >= len(before) - 2  # one a class at most gave way


def test_a_single_image_of_a_class_can_not_be_held_out(tmp_path):
    fill(tmp_path)
    fill(tmp_path, ("cat",), count=1)
    with pytest.raises(ValueError, match="cat has one image: held-out images need another"):
        load_data(tmp_path)


@pytest.mark.parametrize("share", [0, 1, -0.5, 20])
def test_a_share_is_between_0_and_1(tmp_path, share):
    fill(tmp_path)
    with pytest.raises(ValueError, match="it must be a share between 0 and 1"):
        load_data(tmp_path, hold_out=share)


def test_images_may_lie_in_folders_below(tmp_path):
    fill(tmp_path / "val")
    paint(tmp_path / "train" / "ant" / "2023" / "may" / "a.png", (0, 7, 0))
    paint(tmp_path / "train" / "ant" / "b.png", (0, 8, 0))
    paint(tmp_path / "train" / "bee" / "2023" / "a.png", (0, 9, 0))
    os.symlink(tmp_path / "train" / "bee", tmp_path / "train" / "bee" / "2023" / "again")
    train = load_data(tmp_path)[0]
    assert summary(train)[1] == [("ant", 7), ("ant", 8), ("bee", 9)]


def test_what_systems_leave_is_passed_over(tmp_path):
    for split in ("train", "val"):
        fill(tmp_path / split)
        for name in ("__MACOSX", "@eaDir", ".ipynb_checkpoints", "lost+found", "$RECYCLE.BIN"):
            paint(tmp_path / split / name / "a.png")
            paint(tmp_path / split / "ant" / name / "a.png")
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"):
            (tmp_path / split / "ant" / name).write_text("no image")
    fill(tmp_path / "__MACOSX" / "train")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [len(data) for data in load_data(tmp_path)] == [4, 4]


def test_composed_and_decomposed_names_are_one(tmp_path):
    composed, apart = (unicodedata.normalize(form, "caffè") for form in ("NFC", "NFD"))
    assert composed != apart
    fill(tmp_path / "train", (composed, "tea"))
    fill(tmp_path / "val", (apart, "tea"))
    train, held_out = load_data(tmp_path)
    assert train.classes == held_out.classes == [composed, "tea"]
    fill(tmp_path / "val", (composed,), count=3)
    assert len(load_data(tmp_path)[1]) == 7  # both spellings' images, on a disk that has both


def test_every_file_that_is_left_out_has_its_reason(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "val")
    ant = tmp_path / "train" / "ant"
    (ant / "notes.txt").write_text("no image")
    (ant / "empty.png").touch()
    (ant / "deep").mkdir()
    (ant / "deep" / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    Image.fromarray(np.array([[-1.0, 1.0]], np.float32)).save(ant / "scaled.tif")
    os.symlink(tmp_path / "nowhere", tmp_path / "train" / "link")
    paint(tmp_path / "train" / "loose.png")
    with pytest.warns(UserWarning, match="skipped: 6 of 10 files") as caught:
        train, _ = load_data(tmp_path)
    assert len(train) == 4
    lines = str(caught[0].message).splitlines()
    assert len(lines) == 7
    reasons = dict(line.strip().split(": ", 1) for line in lines[1:])
    assert reasons.pop(os.path.join("ant", "deep", "phone.heic"))
    assert reasons == {
        os.path.join("ant", "notes.txt"): "no picture that Pillow knows",
        os.path.join("ant", "empty.png"): "empty",
        os.path.join("ant", "scaled.tif"): (
            "values from -1 to 1 are no pixels: scale them to 0..255"
        ),
        "link": "a link to nothing",
        "loose.png": "lies in no class folder",
    }


def test_ten_are_named_and_the_others_counted(tmp_path):
    fill(tmp_path / "val")
    fill(tmp_path / "train")
    for number in range(13):
        (tmp_path / "train" / "ant" / f"x{number:02d}.png").touch()
    with pytest.warns(UserWarning, match="skipped: 13 of 17 files") as caught:
        load_data(tmp_path)
    lines = str(caught[0].message).splitlines()
    assert (len(lines), lines[-1]) == (12, "  and 3 more")


def test_a_file_without_an_ending_is_looked_into(tmp_path):
    fill(tmp_path / "val")
    fill(tmp_path / "train")
    (tmp_path / "train" / "ant" / "0.png").rename(tmp_path / "train" / "ant" / "0")
    assert len(load_data(tmp_path)[0]) == 4


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "pictures.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match="is a file: unpack it, and name the folder"):
        load_data(tmp_path / "pictures.zip")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (0.5,) * 3}, "mean and std together"),
        ({"crop_share": 0}, "from above 0 to 1"),
        ({"crop_share": 1.1}, "from above 0 to 1"),
        ({"interpolation": "nearest"}, "bilinear or bicubic"),
        ({"memory": "much"}, "write it like 4G"),
    ],
)
def test_options_that_do_not_fit_are_refused_first(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        load_data(tmp_path, **options)


def test_held_out_images_need_no_others(tmp_path):
    fill(tmp_path / "whole" / "val")
    fill(tmp_path / "whole" / "train", count=4)
    fill(tmp_path / "only" / "test", ("bee",), count=3)
    fill(tmp_path / "plain", ("ant", "bee", "cat"))
    fill(tmp_path / "train-only" / "train", count=10)
    look = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    assert len(load_held_out(tmp_path / "whole", **look)) == 4
    only = load_held_out(tmp_path / "only", classes=["wasp", "bee", "ant"], **look)
    assert (only.classes, only.targets.tolist()) == (["wasp", "bee", "ant"], [1, 1, 1])
    assert (only.mean, only.std) == tuple(look.values())
    plain = load_held_out(tmp_path / "plain")
    assert (plain.classes, len(plain)) == (["ant", "bee", "cat"], 6)
    part = load_held_out(tmp_path / "train-only", classes=["ant", "bee"])
    assert summary(part) == summary(load_data(tmp_path / "train-only")[1])
    with pytest.raises(ValueError, match=r"classes that are not known: cat"):
        load_held_out(tmp_path / "plain", classes=["bee", "ant"])
    streamed = load_held_out(tmp_path / "plain", memory=0, workers=0, **look)
    assert streamed.targets.tolist() == plain.targets.tolist()


def test_held_out_images_of_a_dataset_with_a_name():
    look = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    data = load_held_out("shapetexture100", 32, **look)
    assert (len(data), data.mean, data.image_size) == (2000, look["mean"], 32)
    with pytest.raises(ValueError, match="other classes"):
        load_held_out("shapetexture100", classes=["ant", "bee"])


def test_imagenets_layout_in_a_small_way(tmp_path):
    """val/ of WordNet's ids, some of a thousand: targets count in all of them."""
    from timm.data import ImageNetInfo

    classes = ImageNetInfo("imagenet-1k").label_names()
    fill(tmp_path / "val", ("n02119789", "n01440764", "n15075141"), count=2)
    (tmp_path / "test").mkdir()
    paint(tmp_path / "test" / "ILSVRC2012_test_00000001.JPEG".lower().replace("jpeg", "png"))
    for place in (tmp_path, tmp_path / "val"):
        data = load_held_out(place, 32, classes=classes)
        assert data.targets.tolist() == [0, 0, 278, 278, 999, 999]
    flat = tmp_path / "flat"
    paint(flat / "val" / "ILSVRC2012_val_00000001.png")
    with pytest.raises(ValueError, match=r"flat.* lie in no class folders: a folder of images"):
        load_held_out(flat / "val", 32, classes=classes)


def test_squares_beyond_the_sample_may_differ(tmp_path, monkeypatch):
    """A sample of one size, and another size among the rest: all are brought to image_size."""
    monkeypatch.setattr(reading, "SAMPLE", 2)
    fill(tmp_path / "val")
    fill(tmp_path / "train", count=3)
    assert load_data(tmp_path, 16)[0].images.shape == (6, 3, 8, 8)
    paint(tmp_path / "train" / "ant" / "1.png", (0, 1, 0), size=10)
    train, _ = load_data(tmp_path, 16)
    assert train.images.shape == (6, 3, 16, 16)
    assert summary(train)[1][:3] == [("ant", 0), ("ant", 1), ("ant", 2)]


def test_decoders_do_not_warn(tmp_path):
    for split in ("train", "val"):
        path = tmp_path / split / "ant" / "0.jpg"
        paint(path)
        Image.new("P", (8, 8)).save(path.with_suffix(".gif"), transparency=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # such as torchvision's of decoders that will go
        for memory_ in (None, 0):
            train, _ = load_data(tmp_path, 16, memory=memory_, workers=0)
            next(train.batches(2))


@pytest.mark.slow
def test_many_files_are_read_by_workers(tmp_path, monkeypatch):
    fill(tmp_path / "val")
    fill(tmp_path / "train", count=40)
    (tmp_path / "train" / "ant" / "x.png").touch()
    results = []
    for few in (1, 500):
        monkeypatch.setattr(reading, "FEW", few)
        with pytest.warns(UserWarning, match="skipped: 1 of 81 files"):
            results.append(load_data(tmp_path, workers=2)[0])
    assert isinstance(results[0], ImageData)
    assert torch.equal(results[0].images, results[1].images)
    assert torch.equal(results[0].targets, results[1].targets)


READ = """
import sys
from course.data import load_data
if __name__ == "__main__":
    print("here", flush=True)
    try:
        load_data(sys.argv[1], 64, memory=sys.argv[2], mean=(0.5,) * 3, std=(0.5,) * 3, workers=2)
        data = load_data(sys.argv[1], 64, memory=sys.argv[2])[0]
        for _ in range(1000):
            list(data.batches(64))
    except KeyboardInterrupt:
        sys.exit("stopped")
"""


def decodes(process):
    """Whether a worker is at work: in its first moments Python may lose a Ctrl-C."""
    return process.cpu_times().user > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("memory_", ["1G", "0"])
def test_ctrl_c_ends_reading_and_its_workers_without_a_traceback(tmp_path, memory_):
    for split in ("train", "val"):
        fill(tmp_path / split, count=1)
        noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
        path = tmp_path / split / "ant" / "large.png"
        Image.fromarray(noise).save(path)
        for number in range(1000):
            os.link(path, path.with_name(f"{number}x.png"))
    script = tmp_path / "read.py"
    script.write_text(READ)
    process = subprocess.Popen(
        [sys.executable, script, tmp_path, memory_],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # a terminal sends Ctrl-C to all of a group
    )
    assert process.stdout.readline() == b"here\n"
    group = psutil.Process(process.pid)
    while len(workers_ := group.children()) < 2 or not all(map(decodes, workers_)):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.decode().splitlines()[-1].endswith("stopped")
    assert b"Traceback" not in errors
    assert not psutil.wait_procs(workers_, timeout=30)[1]


def test_sizes_in_words():
    sizes = {"4G": 4 * 2**30, "1.5 GiB": 1.5 * 2**30, "500m": 500 * 2**20, "64 kb": 2**16, "7": 7}
    for text, size in sizes.items():
        assert memory.memory_budget(text) == size
    assert memory.memory_budget(2**20) == 2**20
    for text in ("", "G", "-4G", "4X", "many"):
        with pytest.raises(ValueError, match="is no size: write it like 4G or 500M"):
            memory.memory_budget(text)


def test_the_default_is_half_of_what_is_free(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 1000)
    assert memory.memory_budget() == 500
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert memory.memory_budget() == 250


def test_a_containers_limit_counts(tmp_path):
    own = tmp_path / "cgroup"
    for lines, group, names in (
        ("0::/box\n", tmp_path, ("memory.max", "memory.current")),
        (
            "5:cpu:/\n4:memory:/box\n0::/\n",
            tmp_path / "memory",
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ),
    ):
        own.write_text(lines)
        assert memory.free_in_cgroups(tmp_path, own) == []
        (group / "box").mkdir(parents=True)
        for name, value in zip(names, ("1000", "700"), strict=True):
            (group / "box" / name).write_text(value)
        (group / "box" / "memory.stat").write_text("anon 100\ninactive_file 200\n")
        assert memory.free_in_cgroups(tmp_path, own) == [500]
        (group / "box" / names[0]).write_text("max")
        assert memory.free_in_cgroups(tmp_path, own) == []
    assert memory.free_in_cgroups(tmp_path, tmp_path / "nowhere") == []


def test_paths_come_back_as_they_were(tmp_path):
    names = ["a/b.png", "ä/ö.png", os.fsdecode(b"\xff/x.png"), "c.png"]
    paths = Paths(tmp_path, names)
    assert [paths.below(i) for i in range(len(paths))] == names
    assert paths[1] == str(tmp_path / "ä" / "ö.png")
    part = paths.part([3, 0])
    assert [part.below(i) for i in range(len(part))] == ["c.png", "a/b.png"]


def test_splits_and_files_are_found(tmp_path):
    fill(tmp_path / "archive" / "Train")
    fill(tmp_path / "archive" / "VALID")
    train, held_out = find_splits(tmp_path)
    assert (train, held_out) == (
        Path(tmp_path / "archive" / "Train"),
        [tmp_path / "archive" / "VALID"],
    )
    listing = list_files(train, ["bee", "ant"])
    assert listing.names == [f"{name}/{i}.png" for name in ("bee", "ant") for i in range(2)]
    assert listing.targets == [0, 0, 1, 1]
