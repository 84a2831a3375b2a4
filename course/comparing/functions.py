"""`compare_calls`: an answer that is a function, against the reference by value."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from course.checking import CheckFailed, require_settings, students_code
from course.comparing.diagnosis import related
from course.comparing.shown import difference_shown
from course.comparing.weights import same


def compare_calls(
    answer: Callable,
    reference: Callable,
    calls: list[tuple],
    mistakes: Iterable[tuple],
    proven: str,
    gradients: bool = True,
) -> str:
    """Proves that the function `answer` returns what `reference` does. Returns `proven`, as text.

    calls: tuples of arguments; a batch of one should be among them. mistakes: pairs (hint,
    function), where the function makes a typical mistake. Results are tensors, or tuples of them.
    gradients: False where an answer may well return values without them.

    Then a second look: fresh arguments of the same sizes, and the first ones again, so that nothing
    kept goes unseen; gradients where the reference has some; arguments and settings afterwards as
    they were; results of the reference's types.

    Raises CheckFailed for the first call that differs, with the hint of the first mistake that does
    in every call what the answer does.
    """
    results = [_result(answer, reference, arguments) for arguments in calls]
    for arguments, came in zip(calls, results, strict=True):
        expected = as_tuple(reference(*copy.deepcopy(arguments)))
        if not _agree(came, expected):
            likely = _known_mistake(mistakes, calls, results) or _diagnosis(came, expected)
            raise difference_shown(expected, came, likely)
    _look_again(answer, reference, calls, gradients)
    return proven


def called(reference: Callable, arguments: tuple) -> str:
    return f"{reference.__name__}({', '.join(map(_described, arguments))})"


def _described(argument):
    if isinstance(argument, torch.Tensor):
        return str(list(argument.shape))
    return type(argument).__name__ if isinstance(argument, nn.Module) else str(argument)


def _result(answer, reference, arguments):
    """The answer's results as a tuple, of the types that the reference returns."""
    call = called(reference, arguments)
    given, theirs = copy.deepcopy(arguments), copy.deepcopy(arguments)
    with students_code(f"{call} returns a value"):
        came = answer(*given)
    require_settings()
    expected = reference(*theirs)
    require_unchanged(given, theirs, call)
    require_type(came, expected, call)
    return as_tuple(came)


def require_type(came: Any, expected: Any, call: str) -> None:
    """Raises CheckFailed unless the result is a tensor, or a tuple of them, where that is asked
    for, and of the reference's type of numbers: any integers for integers."""
    if isinstance(expected, tuple | list):
        if not isinstance(came, tuple | list):
            likely = _nothing(came) or f"return all {len(expected)}, with commas between them"
            raise CheckFailed(f"{call} returns {len(expected)} tensors", _kind(came), likely)
        for value, right in zip(came, expected, strict=False):
            require_type(value, right, call)
        return
    if isinstance(came, tuple | list):
        likely = "a comma behind the value makes a tuple of it"
        if len(came) != 1:
            likely = "one tensor is asked for: join them, torch.stack or torch.cat, or return one"
        raise CheckFailed(f"{call} returns a tensor", f"a {_kind(came)} of {len(came)}", likely)
    if not isinstance(came, torch.Tensor):
        raise CheckFailed(f"{call} returns a tensor", _kind(came), _nothing(came))
    if _number_kind(came) != _number_kind(expected):
        raise CheckFailed(
            f"{call} returns {expected.dtype}",
            str(came.dtype),
            "an index of a table has to be an integer: `//`, not `/`"
            if _number_kind(expected) == "integers"
            else "keep the type of what was given",
        )


def _number_kind(tensor):
    if tensor.dtype == torch.bool or tensor.is_floating_point() or tensor.is_complex():
        return str(tensor.dtype)
    return "integers" if tensor.dtype != torch.uint8 else "uint8"


def _kind(value):
    return f"{value.__name__}, a class" if isinstance(value, type) else type(value).__name__


def _nothing(value):
    if value is None:
        return "the function has no `return`"
    if callable(value) and not isinstance(value, torch.Tensor):
        return "a function or layer is returned, not its result: parentheses call it"
    return ""


def as_tuple(result: Any) -> tuple:
    return tuple(result) if isinstance(result, tuple | list) else (result,)


def require_unchanged(given: tuple, expected: tuple, call: str) -> None:
    """Raises CheckFailed where a call left its arguments otherwise than the reference's did."""
    for place, (after, right) in enumerate(zip(given, expected, strict=True)):
        if not _alike(after, right):
            raise CheckFailed(
                f"{call} leaves its arguments as they are",
                f"argument {place + 1} was changed",
                "`x += ...`, `x[...] = ...`, or a function that ends in _ writes into what was "
                "given; compute a new one",
            )


def _alike(a, b):
    if isinstance(b, torch.Tensor):
        same_type = isinstance(a, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape
        return same_type and a.requires_grad == b.requires_grad and torch.equal(a, b)
    if isinstance(b, nn.Module):
        modes = [m.training for m in a.modules()] == [m.training for m in b.modules()]
        return modes and _alike(dict(a.state_dict()), dict(b.state_dict()))
    if isinstance(b, dict):
        return isinstance(a, dict) and list(a) == list(b) and all(_alike(a[k], b[k]) for k in b)
    if isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_alike, a, b))
    return a is b or type(a) is not type(b) or _equal(a, b)


def _equal(a, b):
    try:
        return bool(a == b) or type(b).__eq__ is object.__eq__  # copies that have no equality
    except (TypeError, ValueError, RuntimeError):
        return True


def close(came: Any, expected: Any, tolerance: float = 2e-5) -> bool:
    """True where two tensors, numbers or sequences agree but for rounding. NaN never does."""
    try:
        came, expected = (
            torch.as_tensor(value, dtype=torch.float64).detach() for value in (came, expected)
        )
    except (TypeError, ValueError, RuntimeError):
        return False
    return same(came, expected, tolerance)


def _agree(came, expected):
    return len(came) == len(expected) and all(map(same, came, expected))


def _known_mistake(mistakes, calls, results):
    for hint, mistake in mistakes:
        if all(_same_call(mistake, a, c) for a, c in zip(calls, results, strict=True)):
            return hint
    return ""


def _same_call(mistake, arguments, came):
    try:
        expected = as_tuple(mistake(*copy.deepcopy(arguments)))
    except (RuntimeError, ValueError, IndexError, TypeError, AttributeError):
        return False
    return all(isinstance(e, torch.Tensor) for e in expected) and _agree(came, expected)


def _diagnosis(came, expected):
    if len(came) != len(expected):
        return ""
    return next((related(c, e) for c, e in zip(came, expected, strict=True) if not same(c, e)), "")


def _look_again(answer, reference, calls, gradients):
    """Fresh arguments, the first ones again, and gradients."""
    for arguments in calls:
        fresh = tuple(_fresh(argument) for argument in arguments)
        for given in (fresh, arguments) if _holds_floats(arguments) else (arguments,):
            came = _result(answer, reference, given)
            expected = as_tuple(reference(*copy.deepcopy(given)))
            if not _agree(came, expected):
                raise difference_shown(
                    expected,
                    came,
                    "right at first, wrong when called again: a result is kept from an earlier "
                    "call, or numbers of the first one are written in",
                )
        if gradients:
            _compare_gradients(answer, reference, fresh)


def _holds_floats(arguments):
    return any(isinstance(a, torch.Tensor) and a.is_floating_point() for a in arguments)


def _fresh(argument):
    if isinstance(argument, torch.Tensor) and argument.is_floating_point():
        return (
            argument[torch.randperm(len(argument))].flip(-1)
            if argument.ndim > 1
            else argument.clone()
        )
    return argument


def _compare_gradients(answer, reference, arguments):
    """Whether gradients pass through the answer to its arguments as through the reference."""
    expected = _gradients(reference, arguments)
    if expected is None:
        return
    with students_code("gradients pass through"):
        came = _gradients(answer, arguments)
    cut = "a `.detach()`, `.data`, `.item()` or `torch.no_grad()` stands in the way"
    if came is None:
        raise CheckFailed("a result with a gradient", "one without", cut)
    for ours, theirs in zip(expected, came, strict=True):
        if ours is not None and (theirs is None or not same(theirs, ours, 1e-3)):
            which = "none" if theirs is None else "another one, though the values agree"
            raise CheckFailed("a gradient for every argument", which, cut)


def _gradients(function, arguments):
    given = [
        a.detach().clone().requires_grad_() if _floats(a) else copy.deepcopy(a) for a in arguments
    ]
    results = [r for r in as_tuple(function(*given)) if isinstance(r, torch.Tensor)]
    leaves = [a for a in given if _floats(a)]
    if not leaves or not any(r.requires_grad for r in results):
        return None
    generator = torch.Generator().manual_seed(1)
    total = sum(
        (r * torch.randn(r.shape, generator=generator)).sum() for r in results if r.requires_grad
    )
    return torch.autograd.grad(total, leaves, allow_unused=True)


def _floats(argument):
    return isinstance(argument, torch.Tensor) and argument.is_floating_point()
