"""`compare`: an answer that is a module, against the reference by value."""

import copy
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from course.checking import CheckFailed, students_code
from course.comparing import differences, looks
from course.comparing.matching import Plan, count
from course.comparing.weights import possible_plans, pour, randomise


@dataclass
class Attempt:
    """What came of one way to pour the weights; outputs by mode, as tuples of tensors."""

    right: nn.Module
    plan: Plan
    expected: dict
    came: dict


def compare(
    answer: Callable,
    reference: Callable,
    inputs: tuple,
    mistakes: Iterable[tuple],
    orders: Callable | None = None,
    also_right: Iterable[Callable] = (),
    again: Any = None,
    methods: Iterable[str] = (),
    **arguments: Any,
) -> str:
    """Proves that `answer(**arguments)` computes what `reference(**arguments)` does.

    Both get the same random weights, whatever the names and the order of the answer's parameters,
    and are compared in eval mode and in train mode. Once they agree they are looked at again, with
    new weights and one other image: outputs, gradients, running statistics, the input afterwards,
    copies, and a second instance (see looks.py). Returns what was proven, as text.

    inputs: a batch [B, ...], or a tuple of what the module takes, () for nothing.
    mistakes: pairs (hint, edit), where `edit` puts a typical mistake into a copy of the reference.
    orders: function from the reference and the answer to lists of (kind, tensor), more orders in
        which the reference's parameters may stand there; its children in every order are tried
        anyhow, and the order in which a forward pass uses them. `by_name`: by their names alone.
    also_right: edits that make other versions of the reference, just as right.
    again: the batch of the second look, by default one image like those of `inputs`.
    methods: others than `forward` that take a batch and are compared as well.

    The reference may return a tensor or a tuple of them. Raises CheckFailed, with the hint of the
    first mistake that does what the answer does.
    """
    call = f"{reference.__name__}({', '.join(f'{k}={v}' for k, v in arguments.items())})"
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    student = _built(answer, arguments, inputs, call)
    original = randomise(reference(**arguments))
    references = [original, *(_edited(original, edit) for edit in also_right)]
    candidates = [right for right in references if count(right) == count(student)]
    usage = None
    if candidates:
        differences.require_small_start(student)
        returns = looks.returns_of(looks.run(copy.deepcopy(original), inputs, "eval"))
        usage = looks.used(student, inputs, _taking(call, inputs), returns)
    attempts, found = [], None
    for attempt in _attempts(candidates, student, inputs, usage, orders, call) if usage else ():
        attempts.append(attempt)
        if differences.agree(attempt):
            found = attempt
            break
    if found is None:
        raise differences.explained(student, references, attempts, mistakes, inputs, usage)
    fresh = looks.fresh_inputs(inputs) if again is None else again
    fresh = fresh if isinstance(fresh, tuple) else (fresh,)
    looks.look_again(answer, arguments, student, found, fresh, call)
    looks.compare_methods(student, found.right, fresh, methods)
    return _proof(found.came["eval"], count(student))


def _proof(outputs, parameters):
    shape = list(outputs[0].shape)
    several = f"{len(outputs)} x {shape}" if len(outputs) > 1 else shape
    return (
        f"shape {several}, {parameters:,} parameters, the reference's values with the same "
        "weights, gradients everywhere."
    )


def _taking(call, inputs):
    given = ", ".join(f"a batch {list(x.shape)}" for x in inputs) or "the call without arguments"
    return f"{call} takes {given}"


def _built(answer, arguments, inputs, call):
    """An instance of the answer, with parameters that hold numbers."""
    with students_code(f"{call} can be built"):
        with _marked_memory():
            student = answer(**arguments)
        if not isinstance(student, nn.Module):
            raise CheckFailed(
                f"{call} gives a nn.Module", type(student).__name__, _no_module(student)
            )
        differences.require_intact(student)
        if any(is_lazy(p) for p in student.parameters()):
            with torch.no_grad():
                student(*inputs)  # layers such as LazyConv2d get their shapes from a first batch
    lazy = [name for name, p in student.named_parameters() if is_lazy(p)]
    if lazy:
        layer = lazy[0].rpartition(".")[0]
        raise CheckFailed(
            "every layer is used in `forward`",
            f"`{layer}` is not",
            "a lazy layer never got a batch",
        )
    differences.require_first_values(student)
    return student


def _no_module(student):
    if student is None:
        return "the function has no `return`"
    if isinstance(student, list | tuple):
        return "nn.Sequential(*layers) makes a module of a list"
    return "a class that is a module begins with `class Name(nn.Module):`"


@contextmanager
def _marked_memory():
    """Makes torch.empty give NaN, instead of whatever was in memory."""
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)


def _attempts(candidates, student, inputs, usage, orders, call):
    """One Attempt for each way to pour the weights; those in which eval mode differs stop there."""
    for right in candidates:
        expected = {"eval": looks.run(copy.deepcopy(right), inputs, "eval")}
        for plan in possible_plans(right, student, inputs, usage, orders):
            pour(plan, right, student)
            came = {}
            with students_code(_taking(call, inputs)):
                came["eval"] = looks.run(
                    student, inputs, "eval", looks.returns_of(expected["eval"])
                )
            attempt = Attempt(right, plan, expected, came)
            if differences.agree(attempt, ("eval",)):
                if "train" not in expected:
                    expected["train"] = looks.run(copy.deepcopy(right), inputs, "train")
                with students_code(_taking(call, inputs) + " in train mode"):
                    came["train"] = looks.run(
                        student, inputs, "train", looks.returns_of(expected["eval"])
                    )
            yield attempt


def _edited(module, edit):
    module = copy.deepcopy(module)
    edit(module)
    return module
