# %% [markdown]
# # Lesson 3 · MBConv
#
# The stem of lesson 2 uses plain convolutions, in which every output channel looks at every input
# channel through nine weights. With 64 channels that is affordable, with 768 it is not. In this
# lesson you split the work in two, looking around and mixing channels, and build from the halves the
# block of CoAtNet's first stages: **MBConv**, the inverted bottleneck of MobileNetV2 (Sandler et al.,
# [arXiv 1801.04381](https://arxiv.org/abs/1801.04381)).
#
# You need `nn.Conv2d`, `nn.BatchNorm2d` and lesson 2's stem. Plan on **75 minutes**.

# %%
FULL = False  # True: the network of section 5 trains for 20 epochs (it says how long that takes)

import time

import matplotlib.pyplot as plt
import timm
import torch
from torch import nn

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
# Is each channel really alone? Change one input channel, and see which output channels move. Dark
# means that nothing changed.

# %%
torch.manual_seed(0)
layers = {"plain": nn.Conv2d(8, 8, 3, padding=1), "depthwise": yours(DepthwiseConv)(8)}
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
x = torch.randn(1, 8, 12, 12)
for axis, (name, layer) in zip(axes, layers.items()):
    moved = torch.zeros(8, 8)
    for c in range(8):
        changed = x.clone()
        changed[:, c] += 1
        moved[:, c] = (layer(changed) - layer(x)).detach().abs().mean(dim=(0, 2, 3))
    picture = axis.imshow(moved, cmap="viridis", vmin=0)
    axis.set(xlabel="input channel that was changed", ylabel="output channel")
    axis.set_title(f"{name}: {sum(p.numel() for p in layer.parameters())} parameters")
    figure.colorbar(picture, ax=axis, label="mean change")

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
# own. Here all three channels hold the same grey image. A network learns such kernels by itself.

# %%
grey = train.images[34].float().mean(dim=0) / 255  # [56, 56]
kernels = {
    "blur": [[1, 2, 1], [2, 4, 2], [1, 2, 1]],
    "horizontal edges": [[1, 2, 1], [0, 0, 0], [-1, -2, -1]],
    "vertical edges": [[1, 0, -1], [2, 0, -2], [1, 0, -1]],
}
weight = torch.tensor(list(kernels.values())).float()[:, None] / 8  # [3, 1, 3, 3]
outputs = yours(depthwise_by_hand)(grey.expand(1, 3, -1, -1), weight)[0]  # [3, 56, 56]
figure, axes = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained")
axes[0].imshow(grey, cmap="gray")
axes[0].set_title("image")
for axis, name, output in zip(axes[1:], kernels, outputs):
    limit = output.abs().max()
    lowest = 0 if name == "blur" else -limit
    axis.imshow(output, cmap="gray" if name == "blur" else "PuOr", vmin=lowest, vmax=limit)
    axis.set_title(name)
for axis in axes:
    axis.set_axis_off()

# %% [markdown]
# Fewer multiplications do not save time in proportion, because a depthwise layer has little to
# compute for each number that it fetches from memory. Let us measure. (The milliseconds are this
# machine's.)


# %% tags=["nbval-ignore-output"]
def milliseconds(layer, x, repeats=10):
    with torch.no_grad():
        layer(x)  # the first call warms up
        started = time.perf_counter()
        for _ in range(repeats):
            layer(x)
    return (time.perf_counter() - started) / repeats * 1e3


x = torch.randn(8, 256, 28, 28).to(memory_format=torch.channels_last)
layers = {
    "plain 3x3": nn.Conv2d(256, 256, 3, padding=1, bias=False),
    "depthwise 3x3": yours(DepthwiseConv)(256),
    "1x1": nn.Conv2d(256, 256, 1, bias=False),
}
for name, layer in layers.items():
    count = sum(p.numel() for p in layer.parameters())
    ms = milliseconds(layer.to(memory_format=torch.channels_last), x)
    multiplications = count * 8 * 28 * 28 / 1e6
    print(f"{name:13}: {count:7,} weights, {multiplications:5.0f} M multiplications, {ms:5.2f} ms")

# %% [markdown]
# 256 times fewer multiplications do not make the depthwise layer 256 times as fast, but it costs
# much less than the plain one, and so does the 1 x 1 convolution that mixes the channels.
#
# ### How far one sees
#
# A 3 x 3 kernel sees one pixel further in each direction. $n$ such layers see
# $2n + 1$ pixels: 3, 5, 7, 9. That grows slowly. With stride 2, every step of the next layer is
# twice as long, and $n$ layers see $2^{n+1} - 1$ pixels: 3, 7, 15, 31. As in lesson 2 we ask the
# gradient of one output pixel which input pixels can change it.


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
# Depthwise convolutions are blind for what happens far away. Squeeze-and-excitation (Hu et al.,
# [arXiv 1709.01507](https://arxiv.org/abs/1709.01507)) lets the whole image have a say, cheaply: it
# turns each channel up or down, depending on the means of all channels.
#
# $$z_c = \frac{1}{HW} \sum_{p} x_c(p), \qquad
# g = \mathrm{sigmoid}\big(W_2 \, \mathrm{SiLU}(W_1 z + b_1) + b_2\big), \qquad
# y_c(p) = g_c \, x_c(p) .$$
#
# *Squeeze*: one number a channel, `[B, C]`. *Excite*: two linear layers, through a hidden one with
# fewer units, give a **gate** between 0 and 1 for each channel, which multiplies all its pixels.
# $\mathrm{SiLU}(a) = a \cdot \mathrm{sigmoid}(a)$ is `nn.SiLU()`. (The article has a ReLU there; timm's
# CoAtNets have SiLU.)
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
# - **The expansion counts from the output channels.** Many rewrites take the input channels, and end
#   with 17.8 M parameters for CoAtNet-0 instead of 25 M.
#
# With stride 1 the shortcut is $x$ itself, and the numbers of channels are equal. With stride 2 it has
# to shrink the image: the **mean** of each 2 x 2 pixels, then, *if the number of channels changes*, a
# 1 x 1 convolution (with bias) that projects it. An image of 7 pixels becomes 4 in the
# depthwise convolution, $\lceil 7/2 \rceil$, but 3 in a 2 x 2 pooling, unless that one is told to
# round up as well: `nn.AvgPool2d(2, ceil_mode=True)`. With 56-pixel images this happens, 7 = 56 / 8.
#
# ### Exercise 4 · MBConv (30 min, ★★★)
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
# ## 4 · The same block in timm
#
# [timm](https://github.com/huggingface/pytorch-image-models) is the library of vision models that
# most people use. Take an MBConv out of its CoAtNet-0, draw all its weights at random, put them into
# yours, and compare. `take_weights` copies them by shape and order, so that names do not matter.

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
    take_weights(mine, block)
    with torch.no_grad():
        expected, came = block(x), mine(x)
    difference = (came - expected).abs().max() / expected.abs().max()
    print(f"MBConv{arguments}: {list(came.shape)}, equal to 1e-5: {difference < 1e-5}")
    x = expected

# %% [markdown]
# You wrote the same block as the library. In one point yours does better: timm's pooling rounds odd
# sizes down where its convolution rounds them up, so that an image of 45 pixels breaks it.
#
# The paper's block differs from timm's, and so from yours, in two details (appendix A.1): it puts the
# stride into the *first* 1 x 1 convolution, which then never sees three pixels of four, and its
# shortcut takes the maximum of the pixels, not the mean.
#
# ## 5 · What squeeze-excite switches off
#
# Gates are worth a look once they have learned something. Here is a small network of three MBConv
# blocks. It trains for a few seconds on the textures and shapes of lesson 1.

# %% tags=["nbval-ignore-output"]
torch.manual_seed(0)
Block = yours(MBConv)
model = nn.Sequential(
    nn.Conv2d(3, 16, 3, stride=2, padding=1),  # [B, 16, 28, 28]
    Block(16, 24, stride=2),  # [B, 24, 14, 14]
    Block(24, 24),
    Block(24, 48, stride=2),  # [B, 48, 7, 7]
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
# Now the gates of its second block, 96 channels, averaged over the test images of each texture. A gate
# of 0 switches a channel off, 1 lets it pass. We catch them where they are applied: an image's output of
# squeeze-excite divided by its input is the gate.

# %% tags=["nbval-ignore-output"]
excite = next(m for m in model[2].modules() if type(m).__name__ == "SqueezeExcite")
gates = []


def catch(module, inputs, output):
    x, y = inputs[0].flatten(2), output.flatten(2)  # [B, C, N]
    gates.append((y.abs().sum(2) / x.abs().sum(2)).detach())  # [B, C]


handle = excite.register_forward_hook(catch)
training.evaluate(model, test)
handle.remove()
gates = torch.cat(gates)  # [2000, 96]
textures = ShapeTexture100.texture_of(test.targets)
means = torch.stack([gates[textures == t].mean(dim=0) for t in range(10)])  # [10, 96]
spread = means.std(dim=0)
means = means[:, spread.argsort(descending=True)]  # the channels that differ most come first
figure, axis = plt.subplots(figsize=(10, 3), layout="constrained")
picture = axis.imshow(means, cmap="viridis", vmin=0, vmax=1, aspect="auto")
axis.set_yticks(range(10), ShapeTexture100.TEXTURES)
axis.set(xlabel="channel, those that differ most between textures first", title="mean gate")
figure.colorbar(picture, ax=axis)
print(
    f"gates from {gates.min():.2f} to {gates.max():.2f}; half of them lie between "
    f"{gates.quantile(0.25):.2f} and {gates.quantile(0.75):.2f}"
)

# %% [markdown]
# Nothing is off for good or on for good, and most columns have nearly one colour from top to bottom:
# after so short a training the gate depends on the channel more than on the texture. But not all do.
# Two rows stand out, *dots* and *plain*: on the right of the first third, dots turn down channels that
# everything else leaves open, and further left plain discs turn down what the patterns use. So the
# whole image does have a say in what is looked at.
#
# ## What you have now
#
# - `DepthwiseConv`, `SqueezeExcite` and `MBConv`, equal to those in [`coatnet/mbconv.py`](../coatnet/mbconv.py) and to timm's
# - a feeling for what is cheap: looking around costs $9C$, mixing channels $C^2$, both at once $9C^2$
# - a shortcut that halves an image of any size
#
# MBConv weighs its neighbours by *where* they are: nine fixed weights, whatever the image shows.
# Attention weighs by *what* is there, wherever it is. In lesson 4 you add the two up, in one softmax:
# **relative attention**.
