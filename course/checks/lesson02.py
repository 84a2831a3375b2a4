"""Checks of lesson 2, the CNN-stem hybrid: `from course.checks import lesson02 as check`."""

import torch
from torch import nn

import coatnet
import vit
from course.checking import exercise
from course.checks.lesson01 import TOKEN_SIZES, token_mistakes
from course.comparing import compare

ORDINAL = ("first", "second", "third")


def _replaced(index, layer):
    def edit(stem):
        stem[index] = layer

    return edit


def _convolutions(stem):
    return [layer for layer in stem if isinstance(layer, nn.Conv2d)]


def _all_convolutions(**settings):
    def edit(stem):
        for convolution in _convolutions(stem):
            for name, value in settings.items():
                setattr(convolution, name, value)

    return edit


def _stem_mistakes(num_hiddens):
    widths = (64, 128, num_hiddens)

    def without_biases(stem):  # BatchNorm subtracts the mean, so that a bias before it is idle
        for convolution in _convolutions(stem):
            convolution.bias = None

    def without_batch_norm(stem):
        for index in (1, 4, 7):
            stem[index] = nn.Identity()

    def without_gelu(stem):
        for index in (2, 5, 8):
            stem[index] = nn.Identity()

    def activation(make):
        def edit(stem):
            for index in (2, 5, 8):
                stem[index] = make()

        return edit

    def gelu_before_norm(*indices):
        def edit(stem):
            for index in indices:
                stem[index], stem[index + 1] = stem[index + 1], stem[index]

        return edit

    def unpadded(index):
        return lambda stem: setattr(_convolutions(stem)[index], "padding", (0, 0))

    def unstrided(index):
        return lambda stem: setattr(_convolutions(stem)[index], "stride", (1, 1))

    def kernel(size):
        def edit(stem):
            for index, (c_in, c_out) in enumerate(zip((3, *widths), widths, strict=False)):
                stem[3 * index] = nn.Conv2d(c_in, c_out, size, stride=2, padding=1)

        return edit

    def two_layers(stem):
        stem[0] = nn.Conv2d(3, 128, 3)
        del stem[1:4]

    def as_tokens(stem):
        stem.append(nn.Flatten(2))
        stem.forward = lambda x: nn.Sequential.forward(stem, x).transpose(1, 2)

    def fixed_width(stem):
        stem[6], stem[7] = nn.Conv2d(128, 512, 3), nn.BatchNorm2d(512)

    return without_biases, [
        ("there is no BatchNorm; each convolution has one behind it", without_batch_norm),
        *(
            (f"the BatchNorm after the {name} convolution is missing", _replaced(i, nn.Identity()))
            for name, i in zip(ORDINAL, (1, 4, 7), strict=True)
        ),
        ("the last width is written in; use `num_hiddens`", fixed_width),
        ("tokens are returned; the stem returns the grid, [B, num_hiddens, h, w]", as_tokens),
        ("one of the three convolutions is missing: 3 -> 64 -> 128 -> num_hiddens", two_layers),
        ("the kernels are 5x5; make them 3x3", kernel(5)),
        ("the kernels are 2x2; make them 3x3", kernel(2)),
        ("padding 0 loses the border; a 3x3 kernel needs padding=1", _all_convolutions(padding=0)),
        (
            "no convolution has a stride; with stride=2 each halves the image",
            _all_convolutions(stride=1),
        ),
        *(
            (f"the {name} convolution has padding 0; give it padding=1", unpadded(i))
            for i, name in enumerate(ORDINAL)
        ),
        *(
            (f"the {name} convolution has stride 1; give it stride=2", unstrided(i))
            for i, name in enumerate(ORDINAL)
        ),
        ("there is no GELU; each BatchNorm has one behind it", without_gelu),
        *(
            (f"the GELU after the {name} convolution is missing", _replaced(i, nn.Identity()))
            for name, i in zip(ORDINAL, (2, 5, 8), strict=True)
        ),
        ("ReLU instead of GELU", activation(nn.ReLU)),
        ("GELU in its tanh approximation; use nn.GELU()", activation(lambda: nn.GELU("tanh"))),
        *(
            ("GELU comes before BatchNorm; the order is Conv2d, BatchNorm2d, GELU", edit)
            for edit in (gelu_before_norm(1, 4, 7), *map(gelu_before_norm, (1, 4, 7)))
        ),
    ]


@exercise("CNNStem", coatnet.CNNStem, ["__init__", "forward"])
def cnn_stem(answer):
    without_biases, mistakes = _stem_mistakes(num_hiddens=24)
    return compare(
        answer,
        coatnet.CNNStem,
        torch.randn(3, 3, 20, 28),
        mistakes,
        also_right=[without_biases],
        num_hiddens=24,
    )


def _one_row_more(m):
    m.positions = nn.Parameter(torch.zeros(1, 6 * 6 + 1, 8))  # 40 // 8 + 1 = 6


ONE_MORE = (
    "40 / 8 leaves nothing to round up, so that the grid is 5 x 5: ceil(img_size / 8), and not "
    "img_size // 8 + 1",
    _one_row_more,
)


def _coatnet_hybrid_mistakes():
    def positions_by_patch_size(m):
        m.positions = nn.Parameter(torch.zeros(1, 6 * 6 + 1, 8))

    def positions_rounded_down(m):
        m.positions = nn.Parameter(torch.zeros(1, 4 * 4 + 1, 8))

    def positions_rounded_late(m):
        m.positions = nn.Parameter(torch.zeros(1, 21 + 1, 8))

    def patches_too(m):
        m.patches = vit.PatchEmbedding(36, 6, 8)

    def reshaped(m, x):
        return m.stem(x).reshape(len(x), -1, 8)

    def by_columns(m, x):
        return m.stem(x).transpose(2, 3).flatten(2).transpose(1, 2)

    def with_tokens(embed):
        def edit(m):
            def forward(x):
                x = embed(m, x)
                x = torch.cat([m.cls_token.expand(len(x), -1, -1), x], dim=1)
                return m.head(m.encoder(m.dropout(x + m.positions))[:, 0])

            m.forward = forward

        return edit

    return [
        (
            "the positions are counted from `patch_size`; the stem's stride of 8 decides: "
            "ceil(img_size / 8) ** 2 image tokens, and the CLS token",
            positions_by_patch_size,
        ),
        (
            "rounded up after squaring; each side is: ceil(img_size / 8) ** 2",
            positions_rounded_late,
        ),
        ("the stem takes the place of the patch embedding, which is there too", patches_too),
        (
            "36 / 8 is rounded down, but each convolution rounds up: 36 -> 18 -> 9 -> 5",
            positions_rounded_down,
        ),
        (
            "`reshape` or `view` cuts [B, D, h, w] anew and mixes pixels; flatten(2), then "
            "swap the two axes with transpose(1, 2)",
            with_tokens(reshaped),
        ),
        (
            "the tokens come column by column; `flatten(2)` alone takes them row by row",
            with_tokens(by_columns),
        ),
        *token_mistakes(lambda m, x: m.stem(x).flatten(2).transpose(1, 2), side=5),
    ]


@exercise("CoAtNEt", coatnet.CoAtNEt, ["__init__", "forward"], builds_on=[coatnet.CNNStem])
def coatnet_hybrid(answer):
    # An image of 36 px: the stem's grid is 5 x 5, rounded up; patches of 6 px would give 6 x 6.
    mistakes = _coatnet_hybrid_mistakes()
    for image, patch in ((36, 6), (40, 9)):  # a side that 8 does not divide, and one that it does
        proven = compare(
            answer,
            coatnet.CoAtNEt,
            torch.randn(2, 3, image, image),
            mistakes if image == 36 else [ONE_MORE],
            img_size=image,
            patch_size=patch,
            **TOKEN_SIZES,
        )
    return proven
