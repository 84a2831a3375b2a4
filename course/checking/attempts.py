"""Whether there is an answer at all, and whether it can be called as the exercise says."""

import ast
import functools
import inspect
import textwrap
from collections.abc import Sequence
from typing import Any

import torch

from course.checking.outcomes import CheckFailed, NotAttempted

CALLS_DIFFER = "the first line was given: other cells count on it"


def require_attempt(title: str, answer: Any, to_write: list[str]) -> None:
    """Raises NotAttempted for a placeholder, CheckFailed for what cannot be an answer."""
    if isinstance(answer, torch.nn.Module):
        likely = "write the name alone, without parentheses and arguments"
        raise CheckFailed("the class itself", f"an object, {type(answer).__name__}", likely)
    if not callable(answer):
        kind = "class" if to_write else "function"
        likely = "is the name used for something else too, further down in the notebook?"
        raise CheckFailed(f"the {kind} itself", f"an object, {type(answer).__name__}", likely)
    functions = {name: getattr(answer, name, None) for name in to_write} or {"": answer}
    empty = [name for name, function in functions.items() if is_placeholder(function)]
    if len(empty) == len(functions):
        raise NotAttempted(f"○ {title}: not attempted yet. Fill in the TODO above, then run both.")
    if empty:
        names = " and ".join(f"`{name}`" for name in empty)
        raise NotAttempted(f"○ {title}: not finished yet, {names} is still to be written.")


def require_signature(answer: Any, reference: Any, required: Sequence[str] = ()) -> None:
    """The answer takes what the reference takes, in the same order, with the same defaults, apart
    from those of arguments that the exercise requires."""
    right, came = signature(reference), signature(answer)
    if right is None or came is None:
        return
    kinds = inspect.Parameter
    starred = (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)
    open_ended = any(p.kind in starred for p in came.values())
    came = {name: p for name, p in came.items() if p.kind not in starred}
    needed = [name for name, p in right.items() if p.default is kinds.empty]
    missing = [] if open_ended else [name for name in needed if name not in came]
    if missing:
        given = f"({', '.join(came)})"
        raise CheckFailed(f"an argument `{missing[0]}`", f"arguments {given}", CALLS_DIFFER)
    for name in (name for name in came if name not in right):
        if came[name].default is kinds.empty:
            likely = f"{CALLS_DIFFER}, and gives no `{name}`"
            raise CheckFailed(f"arguments ({', '.join(right)})", f"`{name}` too", likely)
    _require_order_and_defaults(right, came, required)


def _require_order_and_defaults(right, came, required):
    positional = [n for n, p in came.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    wanted = [n for n, p in right.items() if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    common = [name for name in wanted if name in came]
    if [name for name in positional if name in right] != common or (
        positional[: len(common)] != common and not set(positional) <= set(common)
    ):
        came_first = f"({', '.join(came)})"
        raise CheckFailed(f"arguments ({', '.join(wanted)}), in order", came_first, CALLS_DIFFER)
    for name in common:
        wanted_default, default = right[name].default, came[name].default
        if wanted_default is inspect.Parameter.empty or name in required:
            continue
        if default is inspect.Parameter.empty:
            raise CheckFailed(
                f"{name}={wanted_default} by default", f"{name} without a default", CALLS_DIFFER
            )
        if default is not wanted_default and default != wanted_default:
            raise CheckFailed(
                f"{name}={wanted_default} by default", f"{name}={default}", CALLS_DIFFER
            )


def signature(function: Any) -> dict | None:
    """The parameters that a call may give, by name; None where Python cannot tell them."""
    try:
        return dict(inspect.signature(function).parameters)
    except (ValueError, TypeError, RuntimeError):  # built in, scripted
        return None


def is_placeholder(function: Any) -> bool:
    """True where nothing has been written: a body of `pass`, `...` and `super().__init__()` alone,
    or one with a `...` left where a value belongs."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return False
    definition = next(
        (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)), None
    )
    if definition is None:  # a lambda
        return False
    written = [statement for statement in definition.body if not _does_nothing(statement)]
    indices = {
        node.id
        for subscript in ast.walk(definition)
        if isinstance(subscript, ast.Subscript)
        for node in ast.walk(subscript.slice)
        if isinstance(node, ast.Name)
    }
    return not written or any(_has_gap(statement, indices) for statement in written)


def _has_gap(node, indices):
    """True for a `...` where a value is computed, assigned or returned. As an index, an argument or
    an element it may have a meaning of its own, and in a function defined inside it is for later.
    """
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
        return False
    values = []
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Return):
        values = [node.value]
    elif isinstance(node, ast.BinOp):
        values = [node.left, node.right]
    if any(isinstance(value, ast.Constant) and value.value is ... for value in values):
        targets = getattr(node, "targets", [])
        return not targets or any(getattr(t, "id", None) not in indices for t in targets)
    return any(_has_gap(child, indices) for child in ast.iter_child_nodes(node))


def _does_nothing(statement):
    if isinstance(statement, ast.Pass):
        return True
    return isinstance(statement, ast.Expr) and (
        isinstance(statement.value, ast.Constant)  # a docstring or `...`
        or ast.unparse(statement.value) == "super().__init__()"
    )


def namespace_of(answer: Any) -> dict:
    """The namespace that an answer was written in: the notebook's."""
    while isinstance(answer, functools.partial):
        answer = answer.func
    owner = answer if inspect.isclass(answer) or inspect.isfunction(answer) else type(answer)
    functions = [f for f in (owner, *vars(owner).values()) if inspect.isfunction(f)]
    return functions[0].__globals__ if functions else {}
