"""fit and evaluate: what they learn, print, return and refuse."""

import itertools
import math
import re

import pytest
import torch
from torch import nn

from course import training
from course.checkpoints import load_checkpoint
from course.data import ImageData


def dataset(count=64, classes=2, seed=0):
    """Images that are bright where the target is 1: a linear model can tell."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % classes
    noise = torch.randint(0, 100, (count, 3, 4, 4), generator=generator)
    images = (noise + 100 * targets[:, None, None, None]).to(torch.uint8)
    names = [str(c) for c in range(classes)]
    return ImageData(images, targets, names, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), image_size=4)


def linear(classes=2):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, classes))


def test_learns_and_leaves_one_line_an_epoch(capsys):
    model = linear()
    history = training.fit(model, dataset(), dataset(seed=1), epochs=3, batch_size=8, lr=1e-2)
    lines = [line.split("\r")[-1] for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == f"Training on {training.pick_device()}: 24 steps of 8 images"
    form = r"Epoch \d \| Loss: \d+\.\d{4} \| Acc: \d\.\d{4} \| Time: \d+\.\ds"
    form += r" \| Held-out acc: \d\.\d{4}"
    epochs = [line for line in lines if re.fullmatch(form, line)]
    assert [line.split()[1] for line in epochs] == ["1", "2", "3"]
    assert len(history.losses) == 24
    assert history.losses[-1] < history.losses[0]
    assert history.epochs[-1].held_out.accuracy == 1.0


def test_the_same_seed_gives_the_same_run():
    runs = []
    for seed in (0, 0, 1):
        model = nn.Sequential(linear(), nn.Dropout(0.5))
        runs.append(training.fit(model, dataset(), steps=6, batch_size=8, seed=seed).losses)
    assert runs[0] == runs[1] != runs[2]


def test_a_budget_in_steps_ends_within_an_epoch():
    history = training.fit(linear(), dataset(), steps=11, batch_size=8)
    assert len(history.losses) == 11
    assert len(history.epochs) == 2


def test_epochs_of_a_given_length(capsys):
    history = training.fit(linear(), dataset(), steps=7, steps_per_epoch=3, batch_size=8)
    assert len(history.losses) == 7
    assert capsys.readouterr().out.count("| Loss: ") == len(history.epochs) == 3


def test_a_budget_in_seconds_counts_training_alone(capsys, monkeypatch):
    clock = iter(range(10_000))  # every look at it is a second later
    monkeypatch.setattr(training.loop.time, "perf_counter", lambda: next(clock))
    history = training.fit(linear(), dataset(), dataset(), seconds=12, batch_size=8)
    assert [epoch.seconds for epoch in history.epochs] == [8, 4]  # 64 images are 8 steps
    assert len(history.losses) == history.seconds == 12
    assert "12 s in steps of 8 images" in capsys.readouterr().out


def test_a_schedule_multiplies_the_rate_of_every_group():
    model = linear()
    first, second = model[1].weight, model[1].bias
    optimizer = torch.optim.SGD([{"params": [first], "lr": 0.5}, {"params": [second], "lr": 2.0}])
    shares, rates = [], []

    def halve(share):
        shares.append(share)
        return 0.5

    class Recorded(nn.Sequential):
        def forward(self, x):
            rates.append([group["lr"] for group in optimizer.param_groups])
            return super().forward(x)

    before = first.detach().clone()
    training.fit(
        Recorded(model), dataset(), steps=4, batch_size=8, optimizer=optimizer, schedule=halve
    )
    assert sorted(set(shares)) == [0, 0.25, 0.5, 0.75, 1]
    assert rates == [[0.25, 1.0]] * 4
    assert not torch.equal(first, before)


def test_warmup_cosine():
    factors = [training.warmup_cosine(share) for share in (0, 0.05, 0.1, 0.325, 0.55, 1)]
    half_way = (1 + math.cos(math.pi / 4)) / 2
    assert factors == pytest.approx([0, 0.5, 1, half_way, 0.5, 0])


def test_augmented_batches_are_what_the_model_sees():
    def black(images):
        assert images.dtype == torch.uint8
        return torch.zeros_like(images)

    seen = []

    class Recorded(nn.Sequential):
        def forward(self, x):
            seen.append(x)
            return super().forward(x)

    training.fit(Recorded(linear()), dataset(), steps=2, batch_size=8, augment=black)
    assert all(torch.equal(x, torch.full_like(x, -2)) for x in seen)  # (0 - 0.5) / 0.25


def test_a_moving_average_forgets_its_beginning_and_keeps_statistics():
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    average = training.MovingAverage(model, decay=0.2)
    expected = model[0].weight.item()
    for t, value in enumerate((5.0, 7.0, -1.0)):
        with torch.no_grad():
            model[0].weight.fill_(value)
            model[1].running_mean.fill_(value)
            model[1].num_batches_tracked.fill_(t)
        average.update(model)
        decay = min(0.2, (1 + t) / (10 + t))  # 0.1, 0.1818, 0.2
        expected = decay * expected + (1 - decay) * value
    assert average.model[0].weight.item() == pytest.approx(expected)
    assert average.model[1].running_mean.item() == pytest.approx(0.2 * (9 + 63) / 11 - 0.8)
    assert average.model[1].num_batches_tracked == 2
    assert not average.model.training
    assert model[0].weight == -1


def test_the_average_takes_the_held_out_trials():
    model = linear()
    average, held_out = training.MovingAverage(model), dataset(seed=1)
    history = training.fit(model, dataset(), held_out, steps=9, batch_size=8, average=average)
    assert not torch.equal(average.model[1].weight, model[1].weight)
    expected = training.evaluate(average.model, held_out)
    assert history.epochs[-1].held_out.loss == pytest.approx(expected.loss)


def test_labels_are_smoothed_and_images_mixed():
    def swap(images, targets):
        assert targets.shape == (8, 2)
        return images * 0, 1 - targets

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.tensor([0.0, 1.0]))

        def forward(self, x):
            assert (x == 0).all()
            return self.logits.expand(len(x), 2)

    data = dataset(count=8)
    data.targets[:] = 0  # 1 after the swap, smoothed: 0.1, 0.9
    history = training.fit(
        Constant(), data, steps=1, batch_size=8, mix=swap, label_smoothing=0.2, device="cpu"
    )
    right = math.log(1 + math.e) - 1
    assert history.losses[0] == pytest.approx(0.9 * right + 0.1 * (right + 1))
    assert history.epochs[0].accuracy == 1.0


def test_bf16_computes_in_bfloat16_and_keeps_float32():
    types = []
    model = linear()
    model[1].register_forward_hook(lambda module, x, y: types.append(y.dtype))
    history = training.fit(model, dataset(), steps=1, batch_size=8, precision="bf16", device="cpu")
    assert types == [torch.bfloat16]
    assert model[1].weight.dtype == torch.float32
    exact = training.fit(linear(), dataset(), steps=1, batch_size=8, device="cpu")
    assert history.losses[0] == pytest.approx(exact.losses[0], rel=0.02)
    assert history.losses[0] != exact.losses[0]
    with pytest.raises(ValueError, match="precision='fp8': take one of fp32, bf16, fp16"):
        training.fit(model, dataset(), steps=1, precision="fp8")


def test_a_quiet_run_prints_nothing_and_passes_ctrl_c_on(capsys):
    training.fit(linear(), dataset(), dataset(), epochs=2, batch_size=8, quiet=True)
    with pytest.raises(KeyboardInterrupt):
        training.fit(Interrupted(), dataset(), epochs=2, batch_size=8, quiet=True)
    training.evaluate(linear(), dataset(), quiet=True)
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "")


def test_a_gpu_is_read_from_time_to_time_with_the_same_results(monkeypatch):
    """As on a GPU, where what a step has told is read later: here every 20 steps and in the end."""
    reads = []
    total = training.Processes.total

    def counted(self, values):
        reads.append(len(values) - 1)  # one row is the wish to stop
        return total(self, values)

    monkeypatch.setattr(training.Processes, "total", counted)
    options = {"steps": 45, "steps_per_epoch": 43, "batch_size": 1, "device": "cpu"}
    first, later = [], []
    training.fit(linear(), dataset(), log=first.append, **options)
    assert reads == [1] * 45
    reads.clear()
    monkeypatch.setattr(training.loop, "reading_interval", lambda device: 20)
    training.fit(linear(), dataset(), log=later.append, **options)
    assert reads == [20, 20, 3, 2]
    for record in first + later:
        record.pop("seconds", None)
    assert first == later
    taken = itertools.count(1)

    def poison(images):
        return images / 255 if next(taken) < 25 else images * math.nan

    with pytest.raises(FloatingPointError, match="at step 25: try"):
        training.fit(linear(), dataset(), augment=poison, **options)
    assert next(taken) == 41  # it was seen with step 40


def test_the_best_weights_are_those_of_the_best_epoch(tmp_path):
    model, weights = linear(), []

    def log(record):
        if "epoch" in record:
            weights.append(model[1].weight.detach().clone())

    options = {"epochs": 6, "batch_size": 8, "lr": 0.05, "best": tmp_path / "best.pt", "log": log}
    history = training.fit(model, dataset(), dataset(9, seed=1), **options)
    accuracies = [epoch.held_out.accuracy for epoch in history.epochs]
    best = load_checkpoint(tmp_path / "best.pt")
    number = accuracies.index(max(accuracies))
    assert number < 5  # or the best would be the last
    assert torch.equal(best["model"]["1.weight"], weights[number])
    assert (best["accuracy"], best["step"]) == (max(accuracies), 8 * (number + 1))


def test_fp16_scales_the_loss_and_skips_steps_that_overflow():
    model = linear()
    before = model[1].weight.detach().clone()
    history = training.fit(model, dataset(), steps=1, batch_size=8, precision="fp16", device="cpu")
    exact = training.fit(linear(), dataset(), steps=1, batch_size=8, device="cpu")
    assert history.losses == pytest.approx(exact.losses, rel=0.01)
    assert not torch.equal(model[1].weight, before)
    huge = nn.Sequential(linear(), nn.Linear(2, 2))
    with torch.no_grad():
        huge[0][1].weight.mul_(1e-3)
        huge[1].weight.fill_(1e4)
        huge[1].weight[1] *= -1
    before = huge[0][1].weight.detach().clone()
    training.fit(huge, dataset(), steps=1, batch_size=8, precision="fp16", device="cpu")
    assert torch.equal(huge[0][1].weight, before)  # gradients of 65536 x 1e4 are infinite


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"steps": -1}, {"steps": 1, "batch_size": 0}])
def test_a_length_of_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="it must be above 0"):
        training.fit(linear(), dataset(), **wrong)


def test_resume_needs_a_place():
    with pytest.raises(ValueError, match="say where the run is kept"):
        training.fit(linear(), dataset(), steps=1, resume=True)


@pytest.mark.parametrize(
    ("name", "message"), [("gpu", "no device is called gpu"), ("cuda:99", "no device cuda:99 on")]
)
def test_a_device_that_is_not_there_is_said(name, message):
    with pytest.raises(ValueError, match=message):
        training.fit(linear(), dataset(), steps=1, device=name)


def test_every_step_and_epoch_is_logged():
    records = []
    history = training.fit(
        linear(), dataset(), dataset(seed=1), epochs=2, batch_size=32, log=records.append
    )
    assert [record["step"] for record in records] == [1, 2, 2, 3, 4, 4]
    assert [record["loss"] for record in records if "lr" in record] == history.losses
    assert records[-1]["epoch"] == 2
    assert records[-1]["held_out_accuracy"] == history.epochs[-1].held_out.accuracy


def test_evaluate_counts_right_answers_and_keeps_the_mode():
    data = dataset()
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model[1].bias.copy_(torch.tensor([0.0, 1.0]))  # always says 1
    result = training.evaluate(model, data, batch_size=7)
    assert result.accuracy == 0.5
    assert result.predictions.tolist() == [1] * 64
    expected = nn.functional.cross_entropy(torch.tensor([[0.0, 1.0]] * 64), data.targets)
    assert result.loss == pytest.approx(expected.item())
    assert model.training


class Interrupted(nn.Module):
    """Learns, until somebody presses Ctrl-C in step 5."""

    def __init__(self):
        super().__init__()
        self.model, self.calls = linear(), 0

    def forward(self, x):
        self.calls += 1
        if self.calls == 5:
            raise KeyboardInterrupt
        return self.model(x)


def test_ctrl_c_keeps_what_was_learned(capsys):
    model = Interrupted()
    before = model.model[1].weight.clone()
    history = training.fit(model, dataset(), epochs=2, batch_size=8)
    assert len(history.losses) == 4
    assert not torch.equal(model.model[1].weight, before)
    assert "Stopped after 4 of 16 steps" in capsys.readouterr().out


def test_nan_stops_with_the_step_and_what_to_try():
    model = linear()
    with torch.no_grad():
        model[1].bias.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"nan at step 1: try a smaller learning rate"):
        training.fit(model, dataset(), steps=3, batch_size=8)


@pytest.mark.parametrize("run", [lambda m, d: training.fit(m, d, steps=1), training.evaluate])
def test_a_head_of_another_size_is_named(run):
    with pytest.raises(ValueError, match=r"gives \[32, 3\].*2 classes.*num_classes=2"):
        run(linear(classes=3), dataset(count=32))


def test_a_run_needs_one_budget():
    for budget in ({}, {"epochs": 1, "steps": 1}, {"steps": 1, "seconds": 1}):
        with pytest.raises(ValueError, match="one of epochs="):
            training.fit(linear(), dataset(), **budget)


def test_estimate_leaves_the_model_alone_and_says_how_long(capsys):
    model = linear()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert training.estimate(model, dataset(), epochs=2, batch_size=8) > 0
    assert "2 epochs of 8 steps" in capsys.readouterr().out
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("seconds", "words"), [(5, "5 s"), (99, "99 s"), (720, "12 min"), (144_000, "40.0 h")]
)
def test_durations_in_words(seconds, words):
    assert training.evaluation.in_words(seconds) == words


def test_a_last_batch_of_one_image_trains_where_batch_norm_has_one_pixel():
    torch.manual_seed(0)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(ValueError, match="more than 1 value"):
        model(torch.randn(1, 3, 4, 4))
    seen, norm = [], model[1]
    norm.reset_running_stats()
    norm.register_forward_hook(lambda module, args, _: seen.append((len(args[0]), module.training)))
    training.fit(model, dataset(9), batch_size=4, epochs=2, quiet=True)
    assert seen[:6] == [(4, True), (4, True), (1, False)] * 2
    assert norm.num_batches_tracked == 4
    assert norm.weight.grad.any()
    model = nn.Sequential(nn.BatchNorm2d(3), linear())
    training.fit(model, dataset(3), batch_size=1, epochs=1, quiet=True)
    assert model[0].num_batches_tracked == 3  # batches of one by choice are as they ever were
