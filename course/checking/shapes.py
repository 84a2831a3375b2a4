"""Calls of PyTorch that failed, told by the shapes and types of what they were given."""

import inspect
from typing import Any

import torch

JOINING = ("cat", "concat", "concatenate", "stack", "hstack", "vstack")
MATMUL = ("matmul", "rmatmul", "bmm", "mm", "baddbmm")
ELEMENTWISE = frozenset(
    [
        "add",
        "radd",
        "iadd",
        "add_",
        "sub",
        "rsub",
        "isub",
        "sub_",
        "mul",
        "rmul",
        "imul",
        "mul_",
        "div",
        "truediv",
        "rtruediv",
        "itruediv",
        "div_",
        "where",
        "masked_fill",
    ]
)
RESHAPING = ("view", "reshape", "unflatten", "expand", "view_as", "reshape_as")
AXES = frozenset(
    [
        "transpose",
        "permute",
        "swapaxes",
        "movedim",
        "flatten",
        "squeeze",
        "unsqueeze",
        "softmax",
        "mean",
        "sum",
        "amax",
        "amin",
        "chunk",
        "split",
        "select",
        "index_select",
        "gather",
    ]
)


def shapes_of(call: Any) -> tuple:
    """The shapes of two tensors that a failed call could not put together, else ()."""
    if call is None or call.name not in {*ELEMENTWISE, *MATMUL}:
        return ()
    tensors = _tensors(call.args)
    return tuple(list(tensor.shape) for tensor in tensors[:2]) if len(tensors) >= 2 else ()


def hint(call: Any) -> str:
    """What the arguments of a failed call of PyTorch say about the mistake."""
    name, tensors = call.name, _tensors([*call.args, *call.kwargs.values()])
    if len({t.dtype for t in tensors}) > 1 and _differ_in_type(name, tensors):
        kinds = " and ".join(sorted({str(t.dtype).removeprefix("torch.") for t in tensors}))
        return f"`{name}` gets tensors of two types, {kinds}; give both the same, as x.to(y.dtype)"
    if any(t.numel() == 0 for t in tensors):
        empty = next(list(t.shape) for t in tensors if t.numel() == 0)
        return f"a tensor is empty, {empty}: a slice reaches beyond the end of its axis"
    if name in JOINING:
        return _joined(call)
    if name in MATMUL and len(tensors) == 2:
        return _multiplied(*tensors)
    if name == "linear" and len(tensors) >= 2:
        x, weight = tensors[:2]
        return _layer("last", x, weight.shape[-1], x.shape[-1] if x.ndim else 0, "features")
    if name.startswith("conv") and len(tensors) >= 2:
        return _convolved(call, *tensors[:2])
    if name in ("layer_norm", "batch_norm", "group_norm") and tensors:
        return _normed(call, name, tensors)
    if name in ELEMENTWISE and len(tensors) >= 2:
        return _elementwise(name, *tensors[:2])
    if name in RESHAPING and tensors:
        return _reshaped(call, tensors[0])
    if name == "einsum":
        return f"the letters of einsum do not fit the shapes {_listed(tensors)}"
    if name in ("getitem", "setitem") and tensors:
        return _indexed(call, tensors[0])
    if name in AXES and tensors and isinstance(call.error, IndexError | RuntimeError):
        return (
            f"`{name}` acts on a tensor {list(tensors[0].shape)}, {tensors[0].ndim} axes: 0 to "
            + (f"{tensors[0].ndim - 1}, or -1 for the last")
        )
    return _changed_leaf(call, tensors)


def _tensors(values):
    found = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, tuple | list):
            found += _tensors(value)
    return found


def _listed(tensors):
    return " and ".join(str(list(tensor.shape)) for tensor in tensors)


def _differ_in_type(name, tensors):
    return name in (*MATMUL, "linear", "scaled_dot_product_attention", "einsum") or (
        name.startswith("conv")
    )


def _argument(call, name, place, default=None):
    if name in call.kwargs:
        return call.kwargs[name]
    return call.args[place] if len(call.args) > place else default


def _joined(call):
    given = _argument(call, "tensors", 0)
    if not isinstance(given, tuple | list):
        return "torch.cat takes a list of tensors: torch.cat([a, b], dim=...)"
    if not all(isinstance(value, torch.Tensor) for value in given):
        odd = next(type(value).__name__ for value in given if not isinstance(value, torch.Tensor))
        return f"all that torch.{call.name} joins must be tensors; there is a {odd}"
    shapes = [list(tensor.shape) for tensor in given]
    axis = _argument(call, "dim", 1, 0)
    if len({len(shape) for shape in shapes}) > 1:
        return f"torch.{call.name} joins tensors with equally many axes, not {_listed(given)}"
    count = len(shapes[0])
    axis = axis % count if isinstance(axis, int) and count else 0
    differing = [i for i in range(count) if len({shape[i] for shape in shapes}) > 1]
    if call.name.endswith("stack"):
        return f"torch.stack makes a new axis of tensors of one shape, not {_listed(given)}"
    others = [i for i in differing if i != axis]
    if others == [0] and 1 in [shape[0] for shape in shapes]:
        return "one of them is there once, not for each image of the batch: see `expand`"
    if len(differing) == 1:
        return f"{_listed(given)} can be joined along axis {differing[0]} alone: dim={differing[0]}"
    return (
        f"torch.cat joins along one axis, here {axis}; all others must be equal: {_listed(given)}"
    )


def _multiplied(a, b):
    text = f"{list(a.shape)} @ {list(b.shape)}: "
    if a.ndim >= 2 and a.ndim == b.ndim and a.shape[-1] == b.shape[-1]:
        return text + (
            f"the last axis of the first, {a.shape[-1]}, must be the last but one of the second, "
            f"{b.shape[-2]}; transpose(-2, -1) turns one around"
        )
    if a.ndim >= 2 and b.ndim >= 2 and a.shape[-1] == b.shape[-2]:
        return text + "the matrices fit; the axes before them, batch and heads, do not"
    inner = b.shape[-2] if b.ndim > 1 else b.shape[-1] if b.ndim else 0
    last = a.shape[-1] if a.ndim else 0
    return (
        text
        + f"the last axis of the first, {last}, must be the last but one of the second, {inner}"
    )


def _layer(which, x, wanted, came, what):
    text = (
        f"the layer takes {wanted} {what} in the {which} axis and gets {came}, of {list(x.shape)}"
    )
    if wanted in x.shape:
        text += "; the axis of that length stands elsewhere: swap axes first"
    return text


def _convolved(call, x, weight):
    spatial = next((int(c) for c in call.name if c.isdigit()), weight.ndim - 2)
    if weight.ndim != spatial + 2:
        return (
            f"the weights of a {call.name} have {spatial + 2} axes, these {list(weight.shape)}; "
            "weight[c : c + 1] keeps an axis that weight[c] takes away"
        )
    if x.ndim not in (spatial + 1, spatial + 2):
        axes = ", ".join(["B", "C", *"DHW"[3 - spatial :]])
        return f"a convolution takes [{axes}]; it gets {list(x.shape)}"
    groups = _argument(call, "groups", 6, 1)
    channels = x.shape[-spatial - 1]
    if channels != weight.shape[1] * groups:
        wanted = weight.shape[1] * groups
        text = f"the convolution takes {wanted} channels and gets {channels}, of {list(x.shape)}"
        if x.shape[-1] == wanted and channels != wanted:
            text += "; channels come second: [B, C, H, W]"
        return text
    stride = _argument(call, "stride", 3, 1)
    if min(stride if isinstance(stride, tuple | list) else [stride]) < 1:
        return f"the stride is {stride}; it is 1 or more"
    return f"the kernel {list(weight.shape[2:])} does not fit an image {list(x.shape[-spatial:])}"


def _normed(call, name, tensors):
    x = tensors[0]
    if name == "layer_norm":
        shape = list(_argument(call, "normalized_shape", 1, []))
        text = f"LayerNorm takes its features, {shape}, from the last axis and gets {list(x.shape)}"
        if shape and shape[0] in x.shape:
            text += "; move them to the end, and back afterwards"
        return text
    width = max((t.numel() for t in tensors[1:]), default=0)
    if x.ndim > 1 and width and x.shape[1] != width:
        return f"the norm is for {width} channels and gets {x.shape[1]}, of {list(x.shape)}"
    return ""


def _elementwise(name, a, b):
    text = f"{list(a.shape)} and {list(b.shape)} do not go together"
    if a.ndim == b.ndim:
        axes = [
            i
            for i in range(a.ndim)
            if a.shape[i] != b.shape[i] and 1 not in (a.shape[i], b.shape[i])
        ]
        where = " and ".join(map(str, axes))
        return f"{text}: axis {where} differs" if len(axes) == 1 else f"{text}: axes {where} differ"
    small, large = sorted((a, b), key=lambda t: t.ndim)
    if small.shape == large.shape[: small.ndim] and "sub" not in name:
        new = ", ".join([":"] * small.ndim + ["None"] * (large.ndim - small.ndim))
        return f"{text}: axes are matched from the right; give the smaller new ones, g[{new}]"
    return f"{text}: axes are matched from the right"


def _reshaped(call, x):
    if isinstance(call.error, RuntimeError) and call.name == "view" and not x.is_contiguous():
        sizes = [s for s in call.args[1:] if isinstance(s, int)]
        if (sizes and -1 in sizes) or _product(sizes) == x.numel():
            return "after transpose or permute the numbers no longer lie in order: use reshape"
    sizes = [value for value in call.args[1:] if isinstance(value, int)]
    sizes = sizes or next((list(v) for v in call.args[1:] if isinstance(v, tuple | list)), [])
    if any(not isinstance(size, int) for size in sizes):
        return "sizes are whole numbers; `/` gives a float, `//` an int"
    if call.name == "expand" and len(sizes) < x.ndim:
        return f"expand needs a size for each axis of {list(x.shape)}; -1 leaves one as it is"
    if call.name == "expand" and min(sizes, default=0) < -1:
        return "-1 leaves an axis as it is; other sizes are not negative"
    if call.name == "expand":
        return f"expand repeats axes of length 1 only; the tensor is {list(x.shape)}"
    if call.name == "unflatten":
        return f"the sizes must multiply to the length of the axis; the tensor is {list(x.shape)}"
    return f"a tensor {list(x.shape)} has {x.numel()} numbers, which do not fill {sizes or 'that'}"


def _product(sizes):
    result = 1
    for size in sizes:
        result *= size
    return result


def _indexed(call, x):
    index = call.args[1] if len(call.args) > 1 else None
    indices = index if isinstance(index, tuple) else (index,)
    for part in indices:
        if isinstance(part, torch.Tensor) and (part.is_floating_point() or part.is_complex()):
            return "an index must be of integers: `/` gives floats, `//` integers; or .long()"
        if isinstance(part, float):
            return "an index must be an integer: `/` gives a float, `//` an int"
    if sum(part is not None and part is not ... for part in indices) > x.ndim:
        return f"more indices than the tensor has axes: {list(x.shape)}"
    tensors = [part for part in indices if isinstance(part, torch.Tensor) and part.numel()]
    if len(tensors) == len(indices):
        for axis, part in enumerate(tensors):
            length = x.shape[axis]
            if part.dtype != torch.bool and not -length <= part.min() <= part.max() < length:
                return (
                    f"the index of axis {axis} runs from {part.min().item()} to "
                    f"{part.max().item()}, outside of the tensor {list(x.shape)}"
                )
        shapes = ", ".join(str(list(part.shape)) for part in tensors)
        return f"indices are matched as tensors are that one adds; {shapes} do not go together"
    for part in tensors:
        if part.dtype != torch.bool and part.max() >= max(x.shape):
            return (
                f"the index runs from {part.min().item()} to {part.max().item()}, outside of the "
                f"tensor {list(x.shape)}"
            )
    return f"the index lies outside of the tensor {list(x.shape)}"


def _changed_leaf(call, tensors):
    in_place = call.name.endswith("_") or call.name in (
        "iadd",
        "isub",
        "imul",
        "itruediv",
        "setitem",
    )
    func = getattr(call.func, "__name__", "")
    if (in_place or func.endswith("_")) and tensors and _is_parameter(tensors[0]):
        return (
            "a parameter cannot change in place while gradients are recorded: put it under "
            "torch.no_grad(), or compute a new tensor"
        )
    return ""


def _is_parameter(tensor):
    return tensor.is_leaf and tensor.requires_grad


def takes(function: Any) -> str:
    """How a function is called, "(x, stride=1)", where Python can tell."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):
        return ""
    shown = []
    for parameter in parameters:
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        kinds = {str(parameter.VAR_POSITIONAL): "*", str(parameter.VAR_KEYWORD): "**"}
        star = kinds.get(str(parameter.kind), "")
        shown.append(star + parameter.name + (default if len(default) < 20 else "=..."))
    return f"({', '.join(shown)})"
