"""Rules for sizes and settings of layers: a float or a tuple where a whole number belongs."""

import ast
from typing import Any

from torch import nn

from course.checking.problems import Problem, is_students_frame

LAYER_SIZES = ("kernel_size", "stride", "padding", "dilation", "groups")


def float_for_int(p: Problem) -> str:
    if not isinstance(p.error, TypeError | RuntimeError | ValueError | IndexError):
        return ""
    for node in ast.walk(p.node) if isinstance(p.node, ast.Call) else ():
        value = p.value(node) if isinstance(node, ast.expr) else None
        whole = isinstance(value, float) and (value >= 1 or value == int(value))
        if whole and not isinstance(node, ast.Constant):
            text = ast.unparse(node)
            return (
                f"`{text}` is {value:g}, a float; a size or number is an int: `//` divides to one"
            )
    for value in _flat(_sizes_given(p)):
        if isinstance(value, float) and (value >= 1 or value == int(value)):
            return "a size or number of layers is a float here; `/` gives floats, `//` an int"
        if isinstance(value, float):
            return f"{value:g} stands where a size belongs: are the arguments complete, in order?"
    return ""


def tuple_for_number(p: Problem) -> str:
    """`first = config.stem_widths`, which are two."""
    if not isinstance(p.error, TypeError | RuntimeError) or not isinstance(p.node, ast.Call):
        return ""
    wanted = [v for n, v in _named(p).items() if n.endswith(("features", "channels"))]
    for node in [*p.node.args, *(keyword.value for keyword in p.node.keywords)]:
        value = p.value(node)
        if isinstance(value, tuple) and any(value is other for other in wanted):
            text = ast.unparse(node)
            return f"`{text}` is a tuple, {value}, where a number belongs: take one of them, [0]"
    return ""


def layer_settings(p: Problem) -> str:
    """What a layer refuses when it is made, or when it gets its first batch."""
    names = _named(p)
    layer = names.get("self")
    if not isinstance(layer, nn.Module) or not isinstance(p.error, ValueError):
        return ""
    if p.inner.f_code.co_name == "_check_input_dim":
        shape = list(getattr(names.get("input"), "shape", []))
        return f"{type(layer).__name__} does not take {shape}; for images there is BatchNorm2d"
    groups, widths = names.get("groups"), (names.get("in_channels"), names.get("out_channels"))
    if isinstance(groups, int) and groups > 1 and any(w and w % groups for w in widths):
        return f"groups={groups} must divide both channels, {widths[0]} and {widths[1]}"
    if names.get("padding") == "same":
        return "padding='same' is for stride 1; a 3x3 kernel has padding=1"
    return ""


def _named(p: Problem) -> dict[str, Any]:
    return {} if p.inner is None or is_students_frame(p.inner) else dict(p.inner.f_locals)


def _sizes_given(p: Problem) -> list:
    names = _named(p)
    if isinstance(names.get("self"), nn.Module):
        names |= {n: v for n, v in vars(names["self"]).items() if n in LAYER_SIZES}
    found = [v for n, v in names.items() if n.endswith(("features", "channels", "size", "shape"))]
    return found + [names[n] for n in (*LAYER_SIZES, "dim", "height", "width") if n in names]


def _flat(values: list) -> list:
    return [x for v in values for x in (v if isinstance(v, tuple | list) else [v])]
