"""Checks of lesson 6, meeting timm: `from course.checks import lesson06 as check`."""

from dataclasses import replace

import timm
import torch
from torch import nn

import coatnet
from coatnet import CONFIGS, CoAtNet, CoAtNetConfig
from coatnet.timm_weights import TIMM_NAMES
from course.checking import CheckFailed, exercise, students_code
from course.checks.lesson05 import small_grids
from course.comparing import compare, in_order, randomise, require_eps

SMALL = {
    "depths": (1, 2, 1, 1),
    "embed_dim": (32, 64, 32, 64),
    "stem_width": (4, 8),
    "img_size": 64,
}


def _timm_model(name):
    hidden = {"head_hidden_size": 64} if name == "coatnet_0_224" else {}
    return timm.create_model(name, num_classes=5, **SMALL, **hidden)


# Exercise 1


def rename(name):
    """The reference of exercise 1: timm's name -> ours."""
    for theirs, ours in TIMM_NAMES.items():
        name = name.replace(theirs, ours)
    return name


NAME_HINTS = {  # what stands in the answer -> the likely mistake, first match counts
    "shortcut.shortcut": "a part of a longer word has been replaced, too: `.shortcut.expand.` as a "
    "whole becomes `.shortcut.proj.`",
    ".blocks.": "our stages hold their blocks directly: `.blocks.` becomes `.`",
    "shortcut.expand": "timm's shortcut calls its projection `expand`; ours is `shortcut.proj`",
    "conv1_1x1": "`conv1_1x1` is our `expand`",
    "conv2_kxk": "`conv2_kxk` is our `depthwise`",
    "conv3_1x1": "`conv3_1x1` is our `project`",
    "se_early": "`_rw` models say `se_early` for what we always call `squeeze_excite`",
    "se.fc": "`se.fc1` and `se.fc2` are our `squeeze_excite.squeeze` and `squeeze_excite.excite`",
    "norm1.norm": "timm's norm1 holds the norm and the pooling behind it; ours is the norm itself",
    "rel_pos": "the table is called `attention.position_bias.table` here",
    "relative_position_bias_table": "the table is called `attention.position_bias.table` here",
    ".attn.": "`attn` is written out here: `attention`",
    "mlp.fc": "`mlp.fc1` and `mlp.fc2` are layers 0 and 3 of our `feed_forward`",
    "feed_forward.": "feed_forward is Linear, GELU, Dropout, Linear, Dropout: timm's `fc1` and "
    "`fc2` are its layers 0 and 3",
    "pre_logits": "`head.pre_logits.fc` is our `head.hidden`",
    "head.fc": "`head.fc` is our `head.classifier`",
    ".proj.": "a part of a longer or an earlier word has been replaced; `.shortcut.expand.` as a "
    "whole is `.shortcut.proj.`, while `.conv1_1x1.` becomes `.expand.`",
    ".attentionention": "`attn` has been replaced twice",
}


@exercise("Names", rename, ())
def names(answer):
    count = 0
    for model in ("coatnet_0_224", "coatnet_nano_rw_224", "coatnet_0_rw_224"):
        with torch.device("meta"):
            theirs = _timm_model(model).state_dict()
        for name in theirs:
            right = rename(name)
            with students_code(f"rename({name!r}) = {right!r}"):
                came = answer(name)
            if came != right:
                raise CheckFailed(
                    f"rename({name!r}) = {right!r}", repr(came), _name_mistake(name, right, came)
                )
            count += 1
    return f"all {count} names of three models, parameters and buffers."


def _name_mistake(name, right, came):
    if came is None:
        return "the function has no `return`"
    if not isinstance(came, str):
        return "return the new name, a str"
    if name == right:
        return "this name is the same on both sides: leave it as it is"
    for part, hint in NAME_HINTS.items():
        if part in came and (part not in right or part == "feed_forward."):
            return hint
    if ".." in came or came.count(".") != right.count("."):
        return "a dot got lost or doubled: replace whole words with the dots around them"
    return ""


# Exercise 2


def convert(weights, model):
    """The reference of exercise 2: timm's state dict -> `model`'s."""
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    converted = {}
    for name, tensor in weights.items():
        name = rename(name)
        tensor = tensor.T if name.endswith("position_bias.table") else tensor
        converted[name] = tensor.reshape(shapes[name])
    return converted


@exercise("Weights", convert, (), builds_on=[rename])
def weights(answer):
    theirs = randomise(_timm_model("coatnet_0_224")).eval()
    ours = coatnet.from_timm(_timm_model("coatnet_0_224"))
    given = theirs.state_dict()
    before = {name: tensor.clone() for name, tensor in given.items()}
    expected, passed_on = convert(given, ours), dict(given)
    with students_code("convert takes timm's state dict and our model"):
        came = answer(passed_on, ours)
    if not isinstance(came, dict):
        likely = "the function has no `return`" if came is None else "return a dictionary"
        raise CheckFailed("a dictionary from names to tensors", type(came).__name__, likely)
    kept = passed_on.keys() == before.keys() and all(
        passed_on[name].shape == tensor.shape and torch.equal(passed_on[name], tensor)
        for name, tensor in before.items()
    )
    if not kept:
        raise CheckFailed(
            "`weights` stays as it was",
            "it was changed",
            "write into a new dictionary, and into new tensors",
        )
    _compare_names(came, expected)
    for name, right in expected.items():
        _compare_tensor(name, came[name], right, before)
    ours.load_state_dict(came)
    share = largest_difference(ours, theirs, torch.randn(2, 3, 64, 64))
    if share > 1e-4:
        raise CheckFailed("timm's logits, to 1e-4 of the largest", f"{share:.0e}")
    return (
        f"{len(came)} tensors with our names, in our shapes and order; with them our model gives "
        "timm's logits."
    )


def _compare_names(came, expected):
    missing = [name for name in expected if name not in came]
    extra = [name for name in came if name not in expected]
    if not missing and not extra:
        return
    likely = ""
    if any("running" in name or "tracked" in name for name in missing):
        likely = "buffers are left out; weights.items() has them, named_parameters() has not"
    elif all(name.endswith("position_bias.table") for name in missing):
        likely = "the bias tables are left out; transpose them and add them like the others"
    elif any(".blocks." in name for name in extra):
        likely = "the names are timm's: rename(name) makes ours"
    elif all(".weight" in name for name in missing):
        likely = "1x1 convolutions and linear layers go in too, each in the shape it has in `model`"
    rows = [f"{name} is missing" for name in missing[:2]]
    rows += [f"{name} is not expected" for name in extra[:2]]
    raise CheckFailed(f"the {len(expected)} names of `model`", "\n".join(rows), likely)


def _compare_tensor(name, came, right, weights):
    table = name.endswith("position_bias.table")
    if not isinstance(came, torch.Tensor):
        raise CheckFailed(f"{name}: a tensor", type(came).__name__)
    if came.shape != right.shape:
        if came.shape == right.shape[:2] and right.shape[2:] == (1, 1):
            likely = "this one is a convolution here too, and keeps its axes of length 1: give "
            likely += "every tensor the shape that it has in `model`"
        elif came.squeeze().shape == right.squeeze().shape and right.shape[1:2] == (1,):
            likely = "squeeze() also takes the 1 out of depthwise kernels [C, 1, 3, 3]"
        elif table:
            likely = "timm's table is [offsets, heads]; ours [heads, 2 * height - 1, 2 * width - 1]"
        else:
            likely = "a 1x1 convolution's weights [out, in, 1, 1] become a matrix [out, in]"
        raise CheckFailed(f"{name}: {list(right.shape)}", f"{list(came.shape)}", likely)
    if torch.equal(came, right):
        return
    theirs = next(tensor for key, tensor in weights.items() if rename(key) == name)
    likely = "numbers of another order than in timm's tensor"
    if table and torch.equal(came, theirs.reshape(right.shape)):
        likely = "reshape alone deals the numbers to the wrong heads: transpose first, tensor.T"
    elif table and torch.equal(came, right.flip(1, 2)):
        likely = "the offsets are reversed; transpose the axes, don't turn them around"
    elif table and torch.equal(came, right.mT):
        likely = (
            "rows and columns of the offsets are swapped: .T first, [heads, offsets], and only "
        )
        likely += "then the reshape"
    elif came.abs().sum() == 0:
        likely = "only zeros: copy timm's numbers"
    elif torch.equal(came.flatten().sort().values, right.flatten().sort().values):
        likely = (
            "the right numbers in the wrong order: reshape keeps the order, .T changes it, and "
        )
        likely += "only the tables need that"
    else:
        likely = "other numbers than timm's; only names and shapes change"
    index = tuple(
        i.item() for i in torch.unravel_index((came != right).int().argmax(), right.shape)
    )
    raise CheckFailed(f"{name}: {right[index]:.4f} at {list(index)}", f"{came[index]:.4f}", likely)


# Exercise 3


def largest_difference(model, reference, images):
    """The reference of exercise 3: max |y - expected| / max |expected|, in eval mode."""
    with torch.no_grad():
        y, expected = model.eval()(images), reference.eval()(images)
    return ((y - expected).abs().max() / expected.abs().max()).item()


class _Speaker(nn.Module):
    """Gives the logits it was made with in eval mode, others in train mode; counts its calls."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.calls = []

    def forward(self, images):
        self.calls.append((self.training, torch.is_grad_enabled(), images))
        return self.logits * (-3 if self.training else 1)


@exercise("Equal logits", largest_difference, ())
def difference(answer):
    cases = [
        (
            torch.tensor([[0.5, -8.0, 2.0], [1.0, 3.0, 0.25]]),
            torch.tensor([[0.5, -5.0, 2.5], [1, 3, 2]]),
        ),
        (torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 2.0], [3.0, 4.0]])),
        (torch.tensor([[-1.0, 2.0, 0.1]]), torch.tensor([[-2.0, 0.5, 4.0]])),
    ]
    came = []
    for y, expected in cases:
        model, reference = _Speaker(y).train(), _Speaker(expected).train()
        images = torch.randn(len(y), 3, 4, 4)
        with students_code("largest_difference takes two models and images"):
            value = answer(model, reference, images)
        if value is None:
            raise CheckFailed("a number", "None", "the function has no `return`")
        if (isinstance(value, torch.Tensor) and value.numel() != 1) or isinstance(value, bool):
            likely = "take .max() over all images and classes at once"
            raise CheckFailed("one number", f"{getattr(value, 'shape', value)}", likely)
        _require_calls(model, reference, images)
        came.append(float(value))
    for (y, expected), value in zip(cases, came, strict=True):
        right = largest_difference(_Speaker(y), _Speaker(expected), torch.zeros(1))
        if abs(value - right) > 1e-6:
            likely = next((h for h, f in _FRACTIONS if _always(f, cases, came)), "")
            logits = f"logits {y.tolist()}\nagainst {expected.tolist()}"
            raise CheckFailed(f"{right:.4f}, for {logits}", f"{value:.4f}", likely)
    return "the right share for three pairs of models, in eval mode, without gradients."


def _require_calls(model, reference, images):
    for name, speaker in (("model", model), ("reference", reference)):
        if not speaker.calls:
            raise CheckFailed(f"`{name}` gets the images", f"`{name}` was not called")
        for training, gradients, given in speaker.calls:
            if given is not images and not torch.equal(given, images):
                raise CheckFailed(f"`{name}` gets the images as they are", "other values")
            if training:
                likely = (
                    f"in train mode BatchNorm looks at the batch, and dropout drops: {name}.eval()"
                )
                raise CheckFailed("both models in eval mode", f"`{name}` in train mode", likely)
            if gradients:
                likely = "put both calls into `with torch.no_grad():`"
                raise CheckFailed("no gradients are recorded", "they are", likely)


def _largest(tensor):
    return tensor.abs().max()


# (the likely mistake, what it makes of the logits y and the expected ones e)
_FRACTIONS = [
    (
        "without .abs() a large negative difference goes unseen",
        lambda y, e: (y - e).max() / _largest(e),
    ),
    (
        "without .abs() a large negative logit goes unseen",
        lambda y, e: _largest(y - e) / e.max(),
    ),
    ("both maxima are taken without .abs()", lambda y, e: (y - e).max() / e.max()),
    (
        "that is the mean of the differences; the largest counts",
        lambda y, e: (y - e).abs().mean() / _largest(e),
    ),
    (
        "both are means; the largest values count",
        lambda y, e: (y - e).abs().mean() / e.abs().mean(),
    ),
    ("the difference is not divided by the largest logit", lambda y, e: _largest(y - e)),
    (
        "that divides by the model's largest logit; the reference's is the measure",
        lambda y, e: _largest(y - e) / _largest(y),
    ),
    (
        "each difference is divided by its own logit; divide the largest by the largest",
        lambda y, e: ((y - e).abs() / e.abs()).max(),
    ),
    ("the fraction stands upside down", lambda y, e: _largest(e) / _largest(y - e)),
    (
        "the difference of the maxima; take the differences first, and then the maximum",
        lambda y, e: (_largest(y) - _largest(e)).abs() / _largest(e),
    ),
    (
        "the first image alone; the maximum goes over all of them",
        lambda y, e: _largest((y - e)[0]) / _largest(e[0]),
    ),
    ("in percent; the share itself is asked for", lambda y, e: 100 * _largest(y - e) / _largest(e)),
    (
        "squared differences; their absolute values are asked for",
        lambda y, e: (y - e).square().max() / e.square().max(),
    ),
]


def _always(fraction, cases, came):
    values = [fraction(y, expected).item() for y, expected in cases]
    return all(abs(a - b) < 1e-6 or a != a or a == b for a, b in zip(values, came, strict=True))


# Exercise 4


def read_settings(shapes):
    """The reference of exercise 4: what the shapes of our weights say about the configuration."""
    stages = [{n.split(".")[2] for n in shapes if n.startswith(f"stages.{s}.")} for s in range(4)]
    width, channels = shapes["stages.3.0.attention.qkv.weight"][:2]
    return {
        "depths": tuple(map(len, stages)),
        "expand_output": shapes["stages.1.0.expand.weight"][0]
        == 4 * shapes["stages.1.0.project.weight"][0],
        "attend_output": width != 3 * channels,
        "conv_bias": "stages.1.0.project.bias" in shapes,
        "shortcut_bias": "stages.3.0.shortcut.proj.bias" in shapes,
        "mlp_head": "head.hidden.weight" in shapes,
    }


SETTING_HINTS = {
    "depths": "count the different block numbers of each stage, the second number in "
    "`stages.0.1.expand.weight`",
    "expand_output": "compare `expand`'s first length with 4 times `project`'s first length, in "
    "`stages.1.0`, where the channels double",
    "attend_output": "qkv.weight is [3 * width, input]: in `stages.3.0` the output has twice the "
    "channels of the input",
    "conv_bias": "is there a `project.bias`?",
    "shortcut_bias": "is there a `shortcut.proj.bias` in a transformer block, `stages.3.0`?",
    "mlp_head": "is there a `head.hidden.weight`?",
}


def _shapes(config, image_size=64):
    with torch.device("meta"):
        state = CoAtNet(config, 7, image_size).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _setting_cases():
    """Shapes by name of models in which every setting is once True and once False by itself."""
    plan = {"depths": (1, 3, 2, 1), "widths": (32, 64, 96, 192), "stem_widths": (16, 32)}
    base = CoAtNetConfig(**plan)
    cases = {
        "coatnet_0_224": CONFIGS["coatnet_0_224"],
        "coatnet_nano_rw_224": CONFIGS["coatnet_nano_rw_224"],
        "a small model": base,
    }
    for field in ("expand_output", "attend_output", "conv_bias", "shortcut_bias", "mlp_head"):
        cases[f"a small model with {field}=False"] = replace(base, **{field: False})
    return {name: _shapes(config) for name, config in cases.items()}


@exercise("Settings from shapes", read_settings, ())
def settings(answer):
    cases = _setting_cases()
    for name, shapes in cases.items():
        right = read_settings(shapes)
        with students_code(f"the settings of {name}"):
            came = answer(dict(shapes))
        if not isinstance(came, dict):
            likely = "the function has no `return`" if came is None else "return a dictionary"
            raise CheckFailed(f"a dictionary with {', '.join(right)}", type(came).__name__, likely)
        if came.keys() != right.keys():
            raise CheckFailed(f"the keys {', '.join(right)}", ", ".join(map(str, came)))
        for key, value in right.items():
            got = tuple(came[key]) if isinstance(came[key], list | tuple) else came[key]
            if got != value:
                raise CheckFailed(
                    f"{key} = {value}, of {name}", got, _setting_mistake(key, value, got)
                )
    return f"six settings of {len(cases)} models, from nothing but the shapes of their weights."


def _setting_mistake(key, right, got):
    if key == "depths":
        if not isinstance(got, tuple) or not all(isinstance(depth, int) for depth in got):
            return f"four numbers are asked for. {SETTING_HINTS[key].capitalize()}"
        if got == tuple(depth - 1 for depth in right):
            return "block numbers start at 0: the largest one is one less than their count"
        if all(g > 3 * r for g, r in zip(got, right, strict=False)):
            return "these are names; count each block number once, a set does that"
        if len(got) != 4:
            return "four stages, S1 to S4, called `stages.0` to `stages.3`"
        return SETTING_HINTS[key]
    if not isinstance(got, bool):
        return f"True or False is asked for. {SETTING_HINTS[key].capitalize()}"
    if key in ("expand_output", "attend_output") and got is (not right):
        return (
            f"it may be the other way round: True says *output*. {SETTING_HINTS[key].capitalize()}"
        )
    return SETTING_HINTS[key]


# Exercises 5 and 6


class MBConvRW(coatnet.MBConv):
    """`coatnet.MBConv` by position, its forward pass step by step for mistakes to be put in."""

    def __init__(self, in_channels, out_channels, stride, config):
        super().__init__(in_channels, out_channels, stride, config=config)
        self.act1, self.act2 = nn.SiLU(), nn.SiLU()
        del self.activation, self.drop_path

    def forward(self, x):
        shortcut = self.shortcut(x)
        x = self.pool(self.pre_activation(self.pre_norm(x)))
        x = self.depthwise(self.act1(self.norm1(self.expand(x))))
        if self.excite_first:
            x = self.act2(self.norm2(self.squeeze_excite(x)))
        else:
            x = self.squeeze_excite(self.act2(self.norm2(x)))
        return shortcut + self.project(x)


class CoAtNetRW(nn.Module):
    """The reference of exercise 6: `coatnet.CoAtNet` for the C-C-T-T models without a tanh head."""

    def __init__(self, config, num_classes=1000, image_size=224):
        super().__init__()
        model = CoAtNet(config, num_classes, image_size)
        self.stem, self.norm, self.head = model.stem, model.norm, model.head
        self.stages = nn.Sequential(*model.stages)

    def forward(self, x):
        return self.head(self.norm(self.stages(self.stem(x))))


def _by_name(right, student):
    """The one order in which the weights fit: by name."""
    own = dict(zip((n for n, _ in right.named_parameters()), in_order(right), strict=True))
    return [[own[name] for name, _ in student.named_parameters()]]


def _require_names(answer, reference, name_of_block, **arguments):
    """Names are given in these exercises, so that weights can go in by name."""
    with students_code(f"{reference.__name__} can be built"):
        student = answer(**arguments)
    if not isinstance(student, nn.Module):
        raise CheckFailed("a nn.Module", type(student).__name__)
    right = dict(reference(**arguments).named_parameters())
    came = dict(student.named_parameters())
    missing = [name for name in right if name not in came]
    extra = [name for name in came if name not in right]
    if sorted(map(tuple, (p.shape for p in right.values()))) != sorted(
        map(tuple, (p.shape for p in came.values()))
    ):
        return False  # layers differ too: compare() explains those
    if missing or extra:
        raise CheckFailed(
            f"the names of {name_of_block}, such as {(missing or list(right))[0]}",
            f"{(extra or ['nothing of the kind'])[0]}",
            "weights go in by name here: call the attributes as the exercise says",
            "__init__",
        )
    return True


def _set(**layers):
    def edit(m):
        for name, layer in layers.items():
            setattr(m, name, layer() if isinstance(layer, type) else layer)

    return edit


def _rebuilt(in_channels, out_channels, stride, config, **changes):
    """An edit that builds the block anew with another configuration."""

    def edit(m):
        other = MBConvRW(in_channels, out_channels, stride, replace(config, **changes))
        if _same_shapes(other, m):
            other.load_state_dict(m.state_dict())
        m._modules, m.excite_first = other._modules, other.excite_first

    return edit


def _same_shapes(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(a[key].shape == b[key].shape for key in a)


def _block_mistakes(in_channels, out_channels, stride, config):
    c_in, c_out, hidden = in_channels, out_channels, 4 * in_channels

    def other(**changes):
        return _rebuilt(c_in, c_out, stride, config, **changes)

    def squeezed(width):
        return _set(squeeze_excite=coatnet.SqueezeExcite(hidden, width, config.excite_activation))

    def widened(squeezed):
        def edit(m):
            other(expand_output=True)(m)
            m.squeeze_excite = coatnet.SqueezeExcite(4 * c_out, squeezed, config.excite_activation)

        return edit

    def forward(function):
        return lambda m: setattr(m, "forward", lambda x: function(m, x))

    def branch(m, x):
        return MBConvRW.forward(m, x) - m.shortcut(x)

    def strided(**options):
        def edit(m):
            m.pool = nn.Identity()
            for name in options:
                getattr(m, name).stride = (2, 2)

        return edit

    def biased(name):
        def edit(m):
            conv = getattr(m, name)
            conv.bias = nn.Parameter(torch.zeros(conv.out_channels))

        return edit

    def pooled_first(m, x):
        shortcut = m.shortcut(x)
        x = m.pre_activation(m.pre_norm(m.pool(x)))
        x = m.depthwise(m.act1(m.norm1(m.expand(x))))
        first, last = (m.squeeze_excite, lambda x: m.act2(m.norm2(x)))
        if not m.excite_first:
            first, last = last, first
        return shortcut + m.project(last(first(x)))

    def middle(order):
        def function(m, x):
            shortcut = m.shortcut(x)
            x = m.pool(m.pre_activation(m.pre_norm(x)))
            x = m.depthwise(m.act1(m.norm1(m.expand(x))))
            return shortcut + m.project(order(m, x))

        return forward(function)

    def flipped(field):
        return other(**{field: not getattr(config, field)})

    on = "`config.{}` is {}".format
    relu = config.excite_activation == "relu"
    mistakes = [
        (
            "the expansion counts from the output channels; in `_rw` models it is "
            "4 * in_channels wide inside",
            widened(c_out),
        ),
        (
            "the expansion counts from the output channels, and squeeze-excite from out_channels "
            "// 4; in `_rw` models the block is 4 * in_channels wide inside, squeezed to a quarter",
            other(expand_output=True),
        ),
        ("squeeze-excite's hidden width is out_channels // 4; here it is hidden // 4",
         squeezed(c_out // 4)),
        ("squeeze-excite's hidden width is in_channels // 4; here it is hidden // 4",
         squeezed(max(1, c_in // 4))),
        ("squeeze-excite's hidden width is out_channels; here it is hidden // 4", squeezed(c_out)),
        (
            "squeeze-excite's activation is not passed on: config.excite_activation",
            other(excite_activation="silu" if relu else "relu"),
        ),
        ("the biases do not follow config.conv_bias: projection and shortcut both do",
         flipped("conv_bias")),
        ("the last convolution's bias does not follow config.conv_bias",
         _set(project=nn.Conv2d(hidden, c_out, 1, bias=not config.conv_bias))),
        ("`expand` or `depthwise` has a bias; the norm behind it makes one needless: bias=False",
         biased("expand")),
        ("`expand` and `depthwise` have biases; the norms behind make them needless: bias=False",
         lambda m: (biased("expand")(m), biased("depthwise")(m))),
        ("the depthwise convolution lacks `groups`",
         _set(depthwise=nn.Conv2d(hidden, hidden, 3, padding=1, bias=False))),
        (
            f"{on('pre_activation', config.pre_activation)}: "
            + ("SiLU follows the first norm" if config.pre_activation
               else "nothing follows the first norm"),
            flipped("pre_activation"),
        ),
        (
            f"{on('excite_first', config.excite_first)}: "
            + ("squeeze-excite comes before norm2" if config.excite_first
               else "squeeze-excite comes after norm2 and SiLU"),
            flipped("excite_first"),
        ),
        ("GELU instead of SiLU", _set(act1=nn.GELU, act2=nn.GELU)),
        ("ReLU instead of SiLU", _set(act1=nn.ReLU, act2=nn.ReLU)),
        ("the SiLU after norm1 is missing", _set(act1=nn.Identity)),
        ("the SiLU after norm2 is missing", _set(act2=nn.Identity)),
        ("GELU instead of SiLU after the first norm", _set(pre_activation=nn.GELU)),
        ("squeeze-excite stands between norm2 and its SiLU",
         middle(lambda m, x: m.act2(m.squeeze_excite(m.norm2(x))))),
        ("norm1 or norm2 is missing", _set(norm1=nn.Identity)),
        ("the first norm is missing", _set(pre_norm=nn.Identity)),
        ("squeeze-excite is missing", _set(squeeze_excite=nn.Identity)),
        ("squeeze-excite is built but not used",
         middle(lambda m, x: m.act2(m.norm2(x)))),
        ("the shortcut is not added", forward(branch)),
        ("the plain input is added instead of the shortcut",
         forward(lambda m, x: branch(m, x) + x)),
        ("SiLU after the sum; a block ends with it",
         forward(lambda m, x: nn.functional.silu(MBConvRW.forward(m, x)))),
        (
            "the shortcut starts behind the first norm; it takes the block's input",
            forward(lambda m, x: branch(m, x) + m.shortcut(m.pre_norm(x))),
        ),
    ]  # fmt: skip
    if stride == 2:
        mistakes += [
            (
                "the stride sits in the depthwise convolution; here the image is pooled before "
                "`expand`",
                strided(depthwise=2),
            ),
            ("the stride sits in `expand`; here the image is pooled before it", strided(expand=2)),
            (
                "pooling comes before the first norm; norm, then pooling, then `expand`",
                forward(pooled_first),
            ),
            ("pooling by maximum; it is make_pool('avg')", _set(pool=coatnet.make_pool("max"))),
            ("the shortcut pools by maximum; give make_shortcut 'avg'", other(pool="max")),
        ]
    return mistakes


@exercise("MBConv for _rw", MBConvRW, ["__init__", "forward"])
def mbconv_rw(answer):
    proven = []
    for name in ("coatnet_nano_rw_224", "coatnet_0_rw_224"):
        for c_in, c_out, stride, image in ((8, 12, 2, (7, 10)), (8, 8, 1, (5, 6))):
            sizes = {"in_channels": c_in, "out_channels": c_out, "stride": stride}
            sizes["config"] = CONFIGS[name]
            mistakes = _block_mistakes(**sizes)
            images = torch.randn(3, c_in, *image)
            proven.append(_prove(answer, MBConvRW, sizes, images, mistakes, "the block"))
    return "both models' blocks, stride 2 and 1; " + proven[0]


def _prove(answer, reference, sizes, images, mistakes, what):
    shown = repr(sizes["config"])
    try:
        with small_grids():
            named = _require_names(answer, reference, what, **sizes)
            orders = _by_name if named else None
            return compare(answer, reference, images, mistakes, orders=orders, **sizes)
    except CheckFailed as failure:
        for label, text in failure.rows.items():  # `config` instead of its 24 fields
            failure.rows[label] = str(text).replace(f"config={shown}", "config")
        rows = failure.rows
        text = f"{rows['came']} {rows['expected']}"
        rows["likely"] = next((h for part, h in COMPLAINTS.items() if part in text), rows["likely"])
        raise


COMPLAINTS = {  # what layers say, and what that most likely means
    "stride 1 keeps the channels": "only a stage's first block has stride 2 and changes channels",
    "The size of tensor a": "with stride 2 the shortcut is half as large: pool the branch too, and "
    "only there; the depthwise convolution has padding 1 and stride 1",
    "a bias table for": "grids become smaller from stage to stage: each halves height and width",
    "has no heads of 32 channels": "MBConv and TransformerBlock are swapped: S1 and S2 are MBConv",
    "given normalized_shape": "a norm over the wrong axis or of the wrong width: LayerNorm2d takes "
    "[B, C, H, W] and the last stage's channels",
}

TINY = {"depths": (1, 2, 2, 1), "widths": (32, 64, 32, 64), "stem_widths": (4, 8)}


def _model_mistakes(config, num_classes, image_size):
    last = config.widths[-1]

    def other(config=config, classes=num_classes, size=image_size):
        def edit(m):
            wrong = CoAtNetRW(config, classes, size)
            if _same_shapes(wrong, m):
                wrong.load_state_dict(m.state_dict())
            m._modules = wrong._modules

        return edit

    def stem(**changes):
        def edit(m):
            wrong = coatnet.Stem(3, replace(config, **changes))
            wrong.load_state_dict(m.stem.state_dict())
            m.stem = wrong

        return edit

    def forward(function):
        return lambda m: setattr(m, "forward", lambda x: function(m, x))

    def norm_of_means(m, x):
        x = m.stages(m.stem(x)).mean(dim=(2, 3), keepdim=True)
        return m.head(m.norm(x))

    def plain_head(m):
        m.norm, m.head = nn.Identity(), coatnet.Head(last, num_classes)

    def plain_head_too(m):
        m.head = coatnet.Head(last, num_classes)

    return [
        ("1000 classes are written in; use `num_classes`", other(classes=1000)),
        ("`image_size` is not used: the grids are those of 224 pixels", other(size=224)),
        ("the bias tables are twice too large: the stem halves the image too",
         other(size=2 * image_size)),
        ("every stage has one block; use config.depths", other(replace(config, depths=(1,) * 4))),
        ("a stage has one block too many: the strided one counts too",
         other(replace(config, depths=tuple(d + 1 for d in config.depths)))),
        ("the transformer blocks do not get the `config`: config=config",
         other(replace(config, attend_output=True, shortcut_bias=True))),
        ("the stem does not get the `config`, so that it has GELU", stem(activation="gelu")),
        ("the norm behind S4 is missing: LayerNorm2d(channels, eps=1e-6)",
         lambda m: setattr(m, "norm", nn.Identity())),
        ("the head does not get the `config`, so that it is the one with a hidden layer, and the "
         "norm in front of it is missing", plain_head),
        ("the head does not get the `config`, so that it has a norm and a hidden layer",
         plain_head_too),
        ("the norm comes after the mean; it stands before it, over the channels of each place",
         forward(norm_of_means)),
        ("the norm is built but not used", forward(lambda m, x: m.head(m.stages(m.stem(x))))),
        ("all stages are MBConv; S3 and S4 are transformers",
         other(replace(config, block_types=("C",) * 4))),
        ("three stages are MBConv; S3 and S4 are transformers",
         other(replace(config, block_types=("C", "C", "C", "T")))),
        ("S2 is a transformer; S1 and S2 are MBConv",
         other(replace(config, block_types=("C", "T", "T", "T")))),
        ("a softmax at the end; the loss takes logits as they are",
         forward(lambda m, x: CoAtNetRW.forward(m, x).softmax(dim=1))),
    ]  # fmt: skip


@exercise("CoAtNet for _rw", CoAtNetRW, ["__init__", "forward"], builds_on=[MBConvRW])
def coatnet_rw(answer):
    for name, side, image in (
        ("coatnet_nano_rw_224", 64, (64, 64)),
        ("coatnet_0_rw_224", 96, (90, 70)),
    ):
        config = replace(CONFIGS[name], **TINY)
        sizes = {"config": config, "num_classes": 6, "image_size": side}
        mistakes = _model_mistakes(config, 6, side)
        proven = _prove(answer, CoAtNetRW, sizes, torch.randn(3, 3, *image), mistakes, "the model")
    require_eps(answer(**sizes))
    return "nano_rw and 0_rw in small; " + proven
