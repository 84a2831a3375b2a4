# %% [markdown]
# # Lesson 7 · Training for real
#
# The loop of lesson 2 runs. Would you leave it alone overnight? Its learning rate never changes, it shows every image in
# the same place each time, it computes with more digits than it needs, and if the power fails at five in the morning,
# the night is lost. In this lesson you write what is missing, piece by piece, and find out by measurement which pieces
# pay. At the end the same loop runs in several processes, on this computer or on eight GPUs.
#
# You need lesson 2's idea of a training loop; the staged CoAtNet of lesson 5 is imported. Plan on **100 minutes**: 75
# for the exercises, 25 to read and to look.

# %%
FULL = False  # True: section 6 trains 20 times as long (some ten minutes on two CPU cores)

import copy
import json
import math
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from coatnet import CoAtNet, CoAtNetConfig, create_model
from course import plots, training
from course.augmentation import trivial_augment
from course.checking import yours
from course.checkpoints import load_checkpoint, save_checkpoint
from course.checks import lesson07 as check
from course.data import load_data, shape_texture_accuracy
from course.models import build_model, make_optimizer

train, test = load_data("shapetexture100", image_size=32)

# %% [markdown]
# Section 6 uses only 300 images, three a class: it is about learning much from little, and with plenty of images there
# is nothing to see. They are stored at 56 x 56 pixels, and batches come at 32 x 32, a third of the work. The
# model is a staged C-C-C-T. (Where a cell says `yours(...)`, it takes your answer once its check has passed, and the
# reference's until then.)

# %%
few = train.select(slice(300))
print(f"{len(few):,} of {len(train):,} images to train, {len(test):,} to test")
CONFIG = CoAtNetConfig(
    stem_widths=(16, 16),
    depths=(1, 1, 1, 1),
    widths=(16, 32, 64, 96),
    block_types=("C", "C", "C", "T"),
    stride_in="pool",  # halve first, then widen: most of the work is done on small grids
)


def new_model(seed=0):
    torch.manual_seed(seed)
    return CoAtNet(CONFIG, num_classes=100, image_size=32)


print(f"{sum(p.numel() for p in new_model().parameters()):,} parameters")

# %% [markdown]
# ## 1 · Start slowly, end slowly
#
# At first the weights are random and the gradients point anywhere: a large step would take the model to a place from
# which it is slow to return. Towards the end the steps should be small, because a large one jumps over what it looks for.
# In between, large steps are what makes progress. So the learning rate is multiplied by a factor that depends on the
# share $s$ of the run that is over, from 0 to 1: a straight rise, the **warm-up**, then half a wave of a **cosine**
# ([arXiv 1608.03983](https://arxiv.org/abs/1608.03983)):
#
# $$f(s) = \begin{cases} s / w & \text{for } s < w \\[2pt]
# \tfrac12\Big(1 + \cos\big(\pi\,\frac{s - w}{1 - w}\big)\Big) & \text{for } s \ge w \end{cases}$$
#
# ### Exercise 1 · A schedule (10 min, ★☆☆)
#
# `share` is $s$, `warmup` is $w$, above 0. Return the factor, a number. (In the very first step it is 0, and that step
# changes nothing. One in some hundreds does not matter.)
#
# <details><summary>Hint</summary>
#
# `math.cos` takes radians, and $\pi$ is `math.pi`. $\frac{s-w}{1-w}$ goes from 0, where the warm-up ends, to 1.
# </details>


# %% tags=["exercise"]
def warmup_cosine(share, warmup=0.1):
    """The factor on the learning rate when `share` of the run, 0 to 1, is over"""
    # TODO: a straight rise to 1 during the warm-up, then half a cosine wave down to 0
    ### BEGIN SOLUTION
    if share < warmup:
        return share / warmup
    fallen = (share - warmup) / (1 - warmup)  # 0 to 1
    return (1 + math.cos(math.pi * fallen)) / 2
    ### END SOLUTION


# %% tags=["check"]
check.schedule(warmup_cosine)

# %%
factor = yours(warmup_cosine)
shares = torch.linspace(0, 1, 201).tolist()
figure, axis = plt.subplots(figsize=(7, 2.8), layout="constrained")
for warmup, colour in zip((0.02, 0.1, 0.3), plots.COLOURS):
    axis.plot(shares, [factor(s, warmup) for s in shares], color=colour, label=f"warmup={warmup}")
axis.set(xlabel="share of the run that is over", ylabel="factor on the learning rate")
axis.grid(alpha=0.3)
legend = axis.legend()

# %% [markdown]
# ## 2 · More images than you have
#
# A photograph of a cat, moved by three pixels, is a photograph of a cat. **Augmentation** shows the model such copies,
# new ones in every epoch, so that it has to learn what they have in common. The usual way is to change one image after
# the other, on the CPU, while loading. That is slow, and the accelerator waits. It is faster to change a whole batch at
# once, on the device that the model is on. What makes it possible: a tensor can be indexed by tensors, which broadcast, so
# that `x[a, b]` with `a` [B, 1] and `b` [B, W] takes B x W elements.
#
# ### Exercise 2 · Shift and flip (20 min, ★★★)
#
# Each image has numbers of its own: `down[i]` and `right[i]`, by how many pixels its window moves, and `flipped[i]`,
# whether it is mirrored afterwards. What is seen at row $r$ and column $c$ of image $i$ is what was at row
# $r + \text{down}_i$ and column $c + \text{right}_i$. Where that is outside, take the nearest pixel of the border.
# Then, where `flipped`, left and right change places. Do it for all images at once; uint8 stays uint8.
#
# Why are the random numbers drawn elsewhere and handed in? A function without randomness can be tested pixel by pixel.
#
# <details><summary>Hint 1: where each row comes from</summary>
#
# `(torch.arange(height) + down[:, None]).clamp(0, height - 1)` is [B, H]: for each image and row, the row to take.
# Columns likewise. `torch.where(flipped[:, None], columns.flip(1), columns)` mirrors some of them.
# </details>
#
# <details><summary>Hint 2: taking them</summary>
#
# `x[batch, rows, columns]` takes pixels from [B, H, W, C] if the three indices broadcast to [B, H, W]: shapes [B, 1, 1],
# [B, H, 1] and [B, 1, W]. `images.movedim(1, 3)` puts the channels last, `.movedim(3, 1)` puts them back.
# </details>


# %% tags=["exercise"]
def shift_and_flip(images, down, right, flipped):
    """Windows moved by whole pixels, some mirrored: [B, C, H, W] -> [B, C, H, W]"""
    # TODO: the rows and the columns to take, [B, H] and [B, W]; mirror; take them
    ### BEGIN SOLUTION
    height, width = images.shape[2:]
    rows = (torch.arange(height) + down[:, None]).clamp(0, height - 1)  # [B, H]
    columns = (torch.arange(width) + right[:, None]).clamp(0, width - 1)  # [B, W]
    columns = torch.where(flipped[:, None], columns.flip(1), columns)
    batch = torch.arange(len(images))[:, None, None]  # [B, 1, 1]
    return images.movedim(1, 3)[batch, rows[:, :, None], columns[:, None, :]].movedim(3, 1)
    ### END SOLUTION


# %% tags=["check"]
check.shift(shift_and_flip)

# %% [markdown]
# The upper row below is yours: one image, shifted by up to eight of its 56 pixels, half of the copies mirrored. The lower
# row is **TrivialAugment** ([arXiv 2103.10158](https://arxiv.org/abs/2103.10158)): one operation drawn from a list of
# fourteen, at a strength drawn too, and nothing to set. There is no reason to write that list again: torchvision has it.

# %%
shift_flip = yours(shift_and_flip)


def moved(images, flips=False, most=8):
    """Draws the random numbers, and moves the images"""
    down, right = torch.randint(-most, most + 1, (2, len(images)))
    flipped = torch.rand(len(images)) < 0.5
    return shift_flip(images, down, right, flipped & flips)


torch.manual_seed(3)
image = test.images[42:43]
upper = moved(image.expand(8, -1, -1, -1), flips=True)
lower = torch.cat([trivial_augment(image) for _ in range(8)])
titles = ["yours", *7 * [""], "TrivialAugment", *7 * [""]]
plots.show_images(torch.cat([upper, lower]), titles, columns=8)

# %% [markdown]
# An augmentation is a promise: *this does not change the answer*. For photographs, flips keep it. For these images? Look
# at two of them, and at their mirror images:

# %%
kinds = ["zed of bars", "seven of rising stripes"]
examples = torch.stack([train.images[train.targets == train.classes.index(k)][0] for k in kinds])
nothing = torch.zeros(2, dtype=torch.int64)
mirrored = shift_flip(examples, nothing, nothing, torch.tensor([True, True]))
titles = [*kinds, "mirrored: an ess", "mirrored: falling stripes"]
plots.show_images(torch.cat([examples, mirrored]), titles, columns=4)

# %% [markdown]
# A mirrored *zed* **is** an *ess*, one of the other shapes, and rising stripes **are** falling ones, another texture. Two of
# ten shapes and two of ten textures: for 36 of the 100 classes, a flip makes an image of another class and leaves the
# label as it was. Section 6 measures what that costs.
#
# ## 3 · Answers that are not certain
#
# Cross-entropy is never content before the probability is 1, so that the logits grow as long as one trains, and a model
# ends up certain of everything, its mistakes included. Two remedies make a target $t$, 1 for the true class and 0 for the
# others, soft:
#
# - **Label smoothing**: of each target, a share $\varepsilon$ goes to all $K$ classes alike, the true one included:
#   $t' = (1 - \varepsilon)\,t + \varepsilon / K$.
# - **Mixup** ([arXiv 1710.09412](https://arxiv.org/abs/1710.09412)): each image keeps a share $\lambda$ of itself, and gets the
#   rest from another image of the batch, its partner. So does its target: $x' = \lambda\,x + (1-\lambda)\,x_\text{partner}$
#   and $t'' = \lambda\,t' + (1-\lambda)\,t'_\text{partner}$. Half-way between two images, the answer should be half-way too.
#
# ### Exercise 3 · Mixed images, soft targets (10 min, ★☆☆)
#
# `targets` are the $t$ of a batch, [B, K]. `share` is $\lambda$, one number for the batch; `partner` [B] says for each image
# which one it is mixed with; `smoothing` is $\varepsilon$. Return the images $x'$ and the targets $t''$, as new tensors: the
# ones that you were given stay as they are.
#
# <details><summary>Hint</summary>
#
# `images[partner]` are the partners, in order. Smooth the targets first; their partners are then smooth as well.
# </details>


# %% tags=["exercise"]
def mix(images, targets, share, partner, smoothing=0.1):
    """Images [B, 3, H, W] and targets [B, K], smoothed, each faded into its partner's"""
    # TODO: smooth the targets; fade images and targets into those of the partners
    ### BEGIN SOLUTION
    targets = (1 - smoothing) * targets + smoothing / targets.shape[1]
    images = share * images + (1 - share) * images[partner]
    targets = share * targets + (1 - share) * targets[partner]
    return images, targets
    ### END SOLUTION


# %% tags=["check"]
check.soft(mix)


# %%
mix_two = yours(mix)


def mixed(images, targets, alpha=0.4, smoothing=0.1):
    """Draws share and partners, as the paper does: most shares lie near 0 or 1"""
    share = torch.distributions.Beta(alpha, alpha).sample().item()
    return mix_two(images, targets, share, torch.randperm(len(images)), smoothing)


chosen, partner = [7, 12], torch.tensor([1, 0])
targets = F.one_hot(train.targets[chosen], 100).float()
pictures, titles = [], []
for share in (1.0, 0.75, 0.5, 0.25, 0.0):
    images, soft = mix_two(train.images[chosen] / 255, targets, share, partner)
    pictures.append((images[0] * 255).byte())
    titles.append(" / ".join(f"{p:.2f}" for p in soft[0, train.targets[chosen]]))
plots.show_images(torch.stack(pictures), titles, columns=5)

# %% [markdown]
# Above each picture stand the targets of the two classes. They never reach 1: smoothing keeps 0.099 for the others.
#
# ## 4 · Fewer digits
#
# A float32 number has 24 binary digits, about seven decimal ones. **bfloat16** has 8, between two and three decimal ones,
# over the same range from the tiniest to the largest. That is half the memory, and on hardware that was built for it
# several times the speed. But it is not precise enough everywhere:

# %%
weight = torch.tensor(1.0, dtype=torch.bfloat16)
print("1 + 0.003 in bfloat16:", (weight + 0.003).item())
print("2.001 in bfloat16:    ", torch.tensor(2.001, dtype=torch.bfloat16).item())

# %% [markdown]
# A weight of 1 does not notice a step of 0.003, however many of them come, and a loss cannot fall from 2.001 to 2. So one
# uses **mixed precision**: large products in bfloat16, where the errors of single numbers average out; weights, optimiser
# and loss in float32. A context manager decides that operation by operation, and converts on the way:
#
# ```python
# with torch.autocast("cuda", dtype=torch.bfloat16):  # or "cpu", and in general images.device.type
#     y = model(x)
# ```
#
# Convolutions and matrix products get bfloat16 copies of weights and inputs. Which of the others stay in float32 depends on
# the device; the weights do in any case.
#
# ### Exercise 4 · A step in bfloat16 (10 min, ★★☆)
#
# One step of training: logits under autocast, cross-entropy of the logits as float32, gradients, optimiser. As always, the
# gradients of the step before must go. Return the loss.
#
# <details><summary>Hint</summary>
#
# `with torch.autocast(images.device.type, torch.bfloat16):` around the forward pass alone. `logits.float()` afterwards.
# </details>


# %% tags=["exercise"]
def bf16_step(model, optimizer, images, targets):
    """One step with the forward pass in bfloat16, weights and loss in float32; returns the loss"""
    # TODO: forward under autocast, loss in float32, backward, step
    ### BEGIN SOLUTION
    with torch.autocast(images.device.type, torch.bfloat16):
        logits = model(images)
    loss = F.cross_entropy(logits.float(), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss
    ### END SOLUTION


# %% tags=["check"]
check.bf16(bf16_step)

# %% [markdown]
# What does it gain on *this* machine, and what does it cost? Two models start from the same weights and see the same
# batch, eleven times; one computes in float32, the other takes your steps. (The backward pass needs no autocast: it uses
# the types of the forward pass.)


# %% tags=["nbval-ignore-output"]
def fp32_step(model, optimizer, images, targets):
    loss = F.cross_entropy(model(images), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


images, targets = next(few.batches(64))
seconds, losses = {}, {}
steppers = {"float32": fp32_step, "bfloat16": yours(bf16_step)}
learners = {name: new_model() for name in steppers}
optimizers = {name: torch.optim.AdamW(learners[name].parameters()) for name in steppers}
for name in list(steppers) * 11:  # taking turns
    started = time.perf_counter()
    loss = steppers[name](learners[name], optimizers[name], images, targets)
    seconds.setdefault(name, []).append(time.perf_counter() - started)
    losses[name] = torch.as_tensor(loss).item()  # whether yours returns a tensor or a number
for name, times in seconds.items():
    median = 1000 * torch.tensor(times[1:]).median()  # the first step warms up
    print(f"{name:8} {median:5.1f} ms a step, loss of the last {losses[name]:.3f}")

# %% [markdown]
# The losses agree to about a percent, after eleven steps each of which was computed with two to three digits. Time is another
# matter. A model as small as this one has little to gain: most of it goes into small steps around the products. Whether a
# large one is faster depends on the processor: GPUs and some CPUs of the last years have circuits for bfloat16, others
# are slower with it than without. Measure before you switch it on.
#
# ## 5 · The mean of many models
#
# With a large learning rate the weights don't settle: they circle around something good, and each batch pulls them
# elsewhere. So keep a second model that never learns by itself, whose weights are an **exponential moving average** of
# the first one's:
#
# $$\bar\theta \leftarrow d\,\bar\theta + (1 - d)\,\theta \qquad \text{after each step, with } d \text{ such as } 0.99$$
#
# It remembers about $1/(1-d)$ steps, costs one pass over the weights, and is the one that gets evaluated.
#
# ### Exercise 5 · An average of the weights (10 min, ★★☆)
#
# Update `average`, a copy of `model`, in place. A model's state is more than its parameters: BatchNorm's running mean and
# variance are averaged as weights are, and its counter of batches, an integer, is copied. `state_dict()` has all of them,
# and its tensors share memory with the module: who writes into them changes the module.
#
# <details><summary>Hint 1: all of the state</summary>
#
# `state_dict()` gives names and tensors, parameters and statistics alike.
# </details>
#
# <details><summary>Hint 2: in place</summary>
#
# `value.copy_(...)` writes into a tensor. `value.is_floating_point()` tells weights from counters. With `parameters()` in
# place of `state_dict()` you need `torch.no_grad()`.
# </details>


# %% tags=["exercise"]
def update_average(average, model, decay):
    """Moves the average's weights and statistics towards the model's, in place"""
    # TODO: for each tensor of the state: average, or copy what has no fractions
    ### BEGIN SOLUTION
    new = model.state_dict()
    with torch.no_grad():
        for name, value in average.state_dict().items():
            if value.is_floating_point():
                value.copy_(decay * value + (1 - decay) * new[name])
            else:
                value.copy_(new[name])
    ### END SOLUTION


# %% tags=["check"]
check.average(update_average)

# %% [markdown]
# Two models, then: one that learns at a constant rate (Adam, 4e-3), and its average, with $d = 0.95$. They learn the first
# fifty classes alone, from 5,000 images; the other fifty are for section 9. Every 20 steps both are tested on unseen images.

# %% tags=["nbval-ignore-output"]
move_average = yours(update_average)
known, unseen = (data.select(data.targets < 50) for data in (train, test))
model = new_model()
average, points = copy.deepcopy(model), []


def follow(record):
    """`fit` calls this after each step and after each epoch, here of 20 steps"""
    if "epoch" in record:
        right = [training.evaluate(m, unseen, quiet=True).accuracy for m in (model, average)]
        points.append([record["step"], *right])
    else:
        move_average(average, model, 0.95)


options = {"steps": 160, "steps_per_epoch": 20, "lr": 4e-3, "log": follow}
training.fit(model, known, device="cpu", quiet=True, **options)
steps, *curves = zip(*points)
figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
labels = ("the model", "its average")
for label, curve, colour, marker in zip(labels, curves, plots.COLOURS, plots.MARKERS):
    percent = [100 * right for right in curve]
    axis.plot(steps, percent, color=colour, marker=marker, label=label)
axis.set(xlabel="steps", ylabel="right on unseen images (%)", ylim=(0, 103))
axis.grid(alpha=0.3)
legend = axis.legend()

# %% [markdown]
# The model is thrown about: at a constant rate of 4e-3, twenty steps can cost a good part of what it knew. Its average
# hardly notices. It starts later, because it still remembers the untrained weights, and then is mostly ahead, without a
# single step of its own.
#
# ## 6 · Do they pay?
#
# Each piece sounds convincing. So do many that do nothing. Therefore: one change at a time, everything else equal, and
# several seeds, so that you see how large a difference chance makes.
#
# - **plain**: AdamW at a constant 4e-3, 32 images a step.
# - **schedule**: the same with `warmup_cosine`. It is the base that all others are compared with.
# - **+ shift**, **+ shift, flip**: your augmentation, by up to 4 pixels of 56, without and with mirrored images.
# - **+ mix**: your mixup with label smoothing.
# - **+ average**: tested with the average, $d = 0.98$.
#
# Before you run it: which one will help most, and which one will hurt?

# %%
SETTINGS = {
    "plain": {"schedule": None},
    "schedule": {},
    "+ shift": {"augment": partial(moved, most=4)},
    "+ shift, flip": {"augment": partial(moved, most=4, flips=True)},
    "+ mix": {"mix": mixed},
    "+ average": {"average": 0.98},
}


def run(schedule=factor, average=None, seed=0, steps=90, **options):
    """Trains a new model on the few images, and tests it on unseen ones"""
    model = new_model(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    if average is not None:  # the same update as yours, with a smaller d for the first steps
        average = training.MovingAverage(model, average)
    options |= {"optimizer": optimizer, "schedule": schedule, "average": average, "device": "cpu"}
    training.fit(model, few, steps=steps, seed=seed, quiet=True, **options)
    tested = model if average is None else average.model
    return training.evaluate(tested, test, quiet=True)


# %% tags=["nbval-ignore-output"]
length = {"steps": 20 * 90} if FULL else {}
percent, parts = {}, {}
for name, options in SETTINGS.items():
    results = [run(**options, **length, seed=seed) for seed in range(3)]
    percent[name] = [100 * result.accuracy for result in results]
    pairs = [shape_texture_accuracy(result.predictions, test.targets) for result in results]
    parts[name] = [100 * sum(shares) / 3 for shares in zip(*pairs)]  # shape, texture

print("              right, seed by seed (%)   against schedule        shape  texture")
for name, values in percent.items():
    right = "".join(f"{value:7.1f}" for value in values)
    against = "".join(f"{v - base:+7.1f}" for v, base in zip(values, percent["schedule"]))
    print(f"{name:14}{right}  {against}      {parts[name][0]:4.0f} %   {parts[name][1]:4.0f} %")

# %% tags=["nbval-ignore-output"]
figure, axis = plt.subplots(figsize=(9, 3.4), layout="constrained")
for seed, (colour, marker) in enumerate(zip(plots.COLOURS[:3], plots.MARKERS)):
    places = [place + 0.12 * (seed - 1) for place in range(len(percent))]
    values = [values[seed] for values in percent.values()]
    axis.plot(places, values, marker, color=colour, label=f"seed {seed}")
    axis.axhline(values[1], color=colour, lw=0.8, ls=":")
axis.plot([], [], color="grey", lw=0.8, ls=":", label="the schedule alone")
axis.set_xticks(range(len(percent)), percent)
axis.set(ylabel="right on unseen images (%)", ylim=(0, None))
axis.grid(axis="y", alpha=0.3)
legend = axis.legend(ncols=4, fontsize=9)

# %% [markdown]
# Compare seed by seed, not mean by mean: seeds differ by about as much as most of the changes make.
#
# - The **flips** break the promise, and it shows on every seed, far beyond what the shifts alone do. They cost shapes *and*
#   textures, as the last two columns say beside those of the shifts: the model is taught that an ess is a zed, and that
#   falling stripes rise.
# - The **schedule** is worth some points on average, but by no means the same for every seed: at a constant rate a run may
#   end on a good step or on a bad one, as section 5 showed.
# - **Mixing** costs some points on average. It is a remedy for a model that learns its images by heart; in 90 steps, 9
#   passes, it is not there yet, and what it sees is harder. What **shifts** do depends on the seed.
# - The **average**, so strong in section 5, makes no difference to speak of: the schedule ends in small steps anyway, and
#   leaves nothing to even out.
#
# All of this is true of 300 images and of a short run. `FULL = True` makes it 20 times as long.
#
# The same was tried with real photographs and a larger model, in 90 seconds a run:
# [its table](../benchmarks/recipe.md), one change at a time, has surprises of its own.
#
# ## 7 · If the power fails
#
# Start again from saved weights alone, and the run goes on, but it isn't the same run: AdamW has lost its averages of the
# gradients, the schedule starts again at its beginning, some images are seen twice in one epoch and others not at all. An
# **exact** resume ends with the very weights of a run that never stopped. It is worth the trouble for a practical reason:
# only what is exact can be tested.
#
# What does the future of a run depend on?
#
# | what | why |
# |---|---|
# | the model | its weights, and BatchNorm's statistics: the next step starts from them |
# | the optimiser | AdamW's two averages of each weight's gradient |
# | the schedule | at which learning rate it is |
# | the step | when to stop |
# | the images left in this epoch | so that each is seen once |
# | torch's random state | dropout, and the next epoch's order |
#
# ### Exercise 6 · A run that can be resumed (15 min, ★★☆)
#
# `train` is written. Write `state_dict`, which returns all of the above as a dict, and `load_state_dict`, which puts it
# back into a new `Run` with the same arguments. The dict is going to be a file: tensors, numbers, strings, lists and dicts
# only. (Whole objects could hold code, and a checkpoint from a stranger would run it when opened.) torch's random state is a
# tensor, which `torch.get_rng_state()` returns and `torch.set_rng_state(...)` puts back.
#
# <details><summary>Hint</summary>
#
# Model, optimiser and schedule each have a `state_dict()` and a `load_state_dict(...)`; `self.step` is a number,
# `self.order` a tensor.
# </details>


# %% tags=["exercise"]
class Run:
    """Trains for `steps` steps; may stop after any of them, and go on later"""

    def __init__(self, model, images, targets, steps):
        self.model, self.images, self.targets = model, images, targets
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, steps)
        self.step = 0
        self.order = torch.arange(0)  # the images that are left in this epoch

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
        # TODO: a dict of all that the rest of the run depends on
        ### BEGIN SOLUTION
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.step,
            "order": self.order,
            "random": torch.get_rng_state(),
        }
        ### END SOLUTION

    def load_state_dict(self, state):
        # TODO: put all of it back
        ### BEGIN SOLUTION
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step, self.order = state["step"], state["order"]
        torch.set_rng_state(state["random"])
        ### END SOLUTION


# %% tags=["check"]
check.resume(Run)

# %% [markdown]
# Now with a file. One run goes through; a second one stops after 7 of 12 steps; a third one, which started from other
# weights, takes over from the file. And a fourth does so with the weights alone:

# %% tags=["nbval-ignore-output"]
images, targets = few.normalise(few.images[:160]), few.targets[:160]
begin = partial(yours(Run), images=images, targets=targets, steps=12)
whole, stopped = begin(new_model()), begin(new_model())
torch.manual_seed(1)
whole.train(12)
torch.manual_seed(1)
stopped.train(7)
state = stopped.state_dict()  # now: whatever draws a random number changes what it would hold

resumed, careless = begin(new_model(seed=2)), begin(new_model(seed=2))
with TemporaryDirectory() as folder:
    file = Path(folder) / "checkpoint.pt"
    save_checkpoint(file, state)
    resumed.load_state_dict(load_checkpoint(file))
careless.model.load_state_dict(stopped.model.state_dict())
resumed.train(12)
careless.train(5)
for name, other in (("resumed", resumed), ("weights alone", careless)):
    pairs = zip(whole.model.state_dict().values(), other.model.state_dict().values())
    difference = max((a - b).abs().max().item() for a, b in pairs)
    print(f"{name}: weights differ by up to {difference:.1g}")

# %% [markdown]
# One thing is left that can go wrong: the power fails *while the checkpoint is being written*. Half a file is there, and
# the previous checkpoint has been overwritten. `save_checkpoint` ([`course/checkpoints.py`](../course/checkpoints.py))
# therefore writes **beside** it, waits until the disk has everything, and renames. Renaming is one indivisible step, so
# that the name always means a whole file: the new one, or the one before.
#
# `fit` does all of this, with `checkpoint="run.pt"`, `checkpoint_every=500` and `resume=True`. The course's tests kill it
# with SIGKILL at twenty steps, and in the middle of a checkpoint, and compare the weights in the end.
#
# ## 8 · More than one process
#
# A run on eight GPUs is eight copies of one program. Each has the whole model, takes its share of every batch and computes
# gradients; these are averaged over all, and everybody takes the same step, so that the weights never differ.
# PyTorch's `torchrun` starts the copies, and `torch.distributed` connects them. What changes, and what should not:
#
# | | one process | N processes, with `fit` |
# |---|---|---|
# | batch | `batch_size` images | the same in all: each process takes `batch_size / N` of them. Many programs call the share of one process the batch size; then the whole batch grows with N |
# | learning rate | `lr` | the same, as long as the batch is. For a batch $k$ times as large: $k$ times the rate and a warm-up ([arXiv 1706.02677](https://arxiv.org/abs/1706.02677)), up to a point |
# | order of the images | drawn from the seed | the same everywhere, or two processes would take the same image |
# | augmentation | drawn from the seed | the same everywhere: whom mixup fades into whom depends on the whole batch |
# | gradients | of the batch's mean loss | averaged; equal to the batch's if each share is weighed by its size |
# | dropout | a random mask | a seed for each process, or all would drop alike |
# | BatchNorm's statistics | of the batch | of a share alone, unless they are synchronised: `fit` does it, at the price of one message for each norm, and one more on the way back |
# | held-out images | all | a share each; the results are put together |
# | metrics, progress, checkpoint | written | written by process 0 alone |
#
# Try it: 20 steps of the course's small CoAtNet, once with `fit` in this notebook, and once by the command `course.train` in
# two processes, which `torchrun` starts. The command trains with `fit`, too, and writes a line of JSON for every step.
#
# How do we know that there were two? Two processes that don't know of each other each train on whole batches, and their
# losses are those of one, to the last digit: that looks like the best result of all. So `fit` refuses to begin where a
# launcher promised more processes than it finds, and a run's settings say how many it had:


# %% tags=["nbval-ignore-output"]
def losses_in_two_processes(out):
    """The losses of 20 steps, and how many processes there really were"""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]  # that is torchrun
    command += ["--nproc_per_node", "2", "-m", "course.train", "--device", "cpu"]
    command += ["--steps", "20", "--batch-size", "40", "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    losses = torch.tensor([record["loss"] for record in records if "lr" in record])
    return losses, json.loads((out / "settings.json").read_text())["processes"]


with TemporaryDirectory() as folder:
    two, count = losses_in_two_processes(Path(folder) / "run")
assert count == 2, "what follows would compare one process with itself"

model = build_model("small", num_classes=100, image_size=32, seed=0)  # as the command makes it
options = {"optimizer": make_optimizer(model, lr=2e-3, weight_decay=0.05), "schedule": factor}
history = training.fit(model, train, steps=20, batch_size=40, device="cpu", quiet=True, **options)
one = torch.tensor(history.losses)
print(f"losses of 1 and of {count} processes: up to {(one - two).abs().max():.1g} apart")
figure, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
axis.plot(range(1, 21), one, color=plots.COLOURS[0], label="one process")
axis.plot(range(1, 21), two, "o", color=plots.COLOURS[1], label="two processes")
axis.set(xlabel="step", ylabel="cross-entropy", xticks=range(0, 21, 5))
axis.grid(alpha=0.3)
legend = axis.legend()

# %% [markdown]
# The same losses but for the last digits, because sums are added up in another order. It is the same with any number of
# processes, GPUs and machines. From a shell, in the course's folder (on Windows, `.venv\Scripts\torchrun`):
#
# ```
# .venv/bin/torchrun --nproc_per_node 2 -m course.train --model small --data shapetexture100 --epochs 5 --device cpu
# .venv/bin/torchrun --nproc_per_node 8 -m course.train --model coatnet_0_224 --data DIR --epochs 90 --precision bf16
# .venv/bin/torchrun --nproc_per_node 8 --nnodes 2 --node_rank 0 --master_addr IP -m course.train ...
# ```
#
# On GPUs `.venv/bin/accelerate launch --num_processes 8 -m course.train ...` does the same. `DIR` may be ImageNet, too: at
# 224 pixels that would be 193 GB in memory, and so it is not kept there. A folder that takes more than half of the free
# memory (or than `--memory 4G`) is **streamed**: worker processes decode its files batch by batch, in the order that the
# seed gives, and a resumed run goes on with the batch at which it stopped.
#
# `.venv/bin/python -m course.train --help` has the options: everything of this lesson, and `--resume`. Each run gets a folder
# with its settings, its checkpoint, and a line of JSON for every step.
#
# ## 9 · Standing on shoulders
#
# If you have a few hundred images, do not start from random weights. **Fine-tuning** takes a model that was trained on
# something larger, gives it a new last layer, and goes on, mostly with a smaller learning rate, so that it keeps what it
# knows. Section 5 left such a model: the average knows the first fifty classes, five shapes in ten textures. Now it has to
# learn the other fifty, five shapes that it has never seen, from three images each.
#
# Compare fairly. Random weights want larger steps than trained ones, so that one rate for both would decide the result:
# both starts get three rates, and the best of each counts. Both get as many steps, too.

# %% tags=["nbval-ignore-output"]
new_few, new_unseen = (data.select(data.targets >= 50) for data in (few, test))


def fine_tune(start, lr, steps=60):
    """Trains a copy of `start`, under a new classifier, on the few images of new classes"""
    model = copy.deepcopy(start)
    torch.manual_seed(1)
    model.head.reset(num_classes=100)
    options = {"optimizer": torch.optim.AdamW(model.parameters(), lr=lr), "schedule": factor}
    training.fit(model, new_few, steps=steps, device="cpu", quiet=True, **options)
    predictions = training.evaluate(model, new_unseen, quiet=True).predictions
    return shape_texture_accuracy(predictions, new_unseen.targets)


tuned = {}
for name, start in (("trained", average), ("random", new_model(seed=3))):
    for lr in (1e-3, 2e-3, 4e-3):
        shape, texture = tuned[name, lr] = fine_tune(start, lr)
        print(f"{name:7} weights, rate {lr:.0e}: shape {shape:4.0%}, texture {texture:4.0%}")

# %% [markdown]
# What is handed down are the textures, which old and new classes share: trained weights have nearly all of them in the end,
# random ones far fewer. The new *shapes* both learn in these 60 steps, if the rate is large enough. And the advice to
# take a small one? Here the trained weights, too, want the largest: a careful step keeps what was known, and the old
# shapes are of no use. How small a rate should be depends on how much of the old task is wanted in the new one. Try some.
#
# For photographs, the shoulders are ImageNet's. timm has such weights for `coatnet_nano_rw_224`, 60 MB, and for larger ones
# (lesson 6). It takes images of other sizes too: its position tables are interpolated (lesson 4, section 6). From a shell:
#
# ```
# .venv/bin/python -m course.train --model coatnet_nano_rw_224 --pretrained --data DIR --lr 3e-4
# ```
#
# ## 10 · How long would ImageNet take?
#
# Before you rent eight GPUs, calculate. Training takes about three times the arithmetic of the forward pass: for each product
# there, the backward pass needs two, one for the gradient of the input and one for that of the weights. `PEAK` is from the
# data sheet; `USED`, `KEPT` and `DECODED` are guesses. Change them:

# %%
IMAGES, EPOCHS = 1_281_167, 300  # ImageNet-1K, and the paper's number of epochs
PEAK = 312e12  # FLOP a second: an A100 in bfloat16, as its data sheet has it
USED = 0.15  # share of that peak: norms, GELU and depthwise convolutions wait for memory
KEPT = {1: 1.0, 8: 0.95, 64: 0.9}  # share of the speed that is left when GPUs wait for each other
DECODED = 100  # JPEGs that one CPU core decodes and crops in a second

image = torch.zeros(1, 3, 224, 224, requires_grad=True)  # without, attention is not counted
with FlopCounterMode(display=False) as counter:
    create_model("coatnet_0_224").eval()(image)
flop = 3 * counter.get_total_flops()
print(f"{flop / 1e9:.1f} GFLOP an image and step, {flop * IMAGES * EPOCHS / 1e18:.1f} EFLOP in all")
for gpus, kept in KEPT.items():
    speed = gpus * PEAK * USED * kept / flop
    hours = IMAGES * EPOCHS / speed / 3600
    print(
        f"{gpus:2} GPUs: {hours:6.1f} h, {speed:7,.0f} images/s, {speed / DECODED:5,.0f} CPU cores"
    )

# %% [markdown]
# Two and a half days on one GPU, a working day on eight, an hour on 64. And the last column: at that speed a thousand CPU
# cores do nothing but decode JPEGs, so that for many GPUs the data, and not the model, is the first thing to look after.
#
# The guess that matters most is `USED`. Is it sensible? timm's author measured ConvNeXt-T, which has about as much arithmetic
# an image, at 819 images/s in training on one RTX 3090
# ([his table](https://github.com/huggingface/pytorch-image-models/blob/main/results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090.csv)).
# The memory of an A100 with 80 GB is twice as fast, and memory is what such models wait for: some 1,600 images/s, so that
# the guess is in the right region. Before you pay, run 20 steps on one GPU and put in what you measured.
#
# ## What you have now
#
# - a schedule, augmentation of whole batches, soft targets, bfloat16 and an average
# - a way to find out whether they pay, and the same way for the next idea that sounds convincing
# - a run that goes on as if nothing had happened, to the last bit
# - the same loop in any number of processes, and a command for it
#
# ## Questions
#
# <details><summary>1. A run of 1,000 steps with <code>warmup_cosine</code> is over. You give it 1,000 more, by resuming it with
# 2,000 in all. Which factor has its next step, and is the result that of a run planned for 2,000?</summary>
#
# Half of the run is over: $\tfrac12(1 + \cos(\pi \cdot 0.4 / 0.9)) = 0.59$, where the last step had nearly 0. The rate jumps,
# and the first 1,000 steps were taken at other rates than a run of 2,000 would have had: it is another run.
# </details>
#
# <details><summary>2. If flips break the promise, would turning by 180 degrees keep it? The shapes are plus, cross, tee, ell,
# seven, zed, ess, vee, arch and stairs.</summary>
#
# It would for zed, ess and all stripes, which are the same upside down. But an ell becomes a seven, and a seven an ell.
# Whether an augmentation is harmless is a question to the classes, not to the operation.
# </details>
#
# <details><summary>3. You train with label smoothing of 0.1 and 100 classes. The training loss stops at 0.8. Is there anything
# left to learn from it?</summary>
#
# Hardly. The targets are 0.901 and 99 times 0.001, and the cross-entropy cannot get below their entropy:
# $-0.901 \ln 0.901 - 99 \cdot 0.001 \ln 0.001 = 0.78$. Losses with and without smoothing can't be compared, accuracies can.
# </details>
#
# <details><summary>4. To save memory, somebody keeps the average's weights in bfloat16, with $d = 0.999$. What happens?</summary>
#
# It stays about where it began. An update moves a weight by a thousandth of a difference, and a number of 8 binary digits
# notices changes of half a percent or so. Where much is added up in small steps, float32 is needed.
# </details>
#
# <details><summary>5. A batch of 5 images on two processes: one takes 3, the other 2. Each computes the gradient of the mean loss
# of its images, and the two gradients are averaged. What is wrong?</summary>
#
# Each of the 3 images counts for $\tfrac12 \cdot \tfrac13 = \tfrac16$, each of the 2 for $\tfrac14$, instead of all for
# $\tfrac15$. The gradients have to be weighed by 3/5 and 2/5.
# </details>
#
# <details><summary>6. Of all that a checkpoint holds, torch's random state is lost. For how long does the resumed run still do
# what the old one would have done, for a model without dropout?</summary>
#
# To the end of the epoch: the images that are left in it are in the checkpoint, and nothing is drawn. The next epoch's
# order is another one, and so is the rest of the run.
# </details>
#
# In lesson 8 you look inside: what do such models look at, what have their relative biases become, and what do they
# withstand?
