"""How a module is run, and the second look at an answer whose values agree."""

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from course.checking import CheckFailed, require_settings, students_code
from course.comparing.dropout import SameDropout, Usage
from course.comparing.shown import difference_shown
from course.comparing.weights import flat, pour, randomise, same, statistics

GRADIENTS = 2e-4  # of the largest: sums of many rounded numbers
SHARED = (
    "a default argument such as layers=[], or an attribute of the class, is made once for all; "
    "make it in `__init__`"
)


def run(module: nn.Module, inputs: tuple, mode: str, returns: type | None = None) -> tuple:
    """The module's outputs in "eval" or "train" mode, where running statistics change.

    returns: for answers, torch.Tensor or tuple: raises CheckFailed where something else comes, and
        for what must not change on the way.
    """
    module.train(mode == "train")
    given = tuple(x.clone() if not x.requires_grad else x for x in inputs)
    with SameDropout():
        outputs = module(*given)
    if returns:
        _require_outputs(outputs, returns)
        _require_kept(module, mode, given, inputs)
    return tuple(outputs) if isinstance(outputs, tuple | list) else (outputs,)


def _require_outputs(outputs, returns):
    if isinstance(outputs, tuple | list) and returns is torch.Tensor:
        likely = "a comma behind a value makes a tuple of it; return the tensor alone"
        came = f"a {type(outputs).__name__} of {len(outputs)}"
        raise CheckFailed("`forward` returns one tensor", came, likely, "forward")
    for value in outputs if isinstance(outputs, tuple | list) else (outputs,):
        if not isinstance(value, torch.Tensor):
            raise CheckFailed("`forward` returns a tensor", _kind(value), _returned(value))


def _kind(value):
    return f"{value.__name__}, a class" if isinstance(value, type) else type(value).__name__


def _returned(value):
    if value is None:
        return "`forward` has no `return`"
    if isinstance(value, nn.Module):
        return f"a layer is returned ({type(value).__name__}), not its result: is it called?"
    if callable(value):
        return "a function is returned, not its result: parentheses call it"
    return ""


def _require_kept(module, mode, given, inputs):
    for after, before in zip(given, inputs, strict=True):
        if after is not before and not torch.equal(after, before):
            raise CheckFailed(
                "the input stays as it was",
                "it was changed",
                "`x += ...`, `x *= ...`, inplace=True or a function that ends in _ changes it in "
                "place; compute a new tensor, `x = x + ...`",
                "forward",
            )
    switched = [name for name, m in module.named_modules() if m.training != (mode == "train")]
    if switched:
        raise CheckFailed(
            f"every layer stays in {mode} mode",
            f"`{switched[0] or 'self'}` has left it",
            "`train()` and `eval()` are for those who use the module; leave them out of `forward`",
        )
    require_settings()


def used(student: nn.Module, inputs: tuple, expected: str, returns: type) -> Usage:
    """A first run, in eval mode; which parameters it uses, and in which order."""
    with students_code(expected), Usage(student) as usage:
        run(student, inputs, "eval", returns)
    return usage


def returns_of(expected: tuple) -> type:
    """What an answer must return, by the reference's outputs."""
    return torch.Tensor if len(expected) == 1 else tuple


def fresh_inputs(inputs: tuple) -> tuple:
    """One other image of the same size."""
    return tuple(torch.randn_like(x[:1]) for x in inputs)


def look_again(
    answer: Any, arguments: dict, student: nn.Module, found: Any, inputs: tuple, call: Any
) -> None:
    """Proves what agreeing values leave open. Raises CheckFailed for what is found.

    New weights and one other image, with gradients: outputs, the gradients of input and parameters,
    running statistics. Then a second instance: it shares nothing with the first, can be copied, and
    takes its state dict.
    """
    right, plan = found.right, found.plan
    _require_types(found)
    randomise(right)
    pour(plan, right, student)
    for mode in ("eval", "train"):
        _compare_values(student, right, inputs, mode)
    _compare_gradients(student, right, plan, inputs)
    for theirs, ours in statistics(plan, right, student):
        if not same(theirs, ours, GRADIENTS):
            raise CheckFailed(
                f"running statistics like {ours.flatten()[0]:.4f} after a batch in train mode",
                f"{theirs.flatten()[0]:.4f}",
                "BatchNorm's `momentum` or `track_running_stats` is not the default, or it is used "
                "twice",
            )
    with students_code(f"{call} can be built twice"):
        other = answer(**arguments)
        if any(nn.parameter.is_lazy(p) for p in other.parameters()):
            other(*inputs)
    _require_own(student, other)
    _require_copies(student, other, inputs)


def _require_types(found):
    for came, right in zip(found.came["eval"], found.expected["eval"], strict=True):
        if came.dtype != right.dtype:
            raise CheckFailed(
                f"values of type {right.dtype}", f"{came.dtype}", "keep the type of the input"
            )


def _compare_values(student, right, inputs, mode):
    expected = run(right, inputs, mode)
    shapes = ", ".join(str(list(x.shape)) for x in inputs)
    with students_code(f"it takes one image in {mode} mode, {shapes}"):
        came = run(student, inputs, mode, returns_of(expected))
    for y, e in zip(came, expected, strict=True):
        if not same(y, e):
            raise _second_values(y, e, mode)


@torch.no_grad()
def compare_methods(
    student: nn.Module, right: nn.Module, inputs: tuple, methods: Iterable[str]
) -> None:
    """Raises CheckFailed where a method other than `forward` returns other values."""
    for name in methods:
        for mode in ("eval", "train"):
            expected = getattr(right.train(mode == "train"), name)(*inputs)
            student.train(mode == "train")
            with students_code(f"`{name}` takes a batch"), SameDropout():
                came = getattr(student, name)(*inputs)
            if not same(came, expected):
                shown = (came,) if isinstance(came, torch.Tensor) else came
                likely = f"`{name}` itself returns other values than `forward` works with"
                if not isinstance(shown, tuple):
                    raise CheckFailed(f"`{name}` returns a tensor", _kind(came), _returned(came))
                raise difference_shown((expected,), shown, likely, mode, f"from `{name}`")


def _compare_gradients(student, right, plan, inputs):
    """In train mode, with two images: in eval mode PyTorch 2.14's BatchNorm returns wrong gradients
    for one image on a CPU, where they arrive channels last."""
    two = [torch.cat([x, torch.randn_like(x)]) for x in inputs]
    leaves = [tuple(x.clone().requires_grad_() for x in two) for _ in range(2)]
    right.zero_grad()
    student.zero_grad()
    expected = run(right, leaves[0], "train")
    with students_code("it takes images with gradients"):
        came = _called(student, leaves[1], "train")
        came = tuple(came) if isinstance(came, tuple | list) else (came,)
    for y, e in zip(came, expected, strict=True):
        if not same(y, e):
            raise _second_values(y, e, "train")
    if not any(y.requires_grad for y in came):
        raise CheckFailed("a gradient for every parameter", "none for any", NO_GRADIENT, "forward")
    weights = [torch.randn_like(e) for e in expected]
    sum((e * w).sum() for e, w in zip(expected, weights, strict=True)).backward()
    with students_code("a gradient for every parameter"):
        sum((y * w).sum() for y, w in zip(came, weights, strict=True)).backward()
    _require_gradients(student, right, plan)
    for ours, theirs in zip(*leaves, strict=True):
        if ours.grad is not None and (
            theirs.grad is None or not _close(theirs.grad, ours.grad, ours.grad.abs().max())
        ):
            raise CheckFailed(
                "the gradient of the input",
                "none" if theirs.grad is None else "another gradient, though the values agree",
                "`.detach()`, `.data`, `torch.no_grad()` or a copy made with torch.tensor(x) "
                "stands in the way of one branch",
                "forward",
            )


def _called(student, leaves, mode):
    student.train(mode == "train")
    with SameDropout():
        return student(*leaves)


NO_GRADIENT = "a `.detach()`, a `.data` or `torch.no_grad()` stands in the way"


def _require_gradients(student, right, plan):
    frozen = [name for name, p in student.named_parameters() if not p.requires_grad]
    if frozen:
        raise CheckFailed(
            "a gradient for every parameter",
            f"`{frozen[0]}` has requires_grad=False",
            "what is learned needs requires_grad=True, the default",
            "__init__",
        )
    # What has no effect, such as a bias before BatchNorm, may be left without a gradient
    gradients = flat(torch.zeros_like(p) if p.grad is None else p.grad for p in right.parameters())
    largest = gradients.abs().max()
    names = {id(p): name for name, p in student.named_parameters()}
    unreached = [names[id(t)] for t in plan.targets if t.grad is None]
    if unreached and any(
        gradients[p].abs().max() > 0
        for t, p in zip(plan.targets, plan.places, strict=True)
        if t.grad is None
    ):
        came = f"none for {', '.join(unreached[:4])}"
        raise CheckFailed("a gradient for every parameter", came, NO_GRADIENT, "forward")
    for target, places in zip(plan.targets, plan.places, strict=True):
        if target.grad is not None and not _close(target.grad, gradients[places], largest):
            raise CheckFailed(
                f"the reference's gradient for `{names[id(target)]}`",
                "another one, though the values agree",
                "a `.detach()`, a `.data` or `torch.no_grad()` cuts off one of the ways to it",
                "forward",
            )


def _close(came, expected, largest):
    if came.shape != expected.shape:
        return False
    difference = (came.double() - expected.double()).abs()
    return bool((difference <= GRADIENTS * expected.abs().max() + 2e-5 * largest).all())


def _second_values(came, expected, mode):
    likely = ""
    if came.shape != expected.shape:
        likely = (
            "right for a batch of several: `squeeze()` also takes the batch's axis where it is 1"
        )
        if came.numel() == expected.numel():
            likely += "; name the axis, squeeze(-1), or use flatten"
        else:
            likely = "right for a batch of several: a batch size or another length is written in"
    else:
        likely = (
            "right at first, wrong with new weights and one other image: a result is kept from an "
            "earlier call, or a number of the first batch is written in"
        )
    return difference_shown((expected,), (came,), likely, mode, "one image, new weights")


def _require_own(student, other):
    theirs = {p.data_ptr(): name for name, p in other.named_parameters() if p.numel()}
    for name, parameter in student.named_parameters():
        if parameter.data_ptr() in theirs:
            raise CheckFailed(
                "two models have parameters of their own", f"`{name}` is the same in both", SHARED
            )


def _require_copies(student, other, inputs):
    with students_code("its state dict fits a second instance"):
        other.load_state_dict(student.state_dict())
    with students_code("a second instance can be copied, as averages of weights need it"):
        copied = copy.deepcopy(other)
    with students_code("a second instance and its copy can be used"):
        came, of_copy = run(other, inputs, "eval"), run(copied, inputs, "eval")
    expected = run(student, inputs, "eval")
    if not all(map(same, came, expected)):
        raise CheckFailed(
            "a second instance with the same state dict gives the same",
            "other values",
            "something random or learned stands outside of the state dict: a plain tensor, or a "
            "number drawn in `__init__`; nn.Parameter or register_buffer keep it",
            "__init__",
        )
    if not all(map(same, of_copy, expected)):
        raise CheckFailed(
            "a deep copy gives the same",
            "other values",
            "the copy still uses the first one's layers, through a function made in `__init__`",
        )
