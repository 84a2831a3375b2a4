# %% [markdown]
# # Lesson 5 · The staged CoAtNet
#
# You have all the parts: MBConv from lesson 3, the transformer block with relative attention from
# lesson 4. Now they become one model, **CoAtNet** (Dai et al. 2021,
# [arXiv 2106.04803](https://arxiv.org/abs/2106.04803)). What is left to decide is the plan: which
# block stands where, how wide, how often. At the end you put the paper's own question to the test:
# how many stages should convolve, and how many attend?
#
# You need lessons 3 and 4, or at least their blocks, which are imported below. Plan on **90 minutes**: 65
# for the exercises, 25 to read and to look.

# %%
FULL = False  # True: the comparisons at the end on CIFAR-100 (hours on a CPU; it says so first)

import math
from dataclasses import replace
from functools import partial

import matplotlib.pyplot as plt
import timm
import torch
from matplotlib.patches import Rectangle
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import coatnet
from coatnet import CoAtNEt, CoAtNetConfig, Head, MBConv, TransformerBlock
from course import plots, training
from course.checking import yours
from course.checks import lesson05 as check
from course.data import load_data, shape_texture_accuracy
from course.seeding import same_start
from vit import ViT

train, test = load_data("cifar100" if FULL else "shapetexture100")
print(f"{len(train):,} images to train, {len(test):,} to test, {len(train.classes)} classes")

# %% [markdown]
# ## 1 · Why stages
#
# The ViT and the hybrid keep one grid and one width from the first block to the last. Most
# convolutional networks do something else, and CoAtNet follows them: five **stages**, S0 to S4. Each
# halves height and width, and where the grid shrinks the channels grow. This is CoAtNet-0 at 224 pixels.
# Boxes are as tall as the grid and as wide as the channels are many, both to scale:

# %%
PLAN = (  # name, what is in it, colour, channels, side of the grid
    ("image", "", "grey", 3, 224),
    ("S0", "2 x conv", plots.COLOURS[4], 64, 112),
    ("S1", "2 x MBConv", plots.COLOURS[0], 96, 56),
    ("S2", "3 x MBConv", plots.COLOURS[0], 192, 28),
    ("S3", "5 x transformer", plots.COLOURS[1], 384, 14),
    ("S4", "2 x transformer", plots.COLOURS[1], 768, 7),
)
figure, axis = plt.subplots(figsize=(10, 3.9), layout="constrained")
left = 0
for name, content, colour, channels, side in PLAN:
    axis.add_patch(Rectangle((left, -side / 2), channels, side, color=colour))
    middle = left + channels / 2
    axis.text(middle, side / 2 + 6, f"{channels} x {side} x {side}", ha="center", fontsize=9)
    axis.text(middle, -122, f"{name}\n{content}", ha="center", va="top", fontsize=9)
    left += channels + 200
axis.text(left - 100, 0, "mean over the grid,\nthen logits", va="center", fontsize=9)
axis.set(xlim=(-130, left + 250), ylim=(-160, 135))
axis.set_title("CoAtNet-0: channels x height x width behind each stage", fontsize=10)
axis.axis("off")
for name, _, _, channels, side in PLAN:
    print(f"{name:5} {channels:3} x {side:3} x {side:3} = {channels * side**2:7,} numbers")

# %% [markdown]
# An image of 150,528 numbers grows to 802,816 at first. From S2 on a stage has a quarter of the places of the
# one before and twice its channels, so that it holds half as many numbers; 37,632 remain for the head to
# summarise.
#
# Why do the first stages convolve and the last ones attend? Count the work. On $N$ places with $D$ channels each,
# the large matrices of a block cost in proportion to $N D^2$. Attention also compares every place with every other, and
# gathers their values: two products of $2 N^2 D$ FLOPs each (a FLOP is one addition or one multiplication). Here is
# what one block would cost in each stage, of either kind. Move the image size.

# %%
WIDTHS_0 = {"S1": 96, "S2": 192, "S3": 384, "S4": 768}


def show_price(image_size):
    D = torch.tensor(list(WIDTHS_0.values()))
    N = torch.tensor([math.ceil(image_size / 2**n) ** 2 for n in (2, 3, 4, 5)])
    mbconv = (2 * N * (8 * D**2 + 9 * 4 * D)) / 1e9  # 1 x 1: D -> 4D -> D; depthwise at 4D
    layers, products = 2 * N * 12 * D**2 / 1e9, 2 * 2 * N**2 * D / 1e9
    _, axis = plt.subplots(figsize=(8, 3.4), layout="constrained")
    left, right = (torch.arange(4) + shift for shift in (-0.2, 0.2))
    axis.bar(left, mbconv, 0.38, color=plots.COLOURS[0], label="MBConv")
    axis.bar(right, layers, 0.38, color=plots.COLOURS[1], label="transformer: layers")
    style = {"color": "white", "edgecolor": plots.COLOURS[1], "hatch": "///"}
    axis.bar(right, products, 0.38, layers, label="transformer: attention's products", **style)
    axis.set_xticks(range(4), WIDTHS_0)
    axis.set(ylabel="GFLOP a block", title=f"one block, for an image of {image_size} pixels")
    axis.spines[["right", "top"]].set_visible(False)
    axis.legend()
    shares = zip(WIDTHS_0, (products / layers).tolist())
    print("products / layers:", ", ".join(f"{stage} {share:.0%}" for stage, share in shares))


plots.with_slider(show_price, image_size=(32, 512, 224))

# %% [markdown]
# The layers of a block cost the same in every stage: a quarter of the places, four times as large a matrix. What
# differs are the products. At 224 pixels a transformer block in S1 would spend 544 % of what its layers cost on
# comparing places with places; in S3 it is 9 %, in S4 1 %. So early stages convolve, where a place looks at nine
# neighbours, whatever the size of the grid; late stages attend, where the grid is coarse and each place already
# stands for something worth comparing. And with 512 pixels?
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
# A `CoAtNetConfig` says what tells one CoAtNet from another; `CoAtNetConfig()`, all defaults, is CoAtNet-0. Four
# of its fields matter in this lesson:
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
# Why the first and not the last? Because then the others work on the small grid: a quarter of the places, and
# at equal width a quarter of the price.
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
# <details><summary>Hint 2: which class</summary>
#
# `MBConv(channels, out_channels, stride)` if `kind == "C"`, otherwise
# `TransformerBlock(channels, out_channels, grid_size, stride)`, with the `channels` and the `stride` of hint 1.
# </details>
#
# <details><summary>Hint 3: the row</summary>
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
# Build the parts with the right numbers of channels, grids and classes, and apply them one after the other.
# Call them `self.stem`, `self.stages` (the four stages, in order) and `self.head`; the figures
# below ask for these names. The images have 3 channels.
#
# <details><summary>Hint 1: halving</summary>
#
# `side = math.ceil(image_size / 2)` after the stem, and `side = math.ceil(side / 2)` for each stage.
# </details>
#
# <details><summary>Hint 2: what goes from stage to stage</summary>
#
# Two variables: `channels`, at first `config.stem_widths[-1]`, and `side`. Each stage is given the `channels` that
# come in and the `side` that goes out, and leaves its own width in `channels` for the next one.
# </details>
#
# <details><summary>Hint 3: the loop</summary>
#
# `for depth, width, kind in zip(config.depths, config.widths, config.block_types):` halve the side,
# append `make_stage(channels, width, depth, kind, (side, side))` to a list, and set
# `channels = width` for the next round. Before the loop, `channels` is `config.stem_widths[-1]`.
# </details>
#
# <details><summary>Hint 4: forward</summary>
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
# it 64, or 90 x 60, and each transformer block interpolates its table, as you saw in lesson 4. Nothing else in
# the model belongs to a grid: convolutions, norms and the mean take any.

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
# 33 x 47 pixels are rounded up wherever a side is odd: 17 x 24, 9 x 12 and so on. If one branch of one
# block rounded down instead, the shortcut would not fit.
#
# Where do the parameters sit, and where is the work? Here is CoAtNet-0 at 224 pixels, measured part by
# part. (PyTorch's counter does not know its own fused attention on a CPU; told to compute attention as `MATH`, step
# by step, it sees both products.)

# %%
model, x = Model(CoAtNetConfig()).eval(), torch.randn(1, 3, 224, 224)
names, counts, flops = ("S0", "S1", "S2", "S3", "S4", "head"), [], []
for part in (model.stem, *model.stages, model.head):
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        x = part(x)
    counts.append(sum(parameter.numel() for parameter in part.parameters()) / 1e6)
    flops.append(counter.get_total_flops() / 1e9)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
colours = [plots.COLOURS[i] for i in (4, 0, 0, 1, 1, 5)]
for axis, values, unit in ((axes[0], counts, "million parameters"), (axes[1], flops, "GFLOP")):
    bars = axis.bar(names, values, color=colours)
    axis.bar_label(bars, [f"{value:.2f}" for value in values])
    axis.set(ylabel=unit, ylim=(0, 1.15 * max(values)), title=f"{sum(values):.2f} {unit}")
    axis.spines[["right", "top"]].set_visible(False)
late, work = (sum(values[3:5]) / sum(values) for values in (counts, flops))
print(f"S3 and S4 hold {late:.0%} of the parameters, and do {work:.0%} of the work")
print(f"{sum(flops):.2f} GFLOP, or {sum(flops) / 2:.2f} billion multiply-adds")

# %% [markdown]
# Nine tenths of the parameters sit in S3 and S4, where the channels are many; a matrix from $D$ to
# $4D$ grows with $D^2$, whatever the grid. The work is spread more evenly, because it is parameters times
# places. S3 does the largest part of it: it has the most blocks.
#
# The paper counts multiply-adds. Its table 9 has 4.6 billion for the variant that you built, with the stride in the
# depthwise convolution; the 4.2 billion in its main text belong to a stride in the first convolution.
#
# ## 5 · The family
#
# Depth and width tell the models of the paper's table 3 apart, CoAtNet-0 to -4. CoAtNet-5 stands in its appendix
# (table 11). $L$ is the number of blocks (of convolutions, in S0), $D$ the number of channels; all six are C-C-T-T.
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
# Look where the depth goes: into S2 and S3. A block of S3 does about the same work as one of S4, as the first
# figure with bars says, but has a quarter of its parameters.
#
# Two things are not in this table. The paper's CoAtNet-5 has attention heads of 64 channels; timm's has 32 as all
# others do, and so have your blocks. And there are two more models (table 12): CoAtNet-6 and -7 have heads of 128, and
# their S3 is made of both kinds, 8 MBConv blocks and then 42 transformer blocks of twice the width. Your
# `make_stage` knows stages of one kind, so we leave these to the reference.
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
# The third row, for instance, is `CoAtNetConfig(stem_widths=(128, 128), depths=(2, 6, 14, 2), widths=(128, 256, 512,
# 1024))`. All other fields stay as they are.
# </details>
#
# <details><summary>Hint 3: all six</summary>
#
# A list `rows` with a tuple of stem width, depths and widths for each model; then
# `stem, depths, widths = rows[number]`, and `CoAtNetConfig(stem_widths=(stem, stem), ...)`.
# </details>


# %% tags=["exercise"]
def paper_config(number):
    """CoAtNet-`number` of the table above as a CoAtNetConfig, number from 0 to 5"""
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
# shows in it. But CoAtNet-5 would fill 2.7 GB of memory, only to be counted. PyTorch has a device for such cases, **meta**:
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
# Now the family: yours beside the models of
# [timm](https://github.com/huggingface/pytorch-image-models), which lesson 6 takes apart.

# %%
count, config_of = yours(count_parameters), yours(paper_config)
for number in range(6):
    mine = count(partial(Model, config_of(number)))
    theirs = count(partial(timm.create_model, f"coatnet_{number}_224"))
    print(f"CoAtNet-{number}: yours {mine:11,}, timm {theirs:11,}, difference {mine - theirs}")

# %% [markdown]
# They agree to the last parameter. And with the paper? It gives whole millions, and leaves two things open: at which
# image size it counts, since bias tables grow with the grid, and what its head looks like. So here are all eight
# models, heads and mixed stages as in its tables, counted in three ways. (`coatnet.paper_config` is the reference's: it
# differs from yours in CoAtNet-5's heads, and knows -6 and -7.)

# %%
PUBLISHED = (25, 42, 75, 168, 275, 688, 1470, 2440)  # the paper's final version
WAYS = {"224 px": (224, True), "384 px": (384, True), "224 px, no tanh layer": (224, False)}
print("            published" + "".join(f"{way:>24}" for way in WAYS))
for number, published in enumerate(PUBLISHED):
    line = f"CoAtNet-{number} {published:8} M "
    for image_size, mlp_head in WAYS.values():
        config = replace(coatnet.paper_config(number), mlp_head=mlp_head)
        millions = count(partial(coatnet.CoAtNet, config, image_size=image_size)) / 1e6
        digits = 1 if published < 1000 else 10  # -6 and -7 are published to three digits
        same = round(millions / digits) * digits == published
        line += f"{millions:22.2f}{' *' if same else '  '}"
    print(line)
print("* rounds to the published number")
config = coatnet.paper_config(6)
wider = count(partial(coatnet.CoAtNet, replace(config, widths=(*config.widths[:3], 3072)))) / 1e6
print(f"CoAtNet-6 with 3072 channels in S4 instead of 2048: {wider:.2f} M")

# %% [markdown]
# Counted as timm builds them at 224 pixels, five of eight round to what is published. None of the three ways gives
# all eight, and the paper's tables are at odds with themselves:
#
# - CoAtNet-3 counts 166.97 M. The version submitted for review says 167 M, the final one 168 M, with the same plan, FLOPs and
#   accuracies.
# - CoAtNet-5 counts 687.05 M: 687, not 688.
# - CoAtNet-6 is far off, but with 3072 channels in S4, as CoAtNet-7 has, it would fit its count. Either the table or the
#   count is of another model.
#
# What does such a count find? There is a rewrite of CoAtNet-0 that many people have used, and it has 17.8 instead of
# 25 million parameters. It runs and it learns, so that nobody need notice. Below are four of its decisions, put into the reference
# one at a time: in a first block MBConv is 4 times as wide as its input; the feed-forward layers of a first block are, too;
# attention has 8 heads of 32 in all blocks; the head has no tanh layer.


# %%
def rewritten(expansion=False, feed_forward=False, attention=False, head=False):
    """The parameters, in millions, of CoAtNet-0 with some of these four decisions"""
    with torch.device("meta"):
        model, channels = coatnet.CoAtNet(CoAtNetConfig(mlp_head=not head)), 64
        for stage, width, side in zip(model.stages, (96, 192, 384, 768), (56, 28, 14, 7)):
            for block in stage:
                hidden = 4 * channels
                if isinstance(block, MBConv) and expansion:
                    block.expand = nn.Conv2d(channels, hidden, 1, bias=False)
                    block.norm1, block.norm2 = nn.BatchNorm2d(hidden), nn.BatchNorm2d(hidden)
                    block.depthwise = nn.Conv2d(hidden, hidden, 3, groups=hidden, bias=False)
                    block.squeeze_excite = coatnet.SqueezeExcite(hidden, width // 4)
                    block.project = nn.Conv2d(hidden, width, 1)
                if isinstance(block, TransformerBlock) and feed_forward:
                    layers = nn.Conv2d(width, hidden, 1), nn.Conv2d(hidden, width, 1)
                    block.feed_forward = nn.Sequential(*layers)
                if isinstance(block, TransformerBlock) and attention:
                    block.attention.qkv = nn.Conv2d(channels, 3 * 256, 1)
                    block.attention.proj = nn.Conv2d(256, width, 1)
                    block.attention.position_bias = coatnet.RelativePositionBias(8, (side, side))
                channels = width
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


decisions = ("expansion", "feed_forward", "attention", "head")
print(f"as it should be       {rewritten():.2f} M")
for name in decisions:
    print(f"{name:20}  {rewritten(**{name: True}):.2f} M")
print(f"all four              {rewritten(**dict.fromkeys(decisions, True)):.2f} M")

# %% [markdown]
# The four explain it. The expansion, which is usually blamed, is the least of them; attention that
# stays 256 channels wide while the stages widen to 768 is half of it.
#
# ## 6 · Which layout?
#
# MBConv or transformer, for each of four stages: why C-C-T-T? Section 2.2 of the paper argues that
# convolution should come before attention, so that four candidates are left:
#
# C-C-C-C, C-C-C-T, C-C-T-T, C-T-T-T.
#
# It compares them (and a ViT with relative attention) on two counts. **Generalisation**, how well what is learned
# in 300 epochs of ImageNet-1K, 1.3 million images, holds on unseen ones: C-C-C-C and C-C-C-T about the same, then
# C-C-T-T, then C-T-T-T, the ViT far behind. **Capacity**, how well 300 million images of JFT are fitted in 3 epochs:
# C-C-T-T and C-T-T-T about the same, then the ViT, then C-C-C-T, then C-C-C-C. Convolutions learn well from little,
# attention takes in more. C-C-T-T won by a third test, a model trained on JFT and then fine-tuned on ImageNet-1K: 82.39 %
# against C-T-T-T's 81.78 %.
#
# Nobody can repeat that at a desk. What one can do at a desk is small, and has to be fair:
#
# - **Equal parameters**: about a third of a million each. A MBConv block $D$ wide has about $10 D^2$ of them (4 to
#   expand, 4 to project, 2 in squeeze-excite), a transformer block $12 D^2$ (4 in attention, 8 in the feed-forward
#   layers). So in S2 to S4 a stage that convolves gets 9/8 of the width of one that attends.
# - **Equal training**: 80 steps of 16 images of 56 x 56 pixels, no augmentation. That is 1,280 images, each seen once.
# - **Two learning rates.** What suits one layout may not suit another; a comparison at one rate could as well
#   be one of rates.
# - **Two seeds** for weights and order of the images, the same two for all. If seeds differ as much as layouts
#   do, nothing has been found out.
#
# %%
LAYOUTS = ("CCCC", "CCCT", "CCTT", "CTTT")
WIDTHS = {"C": (8, 36, 72, 144), "T": (8, 32, 64, 128)}


def layout_config(layout):
    return CoAtNetConfig(
        stem_widths=(8, 8),
        depths=(1, 1, 2, 1),
        widths=tuple(WIDTHS[kind][stage] for stage, kind in enumerate(layout)),
        block_types=tuple(layout),
    )


CONFIGS = {"-".join(layout): layout_config(layout) for layout in LAYOUTS}
MAKERS = {name: partial(Model, config, 100, 56) for name, config in CONFIGS.items()}
MAKERS["ViT"] = partial(ViT, 56, 8, num_hiddens=64, num_heads=4, num_classes=100, depth=6)
MAKERS["hybrid"] = partial(CoAtNEt, 56, 8, num_hiddens=64, num_heads=4, num_classes=100, depth=4)
for name, make in MAKERS.items():
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        make().eval()(torch.randn(1, 3, 56, 56))
    mflop = counter.get_total_flops() / 1e6
    print(f"{name:8} {count(make):8,} parameters, {mflop:5.1f} MFLOP an image")

# %% [markdown]
# The four layouts lie within 6 % of each other. Below them two old acquaintances of the same size, for later: a
# ViT of depth 6 and the hybrid of depth 4, both 64 wide. Now train; a line for each run. (Whatever the order in which
# your classes make their layers, the weights begin as the reference's do, so that everybody sees the same runs.)

# %% tags=["nbval-ignore-output"]
LENGTH = {}
if FULL:  # 20 epochs
    LENGTH = {"steps": 20 * math.ceil(len(train) / 32), "batch_size": 32}
    training.estimate(MAKERS["C-C-T-T"](), train, epochs=20 * 20)
few = test if FULL else replace(test, images=test.images[:500], targets=test.targets[:500])


def run(name, seed, lr=1e-3, steps=80, batch_size=16):
    """Trains a new model: the model, its held-out Evaluation, and the seconds of training"""
    torch.manual_seed(seed)
    if name in CONFIGS:
        first = coatnet.CoAtNet(CONFIGS[name], 100, 56)
        model = same_start(MAKERS[name](), first, torch.randn(2, 3, 56, 56))
    else:
        model = MAKERS[name]()
    model = model.to(memory_format=torch.channels_last)
    options = {"steps": steps, "batch_size": batch_size, "lr": lr, "seed": seed}
    history = training.fit(model, train, few, quiet=True, **options)
    result = history.epochs[-1].held_out
    print(f"{name:8} rate {lr:g}, seed {seed}: {result.accuracy:5.1%} right")
    return model.eval(), result, history.seconds


# %% tags=["nbval-ignore-output"]
runs = {}
for lr in (1e-3, 3e-3):
    for name in CONFIGS:
        runs[name, lr] = [run(name, seed, lr, **LENGTH) for seed in range(2)]


# %% tags=["nbval-ignore-output"]
def show_runs(axis, lr, value, colour, marker, label=None):
    """The runs at one rate, by layout; those of one seed are joined. value: an Evaluation's percent"""
    names = [name for name in CONFIGS if (name, lr) in runs]
    for seed in range(2):
        percent = [value(runs[name, lr][seed][1]) for name in names]
        axis.plot(names, percent, marker + "-", color=colour, alpha=0.7, label=label)
        label = None


def shape_of(result):
    return 100 * shape_texture_accuracy(result.predictions, few.targets)[0]


def texture_of(result):
    return 100 * shape_texture_accuracy(result.predictions, few.targets)[1]


figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
for axis, lr in zip(axes, (1e-3, 3e-3)):
    show_runs(axis, lr, lambda result: 100 * result.accuracy, plots.COLOURS[0], "o", "both")
    if not FULL:
        show_runs(axis, lr, shape_of, plots.COLOURS[1], "s", "shape")
        show_runs(axis, lr, texture_of, plots.COLOURS[2], "^", "texture")
    axis.set(title=f"learning rate {lr:g}, two seeds", ylim=(0, 102))
    axis.grid(axis="y", alpha=0.3)
axes[0].set_ylabel("right on unseen images (%)")
axes[0].legend()

# %% [markdown]
# At both rates and with both seeds C-C-C-C is far ahead, and C-C-C-T second. C-C-T-T and C-T-T-T have hardly begun.
# The lead of C-C-C-C is in the shapes; textures C-C-C-T reads about as well.
#
# Does that agree with the paper? With the direction of its first count: little data favours convolution. Not with
# the sizes, for there C-C-T-T is close to C-C-C-C. But ours is not the paper's question. 80 steps say who learns
# *sooner*; the paper asks who is best after hundreds of epochs. So don't read off a winner. Nor a cause: C-C-C-C and C-C-C-T
# differ in one block, on a grid of 2 x 2, where attention has four places to compare. It is hardly
# attention's hunger for data that shows there. Norm, activation, squeeze-excite and the zeros around the grid,
# which tell a convolution where the corners are, differ as well (question 4). What do more steps change?
# `run("C-C-T-T", 0, steps=400)` tells.
#
# ## 7 · ViT, hybrid, staged
#
# Three models of this course, of the same size, trained alike. This time look at the clock: equal steps are
# not equal seconds. (One seed each; C-C-T-T has run already.)

# %% tags=["nbval-ignore-output"]
for name in ("ViT", "hybrid"):
    runs[name, 1e-3] = [run(name, seed=0, **LENGTH)]
seconds, textures = {}, {}
print("          parameters  seconds  texture right")
for name in ("ViT", "hybrid", "C-C-T-T"):
    if (name, 1e-3) not in runs:
        continue  # it was interrupted
    _, result, seconds[name] = runs[name, 1e-3][0]
    textures[name] = 100 * (result.accuracy if FULL else texture_of(result) / 100)
    print(f"{name:8} {count(MAKERS[name]):11,} {seconds[name]:8.1f} {textures[name]:13.0f}%")

# %% [markdown]
# C-C-T-T has the fewest seconds: coarse grids, and so less than a quarter of the ViT's arithmetic and about an eighth of the
# hybrid's, as the table in section 6 says. It is not eight times as fast: in models as small as these much of the time goes into
# starting operations and fetching numbers. The hybrid reads far more textures than
# the ViT after as many steps. Don't trust its lead over C-C-T-T: there is one seed here, and with others C-C-T-T reads as many. Nor does the
# table say who would lead after equal *seconds*: in the hybrid's time C-C-T-T can take more than twice its steps. And all of it is about the first seconds of training. With real
# photographs and five minutes the hybrid leads under one recipe, a staged model under another, as [`benchmarks/README.md`](../benchmarks/README.md) has it.
#
# Last, look inside. An image on its way through your trained C-C-C-C. Of each stage you see the three channels
# that vary most over the image, each in its own scale: bright is much, dark is little.

# %% tags=["nbval-ignore-output"]
model = runs.get(("C-C-C-C", 3e-3), runs["C-C-C-C", 1e-3])[0][0]
image = test.images[42:43]
with torch.no_grad():
    maps = [model.stem(test.normalise(image).to(next(model.parameters()).device))]
    for stage in model.stages:
        maps.append(stage(maps[-1]))
figure, axes = plt.subplots(3, 6, figsize=(9, 4.8), layout="constrained")
for axis in axes.flat:
    axis.axis("off")
axes[1, 0].imshow(plots.to_pixels(image[0]))
axes[1, 0].set_title("image\n3 x 56 x 56", fontsize=9)
for column, grid in enumerate(maps, start=1):
    channels, height, width = grid.shape[1:]
    strongest = grid[0].flatten(1).std(dim=1).topk(3).indices
    for row, channel in enumerate(strongest):
        axes[row, column].imshow(grid[0, channel].cpu(), cmap="viridis")
    axes[0, column].set_title(f"S{column - 1}\n{channels} x {height} x {width}", fontsize=9)

# %% [markdown]
# From stage to stage places become fewer and larger. On the grid of S0 one still finds the discs with their
# stripes; on S2's 7 x 7 places at best the row that they form; on S3's 4 x 4 the eye finds little again. What is there the
# channels have to say: three of 144 are shown of S4, and the head reads all of them.
#
# ## What you have now
#
# - `Stem`, `make_stage` and `CoAtNet`, equal to the reference in [`coatnet/staged.py`](../coatnet/staged.py), for images of
#   any size from 32 pixels
# - six of the paper's eight models, as six rows, each counted to the last parameter without the memory for any
# - a way to compare designs that can also say "we don't know": equal budget, several rates and seeds, spread in view
#
# ## Questions
#
# <details><summary>1. You give CoAtNet-0 an image of 448 pixels instead of 224. By what factor does the work of S1 grow, and by
# what factor the work of attention's products in S3?</summary>
#
# Four times as many places, so S1 and all other layers do 4 times the work. The products grow with the square of the number of
# places: 16 times.
# </details>
#
# <details><summary>2. You take one block out of S3 and put one more into S4. Does the model get larger? Slower?</summary>
#
# Larger: an S4 block has twice the channels, so four times the parameters. Hardly slower: it has a quarter of the
# places, so that its layers do the same work, and its products less.
# </details>
#
# <details><summary>3. Your model has as many parameters as timm's, to the last one. Name three mistakes that it may still
# have.</summary>
#
# Whatever has no weights, or the same ones in another place: another activation, a stride in the second block instead of the
# first, blocks in another order, a missing shortcut, a softmax at the end, pooling by maximum.
# </details>
#
# <details><summary>4. C-C-C-C learns sooner than C-C-C-T. How do you find out which difference between the two kinds of blocks is behind
# it?</summary>
#
# Change one thing at a time, with the seeds, rates and budget of before: BatchNorm for LayerNorm in the transformer block of S4
# (in the reference, `norm="batch"`), squeeze-excite taken out of the MBConv block, `padding_mode="replicate"` in its
# depthwise convolution. If the gap stays, that was not it; if several of them close a part of it, there is no one cause.
# </details>
#
# <details><summary>5. Somebody trains all layouts at the rate that suits C-C-C-C best, with ten seeds. What have the
# ten seeds made sure of, and what not?</summary>
#
# That the difference is not one of luck with weights and order of images. Not that it is one of layouts: at their own best rates
# the others might do better. Seeds repeat an experiment; they don't make it fair.
# </details>
#
# In lesson 6 your CoAtNet meets timm's: you carry the weights over, layer by layer, until both return the same
# logits.
