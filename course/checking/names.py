"""Rules for names and attributes that are not there, and for None where a value belongs."""

import ast
import dataclasses
import difflib
import inspect
import types

import torch
from torch import nn

from course.checking.problems import Problem, is_students_frame

NOTHING = "`{}` gives None: it is empty, or its last line lacks `return`"
ALIKE = 0.75  # `flattn` and `flatten` are, `scale` and `value` are not
NO_RESULT = ("append", "extend", "insert", "sort", "reverse", "update", "add_module", "remove")


def no_attribute(p: Problem) -> str:
    if not isinstance(p.error, AttributeError) or p.error.name is None:
        return ""
    owner, name = p.error.obj, p.error.name
    own = isinstance(p.node, ast.Attribute)
    text = ast.unparse(p.node.value) if own else "it"
    if not own and isinstance(p.node, ast.Call) and isinstance(owner, int | float | str | tuple):
        kind = type(owner).__name__
        return (
            f"`{ast.unparse(p.node.func)}` gets {_a(kind)} where it needs something with `{name}`: "
            "are the arguments in order?"
        )
    if owner is None:
        return _gave_none(p, p.node.value if isinstance(p.node, ast.Attribute) else None)
    near = difflib.get_close_matches(name, _names(owner), 1, ALIKE)
    meant = f"; did you mean `{near[0]}`?" if near else ""
    if isinstance(owner, torch.Tensor):
        layer = _layer_like(name)
        use = f"; a layer or function is called on it: {layer}" if layer else meant
        return f"`{text}` is a tensor, which has no `{name}`{use}"
    if isinstance(owner, type) and issubclass(owner, nn.Module):
        return f"`{text}` is a class; parentheses make a layer of it"
    if isinstance(owner, nn.Module):
        return _module_without(owner, name, text, meant)
    if isinstance(owner, types.ModuleType):
        return f"{owner.__name__} has no `{name}`{meant}"
    if dataclasses.is_dataclass(owner):
        return f"`{text}` has no field `{name}`{meant}"
    if callable(owner):
        return f"`{text}` is a function: call it, `{text}()`"
    if isinstance(owner, tuple | list):
        return f"`{text}` is a {type(owner).__name__} of {len(owner)}: take one of them, [0]"
    if isinstance(owner, dict):
        return f"`{text}` is a dict: take an entry by its key, in brackets"
    return f"`{text}` is {_a(type(owner).__name__)}, which has no `{name}`{meant}"


def _a(kind):
    return f"an {kind}" if kind[0].lower() in "aeiou" else f"a {kind}"


def _names(owner):
    return [n for n in dir(owner) if not n.startswith("_")]


def _layer_like(name):
    for found in dir(nn):
        if found.lower() == name.replace("_", "").lower():
            return f"F.{name}(x)" if hasattr(nn.functional, name) else f"nn.{found}"
    return f"F.{name}(x)" if hasattr(nn.functional, name) else ""


def _module_without(owner, name, text, meant):
    kind = type(owner)
    if kind.__module__.startswith(("coatnet", "vit", "course")):
        return (
            f"`{kind.__name__}` has no `{name}` in the reference, which stands in as long as yours "
            "has not passed; use what the exercise names, or solve that one first"
        )
    if kind.__module__.startswith(("torch", "timm")):
        return f"`{text}` is a {kind.__name__}, which has no `{name}`{meant}"
    if hasattr(torch.Tensor, name) and not meant:
        return f"`{name}` is a function of tensors, and `{text}` is none: of which one, `x.{name}`?"
    return f"`{name}` is nowhere set: set it in `__init__`, as an attribute of `self`{meant}"


def unknown_name(p: Problem) -> str:
    if isinstance(p.error, UnboundLocalError):
        return "the name gets its value only further down, or in a branch that was not taken"
    if not isinstance(p.error, NameError) or p.frame is None:
        return ""
    name, names = str(p.error.name), {**p.frame.f_globals, **p.frame.f_locals}
    owner = names.get("self")
    if owner is not None and hasattr(owner, name):
        return f"it is an attribute: `self.{name}`"
    if hasattr(nn, name) or hasattr(nn.functional, name):
        return f"`{'nn' if hasattr(nn, name) else 'F'}.{name}`"
    values = [n for n, value in names.items() if not isinstance(value, types.ModuleType)]
    near = difflib.get_close_matches(name, values, 1, ALIKE)
    if near:
        return f"did you mean `{near[0]}`?"
    if owner is None:
        return "a name that has no value here: a typo, or the line that makes it is missing"
    return (
        "a name that has no value here: a typo, or a local name of another method; keep what "
        "`forward` needs as an attribute of `self`"
    )


def nothing_there(p: Problem) -> str:
    """None where a value belongs, be it a name's or what a call gave."""
    if not isinstance(p.error, TypeError | AttributeError | ValueError):
        return ""
    for node, value in p.parts():
        if value is None and not isinstance(node, ast.Constant):
            return _gave_none(p, node)
    values = list(p.inner.f_locals.values()) if p.inner and p.inner is not p.frame else []
    given = [*values[:3], *(p.call.args if p.call else ())]
    called = p.node is not None and any(isinstance(n, ast.Call) for n in ast.walk(p.node))
    if not _about_none(p, given, called):
        return ""
    for node in ast.walk(p.node):
        if isinstance(node, ast.Call) and _returns_nothing(p.value(node.func)):
            return NOTHING.format(ast.unparse(node.func))
    return ""


def _about_none(p, given, called):
    return called and (
        any(v is None for v in given) or p.inner is p.frame or is_students_frame(p.inner)
    )


def _gave_none(p, node):
    if node is None:
        return "a value is None here"
    text = ast.unparse(node)
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr in NO_RESULT:
            return f"`{node.func.attr}` changes the list itself and gives None"
        return NOTHING.format(ast.unparse(node.func))
    made = _assigned(p, text)
    if isinstance(made, ast.Call):
        if isinstance(made.func, ast.Attribute) and made.func.attr in NO_RESULT:
            return f"`{text}` is None: `{made.func.attr}` changes the list itself"
        return f"`{text}` is None: " + NOTHING.format(ast.unparse(made.func))
    return f"`{text}` is None here"


def _assigned(p, text):
    """The expression that the student's method last gave to a name."""
    try:
        tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(p.frame.f_code)))
    except (OSError, TypeError, SyntaxError, IndentationError):
        return None
    first = p.frame.f_code.co_firstlineno - 1
    before = after = None
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and text in map(ast.unparse, node.targets):
            if node.lineno + first < p.line:
                before = node.value
            else:  # in a loop it came before all the same
                after = after or node.value
    gives_none = isinstance(after, ast.Call) and getattr(after.func, "attr", "") in NO_RESULT
    return after if gives_none else before


def _returns_nothing(function):
    if isinstance(function, nn.Module):
        function = type(function).forward
    function = getattr(function, "__func__", function)
    if not isinstance(function, types.FunctionType):
        return False
    try:
        tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError, IndentationError):
        return False
    return not any(isinstance(n, ast.Return) and n.value is not None for n in ast.walk(tree))
