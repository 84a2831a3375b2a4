"""Typical mistakes in the exercises of lesson 6, and what shows them."""

import re
from dataclasses import replace

import torch
from torch import nn

import coatnet
from coatnet import CoAtNet
from course.comparing import Instead, randomise

# Exercise 1

NAME_HINTS = {  # what stands in the answer -> the likely mistake, first match counts
    "shortcut.shortcut": "a part of a longer word has been replaced, too: `.shortcut.expand.` as a "
    "whole becomes `.shortcut.proj.`",
    ".blocks.": "our stages hold their blocks directly: `.blocks.` becomes `.`",
    "shortcut.expand": "timm's shortcut calls its projection `expand`; ours is `shortcut.proj`",
    "conv1_1x1": "`conv1_1x1` is our `expand`",
    "conv2_kxk": "`conv2_kxk` is our `depthwise`",
    "conv3_1x1": "`conv3_1x1` is our `project`",
    "se_early": "`_rw` models say `se_early` for what we always call `squeeze_excite`",
    "_early": "`.se.` was replaced inside `.se_early.`; `_rw` models say `se_early` for what we "
    "always call `squeeze_excite`",
    ".se.": "`se.fc1` and `se.fc2` are our `squeeze_excite.squeeze` and `squeeze_excite.excite`",
    "squeeze_excite.fc": "`se.fc1` and `se.fc2` are our `squeeze_excite.squeeze` and "
    "`squeeze_excite.excite`",
    "norm1.norm": "timm's norm1 holds the norm and the pooling behind it; ours is the norm itself",
    "rel_pos": "the table is called `attention.position_bias.table` here",
    "relative_position_bias_table": "the table is called `attention.position_bias.table` here",
    ".attn.": "`attn` is written out here: `attention`",
    "mlp.fc": "`mlp.fc1` and `mlp.fc2` are layers 0 and 3 of our `feed_forward`",
    "feed_forward.": "feed_forward is Linear, GELU, Dropout, Linear, Dropout: timm's `fc1` and "
    "`fc2` are its layers 0 and 3",
    "pre_logits": "`head.pre_logits.fc` is our `head.hidden`",
    "head.fc": "`head.fc` is our `head.classifier`",
    "hidden.fc": "`head.pre_logits.fc` as a whole is our `head.hidden`",
    ".proj.": "a part of a longer or an earlier word has been replaced; `.shortcut.expand.` as a "
    "whole is `.shortcut.proj.`, while `.conv1_1x1.` becomes `.expand.`",
    ".attentionention": "`attn` has been replaced twice",
}


def name_mistake(name, right, came, pairs, results):
    """What is likely behind a wrong name. results: all names so far, with what came for them."""
    if came is None:
        return "the function has no `return`"
    if not isinstance(came, str):
        return "return the new name, a str"
    if all(other == new for other, new in results.items()):
        return "no name has changed: `name.replace(...)` makes a new one, name = name.replace(...)"
    if all(new in {other.replace(*pair) for pair in pairs} for other, new in results.items()):
        return (
            "one word at most is replaced in each name: is the `return` inside the loop, or does "
            "every round start from the old name? name = name.replace(...)"
        )
    digits = re.search(r"blocks\.(\d\d)", name)
    if digits and results.get(name.replace(digits[1], digits[1][0], 1)) != came:
        short = re.sub(r"blocks\.\d\d", "blocks.1", name)
        if results.get(short) == re.sub(r"\.\d\d\.", ".1.", right, count=1):
            return f"block {digits[1]} has two digits: stages have up to 28 blocks"
    if name == right:
        return "this name is the same on both sides: leave it as it is"
    if re.search(r"[^.]squeeze_excite", came):
        return "`se` is a part of longer words, such as `depthwise`; include the dots: `.se.`"
    for part, hint in NAME_HINTS.items():
        if part in came and (part not in right or part == "feed_forward."):
            return hint
    if ".." in came or came.count(".") != right.count("."):
        return "a dot got lost or doubled: replace whole words with the dots around them"
    ours, theirs = right.split("."), came.split(".")
    wrong = [(a, b) for a, b in zip(ours, theirs, strict=False) if a != b]
    return f"`{wrong[0][1]}` where ours is called `{wrong[0][0]}`" if wrong else ""


# Exercise 2


def names_mistake(came, expected, given):
    """What is likely where the names of a converted state dict are not those of `expected`."""
    missing = [name for name in expected if name not in came]
    extra = [name for name in came if name not in expected]
    if not came:
        return "the dictionary is empty: converted[rename(name)] = ..., for each name of `weights`"
    if len(came) == 1:
        return "it holds one name: is the `return` inside the loop?"
    if set(extra) == set(given) - set(expected) or any(".blocks." in str(name) for name in extra):
        return "the names are timm's: rename(name) makes ours"
    if extra and not all(isinstance(name, str) for name in extra):
        return "the keys are names, the values tensors: converted[rename(name)] = tensor"
    if missing and all("running" in name or "tracked" in name for name in missing):
        return "buffers are left out; weights.items() has them, named_parameters() has not"
    if missing and all(name.endswith("position_bias.table") for name in missing):
        return "the bias tables are left out; transpose them and add them like the others"
    if missing and not extra and all(".weight" in name for name in missing):
        return "1x1 convolutions and linear layers go in too, each in the shape it has in `model`"
    return ""


def shape_mistake(name, came, right):
    if came.shape == right.shape[:2] and right.shape[2:] == (1, 1):
        return (
            "this one is a convolution here too, and keeps its axes of length 1: give every tensor "
            "the shape that it has in `model`"
        )
    if came.squeeze().shape == right.squeeze().shape and right.shape[1:2] == (1,):
        return "squeeze() also takes the 1 out of depthwise kernels [C, 1, 3, 3]"
    if name.endswith("position_bias.table"):
        return "timm's table is [offsets, heads]; ours [heads, 2 * height - 1, 2 * width - 1]"
    if came.numel() == right.numel():
        return "a 1x1 convolution's weights [out, in, 1, 1] become a matrix [out, in]"
    return "another tensor stands under this name: go by names, not by the order of the entries"


def tensor_mistake(name, came, right, theirs, expected):
    """What is likely behind other numbers. theirs: timm's tensor; expected: all that is right."""
    if name.endswith("position_bias.table"):
        if torch.equal(came, theirs.reshape(right.shape)):
            return "reshape alone deals the numbers to the wrong heads: transpose first, tensor.T"
        if torch.equal(came, right.flip(1, 2)):
            return "the offsets are reversed; transpose the axes, don't turn them around"
        if torch.equal(came, right.mT):
            return (
                "rows and columns of the offsets are swapped: .T first, [heads, offsets], and only "
                "then the reshape"
            )
    if not came.any():
        return "only zeros: copy timm's numbers"
    for other, tensor in expected.items():
        if tensor.shape == came.shape and torch.equal(tensor, came):
            return f"these are the numbers of {other}: go by names, not by the order of the entries"
    if came.numel() == right.numel() and torch.equal(
        came.flatten().sort().values, right.flatten().sort().values
    ):
        return (
            "the right numbers in the wrong order: reshape keeps the order, .T changes it, and "
            "only the tables need that"
        )
    return "other numbers than timm's; only names and shapes change"


# Exercise 3


def _largest(tensor):
    return tensor.abs().max()


# (the likely mistake, what it makes of the logits y and the expected ones e)
FRACTIONS = [
    (
        "without .abs() a large negative difference goes unseen",
        lambda y, e: (y - e).max() / _largest(e),
    ),
    (
        "without .abs() a large positive difference goes unseen",
        lambda y, e: (e - y).max() / _largest(e),
    ),
    (
        "without .abs() a large negative logit goes unseen",
        lambda y, e: _largest(y - e) / e.max(),
    ),
    ("both maxima are taken without .abs()", lambda y, e: (y - e).max() / e.max()),
    (
        ".abs() comes after .max(): it has to be the largest of the absolute values",
        lambda y, e: (y - e).max().abs() / e.max().abs(),
    ),
    (
        ".abs() comes after .max(): it has to be the largest of the absolute values",
        lambda y, e: (y - e).max().abs() / _largest(e),
    ),
    (
        "that is the mean of the differences; the largest counts",
        lambda y, e: (y - e).abs().mean() / _largest(e),
    ),
    (
        "the largest difference by the mean logit; both are largest values",
        lambda y, e: _largest(y - e) / e.abs().mean(),
    ),
    (
        "both are means; the largest values count",
        lambda y, e: (y - e).abs().mean() / e.abs().mean(),
    ),
    (
        "that is the sum of the differences; the largest counts",
        lambda y, e: (y - e).abs().sum() / _largest(e),
    ),
    (
        "both are sums; the largest values count",
        lambda y, e: (y - e).abs().sum() / e.abs().sum(),
    ),
    ("the smallest difference; the largest counts", lambda y, e: (y - e).abs().min() / _largest(e)),
    ("the difference is not divided by the largest logit", lambda y, e: _largest(y - e)),
    ("that is the largest logit alone", lambda y, e: _largest(e)),
    (
        "the largest sum; it is the difference that counts",
        lambda y, e: _largest(y + e) / _largest(e),
    ),
    ("multiplied with the largest logit; divide by it", lambda y, e: _largest(y - e) * _largest(e)),
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
        "without parentheses only the reference's part is divided: (y - expected) comes first",
        lambda y, e: _largest(y - e / _largest(e)),
    ),
    (
        "the first image alone; the maximum goes over all of them",
        lambda y, e: _largest((y - e)[0]) / _largest(e[0]),
    ),
    (
        "the last image alone; the maximum goes over all of them",
        lambda y, e: _largest((y - e)[-1]) / _largest(e[-1]),
    ),
    (
        "a share for each image, and then their mean; both maxima go over all images",
        lambda y, e: ((y - e).abs().amax(1) / e.abs().amax(1)).mean(),
    ),
    (
        "a share for each image, and then the largest; both maxima go over all images",
        lambda y, e: ((y - e).abs().amax(1) / e.abs().amax(1)).max(),
    ),
    ("in percent; the share itself is asked for", lambda y, e: 100 * _largest(y - e) / _largest(e)),
    (
        "squared differences; their absolute values are asked for",
        lambda y, e: (y - e).square().max() / e.square().max(),
    ),
    (
        "the length of the difference; its largest value is asked for",
        lambda y, e: (y - e).norm() / e.norm(),
    ),
    (
        "softmax first; the logits themselves are compared",
        lambda y, e: _largest(y.softmax(1) - e.softmax(1)) / _largest(e.softmax(1)),
    ),
    ("rounded; return the number as it is", lambda y, e: (_largest(y - e) / _largest(e)).round()),
    (
        "rounded; return the number as it is",
        lambda y, e: (_largest(y - e) / _largest(e)).round(decimals=2),
    ),
    (
        "the predicted classes are compared; it is the logits that count",
        lambda y, e: _largest(y.argmax(1) - e.argmax(1)).float(),
    ),
    ("always 0: is one model compared with itself?", lambda y, e: _largest(e - e)),
]


def always(fraction, cases, came):
    values = [fraction(y, expected).item() for y, expected in cases]
    return all(abs(a - b) < 1e-6 or a != a or a == b for a, b in zip(values, came, strict=True))


# Exercise 4

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


def setting_mistake(key, right, got, results):
    """What is likely behind a wrong setting. results: pairs of right and wrong, of all models."""
    hint = SETTING_HINTS[key]
    if key == "depths":
        return _depths_mistake(right, got, hint)
    if not isinstance(got, bool):
        return f"True or False is asked for: {hint}"
    if all(other is (not expected) for expected, other in results):
        return f"it is the other way round: {hint}"
    if all(other is got for _, other in results):
        return f"always {got}: {hint}"
    return hint


def _depths_mistake(right, got, hint):
    if not isinstance(got, tuple) or not all(isinstance(depth, int) for depth in got):
        return f"four numbers are asked for: {hint}"
    if len(got) != 4:
        return "four stages, S1 to S4, called `stages.0` to `stages.3`"
    if got == tuple(depth - 1 for depth in right):
        return "block numbers start at 0: the largest one is one less than their count"
    if got == tuple(depth + 1 for depth in right):
        return "one too many in each stage: count the block numbers, or add 1 to the largest one"
    if any(depth > 10 for depth in right) and got == tuple(min(depth, 10) for depth in right):
        return "block numbers have two digits, too; and as texts '9' is larger than '13': int(...)"
    if all(g > 3 * r for g, r in zip(got, right, strict=False)):
        return "these are names; count each block number once, a set does that"
    if got == right[::-1]:
        return "that is S4 to S1; the order is S1 to S4"
    return hint


# Exercise 5


class MBConvRW(coatnet.MBConv):
    """`coatnet.MBConv` by position, its forward pass step by step for mistakes to be put in."""

    def __init__(self, in_channels, out_channels, stride, config):
        super().__init__(in_channels, out_channels, stride, config=config)
        self.act1, self.act2 = nn.SiLU(), nn.SiLU()
        del self.activation, self.drop_path

    def forward(self, x):
        return self.shortcut(x) + self.project(self.late(self.inside(x)))

    def inside(self, x):
        x = self.pool(self.pre_activation(self.pre_norm(x)))
        return self.depthwise(self.act1(self.norm1(self.expand(x))))

    def late(self, x):
        if self.excite_first:
            return self.act2(self.norm2(self.squeeze_excite(x)))
        return self.squeeze_excite(self.act2(self.norm2(x)))


def _set(**layers):
    def edit(m):
        for name, layer in layers.items():
            setattr(m, name, layer() if isinstance(layer, type) else layer)

    return edit


def _forward(function):
    return lambda m: setattr(m, "forward", lambda x: function(m, x))


def _rebuilt(in_channels, out_channels, stride, config):
    """An edit that builds the block anew with another configuration."""

    def edit(m):
        other = MBConvRW(in_channels, out_channels, stride, config)
        if same_shapes(other, m):
            other.load_state_dict(m.state_dict())
        m._modules, m.excite_first = other._modules, other.excite_first

    return edit


def same_shapes(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(a[key].shape == b[key].shape for key in a)


def block_mistakes(in_channels, out_channels, stride, config):
    right = in_channels, out_channels, stride, config
    return [
        *_width_mistakes(*right),
        *_bias_mistakes(*right),
        *_setting_mistakes(*right),
        *_step_mistakes(),
        *(_stride_mistakes(*right) if stride == 2 else []),
    ]


def _width_mistakes(c_in, c_out, stride, config):
    hidden = 4 * c_in
    inner = "in `_rw` models the block is 4 * in_channels wide inside"

    def squeezed(width, inside=hidden):
        return coatnet.SqueezeExcite(inside, width, config.excite_activation)

    def widened(inside, width):
        def edit(m):
            m.expand = nn.Conv2d(c_in, inside, 1, bias=False)
            m.norm1, m.norm2 = nn.BatchNorm2d(inside), nn.BatchNorm2d(inside)
            m.depthwise = nn.Conv2d(inside, inside, 3, padding=1, groups=inside, bias=False)
            m.squeeze_excite = squeezed(width, inside)
            m.project = nn.Conv2d(inside, c_out, 1, bias=config.conv_bias)

        return edit

    quarter = "squeeze-excite's hidden width is {}; here it is hidden // 4".format
    return [
        (f"the expansion counts from the output channels; {inner}", widened(4 * c_out, c_out)),
        (
            "the expansion counts from the output channels, and squeeze-excite from out_channels "
            f"// 4; {inner}, squeezed to a quarter",
            widened(4 * c_out, c_out // 4),
        ),
        (f"there is no expansion; {inner}", widened(c_in, c_in // 4)),
        *(
            (f"the expansion is {n}-fold; {inner}", widened(n * c_in, n * c_in // 4))
            for n in (2, 3, 5, 6)
        ),
        (quarter("out_channels // 4"), _set(squeeze_excite=squeezed(c_out // 4))),
        (quarter("in_channels // 4"), _set(squeeze_excite=squeezed(max(1, c_in // 4)))),
        (quarter("out_channels"), _set(squeeze_excite=squeezed(c_out))),
        (quarter("hidden"), _set(squeeze_excite=squeezed(hidden))),
        (quarter("4"), _set(squeeze_excite=squeezed(4))),
        *(
            (quarter(f"hidden // {n}"), _set(squeeze_excite=squeezed(hidden // n)))
            for n in (2, 8, 16)
        ),
        (
            "the depthwise convolution lacks `groups`",
            _set(depthwise=nn.Conv2d(hidden, hidden, 3, padding=1, bias=False)),
        ),
        *(
            (
                f"the depthwise kernel is {k}x{k}; make it 3x3",
                _set(depthwise=nn.Conv2d(hidden, hidden, k, groups=hidden, bias=False)),
            )
            for k in (1, 5, 7)
        ),
    ]


def _bias_mistakes(c_in, c_out, stride, config):
    hidden, needless = 4 * c_in, "; the norm behind it makes one needless: bias=False"

    def biased(*names):
        def edit(m):
            for name in names:
                conv = getattr(m, name)
                conv.bias = nn.Parameter(torch.zeros(conv.out_channels))

        return edit

    def shortcut(bias):
        def edit(m):
            m.shortcut = coatnet.make_shortcut(c_in, c_out, stride, "avg", bias)

        return edit

    both = "the biases do not follow config.conv_bias: projection and shortcut both do"
    return [
        (both, _rebuilt(c_in, c_out, stride, replace(config, conv_bias=not config.conv_bias))),
        (
            "the last convolution's bias does not follow config.conv_bias",
            _set(project=nn.Conv2d(hidden, c_out, 1, bias=not config.conv_bias)),
        ),
        (
            "the shortcut's bias does not follow config.conv_bias (shortcut_bias is for "
            "transformer blocks)",
            shortcut(not config.conv_bias),
        ),
        (f"`expand` has a bias{needless}", biased("expand")),
        (f"`depthwise` has a bias{needless}", biased("depthwise")),
        (f"`expand` and `depthwise` have biases{needless}", biased("expand", "depthwise")),
    ]


def _setting_mistakes(c_in, c_out, stride, config):
    relu = config.excite_activation == "relu"

    def other(**changes):
        return _rebuilt(c_in, c_out, stride, replace(config, **changes))

    on = "`config.{}` is {}: {}".format
    first = ("nothing follows the first norm", "SiLU follows the first norm")
    order = ("squeeze-excite comes after norm2 and SiLU", "squeeze-excite comes before norm2")
    return [
        (
            "squeeze-excite's activation is not passed on: config.excite_activation",
            other(excite_activation="silu" if relu else "relu"),
        ),
        (
            on("pre_activation", config.pre_activation, first[config.pre_activation]),
            other(pre_activation=not config.pre_activation),
        ),
        (
            on("excite_first", config.excite_first, order[config.excite_first]),
            other(excite_first=not config.excite_first),
        ),
        (
            "the SiLU behind the first norm follows config.pre_activation, the place of "
            "squeeze-excite config.excite_first; they are two fields",
            other(pre_activation=not config.pre_activation, excite_first=not config.excite_first),
        ),
        ("the shortcut pools by maximum; give make_shortcut 'avg'", other(pool="max")),
    ]


def _step_mistakes():
    def branch(m, x):
        return m.project(m.late(m.inside(x)))

    def late(order):
        return _forward(lambda m, x: m.shortcut(x) + m.project(order(m, m.inside(x))))

    def inside(change):
        return _forward(lambda m, x: m.shortcut(x) + m.project(m.late(change(m, x))))

    def swapped_norms(m):
        m.norm1, m.norm2 = m.norm2, m.norm1

    return [
        ("GELU instead of SiLU", _set(act1=nn.GELU, act2=nn.GELU)),
        ("ReLU instead of SiLU", _set(act1=nn.ReLU, act2=nn.ReLU)),
        ("both SiLU, after norm1 and after norm2, are missing",
         _set(act1=nn.Identity, act2=nn.Identity)),
        ("the SiLU after norm1 is missing", _set(act1=nn.Identity)),
        ("the SiLU after norm2 is missing", _set(act2=nn.Identity)),
        ("GELU instead of SiLU after the first norm", _set(pre_activation=nn.GELU)),
        ("norm1 and norm2 have changed places", swapped_norms),
        ("norm1 is missing behind `expand`", _set(norm1=nn.Identity)),
        ("norm2 is missing behind `depthwise`", _set(norm2=nn.Identity)),
        ("the first norm, pre_norm, is missing", _set(pre_norm=nn.Identity)),
        ("squeeze-excite is missing", _set(squeeze_excite=nn.Identity)),
        ("there is no `expand`", _set(expand=nn.Identity)),
        ("there is no `depthwise`", _set(depthwise=nn.Identity)),
        ("there is no `project`", _set(project=nn.Identity)),
        ("there is no `shortcut`: make_shortcut(...)", _set(shortcut=nn.Identity)),
        ("squeeze-excite stands between norm2 and its SiLU",
         late(lambda m, x: m.act2(m.squeeze_excite(m.norm2(x))))),
        ("squeeze-excite is built but not used", late(lambda m, x: m.act2(m.norm2(x)))),
        ("squeeze-excite alone stands behind the depthwise convolution; norm2 and SiLU too",
         late(lambda m, x: m.squeeze_excite(x))),
        ("`depthwise` comes before norm1 and its SiLU; it follows them",
         inside(lambda m, x: m.act1(m.norm1(m.depthwise(m.expand(
             m.pool(m.pre_activation(m.pre_norm(x)))))))),
        ),
        ("norm1 is built but not used",
         inside(lambda m, x: m.depthwise(m.act1(m.expand(
             m.pool(m.pre_activation(m.pre_norm(x)))))))),
        ("pre_norm is built but not used",
         inside(lambda m, x: m.depthwise(m.act1(m.norm1(m.expand(
             m.pool(m.pre_activation(x)))))))),
        ("SiLU stands in front of norm1; it follows it",
         inside(lambda m, x: m.depthwise(m.norm1(m.act1(m.expand(
             m.pool(m.pre_activation(m.pre_norm(x)))))))),
        ),
        ("the shortcut is not added", _forward(branch)),
        ("only the shortcut is returned; the branch is added to it",
         _forward(lambda m, x: m.shortcut(x))),
        ("the branch is subtracted; it is added to the shortcut",
         _forward(lambda m, x: m.shortcut(x) - branch(m, x))),
        ("shortcut and branch are multiplied; they are added",
         _forward(lambda m, x: m.shortcut(x) * branch(m, x))),
        ("the plain input is added instead of the shortcut",
         _forward(lambda m, x: branch(m, x) + x)),
        ("SiLU after the sum; nothing follows it",
         _forward(lambda m, x: nn.functional.silu(MBConvRW.forward(m, x)))),
        (
            "the shortcut starts behind the first norm; it takes the block's input",
            _forward(lambda m, x: branch(m, x) + m.shortcut(m.pre_norm(x))),
        ),
        (
            "the shortcut starts behind the first norm and its SiLU; it takes the block's input",
            _forward(
                lambda m, x: branch(m, x) + m.shortcut(m.pre_activation(m.pre_norm(x)))
            ),
        ),
    ]  # fmt: skip


def _stride_mistakes(c_in, c_out, stride, config):
    def strided(name):
        def edit(m):
            m.pool = nn.Identity()
            getattr(m, name).stride = (2, 2)

        return edit

    def pooled_first(m, x):
        x, shortcut = m.pool(x), m.shortcut(x)
        x = m.depthwise(m.act1(m.norm1(m.expand(m.pre_activation(m.pre_norm(x))))))
        return shortcut + m.project(m.late(x))

    def pooled_between(m, x):
        x, shortcut = m.pre_activation(m.pool(m.pre_norm(x))), m.shortcut(x)
        x = m.depthwise(m.act1(m.norm1(m.expand(x))))
        return shortcut + m.project(m.late(x))

    def pooled_after(m, x):
        y = m.expand(m.pre_activation(m.pre_norm(x)))
        y = m.depthwise(m.act1(m.norm1(m.pool(y))))
        return m.shortcut(x) + m.project(m.late(y))

    def whole_shortcut(m):
        m.shortcut = nn.Sequential()
        m.shortcut.proj = nn.Conv2d(c_in, c_out, 1, stride=2, bias=config.conv_bias)

    return [
        (
            "the stride sits in the depthwise convolution; here the image is pooled before "
            "`expand`",
            strided("depthwise"),
        ),
        ("the stride sits in `expand`; here the image is pooled before it", strided("expand")),
        ("pooling comes before the first norm; norm, then pooling, then `expand`",
         _forward(pooled_first)),
        ("pooling comes before the SiLU of the first norm; norm, SiLU, pooling, then `expand`",
         _forward(pooled_between)),
        ("pooling comes after `expand`; it stands in front of it", _forward(pooled_after)),
        *(
            ("pooling by maximum; it is make_pool('avg')", _set(pool=pool))
            for pool in (coatnet.make_pool("max"), nn.MaxPool2d(2, ceil_mode=True))
        ),
        ("the shortcut has a stride; make_shortcut pools by mean", whole_shortcut),
    ]  # fmt: skip


def part_mistake(right, came):
    """What is likely where no known mistake has these shapes: {name: shape} of both."""
    missing = [name for name in right if name not in came]
    extra = [name for name in came if name not in right]
    wrong = [name for name in right if name in came and came[name] != right[name]]
    stages = _stages_mistake(right, came)
    if stages:
        return stages
    parts = [name.split(".")[0] for name in missing]
    if missing and not extra:
        return f"`self.{parts[0]}` is missing, has no weights, or stands in a plain list"
    if extra and not missing and not wrong:
        return (
            f"`{extra[0]}` is one too many; a tensor that need not be saved is "
            "register_buffer(..., persistent=False)"
        )
    if wrong and all(name.endswith("position_bias.table") for name in wrong):
        name = wrong[0]
        sides = [
            tuple((length + 1) // 2 for length in shapes[name][1:]) for shapes in (right, came)
        ]
        return (
            f"{name.split('.attention')[0]} is made for a grid {sides[1]} instead of {sides[0]}: "
            "grid_size = halved(grid_size) for each stage, before its blocks are made"
        )
    return _layer_mistake(wrong, right, came)


def _stages_mistake(right, came):
    """Numbers of stages and of blocks, for a model."""
    plans = []
    for shapes in (right, came):
        blocks = {tuple(n.split(".")[1:3]) for n in shapes if n.startswith("stages.")}
        stages = sorted({stage for stage, _ in blocks})
        plans.append([sum(s == stage for s, _ in blocks) for stage in stages])
    wanted, there = plans
    if len(there) not in (0, len(wanted)):
        return f"`self.stages` has {len(there)} entries, not {len(wanted)}: append each stage, once"
    if there and wanted != there:
        return f"the stages have {there} blocks; config.depths asks for {wanted}"
    return ""


def _layer_mistake(names, right, came):
    """Of layers that are there under their names, but otherwise made."""
    for name in names:
        layer, wanted, there = name.rpartition(".")[0], right[name], came[name]
        if len(wanted) == 4 and len(there) == 2:
            return f"`{layer}` is a nn.Linear; here it is a 1x1 convolution"
        if len(wanted) == len(there) > 1 and wanted[:2] == there[1::-1]:
            return f"`{layer}` has its inputs and outputs swapped: (in, out)"
        if len(wanted) == len(there) == 4 and wanted[2:] != there[2:]:
            return f"`{layer}` has another kernel, {there[2]}x{there[3]}; make it " + (
                f"{wanted[2]}x{wanted[3]}"
            )
        if len(wanted) == len(there) == 4 and wanted[0] == there[0] and wanted[1] == 1:
            return f"`{layer}` needs a group for each of its {wanted[0]} channels: groups=hidden"
        if wanted != there:
            return (
                f"`{layer}` is made with other widths: {list(there)} where {list(wanted)} belongs"
            )
    return ""


# Exercise 6


class CoAtNetRW(nn.Module):
    """The reference of exercise 6: `coatnet.CoAtNet` for the C-C-T-T models without a tanh head."""

    def __init__(self, config, num_classes=1000, image_size=224):
        super().__init__()
        model = CoAtNet(config, num_classes, image_size)
        self.stem, self.norm, self.head = model.stem, model.norm, model.head
        self.stages = nn.Sequential(*model.stages)

    def forward(self, x):
        return self.head(self.norm(self.stages(self.stem(x))))


def model_mistakes(config, num_classes, image_size):
    right = config, num_classes, image_size
    return [*_plan_mistakes(*right), *_config_mistakes(*right), *_end_mistakes(config, num_classes)]


def _other(config, num_classes, image_size):
    return Instead(lambda: CoAtNetRW(config, num_classes, image_size))


def _plan_mistakes(config, num_classes, image_size):
    def other(classes=num_classes, size=image_size, **changes):
        return _other(replace(config, **changes), classes, size)

    depths = config.depths

    def every_stride(m):
        for stage, width in zip(m.stages, config.widths, strict=True):
            for block in list(stage)[1:]:
                _halve(block, width, config)

    return [
        ("1000 classes are written in; use `num_classes`", other(classes=1000)),
        ("every block has stride 2; only the first of each stage has", every_stride),
        ("`image_size` is not used: the grids are those of 224 pixels", other(size=224)),
        (
            "the bias tables are twice too large: the stem halves the image too",
            other(size=2 * image_size),
        ),
        (
            "the stem's half is rounded down; it rounds up: halved((image_size, image_size))",
            other(size=2 * (image_size // 2)),
        ),
        (
            "the grids are halved once too often: grid_size is what comes out of a stage",
            other(size=-(-image_size // 2)),
        ),
        ("every stage has one block; use config.depths", other(depths=(1,) * 4)),
        (
            "a stage has one block too many: the strided one counts too",
            other(depths=tuple(depth + 1 for depth in depths)),
        ),
        ("all stages are MBConv; S3 and S4 are transformers", other(block_types=("C",) * 4)),
        (
            "three stages are MBConv; S3 and S4 are transformers",
            other(block_types=("C", "C", "C", "T")),
        ),
        (
            "S2 is a transformer; S1 and S2 are MBConv",
            other(block_types=("C", "T", "T", "T")),
        ),
    ]


def _halve(block, width, config):
    """Gives a block stride 2, as far as that has no weights."""
    pool = "avg" if isinstance(block, coatnet.MBConv) else config.pool
    block.pool = coatnet.make_pool(pool)
    block.shortcut = coatnet.make_shortcut(width, width, 2, config.pool, True)


def _config_mistakes(config, num_classes, image_size):
    """Parts that do not get the configuration."""
    right = config, num_classes, image_size

    def stem(**changes):
        def edit(m):
            wrong = coatnet.Stem(3, replace(config, **changes))
            wrong.load_state_dict(m.stem.state_dict())
            m.stem = wrong

        return edit

    def default_stem(m):
        m.stem = coatnet.Stem(3)

    def blocks(*stages, **changes):
        def make():
            model, wrong = CoAtNetRW(*right), CoAtNetRW(replace(config, **changes), *right[1:])
            for number in stages:
                model.stages[number] = wrong.stages[number]
            return model

        return Instead(make)

    paper = {"attend_output": True, "shortcut_bias": True}
    return [
        (
            "the transformer blocks do not get the `config`: config=config",
            blocks(2, 3, **paper),
        ),
        ("the transformer blocks of S3 do not get the `config`: config=config", blocks(2, **paper)),
        ("the transformer blocks of S4 do not get the `config`: config=config", blocks(3, **paper)),
        ("the stem does not get the `config`: Stem(3, config)", default_stem),
        ("the stem does not get the `config`, so that it has GELU", stem(activation="gelu")),
    ]


def _end_mistakes(config, num_classes):
    last = config.widths[-1]

    def norm_of_means(m, x):
        x = m.stages(m.stem(x)).mean(dim=(2, 3), keepdim=True)
        return m.head(m.norm(x))

    def plain_head(m):
        m.norm, m.head = nn.Identity(), coatnet.Head(last, num_classes)

    def plain_head_too(m):
        m.head = coatnet.Head(last, num_classes)

    def batch_norm(m):
        norm = randomise(nn.BatchNorm2d(last))
        norm.weight, norm.bias = m.norm.weight, m.norm.bias
        m.norm = norm

    return [
        (
            "the norm behind S4 is missing: LayerNorm2d(channels, eps=1e-6)",
            _set(norm=nn.Identity),
        ),
        (
            "the head does not get the `config`, so that it is the one with a hidden layer, and "
            "the norm in front of it is missing",
            plain_head,
        ),
        (
            "the head does not get the `config`, so that it has a norm and a hidden layer",
            plain_head_too,
        ),
        ("a BatchNorm behind S4; it is LayerNorm2d, over the channels of each place", batch_norm),
        (
            "the norm comes after the mean; it stands before it, over the channels of each place",
            _forward(norm_of_means),
        ),
        (
            "the norm is built but not used",
            _forward(lambda m, x: m.head(m.stages(m.stem(x)))),
        ),
        (
            "a softmax at the end; the loss takes logits as they are",
            _forward(lambda m, x: CoAtNetRW.forward(m, x).softmax(dim=1)),
        ),
    ]


COMPLAINTS = {  # what layers say, and what that most likely means
    "stride 1 keeps the channels": "only a stage's first block has stride 2 and changes channels",
    "a bias table for": "grids become smaller from stage to stage: each halves height and width",
    "has no heads of 32 channels": "MBConv and TransformerBlock are swapped: S1 and S2 are MBConv",
    "'int' object is not iterable": "grids are pairs, (height, width), also for `halved`",
    "ModuleList": "nn.ModuleList only holds layers; nn.Sequential also applies them in order",
}


def spatial_mistake(shapes):
    """What is likely where shortcut and branch do not go together: shapes [B, C, H, W] of both."""
    if len(shapes) != 2 or any(len(shape) != 4 for shape in shapes):
        return ""
    a, b = shapes
    if a[:2] == b[:2]:
        return (
            "with stride 2 the shortcut is half as large, rounded up: pool the branch too, with "
            "make_pool, and only there; the depthwise convolution has padding 1 and stride 1"
        )
    if a[2:] == b[2:]:
        return (
            "the shortcut has out_channels: add it to what `project` gives, and make it from the "
            "block's input"
        )
    return "the shortcut changes size and channels as the branch does: self.shortcut(x)"
