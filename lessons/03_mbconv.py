# %% [markdown]
# # Lesson 3 · MBConv
#
# The stem of lesson 2 uses plain convolutions, in which every output channel looks at every input
# channel through nine weights. With 64 channels that is affordable, with 768 it is not: 5.3 million
# weights for one layer. In this lesson you split the work in two, looking around and mixing channels, and build from the halves the
# block of CoAtNet's first stages: **MBConv**, the inverted bottleneck of MobileNetV2 (Sandler et al.,
# [arXiv 1801.04381](https://arxiv.org/abs/1801.04381)).
#
# You need `nn.Conv2d`, `nn.BatchNorm2d` and lesson 2's stem. Plan on **85 minutes**: 60 for the exercises,
# 25 to read and to look.

# %%
FULL = False  # True: the network of section 5 trains for 20 epochs (it says how long that takes)

import time

import matplotlib.pyplot as plt
import timm
import torch
from torch import nn

import coatnet
from course import training
from course.checking import yours
from course.checks import lesson03 as check
from course.comparing import take_weights
from course.data import ShapeTexture100, load_data

train, test = load_data("shapetexture100")

# %% [markdown]
# ## 1 · Each channel on its own
#
# A plain 3 x 3 convolution from $C$ to $C$ channels does two things at once. For each pixel it
# looks at the nine around it, *and* it mixes all channels:
#
# $$y_{o}(p) = \sum_{c=1}^{C} \; \sum_{d \in 3 \times 3} w_{o,c,d} \; x_{c}(p + d)
# \qquad \text{weights: } 9\,C^2 .$$
#
# A **depthwise** convolution only looks around. Channel $c$ of the output sees channel $c$ of the
# input, through a 3 x 3 kernel of its own:
#
# $$y_{c}(p) = \sum_{d \in 3 \times 3} w_{c,d} \; x_{c}(p + d)
# \qquad \text{weights: } 9\,C .$$
#
# Mixing is left to 1 x 1 convolutions before and after it, with $C^2$ weights each. Counting
# multiplications for one pixel gives the same numbers, since every weight is used once a pixel.
#
# | $C$ | plain 3 x 3: $9C^2$ | depthwise 3 x 3: $9C$ | 1 x 1: $C^2$ |
# |---|---|---|---|
# | 64 | 36,864 | 576 | 4,096 |
# | 384 | 1,327,104 | 3,456 | 147,456 |
#
# In PyTorch the argument is called `groups`: `nn.Conv2d` cuts the channels into so many groups, and
# an output channel sees the input channels of its own group alone. With as many groups as channels,
# each channel is alone.
#
# ### Exercise 1 · Depthwise convolution (10 min, ★☆☆)
#
# A 3 x 3 kernel with padding 1 and no bias; `stride` is passed on.
#
# <details><summary>Hint 1: the layer</summary>
#
# One `nn.Conv2d(channels, channels, kernel_size=3, ...)`.
# </details>
#
# <details><summary>Hint 2: its arguments</summary>
#
# `stride=stride, padding=1, groups=channels, bias=False`.
# </details>


# %% tags=["exercise"]
class DepthwiseConv(nn.Module):
    """[B, C, H, W] -> [B, C, H/stride, W/stride], rounded up"""

    def __init__(self, channels, stride=1):
        super().__init__()
        # TODO: a 3x3 convolution of each channel on its own, padding 1, no bias
        ### BEGIN SOLUTION
        self.conv = nn.Conv2d(
            channels, channels, kernel_size=3, stride=stride, padding=1, groups=channels, bias=False
        )
        ### END SOLUTION

    def forward(self, x):
        # TODO: apply it
        ### BEGIN SOLUTION
        return self.conv(x)
        ### END SOLUTION


# %% tags=["check"]
check.depthwise_conv(DepthwiseConv)

# %% [markdown]
# Is each channel really alone? Change one input channel, and see which output channels move. Both
# pictures have one scale, and its darkest colour means: not at all.

# %%
torch.manual_seed(0)
layers = {"plain": nn.Conv2d(8, 8, 3, padding=1), "depthwise": yours(DepthwiseConv)(8)}
moved = {name: torch.zeros(8, 8) for name in layers}
x = torch.randn(1, 8, 12, 12)
for name, layer in layers.items():
    for c in range(8):
        changed = x.clone()
        changed[:, c] += 1
        moved[name][:, c] = (layer(changed) - layer(x)).detach().abs().mean(dim=(0, 2, 3))
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
largest = max(m.max() for m in moved.values())
for axis, (name, layer) in zip(axes, layers.items()):
    picture = axis.imshow(moved[name], cmap="viridis", vmin=0, vmax=largest)
    axis.set(xlabel="input channel that was changed", ylabel="output channel")
    axis.set_title(f"{name}: {sum(p.numel() for p in layer.parameters())} parameters")
figure.colorbar(picture, ax=axes, label="mean change")

# %% [markdown]
# On the left everything moves with everything. On the right there is the diagonal and nothing else.
#
# ### Exercise 2 · Depthwise by hand (10 min, ★★☆)
#
# To be sure that there is no magic in `groups`, write it as a loop over channels: cut out channel
# `c`, convolve it with its kernel, put the results side by side.
#
# <details><summary>Hint 1: one channel</summary>
#
# `x[:, c : c + 1]` keeps the channel axis: `[B, 1, H, W]`. Its kernel is `weight[c : c + 1]`,
# `[1, 1, 3, 3]`.
# </details>
#
# <details><summary>Hint 2: all of them</summary>
#
# `nn.functional.conv2d(channel, kernel, stride=stride, padding=1)` for each `c`, collected in a list,
# then `torch.cat(..., dim=1)`.
# </details>


# %% tags=["exercise"]
def depthwise_by_hand(x, weight, stride=1):
    """x [B, C, H, W] and weight [C, 1, 3, 3] -> [B, C, H/stride, W/stride], rounded up"""
    # TODO: convolve each channel with its own kernel, padding 1; join the results along dim=1
    ### BEGIN SOLUTION
    outputs = []
    for c in range(x.shape[1]):
        channel, kernel = x[:, c : c + 1], weight[c : c + 1]  # [B, 1, H, W], [1, 1, 3, 3]
        outputs.append(nn.functional.conv2d(channel, kernel, stride=stride, padding=1))
    return torch.cat(outputs, dim=1)  # [B, C, H/stride, W/stride]
    ### END SOLUTION


# %% tags=["check"]
check.depthwise_loop(depthwise_by_hand)

# %% [markdown]
# What can nine weights do? Three kernels that people once designed by hand, each on a channel of its
# own. Here all three channels hold the same grey image. A network learns such kernels by itself. (The
# thin frames come from the padding: beside the border there is black, darker than the background.)

# %%
grey = train.images[34].float().mean(dim=0) / 255  # [56, 56]
kernels = {
    "blur": [[1, 2, 1], [2, 4, 2], [1, 2, 1]],
    "horizontal edges": [[1, 2, 1], [0, 0, 0], [-1, -2, -1]],
    "vertical edges": [[1, 0, -1], [2, 0, -2], [1, 0, -1]],
}
weight = torch.tensor(list(kernels.values())).float()[:, None]  # [3, 1, 3, 3]
weight = weight / weight.abs().sum(dim=(2, 3), keepdim=True)
outputs = yours(depthwise_by_hand)(grey.expand(1, 3, -1, -1), weight)[0]  # [3, 56, 56]
figure, axes = plt.subplots(1, 4, figsize=(10.5, 2.7), layout="constrained")
pictures = {"image": grey, **dict(zip(kernels, outputs))}
for axis, (name, picture) in zip(axes, pictures.items()):
    if "edges" in name:
        edges = axis.imshow(picture, cmap="PuOr", vmin=-0.4, vmax=0.4)
    else:
        axis.imshow(picture, cmap="gray", vmin=0, vmax=1)
    axis.set_title(name)
    axis.set_axis_off()
figure.colorbar(edges, ax=axes[-1], label="> 0: brighter above, or left")

# %% [markdown]
# How much time do the saved multiplications save? Guess before you measure: the median of 15 calls, in
# milliseconds of this machine's cores. (What else is at work on it does not count.)


# %% tags=["nbval-ignore-output"]
def milliseconds(layer, x, repeats=15):
    times = []
    with torch.no_grad():
        layer(x)  # the first call warms up
        for _ in range(repeats):
            started = time.process_time()
            layer(x)
            times.append(time.process_time() - started)
    return sorted(times)[repeats // 2] * 1e3


x = torch.randn(2, 256, 28, 28).to(memory_format=torch.channels_last)
layers = {
    "plain 3x3": nn.Conv2d(256, 256, 3, padding=1, bias=False),
    "depthwise 3x3": yours(DepthwiseConv)(256),
    "1x1": nn.Conv2d(256, 256, 1, bias=False),
}
for name, layer in layers.items():
    count = sum(p.numel() for p in layer.parameters())
    ms = milliseconds(layer.to(memory_format=torch.channels_last), x)
    multiplications = count * 2 * 28 * 28 / 1e6
    print(f"{name:13}: {count:7,} weights, {multiplications:5.0f} M multiplications, {ms:5.2f} ms")

# %% [markdown]
# The depthwise layer has 256 times fewer multiplications than the plain one. It is not 256 times as fast,
# because it has little to compute for each number that it fetches from memory. But it costs much less
# than the plain one, and so does the 1 x 1 convolution that mixes the channels.
#
# ### How far one sees
#
# A 3 x 3 kernel sees one pixel further in each direction. $n$ such layers see
# $2n + 1$ pixels: 3, 5, 7, 9. That grows slowly. With stride 2, every step of the next layer is
# twice as long, and $n$ layers see $2^{n+1} - 1$ pixels: 3, 7, 15, 31. As in lesson 2 we ask the
# gradient of one output pixel which input pixels can change it. (With stride 2 the window's middle is up
# and left of the image's: the output pixel in the middle is the one at 1 of 0 ... 2, and every layer
# pads in front.)


# %%
def receptive_field(layers, size=41):
    """Which pixels of [1, 4, size, size] change the middle pixel of the output: [size, size]."""
    pixels = torch.randn(1, 4, size, size, requires_grad=True)
    output = nn.Sequential(*layers)(pixels)
    middle = output.shape[-1] // 2
    output[0, :, middle, middle].abs().sum().backward()
    return pixels.grad.abs().sum(dim=(0, 1))


torch.manual_seed(0)
Depthwise = yours(DepthwiseConv)
stacks = {"1 layer": [1], "2 layers": [1, 1], "4 layers": [1] * 4, "4 layers, stride 2": [2] * 4}
figure, axes = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained")
for axis, (name, strides) in zip(axes, stacks.items()):
    field = receptive_field([Depthwise(4, stride) for stride in strides])
    axis.imshow(field / field.max(), vmin=0, vmax=1)
    axis.set(title=f"{name}: {int((field.sum(0) > 0).sum())} px", xlabel="pixel")

# %% [markdown]
# ## 2 · Squeeze-and-excitation
#
# Depthwise convolutions are blind to what happens far away. Squeeze-and-excitation (Hu et al.,
# [arXiv 1709.01507](https://arxiv.org/abs/1709.01507)) lets the whole image have a say, cheaply: it
# turns down each channel, some less and some more, depending on the means of all channels.
#
# $$z_c = \frac{1}{HW} \sum_{p} x_c(p), \qquad
# g = \mathrm{sigmoid}\big(W_2 \, \mathrm{SiLU}(W_1 z + b_1) + b_2\big), \qquad
# y_c(p) = g_c \, x_c(p) .$$
#
# *Squeeze*: one number a channel, `[B, C]`. *Excite*: two linear layers, through a hidden one with
# fewer units, give a **gate** between 0 and 1 for each channel, which multiplies all its pixels. It knows
# how much there is of everything, and not where; it can weaken a channel, but not change its signs.
# $\mathrm{SiLU}(a) = a \cdot \mathrm{sigmoid}(a)$ is `nn.SiLU()`. (The article has a ReLU there; timm's
# `coatnet_0_224` has SiLU.)
#
# ### Exercise 3 · Squeeze-and-excitation (15 min, ★★☆)
#
# Both linear layers have biases.
#
# <details><summary>Hint 1: squeeze</summary>
#
# `x.mean(dim=(2, 3))` is `[B, C]`, the mean over height and width.
# </details>
#
# <details><summary>Hint 2: excite</summary>
#
# `nn.Linear(channels, hidden_channels)`, `nn.SiLU()`, `nn.Linear(hidden_channels, channels)`,
# `nn.Sigmoid()`, for instance in a `nn.Sequential`.
# </details>
#
# <details><summary>Hint 3: multiply</summary>
#
# `gates[:, :, None, None]` is `[B, C, 1, 1]`, which stretches over all pixels.
# </details>


# %% tags=["exercise"]
class SqueezeExcite(nn.Module):
    """[B, C, H, W] -> [B, C, H, W], each channel times its gate"""

    def __init__(self, channels, hidden_channels):
        super().__init__()
        # TODO: two linear layers, channels -> hidden_channels -> channels, with SiLU between them
        # and a sigmoid behind
        ### BEGIN SOLUTION
        self.gate = nn.Sequential(
            nn.Linear(channels, hidden_channels),
            nn.SiLU(),
            nn.Linear(hidden_channels, channels),
            nn.Sigmoid(),
        )
        ### END SOLUTION

    def forward(self, x):
        # TODO: the mean of each channel, its gate, and x times the gate
        ### BEGIN SOLUTION
        means = x.mean(dim=(2, 3))  # [B, C]
        gates = self.gate(means)  # [B, C]
        return x * gates[:, :, None, None]  # [B, C, H, W]
        ### END SOLUTION


# %% tags=["check"]
check.squeeze_excite(SqueezeExcite)

# %% [markdown]
# ## 3 · The block
#
# Now put the halves together. Inside, MBConv is 4 times as wide as its output: depthwise
# convolutions are cheap, so let there be many. Then it shrinks again:
#
# | step | channels |
# |---|---|
# | BatchNorm | `in_channels` |
# | 1 x 1 convolution (no bias), BatchNorm, GELU | `4 * out_channels` |
# | depthwise 3 x 3 (no bias) **with the stride**, BatchNorm, GELU | `4 * out_channels` |
# | squeeze-excite, hidden width `out_channels // 4` | `4 * out_channels` |
# | 1 x 1 convolution (with bias), nothing behind it | `out_channels` |
#
# All of this is the *branch*. It is added to a *shortcut*, as in a ViT's blocks:
#
# $$y = \mathrm{Shortcut}(x) + \mathrm{Branch}(x) .$$
#
# Three things to note.
#
# - **Wide inside, thin outside.** A ResNet's bottleneck is the other way round; hence *inverted*. The
#   shortcut carries the thin tensor.
# - **Norm first.** The first thing in the branch is a norm, on its way in, so that the shortcut stays
#   untouched from block to block, as in the ViT. The last convolution has neither norm nor activation
#   behind it: what is added should be free to have any sign and size.
# - **The expansion counts from the output channels**, as in timm's `coatnet_0_224`. Others count from
#   the input channels; where a block doubles the channels, theirs is half as wide inside.
#
# With stride 1 the shortcut is $x$ itself, and the numbers of channels are equal. With stride 2 it has
# to shrink the image: the **mean** of each 2 x 2 pixels, then, *if the number of channels changes*, a
# 1 x 1 convolution (with bias) that projects it. An image 7 pixels wide is 4 pixels wide behind the
# depthwise convolution, $\lceil 7/2 \rceil$, but 3 behind a 2 x 2 pooling, unless that one is told to
# round up as well: `nn.AvgPool2d(2, ceil_mode=True)`. At the border it then takes the mean of the pixels
# that exist. With 56-pixel images this happens, 7 = 56 / 8.
#
# ### Exercise 4 · MBConv (25 min, ★★★)
#
# Build the branch, step by step as in the table, and the shortcut, for stride 1 and for stride 2; return
# their sum.
#
# <details><summary>Hint 1: the branch</summary>
#
# A `nn.Sequential` of nine layers, in the order of the table. Your `SqueezeExcite` is one of them,
# your `DepthwiseConv` another.
# </details>
#
# <details><summary>Hint 2: the shortcut</summary>
#
# Start from `nn.Identity()`. If `stride == 2`, put `nn.AvgPool2d(2, ceil_mode=True)` in its place;
# if moreover `in_channels != out_channels`, a `nn.Sequential` of it and
# `nn.Conv2d(in_channels, out_channels, 1)`.
# </details>
#
# <details><summary>Hint 3: the widths</summary>
#
# `hidden = 4 * out_channels`; `SqueezeExcite(hidden, out_channels // 4)`.
# </details>


# %% tags=["exercise"]
class MBConv(nn.Module):
    """[B, in_channels, H, W] -> [B, out_channels, H/stride, W/stride], rounded up; stride 1 or 2"""

    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        # TODO: the shortcut: nothing for stride 1; for stride 2 means of 2x2 pixels, rounding up,
        # and a 1x1 convolution if the number of channels changes
        # TODO: the branch, step by step as in the table
        ### BEGIN SOLUTION
        hidden = 4 * out_channels
        self.shortcut = nn.Sequential()
        if stride == 2:
            self.shortcut.append(nn.AvgPool2d(2, ceil_mode=True))
            if in_channels != out_channels:
                self.shortcut.append(nn.Conv2d(in_channels, out_channels, 1))
        self.branch = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, hidden, 1, bias=False),  # [B, hidden, H, W]
            nn.BatchNorm2d(hidden),
            nn.GELU(),
            DepthwiseConv(hidden, stride),  # [B, hidden, H/stride, W/stride]
            nn.BatchNorm2d(hidden),
            nn.GELU(),
            SqueezeExcite(hidden, out_channels // 4),
            nn.Conv2d(hidden, out_channels, 1),  # [B, out_channels, H/stride, W/stride]
        )
        ### END SOLUTION

    def forward(self, x):
        # TODO: the shortcut plus the branch
        ### BEGIN SOLUTION
        return self.shortcut(x) + self.branch(x)
        ### END SOLUTION


# %% tags=["check"]
check.mbconv(MBConv)

# %% [markdown]
# Has it become cheaper, then? Compare it with a plain 3 x 3 convolution between the same channels, and
# with one that is as wide as MBConv is inside.

# %%
for C in (64, 768):
    print(f"C = {C}")
    for name, layer in (
        ("plain 3x3, C wide", nn.Conv2d(C, C, 3, bias=False)),
        ("MBConv, 4C wide inside", yours(MBConv)(C, C)),
        ("plain 3x3, 4C wide", nn.Conv2d(4 * C, 4 * C, 3, bias=False, device="meta")),
    ):
        print(f"  {name:22}: {sum(p.numel() for p in layer.parameters()):10,} parameters")

# %% [markdown]
# Not cheaper: for the price of one plain convolution you get a layer that is four times as wide where it
# looks around. A plain one of that width would cost fourteen times as much.
#
# ## 4 · The same block in timm
#
# [timm](https://github.com/huggingface/pytorch-image-models) is the library of vision models that
# most people use. Take an MBConv out of its CoAtNet-0, draw all its weights at random, put them into
# yours, and compare. `take_weights` finds out which belongs where, so that names and order do not matter.

# %%
torch.manual_seed(0)
theirs = timm.create_model("coatnet_0_224", depths=(2, 1, 1, 1)).stages[0].blocks.eval()
x = torch.randn(2, 64, 30, 44)  # [B, C, H, W]
for block, arguments in ((theirs[0], (64, 96, 2)), (theirs[1], (96, 96, 1))):
    for name, tensor in block.state_dict().items():  # BatchNorm's statistics are in it, too
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.is_floating_point():
            tensor.normal_(std=0.2)
    mine = yours(MBConv)(*arguments).eval()
    take_weights(mine, block, x)
    with torch.no_grad():
        expected, came = block(x), mine(x)
    difference = (came - expected).abs().max() / expected.abs().max()
    print(f"MBConv{arguments}: {list(came.shape)}, equal to 1e-5: {difference < 1e-5}")
    x = expected

# %% [markdown]
# You wrote the same block as the library. In one point yours does better. timm's pooling rounds odd
# sizes down where its convolution rounds them up:

# %%
odd = torch.randn(1, 64, 45, 45)
print("yours:", list(yours(MBConv)(64, 96, 2)(odd).shape))
try:
    theirs[0](odd)
except RuntimeError as error:
    print("timm: ", error)

# %% [markdown]
# The paper's block differs from timm's, and so from yours, in two details (appendix A.1): it puts the
# stride into the *first* 1 x 1 convolution, which then never sees three pixels of four, and its
# shortcut takes the maximum of the pixels, not the mean. The first is also the paper's second thought:
# with the stride in the depthwise convolution CoAtNet-0 got 82.0 % on ImageNet instead of 81.6 %.
#
# ## 5 · What squeeze-excite switches off
#
# Gates are worth a look once they have learned something. Here is a small network of three MBConv
# blocks, the reference's, which compute what yours do: so everybody starts from the same weights and gets
# the same picture. It takes 200 steps on the textures and shapes of lesson 1.

# %% tags=["nbval-ignore-output"]
torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(3, 16, 3, stride=2, padding=1),  # [B, 16, 28, 28]
    coatnet.MBConv(16, 24, stride=2),  # [B, 24, 14, 14]
    coatnet.MBConv(24, 24),
    coatnet.MBConv(24, 48, stride=2),  # [B, 48, 7, 7]
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(48, 100),
)
if FULL:
    training.estimate(model, train, epochs=20)
    training.fit(model, train, test, epochs=20, lr=2e-3)
else:
    training.fit(model, train, test, steps=200, lr=2e-3)

# %% [markdown]
# Now the gates of its second block, 96 channels, for every test image. A gate of 0 switches a channel
# off, 1 lets it pass. We catch them where they are applied: an image's output of squeeze-excite divided
# by its input is the gate.

# %% tags=["nbval-ignore-output"]
gates = []


def catch(module, inputs, output):
    x, y = inputs[0].flatten(2), output.flatten(2)  # [B, C, N]
    gates.append((y.abs().sum(2) / x.abs().sum(2)).detach())  # [B, C]


handle = model[2].squeeze_excite.register_forward_hook(catch)
training.evaluate(model, test)
handle.remove()
gates = torch.cat(gates)  # [2000, 96]
print(f"gates from {gates.min():.2f} to {gates.max():.2f}")

# %% [markdown]
# The figure shows the mean gate for the images of each texture. And what decides a gate: the channel that
# it belongs to, the image's texture, its shape? We ask which share of the gates' variance each explains.

# %% tags=["nbval-ignore-output"]
textures, shapes = ShapeTexture100.texture_of(test.targets), ShapeTexture100.shape_of(test.targets)
by_texture, by_shape = (
    torch.stack([gates[kinds == k].mean(dim=0) for k in range(10)]) for kinds in (textures, shapes)
)  # [10, 96] each
channels = gates.mean(dim=0)  # [96]
rest = (gates - channels).square().mean()  # what the channel does not explain
shares = [(means - channels).square().mean() / rest for means in (by_texture, by_shape)]
print(f"the channel decides {1 - rest / gates.var():.0%} of the variance;")
print(f"of the rest, the texture decides {shares[0]:.0%} and the shape {shares[1]:.0%}")

order = by_texture.std(dim=0).argsort(descending=True)
figure, axis = plt.subplots(figsize=(10, 3), layout="constrained")
picture = axis.imshow(by_texture[:, order], cmap="viridis", vmin=0, vmax=1, aspect="auto")
axis.set_yticks(range(10), ShapeTexture100.TEXTURES)
axis.set_xlabel("channel, those that differ most between textures first")
figure.colorbar(picture, ax=axis, label="mean gate")

# %% [markdown]
# From left to right the colours differ much more than from top to bottom: some channels pass whatever the
# image shows, others are held back, and that explains most of the variance. But most of what is left is
# decided by the texture. So the whole image does have a say in what is looked at. Its shape has hardly
# any: a mean over all pixels knows what there is, and not where.
#
# ## What you have now
#
# - `DepthwiseConv`, `SqueezeExcite` and `MBConv`, equal to those in [`coatnet/mbconv.py`](../coatnet/mbconv.py) and to timm's
# - a feeling for what is cheap: looking around costs $9C$, mixing channels $C^2$, both at once $9C^2$
# - a shortcut that halves an image of any size
#
# ## Questions
#
# <details><summary>1. You shuffle the pixels of an image, in all channels alike, and shuffle MBConv's output
# (stride 1) back. Which of its layers notice?</summary>
#
# Only the depthwise convolution. BatchNorm, GELU and the 1 x 1 convolutions work on each pixel by itself, and
# squeeze-excite sees means, which do not change.
# </details>
#
# <details><summary>2. A depthwise 3 x 3 convolution, then a 1 x 1 convolution, nothing in between. Can the two
# together do everything that one plain 3 x 3 convolution can?</summary>
#
# No. All kernels through which the outputs see input channel $c$ are then multiples of one and the same
# 3 x 3 kernel. MBConv first makes $4C$ channels, so that what was one channel can be looked at through
# many kernels.
# </details>
#
# <details><summary>3. A block has stride 2 and as many output channels as input channels. How many parameters
# more than with stride 1 does it have?</summary>
#
# None. Pooling has no parameters, the stride does not change a kernel, and where the number of channels
# stays the shortcut needs no projection.
# </details>
#
# <details><summary>4. You set the weights and the bias of the last convolution to zero. What does the block
# return, and what does it learn in the next step?</summary>
#
# The shortcut alone, with stride 1 the input itself. In the next step only that last convolution learns:
# every other layer of the branch gets its gradient through it, and that is zero. From the second step on
# all of them learn.
# </details>
#
# <details><summary>5. In one image a channel is zero at every pixel. What does squeeze-excite make of it, and
# does the channel still matter to others?</summary>
#
# It stays zero: a gate multiplies. But its mean, 0, goes into the gates of all others, and there a 0
# says something: what this channel looks for is not in the image.
# </details>
#
# MBConv weighs its neighbours by *where* they are: nine fixed weights, whatever the image shows.
# Attention weighs by *what* is there, wherever it is. In lesson 4 you add the two up, in one softmax:
# **relative attention**.
