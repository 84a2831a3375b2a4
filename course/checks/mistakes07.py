"""Typical mistakes in the exercises of lesson 7, and what shows them."""

import math

import torch
import torch.nn.functional as F

from course.augmentation import shift_and_flip
from course.training import warmup_cosine

# Exercise 1


def _cosine(share, warmup=0.1, turns=0.5):
    return (1 + math.cos(2 * math.pi * turns * (share - warmup) / (1 - warmup))) / 2


def _after_warmup(fall):
    return lambda share, warmup: share / warmup if share < warmup else fall(share, warmup)


def _in_warmup(rise):
    return lambda share, warmup: rise(share, warmup) if share < warmup else _cosine(share, warmup)


PARENTHESES = "parentheses are missing: (share - warmup) / (1 - warmup)"
RISE = "below `warmup` the factor is share / warmup"
HALVED = "only a part is halved; parentheses: (1 + cos(...)) / 2"
SCHEDULE_MISTAKES = [  # (hint, what (share, warmup) gives then)
    ("`share` is rounded; take it as it is", lambda s, w: warmup_cosine(round(s, 2), w)),
    (
        "`share` is rounded before it is compared; take it as it is",
        lambda s, w: s / w if round(s, 2) < w else _cosine(s, w),
    ),
    (f"the warm-up is missing: {RISE}", _cosine),
    ("it stays at 1 after the warm-up; let it fall", _after_warmup(lambda s, w: 1.0)),
    ("it stays at 0 after the warm-up; let it fall from 1", _after_warmup(lambda s, w: 0.0)),
    (
        "the cosine counts from the start of the run, so that the factor jumps after the warm-up; "
        "count from its end: (share - warmup) / (1 - warmup)",
        _after_warmup(lambda s, w: _cosine(s, 0)),
    ),
    (
        "the cosine starts at the end of the warm-up, but is too slow: divide by 1 - warmup",
        _after_warmup(lambda s, w: (1 + math.cos(math.pi * (s - w))) / 2),
    ),
    (
        "the fall is not shifted: (share - warmup) / (1 - warmup), not share / (1 - warmup)",
        _after_warmup(lambda s, w: (1 + math.cos(math.pi * s / (1 - w))) / 2),
    ),
    (
        "that divides by the length of the warm-up; the fall lasts 1 - warmup",
        _after_warmup(lambda s, w: (1 + math.cos(math.pi * (s - w) / w)) / 2),
    ),
    (
        "multiplied with 1 - warmup; divide by it, so that the fall ends at 1",
        _after_warmup(lambda s, w: (1 + math.cos(math.pi * (s - w) * (1 - w))) / 2),
    ),
    (
        "it is share - warmup that counts, from the end of the warm-up",
        _after_warmup(lambda s, w: (1 + math.cos(math.pi * (s + w) / (1 - w))) / 2),
    ),
    (
        "divided by 1 + warmup; the fall lasts 1 - warmup",
        _after_warmup(lambda s, w: (1 + math.cos(math.pi * (s - w) / (1 + w))) / 2),
    ),
    (
        "a whole wave, which rises again; half of one goes from 1 to 0: pi, not 2 * pi",
        _after_warmup(lambda s, w: _cosine(s, w, turns=1)),
    ),
    (
        "a quarter of a wave; half of one is asked for: (1 + cos(pi * ...)) / 2",
        _after_warmup(lambda s, w: math.cos(math.pi / 2 * (s - w) / (1 - w))),
    ),
    (
        "the wave goes from 1 to a half: pi times the share, not pi / 2",
        _after_warmup(lambda s, w: _cosine(s, w, turns=0.25)),
    ),
    (
        "math.cos gets the product: math.cos(math.pi * fallen), in its parentheses",
        _after_warmup(lambda s, w: (1 - (s - w) / (1 - w)) / 2),
    ),
    (
        "rounded; return the factor as it is",
        _after_warmup(lambda s, w: round(_cosine(s, w), 2)),
    ),
    (
        "pi is missing: half a wave is math.pi",
        _after_warmup(lambda s, w: (1 + math.cos((s - w) / (1 - w))) / 2),
    ),
    (
        "pi is added; half a wave is pi times the share",
        _after_warmup(lambda s, w: (1 + math.cos(math.pi + (s - w) / (1 - w))) / 2),
    ),
    (
        "a sine; half a wave of a cosine goes from 1 to 0",
        _after_warmup(lambda s, w: (1 + math.sin(math.pi * (s - w) / (1 - w))) / 2),
    ),
    (
        "it falls in a straight line; half a cosine wave is asked for",
        _after_warmup(lambda s, w: (1 - s) / (1 - w)),
    ),
    ("1 + cos goes from 2 to 0: halve it", _after_warmup(lambda s, w: 2 * _cosine(s, w))),
    ("1 + cos goes from 2 to 0: divide by 2", _after_warmup(lambda s, w: 4 * _cosine(s, w))),
    (
        "divided by 3; 1 + cos goes from 2 to 0, so halve it",
        _after_warmup(lambda s, w: 2 / 3 * _cosine(s, w)),
    ),
    (
        "the 1 + is missing: cos goes from 1 to -1",
        _after_warmup(lambda s, w: 2 * _cosine(s, w) - 1),
    ),
    ("the 1 + is missing: cos goes from 1 to -1", _after_warmup(lambda s, w: _cosine(s, w) - 0.5)),
    (
        "1 + where nothing more is to be added",
        _after_warmup(lambda s, w: 1 + _cosine(s, w)),
    ),
    (HALVED, _after_warmup(lambda s, w: 2 * _cosine(s, w) - 0.5)),
    (HALVED, _after_warmup(lambda s, w: _cosine(s, w) + 0.5)),
    (PARENTHESES, _after_warmup(lambda s, w: (1 + math.cos(math.pi * (s - w / (1 - w)))) / 2)),
    (PARENTHESES, _after_warmup(lambda s, w: (1 + math.cos(math.pi * ((s - w) / 1 - w))) / 2)),
    (PARENTHESES, _after_warmup(lambda s, w: (1 + math.cos(math.pi * (s - w / 1 - w))) / 2)),
    (
        "pi counts for the share alone: math.pi * (share - warmup), in parentheses",
        _after_warmup(lambda s, w: (1 + math.cos((math.pi * s - w) / (1 - w))) / 2),
    ),
    (
        "it rises after the warm-up: 1 + cos, not 1 - cos",
        _after_warmup(lambda s, w: 1 - _cosine(s, w)),
    ),
    (
        "the warm-up is not divided by its length: share / warmup goes from 0 to 1",
        _in_warmup(lambda s, w: s),
    ),
    (
        "share and warmup are swapped: share / warmup",
        _in_warmup(lambda s, w: w / s if s else math.inf),
    ),
    ("0.1 is written in; use `warmup`", _in_warmup(lambda s, w: s / 0.1)),
    ("the warm-up multiplies; divide: share / warmup", _in_warmup(lambda s, w: s * w)),
    ("the warm-up stays at 1; let it rise: share / warmup", _in_warmup(lambda s, w: 1.0)),
    ("the warm-up stays at 0; let it rise: share / warmup", _in_warmup(lambda s, w: 0.0)),
    ("the warm-up stays at `warmup`; let it rise: share / warmup", _in_warmup(lambda s, w: w)),
    (
        "the warm-up goes from 1 down to 0; it rises: share / warmup",
        _in_warmup(lambda s, w: 1 - s / w),
    ),
    (
        "the warm-up rises in a wave; a straight line is asked for: share / warmup",
        _in_warmup(lambda s, w: (1 - math.cos(math.pi * s / w)) / 2),
    ),
    (
        "the two cases have changed places: up to `warmup` share / warmup, then the cosine",
        lambda s, w: _cosine(s, w) if s < w else s / w,
    ),
    ("the fall is missing: it goes on rising", lambda s, w: s / w),
    (
        "rise times fall; the first alone counts before `warmup`, the second alone after it",
        lambda s, w: s / w * _cosine(s, w),
    ),
    ("the warm-up lasts a tenth of the run, whatever `warmup` says", lambda s, w: warmup_cosine(s)),
    (
        "degrees? math.cos takes radians: half a wave is math.pi",
        _after_warmup(lambda s, w: (1 + math.cos(180 * (s - w) / (1 - w))) / 2),
    ),
]

# Exercise 2


def _rolled(images, down, right, flipped):
    moves = zip(images, down.tolist(), right.tolist(), strict=True)
    moved = torch.stack([image.roll((-d, -r), dims=(1, 2)) for image, d, r in moves])
    return _mirrored(moved, flipped)


def _with_zeros(images, down, right, flipped):
    height, width = images.shape[2:]
    rows = torch.arange(height) + down[:, None]
    columns = torch.arange(width) + right[:, None]
    inside = ((rows >= 0) & (rows < height))[:, None, :, None]
    inside = inside & ((columns >= 0) & (columns < width))[:, None, None]
    moved = shift_and_flip(images, down, right, torch.zeros_like(flipped))
    return _mirrored(torch.where(inside, moved, torch.zeros_like(moved)), flipped)


def _reflected(images, down, right, flipped):
    """What is outside is the border's mirror image."""
    batch = torch.arange(len(images))[:, None, None]
    places = []
    for length, moves in zip(images.shape[2:], (down, right), strict=True):
        place = (torch.arange(length) + moves[:, None]).abs() % (2 * length - 2)
        places.append(torch.minimum(place, 2 * length - 2 - place))
    rows, columns = places
    moved = images.movedim(1, 3)[batch, rows[:, :, None], columns[:, None]].movedim(3, 1)
    return _mirrored(moved, flipped)


def _mirrored(images, flipped, dim=3):
    return torch.where(flipped[:, None, None, None], images.flip(dim), images)


def _unflipped(images, down, right, flipped):
    return shift_and_flip(images, down, right, torch.zeros_like(flipped))


def _off(rows=0, columns=0):
    """Shifted by so many pixels more."""
    return lambda x, d, r, f: shift_and_flip(x, d + rows, r + columns, f)


def _limited(most):
    return lambda x, d, r, f: shift_and_flip(x, d.clamp(-most, most), r.clamp(-most, most), f)


def _border(rows=0, columns=0):
    """The last or first so many rows and columns are never taken."""

    def wrong(images, down, right, flipped):
        height, width = images.shape[2:]
        batch = torch.arange(len(images))[:, None, None]
        top, left = max(0, rows), max(0, columns)
        bottom, end = height - 1 + min(0, rows), width - 1 + min(0, columns)
        y = (torch.arange(height) + down[:, None]).clamp(top, bottom)
        x = (torch.arange(width) + right[:, None]).clamp(left, end)
        moved = images.movedim(1, 3)[batch, y[:, :, None], x[:, None]].movedim(3, 1)
        return _mirrored(moved, flipped)

    return wrong


def _negative(images, down, right, flipped):
    height, width = images.shape[2:]
    batch = torch.arange(len(images))[:, None, None]
    rows = (torch.arange(height) + down[:, None]).clamp(0, height - 1)
    columns = (torch.arange(width) + right[:, None]).clamp(0, width - 1)
    columns = torch.where(flipped[:, None], -columns, columns)
    return images.movedim(1, 3)[batch, rows[:, :, None], columns[:, None]].movedim(3, 1)


SHIFT_MISTAKES = [
    ("down and right are swapped", lambda x, d, r, f: shift_and_flip(x, r, d, f)),
    (
        "shifted the other way: what is seen at row 0 was at row 0 + down",
        lambda x, d, r, f: shift_and_flip(x, -d, -r, f),
    ),
    ("rows go the other way: row + down", lambda x, d, r, f: shift_and_flip(x, -d, r, f)),
    ("columns go the other way: column + right", lambda x, d, r, f: shift_and_flip(x, d, -r, f)),
    (
        "what leaves on one side comes in on the other; repeat the border instead: "
        ".clamp(0, height - 1), .clamp(0, width - 1)",
        _rolled,
    ),
    ("what was outside is black; repeat the border's pixels: clamp", _with_zeros),
    (
        "what was outside is a mirror image of the border; repeat the border's pixels: clamp",
        _reflected,
    ),
    ("nothing is flipped", _unflipped),
    (
        "all are flipped, not those alone where `flipped` is True",
        lambda x, d, r, f: shift_and_flip(x, d, r, torch.ones_like(f)),
    ),
    (
        "the others are flipped: those where `flipped` is False",
        lambda x, d, r, f: shift_and_flip(x, d, r, ~f),
    ),
    (
        "all are flipped as soon as one is; each image has its own",
        lambda x, d, r, f: shift_and_flip(x, d, r, f.any().expand_as(f)),
    ),
    (
        "upside down; left and right should change places: the columns, dim 3",
        lambda *a: _mirrored(_unflipped(*a), a[3], dim=2),
    ),
    (
        "the columns' numbers are mirrored, as if the image were flipped first and shifted "
        "afterwards; shift, then turn their order around: columns.flip(1)",
        lambda x, d, r, f: shift_and_flip(x, d, torch.where(f, -r, r), f),
    ),
    (
        "flipped first and shifted afterwards; shift, then flip",
        lambda x, d, r, f: _unflipped(_mirrored(x, f), d, r, f),
    ),
    (
        "every image gets the first one's shift; each has its own",
        lambda x, d, r, f: shift_and_flip(x, d[:1].expand_as(d), r[:1].expand_as(r), f),
    ),
    (
        "the batch's order is turned around, not the columns': .flip(1), not .flip(0)",
        lambda x, d, r, f: shift_and_flip(x, d, torch.where(f, r.flip(0), r), f & False),
    ),
    (
        "every image is flipped upside down too; left and right alone change places: dim 3",
        lambda *a: _mirrored(shift_and_flip(*a), a[3], dim=2),
    ),
    ("neither rows nor columns move", lambda x, d, r, f: shift_and_flip(x, 0 * d, 0 * r, f)),
    (
        "-columns counts from the end, so that column 0 stays; .flip(1) turns the order around",
        _negative,
    ),
    ("the rows do not move", lambda x, d, r, f: shift_and_flip(x, 0 * d, r, f)),
    ("the columns do not move", lambda x, d, r, f: shift_and_flip(x, d, 0 * r, f)),
    ("the images are returned as they came", lambda x, d, r, f: x),
    (
        "rows count from 0: torch.arange(height), and .clamp(0, height - 1)",
        _off(rows=1),
    ),
    (
        "columns count from 0: torch.arange(width), and .clamp(0, width - 1)",
        _off(columns=1),
    ),
    ("the last row is never taken: .clamp(0, height - 1)", _border(rows=-1)),
    ("the last column is never taken: .clamp(0, width - 1)", _border(columns=-1)),
    ("row 0 is never taken: .clamp(0, height - 1)", _border(rows=1)),
    ("column 0 is never taken: .clamp(0, width - 1)", _border(columns=1)),
    *(
        (
            f"moved by {most} pixels at most; shifts may be of any size: repeat the border as "
            "often as it takes",
            _limited(most),
        )
        for most in (1, 2, 3, 4, 5, 8)
    ),
    (
        "the channels stand last: [B, C, H, W] is asked for; .movedim(3, 1) takes them back",
        lambda *a: shift_and_flip(*a).movedim(1, 3),
    ),
    ("height and width are swapped in the result", lambda *a: shift_and_flip(*a).mT),
]

# Exercise 3


def mix(images, targets, share, partner, smoothing=0.1):
    """The reference of exercise 3: images and smoothed targets faded into those of partners."""
    targets = _smooth(targets, smoothing)
    return _fade(images, share, partner), _fade(targets, share, partner)


def _smooth(targets, smoothing):
    return (1 - smoothing) * targets + smoothing / targets.shape[1]


def _fade(values, share, partner):
    return share * values + (1 - share) * values[partner]


def _smooth_others(targets, smoothing):
    return torch.where(targets > 0.5, 1 - smoothing, smoothing / (targets.shape[1] - 1))


FADES = [  # (hint, what becomes of values, share, partner); for images, targets or both
    ("{} are not mixed", lambda v, share, partner: v),
    ("{} are their partners'; mix them", lambda v, share, partner: v[partner]),
    (
        "of {}, the share is the partner's: what is one's own gets `share`, the partner 1 - share",
        lambda v, share, partner: _fade(v, 1 - share, partner),
    ),
    ("the partner is subtracted from {}; it is added", lambda v, s, p: s * v - (1 - s) * v[p]),
    ("the partner's part of {} is missing", lambda v, s, p: s * v),
    ("{} have lost their own part, share * ...", lambda v, s, p: (1 - s) * v[p]),
    ("of {}, the partner is added in full: 1 - share of it", lambda v, s, p: s * v + v[p]),
    ("{} keep all of themselves: share of it", lambda v, s, p: v + (1 - s) * v[p]),
    ("{} get `share` of both; the partner 1 - share", lambda v, s, p: s * v + s * v[p]),
    ("{} get all of both; one's own `share`, the partner 1 - share", lambda v, s, p: v + v[p]),
    ("of {}, the partner gets 1 + share; it is 1 - share", lambda v, s, p: s * v + (1 + s) * v[p]),
    (
        "of {}, 1 - share needs parentheses: (1 - share) * ...",
        lambda v, s, p: s * v + 1 - s * v[p],
    ),
    ("{} are mixed half and half; `share` says how", lambda v, s, p: (v + v[p]) / 2),
    (
        "{} are mixed with themselves; the partner is at [partner]",
        lambda v, s, p: s * v + (1 - s) * v,
    ),
    (
        "of {}, the next in the batch takes the partner's place; `partner` says which it is",
        lambda v, s, p: _fade(v, s, (torch.arange(len(v)) + 1) % len(v)),
    ),
    (
        "of {}, the one before takes the partner's place; `partner` says which it is",
        lambda v, s, p: _fade(v, s, (torch.arange(len(v)) - 1) % len(v)),
    ),
    (
        "of {}, the batch in reverse order takes the partners' place; `partner` says which they "
        "are",
        lambda v, s, p: _fade(v, s, torch.arange(len(v)).flip(0)),
    ),
    (
        "of {}, each is given to its partner, not taken from it: values[partner]",
        lambda v, s, p: _fade(v, s, p.argsort()),
    ),
]
SMOOTHS = [  # (hint, smoothed targets before they are mixed)
    ("the targets are not smoothed", lambda t, s: t),
    (
        "1 - smoothing needs parentheses: (1 - smoothing) * targets",
        lambda t, s: 1 - s * t + s / t.shape[1],
    ),
    (
        "smoothing / K is added for all classes; only (1 - smoothing) scales the targets",
        lambda t, s: t * (1 - s / t.shape[1]),
    ),
    (
        "the true class lacks its part of the smoothing: all K classes get smoothing / K",
        _smooth_others,
    ),
    (
        "the true class lacks its part of the smoothing: all K classes get smoothing / K",
        lambda t, s: torch.where(t > 0.5, 1 - s, s / t.shape[1]),
    ),
    (
        "the targets are not scaled by 1 - smoothing, so that they add up to more than 1",
        lambda t, s: t + s / t.shape[1],
    ),
    (
        "smoothing is not shared out: each of K classes gets smoothing / K",
        lambda t, s: (1 - s) * t + s,
    ),
    (
        "only (1 - smoothing) * targets: the smoothing / K for all classes is missing",
        lambda t, s: (1 - s) * t,
    ),
    ("only smoothing / K: the targets themselves are missing", lambda t, s: 0 * t + s / t.shape[1]),
    ("smoothing / K is subtracted; it is added", lambda t, s: (1 - s) * t - s / t.shape[1]),
    ("scaled by 1 + smoothing; it is 1 - smoothing", lambda t, s: (1 + s) * t + s / t.shape[1]),
    (
        "smoothing * K; each of K classes gets smoothing / K",
        lambda t, s: (1 - s) * t + s * t.shape[1],
    ),
    (
        "divided by K - 1; all K classes get smoothing / K",
        lambda t, s: (1 - s) * t + s / (t.shape[1] - 1),
    ),
    (
        "divided by the number of images; K is the number of classes, targets.shape[1]",
        lambda t, s: (1 - s) * t + s / len(t),
    ),
    *(
        (
            f"K = {classes} is written in; it is the number of classes, targets.shape[1]",
            lambda t, s, classes=classes: (1 - s) * t + s / classes,
        )
        for classes in (10, 100, 1000)
    ),
    ("smoothing is 0.1, whatever is asked for", lambda t, s: _smooth(t, 0.1)),
    (
        "smoothing and 1 - smoothing are swapped",
        lambda t, s: s * t + (1 - s) / t.shape[1],
    ),
    (
        "1 / K stands in parentheses with the targets: (1 - smoothing) * targets + smoothing / K",
        lambda t, s: ((1 - s) * t + s) / t.shape[1],
    ),
    (
        "the largest class alone is kept; smooth all targets",
        lambda t, s: _smooth((t > 0.5).float(), s),
    ),
    (
        "a softmax of the targets; they are probabilities already",
        lambda t, s: _smooth(t.softmax(1), s),
    ),
]


def _mixes():
    """(hint, function): one of the parts is wrong, or both fades alike."""
    for hint, fade in FADES:
        yield (
            hint.format("images and targets"),
            lambda x, t, share, partner, s=0.1, fade=fade: (
                fade(x, share, partner),
                fade(_smooth(t, s), share, partner),
            ),
        )
        yield (
            hint.format("the images"),
            lambda x, t, share, partner, s=0.1, fade=fade: (
                fade(x, share, partner),
                _fade(_smooth(t, s), share, partner),
            ),
        )
        yield (
            hint.format("the targets"),
            lambda x, t, share, partner, s=0.1, fade=fade: (
                _fade(x, share, partner),
                fade(_smooth(t, s), share, partner),
            ),
        )
    for hint, smooth in SMOOTHS:
        yield (
            hint,
            lambda x, t, share, partner, s=0.1, smooth=smooth: (
                _fade(x, share, partner),
                _fade(smooth(t, s), share, partner),
            ),
        )


MIX_MISTAKES = [
    *_mixes(),
    *(
        (
            "the larger of share and 1 - share is taken of the images; share may be below a half",
            lambda x, t, share, partner, s=0.1, soft=soft: (
                _fade(x, max(share, 1 - share), partner),
                _fade(_smooth(t, s), max(share, 1 - share) if soft else share, partner),
            ),
        )
        for soft in (False, True)
    ),
    ("targets and images are swapped in the result", lambda *a: mix(*a)[::-1]),
    (
        "the partners' targets are not smoothed: smooth all, then mix",
        lambda x, t, share, partner, s=0.1: (
            _fade(x, share, partner),
            share * _smooth(t, s) + (1 - share) * t[partner],
        ),
    ),
    (
        "the partners alone are smoothed: smooth all, then mix",
        lambda x, t, share, partner, s=0.1: (
            _fade(x, share, partner),
            share * t + (1 - share) * _smooth(t, s)[partner],
        ),
    ),
    (
        "smoothed twice; the partners' targets are smooth already",
        lambda x, t, share, partner, s=0.1: (
            _fade(x, share, partner),
            _smooth(_fade(_smooth(t, s), share, partner), s),
        ),
    ),
    ("both results are the images", lambda *a: (mix(*a)[0], mix(*a)[0])),
    ("both results are the targets", lambda *a: (mix(*a)[1], mix(*a)[1])),
    ("images and targets are returned, not the targets alone", lambda *a: mix(*a)[1]),
    ("images and targets are returned, not the images alone", lambda *a: mix(*a)[0]),
    (
        "the targets' fade uses the images that are mixed already; each starts from what was given",
        lambda x, t, share, partner, s=0.1: (
            _fade(_fade(x, share, partner), share, partner),
            _fade(_smooth(t, s), share, partner),
        ),
    ),
]

# Exercise 4: settings of `step` in checks/lesson07.py

STEP_MISTAKES = [
    (
        "the forward pass runs in float32: put it under torch.autocast(..., dtype=torch.bfloat16)",
        {"dtype": None},
    ),
    (
        "the loss is computed in bfloat16, with three digits: logits.float() first",
        {"digits": torch.bfloat16},
    ),
    ("the gradients of the step before are added: optimizer.zero_grad()", {"zero": False}),
    (
        "a softmax before the cross-entropy, which has one of its own",
        {"loss": lambda y, t: F.cross_entropy(y.softmax(1), t)},
    ),
    (
        "a log_softmax and nll_loss of probabilities?",
        {"loss": lambda y, t: F.nll_loss(y.softmax(1), t)},
    ),
    ("nll_loss takes log-probabilities; F.cross_entropy takes logits", {"loss": F.nll_loss}),
    (
        "the sum over the batch; the mean is usual",
        {"loss": lambda y, t: F.cross_entropy(y, t, reduction="sum")},
    ),
    (
        "label smoothing, which nobody asked for here",
        {"loss": lambda y, t: F.cross_entropy(y, t, label_smoothing=0.1)},
    ),
    (
        "the squared error; cross-entropy is asked for",
        {"loss": lambda y, t: F.mse_loss(y, F.one_hot(t, y.shape[1]).float())},
    ),
    (
        "the largest logits are taken for targets",
        {"loss": lambda y, t: F.cross_entropy(y, y.argmax(1))},
    ),
    ("the loss is negated: the step climbs", {"loss": lambda y, t: -F.cross_entropy(y, t)}),
    ("two steps instead of one", {"steps": 2}),
]

# Exercise 5


def _averaged(new, old=None, counters=True):
    """A mistaken update, of the parameters by `new` and of running statistics by `old` or `new`."""

    @torch.no_grad()
    def wrong(average, model, decay):
        parameters = dict(average.named_parameters())
        theirs = model.state_dict()
        for name, value in average.state_dict().items():
            change = new if old is None or name in parameters else old
            if value.is_floating_point():
                value.copy_(change(value, theirs[name], decay))
            elif counters:
                value.copy_(theirs[name])

    return wrong


def _right(a, m, d):
    return d * a + (1 - d) * m


def _kept(a, m, d):
    return a


COUNTER = "counters are left out: copy what is not floating point, as num_batches_tracked"
STATISTICS = (
    "the running statistics of BatchNorm are left out: parameters() has weights alone, "
    "state_dict() has all"
)
AVERAGE_MISTAKES = [
    (
        "decay and 1 - decay are swapped: the average keeps `decay` of itself",
        _averaged(lambda a, m, d: d * m + (1 - d) * a),
    ),
    (STATISTICS, _averaged(_right, _kept)),
    (
        "the running statistics are copied; they are averaged as weights are",
        _averaged(_right, lambda a, m, d: m),
    ),
    ("the weights are left out; all of the state is averaged", _averaged(_kept, _right)),
    (
        "the plain mean of both; `decay` says how much is kept",
        _averaged(lambda a, m, d: (a + m) / 2),
    ),
    (
        "the model's weights are copied; the average keeps `decay` of itself (or is the condition "
        "the wrong way round?)",
        _averaged(lambda a, m, d: m),
    ),
    (
        "the average is scaled by decay, but nothing of the model is added",
        _averaged(lambda a, m, d: d * a),
    ),
    (
        "it becomes (1 - decay) of the model; `decay` of the average itself is missing",
        _averaged(lambda a, m, d: (1 - d) * m),
    ),
    ("the model's part is not scaled by 1 - decay", _averaged(lambda a, m, d: d * a + m)),
    (
        "the model's part gets `decay` too; it is 1 - decay",
        _averaged(lambda a, m, d: d * a + d * m),
    ),
    (
        "the model's part gets 1 + decay; it is 1 - decay",
        _averaged(lambda a, m, d: d * a + (1 + d) * m),
    ),
    (
        "1 - decay needs parentheses: (1 - decay) * ...",
        _averaged(lambda a, m, d: d * a + 1 - d * m),
    ),
    (
        "the average moves away from the model: the parts are `decay` and 1 - decay",
        _averaged(lambda a, m, d: a + (1 + d) * (m - a)),
    ),
    (
        "the average moves away from the model: the parts are `decay` and 1 - decay",
        _averaged(lambda a, m, d: (1 + d) * a - d * m),
    ),
    (
        "weights are copied, running statistics averaged; all that is floating point is averaged",
        _averaged(lambda a, m, d: m, _right),
    ),
    ("the model's part is subtracted; it is added", _averaged(lambda a, m, d: d * a - (1 - d) * m)),
    ("the average's part is not scaled by decay", _averaged(lambda a, m, d: a + (1 - d) * m)),
    (
        "the average's part is 1 - decay too; it is `decay`",
        _averaged(lambda a, m, d: (1 - d) * (a + m)),
    ),
    ("both are added; the parts are `decay` and 1 - decay", _averaged(lambda a, m, d: a + m)),
    ("decay is 0.99, whatever is given", _averaged(lambda a, m, d: 0.99 * a + 0.01 * m)),
    ("decay is 0.9, whatever is given", _averaged(lambda a, m, d: 0.9 * a + 0.1 * m)),
    (COUNTER, _averaged(_right, counters=False)),
    (f"{STATISTICS} (and counters)", _averaged(_right, _kept, counters=False)),
]
