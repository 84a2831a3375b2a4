"""What went wrong: parameters that differ, values that differ, and the mistake behind them."""

import copy
import itertools
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from course.checking import CheckFailed
from course.comparing import looks
from course.comparing.diagnosis import of_parameters, of_values, unfinished
from course.comparing.instead import Instead
from course.comparing.matching import (
    count,
    in_order,
    lacking,
    shapes_of,
)
from course.comparing.shown import difference_shown
from course.comparing.weights import possible_plans, pour, same

MODES = ("eval", "train")
TRIED = 24  # ways to pour the weights of a mistaken reference


def agree(attempt: Any, modes: Sequence[str] = MODES) -> bool:
    return all(
        mode in attempt.came
        and len(attempt.came[mode]) == len(attempt.expected[mode])
        and all(map(same, attempt.came[mode], attempt.expected[mode]))
        for mode in modes
    )


def require_intact(student: nn.Module) -> None:
    """Attributes that hide what every module has would break it in odd places."""
    own = {**vars(student), **vars(student).get("_modules", {})}
    for name in own:
        if name != "forward" and callable(getattr(nn.Module, name, None)):
            raise CheckFailed(
                "names of its own",
                f"`self.{name}`",
                f"nn.Module has a method `{name}`, which is hidden now; choose another name",
                "__init__",
            )


def require_first_values(student: nn.Module) -> None:
    for name, parameter in student.named_parameters():
        if not is_lazy(parameter) and parameter.is_floating_point() and parameter.isnan().any():
            raise CheckFailed(
                f"`{name}` starts with numbers",
                "whatever was in memory",
                "torch.empty only reserves memory; fill it, for example with "
                "nn.init.trunc_normal_(..., std=0.02)",
            )
        if not parameter.is_floating_point():
            raise CheckFailed(
                f"`{name}` holds floats", str(parameter.dtype), "only floats can be learned"
            )


def require_small_start(student: nn.Module) -> None:
    for name, parameter in student.named_parameters(recurse=False):
        if parameter.numel() > 1 and parameter.std() > 2:
            raise CheckFailed(
                f"`{name}` starts small, with a standard deviation of 1 or less",
                f"{parameter.std():.0f}",
                "what it is added to would drown in it; multiply with 0.02",
            )


def explained(
    student: nn.Module,
    references: list,
    attempts: list,
    mistakes: Iterable,
    inputs: tuple,
    usage: Any,
) -> CheckFailed:
    """The failure of an answer that no way of pouring weights makes right."""
    original = references[0]
    if not attempts:
        return _parameters_differ(student, original, mistakes, inputs)
    mistakes = list(mistakes)
    likely = _known_mistake(references, attempts, mistakes, inputs)
    theirs = shapes_of(in_order(student))
    if not likely and theirs != shapes_of(in_order(original)):  # as many numbers, other shapes
        likely = _by_value(student, _fitting(original, mistakes, theirs), inputs)
    attempt = min(attempts, key=_distance)
    if not likely:
        pour(attempt.plan, attempt.right, student)
        likely = of_values(student, attempt, inputs, usage)
    mode = next(m for m in MODES if not agree(attempt, (m,)))
    return difference_shown(attempt.expected[mode], attempt.came[mode], likely, mode)


def _known_mistake(references, attempts, mistakes, inputs):
    """The hint of the first mistake that does what the answer does, however it is poured."""
    groups = {id(a.right): [b for b in attempts if b.right is a.right] for a in attempts}
    shapes = {key: shapes_of(in_order(group[0].right)) for key, group in groups.items()}
    edits = [(hint, edit) for hint, edit in mistakes if not isinstance(edit, Instead)]
    for (hint, edit), (key, group) in itertools.product(edits, groups.items()):
        module = _edited(group[0].right, edit)
        if module is None or shapes_of(in_order(module)) != shapes[key]:
            continue
        alike = group
        for mode in MODES:
            alike = [a for a in alike if mode in a.came]
            outputs = _outputs_or_none(module, inputs, mode) if alike else None
            if outputs is None:
                break
            alike = [a for a in alike if _all_same(a.came[mode], outputs)]
            if any(set(a.came) == set(MODES[: MODES.index(mode) + 1]) for a in alike):
                return hint
    return ""


def _all_same(came, expected):
    return len(came) == len(expected) and all(map(same, came, expected))


def _edited(module, edit):
    """`module` with a mistake, or None where it cannot be made at these sizes."""
    with suppress(Exception):
        if isinstance(edit, Instead):
            return edit.build()
        module = copy.deepcopy(module)
        edit(module)
        return module
    return None


def _outputs_or_none(module, inputs, mode):
    with suppress(Exception):  # a mistake may well end in shapes that do not fit, or in None
        return looks.run(module, inputs, mode)  # itself: an edit's `forward` belongs to it
    return None


def _distance(attempt):
    total = 0.0
    for mode in attempt.came:
        for came, right in zip(attempt.came[mode], attempt.expected[mode], strict=False):
            fits = came.shape == right.shape
            total += (came - right).abs().max().item() if fits and came.numel() else 1e9
    return total - 1e12 * ("train" in attempt.came)


def _parameters_differ(student, original, mistakes, inputs):
    shapes, theirs = shapes_of(in_order(original)), shapes_of(in_order(student))
    fitting = _fitting(original, mistakes, theirs)
    likely = unfinished(student) or _by_value(student, fitting, inputs)
    likely = likely or of_parameters(student, original)
    hints = {hint for hint, _ in fitting}
    likely = likely or (hints.pop() if len(hints) == 1 else "")
    if not likely:
        likely = counted(shapes, theirs)
    missing, extra = lacking(shapes, theirs), lacking(theirs, shapes)
    came = f"{count(student):,}"
    for label, tensors in (("missing", missing), ("not expected", extra)):
        if tensors:
            came += f"; {label}: {', '.join(map(str, tensors[:4]))}"
            came += ", ..." if len(tensors) > 4 else ""
    return CheckFailed(
        f"{count(original):,} parameters", came, likely, f"{type(original).__name__}.__init__"
    )


def _fitting(original, mistakes, theirs):
    """The mistakes that have the answer's shapes, each with the reference that makes it."""
    made = ((hint, _edited(original, edit)) for hint, edit in mistakes)
    return [(h, m) for h, m in made if m is not None and shapes_of(in_order(m)) == theirs]


def _by_value(student, fitting, inputs):
    """Of the mistakes with the answer's shapes the one with its values too."""
    with suppress(CheckFailed):
        usage = looks.used(student, inputs, "", tuple)
        for hint, module in fitting:
            if _pours_into(student, module, inputs, usage):
                return hint
    return ""


def _pours_into(student, module, inputs, usage):
    """True where the answer does what a mistaken reference does with the same weights."""
    expected = _outputs_or_none(module, inputs, "eval")
    if expected is None:
        return False
    found = possible_plans(module, student, inputs, usage, None)
    for plan in itertools.islice(found, TRIED):
        pour(plan, module, student)
        came = _outputs_or_none(student, inputs, "eval")
        if came is not None and _all_same(came, expected):
            return True
    return False


def counted(shapes: list, theirs: list) -> str:
    """What the shapes alone say, where no known mistake has them."""
    missing, extra = lacking(shapes, theirs), lacking(theirs, shapes)
    if missing and not extra:
        return _named(missing, "missing")
    if extra and not missing:
        return _named(extra, "too many")
    pairs = [s for s in (missing, extra) if len(s) == 2 and s[0] == s[1] and len(s[0]) == 1]
    if len(pairs) == 2:
        came, wanted = extra[0][0], missing[0][0]
        return f"a norm is for {came} features; what it gets has {wanted}, as the layer before it"
    if len(missing) == len(extra) == 1 and len(missing[0]) == len(extra[0]):
        return f"one layer has other widths than asked for: {extra[0]} instead of {missing[0]}"
    if len(missing) == len(extra):
        return "layers have other widths than asked for: compare them with the shapes in the text"
    return ""


def _named(shapes, how):
    flat = [shape for shape in shapes if len(shape) <= 1]
    if len(flat) == len(shapes):
        pairs = len(shapes) == 2 and shapes[0] == shapes[1]
        what = (
            "a norm, with weight and bias"
            if pairs
            else "a bias"
            if len(shapes) == 1
            else "biases or norms"
        )
        return f"{what} of {shapes[0]}: {how}" if len(shapes) <= 2 else f"{what}: {how}"
    layers = [shape for shape in shapes if len(shape) > 1]
    what = "a layer" if len(layers) == 1 else "layers"
    return f"{what} with weights {', '.join(map(str, layers[:3]))}: {how}"
