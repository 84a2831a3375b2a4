"""Compares an answer with the reference by value, and names the mistake behind a difference."""

import copy
import itertools
import zlib
from contextlib import contextmanager, suppress
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from course.checking import CheckFailed, students_code

TOLERANCE = 2e-5  # of the largest expected value: float32, summed in another order


def compare(answer, reference, inputs, mistakes, orders=None, also_right=(), **arguments):
    """Proves that `answer(**arguments)` computes what `reference(**arguments)` does.

    Both get the same random weights, whatever the names and the order of the answer's parameters,
    and are compared in eval mode and in train mode. Returns what was proven, as text.

    inputs: a batch, [B, ...].
    mistakes: pairs (hint, edit), where `edit` puts a typical mistake into a copy of the reference.
    orders: function from the reference and the answer to lists of (kind, tensor), the orders in
        which the reference's parameters may stand there; by default its children in every order.
    also_right: edits that make other versions of the reference, just as right.

    Raises CheckFailed, with the hint of the first mistake that does what the answer does.
    """
    call = f"{reference.__name__}({', '.join(f'{k}={v}' for k, v in arguments.items())})"
    with students_code(f"{call} can be built"):
        with _marked_memory():
            student = answer(**arguments)
        if isinstance(student, nn.Module) and any(map(is_lazy, student.parameters())):
            student(inputs)  # layers such as LazyConv2d get their shapes from a first batch
    if not isinstance(student, nn.Module):
        raise CheckFailed(f"{call} gives a nn.Module", f"{type(student).__name__}")
    _require_first_values(student)

    original = reference(**arguments)
    randomise(original)
    candidates = [original, *(_edited(original, edit) for edit in also_right)]
    candidates = [right for right in candidates if _count(right) == _count(student)]
    if not candidates:
        raise _parameters_differ(student, original, mistakes)

    attempts = []  # (expected outputs, what came), one for each way to pour the weights
    for right in candidates:
        expected = _run(copy.deepcopy(right), inputs)  # a copy: train mode moves the statistics
        for parameters in (orders or _children_in_every_order)(right, student):
            _pour(parameters, right, student)
            with students_code(f"{call} takes a batch {list(inputs.shape)}"):
                came = _run(student, inputs)
            if _same(came, expected):
                with students_code("a gradient for every parameter"):
                    return _proof(student, came)
            attempts.append((expected, came))
    wrong = []  # (hint, what a reference with that mistake returns)
    for right in candidates:
        for hint, module in _mistaken(right, mistakes):
            if _shapes(in_order(module)) == _shapes(in_order(right)):
                wrong.append((hint, _outputs_or_none(module, inputs)))
    raise _values_differ(attempts, wrong)


def compare_calls(answer, reference, calls, mistakes, proven):
    """Proves that the function `answer` returns what `reference` does. Returns `proven`, as text.

    calls: tuples of arguments. mistakes: pairs (hint, function), where the function makes a typical
    mistake. Results are tensors, or tuples of tensors.

    Raises CheckFailed for the first call that differs, with the hint of the first mistake that does
    in every call what the answer does.
    """
    results = []
    for arguments in calls:
        call = f"{reference.__name__}({', '.join(map(_described, arguments))})"
        with students_code(f"{call} returns a value"):
            results.append(_as_tuple(answer(*copy.deepcopy(arguments)), call))
    for arguments, came in zip(calls, results, strict=True):
        expected = _as_tuple(reference(*arguments))
        if len(came) == len(expected) and all(map(_close, came, expected)):
            continue
        likely = (
            hint
            for hint, mistake in mistakes
            if all(_same_call(mistake, a, c) for a, c in zip(calls, results, strict=True))
        )
        if len(came) != len(expected):
            raise CheckFailed(f"{len(expected)} tensors", f"{len(came)}", next(likely, ""))
        pairs = zip(expected, came, strict=True)
        right, wrong = next((e, c) for e, c in pairs if not _close(c, e))
        raise _difference_shown({"": right}, {"": wrong}, next(likely, ""))
    return proven


@contextmanager
def _marked_memory():
    """Makes torch.empty give NaN, instead of whatever was in memory."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _require_first_values(student):
    for name, parameter in student.named_parameters():
        if not is_lazy(parameter) and parameter.isnan().any():
            raise CheckFailed(
                f"`{name}` starts with numbers",
                "whatever was in memory",
                "torch.empty only reserves memory; fill it, for example with "
                "nn.init.trunc_normal_(..., std=0.02)",
            )
    for name, parameter in student.named_parameters(recurse=False):
        if parameter.numel() > 1 and parameter.std() > 2:
            raise CheckFailed(
                f"`{name}` starts small, with a standard deviation of 1 or less",
                f"{parameter.std():.0f}",
                "what it is added to would drown in it; multiply with 0.02",
            )


def _described(argument):
    if isinstance(argument, torch.Tensor):
        return str(list(argument.shape))
    return type(argument).__name__ if isinstance(argument, nn.Module) else str(argument)


def _as_tuple(result, call="the call"):
    results = tuple(result) if isinstance(result, tuple | list) else (result,)
    for value in results:
        if not isinstance(value, torch.Tensor):
            likely = "the function has no `return`" if value is None else ""
            raise CheckFailed(f"{call} returns a tensor", type(value).__name__, likely)
    return results


def _same_call(mistake, arguments, came):
    try:
        expected = _as_tuple(mistake(*copy.deepcopy(arguments)))
    except (RuntimeError, ValueError, IndexError):
        return False
    return len(came) == len(expected) and all(map(_close, came, expected))


# The same weights for both


@torch.no_grad()
def take_weights(module, source):
    """Copies all parameters and BatchNorm statistics of `source` into `module`.

    They are matched by shape, and those of one shape in the order of their layers, whatever their
    names; the weights of a 1x1 convolution fit a linear layer. Raises ValueError where the shapes
    differ.
    """
    theirs, ours = _shapes(in_order(source)), _shapes(in_order(module))
    if theirs != ours:
        raise ValueError(
            f"the weights do not fit: missing {_difference(theirs, ours)}, "
            f"not expected {_difference(ours, theirs)}"
        )
    _pour(in_order(source), source, module)


def randomise(module):
    """Draws every parameter and statistic at random: zeros and ones would hide mistakes.

    Returns the module.
    """
    for name, tensor in itertools.chain(module.named_parameters(), module.named_buffers()):
        if not tensor.is_floating_point():
            continue
        with torch.no_grad():
            if tensor.ndim > 1:
                tensor.normal_(std=1.5 * tensor[0].numel() ** -0.5)
            elif name.endswith(("weight", "running_var")):
                tensor.uniform_(0.5, 1.5)
            else:
                tensor.normal_(std=0.3)
    return module


def in_order(*modules):
    """The parameters of the modules in order, each with what it is: [((owner, name), tensor)]."""
    return [
        ((_kind(owner), name), parameter)
        for module in modules
        for owner in module.modules()
        for name, parameter in owner.named_parameters(recurse=False)
    ]


def _kind(owner):
    """What a layer is, whatever class and shape it was written with."""
    if isinstance(owner, nn.LayerNorm | nn.GroupNorm | nn.modules.batchnorm._BatchNorm):
        return "norm"
    if isinstance(owner, nn.Linear | nn.modules.conv._ConvNd):
        return "linear"
    return type(owner).__name__


def _children_in_every_order(module, student):
    own = in_order(module)[: len(list(module.parameters(recurse=False)))]
    children = [child for child in module.children() if _count(child)]
    if len(children) > 4:  # too many to try: they are told apart by their shapes
        return [in_order(module)]
    return [own + in_order(*order) for order in itertools.permutations(children)]


@torch.no_grad()
def _pour(parameters, right, student):
    """Gives the student's module the parameters, in that order, and the statistics of `right`."""
    targets = in_order(student)
    if _shapes(parameters) == _shapes(targets):
        _copy(parameters, targets)
    else:  # other layers, such as one for query, key and value together: as one long vector
        vector = torch.cat([tensor.flatten() for _, tensor in parameters])
        nn.utils.vector_to_parameters(vector, [tensor for _, tensor in targets])
    statistics, theirs = _statistics(right), _statistics(student)
    if statistics.keys() == theirs.keys():  # the names were given
        theirs = {name: theirs[name] for name in statistics}
    statistics, theirs = (
        [(name.split(".")[-1], buffer) for name, buffer in buffers.items()]
        for buffers in (statistics, theirs)
    )
    if _shapes(statistics) == _shapes(theirs):
        _copy(statistics, theirs)


def _copy(sources, targets):
    """Copies each source to the first target of its shape, of its kind if there is one."""
    sources = list(sources)
    for kind, target in targets:
        fitting = [i for i, source in enumerate(sources) if _shape(source[1]) == _shape(target)]
        best = min(fitting, key=lambda i: sources[i][0] != kind)
        target.copy_(sources.pop(best)[1].reshape(target.shape))


def _statistics(module):
    """BatchNorm's running means and variances by name."""
    return {name: buffer for name, buffer in module.named_buffers() if buffer.is_floating_point()}


def _shape(tensor):
    return [length for length in tensor.shape if length != 1]


def _shapes(tensors):
    return sorted(_shape(tensor) for _, tensor in tensors)


def _count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def _edited(module, edit):
    module = copy.deepcopy(module)
    edit(module)
    return module


def _mistaken(module, mistakes):
    """Pairs of a hint and `module` with that mistake, where it can be made at these sizes."""
    for hint, edit in mistakes:
        with suppress(RuntimeError, ValueError, AttributeError):  # not at these sizes
            yield hint, _edited(module, edit)


def require_eps(module, eps=1e-6):
    """A millionth does not show in values of usual size, but in those of small ones."""
    for norm in module.modules():
        if isinstance(norm, nn.LayerNorm) and norm.eps != eps:
            likely = f"PyTorch's default is 1e-5; timm has LayerNorm2d(..., eps={eps:g})"
            raise CheckFailed(f"norms with eps={eps:g}", f"eps={norm.eps:g}", likely)


# What they return


class SameDropout(TorchFunctionMode):
    """Makes dropout drop the same units every time, so that two modules can be compared in train
    mode: the mask follows from the last two lengths alone, [N, N] for attention, [N, D] or [D, N].
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (F.dropout, torch.dropout):
            return self.dropout(*args, **kwargs)
        if func is F.scaled_dot_product_attention and kwargs.get("dropout_p"):
            return self.attention(*args, **kwargs)
        if func is F.multi_head_attention_forward:  # what it calls does not come by here
            with patch.multiple(
                F, dropout=self.dropout, scaled_dot_product_attention=self.attention
            ):
                return func(*args, **kwargs)
        return func(*args, **kwargs)

    @staticmethod
    def dropout(input, p=0.5, training=True, inplace=False, train=None):
        if not (training if train is None else train):
            return input
        rows, columns = input.shape[-2:]
        shape = sorted((rows, columns))
        generator = torch.Generator().manual_seed(zlib.crc32(repr(shape).encode()))
        kept = torch.rand(shape, generator=generator) >= p
        return input * (kept if rows <= columns else kept.T) / (1 - p)

    def attention(self, query, key, value, attn_mask=None, dropout_p=0.0, scale=None):
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        scores = query @ key.transpose(-2, -1) * scale
        weights = (scores if attn_mask is None else scores + attn_mask).softmax(dim=-1)
        return self.dropout(weights, dropout_p) @ value


def _run(module, inputs):
    """Outputs in eval mode, then in train mode, where running statistics change."""
    outputs = {}
    for mode in ("eval", "train"):
        module.train(mode == "train")
        with SameDropout():
            outputs[mode] = module(inputs.clone())
        if not isinstance(outputs[mode], torch.Tensor):
            kind = type(outputs[mode]).__name__
            likely = "`forward` has no `return`" if outputs[mode] is None else ""
            raise CheckFailed("`forward` returns a tensor", kind, likely)
    return outputs


def _outputs_or_none(module, inputs):
    try:
        return _run(module, inputs)
    except (RuntimeError, ValueError):  # a mistake may well end in shapes that do not fit
        return None


def _close(a, b):
    if a.shape != b.shape:
        return False
    a, b = a.double(), b.double()
    return bool((a - b).abs().max() <= TOLERANCE * b.abs().max())


def _same(a, b):
    return all(_close(a[mode], b[mode]) for mode in b)


def _proof(student, came):
    if came["train"].requires_grad:
        came["train"].square().sum().backward()
    unreached = [name for name, p in student.named_parameters() if p.grad is None]
    if unreached:
        raise CheckFailed(
            "a gradient for every parameter",
            f"none for {', '.join(unreached)}",
            "a `.detach()`, a `.data` or `torch.no_grad()` stands in the way",
        )
    return (
        f"shape {list(came['eval'].shape)}, {_count(student):,} parameters, "
        "the reference's values with the same weights, gradients everywhere."
    )


# What went wrong


def _parameters_differ(student, original, mistakes):
    shapes, theirs = _shapes(in_order(original)), _shapes(in_order(student))
    likely = next(
        (
            hint
            for hint, module in _mistaken(original, mistakes)
            if _shapes(in_order(module)) == theirs
        ),
        "",
    )
    if not theirs:
        likely = "the layers stand in a plain list or in local names, where PyTorch does not find "
        likely += "their parameters; use attributes of `self`, nn.Sequential or nn.ModuleList"
    missing, extra = _difference(shapes, theirs), _difference(theirs, shapes)
    came = f"{_count(student):,}"
    for label, tensors in (("missing", missing), ("not expected", extra)):
        if tensors:
            came += f"; {label}: {', '.join(map(str, tensors[:4]))}"
            came += ", ..." if len(tensors) > 4 else ""
    name = type(original).__name__
    return CheckFailed(f"{_count(original):,} parameters", came, likely, f"{name}.__init__")


def _difference(a, b):
    b = list(b)
    return [shape for shape in a if shape not in b or b.remove(shape)]


def _values_differ(attempts, wrong):
    for expected, came in attempts:
        mistakes = [
            *wrong,
            ("dropout is at work in eval mode too", {"eval": expected["train"]}),
            ("nothing is dropped in train mode", expected | {"train": expected["eval"]}),
        ]
        for hint, outputs in mistakes:
            if outputs and _same(came, outputs):
                return _difference_shown(expected, came, hint)
    return _difference_shown(*min(attempts, key=_distance))


def _distance(attempt):
    expected, came = attempt
    return sum(
        (came[m] - expected[m]).abs().max().item() if came[m].shape == expected[m].shape else 1e9
        for m in expected
    )


def _difference_shown(expected, came, likely=""):
    mode = next(mode for mode in expected if not _close(came[mode], expected[mode]))
    right, answer = expected[mode].detach().double(), came[mode].detach().double()
    if right.shape != answer.shape:
        return CheckFailed(f"shape {list(right.shape)}", f"shape {list(answer.shape)}", likely)
    difference = (answer - right).abs()
    index = [i.item() for i in torch.unravel_index(difference.argmax(), right.shape)]
    off = (difference > TOLERANCE * right.abs().max()).float().mean().item()
    where = f"at {index}" + (", in train mode" if mode == "train" else "")
    return CheckFailed(
        f"{_number(right[tuple(index)], expected[mode])} {where}",
        f"{_number(answer[tuple(index)], came[mode])}; {off:.0%} of the values differ",
        likely,
    )


def _number(value, tensor):
    return f"{value:.4f}" if tensor.is_floating_point() else f"{value:.0f}"
