# %% [markdown]
# # Lesson 4 · Relative attention
#
# A convolution asks *where* a neighbour is, attention asks *what* is there. In this lesson you build
# the layer that asks both, the heart of CoAtNet, and the transformer block around it. At its end it
# keeps a promise of lesson 1: the same weights work at another image size.
#
# You need lessons 1 and 3. Plan on **90 minutes**: 65 for the exercises, 25 to read and to look.

# %%
FULL = False  # nothing in this lesson trains, so that True changes nothing

import matplotlib.pyplot as plt
import timm
import torch
import torch.nn.functional as F
from torch import nn

import coatnet
from coatnet import FeedForward2d, LayerNorm2d, resize_table
from course import plots
from course.checking import yours
from course.checks import lesson04 as check
from course.comparing import take_weights
from course.seeding import same_start
from vit import AttentionHead, ViT

# %% [markdown]
# ## 1 · One convolution for Q, K and V
#
# In lesson 1 each head had three linear layers, for queries, keys and values. Two changes make them
# fit to an image `[B, C, H, W]`.
#
# *First*, all these layers read the same input, so that one big layer can do the work of all: stack
# their weights. *Second*, a linear layer applied to every pixel is a 1 x 1 convolution; the weights
# are the same, with two axes of length 1 more. See for yourself:

# %%
torch.manual_seed(0)
head = AttentionHead(dim=8, head_dim=4)
linears = [head.q, head.k, head.v]  # three times nn.Linear(8, 4, bias=False)
conv = nn.Conv2d(8, 12, kernel_size=1, bias=False)
with torch.no_grad():
    conv.weight.copy_(torch.cat([linear.weight for linear in linears])[:, :, None, None])

image = torch.randn(1, 8, 5, 6)
tokens = image.flatten(2).transpose(1, 2)  # [1, 30, 8]
q, k, v = conv(image).flatten(2).transpose(1, 2).chunk(3, dim=-1)  # each [1, 30, 4]
for name, one, linear in zip("qkv", (q, k, v), linears):
    print(f"{name}: equal {torch.allclose(one, linear(tokens), atol=1e-6)}")

# %% [markdown]
# (CoAtNet's layer also has a bias, which lesson 1's do not.)
#
# With several heads somebody has to decide who gets which of the $3 \cdot \text{heads} \cdot d$ output
# channels. We follow timm, so that its weights will fit: **head by head**, and within a head first q,
# then k, then v.
#
# $$\underbrace{[\,q_1 \; k_1 \; v_1}_{\text{head 1}} \;\; \underbrace{q_2 \; k_2 \; v_2}_{\text{head 2}} \;\; \dots ]
# \qquad \text{each of } d \text{ channels, in CoAtNet-0 to -4 } d = 32 .$$
#
# ### Exercise 1 · Q, K and V in one convolution (10 min, ★★☆)
#
# Make one 1 x 1 convolution for all heads; in `forward`, apply it, split its channels head by head, and
# return q, k and v, each `[B, num_heads, N, head_dim]`.
#
# <details><summary>Hint 1: the layer</summary>
#
# `nn.Conv2d(in_channels, 3 * num_heads * head_dim, kernel_size=1)`.
# </details>
#
# <details><summary>Hint 2: the axes</summary>
#
# `[B, heads * 3d, H, W]`, after `.flatten(2)` `[B, heads * 3d, N]`, after
# `.unflatten(1, (heads, 3 * d))` `[B, heads, 3d, N]`; then swap the last two axes.
# </details>
#
# <details><summary>Hint 3: cut in three</summary>
#
# `.chunk(3, dim=-1)`.
# </details>


# %% tags=["exercise"]
class QKV(nn.Module):
    """[B, in_channels, H, W] -> q, k, v: three tensors [B, num_heads, N, head_dim], N = H * W"""

    def __init__(self, in_channels, num_heads, head_dim=32):
        super().__init__()
        # TODO: one 1x1 convolution for all heads; remember num_heads and head_dim
        ### BEGIN SOLUTION
        self.num_heads, self.head_dim = num_heads, head_dim
        self.conv = nn.Conv2d(in_channels, 3 * num_heads * head_dim, kernel_size=1)
        ### END SOLUTION

    def forward(self, x):
        # TODO: convolve; split the channels head by head; return q, k, v
        ### BEGIN SOLUTION
        x = self.conv(x).flatten(2)  # [B, heads * 3d, N]
        x = x.unflatten(1, (self.num_heads, 3 * self.head_dim))  # [B, heads, 3d, N]
        x = x.transpose(2, 3)  # [B, heads, N, 3d]
        q, k, v = x.chunk(3, dim=-1)
        return q, k, v
        ### END SOLUTION


# %% tags=["check"]
check.qkv(QKV)

# %% [markdown]
# ## 2 · Where and what
#
# Write all three ways of looking around as sums over pixels $j$, seen from pixel $i$.
#
# A depthwise **convolution** weighs by the offset alone (equation 1 of the paper; lesson 3 numbered the
# same weights the other way round, by $j - i$):
#
# $$y_i = \sum_{j \in \text{neighbours of } i} w_{i-j} \, x_j .$$
#
# **Attention** weighs by content alone, and looks everywhere (equation 2, where the paper leaves out q, k,
# v and the root):
#
# $$y_i = \sum_{j} \frac{e^{\,q_i \cdot k_j / \sqrt{d}}}{\sum_{m} e^{\,q_i \cdot k_m / \sqrt{d}}} \; v_j .$$
#
# The first treats all places alike: shift the image, and the result shifts with it. The second adapts
# to what it sees. **Relative attention** adds the two *before* the softmax (the second form of equation 3;
# the first adds $w$ behind it):
#
# $$y_i = \sum_{j} \frac{e^{\,q_i \cdot k_j / \sqrt{d} \;+\; w_{i-j}}}{\sum_{m} e^{\,q_i \cdot k_m / \sqrt{d} \;+\; w_{i-m}}} \; v_j .$$
#
# $w_{i-j}$ is one learned number for every head and every offset (a convolution has one for every channel
# and every offset). On a grid of $H \times W$ pixels
# offsets run from $-(H-1)$ to $H-1$ down and from $-(W-1)$ to $W-1$ right, so that a head's numbers
# fit in a table of $(2H-1) \times (2W-1)$. The only work is to find the right entry for each pair.
#
# Say pixel $i$ is in row $r_i$, column $c_i$. Its offset from $j$ is $(r_i - r_j, \; c_i - c_j)$, query
# minus key. Add $H-1$ and $W-1$, and both count from 0. Then number the entries of the table row by
# row:
#
# $$\text{index}_{ij} = (r_i - r_j + H - 1) \cdot (2W - 1) + (c_i - c_j + W - 1) .$$
#
# ### Exercise 2 · Relative position index (10 min, ★★☆)
#
# Pixels are numbered row by row, as `flatten` does. It must work for any $H$ and $W$.
#
# <details><summary>Hint 1: rows and columns of all pixels</summary>
#
# `torch.arange(height).repeat_interleave(width)` are the rows, `torch.arange(width).repeat(height)`
# the columns: each `[N]`. Try it in a cell for 2 x 3.
# </details>
#
# <details><summary>Hint 2: all pairs</summary>
#
# `rows[:, None] - rows[None, :]` is `[N, N]`; the query decides the row.
# </details>


# %% tags=["exercise"]
def relative_position_index(height, width):
    """Which entry of the flattened table each pair uses: integers [N, N], N = height * width"""
    # TODO: offsets of all pairs, query minus key, in rows and in columns; shift; number row by row
    ### BEGIN SOLUTION
    rows = torch.arange(height).repeat_interleave(width)  # [N]
    columns = torch.arange(width).repeat(height)  # [N]
    row_offsets = rows[:, None] - rows[None, :] + height - 1  # [N, N]
    column_offsets = columns[:, None] - columns[None, :] + width - 1  # [N, N]
    return row_offsets * (2 * width - 1) + column_offsets
    ### END SOLUTION


# %% tags=["check"]
check.position_index(relative_position_index)

# %% [markdown]
# The index as a picture, for a grid of 3 x 4. Each row is a query, each column a key, the number says
# which of the $5 \times 7 = 35$ entries they use. Look at the diagonal: every pixel has the same
# offset from itself, so that it is 17 throughout. Within a block of 4 x 4, one row of the grid meets
# another, and the numbers are constant along diagonals.

# %%
index = yours(relative_position_index)(3, 4)
figure, axis = plt.subplots(figsize=(6.2, 5.4), layout="constrained")
picture = axis.imshow(index, cmap="cividis")
for i in range(12):
    for j in range(12):
        axis.text(
            j,
            i,
            int(index[i, j]),
            ha="center",
            va="center",
            fontsize=8,
            color="white" if index[i, j] < 20 else "black",
        )
axis.set(xlabel="key j", ylabel="query i", xticks=range(12), yticks=range(12))
colours = figure.colorbar(picture, label="entry of the table")

# %% [markdown]
# ### Exercise 3 · Relative position bias (10 min, ★★☆)
#
# The table is learned: a parameter `[num_heads, 2H - 1, 2W - 1]`, **a table for each head**. The index is
# arithmetic: no parameter, but a *buffer*, `self.register_buffer("index", ...)`, which moves to the
# GPU with the module.
#
# <details><summary>Hint 1: the table</summary>
#
# `nn.Parameter(torch.empty(...))`, then `nn.init.trunc_normal_(self.table, std=0.02)`. The values at
# the start are up to you; the check brings its own.
# </details>
#
# <details><summary>Hint 2: the lookup</summary>
#
# `self.table.flatten(1)` is `[heads, entries]`. Index its last axis with all of `index` at once.
# </details>


# %% tags=["exercise"]
class RelativePositionBias(nn.Module):
    """() -> bias [num_heads, N, N] for a grid of grid_size = (height, width), N = height * width"""

    def __init__(self, num_heads, grid_size):
        super().__init__()
        # TODO: the table [num_heads, 2 * height - 1, 2 * width - 1], and the index as a buffer
        ### BEGIN SOLUTION
        height, width = grid_size
        self.table = nn.Parameter(torch.empty(num_heads, 2 * height - 1, 2 * width - 1))
        nn.init.trunc_normal_(self.table, std=0.02)
        self.register_buffer("index", relative_position_index(height, width))
        ### END SOLUTION

    def forward(self):
        # TODO: look up the entry of each pair, for all heads
        ### BEGIN SOLUTION
        return self.table.flatten(1)[:, self.index]  # [num_heads, N, N]
        ### END SOLUTION


# %% tags=["check"]
check.position_bias(RelativePositionBias)

# %% [markdown]
# What does it look like from a pixel? Suppose that training had made the table a bump: near is good,
# far is bad. One row of the bias, laid out over the grid, is then a kernel centred on that row's
# query (the dot), wherever the query stands. It is *one* kernel, cut out of the table at different
# places, which the frames show. Move the query.

# %%
rows, columns = torch.meshgrid(torch.arange(-8, 9), torch.arange(-8, 9), indexing="ij")
bump = 2 * torch.exp(-(rows**2 + columns**2) / 8) - rows / 8  # and a little more upwards
index = yours(relative_position_index)(9, 9)
kernels = bump.flatten()[index].unflatten(1, (9, 9))  # [81, 9, 9]: for each query, over all keys
look = {"cmap": "PuOr", "vmin": -bump.abs().max(), "vmax": bump.abs().max()}


def show_kernels(row, column):
    figure, axes = plt.subplots(1, 3, figsize=(10, 3.4), layout="constrained")
    picture = axes[0].imshow(bump, extent=(-8.5, 8.5, 8.5, -8.5), **look)
    axes[0].set(title="the table", xlabel="offset in columns", ylabel="offset in rows")
    for axis, (r, c), colour in zip(axes[1:], ((1, 1), (row, column)), plots.COLOURS[2:]):
        frame = plt.Rectangle((c - 8.5, r - 8.5), 9, 9, fill=False, edgecolor=colour, linewidth=2.5)
        axes[0].add_patch(frame)
        axis.imshow(kernels[9 * r + c], **look)
        axis.plot(c, r, "o", color=colour, markeredgecolor="white", markersize=9)
        axis.set(title=f"query at ({r}, {c})", xlabel="column of the key", ylabel="row of the key")
    figure.colorbar(picture, ax=axes, label="bias")


plots.with_slider(show_kernels, row=(0, 8, 6), column=(0, 8, 7))

# %% [markdown]
# (Offsets are query minus key, so that the kernels are cut-outs turned by 180 degrees: the slope that
# rises upwards in the table rises downwards in the kernels.)
#
# ## 3 · Attention with the bias
#
# Now equation 3 for all pixels and heads at once. With `q`, `k`, `v` of `[B, heads, N, d]`:
#
# $$Y = \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt{d}} + \text{bias}\right) V .$$
#
# ### Exercise 4 · Relative attention, written out (5 min, ★★☆)
#
# Scale the scores, add the bias, softmax over the keys, times `v`.
#
# <details><summary>Hint</summary>
#
# `k.transpose(-2, -1)`; scale by `q.shape[-1] ** -0.5`; add the bias, which stretches over the batch by
# itself; softmax over the keys, the last axis.
# </details>


# %% tags=["exercise"]
def relative_attention(q, k, v, bias):
    """q, k, v [B, heads, N, d] and bias [heads, N, N] -> [B, heads, N, d]"""
    # TODO: scores, scaled; plus the bias; softmax over the keys; times v
    ### BEGIN SOLUTION
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # [B, heads, N, N]
    weights = (scores + bias).softmax(dim=-1)  # [B, heads, N, N]
    return weights @ v  # [B, heads, N, d]
    ### END SOLUTION


# %% tags=["check"]
check.attention_written_out(relative_attention)

# %% [markdown]
# PyTorch has one function for all of this, `F.scaled_dot_product_attention`. It never keeps the
# `[N, N]` weights of all heads at once, which saves memory, and time on most machines. Its `attn_mask`
# is *added* to the scaled scores when it is a tensor of floating point numbers: just what we need.
#
# ### Exercise 5 · Relative attention, fused (5 min, ★☆☆)
#
# Return the same from one call of `F.scaled_dot_product_attention`.
#
# <details><summary>Hint</summary>
#
# `attn_mask=bias[None]` gives the bias a batch axis. The scaling by $1/\sqrt{d}$ is built in.
# </details>


# %% tags=["exercise"]
def fused_attention(q, k, v, bias):
    """The same as relative_attention, in one call"""
    # TODO: F.scaled_dot_product_attention with the bias as its mask
    ### BEGIN SOLUTION
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
    ### END SOLUTION


# %% tags=["check"]
check.attention_fused(fused_attention)

# %% [markdown]
# ### Exercise 6 · RelativeAttention (10 min, ★★☆)
#
# Put the parts together: `QKV`, the bias, the attention, and a last 1 x 1 convolution that mixes the
# heads, as the output layer did in lesson 1. There are `out_channels // 32` heads of 32 channels.
#
# <details><summary>Hint 1: the parts</summary>
#
# `QKV(in_channels, heads)`, `RelativePositionBias(heads, grid_size)`,
# `nn.Conv2d(out_channels, out_channels, 1)`.
# </details>
#
# <details><summary>Hint 2: back to an image</summary>
#
# `[B, heads, N, d]`: swap the last two axes, `[B, heads, d, N]`; `.flatten(1, 2)` sets the heads one
# after the other, `[B, heads * d, N]`; `.unflatten(2, (height, width))` makes it an image.
# </details>


# %% tags=["exercise"]
class RelativeAttention(nn.Module):
    """[B, in_channels, H, W] -> [B, out_channels, H, W] on a grid of grid_size = (H, W)"""

    def __init__(self, in_channels, out_channels, grid_size):
        super().__init__()
        # TODO: QKV with out_channels // 32 heads, the bias, the last convolution (1x1, with bias)
        ### BEGIN SOLUTION
        num_heads = out_channels // 32
        self.qkv = QKV(in_channels, num_heads)
        self.bias = RelativePositionBias(num_heads, grid_size)
        self.proj = nn.Conv2d(out_channels, out_channels, kernel_size=1)
        ### END SOLUTION

    def forward(self, x):
        # TODO: attend, put heads side by side, make it an image again, project
        ### BEGIN SOLUTION
        q, k, v = self.qkv(x)  # each [B, heads, N, 32]
        y = fused_attention(q, k, v, self.bias())  # [B, heads, N, 32]
        y = y.transpose(2, 3).flatten(1, 2)  # [B, out_channels, N]
        return self.proj(y.unflatten(2, x.shape[2:]))  # [B, out_channels, H, W]
        ### END SOLUTION


# %% tags=["check"]
check.attention_module(RelativeAttention)

# %% [markdown]
# ## 4 · The transformer block
#
# Around the attention stands what you know from the ViT: norms first, feed-forward layers, two
# shortcuts. New is that the first block of a stage halves the grid, before it attends:
#
# $$\begin{aligned}
# x &\leftarrow \mathrm{Shortcut}(x) + \mathrm{Attention}(\mathrm{Pool}(\mathrm{Norm}(x))) \\
# x &\leftarrow x + \mathrm{FeedForward}(\mathrm{Norm}(x))
# \end{aligned}$$
#
# With stride 1, Pool does nothing, the shortcut is $x$, and the numbers of channels are equal. With
# stride 2, Pool takes the mean of 2 x 2 pixels, rounding up, and the shortcut is MBConv's from lesson
# 3: the same pooling, then a 1 x 1 convolution with bias where the number of channels changes.
# (The paper pools by maximum; timm, and so we, by mean.)
#
# ### Exercise 7 · TransformerBlock (15 min, ★★★)
#
# Imported for you: `LayerNorm2d(channels, eps=1e-6)`, a LayerNorm over the channels of each pixel, and
# `FeedForward2d(channels)`, lesson 1's feed-forward layers at each pixel, 4 times as wide inside. Both
# keep `[B, C, H, W]`. `grid_size` is the grid *behind* the pooling, the one that attends.
#
# <details><summary>Hint 1: the parts</summary>
#
# `LayerNorm2d(in_channels, eps=1e-6)`, the pooling or `nn.Identity()`, the shortcut,
# `RelativeAttention(in_channels, out_channels, grid_size)`, `LayerNorm2d(out_channels, eps=1e-6)`,
# `FeedForward2d(out_channels)`.
# </details>
#
# <details><summary>Hint 2: the shortcut</summary>
#
# As in lesson 3: `nn.AvgPool2d(2, ceil_mode=True)` for stride 2, and behind it
# `nn.Conv2d(in_channels, out_channels, 1)` if `in_channels != out_channels`.
# </details>
#
# <details><summary>Hint 3: forward</summary>
#
# Two lines, the two of the equation.
# </details>


# %% tags=["exercise"]
class TransformerBlock(nn.Module):
    """[B, in_channels, H, W] -> [B, out_channels, H/stride, W/stride], rounded up; stride 1 or 2"""

    def __init__(self, in_channels, out_channels, grid_size, stride=1):
        super().__init__()
        # TODO: the pooling and the shortcut, for stride 1 and for stride 2
        # TODO: norm, attention; norm, feed-forward layers
        ### BEGIN SOLUTION
        self.shortcut, self.pool = nn.Sequential(), nn.Identity()
        if stride == 2:
            self.pool = nn.AvgPool2d(2, ceil_mode=True)
            self.shortcut.append(nn.AvgPool2d(2, ceil_mode=True))
            if in_channels != out_channels:
                self.shortcut.append(nn.Conv2d(in_channels, out_channels, 1))
        self.norm1 = LayerNorm2d(in_channels, eps=1e-6)
        self.attention = RelativeAttention(in_channels, out_channels, grid_size)
        self.norm2 = LayerNorm2d(out_channels, eps=1e-6)
        self.feed_forward = FeedForward2d(out_channels)
        ### END SOLUTION

    def forward(self, x):
        # TODO: the two lines of the equation
        ### BEGIN SOLUTION
        x = self.shortcut(x) + self.attention(self.pool(self.norm1(x)))
        return x + self.feed_forward(self.norm2(x))
        ### END SOLUTION


# %% tags=["check"]
check.transformer_block(TransformerBlock)

# %% [markdown]
# Where is the CLS token? Gone. A token that is no pixel has no place on a grid: it has no offset to
# anything, and convolutions before and poolings between would not know what to do with it. Nor is it
# needed. After attention every token has heard from all others, so that the plain mean of all tokens
# can do what the CLS token did: collect. It does so for any number of tokens.
#
# And timm's `TransformerBlock2d`, with random weights? Its table is `[entries, heads]`, ours
# `[heads, 2H - 1, 2W - 1]`; that has to be turned first. The rest fits as it stands. The weights go to the
# reference's block, whose order we know, and from there to yours, whatever its order.

# %%
torch.manual_seed(0)
model = timm.create_model("coatnet_0_224", img_size=64, depths=(1, 1, 2, 1)).eval()
x = torch.randn(2, 192, 8, 8)
for block, arguments in zip(model.stages[2].blocks, ((192, 384, (4, 4), 2), (384, 384, (4, 4), 1))):
    for tensor in block.parameters():
        nn.init.normal_(tensor, std=0.1)
    with torch.no_grad():
        expected = block(x)
    position = block.attn.rel_pos
    table = position.relative_position_bias_table.T.unflatten(1, (7, 7))  # [heads, 7, 7]
    position.relative_position_bias_table = nn.Parameter(table)
    reference = coatnet.TransformerBlock(*arguments).eval()
    take_weights(reference, block)
    mine = same_start(yours(TransformerBlock)(*arguments).eval(), reference, x)
    with torch.no_grad():
        difference = (mine(x) - expected).abs().max() / expected.abs().max()
    print(f"TransformerBlock{arguments}: equal to 1e-5: {difference < 1e-5}")
    x = expected

# %% [markdown]
# ## 5 · What shifts with the image
#
# Put a small pattern on a grid, and let one layer of attention look at it. Its *trace* is what it
# changes in the output: the output with the pattern, minus the output without. Then move the pattern by
# three pixels. If the layer treats all places alike, the trace has moved by three pixels, and nothing
# else has happened. We try one and the same layer with a bump for its table, with a table of zeros, and
# with zeros on an input to which absolute positions have been added, as in a ViT.

# %%
torch.manual_seed(0)
attention = coatnet.RelativeAttention(32, 32, (12, 12)).eval()
pattern, positions = torch.randn(1, 32, 3, 3), torch.randn(1, 32, 12, 12)
rows, columns = torch.meshgrid(torch.arange(-11, 12), torch.arange(-11, 12), indexing="ij")
bump12, zeros = 8 * torch.exp(-(rows**2 + columns**2) / 8), torch.zeros(23, 23)


def trace(table, grid, corner):
    """What the pattern at (corner, corner) of an input [1, 32, 12, 12] changes: [32, 12, 12]."""
    with_pattern = grid.clone()
    with_pattern[:, :, corner : corner + 3, corner : corner + 3] += pattern
    with torch.no_grad():
        attention.position_bias.table[0] = table
        return (attention(with_pattern) - attention(grid))[0]


# %%
empty, changes = torch.zeros(1, 32, 12, 12), {}
layers = {"relative": (bump12, empty), "none": (zeros, empty), "absolute": (zeros, positions)}
figure, axes = plt.subplots(3, 3, figsize=(8.4, 7.4), layout="constrained")
for line, (name, (table, grid)) in zip(axes, layers.items()):
    here, there = trace(table, grid, 3), trace(table, grid, 6)
    back = there.roll((-3, -3), (1, 2))
    changes[name] = ((back - here)[:, 1:8, 1:8].norm() / here[:, 1:8, 1:8].norm()).item()
    titles = ("trace", "trace, pattern moved", "moved back, difference")
    for axis, picture, title in zip(line, (here, there, back - here), titles):
        shown = axis.imshow(picture.norm(dim=0), vmin=0, vmax=here.norm(dim=0).max())
        axis.set(xticks=[], yticks=[])
        axis.set_title(f"{name}: {title}", fontsize=9)
    line[2].add_patch(plt.Rectangle((0.5, 0.5), 7, 7, fill=False, edgecolor="white"))
    figure.colorbar(shown, ax=line, label="change of the output")
    print(f"{name:8}: around the pattern {changes[name]:5.1%} of the trace changes")

# %% [markdown]
# With relative positions the trace moves along, and stays near the pattern. Without any positions it
# moves along as well; but near and far are the same to that layer, and all of the empty grid is changed
# alike. With absolute positions every pixel has a voice of its own: the same pattern leaves another trace
# at another place, and the layer would have to learn each place anew.
#
# At the border the relative layer is not perfect either. A pixel there has fewer neighbours, and the
# softmax shares out among those that exist. Our pattern keeps away from it, and so does the frame in
# which we compare.
#
# ## 6 · The promise made good
#
# Lesson 1 ended with a complaint: a ViT is stuck with one image size, because it has learned a vector
# for each position. Relative attention has learned a number for each *offset*. A larger grid has more
# of them, but the new ones lie between and beyond the old: stretch the table. The paper does so with
# bilinear interpolation (appendix A.1); timm, and our `resize_table`, leave near offsets where they are
# and stretch only the far ones, since a neighbour remains a neighbour at any size.

# %%
larger = resize_table(bump[None], 14, 11)[0]  # [27, 21], from a grid of 9 x 9 to one of 14 x 11
bilinear = F.interpolate(bump[None, None], (27, 21), mode="bilinear", align_corners=True)[0, 0]
figure, axes = plt.subplots(1, 3, figsize=(10, 4.4), layout="constrained")
tables = {"for 9 x 9": bump, "for 14 x 11": larger, "for 14 x 11, bilinear": bilinear}
for axis, (title, table) in zip(axes, tables.items()):
    height, width = table.shape[0] / 2, table.shape[1] / 2
    picture = axis.imshow(table, extent=(-width, width, height, -height), **look)
    axis.contour(table, [1.2], colors="black", extent=(-width, width, -height, height))
    axis.set(title=title, xlim=(-13.5, 13.5), ylim=(13.5, -13.5), xlabel="offset in columns")
axes[0].set_ylabel("offset in rows")
figure.colorbar(picture, ax=axes, label="bias (black line: 1.2)", shrink=0.8)

# %% [markdown]
# All three have one scale. The black line around the offsets that count most keeps its size in the
# middle, and grows with the table on the right.
#
# So take your attention for a grid of 7 x 7, and make one for 10 x 8 that has the same weights, all but
# the table, which is resized, and the index, which is arithmetic. The ViT, beside it, gets an image of
# another size than it was built for.

# %%
torch.manual_seed(0)
Attention = yours(RelativeAttention)
small, large = Attention(64, 64, (7, 7)), Attention(64, 64, (10, 8))
weights, wanted = {}, large.state_dict()
for name, tensor in small.state_dict().items():
    if tensor.shape == wanted[name].shape:
        weights[name] = tensor
    elif tensor.is_floating_point():  # the table: 13 x 13 offsets become 19 x 15
        table = resize_table(tensor.reshape(-1, 13, 13), 10, 8)
        weights[name] = table.reshape(wanted[name].shape)
missing, unexpected = large.load_state_dict(weights, strict=False)
left_out = [name for name in missing if wanted[name].is_floating_point()]
print("weights that found no place:", [*left_out, *unexpected] or "none")
print("relative attention:", list(large(torch.randn(1, 64, 10, 8)).shape))

vit = ViT(56, 8, num_hiddens=64, num_heads=2, num_classes=10, depth=1)
try:
    vit(torch.randn(1, 3, 80, 64))
except ValueError as error:
    print("ViT:", error)

# %% [markdown]
# That it runs is not yet to say that it still recognises anything. Lesson 8 tests that, on trained
# models, at sizes they have never seen.
#
# ## What you have now
#
# - `RelativeAttention` and `TransformerBlock`, equal to those in [`coatnet/attention.py`](../coatnet/attention.py) and to timm's
# - one sum before the softmax, in which *where* and *what* meet
# - weights for every image size
#
# ## Questions
#
# <details><summary>1. You add 5 to every entry of one head's table. What changes?</summary>
#
# Nothing. Every score of every query grows by 5, and a softmax only sees differences. So a table has one
# number too many.
# </details>
#
# <details><summary>2. A head's table is 0 everywhere, but very large at offset (0, 0). What does the head do?
# And if the large entry is at offset (1, 0)?</summary>
#
# At (0, 0) every pixel attends to itself alone: the head returns the values as they are. Offsets are query
# minus key, so at (1, 0) every pixel looks at the one above it: the values move down by a row. A few large
# entries make a small kernel: a head can become a convolution, if training wants it.
# </details>
#
# <details><summary>3. A stage has 12 heads on a grid of 14 x 14. How many numbers do its tables learn in one
# block, and how many entries has the bias that is added to the scores?</summary>
#
# $12 \cdot 27 \cdot 27 = 8{,}748$ are learned; the bias has $12 \cdot 196 \cdot 196 = 460{,}992$ entries. The index says
# which are equal.
# </details>
#
# <details><summary>4. The picture moves down by one pixel. Does the output of a block with stride 2 move,
# too? And if the picture moves by two pixels?</summary>
#
# By one: no, its pooling now takes the mean of other pairs, and half a step of the smaller grid does not
# exist. By two: yes, by one step, but for the border.
# </details>
#
# <details><summary>5. The bias knows offsets only, no places. Can the layer still learn whether a pixel is at
# the border?</summary>
#
# Yes. A pixel in the corner has no keys above or beside it, so that the shares which they would have had
# go to others. A head that looks upwards gives something else in the first row than anywhere else.
# </details>
#
# Both kinds of blocks are there. In lesson 5 you stack them, convolutions below, attention above, and
# ask how many of each: the staged **CoAtNet**.
