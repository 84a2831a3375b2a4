"""The likeliest mistake behind an exception, by the objects that it happened to.

What a message of PyTorch says depends on its version, and the same words stand in messages of quite
different mistakes; so nothing here looks for words in a message, except where autograd speaks of a
computation that is long over.
"""

import ast
import difflib
import inspect
import linecache
import types

import torch
from torch import nn

from course.checking import shapes, sizes
from course.checking.names import no_attribute, nothing_there, unknown_name
from course.checking.problems import Problem, is_students_frame

IN_PLACE = (
    "`x += ...`, or a function that ends in _, changes in place what the gradient needs; write "
    "`x = x + ...`"
)


def likely_mistake(problem: Problem) -> str:
    """One sentence, or "" where the objects do not tell."""
    for rule in RULES:
        text = rule(problem)
        if text:
            return text
    return ""


def without_super(p: Problem) -> str:
    owner = p.frame.f_locals.get("self") if p.frame else None
    if isinstance(owner, nn.Module) and "_modules" not in vars(owner):
        return "`super().__init__()` is missing, or does not come first"
    return ""


def taken_name(p: Problem) -> str:
    """`self.modules = ...`: PyTorch's own methods have that name."""
    if p.inner and p.inner.f_code.co_name in (
        "add_module",
        "register_parameter",
        "register_buffer",
    ):
        name, owner = p.inner.f_locals.get("name"), p.inner.f_locals.get("self")
        if isinstance(name, str) and hasattr(nn.Module, name) and isinstance(owner, nn.Module):
            return f"nn.Module has a `{name}` of its own; choose another name"
    return ""


def class_for_object(p: Problem) -> str:
    for value in [*(value for _, value in p.parts()), *_given(p)]:
        if isinstance(value, type) and issubclass(value, nn.Module):
            return _a_class(value)
    owner = p.value(p.node.func) if isinstance(p.node, ast.Call) else None
    if isinstance(owner, type) and issubclass(owner, nn.Module):
        arguments = [p.value(argument) for argument in p.node.args]
        if any(isinstance(value, torch.Tensor) for value in arguments):
            return (
                f"`{ast.unparse(p.node.func)}(...)` makes a layer, it does not apply one: "
                f"{owner.__name__} is made in `__init__`, and called here"
            )
    return ""


def _a_class(kind):
    name = f"nn.{kind.__name__}" if kind.__module__.startswith("torch") else kind.__name__
    return f"`{name}` without parentheses is the class, not a layer: `{name}(...)`"


def _given(p):
    """What the failing call got: the arguments of PyTorch's call and of its innermost function."""
    values = list(p.call.args) if p.call else []
    if p.inner and p.inner is not p.frame and not is_students_frame(p.inner):
        values += [v for n, v in p.inner.f_locals.items() if n != "__class__"]  # of super()
    return values


def not_a_layer(p: Problem) -> str:
    """What nn.Sequential and nn.ModuleList were given that they do not take."""
    if not p.inner or p.inner.f_code.co_name != "add_module":
        return ""
    module = p.inner.f_locals.get("module")
    name = ast.unparse(p.node.func) if isinstance(p.node, ast.Call) else "it"
    if isinstance(module, type) and issubclass(module, nn.Module):
        return _a_class(module)
    if isinstance(module, list | tuple | types.GeneratorType):
        return f"`{name}` takes the layers one by one: a star unpacks them, {name}(*layers)"
    if isinstance(module, torch.Tensor):
        return "that is a tensor, the result of a layer; put the layer itself there"
    if module is None:
        return "there is a None among the layers: nn.Identity() does nothing"
    if callable(module):
        return (
            f"`{getattr(module, '__name__', 'it')}` is a function, not a layer, such as nn.GELU()"
        )
    return ""


def class_kept(p: Problem) -> str:
    """`self.act = nn.SiLU`, which is called further down."""
    owner = p.frame.f_locals.get("self") if p.frame else None
    if isinstance(owner, nn.Module) and isinstance(p.error, TypeError | AttributeError):
        for name, value in vars(owner).items():
            if isinstance(value, type) and issubclass(value, nn.Module):
                return f"`self.{name}`: {_a_class(value)}"
    return ""


def layer_for_tensor(p: Problem) -> str:
    if not isinstance(p.error, TypeError | AttributeError | RuntimeError):
        return ""
    if isinstance(p.node, ast.Call) and "self" in map(ast.unparse, p.node.args):
        return "`self` is the module itself; the tensor is the argument of `forward`"
    for node, value in p.parts():
        if isinstance(value, nn.Module) and not isinstance(value, nn.ModuleList | nn.Sequential):
            if isinstance(p.node, ast.Call) and p.value(p.node.func) is nn.Sequential:
                continue
            if ast.unparse(node) == "self":
                continue
            text = ast.unparse(node)
            return f"`{text}` is a layer ({type(value).__name__}); its result is `{text}(...)`"
    if isinstance(p.node, ast.Call):
        owner = p.value(p.node.func)
        if isinstance(owner, nn.ModuleList):
            return (
                "nn.ModuleList only holds layers; call them one after the other, or nn.Sequential"
            )
    if p.call and any(isinstance(value, nn.Module) for value in p.call.args):
        return "a layer stands where a tensor belongs: call it"
    inner = p.inner.f_locals if p.inner and not is_students_frame(p.inner) else {}
    value = inner.get("input", inner.get("x"))
    if isinstance(value, nn.Module) and value is not inner.get("self"):
        return f"a layer ({type(value).__name__}) stands where a tensor belongs: call it"
    return ""


def method_for_result(p: Problem) -> str:
    """`x.mean` for `x.mean()`."""
    if not isinstance(p.error, TypeError | AttributeError | ValueError):
        return ""
    if p.inner and p.inner.f_code.co_name == "__setattr__":  # of nn.Module
        name, value = (p.inner.f_locals.get(key) for key in ("name", "value"))
        kind = "a function" if callable(value) else f"of type {type(value).__name__}"
        return f"`self.{name}` is a layer already; what it is to become is {kind}, no layer"
    for node, value in p.parts():
        functions = types.MethodType | types.BuiltinMethodType | types.FunctionType
        if isinstance(value, functions) and isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            return f"`{text}` is the function itself; parentheses call it: `{text}()`"
    return ""


def generator_for_list(p: Problem) -> str:
    if isinstance(p.error, TypeError) and isinstance(p.node, ast.Call) and p.node.args:
        text = ast.unparse(p.node.func)
        if isinstance(p.node.args[0], ast.GeneratorExp) and text.startswith("torch."):
            return f"`{text}` takes a list: brackets around what stands in its parentheses"
    return ""


def number_called(p: Problem) -> str:
    if not isinstance(p.error, TypeError) or not isinstance(p.node, ast.Call):
        return ""
    owner, text = p.value(p.node.func), ast.unparse(p.node.func)
    if isinstance(owner, torch.Tensor | int | float | str | tuple | list | dict):
        kind = type(owner).__name__
        return f"`{text}` is a {kind}, not a function; parentheses call, brackets take a part"
    return ""


def several_for_one(p: Problem) -> str:
    if not isinstance(p.error, TypeError | AttributeError | ValueError):
        return ""
    if p.call and p.call.name in shapes.JOINING:
        return ""
    for node, value in p.parts():
        text = ast.unparse(node)
        named = isinstance(value, tuple | list) and isinstance(node, ast.Name | ast.Attribute)
        if named and any(isinstance(v, torch.Tensor) for v in value):
            kind = type(value).__name__
            return f"`{text}` is a {kind} of {len(value)} tensors; take one, or unpack them with *"
    return ""


def wrong_arguments(p: Problem) -> str:
    if not isinstance(p.error, TypeError) or not isinstance(p.node, ast.Call):
        return ""
    owner = p.value(p.node.func)
    if isinstance(owner, nn.Module):
        owner = owner.forward
    if not (inspect.isfunction(owner) or inspect.ismethod(owner) or inspect.isclass(owner)):
        return ""
    try:
        inspect.signature(owner).bind(
            *([0] * len(p.node.args)), **{k.arg: 0 for k in p.node.keywords if k.arg}
        )
    except TypeError:
        if not any(isinstance(a, ast.Starred) for a in p.node.args):
            text = ast.unparse(p.node.func)
            return f"`{text}` takes {shapes.takes(owner)}"
    except ValueError:
        pass
    return ""


def forward_called_otherwise(p: Problem) -> str:
    """`forward(self, x)` where nothing is given, or the other way round."""
    owner = p.inner.f_locals.get("self") if p.inner else None
    if p.frame or not isinstance(p.error, TypeError) or not isinstance(owner, nn.Module):
        return ""
    given = p.inner.f_locals.get("args", ())
    taken = list(inspect.signature(owner.forward).parameters)
    if len(given) != len(taken):
        return (
            f"`forward` takes ({', '.join(['self', *taken])}), and is called with {len(given)} "
            "arguments besides self"
        )
    return ""


def loop_over_a_number(p: Problem) -> str:
    loop = _statement(p) if p.opname == "GET_ITER" else None
    if not isinstance(loop, ast.For | ast.comprehension):
        return ""
    value, text = p.value(loop.iter), ast.unparse(loop.iter)
    if isinstance(value, int):
        return f"`{text}` is a number, {value}; range({text}) counts up to it"
    if isinstance(value, types.BuiltinMethodType | types.MethodType):
        return f"`{text}` is the function itself; parentheses call it: `{text}()`"
    return ""


def class_in_with(p: Problem) -> str:
    """`with torch.no_grad:`"""
    if p.opname != "BEFORE_WITH" or p.frame is None:
        return ""
    line = linecache.getline(p.frame.f_code.co_filename, p.line).strip()
    node = ast.parse(f"{line} pass").body[0] if line.endswith(":") else None
    item = node.items[0].context_expr if isinstance(node, ast.With) else None
    if item is not None and isinstance(p.value(item), type):
        text = ast.unparse(item)
        return f"`{text}` is a class; parentheses are missing: `with {text}(...):`"
    return ""


def largest_of_several(p: Problem) -> str:
    """Python's max of a tensor, and a tensor's max along an axis, which is two tensors."""
    if p.node is None or not isinstance(p.error, TypeError | RuntimeError):
        return ""
    for node in (node for node in ast.walk(p.node) if isinstance(node, ast.Call)):
        if isinstance(node.func, ast.Name) and p.value(node.func) in (max, min):
            return f"Python's {node.func.id} goes over rows; x.{node.func.id}() over all numbers"
        name = getattr(node.func, "attr", "")
        if name in ("max", "min") and (node.args or node.keywords):
            return f"`{name}` along an axis gives values and indices; a{name} the values alone"
    return ""


def how_it_is_called(p: Problem) -> str:
    """The last resort: an error inside of what the course or PyTorch was called for."""
    if not isinstance(p.node, ast.Call) or p.inner is None or is_students_frame(p.inner):
        return ""
    owner = p.value(p.node.func)
    module = getattr(owner, "__module__", None) or ""
    if not isinstance(p.error, TypeError) or not module.startswith(("coatnet", "vit", "torch.nn")):
        return ""
    return f"`{ast.unparse(p.node.func)}` takes {shapes.takes(owner)}: are these what it gets?"


def unpacking(p: Problem) -> str:
    if p.opname not in ("UNPACK_SEQUENCE", "UNPACK_EX"):
        return ""
    statement = _statement(p)
    if isinstance(statement, ast.For | ast.comprehension) and isinstance(
        p.value(statement.iter), dict
    ):
        return f"iterating a dict gives its names alone: `{ast.unparse(statement.iter)}.items()`"
    loops = isinstance(statement, ast.For | ast.comprehension)
    if loops and ast.unparse(statement.iter).endswith("state_dict()"):
        return f"iterating a dict gives its names alone: `{ast.unparse(statement.iter)}.items()`"
    if isinstance(statement, ast.Assign):
        value = p.value(statement.value)
        text = ast.unparse(statement.value)
        if isinstance(value, torch.Size):
            return f"`{text}` has {len(value)} lengths: {list(value)}"
        if isinstance(statement.value, ast.Call) and isinstance(p.error, TypeError):
            return f"`{text}` is not several values, or None"
    return "as many names are needed left of `=` as there are values right of it"


def _statement(p):
    """The assignment or loop in the student's code that was unpacking."""
    try:
        tree = ast.parse(inspect.cleandoc("\n" + inspect.getsource(p.frame.f_code)))
    except (OSError, TypeError, SyntaxError, IndentationError):
        return None
    line = p.line - p.frame.f_code.co_firstlineno + 1
    for node in ast.walk(tree):
        if isinstance(node, ast.For | ast.Assign) and getattr(node, "lineno", 0) == line:
            return node
        inside = isinstance(node, ast.ListComp | ast.DictComp | ast.GeneratorExp | ast.SetComp)
        if inside and node.lineno <= line <= node.end_lineno:
            return node.generators[0]
    return None


def missing_key(p: Problem) -> str:
    if not isinstance(p.error, KeyError) or not isinstance(p.node, ast.Subscript):
        return ""
    owner, key = p.value(p.node.value), p.error.args[0] if p.error.args else None
    if isinstance(owner, dict):
        near = difflib.get_close_matches(str(key), [str(k) for k in owner], 1)
        return f"the dict has no entry {key!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    return ""


def gradients(p: Problem) -> str:
    said = str(p.error)
    if isinstance(p.error, RuntimeError) and "modified by an inplace operation" in said:
        return IN_PLACE
    if isinstance(p.error, RuntimeError) and "backward through the graph a second time" in said:
        return (
            "a tensor computed in an earlier call is used again: keep no result on `self` or "
            "outside; compute it in every call"
        )
    return ""


def failed_call(p: Problem) -> str:
    return shapes.hint(p.call) if p.call else ""


def list_out_of_range(p: Problem) -> str:
    if isinstance(p.error, IndexError) and isinstance(p.node, ast.Subscript):
        owner = p.value(p.node.value)
        if isinstance(owner, tuple | list):
            text = ast.unparse(p.node.value)
            return f"`{text}` has {len(owner)} entries: 0 to {len(owner) - 1}"
    if isinstance(p.error, IndexError) and p.inner is not p.frame:
        return "there are fewer entries than that: the first is [0]"
    return ""


def endless(p: Problem) -> str:
    if isinstance(p.error, RecursionError):
        return "a method calls itself, directly or by way of another, without an end"
    return ""


RULES = (
    endless,
    gradients,
    without_super,
    taken_name,
    unknown_name,
    not_a_layer,
    no_attribute,
    unpacking,
    loop_over_a_number,
    class_in_with,
    generator_for_list,
    nothing_there,
    class_for_object,
    number_called,
    wrong_arguments,
    forward_called_otherwise,
    method_for_result,
    class_kept,
    layer_for_tensor,
    several_for_one,
    sizes.float_for_int,
    sizes.tuple_for_number,
    sizes.layer_settings,
    missing_key,
    failed_call,
    list_out_of_range,
    largest_of_several,
    how_it_is_called,
)
