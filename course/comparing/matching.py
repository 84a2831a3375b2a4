"""Which parameter of an answer stands for which of the reference, whatever its name and place.

A plan says so number by number: for each parameter of the answer a tensor of the same shape, with
the places of its numbers in the vector of all the reference's numbers. So the same plan carries
weights there and compares gradients, across transposed, reshaped, fused and separate layers.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

PLANS = 150  # as many are tried, of which most differ in a few places


@dataclass
class Plan:
    """targets: the answer's parameters. places: for each one where its numbers stand, [*shape]."""

    targets: list[torch.Tensor]
    places: list[torch.Tensor]

    def key(self) -> bytes:
        return b"".join(p.numpy().tobytes() for p in self.places)


def in_order(*modules: nn.Module) -> list:
    """The parameters of the modules in order, each with what it is: [((owner, name), tensor)]."""
    return [
        ((kind_of(owner), name), parameter)
        for module in modules
        for owner in module.modules()
        for name, parameter in owner.named_parameters(recurse=False)
    ]


def kind_of(owner: nn.Module) -> str:
    """What a layer is, whatever class and shape it was written with."""
    if isinstance(owner, nn.LayerNorm | nn.GroupNorm | nn.modules.batchnorm._BatchNorm):
        return "norm"
    if isinstance(owner, nn.Linear | nn.modules.conv._ConvNd):
        return "linear"
    return "own" if not type(owner).__module__.startswith("torch.nn") else type(owner).__name__


def by_use(module: nn.Module, order: list[str]) -> list:
    """As `in_order`, but in the order of the names given; what is not among them comes last."""
    entries = {id(parameter): entry for entry in in_order(module) for parameter in entry[1:]}
    named = dict(module.named_parameters())
    first = [entries[id(named[name])] for name in order if name in named]
    seen = {id(parameter) for _, parameter in first}
    return first + [e for e in entries.values() if id(e[1]) not in seen]


def by_name(right: nn.Module, student: nn.Module) -> list[list]:
    """For `orders`, where an exercise gives all names: the one order in which names agree."""
    own = dict(zip((n for n, _ in right.named_parameters()), in_order(right), strict=True))
    return [[own[name] for name, _ in student.named_parameters()]]


def children_in_every_order(module: nn.Module, entries: list | None = None) -> Iterator[list]:
    """`entries`, by default `in_order(module)`, with its children's in every order, or, where they
    are many, with each of them moved to the front and to the end."""
    entries = in_order(module) if entries is None else entries
    owner = {
        id(parameter): name.partition(".")[0] if "." in name else ""
        for name, parameter in module.named_parameters()
    }
    groups: dict[str, list] = {}
    for entry in entries:
        groups.setdefault(owner.get(id(entry[1]), ""), []).append(entry)
    own = groups.pop("", [])
    names = list(groups)
    orders = itertools.permutations(names) if len(names) <= 4 else _moved(names)
    yield entries
    for order in orders:
        yield own + [entry for name in order for entry in groups[name]]


def _moved(names):
    yield tuple(names)
    for name in names:
        rest = [other for other in names if other != name]
        yield name, *rest
        yield *rest, name


def plans(source_orders: Any, target_orders: Any, numbers: list[torch.Tensor]) -> Iterator[Plan]:
    """All different plans, the likeliest first.

    source_orders, target_orders: lists as `in_order` gives them. A source may be a view of one of
    the reference's parameters, such as its transpose. numbers: the reference's parameters.
    """
    seen = set()
    starts = _starts(numbers)
    source_orders = [list(order) for order in source_orders]
    for transposed, targets in itertools.product((False, True), target_orders):
        for sources in source_orders:
            plan = _plan(sources, targets, starts, transposed)
            if plan is None or plan.key() in seen:
                continue
            seen.add(plan.key())
            yield plan
            if len(seen) == PLANS:
                return


def _starts(numbers):
    """For each parameter, by its memory: where the numbers that lie there one after the other stand
    in the vector of all. In memory channels may come last; in the vector they never do."""
    starts, total = {}, 0
    for tensor in numbers:
        places = torch.empty(_size(tensor), dtype=torch.long)
        places[_in_memory(tensor).flatten()] = torch.arange(total, total + tensor.numel())
        starts[tensor.untyped_storage().data_ptr()] = places
        total += tensor.numel()
    return starts


def _size(tensor):
    return tensor.untyped_storage().nbytes() // tensor.element_size()


def _in_memory(tensor):
    every = torch.arange(_size(tensor))
    return every.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def _places(source, starts):
    """The places of a source's numbers, [*shape]; it may be a view of a parameter."""
    return starts[source.untyped_storage().data_ptr()][_in_memory(source)]


def _plan(sources, targets, starts, transposed):
    ours = [(kind, _places(tensor, starts)) for kind, tensor in sources]
    if sum(p.numel() for _, p in ours) != sum(t.numel() for _, t in targets):
        return None
    left, places = list(ours), []
    for kind, target in targets:
        found = _take(left, kind, target, transposed)
        if found is None:
            return None if transposed else _as_one_vector(ours, targets)
        places.append(found)
    return Plan([target for _, target in targets], places)


def _take(left, kind, target, transposed):
    """Takes from `left` the first source that fits the target, of its kind if there is one."""
    turn = transposed and kind[0] == "own" and target.ndim >= 2
    shape = shape_of(target)
    if turn:
        fitting = [
            i for i, (_, p) in enumerate(left) if p.ndim > 1 and shape_of(p.flatten(1).T) == shape
        ]
    else:
        fitting = [i for i, (_, p) in enumerate(left) if shape_of(p) == shape]
    if not fitting:
        return None
    best = min(fitting, key=lambda i: (left[i][0] != kind, left[i][0][1] != kind[1]))
    found = left.pop(best)[1]
    return (found.flatten(1).T if turn else found).reshape(target.shape)


def _as_one_vector(ours, targets):
    """Other layers, such as one for query, key and value together: as one long vector."""
    vector = torch.cat([places.flatten() for _, places in ours])
    parts = vector.split([target.numel() for _, target in targets])
    shaped = [part.view(t.shape) for part, (_, t) in zip(parts, targets, strict=True)]
    return Plan([target for _, target in targets], shaped)


def shape_of(tensor: torch.Tensor) -> list[int]:
    """Its lengths without those of 1: a 1x1 convolution fits a linear layer."""
    return [length for length in tensor.shape if length != 1]


def shapes_of(entries: list) -> list[list[int]]:
    return sorted(shape_of(tensor) for _, tensor in entries)


def lacking(wanted: list, there: list) -> list:
    """What of `wanted` is not in `there`, each as often as it is missing."""
    left = Counter(map(tuple, there))
    missing = []
    for shape in wanted:
        if left[tuple(shape)]:
            left[tuple(shape)] -= 1
        else:
            missing.append(shape)
    return missing


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
