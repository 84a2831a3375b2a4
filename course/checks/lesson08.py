"""Checks of lesson 8, looking inside: `from course.checks import lesson08 as check`."""

import torch
import torch.nn.functional as F
from torch import nn

from coatnet import HEAD_DIM, TransformerBlock
from course.checking import CheckFailed, exercise, students_code
from course.comparing import compare_calls, randomise

# Exercise 1


def attention_weights(block, x):
    """The reference of exercise 1: where each place looks, [B, heads, N, N]."""
    return _attention(block, x)


def _attention(
    block,
    x,
    norm=True,
    pool=True,
    scale=HEAD_DIM**-0.5,
    bias=True,
    softmax=-1,
    order="qkv",
    by_head=True,
    transposed=False,
):
    """Attention weights, with a mistake for each argument that is not at its default."""
    x = block.norm1(x) if norm else x
    x = block.pool(x) if pool else x
    height, width = x.shape[-2:]
    heads = block.attention.num_heads
    channels = block.attention.qkv(x).flatten(2)  # [B, heads * 96, N]
    if by_head:
        parts = channels.unflatten(1, (heads, 3, HEAD_DIM)).unbind(2)
    else:
        parts = channels.unflatten(1, (3, heads, HEAD_DIM)).unbind(1)
    named = dict(zip("qkv", parts, strict=True))  # each [B, heads, 32, N]
    q, k = (named[letter].mT for letter in order[:2])
    scores = q @ k.mT * scale
    table = block.attention.position_bias(height, width)
    if bias is True:
        scores = scores + (table.mT if transposed else table)
    weights = scores if softmax is None else scores.softmax(dim=softmax)
    return weights + table if bias == "after" else weights


def _mistake(**options):
    return lambda block, x: _attention(block, x, **options)


READING_MISTAKES = [
    ("the scores are not scaled: times HEAD_DIM**-0.5", _mistake(scale=1.0)),
    ("the scores are divided by 32, not by its root", _mistake(scale=1 / HEAD_DIM)),
    ("the scores are multiplied with the root of 32; divide", _mistake(scale=HEAD_DIM**0.5)),
    (
        "the softmax runs over the queries, so that columns sum to 1; each place shares out its "
        "attention over the keys: dim=-1",
        _mistake(softmax=-2),
    ),
    ("the softmax runs over the heads; it runs over the keys: dim=-1", _mistake(softmax=1)),
    ("these are the scores; the softmax is missing", _mistake(softmax=None)),
    ("the position bias is missing", _mistake(bias=False)),
    ("the bias is added after the softmax; it belongs to the scores", _mistake(bias="after")),
    ("the bias is transposed: its rows are queries, its columns keys", _mistake(transposed=True)),
    ("the norm is missing: block.pool(block.norm1(x))", _mistake(norm=False)),
    ("the pooling is missing: block.pool(block.norm1(x))", _mistake(pool=False)),
    ("norm and pooling are missing: block.pool(block.norm1(x))", _mistake(norm=False, pool=False)),
    ("q and k are swapped", _mistake(order="kqv")),
    ("k and v are swapped: q comes first, then k, then v", _mistake(order="qvk")),
    ("v takes the place of q: q comes first, then k, then v", _mistake(order="vkq")),
    (
        "the channels are taken as all q, then all k, then all v; they stand head by head",
        _mistake(by_head=False),
    ),
    (
        "the mean over the heads; every head keeps its own weights",
        lambda block, x: attention_weights(block, x).mean(dim=1),
    ),
    ("one head alone; return all of them", lambda block, x: attention_weights(block, x)[:, 0]),
    ("one image alone; return all of them", lambda block, x: attention_weights(block, x)[0]),
    (
        "the channels of the scores are normalised, not the places: q @ k^T, not q^T @ k",
        lambda block, x: attention_weights(block, x).mT,
    ),
]


@exercise("Reading attention", attention_weights, ())
def reading(answer):
    calls = []
    for in_channels, out_channels, stride, image in ((64, 64, 1, (3, 4)), (32, 96, 2, (5, 6))):
        grid = tuple(-(-length // stride) for length in image)
        block = randomise(TransformerBlock(in_channels, out_channels, grid, stride)).eval()
        nn.init.normal_(block.attention.position_bias.table)
        calls.append((block, torch.randn(2, in_channels, *image)))
    return compare_calls(
        answer,
        attention_weights,
        calls,
        READING_MISTAKES,
        "the weights of two blocks, 2 and 3 heads, with and without stride; rows sum to 1.",
        gradients=False,
    )


# Exercise 2


def receptive_field(features, images):
    """The reference of exercise 2: each pixel's share in the middle's gradient, [H, W]."""
    return _shares(_gradient(features, images).abs().mean(dim=(0, 1)))


def _gradient(features, images, place=None):
    images = images.clone().requires_grad_()
    with torch.enable_grad():
        grid = features(images)
        height, width = grid.shape[-2:]
        row, column = place(height, width) if place else (height // 2, width // 2)
        (gradient,) = torch.autograd.grad(grid[:, :, row, column].sum(), images)
    return gradient


def _shares(field):
    return field / field.sum()


def _at(place):
    return lambda f, x: _shares(_gradient(f, x, place).abs().mean(dim=(0, 1)))


def _of(reduce):
    return lambda f, x: reduce(_gradient(f, x))


EVERYTHING = slice(None)
FIELD_MISTAKES = [
    (
        "the shares do not add up to 1: divide by the sum",
        _of(lambda g: g.abs().mean(dim=(0, 1))),
    ),
    (
        "sums instead of means, and no shares: divide by the sum at the end",
        _of(lambda g: g.abs().sum(dim=(0, 1))),
    ),
    (
        "divided by the largest value; divide by the sum, so that the shares add up to 1",
        _of(lambda g: g.abs().mean(dim=(0, 1)) / g.abs().mean(dim=(0, 1)).max()),
    ),
    (
        "the absolute values are missing, so that opposite signs cancel",
        _of(lambda g: _shares(g.mean(dim=(0, 1)))),
    ),
    (
        "the absolute values come after the mean; signs have cancelled by then",
        _of(lambda g: _shares(g.mean(dim=(0, 1)).abs())),
    ),
    (
        "the absolute values come after the mean over the images; signs have cancelled by then",
        _of(lambda g: _shares(g.mean(dim=0).abs().mean(dim=0))),
    ),
    (
        "the absolute values come after the mean over the colours; signs have cancelled by then",
        _of(lambda g: _shares(g.mean(dim=1).abs().mean(dim=0))),
    ),
    ("squares; absolute values are asked for", _of(lambda g: _shares(g.square().mean(dim=(0, 1))))),
    ("the first image alone; average over all", _of(lambda g: _shares(g[0].abs().mean(dim=0)))),
    ("one colour alone; average over all", _of(lambda g: _shares(g[:, 0].abs().mean(dim=0)))),
    (
        "the largest of the colours; the mean over them is asked for",
        _of(lambda g: _shares(g.abs().amax(dim=1).mean(dim=0))),
    ),
    (
        "the colours are left apart: the mean goes over images and colours, dim=(0, 1)",
        _of(lambda g: _shares(g.abs().mean(dim=0))),
    ),
    (
        "the images are left apart: the mean goes over images and colours, dim=(0, 1)",
        _of(lambda g: _shares(g.abs().mean(dim=1))),
    ),
    (
        "the gradient of all places; take the one in the middle",
        _at(lambda h, w: (EVERYTHING, EVERYTHING)),
    ),
    ("the gradient of the corner; take the place in the middle", _at(lambda h, w: (0, 0))),
    ("the gradient of the last place; take the one in the middle", _at(lambda h, w: (-1, -1))),
    ("a whole row; take the one place in the middle", _at(lambda h, w: (h // 2, EVERYTHING))),
    ("a whole column; take the one place in the middle", _at(lambda h, w: (EVERYTHING, w // 2))),
    (
        "row and column are swapped: row h // 2, column w // 2",
        _at(lambda h, w: (w // 2, h // 2)),
    ),
    (
        "the middle one place too far up and left: row h // 2, column w // 2",
        _at(lambda h, w: ((h - 1) // 2, (w - 1) // 2)),
    ),
    (
        "height and width are swapped in the result",
        lambda f, x: receptive_field(f, x).mT,
    ),
]


@exercise("Effective receptive field", receptive_field, ())
def field(answer):
    def network():
        return randomise(
            nn.Sequential(
                nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.GELU(), nn.Conv2d(4, 5, 3, padding=1)
            )
        )

    calls = [(network(), torch.randn(4, 3, 12, 16)), (network(), torch.randn(3, 3, 11, 8))]
    proven = compare_calls(
        answer,
        receptive_field,
        calls,
        FIELD_MISTAKES,
        "the shares of all pixels for two networks and image sizes; they add up to 1.",
    )
    model, images = network(), torch.randn(2, 3, 8, 8)
    answer(model, images)
    if images.requires_grad:
        raise CheckFailed(
            "the images that were given stay as they are",
            "they ask for gradients from now on",
            "images.clone().requires_grad_() leaves them alone",
        )
    if any(p.grad is not None for p in model.parameters()):
        raise CheckFailed(
            "the model's own gradients stay as they are",
            "its parameters got gradients",
            "torch.autograd.grad(number, images) returns the images' gradient alone; "
            "`backward` adds to those of all parameters",
        )
    return proven


# Exercise 3


def resolution_sweep(model, images, targets, sizes):
    """The reference of exercise 3: the share of right answers at each size, as a list."""
    return _sweep(model, images, targets, sizes)


def _sweep(model, images, targets, sizes, mode="bilinear", antialias=True, again=False):
    model.eval()
    shares = []
    for size in sizes:
        resized = F.interpolate(images, size=(size, size), mode=mode, antialias=antialias)
        with torch.no_grad():
            predictions = model(resized).argmax(dim=1)
        shares.append((predictions == targets).float().mean().item())
        images = resized if again else images
    return shares


def _changed(change):
    return lambda *arguments: change(resolution_sweep(*arguments))


SWEEP_MISTAKES = [
    ("without antialias=True small sizes skip pixels", lambda *a: _sweep(*a, antialias=False)),
    (
        "nearest pixels; mode='bilinear' interpolates",
        lambda *a: _sweep(*a, mode="nearest", antialias=False),
    ),
    (
        "mode='bicubic'; the text asks for bilinear",
        lambda *a: _sweep(*a, mode="bicubic"),
    ),
    (
        "each size starts from the images that were resized last; what they lost does not come "
        "back: start from the original ones",
        lambda *a: _sweep(*a, again=True),
    ),
    (
        "the images are not resized",
        lambda m, x, t, sizes: [resolution_sweep(m, x, t, [x.shape[-1]])[0] for _ in sizes],
    ),
    ("in percent; shares from 0 to 1 are asked for", _changed(lambda s: [100 * v for v in s])),
    ("wrong answers are counted, not right ones", _changed(lambda s: [1 - v for v in s])),
    ("sizes in reverse order", _changed(lambda s: s[::-1])),
    ("sorted by accuracy; keep the order of `sizes`", _changed(sorted)),
    (
        "the number of right answers; divide by the number of images",
        lambda m, x, t, s: [len(x) * v for v in resolution_sweep(m, x, t, s)],
    ),
    (
        "`sizes` in ascending order; keep the order given",
        lambda m, x, t, s: resolution_sweep(m, x, t, sorted(s)),
    ),
]


class _Reader(nn.Module):
    """Classifies by fine detail, so that how an image was resized shows; remembers its calls."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 40, 3)
        self.calls = []

    def forward(self, x):
        self.calls.append((tuple(x.shape), self.training, torch.is_grad_enabled()))
        x = self.conv(x).abs().mean(dim=(2, 3))
        return x.flip(1) if self.training else x


@exercise("The resolution sweep", resolution_sweep, ())
def sweep(answer):
    model, images = randomise(_Reader()), torch.randn(400, 3, 12, 12)
    with torch.no_grad():
        targets = model.eval()(images).argmax(dim=1)
    sizes = [10, 12, 7, 16, 24]
    expected = resolution_sweep(model, images, targets, sizes)
    model.train().calls.clear()
    with students_code("resolution_sweep takes a model, images, targets and sizes"):
        came = answer(model, images.clone(), targets.clone(), list(sizes))
    if isinstance(came, dict | torch.Tensor) or not isinstance(came, list | tuple):
        likely = "the function has no `return`" if came is None else "return a list"
        raise CheckFailed("a list of numbers", type(came).__name__, likely)
    _require_calls(model.calls)
    if len(came) != len(sizes):
        raise CheckFailed(f"{len(sizes)} shares, one a size", f"{len(came)}")
    values = [float(value) for value in came]
    if _equal(values, expected):
        return f"{len(sizes)} sizes from {min(sizes)} to {max(sizes)} pixels, each share right."
    likely = next(
        (
            hint
            for hint, mistake in SWEEP_MISTAKES
            if _equal(values, mistake(model, images, targets, sizes))
        ),
        "",
    )
    raise CheckFailed(
        ", ".join(f"{value:.4f}" for value in expected),
        ", ".join(f"{value:.4f}" for value in values),
        likely,
    )


def _require_calls(calls):
    if not calls:
        raise CheckFailed("the model gets the resized images", "it was not called")
    if any(training for _, training, _ in calls):
        likely = "in train mode dropout drops, and BatchNorm looks at the batch: model.eval()"
        raise CheckFailed("the model in eval mode", "in train mode", likely)
    if any(gradients for _, _, gradients in calls):
        likely = "call the model inside `with torch.no_grad():`"
        raise CheckFailed("no gradients are recorded", "they are", likely)


def _equal(a, b):
    return all(abs(x - y) < 1e-5 for x, y in zip(a, b, strict=True))
