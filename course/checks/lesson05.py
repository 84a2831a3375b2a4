"""Checks of lesson 5, the staged CoAtNet: `from course.checks import lesson05 as check`."""

from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

import coatnet
from coatnet import CoAtNetConfig, MBConv, RelativePositionBias, TransformerBlock, attention
from course.checking import CheckFailed, exercise, students_code
from course.comparing import compare

# What the given blocks complain about, and what that most likely means
COMPLAINTS = {
    "stride 1 keeps the channels": "only the first block of a stage changes the channels, and it "
    "has stride 2; all others go from out_channels to out_channels with stride 1",
    "ModuleList": "nn.ModuleList only holds layers; nn.Sequential also applies them in order",
    "gives a nn.Module": "a list of blocks is no module yet; nn.Sequential(*blocks) makes it one",
    "Dimension out of range": "`Head` takes the mean itself: give it the grid, [B, C, h, w]",
    "a bias table for": "grids become smaller from stage to stage: each halves height and width",
    "has no heads of 32 channels": "transformer blocks and MBConv are swapped: 'C' is MBConv",
}


@contextmanager
def _explained(look_at=""):
    """Adds what a block's own complaint means to a failure that has no likely mistake yet."""
    try:
        yield
    except CheckFailed as failure:
        rows = failure.rows
        text = f"{rows['came']} {rows['expected']}"
        rows["likely"] = next(
            (hint for part, hint in COMPLAINTS.items() if part in text), rows["likely"]
        )
        if look_at and "__init__" in str(rows["look at"]):
            rows["look at"] = look_at
        raise


@contextmanager
def small_grids(limit=4096):
    """Refuses bias tables for grids of more places: the index of a large one fills the memory."""
    make_index = attention.relative_position_index

    def checked(height, width, device=None):
        if height * width > limit:
            raise ValueError(f"a bias table for {height} x {width} places")
        return make_index(height, width, device)

    with patch.object(attention, "relative_position_index", checked):
        yield


def _turned_into(make):
    """An edit that puts `make()` in a module's place, with that module's weights if they fit."""

    def edit(module):
        wrong = make()
        weights = dict(zip(wrong.state_dict(), module.state_dict().values(), strict=False))
        if _shapes(wrong) == _shapes(module):
            wrong.load_state_dict(weights)
        module._modules = wrong._modules

    return edit


def _shapes(module):
    return [tensor.shape for tensor in module.state_dict().values()]


# Exercise 1


class PlainStem(nn.Sequential):
    """`coatnet.Stem` without BatchNorm folded into the convolution, for mistakes to be put in."""

    def __init__(self, in_channels, config):
        first, second = config.stem_widths
        super().__init__(
            nn.Conv2d(in_channels, first, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(first),
            nn.GELU(),
            nn.Conv2d(first, second, 3, padding=1, bias=False),
        )


PlainStem.__name__ = "Stem"  # as messages call it


def _stem_mistakes(in_channels, first, second):
    def strides(one, two):
        def edit(stem):
            stem[0].stride, stem[3].stride = (one, one), (two, two)

        return edit

    def paddings(one, two):
        def edit(stem):
            stem[0].padding, stem[3].padding = (one, one), (two, two)

        return edit

    def convolutions(*, c_in=in_channels, a=first, b=second, kernels=(3, 3), biases=(False, False)):
        def edit(stem):
            stem[0] = nn.Conv2d(c_in, a, kernels[0], stride=2, padding=1, bias=biases[0])
            stem[1] = nn.BatchNorm2d(a)
            stem[3] = nn.Conv2d(a, b, kernels[1], padding=1, bias=biases[1])

        return edit

    def put(index, layer):
        return lambda stem: stem.__setitem__(index, layer)

    def behind(*layers):
        return lambda stem: stem.extend(layers)

    def gelu_before_norm(stem):
        stem[1], stem[2] = stem[2], stem[1]

    def norm_last(stem):  # behind the second convolution instead of the first
        del stem[1:3]
        stem.extend([nn.BatchNorm2d(second), nn.GELU()])

    no_bias = "; what stands behind it shifts by itself: bias=False"
    extra = "the second convolution is the last layer"
    return [
        ("3 input channels are written in; use `in_channels`", convolutions(c_in=3)),
        ("the widths 64 are written in; use config.stem_widths", convolutions(a=64, b=64)),
        (
            "the two widths are swapped: config.stem_widths is (first, second)",
            convolutions(a=second, b=first),
        ),
        ("both convolutions have the first width", convolutions(b=first)),
        ("both convolutions have the second width", convolutions(a=second)),
        ("both convolutions have a bias" + no_bias, convolutions(biases=(True, True))),
        ("the first convolution has a bias" + no_bias, convolutions(biases=(True, False))),
        ("the second convolution has a bias" + no_bias, convolutions(biases=(False, True))),
        ("the second kernel is 1x1; make both 3x3", convolutions(kernels=(3, 1))),
        ("the first kernel is 1x1; make both 3x3", convolutions(kernels=(1, 3))),
        ("the kernels are 5x5; make them 3x3", convolutions(kernels=(5, 5))),
        ("the first kernel is 7x7; make both 3x3", convolutions(kernels=(7, 3))),
        ("BatchNorm and GELU stand behind the second convolution, not the first", norm_last),
        ("the BatchNorm after the first convolution is missing", put(1, nn.Identity())),
        (
            f"a norm and GELU follow the second convolution; {extra}",
            behind(nn.BatchNorm2d(second), nn.GELU()),
        ),
        (f"a norm follows the second convolution; {extra}", behind(nn.BatchNorm2d(second))),
        (f"GELU follows the second convolution; {extra}", behind(nn.GELU())),
        ("both convolutions have stride 2: the second has stride 1", strides(2, 2)),
        ("no convolution has a stride: the first has stride 2", strides(1, 1)),
        ("the strides are swapped: the first has 2, the second 1", strides(1, 2)),
        ("padding 0 loses the border; both convolutions need padding=1", paddings(0, 0)),
        ("the first convolution has padding 0; give it padding=1", paddings(0, 1)),
        ("the second convolution has padding 0; give it padding=1", paddings(1, 0)),
        ("the GELU between the convolutions is missing", put(2, nn.Identity())),
        ("ReLU instead of GELU", put(2, nn.ReLU())),
        ("SiLU instead of GELU", put(2, nn.SiLU())),
        ("GELU in its tanh approximation; use nn.GELU()", put(2, nn.GELU("tanh"))),
        ("GELU comes before BatchNorm; the order is Conv2d, BatchNorm2d, GELU", gelu_before_norm),
    ]


@exercise("The stem", coatnet.Stem, ["__init__", "forward"], required=["in_channels", "config"])
def stem(answer):
    sizes = {"in_channels": 2, "config": CoAtNetConfig(stem_widths=(5, 7))}
    with _brief(sizes):
        return compare(
            answer, PlainStem, torch.randn(3, 2, 9, 14), _stem_mistakes(2, 5, 7), **sizes
        )


@contextmanager
def _brief(arguments):
    """Shows a configuration in a message as `config`, instead of its 24 fields."""
    shown = repr(arguments["config"])
    try:
        with _explained():
            yield
    except CheckFailed as failure:
        for label, text in failure.rows.items():
            failure.rows[label] = str(text).replace(f"config={shown}", "config")
        raise


# Exercise 2


def make_stage(in_channels, out_channels, depth, kind, grid_size):
    """The reference of exercise 2: `depth` blocks, of which the first halves the image."""
    blocks = []
    for number in range(depth):
        c_in, stride = (in_channels, 2) if number == 0 else (out_channels, 1)
        blocks.append(_block(kind, c_in, out_channels, stride, grid_size))
    return nn.Sequential(*blocks)


def _block(kind, in_channels, out_channels, stride, grid_size):
    if kind == "C":
        return MBConv(in_channels, out_channels, stride)
    return TransformerBlock(in_channels, out_channels, grid_size, stride)


def _stage_mistakes(in_channels, out_channels, depth, kind, grid_size):
    height, width = grid_size

    def stage(**changes):
        right = {"in_channels": in_channels, "out_channels": out_channels, "depth": depth}
        right |= {"kind": kind, "grid_size": grid_size}
        return _turned_into(lambda: make_stage(**(right | changes)))

    def blocks(strides, channels=None):
        channels = channels or [in_channels] + [out_channels] * depth
        pairs = zip(channels, channels[1:], strides, strict=False)
        return _turned_into(
            lambda: nn.Sequential(*(_block(kind, a, b, s, grid_size) for a, b, s in pairs))
        )

    def one_for_all(stage):
        for number in range(2, depth):
            stage[number] = stage[1]

    mistakes = [
        ("one block too many: `depth` counts the first block too", stage(depth=depth + 1)),
        ("one block too few: the first block and depth - 1 others", stage(depth=depth - 1)),
        ("there is one block only; a stage has `depth` of them", stage(depth=1)),
    ]
    if depth > 2:
        mistakes.append(
            (
                "it is one and the same block several times, so that they share their weights: "
                "make a new one for each place",
                one_for_all,
            )
        )
    if kind == "C":
        mistakes.append(
            (
                "these are transformer blocks; kind 'C' asks for MBConv, 'T' for TransformerBlock",
                stage(kind="T"),
            )
        )
    else:
        mistakes += [
            (
                "these are MBConv blocks; kind 'T' asks for TransformerBlock, 'C' for MBConv",
                stage(kind="C"),
            ),
            (
                "grid_size is halved once too often: it already is what comes out of the stage",
                stage(grid_size=coatnet.halved(grid_size)),
            ),
            (
                "grid_size is doubled, as if it were for the stage's input; all blocks of the "
                "stage, the first too, attend on the grid that comes out",
                stage(grid_size=(2 * height, 2 * width)),
            ),
            (
                "`grid_size` is not used; TransformerBlock(in, out, grid_size, stride) needs it",
                stage(grid_size=(7, 7)),
            ),
            (
                "`grid_size` is not used; TransformerBlock(in, out, grid_size, stride) needs it",
                stage(grid_size=(14, 14)),
            ),
            ("grid_size is (height, width), not a square", stage(grid_size=(height, height))),
            ("grid_size is (height, width), not a square", stage(grid_size=(width, width))),
        ]
    if depth > 1:
        last = [in_channels] * depth + [out_channels]
        mistakes.append(
            (
                "stride 2 and the change of channels stand in the last block; they belong in the "
                "first, so that all others work on the small grid",
                blocks([1] * (depth - 1) + [2], last),
            )
        )
    if in_channels != out_channels:
        mistakes += [
            (
                "in_channels and out_channels are swapped",
                stage(in_channels=out_channels, out_channels=in_channels),
            ),
            (
                "the channels never change: the first block goes from in_channels to out_channels",
                stage(out_channels=in_channels),
            ),
            (
                "every block has stride 2 and starts from in_channels; only the first does",
                _turned_into(
                    lambda: nn.Sequential(
                        *(
                            _block(kind, in_channels, out_channels, 2, grid_size)
                            for _ in range(depth)
                        )
                    )
                ),
            ),
        ]
    else:
        mistakes.append(
            ("no block has stride 2; the first one halves the image", blocks([1] * depth))
        )
    if depth > 1:
        mistakes += [
            (
                "every block has stride 2; only the first halves the image",
                blocks([2] * depth),
            ),
            (
                "all blocks but the first have stride 2; it is the other way round",
                blocks([1] + [2] * (depth - 1), [in_channels] * 2 + [out_channels] * (depth - 1)),
            ),
        ]
    return mistakes


# in, out, depth, kind, image, grid: odd sizes, equal and different channels, not square
STAGES = [
    (5, 8, 3, "C", (9, 14), (5, 7)),
    (8, 8, 2, "C", (8, 7), (4, 4)),
    (5, 32, 3, "T", (9, 6), (5, 3)),
    (32, 32, 1, "T", (6, 8), (3, 4)),
]


@exercise("A stage", make_stage, ())
def stage(answer):
    for c_in, c_out, depth, kind, image, grid in STAGES:
        with _explained(look_at="make_stage"), small_grids():
            with students_code("a stage can be built"):
                _require_height_before_width(answer(c_in, c_out, depth, kind, grid), grid, kind)
            compare(
                answer,
                make_stage,
                torch.randn(2, c_in, *image),
                _stage_mistakes(c_in, c_out, depth, kind, grid),
                in_channels=c_in,
                out_channels=c_out,
                depth=depth,
                kind=kind,
                grid_size=grid,
            )
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


# Exercise 3

TINY = CoAtNetConfig(depths=(1, 3, 2, 1), widths=(32, 64, 32, 96), stem_widths=(4, 5))
IMAGES = [(56, (56, 56)), (56, (90, 60)), (72, (33, 47))]  # built for, and given


def _model_mistakes(num_classes, image_size):
    def model(config=TINY, classes=num_classes, size=image_size):
        return _turned_into(lambda: coatnet.CoAtNet(config, classes, size))

    def config(**changes):
        return model(replace(TINY, **changes))

    def only_shapes(make):  # on no device, since some of these models are large
        def edit(m):
            with torch.device("meta"):
                m._modules = make()._modules

        return edit

    def stages(
        channels=(TINY.stem_widths[-1], *TINY.widths[:-1]),
        sides=(14, 7, 4, 2),
        head=TINY.widths[-1],
    ):
        grids = [(side, side) for side in sides]
        columns = channels, TINY.widths, TINY.depths, TINY.block_types, grids

        def make():
            wrong = coatnet.CoAtNet(TINY, num_classes, image_size)
            wrong.stages = nn.ModuleList(make_stage(*row) for row in zip(*columns, strict=True))
            wrong.head = coatnet.Head(head, num_classes)
            return wrong

        return only_shapes(make)

    def grids(half, *halvings):
        side, sides = image_size, []
        for times in halvings:
            for _ in range(times):
                side = half(side)
            sides.append(side)
        return stages(sides=sides)

    def up(side):
        return -(-side // 2)

    def down(side):
        return side // 2

    def without_last_stage(m):
        m.stages[3] = nn.Identity()
        m.head = coatnet.Head(TINY.widths[2], num_classes)

    def in_a_plain_list(m):
        m.stages = nn.ModuleList()

    def with_module(module):
        return lambda m: m.add_module("extra", module)

    def with_cls_token(width):
        return lambda m: m.register_parameter("extra", nn.Parameter(torch.zeros(1, 1, width)))

    def head(forward):
        def edit(m):
            h = m.head
            h.forward = lambda x: forward(h, x)

        return edit

    def pooled(pool):
        def forward(h, x):
            means = pool(x)[:, :, None, None]
            return h.classifier(torch.tanh(h.hidden(h.norm(means).flatten(1))))

        return head(forward)

    def activated(activation):
        def forward(h, x):
            means = x.mean(dim=(2, 3), keepdim=True)
            return h.classifier(activation(h.hidden(h.norm(means).flatten(1))))

        return head(forward)

    def norm_first(h, x):
        return h.classifier(torch.tanh(h.hidden(h.norm(x).mean(dim=(2, 3)))))

    def behind_stem(function):
        def edit(m):
            forward = m.stem.forward
            m.stem.forward = lambda x: function(forward(x))

        return edit

    def softmax_last(m):
        forward = m.head.forward
        m.head.forward = lambda x: forward(x).softmax(dim=1)

    def without(name):
        return lambda m: setattr(m.head, name, nn.Identity())

    def linear_head(norm):
        def edit(m):
            m.head.hidden = nn.Identity()
            m.head.norm = norm

        return edit

    first, second = TINY.stem_widths
    last = TINY.widths[-1]
    kinds = "the kinds of block are not those of config.block_types"
    in_order = "S1 comes first in each field of the config"
    no_token = "a CLS token is left over from the ViT; here the mean over the grid is read out"
    given_head = "`Head` is a mean over the grid, LayerNorm, Linear, tanh, Linear"
    too_large = (
        "the grids of the bias tables are twice too large: the stem halves the image too, and "
        "grid_size is what comes out of a stage"
    )
    return [
        ("1000 classes are written in; use `num_classes`", model(classes=1000)),
        (
            "the sizes of CoAtNet-0 are written in; use `config`",
            only_shapes(lambda: coatnet.CoAtNet(CoAtNetConfig(), num_classes, image_size)),
        ),
        (
            "224 pixels are written in, or the default; pass on `image_size`",
            only_shapes(lambda: coatnet.CoAtNet(TINY, num_classes, 224)),
        ),
        (
            "the last stage is missing, which makes three stages and ends at stride 16; S1 to S4 "
            "are four",
            without_last_stage,
        ),
        (
            "the stages stand in a plain list, where PyTorch does not find their parameters; use "
            "nn.ModuleList or nn.Sequential",
            in_a_plain_list,
        ),
        *((no_token, with_cls_token(width)) for width in (last, first, second)),
        *(
            (f"a norm too many: {given_head}, and that is all behind S4", with_module(norm))
            for norm in (nn.LayerNorm(last), nn.LayerNorm(second))
        ),
        (
            "transformer blocks come before MBConv; convolution first: config.block_types is in "
            "the order S1, S2, S3, S4",
            config(block_types=TINY.block_types[::-1]),
        ),
        (f"{kinds}: all stages are MBConv", config(block_types=("C",) * 4)),
        (f"{kinds}: all stages are transformer blocks", config(block_types=("T",) * 4)),
        (f"{kinds}: S2 is a transformer too", config(block_types=("C", "T", "T", "T"))),
        (f"{kinds}: S3 is MBConv too", config(block_types=("C", "C", "C", "T"))),
        (
            f"depths and widths are read from the end; {in_order}",
            config(depths=TINY.depths[::-1], widths=TINY.widths[::-1]),
        ),
        (f"the depths are read from the end; {in_order}", config(depths=TINY.depths[::-1])),
        (f"the widths are read from the end; {in_order}", config(widths=TINY.widths[::-1])),
        ("every stage has one block only; use config.depths", config(depths=(1,) * 4)),
        (
            "every stage has a block too many; its depth counts the strided one",
            config(depths=tuple(depth + 1 for depth in TINY.depths)),
        ),
        (
            "every stage starts from the stem's channels; after a stage, the next one starts from "
            "its width",
            stages(channels=(second,) * 4),
        ),
        (
            "every stage starts from the stem's channels, and the head too: pass the width on, "
            "channels = width",
            stages(channels=(second,) * 4, head=second),
        ),
        (
            "every stage starts from its own width; it starts from the stage before it, S1 from "
            "the stem",
            stages(channels=TINY.widths),
        ),
        (
            "S1 starts from the stem's first width; what comes out has config.stem_widths[-1]",
            stages(channels=(first, *TINY.widths[:-1])),
        ),
        (too_large, grids(up, 1, 1, 1, 1)),
        (too_large, grids(down, 1, 1, 1, 1)),
        (
            "the grids are rounded down; convolutions of stride 2 round up: 7 -> 4 -> 2",
            grids(down, 2, 1, 1, 1),
        ),
        ("the grids are halved once too often", grids(up, 3, 1, 1, 1)),
        ("the grids are halved once too often", grids(down, 3, 1, 1, 1)),
        ("all stages have the grid of S1; it is halved for every stage", grids(up, 2, 0, 0, 0)),
        (
            "grid_size is the image's size for all stages; it is halved by the stem and by every "
            "stage",
            grids(up, 0, 0, 0, 0),
        ),
        (
            "grid_size is halved for the stem, and then no more; every stage halves it",
            grids(up, 1, 0, 0, 0),
        ),
        (f"the head has no hidden layer; {given_head}", without("hidden")),
        (f"the head has neither norm nor hidden layer; {given_head}", linear_head(nn.Identity())),
        (f"the head has no norm; {given_head}", without("norm")),
        (f"the head has no tanh; {given_head}", activated(lambda x: x)),
        (f"GELU in the head; {given_head}", activated(nn.functional.gelu)),
        (f"ReLU in the head; {given_head}", activated(torch.relu)),
        (f"the norm comes before the mean; {given_head}", head(norm_first)),
        ("max pooling in the head; it takes the mean", pooled(lambda x: x.amax(dim=(2, 3)))),
        ("a sum in the head; it takes the mean", pooled(lambda x: x.sum(dim=(2, 3)))),
        (
            "the head reads the first token, as if it were a CLS token; it takes the mean",
            pooled(lambda x: x[:, :, 0, 0]),
        ),
        ("GELU follows the stem; S1 begins with a norm itself", behind_stem(nn.functional.gelu)),
        ("ReLU follows the stem; S1 begins with a norm itself", behind_stem(torch.relu)),
        ("a softmax at the end; the loss takes logits as they are", softmax_last),
    ]


@exercise("CoAtNet", coatnet.CoAtNet, ["__init__", "forward"], builds_on=[coatnet.Stem, make_stage])
def coatnet_staged(answer):
    for side, image in IMAGES:
        sizes = {"config": TINY, "num_classes": 6, "image_size": side}
        images = torch.randn(3, 3, *image)
        with _brief(sizes), small_grids():
            proven = compare(answer, coatnet.CoAtNet, images, _model_mistakes(6, side), **sizes)
            _require_parts(answer, images, sizes)
    return "images of 56 x 56, 90 x 60 and 33 x 47 pixels; " + proven


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
    for number in range(6):
        right = paper_config(number)
        call = f"paper_config({number})"
        with students_code(f"{call} gives a CoAtNetConfig"):
            came = answer(number)
        if not isinstance(came, CoAtNetConfig):
            likely = "write `return CoAtNetConfig(...)`"
            raise CheckFailed(f"{call} gives a CoAtNetConfig", type(came).__name__, likely)
        for field in TABLE_FIELDS:
            expected, got = tuple(getattr(right, field)), getattr(came, field)
            if not isinstance(got, tuple | list) or tuple(got) != expected:
                likely = _family_mistake(field, got, number, right)
                raise CheckFailed(f"{call}.{field} = {expected}", got, likely)
        others = replace(came, **{name: getattr(right, name) for name in TABLE_FIELDS})
        if others != right:
            raise CheckFailed(f"{call} leaves all other fields at their defaults", came)
    return "stem, depths, widths and kinds of CoAtNet-0 to -5 as in table 3."


def _family_mistake(field, got, number, right):
    if not isinstance(got, tuple | list):
        return "a tuple is asked for: one entry a stage, and for stem_widths one a convolution"
    got = tuple(got)
    stem = right.stem_widths[0]
    if field == "stem_widths":
        if len(got) == 1:
            return "S0 has two convolutions, both of the width D of S0: an entry for each"
        if got == (right.widths[0],) * 2:
            return "that is the D of S1; the stem's two widths are both the D of S0"
        if got == (3, stem):
            return "the 3 colours are not a width of the stem: its two convolutions are D wide"
        if got == (stem, right.widths[0]):
            return "both widths are the D of S0; S1's first block makes the step to its own"
        if got == (stem // 2, stem):
            return "both convolutions have the full width in table 3, not half of it first"
        if got == (2, stem):
            return "2 is the number L of S0's convolutions, not a width"
    if len(got) == 5:
        what = "depths" if field == "depths" else "widths"
        return f"these are S0 to S4; {field} are those of S1 to S4, S0 has `stem_widths`" + (
            "" if what == "widths" else ", and two convolutions always"
        )
    if field in ("depths", "widths"):
        other = "widths" if field == "depths" else "depths"
        if got == tuple(getattr(right, other)):
            return "depths and widths are swapped: L are the depths, D the widths"
        if got == tuple(getattr(right, field))[::-1]:
            return "that is S4 to S1; the order is S1 to S4"
        if field == "depths" and got == (2, *right.depths[:3]):
            return "that is S0 to S3: the first entry is S1's"
        if field == "widths" and got == (stem, *right.widths[:3]):
            return "that is S0 to S3: the first entry is S1's"
        same = [n for n in range(6) if tuple(getattr(paper_config(n), field)) == got]
        if same:
            return f"these are the {field} of CoAtNet-{same[0]}: a row of the table too high or low"
        if field == "widths" and got == tuple(right.widths[0] * 2**i for i in range(4)):
            return f"the widths double from stage to stage in most models, not in CoAtNet-{number}"
    if field == "block_types":
        return "the paper's choice is C-C-T-T, which is the field's default: leave it out"
    return ""


# Exercise 5


def count_parameters(build):
    """The reference of exercise 5: how many parameters `build()` has, without their memory."""
    with torch.device("meta"):
        model = build()
    return sum(parameter.numel() for parameter in model.parameters())


class _Probe(nn.Module):
    """A model with what is easily counted wrong: buffers, frozen and shared parameters."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(5, 7)  # 42
        self.norm = nn.BatchNorm1d(7)  # 14, and 15 numbers in three buffers
        self.frozen = nn.Linear(7, 5, bias=False).requires_grad_(False)  # 35
        self.shared = nn.Linear(5, 7, bias=False)  # the same 35 as first.weight
        self.shared.weight = self.first.weight
        self.scale = nn.Parameter(torch.ones(()))  # 1


@exercise("Counting", count_parameters, ())
def counting(answer):
    devices = []

    def build():
        x = torch.empty(1)
        devices.append("meta" if isinstance(x, FakeTensor) else x.device.type)
        return _Probe()

    default = torch.empty(0).device.type
    with students_code("count_parameters takes a function that builds a model"):
        came = answer(build)
    after = torch.empty(0).device.type
    torch.set_default_device(None if default == "cpu" else default)
    model = _Probe()
    named = dict(model.named_parameters())
    likely = {
        sum(v.numel() for v in model.state_dict().values()): "buffers are counted, and shared "
        "parameters twice: state_dict() holds all that is saved, parameters() what is learned",
        sum(p.numel() for p in named.values() if p.requires_grad): "frozen parameters are left "
        "out; they are parameters too",
        len(named): "that is the number of tensors; each has `.numel()` numbers",
        sum(p.numel() for p in named.values()) + 15: "buffers such as BatchNorm's running "
        "statistics are counted; they are not parameters",
        15: "these are the buffers",
        sum(p.numel() for p in named.values()) + 35: "a parameter that two layers share is counted "
        "twice; model.parameters() yields it once",
        sum(len(p) if p.ndim else 1 for p in named.values()): "`len` is a tensor's first length "
        "alone; `.numel()` counts its numbers",
        sum(p.numel() for p in named.values() if p.ndim > 1): "biases and norms are left out",
        1: "that is the model's own parameters, without those of its parts: parameters() looks "
        "into all of them unless recurse=False",
    }
    right = sum(p.numel() for p in named.values())
    call = f"{right} parameters in a small model"
    if came is None:
        raise CheckFailed(call, "None", "the function has no `return`")
    value = came.item() if isinstance(came, torch.Tensor) and came.numel() == 1 else came
    if not isinstance(value, int | float):
        raise CheckFailed(call, f"{type(came).__name__}: {came}", "return one number")
    if value != right:
        units = {right / 1e6, right / 1e3, right // 1e6, round(right / 1e6), round(right / 1e6, 2)}
        if isinstance(value, float) or value in units:
            hint = "wrong unit: return the plain number, not thousands, millions or bytes"
        elif value == 4 * right:
            hint = "that is bytes, 4 for each number; return the number of parameters"
        else:
            hint = likely.get(value, "")
        raise CheckFailed(call, value, hint)
    if not devices or set(devices) != {"meta"}:
        raise CheckFailed(
            "the model is built on the meta device, without memory for its parameters",
            f"built on {', '.join(devices) or 'nothing'}",
            'call build() inside `with torch.device("meta"):`; moving the model there afterwards '
            "is too late",
        )
    if after != default:
        raise CheckFailed(
            f"afterwards new tensors are on {default} again",
            after,
            "torch.set_default_device lasts for ever; a `with` ends by itself",
        )
    return f"{right} in a small model with frozen, shared and unlearned numbers, no memory used."
