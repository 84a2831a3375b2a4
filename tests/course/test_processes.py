"""Runs in several processes that are really there: each test first makes sure of their number."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import nn

from course import training
from course.augmentation import mixup
from course.checkpoints import load_checkpoint
from course.lesson_files import ROOT
from course.training.batch_norm import separate_batch_norm, synchronise_batch_norm
from tests.course.test_training import dataset

pytestmark = pytest.mark.slow
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]


def launched(processes, out, *options):
    """The command that trains in so many processes, in the folder `out`."""
    command = [*TORCHRUN, str(processes), "-m", "course.train", "--device", "cpu"]
    return [*command, *options, "--out", str(out)]


def run(command, **options):
    return subprocess.run(
        command, capture_output=True, text=True, timeout=900, check=True, **options
    )


def records_of(out, processes):
    """A run's metrics, and the proof that it had so many processes."""
    assert json.loads((out / "settings.json").read_text())["processes"] == processes
    assert load_checkpoint(out / "checkpoint.pt")["history"]["processes"] == processes
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def together(processes, work, folder):
    """Calls `work(folder)` in so many processes, connected; what each returned.

    work: the name of a function of this module; it returns something that torch can save.
    """
    code = f"from tests.course.test_processes import call; call({work!r}, {str(folder)!r})"
    script = folder / "script.py"
    script.write_text(code)
    run([*TORCHRUN, str(processes), str(script)], env=os.environ | {"PYTHONPATH": str(ROOT)})
    results = [torch.load(folder / f"{rank}.pt") for rank in range(processes)]
    assert [result["world"] for result in results] == [processes] * processes
    assert sorted(result["rank"] for result in results) == list(range(processes))
    return [result["value"] for result in results]


def call(work, folder):
    torch.set_num_threads(1)
    here = training.connect("cpu")
    value = globals()[work](folder)
    state = {"value": value, "rank": dist.get_rank(), "world": dist.get_world_size()}
    torch.save(state, f"{folder}/{here.rank}.pt")
    training.disconnect()


def small_model():
    torch.manual_seed(0)
    # No bias before the norm, whose gradient would be rounding errors alone, which Adam blows up
    layers = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)
    return nn.Sequential(*layers)


def odd_run(folder):
    """9 images by 4: the last batch has one, for two or three processes. With mixup and all."""
    model = small_model()
    average = training.MovingAverage(model, 0.9)
    history = training.fit(
        model,
        dataset(9),
        dataset(7, seed=1),
        epochs=4,
        batch_size=4,
        lr=1e-2,
        mix=mixup,
        average=average,
        device="cpu",
        quiet=True,
    )
    held_out = [tuple(epoch.held_out) for epoch in history.epochs]
    return {"losses": history.losses, "held_out": held_out, "model": model.state_dict()}


@pytest.mark.parametrize("processes", [2, 3])
def test_a_batch_smaller_than_the_number_of_processes(tmp_path, processes):
    expected = odd_run(tmp_path)
    assert len(expected["losses"]) == 4 * 3
    for result in together(processes, "odd_run", tmp_path):
        assert result["losses"] == pytest.approx(expected["losses"], abs=1e-5)
        for (loss, right, answers), others in zip(
            result["held_out"], expected["held_out"], strict=True
        ):
            assert loss == pytest.approx(others[0], abs=1e-5)
            assert right == others[1]
            assert torch.equal(answers, others[2])
        for name, value in expected["model"].items():
            torch.testing.assert_close(result["model"][name], value, atol=1e-5, rtol=1e-5)


def norms(folder):
    """Outputs, gradients and statistics of norms of a share of ten images, of 7 or of 3."""
    torch.manual_seed(0)
    x = torch.randn(10, 3, 2, 2, dtype=torch.float64).float() * 3 + 100
    share = x[:7] if dist.get_rank() == 0 else x[7:]
    results = []
    for options in ({}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}):
        norm = nn.Sequential(nn.BatchNorm2d(3, **options))
        synchronise_batch_norm(norm)
        leaf = share.clone().requires_grad_()
        for _ in range(2):
            y = norm(leaf)
        (y**3).sum().backward()
        separate_batch_norm(norm)
        assert type(norm[0]) is nn.BatchNorm2d
        results.append([y.detach(), leaf.grad, norm[0].state_dict()])
    return results


def test_batch_norm_is_that_of_the_whole_batch(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(10, 3, 2, 2, dtype=torch.float64).float() * 3 + 100
    first, second = together(2, "norms", tmp_path)
    kinds = ({}, {"momentum": None}, {"affine": False}, {"track_running_stats": False})
    for options, (y, grad, state), (y2, grad2, _) in zip(kinds, first, second, strict=True):
        norm, leaf = nn.BatchNorm2d(3, **options), x.clone().requires_grad_()
        for _ in range(2):
            whole = norm(leaf)
        (whole**3).sum().backward()
        assert whole.abs().max() > 1
        close = partial(torch.testing.assert_close, atol=2e-4, rtol=2e-4)
        close(torch.cat([y, y2]), whole.detach())
        close(torch.cat([grad, grad2]), leaf.grad)
        for name, value in norm.state_dict().items():
            close(state[name], value)


def test_a_norm_with_a_way_of_its_own_is_refused():
    class Own(nn.BatchNorm2d):
        def forward(self, x):
            return x

    with pytest.raises(ValueError, match="1 is a Own, which would see its own"):
        synchronise_batch_norm(nn.Sequential(nn.ReLU(), Own(3)))


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """50 steps of the staged model, whose BatchNorm must see whole batches, in one process."""
    out = tmp_path_factory.mktemp("one")
    run(launched(1, out, *STEPS))
    return records_of(out, 1)


STEPS = ["--steps", "50", "--batch-size", "8", "--model", "small", "--mixup", "0.2"]


@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_have_the_loss_curve_of_one(tmp_path, one, processes):
    shown = run(launched(processes, tmp_path, *STEPS))
    assert shown.stdout.count(f"Training on cpu in {processes} processes: 50 steps") == 1
    assert "deprecated" not in shown.stderr
    records = records_of(tmp_path, processes)
    assert [r.keys() for r in records] == [r.keys() for r in one]
    assert [r["step"] for r in records] == [r["step"] for r in one]
    losses = [r["loss"] for r in one]
    assert [r["loss"] for r in records] == pytest.approx(losses, abs=1e-3)
    assert len(set(losses[:50])) == 50
    assert records[-1]["held_out_loss"] == pytest.approx(one[-1]["held_out_loss"], abs=1e-3)
    shown = run(launched(processes, tmp_path, "--eval-only")).stdout
    assert shown.count("held-out images: ") == 1
    assert f"accuracy {records[-1]['held_out_accuracy']:.4f}" in shown


def children_of(process):
    """The ids of its workers, by rank."""
    ids = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout
    ranks = {}
    for pid in ids.split():
        with open(f"/proc/{pid}/environ") as file:
            variables = dict(v.split("=", 1) for v in file.read().split("\0") if "=" in v)
        ranks[int(variables["RANK"])] = int(pid)
    return ranks


def started(processes, out, *options):
    """The same in the background, once it has taken ten steps."""
    command = launched(processes, out, *options)
    group = subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    metrics = out / "metrics.jsonl"
    while not metrics.exists() or metrics.read_text().count("\n") < 10:
        assert group.poll() is None, group.stdout.read()
        time.sleep(0.01)
    return group


VIT = ["--steps", "40", "--batch-size", "16", "--model", "vit", "--checkpoint-every", "4"]
VIT += ["--image-size", "32"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of the ViT, whose dropout draws other numbers in each process, by two of them."""
    out = tmp_path_factory.mktemp("whole")
    run(launched(2, out, *VIT))
    return [record["loss"] for record in records_of(out, 2)]


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="this system has no process groups")
def test_ctrl_c_in_two_processes_and_an_exact_resume(tmp_path, whole):
    group = started(2, tmp_path, *VIT)
    os.killpg(group.pid, signal.SIGINT)  # as the terminal does
    shown, _ = group.communicate(timeout=300)
    assert "Stopped after" in shown
    assert "torchrun --nproc_per_node 2 -m course.train --resume --out" in shown
    done = len(load_checkpoint(tmp_path / "checkpoint.pt")["history"]["losses"])
    assert 10 <= done < 40
    run(launched(2, tmp_path, "--resume"))
    losses = [record["loss"] for record in records_of(tmp_path, 2)]
    assert losses == pytest.approx(whole, abs=1e-6)


@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="needs Linux's /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_one_of_two_is_killed_and_the_run_goes_on(tmp_path, whole, rank):
    group = started(2, tmp_path, *VIT)
    workers = children_of(group)
    assert sorted(workers) == [0, 1]
    os.kill(workers[rank], signal.SIGKILL)
    group.communicate(timeout=300)
    assert group.returncode != 0
    assert len(load_checkpoint(tmp_path / "checkpoint.pt")["history"]["losses"]) < 40
    run(launched(2, tmp_path, "--resume"))
    losses = [record["loss"] for record in records_of(tmp_path, 2)]
    assert losses == pytest.approx(whole, abs=1e-6)


def test_a_run_goes_on_in_another_number_of_processes(tmp_path, one):
    """Of a model without dropout, so that the losses are those of one process all the way."""
    group = started(2, tmp_path, *STEPS)
    os.killpg(group.pid, signal.SIGINT)
    group.communicate(timeout=300)
    assert load_checkpoint(tmp_path / "checkpoint.pt")["history"]["processes"] == 2
    shown = run(launched(3, tmp_path, "--resume")).stdout
    assert "2 processes before" in shown
    records = records_of(tmp_path, 3)
    assert [r["loss"] for r in records] == pytest.approx([r["loss"] for r in one], abs=1e-3)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "2 processes were asked for, but this one finds 1"),
        # what `accelerate launch --num_processes 2` leaves on a computer without GPUs
        ({"MASTER_ADDR": "127.0.0.1"}, "asked for several processes and started one"),
    ],
)
def test_a_process_that_is_alone_where_more_were_asked_for_refuses(monkeypatch, variables, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        training.fit(small_model(), dataset(), steps=1)


def test_accelerate_launch_that_starts_one_instead_of_two_is_refused(tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    command += ["-m", "course.train", "--steps", "1", "--out", str(tmp_path / "run")]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert shown.returncode != 0
    assert "start them with torchrun --nproc_per_node" in shown.stderr
    assert not (tmp_path / "run").exists()
