"""Checks of lesson 7: training for real. See course/checking.py."""

import copy
import io
import math
import pickle

import torch
import torch.nn.functional as F
from torch import nn

from course.augmentation import shift_and_flip
from course.checking import CheckFailed, exercise, students_code
from course.comparing import compare_calls, randomise
from course.training import update_average, warmup_cosine

# Exercise 1


def _cosine(share, warmup=0.1, turns=0.5):
    return (1 + math.cos(2 * math.pi * turns * (share - warmup) / (1 - warmup))) / 2


def _after_warmup(fall):
    return lambda share, warmup=0.1: share / warmup if share < warmup else fall(share, warmup)


SCHEDULE_MISTAKES = [
    ("the warm-up is missing: below `warmup` the factor is share / warmup", _cosine),
    ("it stays at 1 after the warm-up; let it fall", _after_warmup(lambda share, warmup: 1.0)),
    (
        "the cosine counts from the start of the run, so that the factor jumps after the warm-up; "
        "count from its end: (share - warmup) / (1 - warmup)",
        _after_warmup(lambda share, warmup: _cosine(share, 0)),
    ),
    (
        "the cosine starts at the end of the warm-up, but is too slow: divide by 1 - warmup",
        _after_warmup(lambda share, warmup: (1 + math.cos(math.pi * (share - warmup))) / 2),
    ),
    (
        "a whole wave, which rises again; half of one goes from 1 to 0: pi, not 2 * pi",
        _after_warmup(lambda share, warmup: _cosine(share, warmup, turns=1)),
    ),
    (
        "a quarter of a wave; half of one is asked for: (1 + cos(pi * ...)) / 2",
        _after_warmup(lambda s, w: math.cos(math.pi / 2 * (s - w) / (1 - w))),
    ),
    (
        "it falls in a straight line; half a cosine wave is asked for",
        _after_warmup(lambda share, warmup: (1 - share) / (1 - warmup)),
    ),
    (
        "1 + cos goes from 2 to 0: halve it",
        _after_warmup(lambda share, warmup: 2 * _cosine(share, warmup)),
    ),
    (
        "the 1 + is missing: cos goes from 1 to -1",
        _after_warmup(lambda share, warmup: 2 * _cosine(share, warmup) - 1),
    ),
    (
        "only the 1 is halved; parentheses: (1 + cos(...)) / 2",
        _after_warmup(lambda share, warmup: 2 * _cosine(share, warmup) - 0.5),
    ),
    (
        "share - warmup needs parentheses before it is divided by (1 - warmup)",
        _after_warmup(lambda s, w: (1 + math.cos(math.pi * (s - w / (1 - w)))) / 2),
    ),
    (
        "it rises after the warm-up: 1 + cos, not 1 - cos",
        _after_warmup(lambda share, warmup: 1 - _cosine(share, warmup)),
    ),
    (
        "the warm-up is not divided by its length: share / warmup goes from 0 to 1",
        lambda share, warmup=0.1: share if share < warmup else _cosine(share, warmup),
    ),
    ("the warm-up lasts a tenth of the run, whatever `warmup` says", lambda s, w: warmup_cosine(s)),
    (
        "the warm-up goes from 1 down to 0; it should rise: share / warmup",
        lambda share, warmup=0.1: 1 - share / warmup if share < warmup else _cosine(share, warmup),
    ),
    (
        "degrees? math.cos takes radians: half a wave is math.pi",
        _after_warmup(lambda s, w: (1 + math.cos(180 * (s - w) / (1 - w))) / 2),
    ),
]


@exercise("A schedule", warmup_cosine, ())
def schedule(answer):
    calls = [(share, warmup) for warmup in (0.1, 0.25) for share in (0.0, 0.05, 0.2, 0.4, 0.7, 1.0)]
    calls += [(0.1, 0.1), (0.01,), (0.55,)]
    expected = [warmup_cosine(*call) for call in calls]
    came = []
    for call in calls:
        with students_code("warmup_cosine takes a share and returns a number"):
            value = answer(*call)
            if value is None:
                raise CheckFailed("a number", "None", "the function has no `return`")
            came.append(float(value))
    if _equal(came, expected):
        return "the rise, the top and the fall, for warm-ups of a tenth and of a quarter."
    likely = (
        hint
        for hint, mistake in SCHEDULE_MISTAKES
        if _equal(came, [mistake(*(*call, 0.1)[:2]) for call in calls])
    )
    place = _first_difference(came, expected)
    share, warmup = (*calls[place], 0.1)[:2]
    raise CheckFailed(
        f"{expected[place]:.4f} at share={share}, warmup={warmup}",
        f"{came[place]:.4f}",
        next(likely, ""),
    )


def _equal(a, b):
    return _first_difference(a, b) is None


def _first_difference(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=True)) if abs(x - y) > 1e-5), None)


# Exercise 2


def _rolled(images, down, right, flipped):
    moves = zip(images, down.tolist(), right.tolist(), strict=True)
    moved = torch.stack([image.roll((-d, -r), dims=(1, 2)) for image, d, r in moves])
    return torch.where(flipped[:, None, None, None], moved.flip(3), moved)


def _with_zeros(images, down, right, flipped):
    height, width = images.shape[2:]
    side = max(height, width)
    wide = F.pad(images, (side,) * 4)
    wide = shift_and_flip(wide, down, right, torch.zeros_like(flipped))
    moved = wide[:, :, side : side + height, side : side + width]
    return torch.where(flipped[:, None, None, None], moved.flip(3), moved)


SHIFT_MISTAKES = [
    ("down and right are swapped", lambda x, d, r, f: shift_and_flip(x, r, d, f)),
    (
        "shifted the other way: what is seen at row 0 was at row 0 + down",
        lambda x, d, r, f: shift_and_flip(x, -d, -r, f),
    ),
    ("rows go the other way: row + down", lambda x, d, r, f: shift_and_flip(x, -d, r, f)),
    ("columns go the other way: column + right", lambda x, d, r, f: shift_and_flip(x, d, -r, f)),
    (
        "what leaves on one side comes in on the other; repeat the border instead: "
        ".clamp(0, height - 1), .clamp(0, width - 1)",
        _rolled,
    ),
    ("what was outside is black; repeat the border's pixels: clamp", _with_zeros),
    ("nothing is flipped", lambda x, d, r, f: shift_and_flip(x, d, r, torch.zeros_like(f))),
    (
        "all are flipped, not those alone where `flipped` is True",
        lambda x, d, r, f: shift_and_flip(x, d, r, torch.ones_like(f)),
    ),
    (
        "the others are flipped: those where `flipped` is False",
        lambda x, d, r, f: shift_and_flip(x, d, r, ~f),
    ),
    (
        "upside down; left and right should change places: the columns, dim 3",
        lambda x, d, r, f: torch.where(
            f[:, None, None, None],
            shift_and_flip(x, d, r, torch.zeros_like(f)).flip(2),
            shift_and_flip(x, d, r, torch.zeros_like(f)),
        ),
    ),
    (
        "the columns' numbers are mirrored, as if the image were flipped first and shifted "
        "afterwards; shift, then turn their order around: columns.flip(1)",
        lambda x, d, r, f: shift_and_flip(x, d, torch.where(f, -r, r), f),
    ),
    (
        "every image gets the first one's shift; each has its own",
        lambda x, d, r, f: shift_and_flip(x, d[:1].expand_as(d), r[:1].expand_as(r), f),
    ),
    (
        "every image is flipped upside down too; left and right alone change places: dim 3",
        lambda x, d, r, f: torch.where(
            f[:, None, None, None], shift_and_flip(x, d, r, f).flip(2), shift_and_flip(x, d, r, f)
        ),
    ),
    ("the rows do not move", lambda x, d, r, f: shift_and_flip(x, torch.zeros_like(d), r, f)),
    ("the columns do not move", lambda x, d, r, f: shift_and_flip(x, d, torch.zeros_like(r), f)),
    (
        "the channels stand last: [B, C, H, W] is asked for; .movedim(3, 1) takes them back",
        lambda *a: shift_and_flip(*a).movedim(1, 3),
    ),
    ("height and width are swapped in the result", lambda *a: shift_and_flip(*a).mT),
]


@exercise("Shift and flip", shift_and_flip, ())
def shift(answer):
    calls = []
    for height, width in ((7, 5), (6, 9)):
        images = torch.arange(6 * 3 * height * width, dtype=torch.uint8)
        images = images[torch.randperm(len(images))].view(6, 3, height, width)
        down, right = torch.tensor([[2, 0, -1, 3, -2, 1], [-3, 1, 2, -1, 0, 3]])
        calls.append((images, down, right, torch.tensor([True, False, True, False, False, True])))
    images, *draws = calls[0]
    calls.append((images / 255, *draws))
    proven = compare_calls(
        answer,
        shift_and_flip,
        calls,
        SHIFT_MISTAKES,
        "every pixel of six images, each with a shift of its own, some flipped; uint8 and float.",
    )
    images = calls[0][0].clone()
    with students_code("shift_and_flip keeps uint8"):
        came = answer(images, *draws)
    if came.dtype != torch.uint8:
        raise CheckFailed("uint8 stays uint8", str(came.dtype), "move pixels, do not compute them")
    if not torch.equal(images, calls[0][0]):
        raise CheckFailed("the images that were given stay as they are", "they were changed")
    return proven


# Exercise 3


def mix(images, targets, share, partner, smoothing=0.1):
    """The reference of exercise 3: images and smoothed targets faded into those of partners."""
    targets = _smooth(targets, smoothing)
    return _fade(images, share, partner), _fade(targets, share, partner)


def _smooth(targets, smoothing):
    return (1 - smoothing) * targets + smoothing / targets.shape[1]


def _fade(values, share, partner):
    return share * values + (1 - share) * values[partner]


def _smooth_others(targets, smoothing):
    return torch.where(targets > 0.5, 1 - smoothing, smoothing / (targets.shape[1] - 1))


def _with_smooth(smooth):
    def wrong(x, t, share, partner, smoothing=0.1):
        return _fade(x, share, partner), _fade(smooth(t, smoothing), share, partner)

    return wrong


MIX_MISTAKES = [
    ("the targets are not smoothed", _with_smooth(lambda t, s: t)),
    (
        "the true class lacks its part of the smoothing: all K classes get smoothing / K",
        _with_smooth(_smooth_others),
    ),
    (
        "the true class lacks its part of the smoothing: all K classes get smoothing / K",
        _with_smooth(lambda t, s: torch.where(t > 0.5, 1 - s, s / t.shape[1])),
    ),
    (
        "the targets are not scaled by 1 - smoothing, so that they add up to more than 1",
        _with_smooth(lambda t, s: t + s / t.shape[1]),
    ),
    (
        "smoothing is not shared out: each of K classes gets smoothing / K",
        _with_smooth(lambda t, s: (1 - s) * t + s),
    ),
    (
        "only (1 - smoothing) * targets: the smoothing / K for all classes is missing",
        _with_smooth(lambda t, s: (1 - s) * t),
    ),
    (
        "divided by the number of images; K is the number of classes, targets.shape[1]",
        _with_smooth(lambda t, s: (1 - s) * t + s / len(t)),
    ),
    ("smoothing is 0.1, whatever is asked for", _with_smooth(lambda t, s: _smooth(t, 0.1))),
    (
        "smoothing and 1 - smoothing are swapped",
        _with_smooth(lambda t, s: s * t + (1 - s) / t.shape[1]),
    ),
    (
        "the targets are not mixed: they fade as the images do",
        lambda x, t, share, partner, s=0.1: (_fade(x, share, partner), _smooth(t, s)),
    ),
    (
        "the images are not mixed",
        lambda x, t, share, partner, s=0.1: (x, _fade(_smooth(t, s), share, partner)),
    ),
    (
        "the share is the partner's: the image itself gets `share`, its partner 1 - share",
        lambda x, t, share, partner, s=0.1: mix(x, t, 1 - share, partner, s),
    ),
    (
        "the partners' targets get the other share: images and targets fade alike",
        lambda x, t, share, partner, s=0.1: (
            _fade(x, share, partner),
            _fade(_smooth(t, s), 1 - share, partner),
        ),
    ),
    (
        "the partners' images get `share`: the image itself gets it, its partner 1 - share",
        lambda x, t, share, partner, s=0.1: (
            _fade(x, 1 - share, partner),
            _fade(_smooth(t, s), share, partner),
        ),
    ),
    (
        "the next image takes the partner's place; `partner` says which it is",
        lambda x, t, share, partner, s=0.1: mix(
            x, t, share, (torch.arange(len(x)) + 1) % len(x), s
        ),
    ),
    (
        "the images in reverse order take the partners' place; `partner` says which they are",
        lambda x, t, share, partner, s=0.1: mix(x, t, share, torch.arange(len(x)).flip(0), s),
    ),
    (
        "the partner is added in full: 1 - share of it",
        lambda x, t, share, partner, s=0.1: (
            share * x + x[partner],
            share * _smooth(t, s) + _smooth(t, s)[partner],
        ),
    ),
    ("targets and images are swapped in the result", lambda *a: mix(*a)[::-1]),
    (
        "the partners' targets are not smoothed: smooth all, then mix",
        lambda x, t, share, partner, s=0.1: (
            _fade(x, share, partner),
            share * _smooth(t, s) + (1 - share) * t[partner],
        ),
    ),
]


@exercise("Mixed images, soft targets", mix, ())
def soft(answer):
    def call(count, classes, *rest):
        targets = F.one_hot(torch.randint(classes, (count,)), classes).float()
        partner = torch.tensor([2, 0, 1, 4, 3, *range(5, count)])
        return torch.randn(count, 3, 4, 5), targets, 0.7, partner, *rest

    proven = compare_calls(
        answer,
        mix,
        [call(6, 4, 0.2), call(5, 9, 0.0), call(7, 3)],
        MIX_MISTAKES,
        "images and targets of three batches, with and without smoothing; targets add up to 1.",
    )
    images, targets, *rest = call(6, 4)
    given = images.clone(), targets.clone()
    answer(*given, *rest)
    if not (torch.equal(given[0], images) and torch.equal(given[1], targets)):
        raise CheckFailed(
            "the images and targets that were given stay as they are",
            "they were changed",
            "`x *= ...` and `x.mul_(...)` write into them; `x = x * ...` makes a new tensor",
        )
    return proven


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
    softmax=False,
    reduction="mean",
):
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        logits = model(images)
    logits = logits.to(digits).softmax(dim=1) if softmax else logits.to(digits)
    loss = F.cross_entropy(logits, targets, reduction=reduction)
    if zero:
        optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach().float()


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


STEP_MISTAKES = [
    (
        "the forward pass runs in float32: put it under torch.autocast(..., dtype=torch.bfloat16)",
        {"dtype": None},
    ),
    (
        "the loss is computed in bfloat16, with three digits: logits.float() first",
        {"digits": torch.bfloat16},
    ),
    ("the gradients of the step before are added: optimizer.zero_grad()", {"zero": False}),
    ("a softmax before the cross-entropy, which has one of its own", {"softmax": True}),
    ("the sum over the batch; the mean is usual", {"reduction": "sum"}),
]


@exercise("A step in bfloat16", bf16_step, ())
def bf16(answer):
    network = randomise(_Network())
    batches = [(torch.randn(6, 3, 8, 8), torch.randint(5, (6,))) for _ in range(2)]

    def run(step):
        model = copy.deepcopy(network)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses = [step(model, optimizer, *batch) for batch in batches]
        return model, losses

    def values(run):
        return [
            *map(float, run[1]),
            *torch.cat([p.flatten() for p in run[0].parameters()]).tolist(),
        ]

    with students_code("bf16_step(model, optimizer, images, targets) takes a step"):
        model, losses = run(answer)
    if not isinstance(losses[0], torch.Tensor | float):
        likely = "the function has no `return`" if losses[0] is None else ""
        raise CheckFailed("the loss, a tensor", type(losses[0]).__name__, likely)
    if isinstance(losses[0], torch.Tensor) and losses[0].numel() != 1:
        raise CheckFailed("the loss, one number", f"shape {list(losses[0].shape)}")
    if any(p.dtype != torch.float32 for p in model.parameters()):
        raise CheckFailed(
            "weights that stay float32",
            str(next(p.dtype for p in model.parameters())),
            "the model itself was converted; a step smaller than a weight's third digit is lost "
            "then. torch.autocast converts where it is safe, and leaves the weights as they are",
        )
    if not model.training:
        raise CheckFailed("a model that stays in train mode", "it is in eval mode")
    if len(model.conv_types) != len(batches):
        raise CheckFailed(
            "one forward pass a step", f"{len(model.conv_types)} in {len(batches)} steps"
        )
    expected = values(run(bf16_step))
    came = values((model, losses))
    if _equal(came, expected):
        return "losses and weights after two steps; bfloat16 inside, float32 for loss and weights."
    likely = next(
        (
            hint
            for hint, mistake in STEP_MISTAKES
            if _equal(came, values(run(lambda *a, m=mistake: _step(*a, **m))))
        ),
        "",
    )
    first = torch.cat([p.flatten() for p in network.parameters()]).tolist()
    if _equal(came[2:], first):
        likely = "the weights did not change: loss.backward(), then optimizer.step()"
    if model.conv_types[0] is torch.float16:
        likely = "float16 needs its gradients scaled; dtype=torch.bfloat16"
    place = _first_difference(came, expected)
    what = f"loss {place + 1}" if place < 2 else "a weight after two steps"
    raise CheckFailed(f"{what}: {expected[place]:.5f}", f"{came[place]:.5f}", likely)


# Exercise 5


def _averaged(new, old=None):
    """A mistaken update, of the parameters by `new` and of running statistics by `old` or `new`."""

    @torch.no_grad()
    def wrong(average, model, decay):
        parameters = dict(average.named_parameters())
        theirs = model.state_dict()
        for name, value in average.state_dict().items():
            change = new if old is None or name in parameters else old
            if value.is_floating_point():
                value.copy_(change(value, theirs[name], decay))
            else:
                value.copy_(theirs[name] if old is None else value)

    return wrong


def _right(a, m, d):
    return d * a + (1 - d) * m


AVERAGE_MISTAKES = [
    (
        "decay and 1 - decay are swapped: the average keeps `decay` of itself",
        _averaged(lambda a, m, d: d * m + (1 - d) * a),
    ),
    (
        "the running statistics of BatchNorm are left out: parameters() has weights alone, "
        "state_dict() has all",
        _averaged(_right, lambda a, m, d: a),
    ),
    (
        "the running statistics are copied; they are averaged as weights are",
        _averaged(_right, lambda a, m, d: m),
    ),
    (
        "the plain mean of both; `decay` says how much is kept",
        _averaged(lambda a, m, d: (a + m) / 2),
    ),
    (
        "the model's weights are copied; the average keeps `decay` of itself (or is the condition "
        "the wrong way round?)",
        _averaged(lambda a, m, d: m),
    ),
    (
        "the average is scaled by decay, but nothing of the model is added",
        _averaged(lambda a, m, d: d * a),
    ),
    ("the model's part is not scaled by 1 - decay", _averaged(lambda a, m, d: d * a + m)),
    ("the average's part is not scaled by decay", _averaged(lambda a, m, d: a + (1 - d) * m)),
]


@exercise("An average of the weights", update_average, ())
def average(answer):
    def network():
        model = randomise(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()))
        for _ in range(torch.randint(2, 9, ())):
            model.train()(torch.randn(4, 3, 5, 5))
        return model

    def run(update):
        average = copy.deepcopy(start)
        for decay, model in zip((0.9, 0.6), models, strict=True):
            update(average, model, decay)
        return average.state_dict()

    start, models = network(), [network(), network()]
    before = [copy.deepcopy(model.state_dict()) for model in models]
    expected = run(update_average)
    with students_code("update_average(average, model, decay) changes the average"):
        came = run(answer)
    memory = {value.data_ptr() for model in models for value in model.state_dict().values()}
    if any(value.data_ptr() in memory for value in came.values()):
        likely = "copy_ copies; `a.data = b.data` lets both use the same numbers from now on"
        raise CheckFailed("an average with numbers of its own", "it shares the model's", likely)
    for model, old in zip(models, before, strict=True):
        if not _same(model.state_dict(), old):
            raise CheckFailed(
                "the model stays as it is",
                "it was changed",
                "the average is what changes, in place: the model has to go on learning",
            )
    if not all(p.is_leaf and p.requires_grad for p in models[0].parameters()):
        raise CheckFailed("a model that goes on learning", "its weights no longer do")
    counter = "1.num_batches_tracked"
    if _same(came, expected):
        return "weights and running statistics after two updates; the model stays as it was."
    likely = next(
        (hint for hint, mistake in AVERAGE_MISTAKES if _alike(came, run(mistake), counter)), ""
    )
    if not likely and _alike(came, start.state_dict(), counter):
        likely = (
            "nothing changed: write into the tensors, with value.copy_(...), value.mul_(...), "
            "value.lerp_(...); `value = ...` only gives the name to another tensor"
        )
    name = next(name for name in expected if not _close(came[name], expected[name]))
    if name == counter and not likely:
        likely = "a counter of batches has no fractions: copy what is not floating point"
    right, wrong = (state[name].flatten()[0].item() for state in (expected, came))
    raise CheckFailed(f"{name}: {right:.4f}, ...", f"{wrong:.4f}, ...", likely)


def _close(a, b):
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), atol=1e-6)


def _same(a, b):
    return a.keys() == b.keys() and all(_close(a[name], b[name]) for name in a)


def _alike(a, b, but):
    return all(_close(a[name], b[name]) for name in a if name != but)


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


STEPS, STOP = 11, 7  # three steps an epoch: the stop is inside the third
LEFT_OUT = [
    # what it is, how it is read from a run, what is likely
    (
        "the weights",
        lambda run: list(run.model.parameters()),
        "the model is not restored: model.load_state_dict",
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
        lambda run: [torch.tensor(run.step)],
        "self.step is not restored as it was",
    ),
    (
        "the images left of the epoch",
        lambda run: [run.order],
        "self.order is not restored as it was: some images would be seen twice in this epoch",
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
    with students_code("the run trains"):
        whole = new(1)
        whole.train(STOP)
        random = torch.get_rng_state()
        stopped = copy.deepcopy(whole)
        whole.train(STEPS)
    if not _alike_lists(*(list(run.model.state_dict().values()) for run in (whole, given))):
        raise CheckFailed(
            "a run that trains as the given `train` does",
            "other weights in the end",
            "`__init__` and `train` were given: leave them as they are",
        )
    torch.set_rng_state(random)
    with students_code("state_dict() gives the run's state"):
        state = stopped.state_dict()
    if not isinstance(state, dict):
        likely = "`state_dict` has no `return`" if state is None else ""
        raise CheckFailed("a dict", type(state).__name__, likely)
    if not torch.equal(torch.get_rng_state(), random):
        raise CheckFailed("state_dict() only looks", "it changes torch's random state")
    state = _through_a_file(state)
    other = new(2)
    with students_code("load_state_dict(state) restores the run"):
        other.load_state_dict(copy.deepcopy(state))  # the optimiser goes on in the same tensors
    for name in ("model", "optimizer", "schedule"):
        kind, came = type(getattr(whole, name)), type(getattr(other, name))
        if came is not kind:
            likely = f"restore into the one that is there: self.{name}.load_state_dict(...)"
            raise CheckFailed(f"self.{name} stays {kind.__name__}", came.__name__, likely)
    came = torch.get_rng_state()
    with students_code("the restored run goes on"):
        other.train(STEPS)
    weights, theirs = (
        torch.cat([value.flatten() for value in r.model.state_dict().values()])
        for r in (whole, other)
    )
    if other.step == STEPS and (weights - theirs).abs().max() <= 1e-6:
        return (
            f"stopped after {STOP} of {STEPS} steps, inside an epoch: the same weights in the end."
        )
    again = new(2)
    again.load_state_dict(state)
    for what, read, likely in LEFT_OUT:
        if not _alike_lists(read(again), read(stopped)):
            raise CheckFailed(
                f"{what} of the run that stopped: {_shown(read(stopped))}",
                _shown(read(again)),
                likely,
            )
    likely = ""
    if not torch.equal(came, random):
        likely = (
            "the random state is not restored, so that dropout and the next epoch's order differ: "
            "torch.get_rng_state() and torch.set_rng_state(...)"
        )
    far = (weights - theirs).abs().max()
    raise CheckFailed("the weights of a run that never stopped", f"off by {far:.4f}", likely)


def _through_a_file(state):
    for name, value in state.items():
        file = io.BytesIO()
        try:
            torch.save(value, file)
            file.seek(0)
            state[name] = torch.load(file, weights_only=True)
        except (pickle.PickleError, AttributeError, TypeError):
            likely = "whole objects are code; save their state_dict()"
            if callable(value) and not isinstance(value, nn.Module):
                likely = "a function: are its parentheses missing?"
            raise CheckFailed(
                "a state of tensors, numbers, strings, lists and dicts",
                f"state[{name!r}] is of type {type(value).__name__}",
                likely,
            ) from None
    return state


def _shown(tensors):
    first = tensors[0].flatten() if tensors else torch.empty(0)
    if len(tensors) == 1 and len(first) == 1:
        return f"{first.item():g}"
    count = sum(tensor.numel() for tensor in tensors)
    return f"{count} numbers" + (f", {first[0].item():.4g}, ..." if len(first) else "")


def _alike_lists(a, b):
    return len(a) == len(b) and all(map(_close, a, b))
