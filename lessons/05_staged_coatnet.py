# %% [markdown]
# # Lesson 5 · The staged CoAtNet
#
# You have all the parts: MBConv from lesson 3, the transformer block with relative attention from
# lesson 4. Now they become one model, **CoAtNet** (Dai et al. 2021,
# [arXiv 2106.04803](https://arxiv.org/abs/2106.04803)). What is left to decide is the plan: which
# block stands where, how wide, how often. At the end you put the paper's own question to the test:
# how many stages should convolve, and how many attend?
#
# You need lessons 3 and 4, or at least their blocks, which are imported below. Plan on **80 minutes**.

# %%
FULL = False  # True: the comparisons at the end on CIFAR-100 (hours on a CPU; it says so first)

import io
import math
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import torch
from matplotlib.patches import Rectangle
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from coatnet import CoAtNEt, CoAtNetConfig, Head, MBConv, TransformerBlock
from course import plots, training
from course.checking import yours
from course.checks import lesson05 as check
from course.data import load_data, shape_texture_accuracy
from vit import ViT

train, test = load_data("cifar100" if FULL else "shapetexture100")
print(f"{len(train):,} images to train, {len(test):,} to test, {len(train.classes)} classes")

# %% [markdown]
# ## 1 · Why stages
#
# The ViT and the hybrid keep one grid and one width from the first block to the last. Most
# convolutional networks do something else, and CoAtNet follows them: five **stages**, S0 to S4. Each
# halves height and width, and from S2 on each doubles the number of channels.
#
# - **Early**, the grid is fine and the channels few. Attention compares every place with every other:
#   on 56 x 56 places that is $3136^2$, ten million comparisons a head. A convolution looks at
#   nine neighbours. So early stages convolve.
# - **Late**, the grid is coarse: 14 x 14 places make $196^2$, 38,416 comparisons. Now attention is
#   affordable, and each place already stands for something worth comparing.
#
# So CoAtNet-0 looks like this at 224 pixels. Boxes are as tall as the grid and as wide as the
# channels, both to scale:

# %%
PLAN = {  # name: (colour, channels, grid)
    "image": ("grey", 3, 224),
    "S0\nconvolutions": (plots.COLOURS[4], 64, 112),
    "S1\nMBConv": (plots.COLOURS[0], 96, 56),
    "S2\nMBConv": (plots.COLOURS[0], 192, 28),
    "S3\ntransformer": (plots.COLOURS[1], 384, 14),
    "S4\ntransformer": (plots.COLOURS[1], 768, 7),
}
figure, axis = plt.subplots(figsize=(9, 3.6), layout="constrained")
left = 0
for name, (colour, channels, side) in PLAN.items():
    axis.add_patch(Rectangle((left, -side / 2), channels, side, color=colour))
    middle = left + channels / 2
    axis.text(middle, side / 2 + 8, f"{channels} x\n{side} x {side}", ha="center", fontsize=9)
    axis.text(middle, -122, name, ha="center", va="top", fontsize=9)
    left += channels + 110
axis.set(xlim=(-70, left - 60), ylim=(-165, 165), yticks=[], xlabel="channels, side by side")
axis.spines[["left", "right", "top"]].set_visible(False)
print([f"{c * s * s:,}" for _, c, s in PLAN.values()], "numbers")

# %% [markdown]
# A quarter of the places, twice the channels: from S1 on, each stage holds *half* as many numbers as
# the one before. A picture of 150,528 numbers grows to 802,816 at first, and ends as 37,632 that the
# head can summarise.
#
# ## 2 · S0, the stem
#
# Two 3 x 3 convolutions. The first has stride 2 and is followed by BatchNorm and GELU; the second has
# stride 1 and is followed by **nothing**. Every block of S1 begins with a norm of its own (pre-norm), so
# that a norm here would be normalised once more. For the same reason neither convolution needs a bias:
# what stands behind it subtracts a mean anyway, or has a shift of its own.
#
# ### Exercise 1 · The stem (10 min, ★☆☆)
#
# A `CoAtNetConfig` says what tells one CoAtNet from another. Four of its fields matter in this lesson:
#
# | field | CoAtNet-0 | |
# |---|---|---|
# | `stem_widths` | `(64, 64)` | channels after the first and the second convolution of S0 |
# | `depths` | `(2, 3, 5, 2)` | number of blocks in S1, S2, S3, S4 |
# | `widths` | `(96, 192, 384, 768)` | channels of S1, S2, S3, S4 |
# | `block_types` | `("C", "C", "T", "T")` | what they are made of: C is `MBConv`, T `TransformerBlock` |
#
# <details><summary>Hint 1: the widths</summary>
#
# `first, second = config.stem_widths`. The convolutions go `in_channels` -> `first` -> `second`.
# </details>
#
# <details><summary>Hint 2: the layers</summary>
#
# `nn.Conv2d(..., 3, stride=2, padding=1, bias=False)`, `nn.BatchNorm2d(first)`, `nn.GELU()`, and the
# second convolution, without the stride.
# </details>


# %% tags=["exercise"]
class Stem(nn.Module):
    """S0: [B, in_channels, H, W] -> [B, second width, H/2, W/2], rounded up"""

    def __init__(self, in_channels, config):
        super().__init__()
        # TODO: two 3x3 convolutions with padding 1 and without bias, config.stem_widths wide; the
        # first with stride 2, then BatchNorm and GELU, then the second
        ### BEGIN SOLUTION
        first, second = config.stem_widths
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, first, 3, stride=2, padding=1, bias=False),  # [B, C, H/2, W/2]
            nn.BatchNorm2d(first),
            nn.GELU(),
            nn.Conv2d(first, second, 3, padding=1, bias=False),
        )
        ### END SOLUTION

    def forward(self, x):
        # TODO: apply them
        ### BEGIN SOLUTION
        return self.layers(x)
        ### END SOLUTION


# %% tags=["check"]
check.stem(Stem)

# %% [markdown]
# ## 3 · S1 to S4
#
# A stage is a row of blocks of one kind. Only its **first** block changes anything about the shape:
# it has stride 2, and it goes from the channels of the stage before to its own. All others have stride
# 1, and as many channels go out as come in, so that their shortcut is the plain $x$.
#
# | | channels | stride | shortcut |
# |---|---|---|---|
# | first block | `in_channels` -> `out_channels` | 2 | pooling, and a 1 x 1 convolution |
# | every other | `out_channels` -> `out_channels` | 1 | $x$ itself |
#
# Why the first and not the last? Because then the others work on the small grid, at a quarter of the
# price.
#
# The blocks are lessons 3 and 4's: `MBConv(in_channels, out_channels, stride)` and
# `TransformerBlock(in_channels, out_channels, grid_size, stride)`. A transformer block needs to know
# its `grid_size`, a pair (height, width), because it learns a bias for every offset on that grid. A
# strided one pools first and attends then, so it is the grid that comes **out**, the same for all blocks
# of the stage. MBConv does not care.
#
# ### Exercise 2 · A stage (15 min, ★★☆)
#
# A function this time. What it returns is a module that maps $x$ to $x$, so `nn.Sequential`.
#
# <details><summary>Hint 1: one block</summary>
#
# With `number` from 0 to `depth - 1`: the input channels are `in_channels` if `number == 0`, otherwise
# `out_channels`; the stride is 2 or 1 likewise. Then ask for `kind`.
# </details>
#
# <details><summary>Hint 2: the row</summary>
#
# Append each new block to a list, and return `nn.Sequential(*blocks)`. Each place needs a block of its
# own: `[block] * depth` would be one and the same block, several times.
# </details>


# %% tags=["exercise"]
def make_stage(in_channels, out_channels, depth, kind, grid_size):
    """`depth` blocks as nn.Sequential: [B, in_channels, H, W] -> [B, out_channels, H/2, W/2]

    kind: "C" for MBConv, "T" for TransformerBlock
    grid_size: (height, width) of what comes out of the stage
    """
    # TODO: the first block has stride 2 and changes the channels, the others neither
    ### BEGIN SOLUTION
    blocks = []
    for number in range(depth):
        channels, stride = (in_channels, 2) if number == 0 else (out_channels, 1)
        if kind == "C":
            blocks.append(MBConv(channels, out_channels, stride))
        else:
            blocks.append(TransformerBlock(channels, out_channels, grid_size, stride))
    return nn.Sequential(*blocks)
    ### END SOLUTION


# %% tags=["check"]
check.stage(make_stage)

# %% [markdown]
# Three blocks, one after the other, of a stage from 96 to 192 channels. Which one has changed the shape?

# %%
Stage = yours(make_stage)
for kind in ("C", "T"):
    x = torch.randn(1, 96, 14, 14)
    print(f"{kind}: {list(x.shape)}", end="")
    for block in Stage(96, 192, 3, kind, (7, 7)):
        x = block(x)
        print(f" -> {list(x.shape)}", end="")
    print()

# %% [markdown]
# ## 4 · The model
#
# Stem, four stages, head. At the end of S4, each place of the grid has its say in equal parts: the
# **mean over the grid**. No CLS token: lesson 4's blocks know where things are without a special token,
# and a mean works on any grid. `Head(channels, num_classes)` is imported. It computes
#
# $$\bar{x} = \frac{1}{hw} \sum_{i,j} x_{:,i,j}, \qquad
# \text{logits} = W_2 \tanh\big(W_1 \,\text{LayerNorm}(\bar{x}) + b_1\big) + b_2$$
#
# from the grid itself, [B, C, h, w]. The hidden layer with its tanh is how timm builds the model; the
# paper does not mention it.
#
# What remains is bookkeeping, and it is where most hand-written CoAtNets go wrong:
#
# - **Channels.** S1 starts from what the stem puts out, S2 from what S1 puts out, and so on.
# - **Grids.** `image_size` is the side of a square image. The stem halves it, and then each stage does,
#   always **rounding up**: $56 \to 28 \to 14 \to 7 \to 4 \to 2$. The pair for S1 at 56 pixels is (14, 14).
#
# ### Exercise 3 · CoAtNet (20 min, ★★☆)
#
# Call the parts `self.stem`, `self.stages` (the four stages, in order) and `self.head`; the figures
# below ask for these names. The images have 3 channels.
#
# <details><summary>Hint 1: halving</summary>
#
# `side = math.ceil(image_size / 2)` after the stem, and `side = math.ceil(side / 2)` for each stage.
# </details>
#
# <details><summary>Hint 2: the loop</summary>
#
# `for depth, width, kind in zip(config.depths, config.widths, config.block_types):` halve the side,
# append `make_stage(channels, width, depth, kind, (side, side))` to a list, and set
# `channels = width` for the next round. Before the loop, `channels` is `config.stem_widths[-1]`.
# </details>
#
# <details><summary>Hint 3: forward</summary>
#
# `self.stages = nn.Sequential(*stages)`; then `self.head(self.stages(self.stem(x)))`.
# </details>


# %% tags=["exercise"]
class CoAtNet(nn.Module):
    """[B, 3, H, W] -> logits [B, num_classes], for any H and W from 32 up"""

    def __init__(self, config, num_classes=1000, image_size=224):
        super().__init__()
        # TODO: self.stem; self.stages, with channels and grids passed on from stage to stage;
        # self.head
        ### BEGIN SOLUTION
        self.stem = Stem(3, config)
        channels, side = config.stem_widths[-1], math.ceil(image_size / 2)
        stages = []
        for depth, width, kind in zip(config.depths, config.widths, config.block_types):
            side = math.ceil(side / 2)
            stages.append(make_stage(channels, width, depth, kind, (side, side)))
            channels = width
        self.stages = nn.Sequential(*stages)
        self.head = Head(channels, num_classes)
        ### END SOLUTION

    def forward(self, x):
        # TODO: stem, stages, head
        ### BEGIN SOLUTION
        x = self.stem(x)  # [B, C, H/2, W/2]
        x = self.stages(x)  # [B, widths[-1], H/32, W/32]
        return self.head(x)  # [B, num_classes]
        ### END SOLUTION


# %% tags=["check"]
check.coatnet_staged(CoAtNet)

# %% [markdown]
# One set of weights, several image sizes. The model below learns its position biases for 56 pixels. Give
# it 64, or 90 x 60, and each block interpolates its table, as you saw in lesson 4. Nothing in it ever
# counted on a size.

# %%
torch.manual_seed(0)
Model = yours(CoAtNet)
model = Model(CoAtNetConfig(), num_classes=100, image_size=56).eval()
for height, width in ((56, 56), (64, 64), (90, 60), (33, 47)):
    with torch.no_grad():
        x = model.stem(torch.randn(1, 3, height, width))
        grids = [tuple(x.shape[2:])]
        for stage in model.stages:
            x = stage(x)
            grids.append(tuple(x.shape[2:]))
        logits = model.head(x)
    sizes = " -> ".join(f"{h} x {w}" for h, w in grids)
    print(f"{height} x {width}: {sizes}, logits {list(logits.shape)}")

# %% [markdown]
# 33 x 47 pixels are odd everywhere, and rounded up everywhere: 17 x 24, 9 x 12 and so on. If one
# branch of one block rounded down instead, the shortcut would not fit.
#
# Where do the parameters sit, and where is the work? Here is CoAtNet-0 at 224 pixels, measured part by
# part. A FLOP is one addition or one multiplication.

# %%
model, x = Model(CoAtNetConfig()).eval(), torch.randn(1, 3, 224, 224)
names, counts, flops = ("S0", "S1", "S2", "S3", "S4", "head"), [], []
with torch.no_grad():
    for part in (model.stem, *model.stages, model.head):
        with FlopCounterMode(display=False) as counter:
            x = part(x)
        counts.append(sum(parameter.numel() for parameter in part.parameters()) / 1e6)
        flops.append(counter.get_total_flops() / 1e9)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
colours = [plots.COLOURS[i] for i in (4, 0, 0, 1, 1, 5)]
for axis, values, unit in ((axes[0], counts, "million parameters"), (axes[1], flops, "GFLOP")):
    bars = axis.bar(names, values, color=colours)
    axis.bar_label(bars, [f"{value:.1f}" for value in values])
    axis.set(ylabel=unit, ylim=(0, 1.15 * max(values)), title=f"{sum(values):.1f} {unit}")
    axis.spines[["right", "top"]].set_visible(False)

# %% [markdown]
# Nine tenths of the parameters sit in S3 and S4, where the channels are many; a matrix from $D$ to
# $4D$ grows with $D^2$, whatever the grid. The work is spread more evenly, because it is parameters times
# places, and S4's matrices meet 49 places alone. S3 takes the largest part of it: it is the deepest stage.
#
# ## 5 · The family
#
# Depth and width are all that tells the six models of the paper apart. This is its table 3: $L$ is the
# number of blocks (of convolutions, in S0), $D$ the number of channels.
#
# | | S0 | S1 | S2 | S3 | S4 |
# |---|---|---|---|---|---|
# | CoAtNet-0 | L=2 D=64 | L=2 D=96 | L=3 D=192 | L=5 D=384 | L=2 D=768 |
# | CoAtNet-1 | L=2 D=64 | L=2 D=96 | L=6 D=192 | L=14 D=384 | L=2 D=768 |
# | CoAtNet-2 | L=2 D=128 | L=2 D=128 | L=6 D=256 | L=14 D=512 | L=2 D=1024 |
# | CoAtNet-3 | L=2 D=192 | L=2 D=192 | L=6 D=384 | L=14 D=768 | L=2 D=1536 |
# | CoAtNet-4 | L=2 D=192 | L=2 D=192 | L=12 D=384 | L=28 D=768 | L=2 D=1536 |
# | CoAtNet-5 | L=2 D=192 | L=2 D=256 | L=12 D=512 | L=28 D=1280 | L=2 D=2048 |
#
# Look where the depth goes: into S3, where attention is affordable and each block is still cheaper than in
# S4. All six are C-C-T-T.
#
# ### Exercise 4 · The family (10 min, ★☆☆)
#
# `paper_config(0)` to `paper_config(5)`, each a `CoAtNetConfig`. Both convolutions of S0 have S0's $D$.
#
# <details><summary>Hint 1: where the columns go</summary>
#
# The $D$ of S0 goes into `stem_widths`, twice. The $L$ of S1 to S4 are `depths`, their $D$ are `widths`: four
# numbers each.
# </details>
#
# <details><summary>Hint 2: how to write it</summary>
#
# A list `rows` with a tuple of stem width, depths and widths for each model; then
# `stem, depths, widths = rows[number]`, and `CoAtNetConfig(stem_widths=(stem, stem), ...)`.
# </details>


# %% tags=["exercise"]
def paper_config(number):
    """CoAtNet-`number` of table 3 as a CoAtNetConfig, number from 0 to 5"""
    # TODO: stem_widths, depths and widths of that row
    ### BEGIN SOLUTION
    rows = [
        (64, (2, 3, 5, 2), (96, 192, 384, 768)),
        (64, (2, 6, 14, 2), (96, 192, 384, 768)),
        (128, (2, 6, 14, 2), (128, 256, 512, 1024)),
        (192, (2, 6, 14, 2), (192, 384, 768, 1536)),
        (192, (2, 12, 28, 2), (192, 384, 768, 1536)),
        (192, (2, 12, 28, 2), (256, 512, 1280, 2048)),
    ]
    stem, depths, widths = rows[number]
    return CoAtNetConfig(stem_widths=(stem, stem), depths=depths, widths=widths)
    ### END SOLUTION


# %% tags=["check"]
check.family(paper_config)

# %% [markdown]
# A count is the cheapest test of a model there is: every layer that is too wide, missing, or there twice
# shows in it. But CoAtNet-5 would fill 2.7 GB, only to be counted. PyTorch has a device for such cases, **meta**:
# tensors that are made inside `with torch.device("meta"):` have a shape and no contents.
#
# ### Exercise 5 · Counting (10 min, ★☆☆)
#
# `build` is a function without arguments that returns a module. Call it where building costs no memory, and
# return the number of the module's parameters: all of them, frozen or not, and buffers not, which are stored
# but not learned. A plain number, not millions.
#
# <details><summary>Hint 1: what to add up</summary>
#
# `module.parameters()` yields each parameter once; `parameter.numel()` is how many numbers it holds.
# </details>
#
# <details><summary>Hint 2: all of it</summary>
#
# Two lines build the model: `with torch.device("meta"):` and inside it `model = build()`. The third is
# `return sum(...)`.
# </details>


# %% tags=["exercise"]
def count_parameters(build):
    """The number of parameters of the module that build() returns, without memory for them"""
    # TODO: build on the meta device; add up the parameters
    ### BEGIN SOLUTION
    with torch.device("meta"):
        model = build()
    return sum(parameter.numel() for parameter in model.parameters())
    ### END SOLUTION


# %% tags=["check"]
check.counting(count_parameters)

# %% [markdown]
# Now the family: the paper's number, in millions, beside yours, and beside the models of
# [timm](https://github.com/huggingface/pytorch-image-models), which lesson 6 takes apart.

# %%
import timm

count, config_of = yours(count_parameters), yours(paper_config)
PUBLISHED = (25, 42, 75, 168, 275, 688)
print("           paper          yours           timm   yours - paper")
for number, published in enumerate(PUBLISHED):
    mine = count(partial(Model, config_of(number)))
    theirs = count(partial(timm.create_model, f"coatnet_{number}_224"))
    off = mine / 1e6 - published
    print(f"CoAtNet-{number} {published:5} M {mine:14,} {theirs:14,} {off:+13.2f} M")

# %% [markdown]
# Yours and timm's agree to the last parameter. Against the paper, which gives whole millions, four of six
# agree when rounded: CoAtNet-0, -1, -2 and -4. CoAtNet-3 is 1.0 M short (0.6 %), CoAtNet-5 0.5 M (0.1 %). Is it
# one of the two things that the paper leaves open? One is the image size at which it counts, since bias tables
# grow with the grid. The other is the head's hidden layer, $D^2 + D$ parameters and $2D$ in its norm.

# %%
print("published                    " + "".join(f"{published:8}" for published in PUBLISHED))
for name, image_size, hidden in (
    ("as above", 224, True),
    ("bias tables for 384 px", 384, True),
    ("head without hidden layer", 224, False),
    ("both", 384, False),
):
    line = f"{name:28} "
    for number, published in enumerate(PUBLISHED):
        config = config_of(number)
        millions = count(partial(Model, config, image_size=image_size)) / 1e6
        width = config.widths[-1]
        millions -= 0 if hidden else (width**2 + 3 * width) / 1e6
        line += f"{millions:7.1f}" + ("*" if round(millions) == published else " ")
    print(line + "  * rounds to the published number")

# %% [markdown]
# Neither explains all six, nor do both together; as timm builds it comes closest. And no image size could:
# CoAtNet-4 is CoAtNet-3 with 6 more blocks in S2 and 14 more in S3. Your 20 blocks weigh
# 275.43 - 166.97 = 108.46 M, of which the large matrices alone,
# $6 \cdot 10 \cdot 384^2 + 14 \cdot 12 \cdot 768^2$, are 107.94 M. In the paper it is 275 - 168 = 107, at most
# 108 if both were rounded: next to no room for depthwise kernels, biases, norms and bias tables. So the paper's
# -3 and -4 can't both be counted the way we count. How they were, the paper does not say, and there is no
# layer-by-layer list to look it up in. What you can say is exact for timm's models and within 0.6 % for the
# paper's.
#
# ## 6 · Which layout?
#
# MBConv or transformer, for each of four stages: why C-C-T-T? Section 2.2 of the paper argues that
# convolution should come before attention, so that four candidates are left:
#
# C-C-C-C, C-C-C-T, C-C-T-T, C-T-T-T.
#
# It compares them (and a ViT with relative attention) on two counts. **Generalisation**, how well what is learned
# on ImageNet-1K, 1.3 million images, holds on unseen ones: C-C-C-C and C-C-C-T about the same, then C-C-T-T, then
# C-T-T-T, the ViT far behind. **Capacity**, how well 300 million images of JFT are fitted: C-C-T-T and C-T-T-T
# about the same, then the ViT, then C-C-C-T, then C-C-C-C. Convolutions learn well from little, attention takes
# in more. C-C-T-T won by a third test, on transfer to other data.
#
# Yours is a thousand times smaller. Fair means here:
#
# - **Equal parameters**: about a third of a million each. A MBConv block $D$ wide has about $10 D^2$ of them (4 to
#   expand, 4 to project, 2 in squeeze-excite), a transformer block $12 D^2$ (4 in attention, 8 in the feed-forward
#   layers). So in S2 to S4 a stage that convolves gets 9/8 of the width of one that attends.
# - **Equal training**: 120 steps of 32 images of 56 x 56 pixels, Adam at 1e-3, no augmentation. That is 3,840
#   images, each seen once.
# - **Three seeds each**, for the weights and for the order of the images. If seeds differ as much as
#   layouts do, nothing has been found out.

# %%
LAYOUTS = ("CCCC", "CCCT", "CCTT", "CTTT")
WIDTHS = {"C": (16, 36, 72, 144), "T": (16, 32, 64, 128)}


def layout_config(layout):
    return CoAtNetConfig(
        stem_widths=(16, 16),
        depths=(1, 1, 2, 1),
        widths=tuple(WIDTHS[kind][stage] for stage, kind in enumerate(layout)),
        block_types=tuple(layout),
    )


MAKERS = {"-".join(name): partial(Model, layout_config(name), 100, 56) for name in LAYOUTS}
MAKERS["ViT"] = partial(ViT, 56, 8, num_hiddens=64, num_heads=4, num_classes=100, depth=6)
MAKERS["hybrid"] = partial(CoAtNEt, 56, 8, num_hiddens=64, num_heads=4, num_classes=100, depth=4)
for name, make in MAKERS.items():
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        make().eval()(torch.randn(1, 3, 56, 56))
    print(
        f"{name:8} {count(make):8,} parameters, {counter.get_total_flops() / 1e6:5.1f} MFLOP an image"
    )

# %% [markdown]
# The four layouts lie within 6 % of each other. Below them two old acquaintances of the same size, for later: a
# ViT of depth 6 and the hybrid of depth 4, both 64 wide. Now train; a line for each run.

# %% tags=["nbval-ignore-output"]
LENGTH = {"steps": 20 * math.ceil(len(train) / 32)} if FULL else {}  # FULL: 20 epochs
unseen = test if FULL else replace(test, images=test.images[:1000], targets=test.targets[:1000])


def run(make, seed, steps=120):
    """Trains a new model: the model, its held-out Evaluation, and the seconds of training"""
    torch.manual_seed(seed)
    model = make().to(memory_format=torch.channels_last)
    with redirect_stdout(io.StringIO()):  # 16 runs: one line each is enough
        history = training.fit(
            model, train, unseen, steps=steps, steps_per_epoch=steps, lr=1e-3, seed=seed
        )
    seconds = sum(epoch.seconds for epoch in history.epochs)
    result = history.epochs[-1].held_out
    print(f"{name:8} seed {seed}: {result.accuracy:5.1%} right, {seconds:.1f} s")
    return model.eval(), result, seconds


if FULL:
    training.estimate(MAKERS["C-C-T-T"](), train, epochs=20 * 16)
runs = {}
for name in list(MAKERS)[:4]:
    runs[name] = [run(MAKERS[name], seed, **LENGTH) for seed in range(3)]


# %% tags=["nbval-ignore-output"]
def show_runs(axis, values, colour, marker, label=None):
    """A mark for each seed, a line for their mean; values: percent, by name"""
    for place, percent in enumerate(values.values()):
        places = [place + 0.09 * (seed - 1) for seed in range(len(percent))]
        axis.plot(places, percent, marker, color=colour, label=None if place else label)
        axis.hlines(sum(percent) / len(percent), place - 0.25, place + 0.25, color=colour)
    axis.set_xticks(range(len(values)), values)
    axis.set(ylim=(0, 102), ylabel="right on unseen images (%)")
    axis.grid(axis="y", alpha=0.3)


figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
right_answers = {n: [100 * e.accuracy for _, e, _ in results] for n, results in runs.items()}
show_runs(left, right_answers, plots.COLOURS[0], "o")
left.set_title("class: one mark a seed, line: mean")
if not FULL:
    for part, (label, colour, marker) in enumerate(
        (("shape", plots.COLOURS[1], "s"), ("texture", plots.COLOURS[2], "^"))
    ):
        marks = {
            n: [100 * shape_texture_accuracy(e.predictions, unseen.targets)[part] for _, e, _ in r]
            for n, r in runs.items()
        }
        show_runs(right, marks, colour, marker, label)
    right.legend(loc="lower left")
    right.set_title("shape and texture, marked apart")

# %% [markdown]
# After so few images, the more a layout convolves, the more it has learned. C-C-C-C is far ahead, C-C-C-T
# second, and no seed breaks that order. C-C-T-T and C-T-T-T can't be ranked: their marks overlap. The right-hand
# figure says where it happens: textures are learned by all four, and shapes divide them.
#
# Does that agree with the paper? With the direction of its first count: little data favours convolution. Not with
# the sizes, for there C-C-T-T is close to C-C-C-C. But ours is not the paper's question. 120 steps say who learns
# *first*; the paper asks who is best when all have learned what they can. So don't read off a winner here. Read
# off the price of attention, which must find out from data what a convolution is born with. Give `run` more steps
# and see how the gaps change.
#
# ## 7 · ViT, hybrid, staged
#
# Three models of this course, of the same size, trained alike. This time look at the clock: equal steps are
# not equal seconds. (Two seeds each for ViT and hybrid; C-C-T-T has run already.)

# %% tags=["nbval-ignore-output"]
for name in ("ViT", "hybrid"):
    runs[name] = [run(MAKERS[name], seed, **LENGTH) for seed in range(2)]

# %% tags=["nbval-ignore-output"]
figure, axis = plt.subplots(figsize=(7, 3.8), layout="constrained")
print("          parameters  seconds  right  % a second  % per 100,000 parameters")
chosen = ("ViT", "hybrid", "C-C-T-T")
for name, colour, marker in zip(chosen, plots.COLOURS, plots.MARKERS):
    percent = [100 * result.accuracy for _, result, _ in runs[name]]
    seconds = [seconds for _, _, seconds in runs[name]]
    axis.plot(seconds, percent, marker, color=colour, markersize=9, label=name)
    size, mean, clock = (
        count(MAKERS[name]),
        sum(percent) / len(percent),
        sum(seconds) / len(seconds),
    )
    ratios = f"{mean / clock:12.2f} {mean / size * 1e5:11.1f}"
    print(f"{name:8} {size:11,} {clock:8.1f} {mean:5.1f}% {ratios}")
axis.set(xlabel="seconds of training", ylabel="right on unseen images (%)", xlim=(0, None))
axis.set_ylim(0, None)
axis.grid(alpha=0.3)
axis.legend()
# %% [markdown]
# At equal size and equal steps C-C-T-T needs less than half the seconds of ViT and hybrid. Coarse grids are the
# reason: a third of the ViT's arithmetic, a fifth of the hybrid's, as the table in section 6 says. (Its memory layout
# helps, too.) Hybrid and C-C-T-T know about equally much in the end, with seeds too far apart to tell; the ViT has
# hardly begun. Per second the staged model leads, per parameter those two are level. With real photographs and five
# minutes the picture is another one; the README's table has it.
#
# Last, look inside. An image on its way through your trained C-C-T-T. Of each stage you see the three channels
# that vary most over the image, each in its own scale: bright is much, dark is little.

# %% tags=["nbval-ignore-output"]
model = runs["C-C-T-T"][0][0]
image = test.images[42:43]
with torch.no_grad():
    maps = [model.stem(test.normalise(image).to(next(model.parameters()).device))]
    for stage in model.stages:
        maps.append(stage(maps[-1]))
figure, axes = plt.subplots(3, 6, figsize=(9, 4.8), layout="constrained")
for axis in axes.flat:
    axis.axis("off")
axes[1, 0].imshow(plots.to_pixels(image[0]))
axes[1, 0].set_title("3 x 56 x 56", fontsize=9)
for column, grid in enumerate(maps, start=1):
    channels, height, width = grid.shape[1:]
    strongest = grid[0].flatten(1).std(dim=1).topk(3).indices
    for row, channel in enumerate(strongest):
        axes[row, column].imshow(grid[0, channel].cpu(), cmap="viridis")
    axes[0, column].set_title(f"S{column - 1}\n{channels} x {height} x {width}", fontsize=9)

# %% [markdown]
# S0 still draws the discs with their stripes. In S1 and S2 edges and textures have become places that are *on* or
# *off*, and on S3's 4 x 4 places little more is left than where something is and where nothing is. S4's four places
# can hardly be read by eye; the head gets their mean.
#
# ## What you have now
#
# - `Stem`, `make_stage` and `CoAtNet`, equal to the reference in [`coatnet/staged.py`](../coatnet/staged.py), for images of
#   any size from 32 pixels
# - the paper's six models, as six rows, each counted to the last parameter without the memory for any
# - a way to compare designs that can also say "we don't know": equal budget, several seeds, spread in view
#
# In lesson 6 your CoAtNet meets timm's: you carry the weights over, layer by layer, until both return the same
# logits.
