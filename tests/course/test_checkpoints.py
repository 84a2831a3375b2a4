"""Checkpoints, resumed runs, and `python -m course.train`."""

import io
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
from torch import nn

from course import training
from course.augmentation import flip_and_crop, mixup
from course.checkpoints import load_checkpoint, save_checkpoint
from course.train import main
from tests.course.test_training import dataset


def model_of(seed=0):
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 2)
    return nn.Sequential(*layers)


class Killed(Exception):
    pass


STEPS = 40


def run(folder, resume=False, log=None):
    """A run of five epochs; the model's and its moving average's weights and statistics.

    In one thread, because sums over several are not the same to the last bit.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = model_of()
    average = training.MovingAverage(model, 0.9)
    training.fit(
        model,
        dataset(),
        dataset(seed=1),
        steps=STEPS,
        batch_size=8,
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-2),
        schedule=training.warmup_cosine,
        augment=partial(flip_and_crop, padding=1),
        mix=mixup,
        average=average,
        checkpoint=folder / "checkpoint.pt",
        checkpoint_every=3,
        resume=resume,
        log=log,
        device="cpu",
    )
    torch.set_num_threads(threads)
    return torch.cat([p.flatten() for m in (model, average.model) for p in m.state_dict().values()])


def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)


def half_of_it(state, file):
    whole = io.BytesIO()
    torch.serialization.save(state, whole)
    file.write(whole.getvalue()[: whole.tell() // 2])
    file.flush()
    die()


# How a process may die of SIGKILL, once a step is done: what it does last, and what that becomes
DEATHS = {
    "between two steps": None,
    "in the middle of a file": (torch, "save", half_of_it),
    "before the file is on the disk": (os, "fsync", die),
    "before the file has its name": (os, "replace", die),
}


def run_and_die(folder, step, death):
    def log(record):
        if record["step"] == step:
            setattr(*DEATHS[death]) if DEATHS[death] else die()

    run(folder, log=log)


KILLED_AT = random.Random(6).sample(range(1, STEPS), 20)
CASES = [(step, "between two steps") for step in KILLED_AT]
CASES += [(step, death) for death in list(DEATHS)[1:] for step in KILLED_AT[:3]]


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize(("step", "death"), CASES)
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path, whole_run, step, death):
    server = multiprocessing.get_context("forkserver")  # imports torch once, for all of the cases
    server.set_forkserver_preload(["course.training", "course.augmentation"])
    process = server.Process(target=run_and_die, args=(tmp_path, step, death))
    process.start()
    process.join(300)
    assert process.exitcode == -signal.SIGKILL
    file = tmp_path / "checkpoint.pt"
    done = len(load_checkpoint(file)["history"]["losses"]) if file.exists() else 0
    assert done in range(step - 3, step + 1)  # the last one that was written before
    if death != "between two steps":
        assert (tmp_path / "checkpoint.pt.part").exists()
    assert (run(tmp_path, resume=True) - whole_run).abs().max() <= 1e-6


def test_a_run_that_is_not_the_same_is_not_resumed(tmp_path):
    run(tmp_path)
    other = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    with pytest.raises(ValueError, match="not from this run"):
        training.fit(other, dataset(), steps=50, checkpoint=tmp_path / "checkpoint.pt", resume=True)


def test_a_checkpoint_is_there_whole_or_as_it_was(tmp_path, monkeypatch):
    file = tmp_path / "checkpoint.pt"
    save_checkpoint(file, {"step": 1})
    real = torch.save

    def dies(state, target):
        target.write(b"half of a")
        raise Killed

    monkeypatch.setattr(torch, "save", dies)
    with pytest.raises(Killed):
        save_checkpoint(file, {"step": 2})
    assert load_checkpoint(file) == {"step": 1}
    monkeypatch.setattr(torch, "save", real)
    save_checkpoint(file, {"step": 3})
    assert load_checkpoint(file) == {"step": 3}


def test_what_is_no_checkpoint_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        load_checkpoint(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ValueError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "text.pt")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model", "coatnet_0_223"], "did you mean coatnet_0_224"),
        (["--data", "imagenett"], "no dataset is called 'imagenett'"),
        (["--data", "./nowhere"], "there is no folder nowhere/train"),
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


def test_a_run_from_the_shell(tmp_path, capsys):
    out = ["--out", str(tmp_path / "run")]
    start = ["--steps", "2", "--batch-size", "4", "--device", "cpu", "--model", "vit"]
    assert main([*start, *out]) == 0
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


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_command_that_was_killed_goes_on(tmp_path, capsys):
    def result(name):
        state = load_checkpoint(tmp_path / name / "checkpoint.pt")
        records = records_of(tmp_path / name)
        for record in records:
            record.pop("seconds", None)
        return state["model"], records

    process = start(tmp_path / "killed", *SHORT)
    process.kill()
    process.communicate()
    assert main([*SHORT, "--out", str(tmp_path / "whole")]) == 0
    assert main(["--resume", "--out", str(tmp_path / "killed")]) == 0
    (model, records), (expected, others) = result("killed"), result("whole")
    assert all(torch.allclose(model[name], expected[name], atol=1e-6) for name in expected)
    assert [record["step"] for record in records] == [record["step"] for record in others]
    assert [r["loss"] for r in records] == pytest.approx([r["loss"] for r in others], abs=1e-6)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_ends_a_command_with_a_checkpoint(tmp_path, capsys):
    process = start(tmp_path / "run", "--steps", "10000", *SHORT[2:])
    process.send_signal(signal.SIGINT)
    shown, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "of 10,000 steps" in shown
    assert "To go on: python -m course.train --resume --out" in shown
    assert "Traceback" not in shown
    assert main(["--eval-only", "--out", str(tmp_path / "run")]) == 0
    assert "held-out images: loss" in capsys.readouterr().out


@pytest.mark.parametrize("damage", [b"", b"hello", None])
def test_a_damaged_checkpoint_is_one_line(tmp_path, capsys, damage):
    out = ["--out", str(tmp_path)]
    assert (
        main(["--steps", "1", "--batch-size", "4", "--device", "cpu", "--model", "vit", *out]) == 0
    )
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:-1000] if damage is None else damage)
    capsys.readouterr()
    for task in ("--resume", "--eval-only"):
        assert main([task, *out]) == 2
        line = capsys.readouterr().err
        assert "checkpoint.pt is not a checkpoint, or a damaged one" in line
        assert line.count("\n") == 1


def records_of(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
