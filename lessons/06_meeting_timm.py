# %% [markdown]
# # Lesson 6 · Meeting timm
#
# [timm](https://github.com/huggingface/pytorch-image-models) is where most people get their image models
# from, weights included. In this lesson you read its CoAtNet, move its weights into the one you know, and
# prove with numbers that both compute the same. At the end, weights that were trained on ImageNet name
# what is on a photograph of yours, in classes that you typed yourself.
#
# You need lessons 3 to 5, or at least their blocks, which are imported below. Plan on **90 minutes**: 70 for
# the exercises, 20 to read and to look.

# %%
FULL = False  # nothing in this lesson trains, so that True changes nothing

import copy
import time
from dataclasses import replace

import matplotlib.pyplot as plt
import timm
import torch
from torch import nn

from coatnet import (
    CONFIGS,
    CoAtNet,
    CoAtNetConfig,
    Head,
    LayerNorm2d,
    SqueezeExcite,
    Stem,
    TransformerBlock,
    fetch,
    halved,
    make_pool,
    make_shortcut,
)
from course import plots
from course.checking import yours
from course.checks import lesson06 as check
from course.comparing import randomise

# %% [markdown]
# ## 1 · Reading somebody else's model
#
# What does timm have under the name of CoAtNet?

# %%
names = timm.list_models("coatnet*")
for first in range(0, len(names), 3):
    print("".join(f"{name:28}" for name in names[first : first + 3]))

# %% [markdown]
# `coatnet_0_224` to `coatnet_5_224` have the paper's sizes. The `_rw` models are variations by timm's author, Ross
# Wightman, and those are the ones he trained. We begin with the smallest of the paper's. Printing a model
# shows its layers in the order in which they were defined; here is the first block of S1. Read it from top to
# bottom, with your own MBConv in mind:

# %%
theirs = timm.create_model("coatnet_0_224").eval()
print(theirs.stages[0].blocks[0])

# %% [markdown]
# It is the block of lesson 3. timm packs a norm and the activation behind it into one layer,
# `BatchNormAct2d`: its `act` is a GELU twice, and nothing in `pre_norm`. `se` uses 1 x 1 convolutions where
# you have `nn.Linear`. And so that the next block holds no surprise: `LayerNorm2d` and the `down` behind it
# sit together in a `Sequential` called `norm1`.

# %%
print(theirs.stages[2].blocks[0])

# %% [markdown]
# What a printed model does *not* show is its `forward`, and that is where you have to open the source. In Jupyter
# `timm.models.maxxvit.MbConvBlock??` in a cell of its own shows it, and `timm.models.maxxvit.__file__` says where the
# file is. Here is what one finds there, beside the paper and this course:
#
# | | paper | `coatnet_0_224` and yours |
# |---|---|---|
# | pooling in shortcuts, and before attention | maximum, kernel not said | mean of 2 x 2 |
# | stride of MBConv | in the first 1 x 1 convolution; found better later: in the depthwise one | in the depthwise one |
# | MBConv's inside | 4 times the channels | 4 times the **output's** channels |
# | Q, K, V | not said | one 1 x 1 convolution, head by head |
# | attention heads | 32 channels, in CoAtNet-5 64 | 32 channels, in all sizes |
# | odd sizes | not said | timm rounds down when pooling; yours rounds up |
# | head | mean, then a linear layer | mean, LayerNorm, a tanh layer, a linear layer |
#
# ## 2 · Names
#
# A `state_dict` is a dictionary: a name, and a tensor. timm's names and ours come in the same order, so that
# we can read them side by side: the stem, an MBConv, a transformer block, the head. Where a shape differs, ours stands
# behind an arrow. (What stands above the stages, the stem and, in `_rw` models, a `norm`, has the same names in both.)

# %%
ours = CoAtNet(CoAtNetConfig())
pairs = list(zip(theirs.named_parameters(), ours.named_parameters(), strict=True))
for prefix, our_prefix in (
    ("stem.", "stem."),
    ("stages.0.blocks.0.", "stages.0.0."),
    ("stages.2.blocks.0.", "stages.2.0."),
    ("head.", "head."),
):
    print(f"\n{prefix + '*':42}{our_prefix}*")
    for (name, their_tensor), (our_name, our_tensor) in pairs:
        if name.startswith(prefix):
            shape, our_shape = list(their_tensor.shape), list(our_tensor.shape)
            change = "" if shape == our_shape else f" -> {our_shape}"
            name, our_name = name.removeprefix(prefix), our_name.removeprefix(our_prefix)
            print(f"{name:42}{our_name:30}{shape}{change}")

# %% [markdown]
# ### Exercise 1 · Names (10 min, ★☆☆)
#
# Write the function that makes our name from timm's. The `_rw` models, later on, have one word more: where
# squeeze-excite comes early, timm calls it `se_early` instead of `se`. We don't. Names that are equal already stay
# as they are, and so do those of buffers such as `running_mean`.
#
# <details><summary>Hint 1: how</summary>
#
# A dictionary from what timm writes to what we write, and a loop with `name = name.replace(old, new)`. Include the
# dots around a word, so that you do not change a part of a longer one.
# </details>
#
# <details><summary>Hint 2: in which order</summary>
#
# `expand` means a projection in timm's shortcut, and the first convolution in our MBConv. So replace
# `.shortcut.expand.` as a whole. Likewise `head.pre_logits.fc.` before `head.fc.` can't go wrong, and
# `.se_early.` goes before `.se.`.
# </details>


# %% tags=["exercise"]
def rename(name):
    """timm's name -> ours: "stages.0.blocks.1.conv1_1x1.weight" -> "stages.0.1.expand.weight" """
    # TODO: replace, one after the other, the words that differ
    ### BEGIN SOLUTION
    renames = {
        ".blocks.": ".",
        ".conv1_1x1.": ".expand.",
        ".conv2_kxk.": ".depthwise.",
        ".conv3_1x1.": ".project.",
        ".se_early.": ".se.",
        ".se.fc1.": ".squeeze_excite.squeeze.",
        ".se.fc2.": ".squeeze_excite.excite.",
        ".shortcut.expand.": ".shortcut.proj.",
        ".norm1.norm.": ".norm1.",
        ".attn.rel_pos.relative_position_bias_table": ".attention.position_bias.table",
        ".attn.": ".attention.",
        ".mlp.fc1.": ".feed_forward.0.",
        ".mlp.fc2.": ".feed_forward.3.",
        "head.pre_logits.fc.": "head.hidden.",
        "head.fc.": "head.classifier.",
    }
    for old, new in renames.items():
        name = name.replace(old, new)
    return name
    ### END SOLUTION


# %% tags=["check"]
check.names(rename)

# %% [markdown]
# ## 3 · Weights
#
# With the names settled, look at the arrows above once more. Two kinds of tensors change their shape.
#
# - **Layers of squeeze-excite.** timm has 1 x 1 convolutions, [out, in, 1, 1], where we have linear layers, [out, in]. The
#   numbers and their order are the same, so that a `reshape` is all it takes. All other convolutions keep the shape
#   they have: 1 x 1 ones stay [out, in, 1, 1], depthwise kernels [C, 1, 3, 3].
# - **Bias tables.** timm has a row for each offset and a column for each head, [27 * 27, heads]. Ours has a table
#   for each head, [heads, 27, 27]. `reshape` never moves a number in memory: it would give head 0 the numbers of
#   all heads at the first offsets. A **transpose** comes first, [heads, 27 * 27], and then the reshape.
#
# Nothing would complain if you left it out. That is why the next exercise after this one compares logits.
#
# ### Exercise 2 · Weights (10 min, ★★☆)
#
# `weights` is timm's `state_dict()`, `model` is ours. Return a new dictionary for
# `model.load_state_dict(...)`, buffers included: each tensor under our name and in our shape, tables transposed.
# Leave `weights` as it is.
#
# <details><summary>Hint 1: the shapes wanted</summary>
#
# `shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}`. With our name in hand, every
# tensor can be brought into its shape in the same way.
# </details>
#
# <details><summary>Hint 2: one entry</summary>
#
# A loop over `weights.items()`. In it: our name, from `rename`; a transpose, if it is a table; the shape, from `shapes`.
# </details>
#
# <details><summary>Hint 3: the tables</summary>
#
# `if name.endswith("position_bias.table"): tensor = tensor.T`, and then `tensor.reshape(shapes[name])` for all.
# </details>


# %% tags=["exercise"]
def convert(weights, model):
    """timm's state dict -> the state dict of `model`, with our names and shapes"""
    # TODO: a new dictionary: rename each entry, transpose the tables, give all our shapes
    ### BEGIN SOLUTION
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    converted = {}
    for name, tensor in weights.items():
        name = rename(name)
        if name.endswith("position_bias.table"):
            tensor = tensor.T  # [offsets, heads] -> [heads, offsets]
        converted[name] = tensor.reshape(shapes[name])
    return converted
    ### END SOLUTION


# %% tags=["check"]
check.weights(convert)

# %% [markdown]
# ## 4 · The proof
#
# "Loads without an error" says that names and shapes fit. Whether both models *compute* the same, only numbers
# can say. And not any numbers: fresh models start with zeros in their biases, ones in their norms, small numbers in their bias
# tables, and BatchNorm statistics of 0 and 1. Many mistakes would not show. So `randomise` draws
# **every** parameter and buffer at random, before we compare, and the tables are then drawn once more, as large as
# the scores that they are added to.
#
# By how much may two models differ that are equal? Sums in another order round otherwise, and errors of
# 1e-7 a step pile up over a hundred layers: to some 1e-6 of the largest logit. So we ask for 1e-5. How far mistakes are from
# that you will see in section 5.
#
# ### Exercise 3 · Equal logits (5 min, ★☆☆)
#
# $$\text{difference} = \frac{\max\,|\,y - y^\text{ref}|}{\max\,|y^\text{ref}|}$$
#
# over all images and classes; both models in eval mode, and without gradients. Return a number.
#
# <details><summary>Hint 1: before</summary>
#
# `model.eval()` and `reference.eval()`, then both calls inside `with torch.no_grad():`.
# </details>
#
# <details><summary>Hint 2: after</summary>
#
# `(y - expected).abs().max()`, divided by `expected.abs().max()`; `.item()` makes a number of a tensor.
# </details>


# %% tags=["exercise"]
def largest_difference(model, reference, images):
    """The largest difference of two models' logits, as a share of the reference's largest"""
    # TODO: eval mode, no gradients, the fraction above
    ### BEGIN SOLUTION
    model.eval()
    reference.eval()
    with torch.no_grad():
        y, expected = model(images), reference(images)  # [B, num_classes]
    return ((y - expected).abs().max() / expected.abs().max()).item()
    ### END SOLUTION


# %% tags=["check"]
check.difference(largest_difference)

# %% [markdown]
# Now the whole model, 25 million numbers at random:

# %%
torch.manual_seed(0)
images = torch.randn(2, 3, 224, 224)
randomise(theirs)
for name, tensor in theirs.named_parameters():
    if name.endswith("bias_table"):
        nn.init.normal_(tensor)
difference, translate = yours(largest_difference), yours(convert)
print(f"before: differs by 1e-5 or less: {difference(ours, theirs, images) <= 1e-5}")
ours.load_state_dict(translate(theirs.state_dict(), ours))
print(f"after:  differs by 1e-5 or less: {difference(ours, theirs, images) <= 1e-5}")

# %% [markdown]
# CoAtNet-0 is yours, down to the last digit that counts. There is one disappointment: timm has no trained weights for
# it. These have some:

# %%
published = sorted({name.split(".")[0] for name in timm.list_pretrained("coatnet_*")})
for first in range(0, len(published), 3):
    print("".join(f"{name:28}" for name in published[first : first + 3]))

# %% [markdown]
# ## 5 · Detective work: what `_rw` changes
#
# All of them are `_rw` models. They have the same plan of stem, C, C, T, T and head, but ten and more small decisions
# differ. Some of these leave a trace in the shapes of the weights: a layer that is wider, or a name that is missing.
#
# | setting | what it says | where it shows |
# |---|---|---|
# | `depths` | blocks in S1 to S4 | how many `stages.0.*`, `stages.1.*` ... there are |
# | `expand_output` | MBConv is 4 times as wide as its *output*, not its input | a first block, where channels change |
# | `attend_output` | attention is as wide as its *output*, not its input | `qkv` of a first block |
# | `conv_bias` | MBConv's last convolution has a bias | a name that is there or not |
# | `shortcut_bias` | so has the transformer block's shortcut | likewise |
# | `mlp_head` | the head has its tanh layer | likewise |
#
# ### Exercise 4 · Settings from shapes (15 min, ★★☆)
#
# `shapes` goes from **our** names to shapes, as tuples, of a model with C-C-T-T. Return the six settings as a
# dictionary: `depths` a tuple of four numbers, the others True or False. In every one of these models S2 has twice
# the channels of S1, S4 twice those of S3; a stage may have one block only.
#
# <details><summary>Hint 1: width of the expansion</summary>
#
# `hidden, channels = shapes["stages.1.0.expand.weight"][:2]` is how wide the block is inside, and its input.
# Is `hidden` 4 times `channels`, or 4 times `shapes["stages.1.0.project.weight"][0]`, its output?
# </details>
#
# <details><summary>Hint 2: width of attention</summary>
#
# `qkv.weight` is [3 * width, input]. In `stages.3.0`, is `width` the input or twice the input?
# </details>
#
# <details><summary>Hint 3: depths</summary>
#
# `{name.split(".")[2] for name in shapes if name.startswith("stages.0.")}` are the numbers of S1's blocks.
# </details>


# %% tags=["exercise"]
def read_settings(shapes):
    """Settings of a CoAtNet from its weights' shapes: {"depths": (2, 3, 5, 2), ...}, six entries"""
    # TODO: depths, expand_output, attend_output, conv_bias, shortcut_bias, mlp_head
    ### BEGIN SOLUTION
    depths = []
    for stage in range(4):
        names = [name for name in shapes if name.startswith(f"stages.{stage}.")]
        depths.append(len({name.split(".")[2] for name in names}))
    hidden = shapes["stages.1.0.expand.weight"][0]
    output = shapes["stages.1.0.project.weight"][0]
    three_widths, channels = shapes["stages.3.0.attention.qkv.weight"][:2]
    return {
        "depths": tuple(depths),
        "expand_output": hidden == 4 * output,
        "attend_output": three_widths != 3 * channels,
        "conv_bias": "stages.1.0.project.bias" in shapes,
        "shortcut_bias": "stages.3.0.shortcut.proj.bias" in shapes,
        "mlp_head": "head.hidden.weight" in shapes,
    }
    ### END SOLUTION


# %% tags=["check"]
check.settings(read_settings)

# %% [markdown]
# Three suspects, on the meta device from lesson 5, where models have shapes and no memory:

# %%
read, ours_of = yours(read_settings), yours(rename)
suspects = ("coatnet_0_224", "coatnet_0_rw_224", "coatnet_nano_rw_224")
found = []
for name in suspects:
    with torch.device("meta"):
        state = timm.create_model(name).state_dict()
    found.append(read({ours_of(key): tuple(value.shape) for key, value in state.items()}))
print(f"{'':15}" + "".join(f"{name:22}" for name in suspects))
for setting in found[0]:
    print(f"{setting:15}" + "".join(f"{answers[setting]!s:22}" for answers in found))

# %% [markdown]
# And what leaves no trace? An activation has no weights, nor has a pooling layer, and the order of two layers does
# not change their shapes. (Squeeze-excite before the norm is called `se_early` in timm's names, but not in ours.) Mistakes of the
# conversion leave no trace either, as long as the shapes fit. So take CoAtNet-0 with its random weights and make one mistake
# at a time, five in the weights and seven in the model. Everything loads. What comes out?


# %%
def mistaken(weights, mistake):
    """A state dict of CoAtNet-0 that was converted with a mistake, and that loads all the same"""
    result = dict(weights)
    for name, tensor in weights.items():
        if mistake == "tables not transposed" and name.endswith("table"):
            result[name] = tensor.flatten(1).T.reshape(tensor.shape)
        if mistake == "rows and columns of tables swapped" and name.endswith("table"):
            result[name] = tensor.transpose(1, 2)
        if mistake == "tables left out (strict=False)" and name.endswith("table"):
            result[name] = 0.02 * torch.randn(tensor.shape)
        if mistake == "Q, K, V not head by head" and ".qkv." in name:
            result[name] = tensor.unflatten(0, (3, -1, 32)).transpose(0, 1).flatten(0, 2)
        if mistake == "norm1 and norm2 of MBConv swapped" and name.startswith(
            ("stages.0", "stages.1")
        ):
            swapped = {"norm1": "norm2", "norm2": "norm1"}
            result[name] = weights[".".join(swapped.get(word, word) for word in name.split("."))]
    return result


# %%
WEIGHTS = (
    "tables not transposed",
    "rows and columns of tables swapped",
    "tables left out (strict=False)",
    "Q, K, V not head by head",
    "norm1 and norm2 of MBConv swapped",
)
MODELS = {
    "tanh's GELU in the feed-forward layers": {},
    "SiLU instead of GELU": {"activation": "silu"},
    "an activation after the first norm": {"pre_activation": True},
    "stride by pooling": {"stride_in": "pool"},
    "squeeze-excite before the norm": {"excite_first": True},
    "ReLU inside squeeze-excite": {"excite_activation": "relu"},
    "pooling by maximum": {"pool": "max"},
}
weights, shares = ours.state_dict(), {}
for mistake in WEIGHTS:
    other = CoAtNet(CoAtNetConfig())
    other.load_state_dict(mistaken(weights, mistake))
    shares[mistake] = difference(other, ours, images[:1])
for mistake, options in MODELS.items():
    other = CoAtNet(replace(CoAtNetConfig(), **options))
    other.load_state_dict(weights)
    if not options:
        for layer in (m for m in other.stages[2:].modules() if isinstance(m, nn.GELU)):
            layer.approximate = "tanh"
    shares[mistake] = difference(other, ours, images[:1])

# %%
figure, axis = plt.subplots(figsize=(9, 4.4), layout="constrained")
colours = [plots.COLOURS[1]] * len(WEIGHTS) + [plots.COLOURS[0]] * len(MODELS)
bars = axis.barh(list(shares), list(shares.values()), color=colours)
labels = [f"{100 * share:.{0 if share > 0.01 else 4}f} %" for share in shares.values()]
axis.bar_label(bars, labels, padding=3)
axis.axvline(1e-5, color="black", linestyle=":", label="our bound")
axis.legend(loc="upper right")
axis.set(
    xscale="log", xlim=(1e-6, 100), xlabel="largest difference, as a share of the largest logit"
)
axis.set_title(
    "mistakes that load: of the conversion (top five), in the model (below)", fontsize=10
)
axis.invert_yaxis()
axis.spines[["right", "top"]].set_visible(False)

# %% [markdown]
# Not one error message, and all the same none of them is right. Wrong tables move the logits by a thousandth or so of the largest:
# little to look at, and a hundred times our bound. All others change them by a twentieth of the largest logit and more, all but one:
# tanh's approximation of GELU, close as it is, stays near our bound, and a bound of 1e-4 would let it pass. There the proof by
# numbers ends, and the source has to be read.
#
# So *shapes* tell you what they can, the printed layers a little more, and the rest is in the source. Here is the full
# list for the two models that you will build. Each column is a `CoAtNetConfig`:
#
# | field | `coatnet_0_224` | `coatnet_nano_rw_224` | `coatnet_0_rw_224` |
# |---|---|---|---|
# | `expand_output` | True | False | False |
# | `attend_output` | True | False | False |
# | `mlp_head` | True | False | False |
# | `activation` | "gelu" | "silu" | "silu" |
# | `stride_in` | "depthwise" | "pool" | "pool" |
# | `conv_bias` | True | True | **False** |
# | `shortcut_bias` | True | True | **False** |
# | `pre_activation` | False | False | **True** |
# | `excite_first` | False | False | **True** |
# | `excite_activation` | "silu" | "silu" | **"relu"** |
#
# ## 6 · MBConv, the `_rw` way
#
# Follow the image through the block, [B, in_channels, H, W]:
#
# 1. `pre_norm`, a BatchNorm; then SiLU, if `config.pre_activation`
# 2. with stride 2, `make_pool("avg")`: the **image** is halved here, not in the depthwise convolution
# 3. `expand` to 4 times the **input's** channels, `norm1`, SiLU
# 4. `depthwise`, 3 x 3, always with stride 1
# 5. `norm2`, SiLU and then `squeeze_excite`; but `squeeze_excite` first, if `config.excite_first`
# 6. `project` to `out_channels`, with a bias if `config.conv_bias`
#
# and the shortcut is added. As before, `expand` and `depthwise` have no bias. Squeeze-excite's hidden layer has a
# quarter of the **inside's** width, so as many units as the block has input channels.
#
# Two of the published models are made of just this: `coatnet_nano_rw_224` and `coatnet_0_rw_224`. The others have their stride
# in the depthwise convolution, BatchNorm in their transformer blocks, an MLP in place of the bias table, or a learned
# factor on each branch. The reference has all of that.
#
# ### Exercise 5 · MBConv for `_rw` (20 min, ★★★)
#
# This time the names are given, those in `this type` above. Weights find their place by name, and they are to go straight
# into what you type here. Lesson 3's parts are imported: `make_shortcut(in_channels, out_channels, stride,
# "avg", config.conv_bias)` as `shortcut`, `make_pool("avg")`, and `SqueezeExcite(channels, hidden_channels,
# config.excite_activation)`. How layers without weights are called is up to you.
#
# <details><summary>Hint 1: layers</summary>
#
# `hidden = 4 * in_channels`. `nn.Conv2d(in_channels, hidden, 1, bias=False)`, then
# `nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)`, then
# `nn.Conv2d(hidden, out_channels, 1, bias=config.conv_bias)`. `SqueezeExcite(hidden, hidden // 4, ...)`.
# </details>
#
# <details><summary>Hint 2: what may be missing</summary>
#
# `nn.Identity()` stands in for a layer that is not there:
# `self.pool = make_pool("avg") if stride == 2 else nn.Identity()`.
# </details>
#
# <details><summary>Hint 3: forward</summary>
#
# Keep `self.excite_first = config.excite_first`, and write out both orders: with it,
# `act(norm2(squeeze_excite(x)))`; without, `squeeze_excite(act(norm2(x)))`.
# </details>


# %% tags=["exercise"]
class MBConvRW(nn.Module):
    """[B, in_channels, H, W] -> [B, out_channels, H/stride, W/stride], rounded up"""

    def __init__(self, in_channels, out_channels, stride, config):
        super().__init__()
        # TODO: shortcut, pre_norm, expand, norm1, depthwise, norm2, squeeze_excite, project
        ### BEGIN SOLUTION
        hidden = 4 * in_channels
        self.shortcut = make_shortcut(in_channels, out_channels, stride, "avg", config.conv_bias)
        self.pre_norm = nn.BatchNorm2d(in_channels)
        self.pre_activation = nn.SiLU() if config.pre_activation else nn.Identity()
        self.pool = make_pool("avg") if stride == 2 else nn.Identity()
        self.expand = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.norm2 = nn.BatchNorm2d(hidden)
        self.squeeze_excite = SqueezeExcite(hidden, hidden // 4, config.excite_activation)
        self.project = nn.Conv2d(hidden, out_channels, 1, bias=config.conv_bias)
        self.act, self.excite_first = nn.SiLU(), config.excite_first
        ### END SOLUTION

    def forward(self, x):
        # TODO: steps 1 to 6, and the shortcut
        ### BEGIN SOLUTION
        shortcut = self.shortcut(x)
        x = self.pool(self.pre_activation(self.pre_norm(x)))
        x = self.depthwise(self.act(self.norm1(self.expand(x))))  # [B, hidden, H, W]
        if self.excite_first:
            x = self.act(self.norm2(self.squeeze_excite(x)))
        else:
            x = self.squeeze_excite(self.act(self.norm2(x)))
        return shortcut + self.project(x)
        ### END SOLUTION


# %% tags=["check"]
check.mbconv_rw(MBConvRW)

# %% [markdown]
# ## 7 · The model
#
# The same plan as in lesson 5, and two things new. `mlp_head` is False: `Head(channels, num_classes, config)` is then
# the mean and one linear layer, and the norm has moved out of it, in front of the mean. It is a `LayerNorm2d`, over the
# channels of each place, called `norm`. And every block is told the `config`:
# `MBConvRW(in_channels, out_channels, stride, config)`, and the one from lesson 4,
# `TransformerBlock(in_channels, out_channels, grid_size, stride, config=config)`, whose attention then is as wide as its
# input. `Stem(3, config)` knows its activation.
#
# ### Exercise 6 · CoAtNet for `_rw` (10 min, ★★☆)
#
# Names again: `stem`; `stages`, a `nn.Sequential` of four, each a `nn.Sequential` of blocks; `norm`, with `eps=1e-6`; `head`.
# All `_rw` models here are C-C-T-T. `image_size` is the side of a square image; `halved((height, width))` halves a pair, rounding up.
#
# <details><summary>Hint 1: before the loop</summary>
#
# `grid_size = halved((image_size, image_size))` after the stem, and `channels = config.stem_widths[-1]`.
# </details>
#
# <details><summary>Hint 2: the loop</summary>
#
# `for kind, depth, width in zip("CCTT", config.depths, config.widths):` halve the grid, make an empty
# `nn.Sequential()`, and `append` `depth` blocks. The first has stride 2, the others 1; after each, `channels = width`.
# </details>
#
# <details><summary>Hint 3: the end</summary>
#
# `LayerNorm2d(channels, eps=1e-6)`, and forward is `self.head(self.norm(self.stages(self.stem(x))))`.
# </details>


# %% tags=["exercise"]
class CoAtNetRW(nn.Module):
    """[B, 3, H, W] -> logits [B, num_classes], as timm's `_rw` models"""

    def __init__(self, config, num_classes=1000, image_size=224):
        super().__init__()
        # TODO: stem, stages, norm, head
        ### BEGIN SOLUTION
        self.stem = Stem(3, config)
        self.stages = nn.Sequential()
        grid_size, channels = halved((image_size, image_size)), config.stem_widths[-1]
        for kind, depth, width in zip("CCTT", config.depths, config.widths):
            grid_size = halved(grid_size)
            stage = nn.Sequential()
            for stride in [2] + [1] * (depth - 1):
                if kind == "C":
                    stage.append(MBConvRW(channels, width, stride, config))
                else:
                    stage.append(
                        TransformerBlock(channels, width, grid_size, stride, config=config)
                    )
                channels = width
            self.stages.append(stage)
        self.norm = LayerNorm2d(channels, eps=1e-6)
        self.head = Head(channels, num_classes, config)
        ### END SOLUTION

    def forward(self, x):
        # TODO: stem, stages, norm, head
        ### BEGIN SOLUTION
        return self.head(self.norm(self.stages(self.stem(x))))  # [B, num_classes]
        ### END SOLUTION


# %% tags=["check"]
check.coatnet_rw(CoAtNetRW)

# %% [markdown]
# ## 8 · Trained weights
#
# `coatnet_nano_rw_224` and `coatnet_0_rw_224` were trained on ImageNet-1K: 1.3 million photographs, 1000 classes. `fetch`
# asks timm for a model with these weights, 60 and 110 MB, and is quick to say so if there is no network. In that case we go
# on with random ones: the proof does not mind, and the photograph below has to wait.

# %% tags=["nbval-ignore-output"]
mine, their = {}, {}
for name in ("coatnet_nano_rw_224", "coatnet_0_rw_224"):
    try:
        their[name], kind = fetch(name), "published"
    except ConnectionError:
        print(f"This is the output of a run without a network: {name} gets random weights.")
        their[name], kind = randomise(timm.create_model(name)), "random"
    mine[name] = yours(CoAtNetRW)(CONFIGS[name])
    mine[name].load_state_dict(translate(their[name].state_dict(), mine[name]))
    print(f"{name}: {kind} weights loaded")

# %%
for name in mine:
    print(f"{name}: differs by 1e-5 or less: {difference(mine[name], their[name], images) <= 1e-5}")

# %% [markdown]
# Now a photograph. A model expects its images as they were in training: the shorter side scaled, the middle
# cut out, colours normalised. timm keeps the numbers with the weights. (Set `PHOTO` to the path of a photograph of yours, and run
# the cell again.)

# %% tags=["nbval-ignore-output"]
from matplotlib.cbook import get_sample_data
from PIL import Image

PHOTO = None  # the path of a photograph of yours; None: a portrait that comes with matplotlib
NAME = "coatnet_0_rw_224"
photo = Image.open(PHOTO or get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB")
settings = timm.data.resolve_model_data_config(their[NAME])
prepare = timm.data.create_transform(**settings)  # [3, 224, 224]
with torch.no_grad():
    probabilities = mine[NAME](prepare(photo)[None]).softmax(dim=1)[0]  # [1000]
top = probabilities.topk(5)
info = timm.data.ImageNetInfo()
labels = [info.index_to_description(i).split(",")[0] for i in top.indices.tolist()]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
left.imshow(photo)
left.axis("off")
if kind == "published":
    bars = right.barh(labels, 100 * top.values, color=plots.COLOURS[0])
    right.bar_label(bars, fmt="%.1f %%", padding=3)
    right.set(xlabel="probability (%)", xlim=(0, 119), xticks=range(0, 101, 20))
    right.set_title(f"your {NAME}")
    right.invert_yaxis()
    right.spines[["right", "top"]].set_visible(False)
else:
    right.text(
        0, 0.5, "No network when this ran: with random weights\nany class is as good as any other."
    )
    right.axis("off")

# %% [markdown]
# With the published weights the bars are a trained network's five best guesses, from classes that you typed. Try other
# photographs. What does it say of a drawing, or of your own face? (The stored solution was made without a network, so that
# it shows the photograph alone.)
#
# ## 9 · Which one is fast?
#
# Same weights, same logits: yours as you wrote it, yours with its tensors laid out **channels-last** in memory (all
# channels of a pixel side by side, instead of all pixels of a channel), the reference in [`coatnet/staged.py`](../coatnet/staged.py), and
# timm's, in both layouts. They take turns, so that a busy computer slows all of them alike. Medians of 7 rounds, one image, without
# gradients, in milliseconds of this machine's cores:

# %% tags=["nbval-ignore-output"]
NAME = "coatnet_nano_rw_224"
last = {"memory_format": torch.channels_last}
reference = CoAtNet(CONFIGS[NAME]).eval()
reference.load_state_dict(mine[NAME].state_dict())
image = images[:1]
models = {
    "yours": (mine[NAME], image),
    "yours, channels-last": (copy.deepcopy(mine[NAME]).to(**last), image.to(**last)),
    "reference": (reference, image),
    "timm": (their[NAME], image),
    "timm, channels-last": (copy.deepcopy(their[NAME]).to(**last), image.to(**last)),
}
seconds = {name: [] for name in models}
with torch.no_grad():
    for _ in range(8):
        for name, (model, batch) in models.items():
            started = time.process_time()
            model(batch)
            seconds[name].append(time.process_time() - started)
# The first round warms up
medians = [1000 * torch.tensor(times[1:]).median().item() for times in seconds.values()]

# %% tags=["nbval-ignore-output"]
figure, axis = plt.subplots(figsize=(8, 2.8), layout="constrained")
colours = [plots.COLOURS[i] for i in (0, 0, 2, 1, 1)]
bars = axis.barh(list(models), medians, color=colours)
axis.bar_label(bars, fmt="%.0f ms", padding=3)
axis.set(xlabel="milliseconds for an image", xlim=(0, 1.2 * max(medians)))
axis.invert_yaxis()
axis.spines[["right", "top"]].set_visible(False)

# %% [markdown]
# The large matrix products, which nobody can skip, are the same in all five, and none of them is twice as fast as another. The layout
# helps the depthwise convolutions: one that goes along the channels finds them side by side. How much that is, and who
# comes first, depends on the machine. (The reference asks for this layout by itself. More is to be had for inference alone:
# `fused(model)`, in [`coatnet/fused.py`](../coatnet/fused.py), returns a copy whose BatchNorms have gone into the convolutions beside
# them, since without training both are linear.) Yours borrows its transformer blocks, with their fused attention, from the
# reference.
#
# ## What you have now
#
# - the skill to move weights between two programs that were never meant to fit: names, shapes, order, proof
# - a detective's list of what shapes can tell, and twelve mistakes that they can't
# - timm's trained models in classes that you typed, equal to 1e-5 of the largest logit
#
# ## Questions
#
# <details><summary>1. You compare two models with fresh weights, not with random ones. Which of the twelve mistakes would still
# show, and which would not?</summary>
#
# Mistakes in the model show, since activations and pooling act on whatever comes. Of the mistakes in the weights, swapped norms do
# not show at all: fresh norms are all alike. Q, K and V in another order do: their weights are random from the start. Wrong tables
# show less than above, since their numbers start so small that every place is attended to nearly alike.
# </details>
#
# <details><summary>2. You forget <code>eval()</code> on both models. Their weights are equal, and they have no dropout. Do
# the logits still agree? What is no longer tested?</summary>
#
# They agree: both normalise with the statistics of the batch, which is the same. But the running means and variances are then
# never used, so that nobody would notice had you left them out of the conversion. And the comparison itself changes them.
# </details>
#
# <details><summary>3. A <code>qkv.weight</code> has the shape [2304, 384]. How many heads of 32 channels has this block? Is it the
# first of its stage? And what if it were [1152, 384]?</summary>
#
# 2304 is 3 times 768, so 24 heads. Attention is wider than its input: the first block of a stage that doubles the
# channels, with `attend_output`. [1152, 384] are 12 heads, as wide as the input. That is any later block of a stage 384 wide, or, without
# `attend_output`, the first block of one 768 wide: the shape of `proj` would tell.
# </details>
#
# <details><summary>4. For which models would it do no harm to forget the transpose of the bias tables?</summary>
#
# For those with one head in each block: [entries, 1] and [1, entries] hold the same numbers in the same order. A test on a small
# model with one head would let the mistake pass.
# </details>
#
# <details><summary>5. Somebody reports: "All shapes fit, all names fit, and on my 10 photographs both models name the same class." Is
# the conversion right?</summary>
#
# Nobody knows. The largest of 1000 logits often stays the largest when all of them move by some percent. Compare numbers, not
# names of classes; and if they differ by more than rounding, compare what comes out of the stem, then of each stage, to find the place.
# </details>
#
# You have met models that somebody else trained. In lesson 7 you train one for real: a schedule, augmentation, checkpoints,
# and what each of them is worth.
