"""Mistakes that show in any module, without a list: from its parts, and from what it returns."""

import itertools
from typing import Any

import torch
from torch import nn

from course.comparing import looks
from course.comparing.dropout import SameDropout, Usage
from course.comparing.matching import in_order, lacking, shape_of, shapes_of
from course.comparing.weights import same


def unfinished(student: nn.Module) -> str:
    """Classes where layers belong, and norms that learn nothing, where others like them do."""
    for path, module in student.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, type) and issubclass(value, nn.Module):
                place = f"self.{path}.{name}" if path else f"self.{name}"
                return f"`{place}` is the class {value.__name__}; parentheses make a layer of it"
        if isinstance(module, NORMS) and module.weight is None:
            return f"`self.{path}` has no weight and bias: leave `affine` at its default, True"
    return ""


NORMS = nn.modules.batchnorm._BatchNorm | nn.LayerNorm | nn.GroupNorm


def of_parameters(student: nn.Module, original: nn.Module) -> str:
    """Why an answer's parameters are not those asked for, as far as its attributes tell."""
    missing = lacking(shapes_of(in_order(original)), shapes_of(in_order(student)))
    for path, module in student.named_modules():
        prefix = f"self.{path}." if path else "self."
        for text in (_tied(module, prefix), _not_learned(module, prefix, missing)):
            if text:
                return text
        held = _held_elsewhere(module, prefix)
        if held and missing:
            return held
    if not in_order(student) and type(student).__module__.startswith("torch"):
        return f"the {type(student).__name__} that is returned has no layers in it"
    if not in_order(student):
        return (
            "no layer is an attribute of `self`, where PyTorch finds their parameters: they are "
            "local names, or made in `forward`"
        )
    return ""


def _tied(module, prefix="self."):
    names: dict[int, str] = {}
    for name, parameter in module.named_parameters(recurse=True, remove_duplicate=False):
        if parameter.numel() and parameter.data_ptr() in names:
            first = names[parameter.data_ptr()]
            return (
                f"`{prefix}{first}` and `{prefix}{name}` are one and the same; each place has "
                "parameters of its own"
            )
        names[parameter.data_ptr()] = name
    return ""


def _not_learned(module, prefix, missing):
    """A tensor, or a buffer, that should have been a parameter."""
    shapes = [list(shape) for shape in missing]
    for name, value in vars(module).items():
        if isinstance(value, torch.Tensor) and (shape_of(value) in shapes or not value.is_leaf):
            kind = "the result of a computation" if not value.is_leaf else "a plain tensor"
            return f"`{prefix}{name}` is {kind}, which is not learned: nn.Parameter(...) around it"
    for name, buffer in module.named_buffers(recurse=False):
        own = not isinstance(module, nn.modules.batchnorm._NormBase)
        if own and buffer.is_floating_point() and shape_of(buffer) in shapes:
            return f"`{prefix}{name}` is a buffer, which is not learned: nn.Parameter"
    return ""


def _held_elsewhere(module, prefix):
    for name, value in vars(module).items():
        if name.startswith("_") or isinstance(value, nn.Module):
            continue
        held = list(value.values()) if isinstance(value, dict) else value
        if isinstance(held, list | tuple | set) and any(isinstance(v, nn.Module) for v in held):
            kind = type(value).__name__
            better = "nn.ModuleDict" if kind == "dict" else "nn.ModuleList or nn.Sequential"
            return (
                f"`{prefix}{name}` is a plain {kind}, in which PyTorch does not find the layers: "
                f"{better}"
            )
        if isinstance(held, list | tuple) and any(isinstance(v, nn.Parameter) for v in held):
            return f"`{prefix}{name}` is a plain list of parameters: nn.ParameterList"
    return ""


@torch.no_grad()
def of_values(student: nn.Module, attempt: Any, inputs: tuple, usage: Any) -> str:
    """What the outputs alone tell of the mistake, or ""."""
    if "train" in attempt.came:
        return _in_train_mode(student, attempt)
    with SameDropout() as dropout:
        student.eval()(*inputs)
    if dropout.dropped:
        return "dropout is at work in eval mode too: F.dropout needs training=self.training"
    norms = [m for m in student.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
    if any(not m.track_running_stats for m in norms):
        return "BatchNorm without track_running_stats looks at the batch in eval mode too"
    if tied := _tied(student):
        return tied
    unused = [name for name, times in usage.times.items() if not times]
    with Usage(student) as again:
        student(*inputs)
    kept = [name for name, times in usage.times.items() if times and not again.times[name]]
    if kept:
        return (
            f"`self.{kept[0]}` is used in the first call and not in the second: a result is kept; "
            "compute it in every call"
        )
    if unused:
        layer = unused[0].rpartition(".")[0] or unused[0]
        return f"`self.{layer}` is made in `__init__`, but `forward` does not use it"
    if len(attempt.came["eval"]) != len(attempt.expected["eval"]):
        return f"return all {len(attempt.expected['eval'])}, with commas between them"
    pairs = list(zip(attempt.came["eval"], attempt.expected["eval"], strict=True))
    for came, right in pairs:
        if not same(came, right):
            several = len(pairs) > 1
            return related(came, right, inputs, several) or _of_behaviour(
                student, inputs, came, usage, attempt
            )
    return ""


def _in_train_mode(student, attempt):
    drops = _drops(student) or _drops(attempt.right)
    if not drops:
        norms = [m for m in student.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
        if any(not m.track_running_stats or m.momentum != 0.1 for m in norms):
            return "BatchNorm keeps its defaults, momentum and track_running_stats"
        return "right in eval mode, wrong in train mode: does `forward` look at `self.training`?"
    if _same_all(attempt.came["train"], attempt.expected["eval"]):
        return "nothing is dropped in train mode"
    if not _drops(attempt.right):
        return "dropout, where none is asked for"
    return (
        "right without dropout: it stands at another place, or drops another share, than asked for"
    )


def _drops(module):
    return any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 for m in module.modules())


def _same_all(a, b):
    return len(a) == len(b) and all(map(same, a, b))


def related(
    came: torch.Tensor, right: torch.Tensor, inputs: tuple = (), several: bool = False
) -> str:
    """How one tensor follows from the other, where it does so simply.

    several: whether it is one of several that are asked for, which are then no images.
    """
    came, right = came.double(), right.double()
    x = inputs[0] if inputs else None
    if came.shape != right.shape:
        return _of_shapes(came, right, bool(inputs), several)
    if came.isnan().any():
        return ""
    for name, other in _turned(right):
        if same(came, other):
            return name
    if x is not None and x.shape == right.shape:
        if same(came, right + x):
            return "the input is added once more"
        if same(came, right - x):
            return "the input is not added: the shortcut around is missing"
    scale = (came * right).sum() / right.square().sum()
    if scale.abs() > 1e-6 and same(came, right * scale):
        sign = "with the sign turned around" if same(scale, scale.new_tensor(-1.0)) else ""
        return f"everything comes {sign or f'{scale.item():.4g} times as large'}"
    shift = (came - right).mean()
    if same(came, right + shift):
        return f"{shift.item():.4g} is added to everything"
    return ""


def _turned(right):
    for axis in range(right.ndim):
        if right.shape[axis] > 1:
            yield f"axis {axis} runs backwards", right.flip(axis)
    for axes in itertools.permutations(range(right.ndim)):
        if axes != tuple(range(right.ndim)) and [right.shape[a] for a in axes] == list(right.shape):
            yield f"the axes come in another order, {list(axes)}", right.permute(axes)


def _of_shapes(came, right, layers, several=False):
    if came.ndim == right.ndim and came.numel() == right.numel():
        for axes in itertools.permutations(range(right.ndim)):
            if came.shape == right.permute(axes).shape and same(came, right.permute(axes)):
                return f"right but for the order of its axes: they come as {list(axes)}"
        if sorted(came.shape) == sorted(right.shape):
            return "the axes come in another order than asked for"
    if came.numel() == right.numel() and same(came.reshape(right.shape), right):
        more = "split" if came.ndim > right.ndim else "joined"
        return f"the numbers are right; axes are {more} that should not be"
    if layers and came.shape[:1] != right.shape[:1]:
        return "the first axis is the batch's, as long as the input's: nothing may join or drop it"
    images = layers and not several and came.ndim == right.ndim == 4
    if images and came.shape[:2] == right.shape[:2]:
        return (
            "height and width come out differently: padding, stride or pooling of a layer is not "
            "what is asked for"
        )
    if came.ndim < right.ndim:
        return "an axis is lost: an index, a mean or a sum takes one away"
    if came.ndim > right.ndim:
        return "there is an axis too many: it has not been flattened, or not been summed over"
    axes = [i for i in range(right.ndim) if came.shape[i] != right.shape[i]]
    if len(axes) == 1:
        axis = axes[0]
        return f"axis {axis} is {came.shape[axis]} long instead of {right.shape[axis]}"
    return ""


def _of_behaviour(student, inputs, came, usage, attempt):
    """What the answer does that no right one would."""
    if inputs and not same(came, _first(student, inputs)):
        return "two calls in eval mode give different values: something random, or kept, is at work"
    if inputs and len(inputs[0]) > 1:
        one = _first(student, tuple(x[:1] for x in inputs))
        if one is not None and not same(one, came[:1], 1e-3):
            return (
                "an image's result depends on the others of its batch: some axis is the batch's "
                "that should be another"
            )
        moved = _first(student, tuple(torch.randn_like(x) for x in inputs))
        if moved is not None and same(moved, came):
            return "the result does not depend on the input"
    if came.isnan().any():
        return ""
    if came.shape == attempt.expected["eval"][0].shape and inputs:
        return _where_off(came, attempt.expected["eval"][0])
    return ""


def _first(student, inputs):
    try:
        return looks.run(student, inputs, "eval")[0]
    except Exception:  # a size that it does not take
        return None


def _where_off(came, right):
    """Whether only some of the places are wrong: tokens, channels, the border."""
    off = (came - right).abs() > 1e-4 * right.abs().max()
    if off.ndim == 4:
        inside = off[:, :, 1:-1, 1:-1]
        if inside.numel() and not inside.any():
            return "only the border is wrong: look at the padding"
        if inside.numel() and inside.double().mean() < 0.05:
            return "mostly the border is wrong: look at the padding"
    if off.ndim == 3 and off.shape[1] > 1:
        if not off[:, 1:].any():
            return "only the first token is wrong"
        if not off[:, :-1].any():
            return "only the last token is wrong"
    return ""
