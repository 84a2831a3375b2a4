"""Checks of lesson 7: training for real. See course/checking."""

import copy
import warnings

import torch
import torch.nn.functional as F
from torch import nn

from course.augmentation import shift_and_flip
from course.checking import CheckFailed, exercise, students_code
from course.checks.average07 import average
from course.checks.mistakes07 import (
    MIX_MISTAKES,
    SCHEDULE_MISTAKES,
    SHIFT_MISTAKES,
    STEP_MISTAKES,
    mix,
)
from course.checks.resume07 import resume
from course.checks.shared import explained, number_of
from course.comparing import compare_calls, randomise
from course.training import warmup_cosine

__all__ = ["average", "bf16", "resume", "schedule", "shift", "soft"]

# Exercise 1

SHARES = (0.0, 0.0137, 0.0531, 0.2, 0.3217, 0.4, 0.7371, 0.9053, 1.0)


@exercise("A schedule", warmup_cosine, ())
def schedule(answer):
    calls = [(share, warmup) for warmup in (0.1, 0.027, 0.25, 0.6) for share in SHARES]
    calls += [(0.1, 0.1), (0.013,), (0.5501,), (0.0266, 0.027), (0.0974,)]
    expected = [warmup_cosine(*call) for call in calls]
    came = []
    for call in calls:
        with (
            explained(complaints=SCHEDULE_COMPLAINTS),
            students_code("warmup_cosine takes a share and returns a number"),
        ):
            value = answer(*call)
        came.append(number_of(value, "return the factor alone"))
    place = _first_difference(came, expected)
    if place is None:
        return "the rise, the top and the fall, for warm-ups from 2.7 to 60 % of the run."
    full = [(*call, 0.1)[:2] for call in calls]
    likely = (h for h, mistake in SCHEDULE_MISTAKES if _does(mistake, full, came))
    share, warmup = full[place]
    raise CheckFailed(
        f"{expected[place]:.4f} at share={share}, warmup={warmup}",
        f"{came[place]:.4f}",
        next(likely, "") or _schedule_part(full, came, expected),
    )


SCHEDULE_COMPLAINTS = {
    "must be Tensor, not float": "torch's functions take tensors; for a number there is math.cos",
    "float division by zero": "share is 0 at the start of the run, so nothing can be divided by it",
}


def _does(mistake, calls, came):
    return _first_difference(came, [mistake(*call) for call in calls]) is None


def _schedule_part(calls, came, expected):
    """Which of the two parts is wrong, where no known mistake fits."""
    if any(value != value for value in came):
        return "no number: 0 / 0, or inf - inf"
    parts = {"the rise": [], "the fall": []}
    for (share, warmup), a, b in zip(calls, came, expected, strict=True):
        parts["the rise" if share < warmup else "the fall"].append(_near(a, b))
    right = [part for part, same in parts.items() if all(same)]
    if right == ["the rise"]:
        return "the rise is right; the fall, from `warmup` on, is not"
    if right == ["the fall"]:
        return "the fall is right; the rise, below `warmup`, is not"
    at_default = [i for i, (_, warmup) in enumerate(calls) if warmup == 0.1]
    if all(_near(came[i], expected[i]) for i in at_default):
        return "right for warmup=0.1 alone: is 0.1 written in?"
    return ""


def _near(a, b):
    return abs(a - b) <= 1e-5 or a == b


def _first_difference(a, b):
    """The first place where two lists of numbers differ; NaN differs from all."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if not _near(x, y)), None)


# Exercise 2


@exercise("Shift and flip", shift_and_flip, ())
def shift(answer):
    calls = []
    for height, width in ((7, 5), (6, 9)):
        images = torch.arange(6 * 3 * height * width, dtype=torch.int64) % 251
        images = images[torch.randperm(len(images))].to(torch.uint8).view(6, 3, height, width)
        down, right = torch.tensor([[2, 0, -1, 11, -2, -9], [-3, 1, 2, -1, -12, 10]])
        calls.append((images, down, right, torch.tensor([True, False, True, False, False, True])))
    images, *draws = calls[0]
    calls.append((images / 255, *draws))
    one = [draw[:1] for draw in draws]
    calls.append((images[:1], *one))
    calls.append((images[:1] / 255, *one))
    calls.append((images[1:2].expand(6, -1, -1, -1), *draws))  # as in the next cell
    with explained(complaints=SHIFT_COMPLAINTS, first=True):
        return compare_calls(
            answer,
            shift_and_flip,
            calls,
            SHIFT_MISTAKES,
            "every pixel of images with shifts of their own, large ones too, some flipped; uint8 "
            "and float.",
            gradients=False,
        )


SHIFT_COMPLAINTS = {
    "Boolean value of Tensor": "`flipped` holds a truth for each image, which `if` cannot ask: "
    "torch.where(flipped[:, None], ..., ...)",
    '"dims"': "flip needs the axis that it turns around: .flip(1)",
    "'range' and 'Tensor'": "range gives Python's numbers; torch.arange gives a tensor",
    "returns torch.uint8": "move pixels, do not compute them: uint8 stays uint8",
}


# Exercise 3


@exercise("Mixed images, soft targets", mix, ())
def soft(answer):
    def call(count, classes, share, *rest, hard=True):
        targets = F.one_hot(torch.randint(classes, (count,)), classes).float()
        if not hard:  # targets may be soft already
            targets = torch.rand(count, classes).softmax(dim=1)
        partner = torch.randperm(count)
        return torch.randn(count, 3, 4, 5), targets, share, partner, *rest

    calls = [
        call(6, 4, 0.7, 0.2),
        call(5, 9, 0.3, 0.0),
        call(7, 11, 0.45),
        call(8, 6, 0.85, 0.3, hard=False),
        call(1, 5, 0.6),
        call(6, 10, 1.0),
        call(9, 8, 0.0, 0.05),
    ]
    with explained(complaints=MIX_COMPLAINTS):
        return compare_calls(
            answer,
            mix,
            calls,
            MIX_MISTAKES,
            f"images and targets of {len(calls)} batches, with and without smoothing; targets add "
            "up to 1.",
            gradients=False,
        )


MIX_COMPLAINTS = {
    "'float' and 'torch.Size'": "`targets.shape` has two lengths; K is targets.shape[1]",
    "one_hot is only": "`targets` are one-hot already, [B, K]",
}


# Exercise 4


def bf16_step(model, optimizer, images, targets):
    """The reference of exercise 4: one step with the forward pass in bfloat16; the loss."""
    return _step(model, optimizer, images, targets)


def _step(
    model,
    optimizer,
    images,
    targets,
    dtype=torch.bfloat16,
    digits=torch.float32,
    zero=True,
    loss=F.cross_entropy,
    steps=1,
):
    for _ in range(steps):
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            logits = model(images)
        value = loss(logits.to(digits), targets)
        if zero:
            optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return value.detach().float()


class _Network(nn.Module):
    """Logits large enough that bfloat16's three digits show; notes in which type it computes."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5)
        self.conv_types = []

    def forward(self, x):
        x = self.conv(x)
        self.conv_types.append(x.dtype)
        return 8 * self.linear(self.norm(x).relu().mean(dim=(2, 3)))


class _Optimizer(torch.optim.SGD):
    """Notes what happens to it: for each step whether gradients were there."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=0.1)
        self.noted = []

    def step(self, closure=None):
        parameters = self.param_groups[0]["params"]
        there = [p.grad is not None and bool(p.grad.any()) for p in parameters]
        self.noted.append("step" if any(there) else "step without gradients")
        return super().step(closure)


@exercise("A step in bfloat16", bf16_step, ())
def bf16(answer):
    network = randomise(_Network())
    batches = [(torch.randn(6, 3, 8, 8), torch.randint(5, (6,))) for _ in range(2)]

    def run(step):
        model = copy.deepcopy(network)
        optimizer = _Optimizer(model.parameters())
        return model, [step(model, optimizer, *batch) for batch in batches], optimizer.noted

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with (
            explained(complaints=STEP_COMPLAINTS),
            students_code("bf16_step(model, optimizer, images, targets) takes a step"),
        ):
            model, losses, noted = run(answer)
    losses = [_loss(value) for value in losses]
    _require_types(model, len(batches))
    expected, came = _values(*run(bf16_step)[:2]), _values(model, losses)
    place = _first_difference(came, expected)
    if place is None:
        return "losses and weights after two steps; bfloat16 inside, float32 for loss and weights."
    likely = _order_mistake(noted, model, warned)
    for hint, options in STEP_MISTAKES:
        if likely:
            break
        wrong = run(lambda *arguments, o=options: _step(*arguments, **o))
        likely = hint if _first_difference(came, _values(*wrong[:2])) is None else ""
    if came[place] != came[place]:
        likely = "no number: 0 / 0, or inf - inf"
    what = f"loss {place + 1}" if place < 2 else "a weight after two steps"
    raise CheckFailed(
        f"{what}: {expected[place]:.5f}", f"{came[place]:.5f}", likely or _part(came, expected)
    )


STEP_COMPLAINTS = {
    "got: `<class 'torch.device'>`": "autocast takes the name of the kind of device: "
    "images.device.type",
    "got: `<class 'torch.dtype'>`": "the kind of device comes first: "
    "torch.autocast(images.device.type, torch.bfloat16)",
    "does not require grad": "the forward pass records no gradients: torch.no_grad(), or a "
    "`.detach()`, stands in the way of loss.backward()",
    "target with class probabilities": "cross-entropy takes the logits, [B, K], and targets, [B]",
    "not implemented for 'Long'": "the logits come first: F.cross_entropy(logits, targets)",
}


def _loss(value):
    """The loss as a number, still with gradients or not."""
    likely = ""
    if isinstance(value, torch.Tensor) and value.numel() > 1:
        likely = "the loss of the whole batch is one number; these may be the logits"
    return number_of(value, "return the loss alone", "the loss, one number", likely)


def _values(model, losses):
    weights = torch.cat([p.flatten() for p in model.parameters()])
    return [*map(float, losses), *weights.tolist()]


def _require_types(model, steps):
    if any(p.dtype != torch.float32 for p in model.parameters()):
        raise CheckFailed(
            "weights that stay float32",
            str(next(p.dtype for p in model.parameters())),
            "the model itself was converted; a step smaller than a weight's third digit is lost "
            "then. torch.autocast converts where it is safe, and leaves the weights as they are",
        )
    if not model.training:
        likely = "this is a step of training: leave out model.eval()"
        raise CheckFailed("a model that stays in train mode", "it is in eval mode", likely)
    if len(model.conv_types) != steps:
        count = len(model.conv_types)
        likely = "call `model(images)` once" if count else "logits are what `model(images)` gives"
        raise CheckFailed("one forward pass a step", f"{count} in {steps} steps", likely)


def _order_mistake(noted, model, warned):
    """What the calls themselves tell: of backward, zero_grad, step and autocast."""
    if not noted:
        return "the weights did not change: optimizer.step() is missing"
    if noted[0] == "step without gradients":
        if all(p.grad is None or not p.grad.any() for p in model.parameters()):
            return (
                "no gradients were there in the step, so that the weights did not change: "
                "loss.backward() is missing, or optimizer.zero_grad() stands between it and "
                "optimizer.step()"
            )
        return "the weights did not change: optimizer.step() comes before loss.backward()"
    if model.conv_types[0] is torch.float16:
        return "float16 needs its gradients scaled; dtype=torch.bfloat16"
    if any("device_type" in str(w.message) or "CUDA" in str(w.message) for w in warned):
        return "autocast is for a GPU here, but the images are on the CPU: images.device.type"
    return ""


def _part(came, expected):
    if _first_difference(came[:1], expected[:1]) is None:
        return "the first loss is right, the step after it is not"
    return "the loss is wrong, the first step is right" if came[1:2] == expected[1:2] else ""
