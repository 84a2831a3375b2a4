"""Checks of lesson 5, the staged CoAtNet: `from course.checks import lesson05 as check`."""

import numbers
from dataclasses import replace
from unittest.mock import patch

import numpy
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

import coatnet
from coatnet import CoAtNetConfig, RelativePositionBias
from course.checking import CheckFailed, exercise, students_code
from course.checks.mistakes05 import (
    PlainStem,
    counts,
    family_mistake,
    make_stage,
    model_mistakes,
    stage_mistakes,
    stem_mistakes,
)
from course.checks.shared import brief, explained, small_grids
from course.comparing import compare

# Exercise 1

# channels of the image, config.stem_widths, image: wider and narrower, even and odd
STEMS = [(2, (5, 7), (9, 14)), (4, (8, 6), (10, 11))]


@exercise("The stem", PlainStem, ["__init__", "forward"])
def stem(answer):
    for channels, widths, image in STEMS:
        config = CoAtNetConfig(stem_widths=widths)
        images = torch.randn(3, channels, *image)
        mistakes = stem_mistakes(channels, config)
        with brief(config), explained():
            proven = compare(
                answer, PlainStem, images, mistakes, in_channels=channels, config=config
            )
    return f"{len(STEMS)} pairs of widths; {proven}"


# Exercise 2

# in, out, depth, kind, image, grid: odd sizes, equal and different channels, not square
STAGES = [
    (5, 8, 3, "C", (9, 14), (5, 7)),
    (6, 6, 2, "C", (8, 7), (4, 4)),
    (5, 32, 3, "T", (9, 6), (5, 3)),
    (32, 32, 1, "T", (6, 8), (3, 4)),
    (9, 4, 1, "C", (7, 6), (4, 3)),
]


@exercise("A stage", make_stage, ())
def stage(answer):
    for c_in, c_out, depth, kind, image, grid in STAGES:
        sizes = {"in_channels": c_in, "out_channels": c_out, "depth": depth}
        sizes |= {"kind": kind, "grid_size": grid}
        images = torch.randn(2, c_in, *image)
        with explained(look_at="make_stage"), small_grids():
            with students_code("a stage can be built"):
                built = answer(*sizes.values())
            _require_height_before_width(built, grid, kind)
            compare(answer, make_stage, images, stage_mistakes(**sizes), **sizes)
            _require_blocks(built)
    return (
        f"{len(STAGES)} stages of both kinds, 1 to 3 blocks deep: the reference's values with the "
        "same weights, gradients everywhere."
    )


def _require_height_before_width(stage, grid, kind):
    """Bias tables of a transposed grid have as many parameters, so look at them first."""
    if kind == "C" or not isinstance(stage, nn.Module) or grid[0] == grid[1]:
        return
    sizes = {tuple(m.grid_size) for m in stage.modules() if isinstance(m, RelativePositionBias)}
    if sizes == {grid[::-1]}:
        raise CheckFailed(
            f"bias tables for a grid of {grid}",
            f"{grid[::-1]}",
            "height and width are swapped: grid_size is (height, width), passed on as it is",
        )


def _require_blocks(stage):
    """The next cell goes through the blocks one by one."""
    try:
        iter(stage)
    except TypeError:
        raise CheckFailed(
            "nn.Sequential, whose blocks the next cell goes through with a `for`",
            f"{type(stage).__name__}, which has no `__iter__`",
            "return nn.Sequential(*blocks)",
        ) from None


# Exercise 3

# config, classes, image_size, image given: three layouts; depths, widths and sides that differ,
# sizes that 32 divides and that it does not, one that is odd
MODELS = [
    (
        CoAtNetConfig(depths=(1, 2, 2, 1), widths=(32, 64, 32, 96), stem_widths=(4, 5)),
        6,
        56,
        (40, 56),
    ),
    (
        CoAtNetConfig(
            depths=(2, 1, 1, 1),
            widths=(6, 32, 64, 96),
            stem_widths=(7, 4),
            block_types=("C", "T", "T", "T"),
        ),
        5,
        65,
        (33, 47),
    ),
    (
        CoAtNetConfig(
            depths=(1, 2, 1, 1),
            widths=(6, 10, 12, 32),
            stem_widths=(5, 8),
            block_types=("C", "C", "C", "T"),
        ),
        7,
        96,
        (64, 96),
    ),
]


@exercise("CoAtNet", coatnet.CoAtNet, ["__init__", "forward"], builds_on=[PlainStem, make_stage])
def coatnet_staged(answer):
    for config, classes, side, image in MODELS:
        sizes = {"config": config, "num_classes": classes, "image_size": side}
        images = torch.randn(3, 3, *image)
        with brief(config), explained(), small_grids():
            mistakes = model_mistakes(**sizes)
            proven = compare(answer, coatnet.CoAtNet, images, mistakes, **sizes)
            _require_parts(answer, images, sizes)
    return "layouts C-C-T-T, C-T-T-T and C-C-C-T, images of three sizes; " + proven


@torch.no_grad()
def _require_parts(answer, images, sizes):
    model = answer(**sizes).eval()
    expected = "attributes `stem`, `stages` (four of them) and `head`, used in this order"
    for name in ("stem", "stages", "head"):
        if not hasattr(model, name):
            raise CheckFailed(expected, f"no attribute `{name}`", "the figures below ask for them")
    with students_code(expected):
        x, count = model.stem(images), 0
        for part in model.stages:
            x, count = part(x), count + 1
        same = torch.allclose(model.head(x), model(images), atol=1e-4)
    if count != 4:
        raise CheckFailed(expected, f"{count} stages", "each stage is one entry of `stages`")
    if not same:
        raise CheckFailed(expected, "other logits than the model's", "the figures ask for them")


# Exercise 4

TABLE_FIELDS = ("stem_widths", "depths", "widths", "block_types")


def paper_config(number):
    """The reference of exercise 4: CoAtNet-`number` as a `CoAtNetConfig`, number from 0 to 5."""
    return coatnet.get_config(f"coatnet_{number}_224")


@exercise("The family", paper_config, ())
def family(answer):
    for number in (*range(6), 2, 0):  # and twice: nothing is used up
        right = paper_config(number)
        call = f"paper_config({number})"
        with students_code(f"{call} gives a CoAtNetConfig"):
            came = answer(number)
        if not isinstance(came, CoAtNetConfig):
            likely = "return CoAtNetConfig(stem_widths=..., depths=..., widths=...)"
            raise CheckFailed(f"{call} gives a CoAtNetConfig", type(came).__name__, likely)
        for field in TABLE_FIELDS:
            _require_field(call, field, getattr(came, field), right, number)
        with students_code(f"{call} leaves all other fields at their defaults"):
            others = replace(came, **{name: getattr(right, name) for name in TABLE_FIELDS})
            changed = [n for n, v in vars(others).items() if v != getattr(right, n)]
        if changed:
            raise CheckFailed(
                f"{call}.{changed[0]} = {getattr(right, changed[0])!r}, the default",
                getattr(came, changed[0]),
                "the table says nothing of this field: leave it out",
            )
    return "stem, depths, widths and kinds of CoAtNet-0 to -5 as in tables 3 and 11."


def _require_field(call, field, came, right, number):
    expected = tuple(getattr(right, field))
    wanted = f"{call}.{field} = {expected}"
    if not isinstance(came, tuple | list):
        what = "convolution" if field == "stem_widths" else "stage"
        likely = f"a tuple is asked for, with one entry a {what}"
        raise CheckFailed(wanted, f"{type(came).__name__}: {came}", likely)
    kind = str if field == "block_types" else numbers.Integral
    odd = [value for value in came if not isinstance(value, kind) or isinstance(value, bool)]
    if odd:
        raise CheckFailed(wanted, tuple(came), _type_mistake(odd[0]))
    if tuple(came) != expected:
        table = [paper_config(other) for other in range(6)]
        likely = family_mistake(field, tuple(came), number, right, table)
        raise CheckFailed(wanted, tuple(came), likely)


def _type_mistake(value):
    if isinstance(value, float):
        return f"{value} is a float; channels and blocks are whole numbers: // instead of /"
    if isinstance(value, tuple | list):
        return "a tuple stands inside the tuple: one number for each entry"
    return f"{value!r} is of type {type(value).__name__}; plain numbers are asked for"


# Exercise 5


def count_parameters(build):
    """The reference of exercise 5: how many parameters `build()` has, without their memory."""
    with torch.device("meta"):
        model = build()
    return sum(parameter.numel() for parameter in model.parameters())


class _Probe(nn.Module):
    """A model with what is easily counted wrong: buffers, frozen and shared parameters, and more
    numbers than float32 counts one by one.
    """

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 7)
        self.norm = nn.BatchNorm1d(7)  # with 15 numbers in three buffers
        self.frozen = nn.Linear(7, 5, bias=False).requires_grad_(False)
        self.shared = nn.Linear(5, 7, bias=False)
        self.shared.weight = self.first.weight
        self.scale = nn.Parameter(torch.ones(()))
        self.large = nn.Linear(5003, 4001, bias=False)
        self.last = nn.Linear(7, 3)


@exercise("Counting", count_parameters, ())
def counting(answer):
    proven = _counted(answer)
    with students_code("count_parameters takes another model"):
        came = answer(lambda: nn.Linear(5, 7))
    if not (isinstance(came, numbers.Number | torch.Tensor) and came == 42):
        likely = "right for one model alone: a number is written in, or kept from an earlier call"
        raise CheckFailed("42 parameters in nn.Linear(5, 7)", f"{came}"[:60], likely)
    return proven


def _counted(answer):
    devices = []

    def build():
        x = torch.empty(1)
        devices.append("meta" if isinstance(x, FakeTensor) else x.device.type)
        if devices[-1] == "meta":
            return _Probe()
        with patch.object(nn.Linear, "reset_parameters"):  # the wrong device: don't draw 20 million
            return _Probe()

    default = torch.empty(0).device.type
    with students_code("count_parameters takes a function that builds a model"):
        came = answer(build)
    after = torch.empty(0).device.type
    torch.set_default_device(None if default == "cpu" else default)
    with torch.device("meta"):
        right, mistakes = counts(_Probe())
    if not devices or set(devices) != {"meta"}:
        raise CheckFailed(
            "the model is built on the meta device, without memory for its parameters",
            f"built on {', '.join(devices)}" if devices else "not built: build() was not called",
            'call build() inside `with torch.device("meta"):`; moving the model there afterwards '
            "is too late",
        )
    _require_count(came, right, mistakes)
    if after != default:
        raise CheckFailed(
            f"afterwards new tensors are on {default} again",
            after,
            "torch.set_default_device lasts for ever; a `with` ends by itself",
        )
    return f"{right:,} in a model with frozen, shared and unlearned numbers, no memory used."


def _require_count(came, right, mistakes):
    call = f"{right:,} parameters in the model that `build` makes"
    if isinstance(came, torch.Tensor) and came.is_meta:
        likely = "numbers that are added as tensors inside the `with` have no contents either: add "
        likely += "up behind it, or plain numbers, `parameter.numel()`"
        raise CheckFailed(call, "a tensor on the meta device, which has no contents", likely)
    if came is None:
        raise CheckFailed(call, "None", "the function has no `return`")
    holds_one = isinstance(came, torch.Tensor) and came.numel() == 1
    # A NumPy number would be compared in its own precision
    value = came.item() if holds_one or isinstance(came, numpy.generic) else came
    if not isinstance(value, numbers.Number) or isinstance(value, bool):
        likely = "one plain number is asked for"
        if isinstance(came, nn.Module):
            likely = "that is the model; add up `parameter.numel()` of its parameters"
        raise CheckFailed(call, type(came).__name__, likely)
    if value != right:
        likely = mistakes.get(value, "")
        if not likely and abs(value - right) < 8:
            likely = "float32 has seven digits; add up whole numbers"
        raise CheckFailed(call, f"{value:,}", likely)
