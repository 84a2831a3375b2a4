"""Checkpoints, and runs that go on from them."""

import io
import multiprocessing
import os
import random
import resource
import signal
import sys
from functools import partial

import pytest
import torch
from torch import nn

from course import training
from course.augmentation import flip_and_crop, mixup
from course.checkpoints import load_checkpoint, save_checkpoint
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


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of files")
def test_a_full_disk_is_said_and_the_checkpoint_before_stays(tmp_path):
    file = tmp_path / "checkpoint.pt"
    save_checkpoint(file, {"step": 1})
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(OSError, match=r"could not write .*: the one before is as it was"):
            save_checkpoint(file, {"weights": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert load_checkpoint(file) == {"step": 1}
    assert not file.with_name("checkpoint.pt.part").exists()


def test_a_checkpoint_is_loaded_to_any_name_of_the_device(tmp_path):
    save_checkpoint(tmp_path / "a.pt", {"weights": torch.ones(2)})
    for name in ("cpu", torch.device("cpu", 0)):  # which torch.load does not know
        assert load_checkpoint(tmp_path / "a.pt", name)["weights"].sum() == 2
