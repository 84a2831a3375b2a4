# %% [markdown]
# # Lesson 8 · Looking inside
#
# A trained network is a few hundred thousand numbers that nobody chose. What has it learned? In this lesson you
# take three models of this course apart: where they look, what their position biases have become, how far each
# layer sees. Then you damage the images, shift them, cover them, resize them, and watch which model holds out.
# Lesson 1 made some claims about convolutions and attention. Here they are put to the test.
#
# You need lessons 4 and 5, or at least their models, which are imported below. Plan on **70 minutes**: 40 for the
# exercises, 30 to read and to look.

# %%
FULL = False  # True: 20 times as many steps of training (a quarter of an hour on two CPU cores)

import copy

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.colors import LogNorm

from coatnet import HEAD_DIM, CoAtNEt, CoAtNet, CoAtNetConfig
from course import plots, training
from course.checking import yours
from course.checks import lesson08 as check
from course.data import load_data, shape_texture_accuracy
from course.robustness import at_size, occlude, shift, shuffle_patches
from vit import ViT

train, test = load_data("shapetexture100")
print(f"{len(train):,} images to train, {len(test):,} to test, {len(train.classes)} classes")

# %% [markdown]
# ## 1 · Three trained models
#
# A ViT, the hybrid of lesson 2, and a staged C-C-T-T, each with a few hundred thousand parameters and some ten seconds of
# training on two CPU cores. (Without dropout: nobody learns anything by heart in so short a time.) We keep a copy of the
# staged model from before training, to compare with.

# %% tags=["nbval-ignore-output"]
CONFIG = CoAtNetConfig(stem_widths=(16, 16), depths=(1, 1, 2, 1), widths=(16, 36, 64, 128))
few = test.select(slice(300))


def trained(model, lr, steps):
    """Trains the model, says how well it does on unseen images, and returns it in eval mode"""
    steps = 20 * steps if FULL else steps
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    options = {"optimizer": optimizer, "schedule": training.warmup_cosine, "quiet": True}
    training.fit(model, train, steps=steps, **options)
    predictions = training.evaluate(model, few, quiet=True).predictions
    shape, texture = shape_texture_accuracy(predictions, few.targets)
    size = sum(p.numel() for p in model.parameters())
    print(
        f"{type(model).__name__:8} {size:,} parameters: shape {shape:4.0%}, texture {texture:4.0%}"
    )
    return model.cpu().eval()


torch.manual_seed(0)
fresh = CoAtNet(CONFIG, num_classes=100, image_size=56).eval()
vit = trained(ViT(56, 8, 96, 4, 100, depth=2, dropout=0.0), lr=1e-3, steps=200)
hybrid = trained(CoAtNEt(56, 8, 64, 4, 100, depth=2, dropout=0.0), lr=2e-3, steps=250)
staged = trained(copy.deepcopy(fresh), lr=2e-3, steps=350)
MODELS = {"ViT": vit, "hybrid": hybrid, "staged": staged}

# %% [markdown]
# The ViT reads most textures and few shapes, as in lesson 1. The other two read nearly all textures and most shapes.
#
# ## 2 · Where it looks
#
# In S3 and S4 every place decides by itself where to look. For the answer we need the attention weights, and a
# fast implementation never lets them out: the fused kernel computes them piece by piece, and forgets them. So
# compute them again, from the block's own parts. With $x$ the block's input:
#
# $$A = \text{softmax}\Big(\frac{q\,k^\top}{\sqrt{d}} + \text{bias}\Big), \qquad
# q, k, v \text{ from } \text{Pool}(\text{Norm}(x)), \quad d = 32$$
#
# ### Exercise 1 · Reading attention (15 min, ★★☆)
#
# `block` is a `TransformerBlock` of [`coatnet/attention.py`](../coatnet/attention.py). What you need of it:
#
# | part | what it does |
# |---|---|
# | `block.norm1`, `block.pool` | [B, C, H, W] -> [B, C, H, W], and -> [B, C, h, w] (without stride the same) |
# | `block.attention.qkv` | [B, C, h, w] -> [B, heads * 96, h, w], **head by head**: of each 96 channels, the first 32 are q, then k, then v |
# | `block.attention.num_heads` | the number of heads |
# | `block.attention.position_bias(h, w)` | the bias, [heads, N, N], N = h * w |
#
# Return $A$ of all heads. (The block has a method for this, `attention_weights`. Write yours without it.)
#
# <details><summary>Hint 1: q and k</summary>
#
# `.flatten(2)` makes [B, heads * 96, N], `.unflatten(1, (heads, 96))` makes [B, heads, 96, N]. Then
# `q, k, v = ....transpose(2, 3).chunk(3, dim=-1)`, each [B, heads, N, 32].
# </details>
#
# <details><summary>Hint 2: the rest</summary>
#
# `scores = q @ k.transpose(-2, -1) * HEAD_DIM**-0.5 + bias`, and `scores.softmax(dim=-1)`: a row is where one
# place looks, and sums to 1.
# </details>


# %% tags=["exercise"]
def attention_weights(block, x):
    """Where each place looks, given the block's input [B, C, H, W]: [B, heads, N, N]"""
    # TODO: norm, pool, q and k head by head; scores, bias, softmax
    ### BEGIN SOLUTION
    x = block.pool(block.norm1(x))  # [B, C, h, w]
    height, width = x.shape[-2:]
    heads = block.attention.num_heads
    qkv = block.attention.qkv(x).flatten(2).unflatten(1, (heads, 3 * HEAD_DIM))
    q, k, _ = qkv.transpose(2, 3).chunk(3, dim=-1)  # each [B, heads, N, 32]
    bias = block.attention.position_bias(height, width)  # [heads, N, N]
    scores = q @ k.transpose(-2, -1) * HEAD_DIM**-0.5 + bias  # [B, heads, N, N]
    return scores.softmax(dim=-1)
    ### END SOLUTION


# %% tags=["check"]
check.reading(attention_weights)

# %% [markdown]
# One warning first: a picture of attention shows where a head looks. It does not show what for, nor whether the answer
# depends on it.
#
# At 56 pixels S3 has 4 x 4 places, and S4 2 x 2. Below, the place outlined in orange looks: in the upper row in S3's two
# blocks with two heads each, in the lower row in S4's block with four heads. All pictures share one scale, in multiples of
# the even share, which is 1/16 in S3 and 1/4 in S4. Move the sliders to let another place look.

# %% tags=["nbval-ignore-output"]
read = yours(attention_weights)
image = test.images[42:43]
heads = []  # (title, weights [N, N]) of each head
with torch.no_grad():
    x = staged.stem(test.normalise(image))
    for s, stage in enumerate(staged.stages, start=1):
        for b, block in enumerate(stage, start=1):
            if hasattr(block, "attention"):
                weights = read(block, x)[0]
                heads += [(f"S{s}, block {b}, head {h}", w) for h, w in enumerate(weights, start=1)]
            x = block(x)


def show_heads(row, column):
    figure, axes = plt.subplots(2, 5, figsize=(9.4, 4), layout="constrained")
    for line, panels, side in zip(axes, (heads[:4], heads[4:]), (4, 2)):
        r, c = row * side // 4, column * side // 4
        line[0].imshow(plots.to_pixels(image[0]), extent=(0, side, side, 0))
        for axis, (title, weights) in zip(line[1:], panels):
            times = weights[side * r + c].reshape(side, side) * side**2
            shown = axis.imshow(times, extent=(0, side, side, 0), vmin=0, vmax=4)
            axis.set_title(title, fontsize=9)
        for axis in line:
            frame = plt.Rectangle((c, r), 1, 1, fill=False, edgecolor=plots.COLOURS[1], linewidth=2)
            axis.add_patch(frame)
            axis.axis("off")
    figure.colorbar(shown, ax=axes, label="attention weight, of the even share")


plots.with_slider(show_heads, row=(0, 3, 1), column=(0, 3, 1))

# %% [markdown]
# Heads are of different opinions. In S4 one of them may send nearly everything to a single quarter, four times the even
# share, while another looks everywhere more or less alike.
#
# ## 3 · What the bias has become
#
# Relative attention adds two things before the softmax: what the contents have to say, and a number $w_{i-j}$ for
# the offset. A convolution is all $w$. So: has training made kernels of the biases? Each picture below is a head's table
# in S3, seen from the place in its middle: the colour says by how much it favours, before any content counts, the
# place that lies there. The upper row is before training, the lower one after it.

# %% tags=["nbval-ignore-output"]
figure, axes = plt.subplots(2, 4, figsize=(9, 4.4), layout="constrained")
for row, (label, model) in enumerate((("before", fresh), ("after", staged))):
    tables = torch.cat([b.attention.position_bias.table.detach() for b in model.stages[2]])
    for column, table in enumerate(tables):  # [7, 7], query minus key
        axis = axes[row, column]
        kernel = table.flip(0, 1)  # key minus query: where the other place lies
        shown = axis.imshow(kernel, cmap="PuOr", vmin=-0.3, vmax=0.3, extent=(-3.5, 3.5, 3.5, -3.5))
        axis.plot(0, 0, "k+")
        axis.set_title(f"{label}: block {column // 2 + 1}, head {column % 2 + 1}", fontsize=9)
        axis.set(xticks=[-3, 0, 3], yticks=[-3, 0, 3])
    print(f"{label}: standard deviation {tables.std():.3f}")
axes[1, 0].set(xlabel="columns to the right", ylabel="rows below")
bar = figure.colorbar(shown, ax=axes, label="bias, added to the scores")

# %% [markdown]
# And how much does it weigh beside the contents? The logarithm of the attention weights is the scores, up to a constant in each
# row; take the biases away, and what remains comes from $q\,k^\top$.

# %% tags=["nbval-ignore-output"]
with torch.no_grad():
    x = staged.features(test.normalise(test.images[:32]))[2]  # what S3 gets
    for number, block in enumerate(staged.stages[2], start=1):
        weights, x = read(block, x), block(x)
        bias = block.attention.position_bias(*x.shape[2:])  # [heads, N, N]
        content = weights.log() - bias
        print(
            f"S3, block {number}: standard deviation within a row, "
            f"content {content.std(dim=-1).mean():.2f}, bias {bias.std(dim=-1).mean():.2f}"
        )

# %% [markdown]
# Something has been learned: the tables vary more than twice as much as before, and what was noise has become areas of one
# colour. But a *convolution's* kernel, with its weight on the nearest neighbours, it is not: none of the heads has its
# peak in the middle. And it is the small part of the sum. Contents differ by several times as much, so that they decide
# most.
#
# These are small tables of a small model, after 350 steps. Whether large ones become more of a kernel, you can see for
# yourself if you have a network: `from_timm(fetch("coatnet_0_rw_224"))`, both imported from `coatnet`, is a model
# trained on ImageNet, with tables for 27 x 27 offsets in its `stages[2]`.
#
# ## 4 · How far it sees
#
# Take one number deep in the network. Which pixels does it depend on, and how much? Autograd knows: the gradient of that
# number with respect to the image. Its size, pixel by pixel, is the **effective receptive field** (Luo et al. 2016,
# [arXiv 1701.04128](https://arxiv.org/abs/1701.04128)): what a place *does* see, not what it could see.
#
# ### Exercise 2 · Effective receptive field (15 min, ★★☆)
#
# `features` maps images [B, 3, H, W] to a grid [B, C, h, w]. Take the place in its middle, row `h // 2` and column
# `w // 2` (a grid of even size has no middle: that is the place below and right of it), and add up its channels, over all
# images too. The gradient of that sum with respect to the images is [B, 3, H, W]. Take absolute values, then the mean over
# images and colours, and divide by the sum, so that the shares of all pixels add up to 1.
#
# <details><summary>Hint 1: a gradient for the images</summary>
#
# Images have none unless you ask: `images = images.clone().requires_grad_()`.
# </details>
#
# <details><summary>Hint 2: autograd</summary>
#
# `(gradient,) = torch.autograd.grad(number, images)` returns it without touching the model's parameters.
# </details>


# %% tags=["exercise"]
def receptive_field(features, images):
    """How much the place in the middle depends on each pixel: [H, W], which sums to 1"""
    # TODO: gradient of the middle's sum with respect to the images; its size, averaged; shares
    ### BEGIN SOLUTION
    images = images.clone().requires_grad_()
    grid = features(images)  # [B, C, h, w]
    middle = grid[:, :, grid.shape[2] // 2, grid.shape[3] // 2].sum()
    (gradient,) = torch.autograd.grad(middle, images)  # [B, 3, H, W]
    field = gradient.abs().mean(dim=(0, 1))  # [H, W]
    return field / field.sum()
    ### END SOLUTION


# %% tags=["check"]
check.field(receptive_field)

# %% [markdown]
# Now for each stage of the staged model, before and after training, and for the ViT, after its patch embedding and each of its
# blocks. Colours show a pixel's share as a multiple of the even one, 1/3136, and their scale is logarithmic: from one tick
# to the next it is ten times as much. Above each picture stands how far the pixels are that count: the root of the mean
# squared distance from the field's centre. If all counted alike, it would be 22.9 px.
#
# S3 has 4 x 4 places and S4 2 x 2. There the "middle" is the place below and right of the true one, which is why these
# fields lean that way.


# %% tags=["nbval-ignore-output"]
def vit_grid(images, blocks):
    """The ViT's tokens after so many blocks, as a grid [B, D, 7, 7]"""
    tokens = vit.patch_embedding(images) + vit.positions[:, 1:]
    first = (vit.cls_token + vit.positions[:, :1]).expand(len(images), -1, -1)
    tokens = torch.cat([first, tokens], dim=1)
    for block in list(vit.encoder)[:blocks]:
        tokens = block(tokens)
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (7, 7))


field_of = yours(receptive_field)
images = test.normalise(test.images[:32])
places = torch.cartesian_prod(torch.arange(56.0), torch.arange(56.0))  # [3136, 2]
ROWS = {
    "staged, before": [(f"S{s}", lambda x, s=s: fresh.features(x)[s]) for s in range(5)],
    "staged, after": [(f"S{s}", lambda x, s=s: staged.features(x)[s]) for s in range(5)],
    "ViT, after": [
        (f"{b} block" + "s" * (b != 1), lambda x, b=b: vit_grid(x, b)) for b in range(3)
    ],
}
fields = {
    row: [(name, field_of(function, images)) for name, function in columns]
    for row, columns in ROWS.items()
}

# %% tags=["nbval-ignore-output"]
figure, axes = plt.subplots(3, 5, figsize=(9.4, 6), layout="constrained")
distances = {}
for row, (label, columns) in zip(axes, fields.items()):
    for axis in row:
        axis.axis("off")
    for axis, (name, field) in zip(row, columns):
        shares = field.flatten()
        centre = shares @ places
        distance = (shares @ (places - centre).square().sum(dim=1)).sqrt()
        distances[label, name] = distance.item()
        scale = LogNorm(vmin=0.01, vmax=100)
        shown = axis.imshow(3136 * field.clamp(min=1e-9), norm=scale)
        axis.set_title(f"{label}\n{name}: {distance:.1f} px", fontsize=9)
bar = figure.colorbar(shown, ax=axes, label="share of a pixel, of the even one", extend="both")

# %% [markdown]
# - **Convolutions see locally, by design.** S0 to S2 see squares that grow from stage to stage, before training as after it.
#   The glow around them in S1 and S2 is squeeze-excite: its gates depend on the mean of the whole image. A pixel far away
#   counts little there, but there are many of them.
# - **Attention sees everything from its first block on.** In S3 and S4 the field fills the image, but training draws it
#   together: what is near counts more, and more so than before training.
# - **The ViT** goes from its own patch to everything in one step. Yet the brightest patch remains its own: the residual
#   path carries it through. All others count about alike. It does not know what *near* means.
#
# ## 5 · What it keeps
#
# Feature maps of the trained staged model, for three images of the *same shape* with *different textures*. Of each stage the
# channel that varies most over the first image, the same one for all three:

# %% tags=["nbval-ignore-output"]
chosen = [9 * 10 + texture for texture in (1, 4, 7)]
pictures = test.images[[int((test.targets == c).nonzero()[0]) for c in chosen]]
with torch.no_grad():
    grids = staged.features(test.normalise(pictures))
figure, axes = plt.subplots(3, 6, figsize=(9, 4.9), layout="constrained")
for row, picture in enumerate(pictures):
    axes[row, 0].imshow(plots.to_pixels(picture))
    for column, grid in enumerate(grids, start=1):
        channel = grid[0].flatten(1).std(dim=1).argmax()
        low, high = grid[:, channel].min(), grid[:, channel].max()
        axes[row, column].imshow(grid[row, channel], vmin=low, vmax=high)
        axes[0, column].set_title(f"S{column - 1}", fontsize=9)
for axis in axes.flat:
    axis.axis("off")

# %% [markdown]
# In S0 and S1 one sees the discs, and in them columns, checks and dots. What comes after is too coarse for that: a place of
# S2 stands for 8 x 8 pixels, one of S4 for a quarter of the image. But this is one channel of many, chosen by one image.
# What do *all* channels say, over many images? Take the mean over places of each channel, so that only *what* is left and
# not *where*, and ask how much of its variance the texture explains: the variance between the means of the ten textures,
# as a share of all variance. Then the same for the ten shapes.


# %% tags=["nbval-ignore-output"]
def explained(values, groups):
    """Share of the variance of values [N, C] that lies between ten groups [N], over all C"""
    means = torch.stack([values[groups == g].mean(dim=0) for g in range(10)])
    return (means[groups].var(dim=0).sum() / values.var(dim=0).sum()).item()


with torch.no_grad():
    pooled = [grid.mean(dim=(2, 3)) for grid in staged.features(test.normalise(few.images))]
parts = {"shape": few.targets // 10, "texture": few.targets % 10}
kept = {part: [explained(means, groups) for means in pooled] for part, groups in parts.items()}
for part, shares in kept.items():
    print(f"{part:8}", "  ".join(f"S{s} {share:4.0%}" for s, share in enumerate(shares)))

# %% [markdown]
# The means of S0 to S2 follow the texture, and know as good as nothing of the shape: every shape has five discs, and the mean
# does not say where they are. Shapes come in where attention does: in S3 some channels begin to answer to an
# arrangement of discs, in S4 more of them do. The texture does not go away. It is half of the answer, after all.
#
# ## 6 · What it withstands
#
# A model that has learned the right thing should not mind where an object stands, or that a part of it is hidden. Three kinds of
# damage, from [`course/robustness.py`](../course/robustness.py), to 300 unseen images:
#
# - **shift** right and down, by some pixels (in training, shapes moved by about one)
# - **occlusion**, a grey square at a random place
# - **shuffling**: the image cut into square patches, laid out in another order
#
# and three questions: how often is the shape right, how often the texture, and for which model?

# %% tags=["nbval-ignore-output"]
clean, targets = test.normalise(few.images), few.targets
DAMAGE = {
    "shift (px)": (shift, (0, 1, 2, 4, 8)),
    "occluded square (px)": (occlude, (0, 8, 16, 24, 32)),
    "side of shuffled patches (px)": (shuffle_patches, (56, 28, 14, 8)),
}


@torch.no_grad()
def shape_and_texture(model, images):
    """Percent of right shapes and of right textures"""
    predictions = torch.cat([model(batch).argmax(dim=1) for batch in images.split(100)])
    return [100 * share for share in shape_texture_accuracy(predictions, targets)]


results = {
    name: {
        label: [shape_and_texture(model, damage(clean, amount)) for amount in amounts]
        for label, (damage, amounts) in DAMAGE.items()
    }
    for name, model in MODELS.items()
}

# %% tags=["nbval-ignore-output"]
figure, axes = plt.subplots(2, 3, figsize=(9, 5), layout="constrained", sharey=True)
for column, (label, (_, amounts)) in enumerate(DAMAGE.items()):
    for axis, part in zip(axes[:, column], (0, 1)):
        for (name, result), colour, marker in zip(results.items(), plots.COLOURS, plots.MARKERS):
            percent = [shares[part] for shares in result[label]]
            axis.plot(percent, color=colour, marker=marker, label=name)
        axis.axhline(10, color="grey", linestyle=":", label="chance")
        axis.set_xticks(range(len(amounts)), amounts)
        axis.grid(alpha=0.3)
    axes[1, column].set_xlabel(label)
axes[0, 2].legend(loc="upper right")
axes[1, 0].set(ylabel="texture right (%)")
axes[0, 0].set_ylabel("shape right (%)")
bottom, top = axes[0, 0].set_ylim(0, 103)

# %% [markdown]
# Much to see, and some of it unexpected:
#
# - **Shift.** One pixel, as in training, costs little. By two the hybrid has lost many of its shapes, by four nearly all; the
#   staged model loses them later. And then look at 8: the ViT reads textures again, and the hybrid gets some of its shapes
#   back, where the staged model has none left. 8 pixels is the ViT's patch and the stem's stride. The patches are then the
#   same as before, only elsewhere. A convolution *with a stride* sees all places alike only if the shift fits its stride;
#   and that of the staged model is 32 in the end.
# - **Occlusion.** A square of 8 pixels costs nobody anything. One of 16, a twelfth of the image, costs some shapes and few
#   textures; one of 32, a third of it, hides most.
# - **Shuffling.** In four quarters the staged model still finds most of its shapes, the hybrid about half. In patches of 14
#   pixels all shapes are gone, as they should be, and the textures are harder to read, since cuts run through discs. But
#   with patches of exactly 8 pixels the ViT reads textures as well as ever: they are its own patches, at other places.
#
# One seed, 300 images: a difference of five points may be luck. [`benchmarks/robustness.py`](../benchmarks/robustness.py)
# repeats this with three seeds and longer training, and with photographs; [its tables](../benchmarks/robustness.md) stand
# beside it.
#
# ## 7 · At other resolutions
#
# The staged model takes any size. Taking it is one thing, being right is another. Test it: the same images with fewer or more
# pixels, the weights as they are.
#
# ### Exercise 3 · The resolution sweep (10 min, ★☆☆)
#
# For each size in `sizes`, resize the images [N, 3, H, W] to size x size with
# `F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)`, and return the shares of right answers, from 0
# to 1, as a list of numbers in the order of `sizes`. The model in eval mode, without gradients.
#
# <details><summary>Hint 1: one size</summary>
#
# `predictions = model(resized).argmax(dim=1)`, and the share is `(predictions == targets).float().mean().item()`.
# </details>
#
# <details><summary>Hint 2: all sizes</summary>
#
# Start each size from the original images, not from the ones that you resized last: what is lost at 40 pixels does not come back.
# </details>


# %% tags=["exercise"]
def resolution_sweep(model, images, targets, sizes):
    """Share of right answers at each size, a list of numbers from 0 to 1"""
    # TODO: for each size: resize, predict, compare with the targets
    ### BEGIN SOLUTION
    model.eval()
    shares = []
    for size in sizes:
        resized = F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)
        with torch.no_grad():
            predictions = model(resized).argmax(dim=1)
        shares.append((predictions == targets).float().mean().item())
    return shares
    ### END SOLUTION


# %% tags=["check"]
check.sweep(resolution_sweep)

# %% [markdown]
# ViT and hybrid refuse other sizes, as you know. To give them a chance, `at_size` interpolates their learned positions on a finer
# or coarser grid, which is what people do in practice before fine-tuning. A class counts as right here if shape *and* texture are;
# chance is 1 %. The last size is twice that of training.

# %% tags=["nbval-ignore-output"]
SIZES = (40, 48, 56, 64, 80, 112)
sweep, sizes_right = yours(resolution_sweep), {}
figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
for (name, model), colour, marker in zip(MODELS.items(), plots.COLOURS, plots.MARKERS):
    shares = sizes_right.setdefault(name, [])
    for size in SIZES:
        resized = model if name == "staged" else at_size(model, size)
        shares += sweep(resized, clean, targets, [size])
    axis.plot(SIZES, [100 * s for s in shares], color=colour, marker=marker, label=name)
    print(f"{name:7}", "  ".join(f"{size} px {share:4.0%}" for size, share in zip(SIZES, shares)))
axis.axvline(56, color="grey", linestyle=":")
axis.set(xlabel="pixels a side (trained at 56)", ylabel="class right (%)", ylim=(0, 103))
axis.legend()
axis.grid(alpha=0.3)

# %% [markdown]
# Runs at any size: yes. Right at any size: no. Eight pixels more or fewer cost the staged model a good part of its right
# answers, and the hybrid more; at twice the size all three are near chance. The positions are not to blame, at least not alone,
# for the staged model has been given all that interpolation can give. A kernel of 3 x 3 pixels has that size whatever
# the image has. At twice the size, a texture's period is twice as long, and half of it fits into the windows that knew it;
# and nothing has ever shown the model another size.
#
# Is that so because these classes *are* textures of one period? For photographs, too, a thing twice as large is another
# thing to small kernels. [The benchmark](../benchmarks/robustness.md) has the same sweep for CIFAR-10: at twice its size, the
# staged model falls from 59 to 28 % right. Small changes cost less there, since photographs show things in many sizes.
#
# Where a model is to work at several sizes, it should see them in training, or be fine-tuned for some steps. Relative
# positions make that possible without surgery.
#
# ## 8 · Lesson 1's claims, one by one
#
# | claim | test | what came out |
# |---|---|---|
# | a texture shows in a single patch | shuffle the ViT's patches | yes: it reads textures as before |
# | for shapes, patches have to be compared across the image, and there a young ViT has a handicap | shapes after a short training | yes, at this budget: it has few, the other two most. What helps the hybrid is that its windows overlap (lesson 2, question 5) |
# | all that a ViT knows of near and far it has to learn | its receptive field | yes: every patch but its own counts about alike |
# | a convolution only looks at neighbours | receptive field of S0 to S2 | yes, but for the glow of squeeze-excite |
# | ... and at all places in the same way | shift | in part: for shifts that fit the stride, and a network's end still learns where things stood |
# | one image size for ever | resolution | half: relative positions let a model *run* at any size, not be right there |
#
# The last two are the ones to remember. "Translation equivariant" and "any resolution" are true of a layer, or of a shape of
# tensors. Of a trained network they are questions.
#
# ## What you have now
#
# - three instruments that work on any network: attention read out, effective receptive field, sweeps over damage
# - pictures of what a CoAtNet has learned, and of what it has not
# - a habit: a claim about an architecture is a question, until somebody has measured it
#
# ## Questions
#
# <details><summary>1. You set the weights and biases that make q in one of S3's blocks to 0. Where does each place look now,
# and how would you notice in the pictures of section 2?</summary>
#
# All of $q\,k^\top$ is 0, so that the bias alone decides: each place looks at fixed offsets, much as a depthwise convolution
# over the whole grid would, whatever the image shows. Take another image: the maps do not change.
# </details>
#
# <details><summary>2. You train the ViT from the beginning on images whose patches are always shuffled in one and the same
# way. Does it learn more slowly? And the staged model?</summary>
#
# The ViT learns as before: its positions are drawn alike for all places, so that an order of patches is only another way to
# number them. For the staged model it is a harder task: its convolutions count on what lies side by side, and now
# strangers do.
# </details>
#
# <details><summary>3. At a shift of 8 pixels the hybrid reads textures nearly as well as without, but has lost many shapes. Its
# tokens are the same, only elsewhere. What has changed?</summary>
#
# Their positions. Each token gets the vector that its neighbour had, learned for absolute places: textures do not ask
# where, shapes do. At the border, what was pushed out is missing as well.
# </details>
#
# <details><summary>4. Somebody shows you a map in which a head looks at a cat's whiskers, and says: this is why the model
# answers "cat". What do you try?</summary>
#
# Cover the whiskers, and then a place of the same size elsewhere: does the answer change with the first, and not with the
# second? Attention says where a head reads; what later layers make of it, only the answer tells.
# </details>
#
# <details><summary>5. The receptive field of S4 fills the image. Does the model's answer depend on every pixel?</summary>
#
# Not as far as that picture shows. It is a gradient at these images: how much a tiny change would matter to the sum of the
# channels at one place. Channels that nobody listens to count in that sum, and changes that are not tiny may do something
# else. Occlusion asks about the answer itself.
# </details>
#
# <details><summary>6. The share of variance that shapes explain is about 1 % in S2. Can S2 not be used to find out the
# shape?</summary>
#
# It can: everything after it does so. The means over places were asked, and a shape is *where* the discs are. What a mean
# does not show may still be there.
# </details>
#
# ## Where to go from here
#
# This is the end of the course. You have written a ViT, a hybrid and a CoAtNet, have loaded trained weights into your own
# classes, have trained, resumed and taken apart what you built. Some ways on:
#
# - **Your own images.** `.venv/bin/python -m course.train --model small --data DIR` trains on any folder of images, and
#   `.venv/bin/python -m course.predict` names what a trained model sees. With little data, start from `--pretrained` weights.
# - **Other models.** `resolution_sweep` takes any convolutional model of timm, and `receptive_field` its
#   `forward_features`. Does a ConvNeXt hold out better?
# - **The paper** ([arXiv 2106.04803](https://arxiv.org/abs/2106.04803)): you can now read all of it. Its appendix has the
#   choices that nobody talks about, and [`coatnet/`](../coatnet) has the models up to CoAtNet-7.
# - **Measure.** [`benchmarks/`](../benchmarks) has the scripts behind this course's numbers. Change one thing, and see.
