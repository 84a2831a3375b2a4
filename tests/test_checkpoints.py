"""Checkpoints, resumed runs, and `python -m course.train`."""

import json
import subprocess
import sys

import pytest
import torch
from test_training import dataset
from torch import nn

from course import training
from course.augmentation import mixup
from course.checkpoints import load_checkpoint, save_checkpoint
from course.train import main


def model_of(seed=0):
    torch.manual_seed(seed)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 2)
    return nn.Sequential(*layers)


class Killed(Exception):
    pass


def run(folder, resume=False, killed_after=None):
    """A run of 20 steps in three epochs; the model's and its moving average's weights."""

    def log(record):
        if record["step"] == killed_after:
            raise Killed

    model = model_of()
    average = training.MovingAverage(model, 0.9)
    training.fit(
        model,
        dataset(),
        dataset(seed=1),
        steps=20,
        batch_size=8,
        optimizer=torch.optim.AdamW(model.parameters(), lr=1e-2),
        schedule=training.warmup_cosine,
        mix=mixup,
        average=average,
        checkpoint=folder / "checkpoint.pt",
        checkpoint_every=3,
        resume=resume,
        log=log,
        device="cpu",
    )
    return torch.cat([p.flatten() for m in (model, average.model) for p in m.state_dict().values()])


@pytest.mark.parametrize("step", range(1, 20, 3))
def test_a_killed_run_goes_on_as_if_it_had_not_been(tmp_path, step):
    whole = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "killed", killed_after=step)
    assert torch.equal(run(tmp_path / "killed", resume=True), whole)


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
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == [1, 2, 2]
    capsys.readouterr()
    assert main(["--eval-only", *out]) == 0
    shown = capsys.readouterr().out
    assert f"accuracy {records[-1]['held_out_accuracy']:.4f}" in shown
    assert main(out) == 2
    assert "go on with --resume" in capsys.readouterr().err
    assert main(["--resume", "--lr", "1", *out]) == 2
    assert "has --lr 0.002, not 1.0" in capsys.readouterr().err


def test_two_processes_have_the_loss_curve_of_one(tmp_path):
    """Of the staged model, whose BatchNorm must see whole batches for that."""
    options = ["--steps", "50", "--batch-size", "8", "--model", "small", "--mixup", "0.2"]
    curves = []
    for processes in (1, 2):
        out = tmp_path / str(processes)
        launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", str(processes)]
        command = [sys.executable, *launch, "-m", "course.train", *options, "--out", str(out)]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        lines = (out / "metrics.jsonl").read_text().splitlines()[:50]
        curves.append([json.loads(line)["loss"] for line in lines])
    assert curves[1] == pytest.approx(curves[0], abs=1e-3)
    assert len(set(curves[0])) == 50
