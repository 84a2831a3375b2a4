"""Signs of forged passes, looked for where the checks run: in the notebook's own process.

A notebook's code can do anything there, so none of this is proof against a determined programmer;
it stops what is easy, and shows a person what to look at. README.md beside this file says what
remains.
"""

import ast
import builtins
import copy
import dataclasses
import functools
import inspect
import sys
import types
from typing import Any

import torch
import torch._dynamo  # replaces functions of torch's when it is loaded, which may be late
from torch import nn
from torch.utils._pytree import tree_map

from course.checking import NotAttempted, Shown, exercises

CALLED = "__check__"
COURSE = ("vit", "coatnet", "course")
STANDARD = (ast, builtins, inspect, types, functools)
TORCH = (torch, nn, nn.functional, torch.testing, torch.linalg, nn.init)
CLASSES = (torch.Tensor, nn.Module, nn.Parameter)


class Forged(Exception):
    """What checks rely on is no longer what it was."""


class Seal:
    """What checks rely on, as it is now."""

    def __init__(self):
        self.modules = {
            name: module
            for name, module in sys.modules.items()
            if name.partition(".")[0] in COURSE and name != "course.classroom.warm"
        }
        self.references = dict(exercises._references)
        self.names = {}  # (owner's name, name) -> owner's namespace, value, code
        self.classes = {}  # class -> names that it defines itself
        for name, module in self.modules.items():
            self._note(name, vars(module), everything=True)
        for module in (*STANDARD, *TORCH):
            self._note(module.__name__, vars(module))
        for owner in CLASSES:
            self._note(owner.__name__, vars(owner))
            self.classes[owner] = set(vars(owner))

    def _note(self, owner, namespace, everything=False):
        for name, value in list(namespace.items()):
            if name == "input" or (name.startswith("__") and not callable(value)):
                continue
            if callable(value) or (everything and isinstance(value, int | float | str | tuple)):
                self.names[owner, name] = namespace, value, _code(value)
            if inspect.isclass(value) and everything and value.__module__ in self.modules:
                self.classes[value] = set(vars(value))
                # torch itself replaces the step of an optimiser's class when it makes the first one
                hooked = {"step"} if issubclass(value, torch.optim.Optimizer) else set()
                for inner, function in list(vars(value).items()):
                    if inspect.isfunction(function) and inner not in hooked:
                        key = owner, f"{name}.{inner}"
                        self.names[key] = vars(value), function, _code(function)

    def broken(self) -> str:
        """The first name that has changed, or ""."""
        for name, module in self.modules.items():
            if sys.modules.get(name) is not module:
                return name
        for owner, own in self.classes.items():
            for name in vars(owner).keys() - own:  # stands before what it inherits
                if any(name in vars(base) for base in owner.__mro__[1:]):
                    return f"{owner.__name__}.{name}"
        if any(exercises._references.get(n) is not r for n, r in self.references.items()):
            return "course.checking.exercises._references"
        for (owner, name), (namespace, value, code) in self.names.items():
            now = namespace.get(name.rpartition(".")[2])
            if now is not value or _code(now) is not code:
                return f"{owner}.{name}"
        return ""


def _code(value):
    return getattr(value, "__code__", None)


_seal: Seal | None = None


def seal() -> None:
    """Remembers what checks rely on, before anything of a notebook has run."""
    global _seal
    _seal = Seal()


def check(namespace: dict, checks: str, call: str) -> None:
    """Runs a check of the course, whatever the notebook has made of its name.

    checks: the import of the checks. call: such as "check.cnn_stem(CNNStem)". Raises what the check
    does, Forged, and NotAttempted for an answer that is the course's own.
    """
    if _seal and (broken := _seal.broken()):
        raise Forged(f"{broken} was replaced in this notebook, and checks rely on it")
    fresh = _imported(checks)
    function, answers = _parts(call)
    for name in answers:
        if name not in namespace:
            raise NameError(f"name '{name}' is not defined")
    _require_own(namespace[answers[0]], answers[0])
    namespace[CALLED] = getattr(fresh["check"], function)
    try:
        exec(f"{CALLED}({', '.join(answers)})", namespace)  # checks look at who calls them
    finally:
        del namespace[CALLED]


def rehearse(checks: str, call: str) -> None:
    """The same check with the course's own answer: what is slow the first time is then done."""
    function, answers = _parts(call)
    getattr(_imported(checks)["check"], function)(reference_of(answers[0]))
    exercises._passed.clear()


def probe(checks: str, call: str) -> None:
    """The same check with a known wrong answer. Raises Forged where it does not fail."""
    fresh = _imported(checks)
    function, answers = _parts(call)
    try:
        getattr(fresh["check"], function)(wrong_answer(answers[0]))
    except Shown:
        return
    raise Forged("the checks pass a wrong answer after this notebook has run")


def wrong_answer(name: str) -> Any:
    """The course's own answer but for what it returns; what works in place does nothing."""
    reference = reference_of(name)
    if not inspect.isclass(reference):

        @functools.wraps(reference)
        def wrong(*arguments, **named):
            return _spoilt(reference(*copy.deepcopy(arguments), **named))

        del wrong.__wrapped__
        return wrong
    if issubclass(reference, nn.Module):

        def forward(self, *arguments, **named):
            return _spoilt(super(made, self).forward(*arguments, **named))

        made = type(name, (reference,), {"forward": forward})
        return made
    own = [n for n, f in vars(reference).items() if inspect.isfunction(f) and n[0] != "_"]
    return type(name, (reference,), {n: lambda *_, **__: None for n in own})


def reference_of(name: str) -> Any:
    """What the course itself has for an answer of that name; None where there is nothing."""
    return exercises._references.get(name, (None,))[0]


def _spoilt(result):
    if dataclasses.is_dataclass(result):
        fields = vars(result)
        return dataclasses.replace(result, **{name: _spoilt(fields[name]) for name in fields})
    if isinstance(result, nn.Module):
        return nn.Sequential(result, nn.Dropout(0.9))
    return tree_map(_spoilt_leaf, result)


def _spoilt_leaf(value):
    if isinstance(value, torch.Tensor):
        return value + 1 if value.dtype == torch.int64 else 1.5 * value + 0.25
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"{value}?" if isinstance(value, str) else None


def _imported(checks):
    namespace = {}
    exec(checks, namespace)
    return namespace


def _parts(call):
    """The name of a check and those of what it gets."""
    tree = ast.parse(call, mode="eval").body
    return tree.func.attr, [argument.id for argument in tree.args]


def _require_own(answer, name):
    reference = reference_of(name)
    same = answer is reference or (
        inspect.isclass(answer) and inspect.isclass(reference) and issubclass(answer, reference)
    )
    written = [v for v in (answer, *getattr(answer, "__dict__", {}).values()) if _code(v)]
    theirs = [v for v in (reference, *getattr(reference, "__dict__", {}).values()) if _code(v)]
    files = {_code(function).co_filename for function in theirs}
    if same or any(_code(function).co_filename in files for function in written):
        raise NotAttempted(f"○ {name}: this is the course's own {name}: write yours")
