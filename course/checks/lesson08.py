"""Checks of lesson 8, looking inside: `from course.checks import lesson08 as check`."""

import torch
from torch import nn

from coatnet import TransformerBlock
from course.checking import CheckFailed, exercise, students_code
from course.checks.mistakes08 import (
    FIELD_MISTAKES,
    READING_MISTAKES,
    SWEEP_MISTAKES,
    attention_weights,
    receptive_field,
    resolution_sweep,
)
from course.checks.shared import Calls, explained, number_of
from course.comparing import compare_calls, randomise

# Exercise 1


class _Block(TransformerBlock):
    """A block whose own method the exercise does without."""

    def attention_weights(self, x):
        raise CheckFailed(
            "weights computed from q, k and the bias",
            "block.attention_weights(x), which gives them",
            "the exercise is to write it without this method",
        )


_Block.__name__ = "TransformerBlock"

# in, out, stride, the grid it is made for, images: batches of three and of one, one head and
# several, grids of other sizes than its own, even and odd
BLOCKS = [
    (64, 64, 1, (3, 4), (3, 3, 4)),
    (32, 96, 2, (3, 5), (3, 6, 9)),
    (64, 64, 1, (4, 4), (2, 2, 5)),
    (32, 32, 1, (2, 3), (1, 2, 3)),
]


@exercise("Reading attention", attention_weights, ())
def reading(answer):
    calls = []
    for in_channels, out_channels, stride, grid, (batch, height, width) in BLOCKS:
        block = randomise(_Block(in_channels, out_channels, grid, stride)).eval()
        nn.init.normal_(block.attention.position_bias.table)
        calls.append((block, torch.randn(batch, in_channels, height, width)))
    with explained(complaints=READING_COMPLAINTS, first=True):
        return compare_calls(
            answer,
            attention_weights,
            calls,
            READING_MISTAKES,
            f"the weights of {len(calls)} blocks, 1 to 3 heads, with and without stride, on grids "
            "of their own and others; rows sum to 1.",
            gradients=False,
        )


PARTS = "the block's parts are norm1, pool and attention, and attention's qkv, num_heads and "
PARTS += "position_bias"
READING_COMPLAINTS = {
    "'TransformerBlock' object has no": PARTS,
    "'RelativeAttention' object has no": PARTS,
    "'Linear2d' object has no": "`block.attention.qkv` is a layer: call it with x",
    '"dim"': "softmax needs its axis, the keys': dim=-1",
}


# Exercise 2

IMAGES = [(4, 12, 16), (3, 11, 8), (2, 10, 14), (1, 9, 14)]  # grids: even, odd, mixed


def _network():
    layers = nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.GELU(), nn.Conv2d(4, 5, 3, padding=1)
    return randomise(nn.Sequential(*layers))


@exercise("Effective receptive field", receptive_field, ())
def field(answer):
    networks = [_network() for _ in IMAGES]
    functions = [networks[0], *map(_Features, networks[1:])]
    calls = [
        (function, torch.randn(count, 3, height, width))
        for function, (count, height, width) in zip(functions, IMAGES, strict=True)
    ]
    with explained(complaints=FIELD_COMPLAINTS, first=True):
        proven = compare_calls(
            answer,
            receptive_field,
            calls,
            FIELD_MISTAKES,
            f"the shares of all pixels for {len(calls)} networks and image sizes; they add up to "
            "1.",
        )
    with students_code("receptive_field(features, images) returns the field"):
        came = answer(*calls[0])
    if came.requires_grad:
        raise CheckFailed(
            "a field that can be drawn",
            "it still asks for gradients",
            "leave out create_graph=True, or end with .detach()",
        )
    return proven


class _Features:
    """What the next cells pass: a function, which is no module."""

    def __init__(self, network):
        self.network = network

    def __call__(self, images):
        return self.network(images)

    def __repr__(self):
        return "features"


FIELD_COMPLAINTS = {
    "does not require grad": "images have no gradient unless you ask: images = "
    "images.clone().requires_grad_(), before `features` gets them",
    "appears to not have been used": "the gradient is asked for other images than those that "
    "`features` got: give both the same name",
    "can be implicitly created only for scalar": "autograd takes the gradient of one number: "
    "add up with .sum()",
    "argument 1 was changed": "`features` may be any function; leave its mode as it is",
    "argument 'keepdim'": "the axes stand in a tuple: dim=(0, 1)",
    "ndarray": "return the tensor itself",
    "argument 2 was changed": "images.clone().requires_grad_() leaves the images that were "
    "given alone",
}


# Exercise 3

SIZES = [10, 12, 7, 16, 23]


class _Reader(nn.Module):
    """Classifies by fine detail, so that how an image was resized shows; remembers its calls."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 40, 3)
        self.calls = Calls()

    def forward(self, x):
        if x.shape[-1] not in SIZES:
            likely = "F.interpolate(images, size=(size, size), ...), for each size of `sizes`"
            raise CheckFailed("images of one of the sizes", f"{list(x.shape)}", likely)
        self.calls.append((self.training, torch.is_grad_enabled()))
        x = self.conv(x).abs().mean(dim=(2, 3))
        return x.flip(1) if self.training else x


@exercise("The resolution sweep", resolution_sweep, ())
def sweep(answer):
    model, images = randomise(_Reader()), torch.randn(151, 3, 12, 12)  # a prime
    with torch.no_grad():
        targets = model.eval()(images).argmax(dim=1)
    expected = resolution_sweep(model, images, targets, SIZES)
    model.train().calls.clear()
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    given = images.clone(), targets.clone(), list(SIZES)
    with (
        explained(complaints=SWEEP_COMPLAINTS),
        students_code("resolution_sweep takes a model, images, targets and sizes"),
    ):
        came = answer(model, *given)
    values = _shares_of(came)
    _require_calls(model.calls)
    if not all(map(torch.equal, (*given[:2], *model.parameters()), (images, targets, *weights))):
        likely = "resize into a new name; `x[...] = ...` and functions with _ write into them"
        raise CheckFailed("model, images and targets stay as they are", "one was changed", likely)
    if given[2] != SIZES:
        raise CheckFailed("sizes stays as it is", "the list was changed", "make a new list")
    if len(values) != len(SIZES):
        likely = "the `return` stands inside the loop" if len(values) == 1 else ""
        raise CheckFailed(f"{len(SIZES)} shares, one a size", f"{len(values)}", likely)
    if _equal(values, expected):
        _require_one_image(answer, model, images[:1], targets[:1])
        return f"{len(SIZES)} sizes from {min(SIZES)} to {max(SIZES)} pixels, each share right."
    likely = (
        hint
        for hint, mistake in SWEEP_MISTAKES
        if _equal(values, mistake(model, images, targets, SIZES))
    )
    raise CheckFailed(
        ", ".join(f"{value:.4f}" for value in expected),
        ", ".join(f"{value:.4f}" for value in values),
        next(likely, ""),
    )


SWEEP_COMPLAINTS = {
    "same number of spatial dimensions": "one size at a time: size=(size, size)",
    "converted to Scalar": "one number first: .mean() of the right answers, and then .item()",
    "'float' object is not iterable": "shares.append(...) adds one number to the list",
    "cannot be interpreted as an integer": "`sizes` is a list: for size in sizes",
    "must match the size of tensor b": "one prediction for each image: argmax(dim=1)",
}


def _require_one_image(answer, model, image, target):
    """A single image, with the right target and with a wrong one."""
    for label, share in ((target, 1.0), (target + 1, 0.0)):
        with students_code("resolution_sweep takes a single image, too"):
            came = answer(model, image.clone(), label.clone(), [12])
        values = _shares_of(came)
        if not _equal(values, [share]):
            likely = "right for many images: `squeeze()` also takes the batch's axis where it is 1"
            raise CheckFailed(f"[{share}] for a single image", f"{values}", likely)


def _shares_of(came):
    """The shares as numbers."""
    if not isinstance(came, list | tuple):
        likely = "a list of numbers is asked for, shares.append(...) for each size"
        if came is None:
            likely = "the function has no `return`"
        elif isinstance(came, dict):
            likely = "return a list, in the order of `sizes`"
        elif isinstance(came, float | int) or getattr(came, "ndim", 1) == 0:
            likely = "one number for all sizes: append each to a list, and return it after the loop"
        raise CheckFailed("a list of numbers", type(came).__name__, likely)
    several = "one share for each size: .mean() makes one number of the right answers"
    return [number_of(value, several, "a list of numbers, one a size") for value in came]


def _require_calls(calls):
    if not calls:
        raise CheckFailed("the model gets the resized images", "it was not called")
    if any(training for training, _ in calls):
        likely = "in train mode dropout drops, and BatchNorm looks at the batch: model.eval()"
        raise CheckFailed("the model in eval mode", "in train mode", likely)
    if any(gradients for _, gradients in calls):
        likely = "call the model inside `with torch.no_grad():`"
        raise CheckFailed("no gradients are recorded", "they are", likely)


def _equal(a, b):
    return len(a) == len(b) and all(abs(x - y) < 1e-5 for x, y in zip(a, b, strict=True))
