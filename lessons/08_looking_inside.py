# %% [markdown]
# # Lesson 8 · Looking inside
#
# A trained network is a few hundred thousand numbers that nobody chose. What has it learned? In this lesson you
# take three models of this course apart: where they look, what their position biases have become, how far each
# layer sees. Then you damage the images, shift them, cover them, resize them, and watch which model holds out.
# Lesson 1 made some claims about convolutions and attention. Here they are put to the test.
#
# You need lessons 4 and 5, or at least their models, which are imported below. Plan on **80 minutes**.

# %%
FULL = False  # True: 20 times as many steps of training (a quarter of an hour on two CPU cores)

import copy
import io
from contextlib import redirect_stdout

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

from coatnet import HEAD_DIM, CoAtNEt, CoAtNet, CoAtNetConfig, fetch, from_timm
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
# A ViT, the hybrid of lesson 2, and a staged C-C-T-T, each with about a third of a million parameters. The number of steps is
# such that all three train for about equally long, some 15 seconds on two CPU cores. We keep a copy of the
# staged model from before training, to compare with.

# %% tags=["nbval-ignore-output"]
CONFIG = CoAtNetConfig(stem_widths=(16, 16), depths=(1, 1, 2, 1), widths=(16, 36, 64, 128))


def trained(model, lr, steps):
    """Trains the model, says how well it does on unseen images, and returns it in eval mode"""
    steps = 20 * steps if FULL else steps
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.05)
    options = {"optimizer": optimizer, "schedule": training.warmup_cosine}
    with redirect_stdout(io.StringIO()):
        history = training.fit(model, train, steps=steps, steps_per_epoch=steps, **options)
    predictions = training.evaluate(model, test).predictions
    shape, texture = shape_texture_accuracy(predictions, test.targets)
    size = sum(p.numel() for p in model.parameters())
    print(
        f"{type(model).__name__:8} {size:,} parameters, {history.seconds:3.0f} s: "
        f"shape {shape:4.0%}, texture {texture:4.0%}"
    )
    return model.cpu().eval()


torch.manual_seed(0)
fresh = CoAtNet(CONFIG, num_classes=100, image_size=56).eval()
vit = trained(ViT(56, 8, 96, 4, 100, depth=3), lr=1e-3, steps=300)
hybrid = trained(CoAtNEt(56, 8, 64, 4, 100, depth=2), lr=2e-3, steps=400)
staged = trained(copy.deepcopy(fresh), lr=2e-3, steps=500)
MODELS = {"ViT": vit, "hybrid": hybrid, "staged": staged}

# %% [markdown]
# The ViT reads textures and as good as no shapes, as in lesson 1. The other two do both.
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
# At 56 pixels S3 has 4 x 4 places, and S4 2 x 2. Below, one place looks, outlined in orange: in the upper row in S3's two
# blocks with two heads each, in the lower row in S4's block with four heads. Bright is where much weight lies.

# %% tags=["nbval-ignore-output"]
read = yours(attention_weights)
image = test.images[42:43]
maps = []  # for each block: its name, and its weights [heads, N, N]
with torch.no_grad():
    x = staged.stem(test.normalise(image))
    for s, stage in enumerate(staged.stages, start=1):
        for b, block in enumerate(stage, start=1):
            if hasattr(block, "attention"):
                maps.append((f"S{s}, block {b}", read(block, x)[0]))
            x = block(x)
figure, axes = plt.subplots(2, 5, figsize=(9, 4), layout="constrained")
panels = [(name, h, weights[h]) for name, weights in maps for h in range(len(weights))]
for row, (side, query) in enumerate(((4, 5), (2, 0))):  # the place that looks: row 1, column 1
    axes[row, 0].imshow(plots.to_pixels(image[0]), extent=(0, side, side, 0))
    for axis, (name, h, weights) in zip(axes[row, 1:], panels[4 * row : 4 * row + 4]):
        axis.imshow(weights[query].reshape(side, side), extent=(0, side, side, 0), vmin=0)
        axis.set_title(f"{name}, head {h + 1}\nlargest {weights[query].max():.2f}", fontsize=9)
    for axis in axes[row]:
        corner = (query % side, query // side)
        axis.add_patch(plt.Rectangle(corner, 1, 1, fill=False, ec=plots.COLOURS[1], lw=2))
        axis.axis("off")

# %% [markdown]
# Heads are of different opinions. Some weights are nearly even over half of the image, others go to one place: in S4 a
# head may send everything to a single quarter. Much of it goes to the dark background, where there is nothing to see. That is
# no mistake. Where discs are *missing* is half of what tells one shape from another.
#
# One warning: such pictures show where a head looks, not what for, nor whether the answer depends on it.
#
# ## 3 · What the bias has become
#
# Relative attention adds two things before the softmax: what the contents have to say, and a number $w_{i-j}$ for
# the offset. A convolution is all $w$. So: has training made kernels of the biases? Each picture below is a head's table
# in S3, seen from the place in its middle: the colour says by how much it favours, before any content counts, the
# place that lies there. Above before training, below after it.

# %% tags=["nbval-ignore-output"]
figure, axes = plt.subplots(2, 4, figsize=(9, 4.4), layout="constrained")
for row, (label, model) in enumerate((("before", fresh), ("after", staged))):
    tables = torch.cat([b.attention.position_bias.table.detach() for b in model.stages[2]])
    for column, table in enumerate(tables):  # [7, 7], query minus key
        axis = axes[row, column]
        kernel = table.flip(0, 1)  # key minus query: where the other place lies
        shown = axis.imshow(
            kernel, cmap="RdBu_r", vmin=-0.3, vmax=0.3, extent=(-3.5, 3.5, 3.5, -3.5)
        )
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
# Something has been learned: the noise of the beginning has become slopes, four times as strong. A head prefers what lies
# below to what lies above, or one side to the other. But a *convolution's* kernel, with its weight on the nearest neighbours,
# it is not. None of the heads has its peak in the middle. And it is the small part of the sum: contents differ by several times as
# much, so that they decide most. Two stages of MBConv stand in front of these blocks, and have done what is to be
# done among neighbours.
#
# These are small tables of a small model. If you have a network, look at those of CoAtNet-0-rw after ImageNet, 27 x 27 offsets:

# %% tags=["nbval-ignore-output"]
try:
    large = from_timm(fetch("coatnet_0_rw_224"))
    table = large.stages[2][0].attention.position_bias.table.detach().flip(1, 2)[:6]
    figure, axes = plt.subplots(1, 6, figsize=(9, 1.9), layout="constrained")
    for h, (axis, kernel) in enumerate(zip(axes, table)):
        limit = kernel.abs().max()
        axis.imshow(kernel, cmap="RdBu_r", vmin=-limit, vmax=limit)
        axis.set_title(f"head {h + 1}, up to {limit:.1f}", fontsize=8)
        axis.axis("off")
except ConnectionError as error:
    print(error)

# %% [markdown]
# ## 4 · How far it sees
#
# Take one number deep in the network. Which pixels does it depend on, and how much? Autograd knows: the gradient of that
# number with respect to the image. Its size, pixel by pixel, is the **effective receptive field** (Luo et al. 2017,
# [arXiv 1701.04128](https://arxiv.org/abs/1701.04128)): what a place *does* see, not what it could see.
#
# ### Exercise 2 · Effective receptive field (15 min, ★★☆)
#
# `features` maps images [B, 3, H, W] to a grid [B, C, h, w]. Take the place in its middle, row `h // 2` and column
# `w // 2`, and add up its channels, over all images too. The gradient of that sum with respect to the images is [B, 3, H, W].
# Take absolute values, then the mean over images and colours, and divide by the sum, so that the shares of all pixels add up to 1.
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
# blocks. Below each picture stands how far the pixels are that count: the root of the mean squared distance from the field's
# centre.


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
        (f"{b} block" + "s" * (b != 1), lambda x, b=b: vit_grid(x, b)) for b in range(4)
    ],
}
fields = {
    row: [(name, field_of(function, images)) for name, function in columns]
    for row, columns in ROWS.items()
}

# %% tags=["nbval-ignore-output"]
figure, axes = plt.subplots(3, 5, figsize=(9, 6), layout="constrained")
for row, (label, columns) in zip(axes, fields.items()):
    for axis in row:
        axis.axis("off")
    for axis, (name, field) in zip(row, columns):
        shares = field.flatten()
        centre = shares @ places
        distance = (shares @ (places - centre).square().sum(dim=1)).sqrt()
        axis.imshow(field.sqrt())  # the root, so that small shares can be seen
        axis.set_title(f"{label}\n{name}: {distance:.1f} px", fontsize=9)

# %% [markdown]
# - **Convolutions see locally, at first by design.** S0 to S2 see small squares that grow from stage to stage, before
#   training as after it. The faint glow around them is squeeze-excite: its gates depend on the mean of the whole image.
# - **Attention sees everything from its first block on.** In S3 the field fills the image, but training draws it together:
#   what is near counts more, and more so than before training.
# - **The ViT** goes from its own patch to everything in one step. Yet the brightest patch remains its own, block after block:
#   the residual path carries it through, and all others are of about equal weight. It does not know what *near* means.
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
# From left to right, *what* gives way to *where*. In S0 the three rows show stripes, checks and crosses. In S1 the discs have
# become blobs with some texture in them. In S3 and S4 the three rows look alike, though one image is striped and another is
# checked: this channel tells where discs are. (Others tell the texture. There are 64 in S3, and this is one.)
#
# ## 6 · What it withstands
#
# A model that has learned the right thing should not mind where an object stands, or that a part of it is hidden. Three kinds of
# damage, from [`course/robustness.py`](../course/robustness.py), to 500 unseen images:
#
# - **shift** right and down, by some pixels (in training, shapes moved by about one)
# - **occlusion**, a grey square at a random place
# - **shuffling**: the image cut into square patches, laid out in another order
#
# and three questions: how often is the shape right, how often the texture, and for which model?

# %% tags=["nbval-ignore-output"]
clean, targets = test.normalise(test.images[:500]), test.targets[:500]
DAMAGE = {
    "shift (px)": (shift, (0, 1, 2, 4, 6, 8, 12)),
    "occluded square (px)": (occlude, (0, 8, 16, 24, 32)),
    "side of shuffled patches (px)": (shuffle_patches, (56, 28, 14, 8, 4)),
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
axes[0, 1].legend()
axes[1, 0].set(ylabel="texture right (%)")
axes[0, 0].set_ylabel("shape right (%)")
bottom, top = axes[0, 0].set_ylim(0, 103)

# %% [markdown]
# Much to see, and some of it unexpected:
#
# - **Shift.** One pixel, as in training, costs little. Two to four pixels are hard on all. And then look at 8: the ViT
#   reads textures again, the hybrid gets shapes back. 8 pixels is the ViT's patch and the stem's stride. The patches are
#   then the same as before, only elsewhere. A convolution *with a stride* sees all places alike only if the shift
#   fits its stride; and that of the staged model is 32 in the end.
# - **Occlusion.** Shapes survive it longest in the hybrid. A square of 16 pixels, a twelfth of the image, costs
#   some shapes and few textures; one of 32, a third of it, hides most.
# - **Shuffling.** With patches of exactly 8 pixels, the ViT reads textures as well as ever: it cannot tell the difference,
#   since it looks at each patch by itself. Everybody's shapes are gone, as they should be. Other sizes cut through the ViT's
#   own patches, and textures suffer.
#
# One seed each, 500 images: a difference of five points may be luck. [`benchmarks/robustness.py`](../benchmarks/robustness.py)
# repeats this with three seeds, and with photographs; [its tables](../benchmarks/robustness.md) stand beside it.
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
# chance is 1 %.

# %% tags=["nbval-ignore-output"]
SIZES = (40, 48, 56, 64, 72, 80)
sweep = yours(resolution_sweep)
figure, axis = plt.subplots(figsize=(7, 3.4), layout="constrained")
for (name, model), colour, marker in zip(MODELS.items(), plots.COLOURS, plots.MARKERS):
    shares = []
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
# Runs at any size: yes. Right at any size: no. Eight pixels more or fewer, and more than half of the staged model's answers are wrong. A
# texture resized has another period, so that for these images size *is* content; and nothing has ever shown the model another
# one. The staged model loses least near its own size, and beyond that nobody does well. Where a model is to work at several
# sizes, it should see them in training, or be fine-tuned for some steps. Relative positions make that possible without surgery.
#
# ## 8 · Lesson 1's claims, one by one
#
# | claim | test | what came out |
# |---|---|---|
# | a texture shows in a single patch | shuffle the ViT's patches | yes: it reads textures as before |
# | for shapes, patches have to be compared across the image, and there a young ViT has a handicap | shapes after equally long training | yes, at this budget: near chance, the other two above 90 % |
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
