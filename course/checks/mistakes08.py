"""Typical mistakes in the exercises of lesson 8, and what shows them."""

import torch
import torch.nn.functional as F

HEAD_DIM = 32  # channels a head, as lesson 8 has it

# Exercise 1


def attention_weights(block, x):
    """The reference of exercise 1: where each place looks, [B, heads, N, N]."""
    return _attention(block, x)


def _attention(
    block,
    x,
    norm=True,
    pool=True,
    pool_first=False,
    scale=HEAD_DIM**-0.5,
    bias=True,
    softmax=-1,
    order="qkv",
    by_head=True,
    axes=False,
    same_token=False,
):
    """Attention weights, with a mistake for each argument that is not at its default."""
    if pool_first:
        x = block.norm1(block.pool(x))
    else:
        x = block.norm1(x) if norm else x
        x = block.pool(x) if pool else x
    height, width = x.shape[-2:]
    q, k = _queries_and_keys(block, x, order, by_head)
    if same_token:
        k = q
    scores = q @ k.mT
    if axes:
        height, width = width, height
    table = block.attention.position_bias(height, width)
    if bias == "scaled":
        scores = (scores + table) * scale
    elif bias == "negative":
        scores = scores * scale - table
    elif bias == "transposed":
        scores = scores * scale + table.mT
    elif bias == "first head":
        scores = scores * scale + table[0]
    elif bias == "twice":
        scores = scores * scale + 2 * table
    else:
        scores = scores * scale + (table if bias is True else 0)
    weights = scores if softmax is None else scores.softmax(dim=softmax)
    if bias == "after":
        return weights + table
    return weights


def _queries_and_keys(block, x, order, by_head):
    heads = block.attention.num_heads
    channels = block.attention.qkv(x).flatten(2)  # [B, heads * 96, N]
    if by_head is True:
        parts = channels.unflatten(1, (heads, 3, HEAD_DIM)).unbind(2)
    elif by_head == "interleaved":
        parts = channels.unflatten(1, (heads, HEAD_DIM, 3)).unbind(3)
    else:
        parts = channels.unflatten(1, (3, heads, HEAD_DIM)).unbind(1)
    named = dict(zip("qkv", parts, strict=True))  # each [B, heads, 32, N]
    return (named[letter].mT for letter in order[:2])


def _mistake(**options):
    return lambda block, x: _attention(block, x, **options)


READING_MISTAKES = [
    ("the scores are not scaled: times HEAD_DIM**-0.5", _mistake(scale=1.0)),
    ("the scores are divided by 32, not by its root", _mistake(scale=1 / HEAD_DIM)),
    ("the scores are multiplied with the root of 32; divide", _mistake(scale=HEAD_DIM**0.5)),
    ("the scores are multiplied with 32; divide by its root", _mistake(scale=HEAD_DIM)),
    ("the scores are multiplied with half of 32; ** is the power", _mistake(scale=HEAD_DIM * 0.5)),
    ("HEAD_DIM times -0.5; ** is the power: HEAD_DIM**-0.5", _mistake(scale=HEAD_DIM * -0.5)),
    ("the scores are divided by half of 32; ** is the power", _mistake(scale=2 / HEAD_DIM)),
    ("scaled by 96, three times 32: each of q, k and v has 32", _mistake(scale=96**-0.5)),
    (
        "the bias is scaled too: q @ k^T is scaled, and then the bias is added",
        _mistake(bias="scaled"),
    ),
    (
        "the softmax runs over the queries, so that columns sum to 1; each place shares out its "
        "attention over the keys: dim=-1",
        _mistake(softmax=-2),
    ),
    ("the softmax runs over the heads; it runs over the keys: dim=-1", _mistake(softmax=1)),
    ("the softmax runs over the images; it runs over the keys: dim=-1", _mistake(softmax=0)),
    ("these are the scores; the softmax is missing", _mistake(softmax=None)),
    (
        "a sigmoid; a softmax makes shares of the scores",
        lambda block, x: _attention(block, x, softmax=None).sigmoid(),
    ),
    (
        "a log_softmax; the weights themselves are asked for",
        lambda block, x: _attention(block, x).log(),
    ),
    (
        "the softmax is taken twice",
        lambda block, x: _attention(block, x).softmax(dim=-1),
    ),
    ("the position bias is missing", _mistake(bias=False)),
    ("the bias is added after the softmax; it belongs to the scores", _mistake(bias="after")),
    (
        "the bias is transposed: its rows are queries, its columns keys",
        _mistake(bias="transposed"),
    ),
    ("the bias is subtracted; it is added", _mistake(bias="negative")),
    ("the bias is added twice", _mistake(bias="twice")),
    ("all heads get the bias of the first; each has its own", _mistake(bias="first head")),
    (
        "height and width are swapped: position_bias(h, w), as the grid has them",
        _mistake(axes=True),
    ),
    ("the norm is missing: block.pool(block.norm1(x))", _mistake(norm=False)),
    ("the pooling is missing: block.pool(block.norm1(x))", _mistake(pool=False)),
    ("norm and pooling are missing: block.pool(block.norm1(x))", _mistake(norm=False, pool=False)),
    ("pooling comes before the norm: block.pool(block.norm1(x))", _mistake(pool_first=True)),
    ("q and k are swapped", _mistake(order="kqv")),
    ("k and v are swapped: q comes first, then k, then v", _mistake(order="qvk")),
    ("v takes the place of q: q comes first, then k, then v", _mistake(order="vkq")),
    ("k and v are taken; q and k make the scores", _mistake(order="kvq")),
    ("v takes the place of q, q that of k; q comes first, then k", _mistake(order="vqk")),
    ("q @ q^T: the keys are not used", _mistake(same_token=True)),
    (
        "the channels are taken as all q, then all k, then all v; they stand head by head",
        _mistake(by_head=False),
    ),
    (
        "every third channel is taken for q; of each head's 96, the first 32 are q",
        _mistake(by_head="interleaved"),
    ),
    (
        "the mean over the heads; every head keeps its own weights",
        lambda block, x: _attention(block, x).mean(dim=1),
    ),
    ("one head alone; return all of them", lambda block, x: _attention(block, x)[:, 0]),
    ("one image alone; return all of them", lambda block, x: _attention(block, x)[0]),
    (
        "the mean over the images; each keeps its own weights",
        lambda block, x: _attention(block, x).mean(dim=0),
    ),
    (
        "rows and columns are swapped: row i is where place i looks, and sums to 1",
        lambda block, x: _attention(block, x).mT,
    ),
    (
        "the heads stand behind the places; [B, heads, N, N] is asked for",
        lambda block, x: _attention(block, x).movedim(1, -1),
    ),
]


# Exercise 2


def receptive_field(features, images):
    """The reference of exercise 2: each pixel's share in the middle's gradient, [H, W]."""
    return _shares(_gradient(features, images).abs().mean(dim=(0, 1)))


def _gradient(features, images, place=None, channels=slice(None), power=1):
    images = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        grid = features(images)
        height, width = grid.shape[-2:]
        row, column = place(height, width) if place else (height // 2, width // 2)
        middle = grid[:, channels, row, column]
        (gradient,) = torch.autograd.grad((middle**power).sum(), images)
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
        "divided by the mean; divide by the sum, so that the shares add up to 1",
        _of(lambda g: g.abs().mean(dim=(0, 1)) / g.abs().mean(dim=(0, 1)).mean()),
    ),
    (
        "multiplied with the sum; divide by it, so that the shares add up to 1",
        _of(lambda g: g.abs().mean(dim=(0, 1)) * g.abs().mean(dim=(0, 1)).sum()),
    ),
    (
        "each row adds up to 1; all pixels together do",
        _of(lambda g: F.normalize(g.abs().mean(dim=(0, 1)), p=1, dim=1)),
    ),
    (
        "each column adds up to 1; all pixels together do",
        _of(lambda g: F.normalize(g.abs().mean(dim=(0, 1)), p=1, dim=0)),
    ),
    (
        "a softmax; divide by the sum",
        _of(lambda g: g.abs().mean(dim=(0, 1)).flatten().softmax(0).view(g.shape[2:])),
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
    (
        "the length over the colours; the mean of absolute values is asked for",
        _of(lambda g: _shares(g.norm(dim=1).mean(dim=0))),
    ),
    (
        "the root of the mean square; the mean of absolute values is asked for",
        _of(lambda g: _shares(g.square().mean(dim=(0, 1)).sqrt())),
    ),
    (
        "negative gradients are cut off, a relu; absolute values are asked for",
        _of(lambda g: _shares(g.relu().mean(dim=(0, 1)))),
    ),
    ("the first image alone; average over all", _of(lambda g: _shares(g[0].abs().mean(dim=0)))),
    ("the last image alone; average over all", _of(lambda g: _shares(g[-1].abs().mean(dim=0)))),
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
        "neither images nor colours are averaged: the mean goes over both, dim=(0, 1)",
        _of(lambda g: _shares(g.abs())),
    ),
    (
        "everything is averaged; the mean goes over images and colours alone, dim=(0, 1)",
        _of(lambda g: _shares(g.abs().mean())),
    ),
    (
        "the mean goes over the pixels; it goes over images and colours, dim=(0, 1)",
        _of(lambda g: _shares(g.abs().mean(dim=(2, 3)))),
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
        "the middle one place too far up and left: row h // 2, column w // 2",
        _at(lambda h, w: (h // 2 - 1, w // 2 - 1)),
    ),
    (
        "the middle one place too far down and right: row h // 2, column w // 2",
        _at(lambda h, w: (h // 2 + 1, w // 2 + 1)),
    ),
    (
        "row and column are both h // 2; the column is w // 2",
        _at(lambda h, w: (h // 2, h // 2)),
    ),
    (
        "row and column are both w // 2; the row is h // 2",
        _at(lambda h, w: (w // 2, w // 2)),
    ),
    (
        "a third of the grid; the middle is h // 2, w // 2",
        _at(lambda h, w: (h // 3, w // 3)),
    ),
    (
        "the first channel alone; add up all of them",
        lambda f, x: _shares(_gradient(f, x, channels=0).abs().mean(dim=(0, 1))),
    ),
    (
        "squares are added up, not the channels themselves",
        lambda f, x: _shares(_gradient(f, x, power=2).abs().mean(dim=(0, 1))),
    ),
    (
        "height and width are swapped in the result",
        lambda f, x: receptive_field(f, x).mT,
    ),
    (
        "the images' own values, not their gradient",
        lambda f, x: _shares(x.abs().mean(dim=(0, 1))),
    ),
]


# Exercise 3


def resolution_sweep(model, images, targets, sizes):
    """The reference of exercise 3: the share of right answers at each size, as a list."""
    return sweep_with(model, images, targets, sizes)


def sweep_with(model, images, targets, sizes, mode="bilinear", antialias=True, again=False, **more):
    model.eval()
    shares = []
    for size in sizes:
        resized = F.interpolate(images, size=(size, size), mode=mode, antialias=antialias, **more)
        with torch.no_grad():
            predictions = model(resized).argmax(dim=1)
        shares.append((predictions == targets).float().mean().item())
        images = resized if again else images
    return shares


def _changed(change):
    return lambda *arguments: change(resolution_sweep(*arguments))


def _mean_of_batches(model, images, targets, sizes, count=64):
    parts = list(zip(images.split(count), targets.split(count), strict=True))
    shares = [resolution_sweep(model, x, t, sizes) for x, t in parts]
    return [sum(column) / len(column) for column in zip(*shares, strict=True)]


SWEEP_MISTAKES = [
    ("without antialias=True small sizes skip pixels", lambda *a: sweep_with(*a, antialias=False)),
    (
        "nearest pixels; mode='bilinear' interpolates",
        lambda *a: sweep_with(*a, mode="nearest", antialias=False),
    ),
    ("mode='bicubic'; the text asks for bilinear", lambda *a: sweep_with(*a, mode="bicubic")),
    (
        "mode='bicubic'; the text asks for bilinear, with antialias=True",
        lambda *a: sweep_with(*a, mode="bicubic", antialias=False),
    ),
    (
        "mode='area'; the text asks for bilinear, with antialias=True",
        lambda *a: sweep_with(*a, mode="area", antialias=False),
    ),
    (
        "align_corners=True; leave it out",
        lambda *a: sweep_with(*a, align_corners=True),
    ),
    (
        "each size starts from the images that were resized last; what they lost does not come "
        "back: start from the original ones",
        lambda *a: sweep_with(*a, again=True),
    ),
    (
        "the images are not resized",
        lambda m, x, t, sizes: [resolution_sweep(m, x, t, [x.shape[-1]])[0] for _ in sizes],
    ),
    (
        "all at the first size; the loop's `size` is what counts",
        lambda m, x, t, sizes: [resolution_sweep(m, x, t, [sizes[0]])[0] for _ in sizes],
    ),
    (
        "all at the last size; append inside the loop",
        lambda m, x, t, sizes: [resolution_sweep(m, x, t, [sizes[-1]])[0] for _ in sizes],
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
        "divided by 100; divide by the number of images, len(targets), or take .mean()",
        lambda m, x, t, s: [len(x) * v / 100 for v in resolution_sweep(m, x, t, s)],
    ),
    (
        "rounded; return the shares as they are",
        _changed(lambda s: [round(v, 2) for v in s]),
    ),
    (
        "shares add up from size to size: start each from 0",
        _changed(lambda s: [sum(s[: i + 1]) for i in range(len(s))]),
    ),
    (
        "`sizes` in ascending order; keep the order given",
        lambda m, x, t, s: resolution_sweep(m, x, t, sorted(s)),
    ),
    *(
        (
            "the mean of the batches' shares, of which the last is smaller: count right answers, "
            "and divide by the number of images",
            lambda *a, count=count: _mean_of_batches(*a, count),
        )
        for count in (16, 32, 50, 64, 100, 128)
    ),
    (
        "the class with the largest logit of each image counts: argmax(dim=1)",
        lambda m, x, t, s: resolution_sweep(_Negated(m), x, t, s),
    ),
]


class _Negated(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return -self.model(x)
