"""Checks of lesson 6, meeting timm: `from course.checks import lesson06 as check`."""

import copy
import functools
from contextlib import suppress
from dataclasses import replace

import timm
import torch
from torch import nn

import coatnet
from coatnet import CONFIGS
from coatnet.timm_weights import TIMM_NAMES, our_name
from course.checking import CheckFailed, exercise, students_code
from course.checks import mistakes06
from course.checks.mistakes06 import CoAtNetRW, MBConvRW
from course.checks.settings06 import settings as settings
from course.checks.settings06 import shapes_by_name
from course.checks.shared import Calls, brief, explained, number_of, small_grids
from course.comparing import (
    Instead,
    by_name,
    close,
    compare,
    randomise,
    require_eps,
    require_unchanged,
)

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
    return our_name(name)


@functools.cache
def _timm_names():
    """The names of three models, and those of later blocks as in larger ones."""
    names = []
    for model in ("coatnet_0_224", "coatnet_nano_rw_224", "coatnet_0_rw_224"):
        with torch.device("meta"):
            names += _timm_model(model).state_dict()
    later = [name.replace(".blocks.0.", f".blocks.{b}.") for name in names for b in (7, 13)]
    return list(dict.fromkeys([*names, *later]))


@exercise("Names", rename, ())
def names(answer):
    results = {}
    for name in _timm_names():
        right = rename(name)
        with students_code(f"rename({name!r}) = {right!r}"):
            results[name] = answer(name)
    for name, came in results.items():
        right = rename(name)
        if not isinstance(came, str) or came != right:
            likely = mistakes06.name_mistake(name, right, came, TIMM_NAMES.items(), results)
            raise CheckFailed(f"rename({name!r}) = {right!r}", repr(came), likely)
    return f"all {len(results)} names of three models, parameters and buffers."


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
    counts = []
    for name in ("coatnet_0_224", "coatnet_0_rw_224"):  # whose entries stand in another order
        theirs = randomise(_timm_model(name)).eval()
        ours = coatnet.from_timm(_timm_model(name))
        for number, module in enumerate(m for m in theirs.modules() if _counts(m)):
            module.num_batches_tracked.fill_(number + 3)
        came = _converted(answer, theirs, ours)
        ours.load_state_dict(came)
        share = largest_difference(ours, theirs, torch.randn(2, 3, 64, 64))
        if not share <= 1e-4:
            raise CheckFailed("timm's logits, to 1e-4 of the largest", f"off by {share:.0e}")
        counts.append(len(came))
    return (
        f"{counts[0]} and {counts[1]} tensors of two models, with our names, in our shapes and "
        "order; with them our models give timm's logits."
    )


def _counts(module):
    return isinstance(module, nn.BatchNorm2d)


def _converted(answer, theirs, ours):
    """What the answer makes of timm's weights, once each entry has been compared."""
    given = theirs.state_dict()
    before = {name: tensor.clone() for name, tensor in given.items()}
    expected, passed_on = convert(before, ours), dict(given)
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
    _compare_names(came, expected, before)
    sources = {rename(name): tensor for name, tensor in before.items()}
    for name, right in expected.items():
        _compare_tensor(name, came[name], right, sources[name], expected)
    return came


def _compare_names(came, expected, given):
    missing = [name for name in expected if name not in came]
    extra = [name for name in came if name not in expected]
    if missing or extra:
        rows = [f"{name} is missing" for name in missing[:2]]
        rows += [f"{name} is not expected" for name in extra[:2]]
        likely = mistakes06.names_mistake(came, expected, given)
        raise CheckFailed(f"the {len(expected)} names of `model`", "\n".join(rows), likely)


def _compare_tensor(name, came, right, theirs, expected):
    if not isinstance(came, torch.Tensor):
        likely = "the tensor itself is asked for" if isinstance(came, torch.Size | tuple) else ""
        raise CheckFailed(f"{name}: a tensor", type(came).__name__, likely)
    if came.shape != right.shape:
        likely = mistakes06.shape_mistake(name, came, right)
        raise CheckFailed(f"{name}: {list(right.shape)}", f"{list(came.shape)}", likely)
    if came.dtype != right.dtype:
        likely = "only names and shapes change, not types"
        raise CheckFailed(f"{name}: {right.dtype}", f"{came.dtype}", likely)
    if not torch.equal(came, right):
        likely = mistakes06.tensor_mistake(name, came, right, theirs, expected)
        places = (came != right).nonzero()[0].tolist()
        index = tuple(places)
        at = f" at {places}" if places else ""
        raise CheckFailed(
            f"{name}: {right[index].item():.4g}{at}", f"{came[index].item():.4g}", likely
        )


# Exercise 3


def largest_difference(model, reference, images):
    """The reference of exercise 3: max |y - expected| / max |expected|, in eval mode."""
    with torch.no_grad():
        y, expected = model.eval()(images), reference.eval()(images)
    return ((y - expected).abs().max() / expected.abs().max()).item()


class _Speaker(nn.Module):
    """Gives each image the logits it was made with in eval mode, others in train mode."""

    def __init__(self, logits, images):
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.register_buffer("images", images.clone())
        self.calls = Calls()

    def forward(self, images):
        index = images[:, 0, 0, 0].round().long().clamp(0, len(self.logits) - 1)
        known = torch.equal(images, self.images[index])
        self.calls.append((self.training, torch.is_grad_enabled(), known))
        return self.logits[index] * (-3 if self.training else 1)


# logits of a model, and of its reference; the largest ratio is not where the largest values are
LOGITS = [
    ([[0.5, -8.0, 2.0], [1.0, 3.0, 0.25]], [[0.5, -5.0, 2.5], [1.0, 3.0, 2.0]]),
    ([[1.0, 2.0, 0.5], [3.0, 4.0, -1.5]], [[1.0, 2.0, 0.5], [3.0, 4.0, -1.5]]),
    ([[-1.0, 2.0, 0.1]], [[-2.0, 0.5, 4.0]]),
    (
        [[0.2, 0.1], [6.0, -1.0], [0.3, -2.5]],
        [[0.25, 0.3], [6.5, -1.0], [0.3, -3.25]],
    ),
]


@exercise("Equal logits", largest_difference, ())
def difference(answer):
    cases = [tuple(map(torch.tensor, pair)) for pair in LOGITS]
    came = []
    for y, expected in cases:
        images = torch.randn(len(y), 3, 4, 4)
        images[:, 0, 0, 0] = torch.arange(len(y))  # so that an image is known by itself
        model, reference = _Speaker(y, images).train(), _Speaker(expected, images).train()
        given = model, reference, images.clone()
        before = copy.deepcopy((*given[2:], dict(model.state_dict()), dict(reference.state_dict())))
        with students_code("largest_difference takes two models and images"):
            value = answer(*given)
        after = given[2], dict(model.state_dict()), dict(reference.state_dict())
        require_unchanged(after, before, "largest_difference(images, and the models' weights)")
        came.append(number_of(value, "one number: .max() goes over all images and classes"))
        _require_calls(model, reference)
    for (y, expected), value in zip(cases, came, strict=True):
        right = ((y - expected).abs().max() / expected.abs().max()).item()
        if not abs(value - right) <= 1e-6:  # NaN, too
            fitting = (h for h, f in mistakes06.FRACTIONS if mistakes06.always(f, cases, came))
            logits = f"logits {y.tolist()}\nagainst {expected.tolist()}"
            likely = "no number: 0 / 0, or inf - inf" if value != value else next(fitting, "")
            raise CheckFailed(f"{right:.4f}, for {logits}", f"{value:.4f}", likely)
    return f"the right share for {len(cases)} pairs of models, in eval mode, without gradients."


def _require_calls(model, reference):
    for name, speaker in (("model", model), ("reference", reference)):
        if not speaker.calls:
            raise CheckFailed(f"`{name}` gets the images", f"`{name}` was not called")
        for training, gradients, known in speaker.calls:
            if not known:
                raise CheckFailed(f"`{name}` gets the images as they are", "other values")
            if training:
                likely = (
                    f"in train mode BatchNorm looks at the batch, and dropout drops: {name}.eval()"
                )
                raise CheckFailed("both models in eval mode", f"`{name}` in train mode", likely)
            if gradients:
                likely = "put both calls into `with torch.no_grad():`"
                raise CheckFailed("no gradients are recorded", "they are", likely)


# Exercises 5 and 6


def _require_names(answer, reference, mistakes, what, **arguments):
    """Names are given in these exercises, so that weights can go in by name."""
    with students_code(f"{reference.__name__} can be built"):
        student = answer(**arguments)
    if not isinstance(student, nn.Module):
        raise CheckFailed("a nn.Module", type(student).__name__)
    original = reference(**arguments)
    right, came = shapes_by_name(original), shapes_by_name(student)
    if came == right:
        return
    missing = [name for name in right if name not in came]
    extra = [name for name in came if name not in right]
    look_at = f"{reference.__name__}.__init__"
    if (missing or extra) and sorted(right.values()) == sorted(came.values()):
        raise CheckFailed(
            f"the names of {what}, such as {(missing or list(right))[0]}",
            f"{(extra or ['nothing of the kind'])[0]}",
            "weights go in by name here: call the attributes as the exercise says",
            look_at,
        )
    fitting = (h for h, edit in mistakes if _shapes_with(edit, original) == came)
    likely = next(fitting, "") or mistakes06.part_mistake(right, came)
    rows = [f"{name} is missing" for name in missing]
    rows += [f"{name} {list(came[name])} is not expected" for name in extra]
    wrong = [name for name in right if name in came and came[name] != right[name]]
    rows += [f"{name} is {list(came[name])}, not {list(right[name])}" for name in wrong]
    raise CheckFailed(
        f"{len(right)} tensors in {what}, with the names and shapes of the text",
        "\n".join(rows[:3]) + (f"\nand {len(rows) - 3} more" if len(rows) > 3 else ""),
        likely,
        look_at,
    )


@torch.no_grad()
def _require_places(answer, reference, images, **arguments):
    """Two layers of one shape may stand under each other's name: then weights go astray."""
    student, right = answer(**arguments).eval(), randomise(reference(**arguments)).eval()
    student.load_state_dict(right.state_dict())
    if not close(student(images), right(images)):
        raise CheckFailed(
            "the reference's values with its weights loaded by name",
            "other values, though the computation is right",
            "two layers of one shape stand under each other's names, such as norm1 and norm2",
            f"{reference.__name__}.__init__",
        )


def _shapes_with(edit, original):
    """The shapes of the reference with a mistake; none where it can't be made at these sizes."""
    with suppress(RuntimeError, ValueError, AttributeError):
        if isinstance(edit, Instead):
            return shapes_by_name(edit.build())
        wrong = copy.deepcopy(original)
        edit(wrong)
        return shapes_by_name(wrong)


BLOCK_NANO = CONFIGS["coatnet_nano_rw_224"]
# Every setting differs from the others at least once. In, out, stride, image; config
BLOCKS = [
    ((8, 13, 2, (7, 10)), BLOCK_NANO),
    ((7, 7, 1, (5, 6)), BLOCK_NANO),
    ((9, 9, 2, (6, 5)), BLOCK_NANO),
    ((6, 11, 2, (9, 4)), replace(BLOCK_NANO, pre_activation=True)),
    ((8, 13, 2, (4, 7)), replace(BLOCK_NANO, excite_first=True)),
    ((7, 10, 2, (5, 4)), replace(BLOCK_NANO, excite_activation="relu")),
    ((6, 11, 2, (6, 7)), replace(BLOCK_NANO, conv_bias=False)),
    ((8, 13, 2, (5, 6)), replace(BLOCK_NANO, shortcut_bias=False)),
    ((8, 13, 2, (7, 10)), CONFIGS["coatnet_0_rw_224"]),
    ((7, 7, 1, (5, 6)), CONFIGS["coatnet_0_rw_224"]),
]


@exercise("MBConv for _rw", MBConvRW, ["__init__", "forward"])
def mbconv_rw(answer):
    proven = []
    for (c_in, c_out, stride, image), config in BLOCKS:
        sizes = {"in_channels": c_in, "out_channels": c_out, "stride": stride, "config": config}
        mistakes = mistakes06.block_mistakes(**sizes)
        images = torch.randn(3, c_in, *image)
        proven.append(_prove(answer, MBConvRW, sizes, images, mistakes, "the block"))
    return "both models' blocks, each setting by itself, stride 2 and 1; " + proven[0]


def _prove(answer, reference, sizes, images, mistakes, what):
    complaints = mistakes06.COMPLAINTS
    try:
        with brief(sizes["config"]), explained(complaints=complaints), small_grids():
            _require_names(answer, reference, mistakes, what, **sizes)
            proven = compare(answer, reference, images, mistakes, orders=by_name, **sizes)
            _require_places(answer, reference, images, **sizes)
            return proven
    except CheckFailed as failure:
        likely = mistakes06.spatial_mistake(getattr(failure, "shapes", ()))
        failure.rows["likely"] = likely or failure.rows["likely"]
        raise


# config, classes, image_size, image given
MODELS = [
    (
        replace(BLOCK_NANO, depths=(1, 2, 2, 1), widths=(32, 64, 32, 96), stem_widths=(4, 8)),
        6,
        65,
        (64, 96),
    ),
    (
        replace(
            CONFIGS["coatnet_0_rw_224"],
            depths=(2, 1, 1, 3),
            widths=(6, 32, 64, 96),
            stem_widths=(7, 4),
        ),
        5,
        96,
        (90, 70),
    ),
]


@exercise("CoAtNet for _rw", CoAtNetRW, ["__init__", "forward"], builds_on=[MBConvRW])
def coatnet_rw(answer):
    for config, classes, side, image in MODELS:
        sizes = {"config": config, "num_classes": classes, "image_size": side}
        mistakes = mistakes06.model_mistakes(**sizes)
        proven = _prove(answer, CoAtNetRW, sizes, torch.randn(3, 3, *image), mistakes, "the model")
        require_eps(answer(**sizes))
    return "nano_rw and 0_rw in small; " + proven
