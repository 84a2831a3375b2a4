"""Typical mistakes in the exercises of lesson 5: (hint, an edit that puts it into the reference).

Sizes of their own make each mistake show.
"""

from dataclasses import replace
from unittest.mock import patch

import torch
from torch import nn

import coatnet
from coatnet import CoAtNetConfig, MBConv, TransformerBlock, attention
from course.comparing import Instead

# What the given blocks complain about, and what that most likely means
COMPLAINTS = {
    "stride 1 keeps the channels": "only the first block of a stage changes the channels, and it "
    "has stride 2; all others go from out_channels to out_channels with stride 1",
    "ModuleList": "nn.ModuleList only holds layers; nn.Sequential also applies them in order",
    "gives a nn.Module": "a list of blocks is no module yet; nn.Sequential(*blocks) makes it one",
    "Dimension out of range": "`Head` takes the mean itself: give it the grid, [B, C, h, w]",
    "division by zero": "a block less than 4 channels wide: are the arguments in order?",
    "cannot be interpreted as an integer": "arguments in another order than make_stage takes them: "
    "in_channels, out_channels, depth, kind, grid_size",
    "not all arguments converted": "arguments in another order than make_stage takes them: "
    "in_channels, out_channels, depth, kind, grid_size",
    "expected 2, got 1": "grid_size is a pair, (height, width)",
    "'int' object is not iterable": "grid_size is a pair, (height, width)",
    "a bias table for": "grids become smaller from stage to stage: each halves height and width",
    "has no heads of 32 channels": "transformer blocks and MBConv are swapped: 'C' is MBConv",
}


def turned_into(make):
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
    """`coatnet.Stem` layer by layer, for mistakes to be put in."""

    def __init__(self, in_channels, config):
        first, second = config.stem_widths
        super().__init__(
            nn.Conv2d(in_channels, first, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(first),
            nn.GELU(),
            nn.Conv2d(first, second, 3, padding=1, bias=False),
        )


PlainStem.__name__ = "Stem"  # as messages call it


def stem_mistakes(in_channels, config):
    first, second = config.stem_widths
    return [*_stem_shapes(in_channels, first, second), *_stem_values(second)]


def _stem_shapes(in_channels, first, second):
    def convolutions(*, c_in=in_channels, a=first, b=second, kernels=(3, 3), biases=(False, False)):
        def edit(stem):
            stem[0] = nn.Conv2d(c_in, a, kernels[0], stride=2, padding=1, bias=biases[0])
            stem[1] = nn.BatchNorm2d(a)
            stem[3] = nn.Conv2d(a, b, kernels[1], padding=1, bias=biases[1])

        return edit

    def without(*indices):
        def edit(stem):
            for index in sorted(indices, reverse=True):
                del stem[index]

        return edit

    def norms_last(*kept):  # behind the second convolution instead of the first
        def edit(stem):
            del stem[1:3]
            stem.extend([nn.BatchNorm2d(second), *kept])

        return edit

    def behind(*layers):
        return lambda stem: stem.extend(layers)

    def no_conv(index, *rest):
        def edit(stem):
            del stem[index]
            for other in rest:
                del stem[other]

        return edit

    no_bias = "; what stands behind it shifts by itself: bias=False"
    extra = "the second convolution is the last layer"
    wide = "the widths 64 are written in; use config.stem_widths"
    return [
        ("3 input channels are written in; use `in_channels`", convolutions(c_in=3)),
        (wide, convolutions(a=64, b=64)),
        (
            "the two widths are swapped: config.stem_widths is (first, second)",
            convolutions(a=second, b=first),
        ),
        ("both convolutions have the first width", convolutions(b=first)),
        ("both convolutions have the second width", convolutions(a=second)),
        ("both convolutions have a bias" + no_bias, convolutions(biases=(True, True))),
        ("the first convolution has a bias" + no_bias, convolutions(biases=(True, False))),
        ("the second convolution has a bias" + no_bias, convolutions(biases=(False, True))),
        *(
            (f"the kernels are {a}x{a} and {b}x{b}; make both 3x3", convolutions(kernels=(a, b)))
            for a in (1, 2, 3, 4, 5, 7)
            for b in (1, 2, 3, 4, 5, 7)
            if (a, b) != (3, 3)
        ),
        ("BatchNorm and GELU stand behind the second convolution, not the first", norms_last()),
        ("the BatchNorm after the first convolution is missing", without(1)),
        ("BatchNorm and GELU after the first convolution are missing", without(1, 2)),
        ("the second convolution is missing: first -> second, 3x3, stride 1", without(3)),
        ("the first convolution is missing: in_channels -> first, 3x3, stride 2", without(0)),
        ("BatchNorm stands in front of the first convolution; it follows it", _norm_first),
        (f"a norm follows the second convolution; {extra}", behind(nn.BatchNorm2d(second))),
        (
            f"a norm and GELU follow the second convolution; {extra}",
            behind(nn.BatchNorm2d(second), nn.GELU()),
        ),
    ]


def _norm_first(stem):
    del stem[1]
    stem.insert(0, nn.BatchNorm2d(stem[0].in_channels))


def _stem_values(second):
    def strides(one, two):
        def edit(stem):
            stem[0].stride, stem[3].stride = (one, one), (two, two)

        return edit

    def paddings(one, two):
        def edit(stem):
            stem[0].padding, stem[3].padding = (one, one), (two, two)

        return edit

    def put(index, layer):
        return lambda stem: stem.__setitem__(index, layer)

    def gelu_before_norm(stem):
        stem[1], stem[2] = stem[2], stem[1]

    def gelu_last(stem):
        del stem[2]
        stem.append(nn.GELU())

    extra = "the second convolution is the last layer"
    return [
        (f"GELU follows the second convolution; {extra}", lambda stem: stem.append(nn.GELU())),
        (f"GELU follows the second convolution, not the first; {extra}", gelu_last),
        ("both convolutions have stride 2: the second has stride 1", strides(2, 2)),
        ("no convolution has a stride: the first has stride 2", strides(1, 1)),
        ("the strides are swapped: the first has 2, the second 1", strides(1, 2)),
        ("the first convolution has stride 3; it halves the image, stride=2", strides(3, 1)),
        ("the first convolution has stride 4; it halves the image, stride=2", strides(4, 1)),
        ("padding 0 loses the border; both convolutions need padding=1", paddings(0, 0)),
        ("the first convolution has padding 0; give it padding=1", paddings(0, 1)),
        ("the second convolution has padding 0; give it padding=1", paddings(1, 0)),
        ("padding 2 adds more than a 3x3 kernel loses; make both 1", paddings(2, 2)),
        ("the first convolution has padding 2; give it padding=1", paddings(2, 1)),
        ("the second convolution has padding 2; give it padding=1", paddings(1, 2)),
        ("the GELU between the convolutions is missing", put(2, nn.Identity())),
        ("ReLU instead of GELU", put(2, nn.ReLU())),
        ("SiLU instead of GELU", put(2, nn.SiLU())),
        ("GELU in its tanh approximation; use nn.GELU()", put(2, nn.GELU("tanh"))),
        ("GELU comes before BatchNorm; the order is Conv2d, BatchNorm2d, GELU", gelu_before_norm),
    ]


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


def stage_mistakes(in_channels, out_channels, depth, kind, grid_size):
    right = {"in_channels": in_channels, "out_channels": out_channels, "depth": depth}
    right |= {"kind": kind, "grid_size": grid_size}

    def stage(**changes):
        return turned_into(lambda: make_stage(**(right | changes)))

    mistakes = [
        ("one block too many: `depth` counts the first block too", stage(depth=depth + 1)),
        ("one block too few: the first block and depth - 1 others", stage(depth=depth - 1)),
        ("there is one block only; a stage has `depth` of them", stage(depth=1)),
    ]
    if kind == "C":
        mistakes.append(
            (
                "these are transformer blocks; kind 'C' asks for MBConv, 'T' for TransformerBlock",
                stage(kind="T"),
            )
        )
    else:
        mistakes += _grid_mistakes(right)
    return mistakes + _row_mistakes(right)


def _grid_mistakes(right):
    """Of stages of transformer blocks: the grid that they are made for."""
    height, width = right["grid_size"]
    doubled = 2 * height, 2 * width
    unused = "`grid_size` is not used; TransformerBlock(in, out, grid_size, stride) needs it"
    square = "grid_size is (height, width), not a square"

    def stage(**changes):
        return turned_into(lambda: make_stage(**(right | changes)))

    def first_alone(grid_size):
        def make():
            stage = make_stage(**right)
            c_in, c_out = right["in_channels"], right["out_channels"]
            stage[0] = TransformerBlock(c_in, c_out, grid_size, 2)
            return stage

        return turned_into(make)

    return [
        (
            "these are MBConv blocks; kind 'T' asks for TransformerBlock, 'C' for MBConv",
            stage(kind="C"),
        ),
        (
            "grid_size is halved once too often: it already is what comes out of the stage",
            stage(grid_size=coatnet.halved((height, width))),
        ),
        (
            "grid_size is doubled, as if it were for the stage's input; all blocks of the "
            "stage, the first too, attend on the grid that comes out",
            stage(grid_size=doubled),
        ),
        (
            "grid_size is doubled for the first block; it pools first and attends then, so that it "
            "needs the grid that comes out, as the others do",
            first_alone(doubled),
        ),
        (unused, stage(grid_size=(7, 7))),
        (unused, stage(grid_size=(14, 14))),
        (square, stage(grid_size=(height, height))),
        (square, stage(grid_size=(width, width))),
    ]


def _row_mistakes(right):
    """Which block has the stride, and which changes the channels."""
    c_in, c_out, depth = right["in_channels"], right["out_channels"], right["depth"]

    def blocks(strides, channels=None):
        channels = channels or [c_in] + [c_out] * depth
        pairs = list(zip(channels, channels[1:], strides, strict=False))
        kind, grid = right["kind"], right["grid_size"]
        return turned_into(lambda: nn.Sequential(*(_block(kind, *pair, grid) for pair in pairs)))

    def stage(**changes):
        return turned_into(lambda: make_stage(**(right | changes)))

    def apart():
        kind, grid = right["kind"], right["grid_size"]
        return nn.Sequential(*(_block(kind, c_in, c_out, 2, grid) for _ in range(depth)))

    mistakes = []
    if depth > 1:
        mistakes += [
            (
                "stride 2 and the change of channels stand in the last block; they belong in the "
                "first, so that all others work on the small grid",
                blocks([1] * (depth - 1) + [2], [c_in] * depth + [c_out]),
            ),
            (
                "every block has stride 2; only the first halves the image",
                blocks([2] * depth),
            ),
        ]
    if c_in == c_out:
        mistakes += [
            (
                "no block has stride 2; the first one always halves the image, also where the "
                "channels stay the same",
                blocks([1] * depth),
            ),
            (
                "the first block has stride 1 and the others 2; it is the other way round",
                blocks([1] + [2] * (depth - 1)),
            ),
        ]
        return mistakes
    mistakes += [
        (
            "in_channels and out_channels are swapped",
            stage(in_channels=c_out, out_channels=c_in),
        ),
        (
            "the channels never change: the first block goes from in_channels to out_channels",
            stage(out_channels=c_in),
        ),
        (
            "the first block starts from out_channels; it starts from in_channels",
            stage(in_channels=c_out),
        ),
        (
            "every block has stride 2 and starts from in_channels; only the first does",
            turned_into(apart),
        ),
        (
            "the condition for the first block is the wrong way round: it has in_channels and "
            "stride 2, all others out_channels and stride 1",
            turned_into(lambda: _reversed_condition(right)),
        ),
    ]
    return mistakes


def _reversed_condition(right):
    c_in, c_out, kind = right["in_channels"], right["out_channels"], right["kind"]
    rows = [(c_out, 1)] + [(c_in, 2)] * (right["depth"] - 1)
    return nn.Sequential(
        *(_block(kind, c, c_out, stride, right["grid_size"]) for c, stride in rows)
    )


# Exercise 3


def model_mistakes(config, num_classes, image_size):
    right = config, num_classes, image_size
    return [
        *_plan_mistakes(*right),
        *_channel_mistakes(*right),
        *_grid_mistakes_of_models(*right),
        *_extra_layers(*right),
        *_head_mistakes(),
    ]


def _model(*arguments):
    return Instead(lambda: coatnet.CoAtNet(*arguments))


def _plan_mistakes(config, num_classes, image_size):
    """What is read from the configuration, and what is written in."""
    kinds = "the kinds of block are not those of config.block_types"
    in_order = "S1 comes first in each field of the config"

    def other(**changes):
        return _model(replace(config, **changes), num_classes, image_size)

    layouts = {
        "all stages are MBConv": ("C",) * 4,
        "all stages are transformer blocks": ("T",) * 4,
        "C-C-T-T is written in": ("C", "C", "T", "T"),
        "C-T-T-T is written in": ("C", "T", "T", "T"),
        "C-C-C-T is written in": ("C", "C", "C", "T"),
    }
    reverse = config.block_types[::-1]
    return [
        ("1000 classes are written in; use `num_classes`", _model(config, 1000, image_size)),
        (
            "the sizes of CoAtNet-0 are written in; use `config`",
            _model(CoAtNetConfig(), num_classes, image_size),
        ),
        (
            "224 pixels are written in, or the default; pass on `image_size`",
            _model(config, num_classes, 224),
        ),
        (
            "the stem is made with another config, or with none; Stem(3, config)",
            _with_stem(config, num_classes, image_size, 3, CoAtNetConfig()),
        ),
        *(
            (
                "the images have 3 channels: Stem(3, config)",
                _with_stem(config, num_classes, image_size, channels, config),
            )
            for channels in (1, 2, 4, config.stem_widths[0], config.stem_widths[1])
        ),
        (
            "transformer blocks come before MBConv; convolution first: config.block_types is in "
            "the order S1, S2, S3, S4",
            other(block_types=reverse),
        ),
        *(
            (f"{kinds}: {what}", other(block_types=types))
            for what, types in layouts.items()
            if types not in (config.block_types, reverse)
        ),
        (
            f"depths and widths are read from the end; {in_order}",
            other(depths=config.depths[::-1], widths=config.widths[::-1]),
        ),
        (f"the depths are read from the end; {in_order}", other(depths=config.depths[::-1])),
        (f"the widths are read from the end; {in_order}", other(widths=config.widths[::-1])),
        ("every stage has one block only; use config.depths", other(depths=(1,) * 4)),
        (
            "every stage has a block too many; its depth counts the strided one",
            other(depths=tuple(depth + 1 for depth in config.depths)),
        ),
    ]


def _with_stem(config, num_classes, image_size, in_channels, other):
    def make():
        model = coatnet.CoAtNet(config, num_classes, image_size)
        model.stem = coatnet.Stem(in_channels, other)
        return model

    return Instead(make)


def _stages(config, num_classes, image_size, channels=None, sides=None, head=None):
    """A model whose stages start from those channels, on grids of those sides."""
    channels = channels or (config.stem_widths[-1], *config.widths[:-1])
    sides = sides or _sides(image_size, _up, 2, 1, 1, 1)

    def make():
        wrong = coatnet.CoAtNet(config, num_classes, image_size)
        rows = zip(channels, config.widths, config.depths, config.block_types, sides, strict=True)
        with patch.object(attention, "relative_position_index", _no_index):
            wrong.stages = nn.ModuleList(make_stage(*row, (side, side)) for *row, side in rows)
        wrong.head = coatnet.Head(head or config.widths[-1], num_classes)
        return wrong

    return Instead(make)


def _no_index(height, width, device=None):
    """That of a large grid, needed for values alone, would fill the memory."""
    return torch.empty(0, dtype=torch.long)


def _channel_mistakes(*right):
    config = right[0]
    first, second = config.stem_widths
    narrow = (second, *config.widths[:-1])
    added = [second]
    for width in config.widths:
        added.append(added[-1] + width)
    return [
        (
            "every stage starts from the stem's channels; after a stage, the next one starts from "
            "its width",
            _stages(*right, channels=(second,) * 4),
        ),
        (
            "every stage starts from the stem's channels, and the head too: pass the width on, "
            "channels = width",
            _stages(*right, channels=(second,) * 4, head=second),
        ),
        (
            "every stage starts from its own width; it starts from the stage before it, S1 from "
            "the stem",
            _stages(*right, channels=config.widths),
        ),
        (
            "S1 starts from the stem's first width; what comes out has config.stem_widths[-1]",
            _stages(*right, channels=(first, *narrow[1:])),
        ),
        (
            "S1 starts from the image's 3 channels; it starts from what the stem puts out, "
            "config.stem_widths[-1]",
            _stages(*right, channels=(3, *narrow[1:])),
        ),
        (
            "the widths are added up; the next stage starts from the width alone, channels = width",
            _stages(*right, channels=added[:-1], head=added[-1]),
        ),
        ("channels and classes are swapped: Head(channels, num_classes)", _swapped_head(*right)),
    ]


def _swapped_head(config, num_classes, image_size):
    def make():
        model = coatnet.CoAtNet(config, num_classes, image_size)
        model.head = coatnet.Head(num_classes, config.widths[-1])
        return model

    return Instead(make)


def _up(side):
    return -(-side // 2)


def _down(side):
    return side // 2


def _round(side):
    return round(side / 2)


def _sides(side, half, *halvings):
    sides = []
    for times in halvings:
        for _ in range(times):
            side = half(side)
        sides.append(side)
    return tuple(sides)


def _grid_mistakes_of_models(config, num_classes, image_size):
    right = _sides(image_size, _up, 2, 1, 1, 1)
    too_large = (
        "the grids of the bias tables are twice too large: the stem halves the image too, and "
        "grid_size is what comes out of a stage"
    )
    once_more = "the grids are halved once too often"
    table = [
        (too_large, _sides(image_size, _up, 1, 1, 1, 1)),
        (too_large, _sides(image_size, _down, 1, 1, 1, 1)),
        (
            "the grids are rounded down; convolutions of stride 2 round up: 7 -> 4 -> 2",
            _sides(image_size, _down, 2, 1, 1, 1),
        ),
        (
            "rounded to the nearest even number, as Python's round does; convolutions of stride 2 "
            "round up: math.ceil",
            _sides(image_size, _round, 2, 1, 1, 1),
        ),
        (
            "the stem's half is rounded down; convolutions of stride 2 round up: "
            "math.ceil(image_size / 2)",
            _sides(_down(image_size), _up, 1, 1, 1, 1),
        ),
        (once_more, _sides(image_size, _up, 3, 1, 1, 1)),
        (once_more, _sides(image_size, _down, 3, 1, 1, 1)),
        (
            "all stages have the grid of S1; it is halved for every stage",
            _sides(image_size, _up, 2, 0, 0, 0),
        ),
        (
            "grid_size is the image's size for all stages; it is halved by the stem and by every "
            "stage",
            (image_size,) * 4,
        ),
        (
            "grid_size is halved for the stem, and then no more; every stage halves it",
            (_up(image_size),) * 4,
        ),
    ]
    seen = [right]
    found = []
    for hint, sides in table:
        if sides not in seen and min(sides) > 0:  # at these sizes it shows
            seen.append(sides)
            found.append((hint, _stages(config, num_classes, image_size, sides=sides)))
    return found


def _extra_layers(config, num_classes, image_size):
    """What is missing behind the stages, or left over."""
    first, second = config.stem_widths
    last = config.widths[-1]
    no_token = "a CLS token is left over from the ViT; here the mean over the grid is read out"
    given_head = "`Head` is a mean over the grid, LayerNorm, Linear, tanh, Linear"

    def without_last_stage(m):
        m.stages[3] = nn.Identity()
        m.head = coatnet.Head(config.widths[2], num_classes)

    def without_last_stage_alone(m):
        m.stages[3] = nn.Identity()

    def missing(name):
        return lambda m: setattr(m, name, nn.Identity())

    def with_module(make):
        return lambda m: m.add_module("extra", make())

    def with_cls_token(width):
        return lambda m: m.register_parameter("extra", nn.Parameter(torch.zeros(1, 1, width)))

    return [
        (
            "the last stage is missing, which makes three stages and ends at stride 16; S1 to S4 "
            "are four",
            without_last_stage,
        ),
        (
            "the last stage is missing: all four go into self.stages",
            without_last_stage_alone,
        ),
        (
            "the stages stand in a plain list, where PyTorch does not find their parameters; use "
            "nn.ModuleList or nn.Sequential",
            missing("stages"),
        ),
        ("there is no stem: self.stem = Stem(3, config)", missing("stem")),
        ("there is no head: self.head = Head(channels, num_classes)", missing("head")),
        *((no_token, with_cls_token(width)) for width in (last, first, second)),
        *(
            (
                f"a norm too many: {given_head}, and that is all behind S4",
                with_module(lambda width=width: nn.LayerNorm(width)),
            )
            for width in (last, second)
        ),
    ]


def _head_mistakes():
    """What a head of one's own may have wrong, and what is done around the given one."""
    given_head = "`Head` is a mean over the grid, LayerNorm, Linear, tanh, Linear"

    def head(forward):
        def edit(m):
            h = m.head
            h.forward = lambda x: forward(h, x)

        return edit

    def activated(activation):
        def forward(h, x):
            means = x.mean(dim=(2, 3), keepdim=True)
            return h.classifier(activation(h.hidden(h.norm(means).flatten(1))))

        return head(forward)

    def norm_first(h, x):
        return h.classifier(torch.tanh(h.hidden(h.norm(x).mean(dim=(2, 3)))))

    def without(*names):
        def edit(m):
            for name in names:
                setattr(m.head, name, nn.Identity())

        return edit

    def given(change):  # what is done to the grid before the given head gets it
        def edit(m):
            forward = m.head.forward
            m.head.forward = lambda x: forward(change(x))

        return edit

    def behind_stem(function):
        def edit(m):
            forward = m.stem.forward
            m.stem.forward = lambda x: function(forward(x))

        return edit

    def softmax_last(m):
        forward = m.head.forward
        m.head.forward = lambda x: forward(x).softmax(dim=1)

    return [
        (f"the head has no hidden layer; {given_head}", without("hidden")),
        (f"the head has neither norm nor hidden layer; {given_head}", without("hidden", "norm")),
        (f"the head has no norm; {given_head}", without("norm")),
        (f"the head has no tanh; {given_head}", activated(lambda x: x)),
        (f"GELU in the head; {given_head}", activated(nn.functional.gelu)),
        (f"ReLU in the head; {given_head}", activated(torch.relu)),
        (f"the norm comes before the mean; {given_head}", head(norm_first)),
        (
            "max pooling in front of the head; it takes the mean itself",
            given(lambda x: x.amax(dim=(2, 3), keepdim=True)),
        ),
        (
            "the head reads the first token, as if it were a CLS token; it takes the mean",
            given(lambda x: x[:, :, :1, :1]),
        ),
        ("GELU follows the stem; S1 begins with a norm itself", behind_stem(nn.functional.gelu)),
        ("ReLU follows the stem; S1 begins with a norm itself", behind_stem(torch.relu)),
        ("a softmax at the end; the loss takes logits as they are", softmax_last),
    ]


# Exercise 4


def family_mistake(field, got, number, right, table):
    """What a wrong field of `paper_config(number)` most likely is; table: all right configs."""
    if field == "stem_widths":
        likely = _stem_width_mistake(got, right)
    elif field == "block_types":
        likely = "the paper's choice is C-C-T-T, which is the field's default: leave it out"
    else:
        likely = _stage_field_mistake(field, got, number, right)
    if likely:
        return likely
    same = [n for n, config in enumerate(table) if tuple(getattr(config, field)) == got]
    if same:
        return f"these are the {field} of CoAtNet-{same[0]}: is a row missing, or out of order?"
    return _one_entry(field, got, tuple(getattr(right, field)))


def _stem_width_mistake(got, right):
    stem, first = right.stem_widths[0], right.widths[0]
    if len(got) == 1:
        return "S0 has two convolutions, both of the width D of S0: an entry for each"
    if len(got) > 2:
        return "two entries, one for each convolution of S0; both are its D"
    return {
        (first, first): "that is the D of S1; the stem's two widths are both the D of S0",
        (3, stem): "the 3 colours are no width of the stem: its two convolutions are D wide",
        (stem, first): "both widths are the D of S0; S1's first block makes the step to its own",
        (stem // 2, stem): "both convolutions have the full width, not half of it first",
        (2, stem): "2 is the number L of S0's convolutions, not a width",
        (64, 64): "the default, CoAtNet-0's; both are the D of S0 in this row",
    }.get(got, "")


def _stage_field_mistake(field, got, number, right):
    stem = right.stem_widths[0]
    if len(got) == 5:
        more = ", and two convolutions always" if field == "depths" else ""
        return f"these are S0 to S4; {field} are those of S1 to S4, S0 has `stem_widths`{more}"
    if len(got) != 4:
        return f"four entries, one for each of S1 to S4, not {len(got)}"
    if got == tuple(right.depths if field == "widths" else right.widths):
        return "depths and widths are swapped: L are the depths, D the widths"
    if got == tuple(getattr(right, field))[::-1]:
        return "that is S4 to S1; the order is S1 to S4"
    if got == ((2, *right.depths[:3]) if field == "depths" else (stem, *right.widths[:3])):
        return "that is S0 to S3: the first entry is S1's"
    if field == "widths" and got == tuple(right.widths[0] * 2**i for i in range(4)):
        return f"the widths double from stage to stage in most models, not in CoAtNet-{number}"
    return ""


def _one_entry(field, got, right):
    """Which entries differ, where it is one or two that changed places."""
    names = ["the first convolution", "the second convolution"]
    names = names if field == "stem_widths" else ["S1", "S2", "S3", "S4"]
    off = [place for place, (a, b) in enumerate(zip(got, right, strict=False)) if a != b]
    if len(off) == 1:
        place = off[0]
        return f"{names[place]} has {right[place]} in the table, not {got[place]}"
    if len(off) == 2 and [got[i] for i in off] == [right[i] for i in reversed(off)]:
        return f"{names[off[0]]} and {names[off[1]]} have changed places"
    return ""


# Exercise 5


def counts(model):
    """The right number of parameters, and wrong ones by what is likely behind each."""
    named = dict(model.named_parameters())
    buffers = sum(b.numel() for b in model.buffers())
    right = sum(p.numel() for p in named.values())
    twice = sum(p.numel() for _, p in model.named_parameters(remove_duplicate=False))
    mistakes = {
        sum(v.numel() for v in model.state_dict().values()): "buffers are counted, and shared "
        "parameters twice: state_dict() holds all that is saved, parameters() what is learned",
        sum(p.numel() for p in named.values() if p.requires_grad): "frozen parameters are left "
        "out; they are parameters too",
        len(named): "that is the number of tensors; each has `.numel()` numbers",
        right + buffers: "buffers such as BatchNorm's running statistics are counted; they are not "
        "parameters",
        buffers: "these are the buffers",
        twice: "a parameter that two layers share is counted twice; model.parameters() yields it "
        "once",
        sum(len(p) if p.ndim else 1 for p in named.values()): "`len` is a tensor's first length "
        "alone; `.numel()` counts its numbers",
        sum(p.numel() for p in named.values() if p.ndim > 1): "biases and norms are left out",
        sum(p.numel() for p in model.parameters(recurse=False)): "that is the model's own "
        "parameters, without those of its parts: parameters() looks into all of them unless "
        "recurse=False",
        sum(p.ndim for p in named.values()): "these are numbers of axes; `.numel()` counts numbers",
        next(p.numel() for p in named.values()): "that is the first parameter alone: is the "
        "`return` inside the loop?",
        list(named.values())[-1].numel(): "that is the last parameter alone: add them up, +=",
        4 * right: "that is bytes, 4 for each number; return the number of parameters",
        len(list(model.modules())): "that is the number of modules",
    }
    for power in (10**3, 10**6, 2**20):
        for value in (right / power, right // power, round(right / power)):
            mistakes[value] = "wrong unit: return the plain number, not thousands or millions"
    mistakes.pop(right, None)
    return right, mistakes
