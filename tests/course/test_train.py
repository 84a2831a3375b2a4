"""`python -m course.train`: what a run's folder holds, and what becomes of wrong wishes."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from course.checkpoints import load_checkpoint
from course.data import load_data
from course.models import make_optimizer
from course.runs import RunFolder, Settings
from course.train import agreed_memory, main

QUICK = ["--model", "vit", "--image-size", "32", "--batch-size", "4", "--device", "cpu"]


def records_of(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def paint(folder, levels=(70, 180), count=6, seed=0):
    """Grey noise, around one level a class: dark and light. Returns the folder."""
    rng = np.random.default_rng(seed)
    for name, level in zip(("dark", "light"), levels, strict=True):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(level - 40, level + 40, (32, 32, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    paint(folder / "train")
    paint(folder / "val", seed=1)
    return folder


@pytest.fixture(scope="module")
def trained(photos, tmp_path_factory):
    """The folder of a run of 24 steps in 8 epochs."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main([*QUICK, "--data", str(photos), "--epochs", "8", "--out", str(out)]) == 0
    return out


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of that run, to be spoilt."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model", "coatnet_0_223"], "did you mean coatnet_0_224"),
        (["--model", "smal"], "did you mean small?"),
        (["--model", "vit", "--image-size", "4"], "--image-size 4 is no multiple of 8"),
        (["--device", "gpu"], "no device is called gpu: take cpu"),
        (["--lr", "nan"], "--lr nan: it must be above 0"),
        (["--seed", "-1"], "--seed -1: it must be from 0"),
        (["--pretrained"], "nobody published weights of small"),
        (["--model", "coatnet_0_224", "--pretrained"], "nobody published weights of coatnet_0_224"),
        (["--data", "imagenett"], "no dataset is called 'imagenett'"),
        (["--data", "./nowhere"], "there is no folder"),
        (["--epochs", "0"], "--epochs 0: it must be above 0"),
        (["--resume"], "holds no run"),
        (["--epoch-count", "3"], "unrecognized arguments"),
    ],
)
def test_what_cannot_be_run_is_one_line(argv, message, tmp_path, capsys):
    assert main([*argv, "--out", str(tmp_path / "run")]) == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_run_from_the_shell(photos, tmp_path, capsys):
    out = ["--out", str(tmp_path / "run")]
    assert main([*QUICK, "--data", str(photos), "--steps", "2", *out]) == 0
    records = records_of(tmp_path / "run")
    assert [record["step"] for record in records] == [1, 2, 2]
    capsys.readouterr()
    assert main(["--eval-only", *out]) == 0
    shown = capsys.readouterr().out
    assert f"accuracy {records[-1]['held_out_accuracy']:.4f}" in shown
    assert main(out) == 2
    assert "go on with --resume" in capsys.readouterr().err
    assert main(["--resume", "--lr", "1", *out]) == 2
    assert "has --lr 0.002, not 1.0" in capsys.readouterr().err


def start(out, *options):
    """`python -m course.train` in a process of its own, once it has taken ten steps."""
    command = [sys.executable, "-m", "course.train", *options, "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for_steps(process, out)
    return process


def wait_for_steps(process, out):
    metrics = out / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < 10:
        assert process.poll() is None, "it ended early"
        time.sleep(0.01)


SHORT = ["--steps", "24", "--batch-size", "4", "--image-size", "32", "--device", "cpu"]
SHORT += ["--mixup", "0.2", "--average", "0.9", "--checkpoint-every", "4"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_command_that_was_killed_goes_on(photos, tmp_path, capsys):
    def result(name):
        state = load_checkpoint(tmp_path / name / "checkpoint.pt")
        records = records_of(tmp_path / name)
        for record in records:
            record.pop("seconds", None)
        return state["model"], records

    short = [*SHORT, "--data", str(photos)]
    process = start(tmp_path / "killed", *short)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert main([*short, "--out", str(tmp_path / "whole")]) == 0
    assert main(["--resume", "--out", str(tmp_path / "killed")]) == 0
    (model, records), (expected, others) = result("killed"), result("whole")
    assert all(torch.allclose(model[name], expected[name], atol=1e-6) for name in expected)
    assert [record["step"] for record in records] == [record["step"] for record in others]
    assert [r["loss"] for r in records] == pytest.approx([r["loss"] for r in others], abs=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_ends_a_command_with_a_checkpoint(photos, tmp_path, capsys):
    process = start(tmp_path / "run", "--steps", "10000", *SHORT[2:], "--data", str(photos))
    process.send_signal(signal.SIGINT)
    shown, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "of 10,000 steps" in shown
    assert re.search(r"To go on: \S*python -m course.train --resume --out", shown)
    assert "Traceback" not in shown
    assert main(["--eval-only", "--out", str(tmp_path / "run")]) == 0
    assert "held-out images: loss" in capsys.readouterr().out


@pytest.mark.parametrize("damage", [b"", b"hello", None])
def test_a_damaged_checkpoint_is_one_line(copied, capsys, damage):
    out = ["--out", str(copied)]
    file = copied / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:-1000] if damage is None else damage)
    capsys.readouterr()
    for task in ("--resume", "--eval-only"):
        assert main([task, *out]) == 2
        line = capsys.readouterr().err
        assert "checkpoint.pt is not a checkpoint, or a damaged one" in line
        assert line.count("\n") == 1


def test_a_run_keeps_all_that_its_model_depends_on(trained, photos):
    settings = json.loads((trained / "settings.json").read_text())
    train, _ = load_data(photos, 32)
    assert settings["classes"] == ["dark", "light"]
    assert (settings["mean"], settings["std"]) == (list(train.mean), list(train.std))
    assert (settings["image_size"], settings["images"], settings["processes"]) == (32, 12, 1)
    assert settings["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert settings["data"] == str(photos)
    assert Path(settings["data"]).is_absolute()


def test_the_best_weights_are_kept_beside_the_last(trained):
    accuracies = [r["held_out_accuracy"] for r in records_of(trained) if "epoch" in r]
    steps = [r["step"] for r in records_of(trained) if "epoch" in r]
    best = load_checkpoint(trained / "best.pt")
    assert best["accuracy"] == max(accuracies)
    assert best["step"] == steps[accuracies.index(max(accuracies))]
    state = RunFolder(trained).model(RunFolder(trained).read(), "best")[0].state_dict()
    assert all(torch.equal(state[name], value) for name, value in best["model"].items())


def test_other_pictures_are_seen_with_the_statistics_of_the_run(trained, tmp_path, capsys):
    """A folder without train/, darker than that of the run: by its own mean, half were light."""
    other = paint(tmp_path / "other", levels=(45, 70), seed=2)
    capsys.readouterr()
    assert main(["--eval-only", "--out", str(trained), "--data", str(other)]) == 0
    shown = capsys.readouterr().out
    images = torch.stack(
        [torch.from_numpy(np.array(Image.open(p))) for p in sorted(other.rglob("*.png"))]
    )
    images = images.permute(0, 3, 1, 2) / 255
    settings = RunFolder(trained).read()
    model = RunFolder(trained).model(settings)[0].eval()

    def loss(mean, std):
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
        with torch.no_grad():
            logits = model((images - mean) / std)
        return nn.functional.cross_entropy(logits, torch.arange(2).repeat_interleave(6)).item()

    own = loss(images.mean((0, 2, 3)).tolist(), images.std((0, 2, 3)).tolist())
    expected = loss(settings.mean, settings.std)
    assert abs(own - expected) > 0.05  # or nothing is shown
    assert f"on 12 held-out images: loss {expected:.4f}" in shown


@pytest.mark.parametrize("task", ["--resume", "--eval-only"])
def test_changed_classes_are_refused_by_name(copied, photos, tmp_path, capsys, task):
    other = Path(shutil.copytree(photos, tmp_path / "other"))
    for split in ("train", "val"):
        (other / split / "dark").rename(other / split / "night")
    capsys.readouterr()
    assert main([task, "--out", str(copied), "--data", str(other)]) == 2
    line = capsys.readouterr().err
    assert "night" in line or "dark" in line
    assert line.count("\n") == 1


def test_a_run_goes_on_from_elsewhere_with_its_data_moved(photos, tmp_path, monkeypatch, capsys):
    here = Path(shutil.copytree(photos, tmp_path / "here"))
    monkeypatch.chdir(tmp_path)
    assert main([*QUICK, "--data", "here", "--steps", "5", "--out", "run"]) == 0
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert main(["--resume", "--steps", "6", "--out", "../run"]) == 0  # the path was made absolute
    moved = here.rename(tmp_path / "there")
    assert main(["--resume", "--steps", "7", "--out", "../run"]) == 2
    assert "there is no folder" in capsys.readouterr().err
    again = [
        "--resume",
        "--steps",
        "7",
        "--out",
        "../run",
        "--data",
        str(moved),
        "--device",
        "cpu:0",
    ]
    assert main(again) == 0
    assert [r["step"] for r in records_of(tmp_path / "run") if "lr" in r] == list(range(1, 8))
    next(moved.glob("train/dark/*")).unlink()
    assert main([*again[:2], "8", *again[3:]]) == 2
    assert "has 11 training images, and the run began with 12" in capsys.readouterr().err


def test_a_run_may_grow_and_says_what_that_means(copied, capsys):
    out = ["--out", str(copied)]
    assert main(["--resume", *out]) == 0
    assert "It is over already" in capsys.readouterr().out
    assert main(["--resume", "--epochs", "7", *out]) == 2
    assert "--epochs can only grow: the run in" in capsys.readouterr().err
    assert main(["--resume", "--epochs", "10", *out]) == 0
    shown = capsys.readouterr().out
    assert "10 epochs instead of 8: the schedule is spread over all of them" in shown
    epochs = [r["epoch"] for r in records_of(copied) if "epoch" in r]
    assert epochs == list(range(1, 11))
    assert main(["--resume", "--steps", "99", *out]) == 2
    assert "has --epochs 10, and not --steps" in capsys.readouterr().err


def test_a_folder_without_a_checkpoint_can_be_used_again(photos, tmp_path, capsys):
    run = [*QUICK, "--data", str(photos), "--steps", "3", "--out", str(tmp_path / "run")]
    assert main([*run, "--lr", "1e30"]) == 2
    assert "try a smaller learning rate" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoint.pt").exists()
    assert main(run) == 0
    assert [r["step"] for r in records_of(tmp_path / "run")] == [1, 2, 3, 3]


def test_fp16_trains_with_a_scaler(photos, tmp_path):
    run = [*QUICK, "--data", str(photos), "--steps", "6", "--precision", "fp16"]
    assert main([*run, "--out", str(tmp_path / "run")]) == 0
    assert load_checkpoint(tmp_path / "run" / "checkpoint.pt")["scaler"]["scale"] > 1


def test_no_decay_for_norms_biases_and_what_the_model_names():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.table = nn.Linear(2, 2), nn.Parameter(torch.zeros(2, 3))

        def no_weight_decay(self):
            return {"table"}

    model = Model()
    decay, rest = make_optimizer(model, 1e-3, 0.1).param_groups
    assert [p.shape for p in decay["params"]] == [(2, 2)]
    assert {p.shape for p in rest["params"]} == {(2,), (2, 3)}
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.1, 0)


PUBLISHED = "coatnet_nano_rw_224"


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """Two of ImageNet's classes as its val/ has them, and a file of timm's (untrained) weights."""
    folder = tmp_path_factory.mktemp("imagenet")
    rng = np.random.default_rng(0)
    for name in ("n01440764", "n01443537"):
        (folder / "val" / name).mkdir(parents=True)
        for number in range(2):
            coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
            file = folder / "val" / name / f"{number}.png"
            coarse.resize((300, 250), Image.Resampling.BICUBIC).save(file)
    torch.manual_seed(0)
    torch.save(timm.create_model(PUBLISHED).state_dict(), folder / "weights.pth")
    return folder


def theirs(folder):
    """timm's own loss and its mean logits, by timm's own transform."""
    model = timm.create_model(PUBLISHED, checkpoint_path=folder / "weights.pth").eval()
    config = timm.data.resolve_data_config({}, model=model)
    transform = timm.data.create_transform(**config)
    files = sorted((folder / "val").rglob("*.png"))
    images = torch.stack([transform(Image.open(file)) for file in files])
    with torch.no_grad():
        logits = model(images)
    return nn.functional.cross_entropy(logits, torch.tensor([0, 0, 1, 1])).item(), config


@pytest.mark.slow
def test_published_weights_are_tried_on_imagenets_val_in_one_command(imagenet, capsys):
    weights = ["--weights-file", str(imagenet / "weights.pth")]
    wish = ["--eval-only", "--model", PUBLISHED, "--pretrained", *weights, "--device", "cpu"]
    assert main([*wish, "--data", str(imagenet / "val")]) == 0
    shown = capsys.readouterr().out
    loss, _ = theirs(imagenet)
    assert "Published weights, on 4 held-out images: loss" in shown
    assert float(shown.split("loss ")[1].split(",")[0]) == pytest.approx(loss, abs=2e-3)


@pytest.mark.slow
def test_pretrained_takes_the_weights_own_mean_std_size_and_interpolation(
    imagenet, photos, tmp_path
):
    _, config = theirs(imagenet)
    out = tmp_path / "run"
    wish = ["--model", PUBLISHED, "--pretrained", "--weights-file", str(imagenet / "weights.pth")]
    wish += ["--data", str(photos), "--steps", "1", "--batch-size", "2", "--device", "cpu"]
    assert main([*wish, "--lr", "1e-9", "--out", str(out)]) == 0
    settings = RunFolder(out).read()
    assert (settings.mean, settings.std) == (list(config["mean"]), list(config["std"]))
    assert settings.mean == [0.5, 0.5, 0.5]  # and not the photographs'
    assert (settings.image_size, settings.interpolation) == (224, "bicubic")
    assert settings.crop_share == config["crop_pct"]
    model = RunFolder(out).model(settings)[0]
    first = torch.load(imagenet / "weights.pth")["stem.conv1.weight"]
    torch.testing.assert_close(model.stem.conv1.weight, first, atol=1e-6, rtol=0)


def test_a_file_of_other_weights_is_refused(imagenet, photos, tmp_path, capsys):
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
    wish = ["--model", PUBLISHED, "--pretrained", "--data", str(photos), "--device", "cpu"]
    for file, message in (("other.pth", "does not hold timm's weights"), ("no.pth", "no file")):
        out = tmp_path / "run"
        assert main([*wish, "--weights-file", str(tmp_path / file), "--out", str(out)]) == 2
        assert message in capsys.readouterr().err
        assert not out.exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
@pytest.mark.parametrize("command", ["course.train", "course.predict"])
def test_ctrl_c_while_it_is_imported_leaves_no_traceback(tmp_path, command):
    process = subprocess.Popen(
        [sys.executable, "-m", command, "a", "b"], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    maps = Path(f"/proc/{process.pid}/maps")
    while "libtorch" not in maps.read_text():  # it is under way
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=120)
    assert process.returncode in (130, -signal.SIGINT, 2)
    assert "Traceback" not in shown


def test_processes_agree_on_what_they_stream():
    """The second one finds less memory free, since the first has loaded already."""

    class Together:
        def gather(self, value):
            return [1000, value]

    assert agreed_memory(Settings(memory="10"), Together()) == 1000
