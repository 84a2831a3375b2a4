"""The same weights for an answer and the reference."""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from course.checking import CheckFailed
from course.comparing.dropout import Usage
from course.comparing.matching import (
    Plan,
    by_name,
    by_use,
    children_in_every_order,
    in_order,
    lacking,
    plans,
    shapes_of,
)

TOLERANCE = 2e-5  # of the largest expected value: float32, summed in another order


@torch.no_grad()
def take_weights(module: nn.Module, source: nn.Module, inputs: torch.Tensor | None = None) -> None:
    """Copies all parameters and BatchNorm statistics of `source` into `module`.

    They are matched by shape, and those of one shape in the order of their layers, whatever their
    names; the weights of a 1x1 convolution fit a linear layer. With `inputs`, a batch that both
    take, also those of one shape find their places in whatever order the layers stand: in the first
    in which both return the same in eval mode. Raises ValueError where the shapes differ.
    """
    theirs, ours = shapes_of(in_order(source)), shapes_of(in_order(module))
    if theirs != ours:
        raise ValueError(
            f"the weights do not fit: missing {lacking(theirs, ours)}, "
            f"not expected {lacking(ours, theirs)}"
        )
    if inputs is None:
        pour(
            next(plans([in_order(source)], [in_order(module)], list(source.parameters()))),
            source,
            module,
        )
        return
    used = []
    for owner in (source, module):
        with Usage(owner) as usage:
            owner(inputs)
        used.append(by_use(owner, usage.order))
    modes = source.training, module.training
    expected = source.eval()(inputs)
    module.eval()
    orders = [*children_in_every_order(source), *children_in_every_order(source, used[0])]
    found = list(plans(orders, [in_order(module), used[1]], list(source.parameters())))
    for plan in found:
        pour(plan, source, module)
        if same(module(inputs), expected):
            break
    else:
        pour(found[0], source, module)
    source.train(modes[0])
    module.train(modes[1])


def possible_plans(
    right: nn.Module, student: nn.Module, inputs: tuple, usage: Any, orders: Any
) -> Iterator[Plan]:
    """The ways in which the answer's parameters may stand for the reference's."""
    if orders is by_name:
        return plans(orders(right, student), [in_order(student)], list(right.parameters()))
    with torch.no_grad(), Usage(right) as order:
        right.eval()(*inputs)
    sources = [*orders(right, student)] if orders else []
    sources += children_in_every_order(right)
    sources += children_in_every_order(right, by_use(right, order.order))
    targets = [in_order(student), by_use(student, usage.order)]
    return plans(sources, targets, list(right.parameters()))


def randomise(module: nn.Module) -> nn.Module:
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


@torch.no_grad()
def pour(plan: Plan, right: nn.Module, student: nn.Module) -> None:
    """Gives the student's module the parameters and the statistics of `right`."""
    vector = flat(right.parameters())
    for target, places in zip(plan.targets, plan.places, strict=True):
        target.copy_(vector[places])
    for theirs, ours in statistics(plan, right, student):
        theirs.copy_(ours)


def flat(tensors: Any) -> torch.Tensor:
    """All numbers in one vector, in the order of the tensors."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def statistics(plan: Plan, right: nn.Module, student: nn.Module) -> list[tuple]:
    """Pairs of running means and variances, the student's and the reference's, as far as they can
    be told: those of norms whose weights belong together, otherwise in order."""
    owners = _owners(right)
    pairs: list[tuple] = []
    rest = []
    for norm in (m for m in student.modules() if _statistics_of(m)):
        place = next(
            (
                int(p.flatten()[0])
                for t, p in zip(plan.targets, plan.places, strict=True)
                if t is getattr(norm, "weight", None)
            ),
            None,
        )
        twin = owners.get(place) if place is not None else None
        if twin is not None and _statistics_of(twin):
            pairs += zip(_statistics_of(norm), _statistics_of(twin), strict=True)
        else:
            rest.append(norm)
    used = {id(ours) for _, ours in pairs}
    ours = [b for m in right.modules() for b in _statistics_of(m) if id(b) not in used]
    theirs = [b for m in rest for b in _statistics_of(m)]
    if not rest:  # norms of the student's own
        theirs = [b for m in student.modules() for b in _own_buffers(m)]
    if [b.shape for b in theirs] == [b.shape for b in ours]:
        pairs += zip(theirs, ours, strict=True)
    return pairs


def _owners(module):
    """The norm that a number of the vector of all parameters begins, by its place."""
    owners, start = {}, 0
    norms = {
        id(m.weight): m for m in module.modules() if _statistics_of(m) and m.weight is not None
    }
    for parameter in module.parameters():
        if id(parameter) in norms:
            owners[start] = norms[id(parameter)]
        start += parameter.numel()
    return owners


def _statistics_of(module):
    if not isinstance(module, nn.modules.batchnorm._NormBase) or module.running_mean is None:
        return []
    return [module.running_mean, module.running_var]


def _own_buffers(module):
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return []
    named = dict(module.named_buffers(recurse=False))
    found = [b for n, b in named.items() if b.is_floating_point() and ("mean" in n or "var" in n)]
    return found


def same(a: Any, b: Any, tolerance: float = TOLERANCE) -> bool:
    """True where two tensors have one shape, and equal values but for rounding. NaN never does."""
    if not isinstance(a, torch.Tensor) or a.shape != b.shape:
        return False
    if not b.numel():
        return True
    a, b = a.detach().double(), b.detach().double()
    return bool((a - b).abs().max() <= tolerance * b.abs().max())


def require_eps(module: nn.Module, eps: float = 1e-6) -> None:
    """A millionth does not show in values of usual size, but in those of small ones."""
    for norm in module.modules():
        if isinstance(norm, nn.LayerNorm) and norm.eps != eps:
            likely = f"PyTorch's default is 1e-5; timm has LayerNorm2d(..., eps={eps:g})"
            raise CheckFailed(f"norms with eps={eps:g}", f"eps={norm.eps:g}", likely)
