"""The check of lesson 7, exercise 6: a run that stops and goes on as if it never had."""

import copy
import io
import pickle

import torch
import torch.nn.functional as F
from torch import nn

from course.checking import CheckFailed, exercise, students_code
from course.checks.shared import close_tensors, explained
from course.comparing.looks import SHARED


class Run:
    """The reference of exercise 6: a run that may stop after any step and go on later."""

    def __init__(self, model, images, targets, steps):
        self.model, self.images, self.targets = model, images, targets
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        self.step = 0
        self.order = torch.arange(0)

    def train(self, until):
        while self.step < until:
            if len(self.order) == 0:
                self.order = torch.randperm(len(self.images))
            batch, self.order = self.order[:32], self.order[32:]
            loss = F.cross_entropy(self.model(self.images[batch]), self.targets[batch])
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            self.step += 1

    def state_dict(self):
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
            "order": self.order,
            "random": torch.get_rng_state(),
        }

    def load_state_dict(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step, self.order = state["step"], state["order"]
        torch.set_rng_state(state["random"])


STEPS, STOPS = 11, (7, 6)  # three steps an epoch: a stop inside one, and one at an end
LEFT_OUT = [
    # what it is, how it is read from a run, what is likely
    (
        "the weights",
        lambda run: [p.detach() for p in run.model.parameters()],
        "the model is not restored: self.model.load_state_dict(...)",
    ),
    (
        "BatchNorm's running statistics",
        lambda run: list(run.model.buffers()),
        "they are in model.state_dict(), but not among model.parameters()",
    ),
    (
        "the optimiser's moving averages",
        lambda run: [v for s in run.optimizer.state_dict()["state"].values() for v in s.values()],
        "the optimiser is not restored: AdamW keeps two averages of every gradient",
    ),
    (
        "the schedule's place",
        lambda run: [torch.tensor(run.schedule.last_epoch)],
        "the schedule is not restored: it would begin again with the highest learning rate",
    ),
    (
        "the learning rate",
        lambda run: [torch.tensor(run.optimizer.param_groups[0]["lr"])],
        "it stands in the optimiser's state",
    ),
    (
        "the number of steps",
        lambda run: [torch.tensor(run.step) if isinstance(run.step, int) else run.step],
        "self.step is not restored as it was",
    ),
    (
        "the images left of the epoch",
        lambda run: [run.order],
        "self.order, a tensor, is not restored as it was: some images would be seen twice in this "
        "epoch",
    ),
]


def _network():
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3)
    return nn.Sequential(*layers, nn.Linear(36, 5))


@exercise("A run that can be resumed", Run, ("state_dict", "load_state_dict"))
def resume(answer):
    images, targets = torch.randn(80, 3, 5, 5), torch.randint(5, (80,))

    runs = []

    def new(seed, make=answer):
        torch.manual_seed(seed)
        run = make(_network(), images, targets, STEPS)
        if any(run is other for other in runs):
            raise CheckFailed("a run of its own each time", "the one made before", SHARED)
        runs.append(run)
        return run

    given = new(1, Run)
    given.train(STEPS)
    for stop in STOPS:
        with students_code("the run trains"):
            whole = new(1)
            whole.train(stop)
            random = torch.get_rng_state()
            stopped = copy.deepcopy(whole)
            whole.train(STEPS)
        if not _alike(*(list(run.model.state_dict().values()) for run in (whole, given))):
            raise CheckFailed(
                "a run that trains as the given `train` does",
                "other weights in the end",
                "`__init__` and `train` were given: leave them as they are",
            )
        torch.set_rng_state(random)
        state = _state_of(stopped, random)
        _require_same_end(new, state, whole, stopped, random)
        _require_only_looked(stopped, whole, random)
    return (
        f"stopped after {' and after '.join(map(str, STOPS))} of {STEPS} steps, inside an epoch "
        "and at its end: the same weights in the end."
    )


def _state_of(run, random):
    """What `state_dict` gives, as it comes back from a file."""
    with students_code("state_dict() gives the run's state"):
        state = run.state_dict()
    if not isinstance(state, dict):
        likely = "`state_dict` has no `return`" if state is None else "a dict is asked for"
        raise CheckFailed("a dict", type(state).__name__, likely)
    if not torch.equal(torch.get_rng_state(), random):
        likely = "torch.get_rng_state() reads it; seeds and set_rng_state change it"
        raise CheckFailed("state_dict() only looks", "it changes torch's random state", likely)
    return {name: _through_a_file(name, value) for name, value in state.items()}


def _through_a_file(name, value):
    file = io.BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        return torch.load(file, weights_only=True)
    except Exception as error:
        kind = type(value).__name__
        likely = "whole objects are code; save their state_dict()"
        if callable(value) and not isinstance(value, nn.Module):
            likely = "a function: are its parentheses missing?"
        elif not isinstance(error, pickle.PickleError | AttributeError | TypeError):
            likely = f"it does not come back from a file: {type(error).__name__}"
        raise CheckFailed(
            "a state of tensors, numbers, strings, lists and dicts",
            f"state[{name!r}] is of type {kind}",
            likely,
        ) from None


RESUME_COMPLAINTS = {
    "KeyError: 'param_groups'": "that is not the optimiser's state: state['optimizer'], or what "
    "your state_dict calls it",
    "dict-like": "the model's state_dict() belongs there, a dict with names",
    "torch.ByteTensor": "the random state is the tensor that torch.get_rng_state() gives",
    "dictionary update sequence": "the schedule's state_dict() belongs there",
    "Missing key(s) in state_dict": "that is not the whole of the model's state_dict(): buffers "
    "belong to it as well as parameters",
}


def _missing_entries(state):
    """What a KeyError of each name means that the answer's own state does not have."""
    names = ("model", "optimizer", "schedule", "step", "order", "random")
    return {
        f"KeyError: '{name}'": f"your state_dict() has no entry {name!r}; it has "
        f"{', '.join(map(repr, state))}"
        for name in names
        if name not in state
    }


def _restored(new, state):
    """A new run with the state; torch's random state as `load_state_dict` leaves it."""
    run = new(2)
    parts = run.model, run.optimizer, run.schedule
    with (
        explained(complaints=_missing_entries(state) | RESUME_COMPLAINTS, first=True),
        students_code("load_state_dict(state) restores the run"),
    ):
        run.load_state_dict(copy.deepcopy(state))  # the optimiser goes on in the same tensors
    for name, kept in zip(("model", "optimizer", "schedule"), parts, strict=True):
        came = getattr(run, name, None)
        if type(came) is not type(kept):
            likely = f"restore into the one that is there: self.{name}.load_state_dict(...)"
            raise CheckFailed(
                f"self.{name} stays {type(kept).__name__}", type(came).__name__, likely
            )
        if came is not kept and name == "optimizer" and run.schedule.optimizer is kept:
            raise CheckFailed(
                "the schedule drives the optimiser that takes the steps",
                "self.optimizer is a new one, and self.schedule holds the old",
                "restore into the one that is there: self.optimizer.load_state_dict(...)",
            )
    return run


def _require_same_end(new, state, whole, stopped, random):
    other = _restored(new, state)
    came = torch.get_rng_state()
    try:
        with students_code("the restored run goes on"):
            other.train(STEPS)
        ends = _alike(*(list(run.model.state_dict().values()) for run in (whole, other)))
        if ends and other.step == STEPS:
            return
    except CheckFailed as failure:  # it can't go on: what is missing says why, if it can be seen
        _require_restored(_restored(new, state), stopped)
        raise failure from None
    _require_restored(_restored(new, state), stopped)
    likely = ""
    if not torch.equal(came, random):
        likely = (
            "the random state is not restored, so that dropout and the next epoch's order differ: "
            "torch.get_rng_state() and torch.set_rng_state(...)"
        )
    weights, theirs = (
        torch.cat([v.flatten() for v in r.model.state_dict().values()]) for r in (whole, other)
    )
    far = (weights - theirs).abs().max()
    raise CheckFailed("the weights of a run that never stopped", f"off by {far:.4f}", likely)


def _require_restored(again, stopped):
    for what, read, likely in LEFT_OUT:
        with students_code(f"{what} can be read from the restored run"):
            came, right = read(again), read(stopped)
        if not _alike(came, right):
            pairs = enumerate(zip(came, right, strict=False))
            place = next((i for i, pair in pairs if not _alike(*pair)), 0)
            shown = _shown(right, place), _shown(came, place)
            raise CheckFailed(f"{what} of the run that stopped: {shown[0]}", shown[1], likely)


def _require_only_looked(stopped, whole, random):
    """A run whose state was saved goes on as if it had not been."""
    torch.set_rng_state(random)
    with students_code("the run goes on after state_dict()"):
        stopped.train(STEPS)
    if not _alike(*(list(run.model.state_dict().values()) for run in (whole, stopped))):
        raise CheckFailed(
            "a run that goes on after state_dict() as if it had not been called",
            "other weights in the end",
            "state_dict() only looks; it must not change the run, its modes or its tensors",
        )


def _shown(values, place):
    """A few of the numbers, from the first that differs."""
    if place >= len(values):
        return f"{len(values)} tensors"
    value = values[place]
    if not isinstance(value, torch.Tensor):
        return f"of type {type(value).__name__}"
    if value.numel() == 1:
        return f"{value.item():g}"
    first = f", {value.flatten()[0].item():.4g}, ..." if value.numel() else ""
    return f"{value.numel()} numbers{first}"


def _alike(a, b):
    """Equal tensors, or lists of equal tensors; anything else is not a tensor's equal."""
    if isinstance(b, list):
        return isinstance(a, list) and len(a) == len(b) and all(map(_alike, a, b))
    return isinstance(a, torch.Tensor) and close_tensors(a, b)
