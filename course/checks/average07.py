"""The check of lesson 7, exercise 5: an average of a model's weights."""

import copy

import torch
from torch import nn

from course.checking import CheckFailed, exercise, students_code
from course.checks.mistakes07 import AVERAGE_MISTAKES
from course.checks.shared import close_tensors, explained
from course.comparing import randomise
from course.training import update_average


@exercise("An average of the weights", update_average, ())
def average(answer):
    start, models = _averaged_network(2), [_averaged_network(5), _averaged_network(9)]
    before = [copy.deepcopy(model.state_dict()) for model in models]

    def run(update):
        average = copy.deepcopy(start)
        for decay, model in zip((0.9, 0.65), models, strict=True):
            update(average, model, decay)
        return average

    expected = run(update_average).state_dict()
    with (
        explained(complaints=AVERAGE_COMPLAINTS),
        students_code("update_average(average, model, decay) changes the average"),
    ):
        moved = run(answer)
    came = moved.state_dict()
    _require_own_numbers(came, models)
    _require_untouched(models, before)
    if not all(p.requires_grad for p in moved.parameters()):
        likely = "leave requires_grad as it is; torch.no_grad() is enough"
        raise CheckFailed("an average with parameters as before", "requires_grad=False", likely)
    if _same(came, expected):
        return "weights and running statistics after two updates; the model stays as it was."
    if came.keys() != expected.keys():
        raise CheckFailed("an average with the entries it had", ", ".join(came))
    name = next(name for name in expected if not close_tensors(came[name], expected[name]))
    right, wrong = (state[name].flatten()[0].item() for state in (expected, came))
    raise CheckFailed(
        f"{name}: {right:.4f}, ...",
        f"{wrong:.4f}, ...",
        _average_mistake(came, expected, start.state_dict(), run),
    )


AVERAGE_COMPLAINTS = {
    "'generator' object": "parameters() yields tensors without their names; state_dict() has both",
    "OrderedDict": "that is the whole state; new[name] is the tensor of this name",
    "container.Sequential'>": "a model is no number; go through the tensors of its state_dict()",
}


def _averaged_network(batches):
    """A network in parts, whose counter of batches and statistics are its own."""
    head = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(2), _Mean(), head)
    randomise(model)
    for number in range(batches):
        model.train()(torch.randn(4, 3, 5, 5) + number)
    return model


class _Mean(nn.Module):
    def forward(self, x):
        return x.mean(dim=2)


def _require_own_numbers(came, models):
    memory = {value.data_ptr() for model in models for value in model.state_dict().values()}
    if any(value.data_ptr() in memory for value in came.values()):
        likely = "copy_ copies; `a.data = b.data` lets both use the same numbers from now on"
        raise CheckFailed("an average with numbers of its own", "it shares the model's", likely)


def _require_untouched(models, before):
    for model, old in zip(models, before, strict=True):
        if not _same(model.state_dict(), old):
            raise CheckFailed(
                "the model stays as it is",
                "it was changed",
                "the average is what changes, in place: the model has to go on learning",
            )
        if not all(p.is_leaf and p.requires_grad for p in model.parameters()):
            likely = "requires_grad_(False), `.data` or a new parameter: leave the model alone"
            raise CheckFailed("a model that goes on learning", "its weights no longer do", likely)
        if not all(part.training for part in model.modules()):
            likely = "leave out model.eval(): the model goes on learning after this"
            raise CheckFailed("a model that stays in train mode", "it is in eval mode", likely)


def _average_mistake(came, expected, start, run):
    wrong = [name for name in expected if not close_tensors(came[name], expected[name])]
    weights = [name for name in expected if not name.endswith("num_batches_tracked")]
    mistaken = [(hint, run(mistake).state_dict()) for hint, mistake in AVERAGE_MISTAKES]
    for hint, state in mistaken:
        if _same(came, state):
            return hint
    if not set(wrong) & set(weights):
        return (
            "a counter of batches has no fractions: copy what is not floating point, as "
            "value.is_floating_point() tells, with its parentheses"
        )
    if all(close_tensors(came[name], start[name]) for name in weights):
        return (
            "nothing changed: write into the tensors, with value.copy_(...), value.mul_(...), "
            "value.lerp_(...); `value = ...` only gives the name to another tensor"
        )
    for hint, state in mistaken:  # with counters of its own
        if all(close_tensors(came[name], state[name]) for name in weights):
            return hint
    if all(close_tensors(came[name], start[name]) for name in wrong):
        return f"{wrong[0]} and {len(wrong) - 1} others did not change: go through all of the state"
    return ""


def _same(a, b):
    return a.keys() == b.keys() and all(close_tensors(a[name], b[name]) for name in a)
