"""Checks of lesson 7: training for real. See course/checking."""

import copy
import io
import pickle
import warnings

import torch
import torch.nn.functional as F
from torch import nn

from course.augmentation import shift_and_flip
from course.checking import CheckFailed, exercise, students_code
from course.checks.lesson05 import explained
from course.checks.lesson06 import number_of
from course.checks.mistakes07 import (
    AVERAGE_MISTAKES,
    MIX_MISTAKES,
    SCHEDULE_MISTAKES,
    SHIFT_MISTAKES,
    STEP_MISTAKES,
    mix,
)
from course.comparing import compare_calls, randomise
from course.training import update_average, warmup_cosine

# Exercise 1

SHARES = (0.0, 0.0137, 0.0531, 0.2, 0.3217, 0.4, 0.7371, 0.9053, 1.0)


@exercise("A schedule", warmup_cosine, ())
def schedule(answer):
    calls = [(share, warmup) for warmup in (0.1, 0.027, 0.25, 0.6) for share in SHARES]
    calls += [(0.1, 0.1), (0.013,), (0.5501,)]
    expected = [warmup_cosine(*call) for call in calls]
    came = []
    for call in calls:
        with (
            explained(complaints=SCHEDULE_COMPLAINTS),
            students_code("warmup_cosine takes a share and returns a number"),
        ):
            value = answer(*call)
        came.append(number_of(value, "return the factor alone"))
    place = _first_difference(came, expected)
    if place is None:
        return "the rise, the top and the fall, for warm-ups from 2.7 to 60 % of the run."
    full = [(*call, 0.1)[:2] for call in calls]
    likely = (h for h, mistake in SCHEDULE_MISTAKES if _does(mistake, full, came))
    share, warmup = full[place]
    raise CheckFailed(
        f"{expected[place]:.4f} at share={share}, warmup={warmup}",
        f"{came[place]:.4f}",
        next(likely, "") or _schedule_part(full, came, expected),
    )


SCHEDULE_COMPLAINTS = {
    "must be Tensor, not float": "torch's functions take tensors; for a number there is math.cos",
    "float division by zero": "share is 0 at the start of the run, so nothing can be divided by it",
}


def _does(mistake, calls, came):
    return _first_difference(came, [mistake(*call) for call in calls]) is None


def _schedule_part(calls, came, expected):
    """Which of the two parts is wrong, where no known mistake fits."""
    if any(value != value for value in came):
        return "no number: 0 / 0, or inf - inf"
    parts = {"the rise": [], "the fall": []}
    for (share, warmup), a, b in zip(calls, came, expected, strict=True):
        parts["the rise" if share < warmup else "the fall"].append(_near(a, b))
    right = [part for part, same in parts.items() if all(same)]
    if right == ["the rise"]:
        return "the rise is right; the fall, from `warmup` on, is not"
    if right == ["the fall"]:
        return "the fall is right; the rise, below `warmup`, is not"
    at_default = [i for i, (_, warmup) in enumerate(calls) if warmup == 0.1]
    if all(_near(came[i], expected[i]) for i in at_default):
        return "right for warmup=0.1 alone: is 0.1 written in?"
    return ""


def _near(a, b):
    return abs(a - b) <= 1e-5 or a == b


def _first_difference(a, b):
    """The first place where two lists of numbers differ; NaN differs from all."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if not _near(x, y)), None)


# Exercise 2


@exercise("Shift and flip", shift_and_flip, ())
def shift(answer):
    calls = []
    for height, width in ((7, 5), (6, 9)):
        images = torch.arange(6 * 3 * height * width, dtype=torch.int64) % 251
        images = images[torch.randperm(len(images))].to(torch.uint8).view(6, 3, height, width)
        down, right = torch.tensor([[2, 0, -1, 11, -2, -9], [-3, 1, 2, -1, -12, 10]])
        calls.append((images, down, right, torch.tensor([True, False, True, False, False, True])))
    images, *draws = calls[0]
    calls.append((images / 255, *draws))
    one = [draw[:1] for draw in draws]
    calls.append((images[:1], *one))
    calls.append((images[1:2].expand(6, -1, -1, -1), *draws))  # as in the next cell
    with explained(complaints=SHIFT_COMPLAINTS, first=True):
        return compare_calls(
            answer,
            shift_and_flip,
            calls,
            SHIFT_MISTAKES,
            "every pixel of images with shifts of their own, large ones too, some flipped; uint8 "
            "and float.",
            gradients=False,
        )


SHIFT_COMPLAINTS = {
    "Boolean value of Tensor": "`flipped` holds a truth for each image, which `if` cannot ask: "
    "torch.where(flipped[:, None], ..., ...)",
    '"dims"': "flip needs the axis that it turns around: .flip(1)",
    "'range' and 'Tensor'": "range gives Python's numbers; torch.arange gives a tensor",
    "returns torch.uint8": "move pixels, do not compute them: uint8 stays uint8",
}


# Exercise 3


@exercise("Mixed images, soft targets", mix, ())
def soft(answer):
    def call(count, classes, share, *rest, hard=True):
        targets = F.one_hot(torch.randint(classes, (count,)), classes).float()
        if not hard:  # targets may be soft already
            targets = torch.rand(count, classes).softmax(dim=1)
        partner = torch.randperm(count)
        return torch.randn(count, 3, 4, 5), targets, share, partner, *rest

    calls = [
        call(6, 4, 0.7, 0.2),
        call(5, 9, 0.3, 0.0),
        call(7, 11, 0.45),
        call(8, 6, 0.85, 0.3, hard=False),
        call(1, 5, 0.6),
        call(6, 10, 1.0),
        call(9, 8, 0.0, 0.05),
    ]
    with explained(complaints=MIX_COMPLAINTS):
        return compare_calls(
            answer,
            mix,
            calls,
            MIX_MISTAKES,
            f"images and targets of {len(calls)} batches, with and without smoothing; targets add "
            "up to 1.",
            gradients=False,
        )


MIX_COMPLAINTS = {
    "'float' and 'torch.Size'": "`targets.shape` has two lengths; K is targets.shape[1]",
    "one_hot is only": "`targets` are one-hot already, [B, K]",
}


# Exercise 4


def bf16_step(model, optimizer, images, targets):
    """The reference of exercise 4: one step with the forward pass in bfloat16; the loss."""
    return _step(model, optimizer, images, targets)


def _step(
    model,
    optimizer,
    images,
    targets,
    dtype=torch.bfloat16,
    digits=torch.float32,
    zero=True,
    loss=F.cross_entropy,
    steps=1,
):
    for _ in range(steps):
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            logits = model(images)
        value = loss(logits.to(digits), targets)
        if zero:
            optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return value.detach().float()


class _Network(nn.Module):
    """Logits large enough that bfloat16's three digits show; notes in which type it computes."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5)
        self.conv_types = []

    def forward(self, x):
        x = self.conv(x)
        self.conv_types.append(x.dtype)
        return 8 * self.linear(self.norm(x).relu().mean(dim=(2, 3)))


class _Optimizer(torch.optim.SGD):
    """Notes what happens to it: for each step whether gradients were there."""

    def __init__(self, parameters):
        super().__init__(parameters, lr=0.1)
        self.noted = []

    def step(self, closure=None):
        parameters = self.param_groups[0]["params"]
        there = [p.grad is not None and bool(p.grad.any()) for p in parameters]
        self.noted.append("step" if any(there) else "step without gradients")
        return super().step(closure)


@exercise("A step in bfloat16", bf16_step, ())
def bf16(answer):
    network = randomise(_Network())
    batches = [(torch.randn(6, 3, 8, 8), torch.randint(5, (6,))) for _ in range(2)]

    def run(step):
        model = copy.deepcopy(network)
        optimizer = _Optimizer(model.parameters())
        return model, [step(model, optimizer, *batch) for batch in batches], optimizer.noted

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with (
            explained(complaints=STEP_COMPLAINTS),
            students_code("bf16_step(model, optimizer, images, targets) takes a step"),
        ):
            model, losses, noted = run(answer)
    losses = [_loss(value) for value in losses]
    _require_types(model, len(batches))
    expected, came = _values(*run(bf16_step)[:2]), _values(model, losses)
    place = _first_difference(came, expected)
    if place is None:
        return "losses and weights after two steps; bfloat16 inside, float32 for loss and weights."
    likely = _order_mistake(noted, model, warned)
    for hint, options in STEP_MISTAKES:
        if likely:
            break
        wrong = run(lambda *arguments, o=options: _step(*arguments, **o))
        likely = hint if _first_difference(came, _values(*wrong[:2])) is None else ""
    if came[place] != came[place]:
        likely = "no number: 0 / 0, or inf - inf"
    what = f"loss {place + 1}" if place < 2 else "a weight after two steps"
    raise CheckFailed(
        f"{what}: {expected[place]:.5f}", f"{came[place]:.5f}", likely or _part(came, expected)
    )


STEP_COMPLAINTS = {
    "got: `<class 'torch.device'>`": "autocast takes the name of the kind of device: "
    "images.device.type",
    "got: `<class 'torch.dtype'>`": "the kind of device comes first: "
    "torch.autocast(images.device.type, torch.bfloat16)",
    "does not require grad": "the forward pass records no gradients: torch.no_grad(), or a "
    "`.detach()`, stands in the way of loss.backward()",
    "target with class probabilities": "cross-entropy takes the logits, [B, K], and targets, [B]",
    "not implemented for 'Long'": "the logits come first: F.cross_entropy(logits, targets)",
}


def _loss(value):
    """The loss as a number, still with gradients or not."""
    likely = ""
    if isinstance(value, torch.Tensor) and value.numel() > 1:
        likely = "the loss of the whole batch is one number; these may be the logits"
    return number_of(value, "return the loss alone", "the loss, one number", likely)


def _values(model, losses):
    weights = torch.cat([p.flatten() for p in model.parameters()])
    return [*map(float, losses), *weights.tolist()]


def _require_types(model, steps):
    if any(p.dtype != torch.float32 for p in model.parameters()):
        raise CheckFailed(
            "weights that stay float32",
            str(next(p.dtype for p in model.parameters())),
            "the model itself was converted; a step smaller than a weight's third digit is lost "
            "then. torch.autocast converts where it is safe, and leaves the weights as they are",
        )
    if not model.training:
        likely = "this is a step of training: leave out model.eval()"
        raise CheckFailed("a model that stays in train mode", "it is in eval mode", likely)
    if len(model.conv_types) != steps:
        count = len(model.conv_types)
        likely = "call `model(images)` once" if count else "logits are what `model(images)` gives"
        raise CheckFailed("one forward pass a step", f"{count} in {steps} steps", likely)


def _order_mistake(noted, model, warned):
    """What the calls themselves tell: of backward, zero_grad, step and autocast."""
    if not noted:
        return "the weights did not change: optimizer.step() is missing"
    if noted[0] == "step without gradients":
        if all(p.grad is None or not p.grad.any() for p in model.parameters()):
            return (
                "no gradients were there in the step, so that the weights did not change: "
                "loss.backward() is missing, or optimizer.zero_grad() stands between it and "
                "optimizer.step()"
            )
        return "the weights did not change: optimizer.step() comes before loss.backward()"
    if model.conv_types[0] is torch.float16:
        return "float16 needs its gradients scaled; dtype=torch.bfloat16"
    if any("device_type" in str(w.message) or "CUDA" in str(w.message) for w in warned):
        return "autocast is for a GPU here, but the images are on the CPU: images.device.type"
    return ""


def _part(came, expected):
    if _first_difference(came[:1], expected[:1]) is None:
        return "the first loss is right, the step after it is not"
    return "the loss is wrong, the first step is right" if came[1:2] == expected[1:2] else ""


# Exercise 5


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
    name = next(name for name in expected if not _close(came[name], expected[name]))
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
    wrong = [name for name in expected if not _close(came[name], expected[name])]
    weights = [name for name in expected if not name.endswith("num_batches_tracked")]
    mistaken = [(hint, run(mistake).state_dict()) for hint, mistake in AVERAGE_MISTAKES]
    for hint, state in mistaken:
        if _same(came, state):
            return hint
    if not set(wrong) & set(weights):
        return "a counter of batches has no fractions: copy what is not floating point"
    if all(_close(came[name], start[name]) for name in weights):
        return (
            "nothing changed: write into the tensors, with value.copy_(...), value.mul_(...), "
            "value.lerp_(...); `value = ...` only gives the name to another tensor"
        )
    for hint, state in mistaken:  # with counters of its own
        if all(_close(came[name], state[name]) for name in weights):
            return hint
    if all(_close(came[name], start[name]) for name in wrong):
        return f"{wrong[0]} and {len(wrong) - 1} others did not change: go through all of the state"
    return ""


def _close(a, b):
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), atol=1e-6)


def _same(a, b):
    return a.keys() == b.keys() and all(_close(a[name], b[name]) for name in a)


# Exercise 6


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

    def new(seed, run=answer):
        torch.manual_seed(seed)
        return run(_network(), images, targets, STEPS)

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
    return isinstance(a, torch.Tensor) and _close(a, b)
