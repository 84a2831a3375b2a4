# %% [markdown]
# # Lesson 2 · A convolutional stem
#
# Your ViT starts with one giant step: from 8 x 8 x 3 pixels straight to a token, cut along lines
# that know nothing of the image. In this lesson three small convolutions take that step instead. The
# encoder behind them stays as it is. The result is the simplest **hybrid** of convolution and
# attention; we call it `CoAtNEt`, with a capital E: the first sketch of CoAtNet, and not yet that.
#
# You need lesson 1, `nn.Conv2d` and `nn.BatchNorm2d`. Plan on **50 minutes**: 25 for the exercises, 25 to
# read and to watch two models learn.

# %%
FULL = False  # True: both models 512 wide on CIFAR-100 at the end (days on a CPU; it says so first)

import math
from dataclasses import replace

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import coatnet
from course import plots, training
from course.checking import yours
from course.checks import lesson02 as check
from course.data import load_data, shape_texture_accuracy
from course.seeding import same_start
from vit import ClassificationHead, PatchEmbedding, TransformerEncoder, ViT

train, test = load_data("cifar100" if FULL else "shapetexture100")
print(f"{len(train):,} images to train, {len(test):,} to test, {len(train.classes)} classes")

# %% [markdown]
# ## 1 · Why several small steps
#
# What does a convolution know that a patch embedding does not?
#
# - **Neighbours belong together.** A 3 x 3 kernel looks at a pixel and its eight neighbours. What it
#   finds is combined by the next layer with what *its* neighbours found: edges, then corners, then
#   parts.
# - **Windows overlap.** A patch border that runs through the middle of a disc is no border for a
#   convolution.
# - **Something happens on the way.** Between pixels and token stand three nonlinearities where the
#   patch embedding has none.
#
# Each layer of our stem halves the image: stride 2, kernel 3, padding 1. From $H$ pixels remain
#
# $$H' = \left\lfloor \frac{H + 2 \cdot 1 - 3}{2} \right\rfloor + 1 = \left\lceil \frac{H}{2} \right\rceil ,
# \qquad 56 \to 28 \to 14 \to 7 .$$
#
# A token still stands for an 8 x 8 field, but it *sees* more. At stride 2, $n$ neighbours see
# $2(n - 1) + 3$ positions of the layer before: each next one starts two further on, and the last is 3
# wide. So, going back through the layers, one token sees 3, then 7, then 15: a window of 15 x 15 pixels,
# overlapping its neighbours' by half.
#
# Xiao et al. (2021, [arXiv 2106.14881](https://arxiv.org/abs/2106.14881)) put such a stem in front
# of a ViT and found that it trains more stably and faster. CoAtNet, too, begins with a convolutional
# stem, a shorter one.
#
# ### Exercise 1 · CNNStem (15 min, ★☆☆)
#
# Three times convolution, BatchNorm, GELU. Widths: 3 -> 64 -> 128 -> `num_hiddens`.
#
# <details><summary>Hint 1: one layer</summary>
#
# `nn.Conv2d(3, 64, kernel_size=3, stride=2, padding=1)`, `nn.BatchNorm2d(64)`, `nn.GELU()`.
# </details>
#
# <details><summary>Hint 2: all of it</summary>
#
# One `nn.Sequential` with nine layers: the three lines of hint 1, then the same with 64 -> 128, then
# with 128 -> `num_hiddens`. `forward` applies it.
# </details>


# %% tags=["exercise"]
class CNNStem(nn.Module):
    """[B, 3, H, W] -> [B, num_hiddens, H/8, W/8], rounded up"""

    def __init__(self, num_hiddens):
        super().__init__()
        # TODO: build a nn.Sequential stem with 3 convolutions of stride 2, kernel 3, padding 1,
        # each followed by BatchNorm and GELU; widths 3 -> 64 -> 128 -> num_hiddens
        ### BEGIN SOLUTION
        self.layers = nn.Sequential(
            nn.Conv2d(3, 64, kernel_size=3, stride=2, padding=1),  # [B, 64, H/2, W/2]
            nn.BatchNorm2d(64),
            nn.GELU(),
            nn.Conv2d(64, 128, kernel_size=3, stride=2, padding=1),  # [B, 128, H/4, W/4]
            nn.BatchNorm2d(128),
            nn.GELU(),
            nn.Conv2d(128, num_hiddens, kernel_size=3, stride=2, padding=1),
            nn.BatchNorm2d(num_hiddens),
            nn.GELU(),
        )
        ### END SOLUTION

    def forward(self, x):
        # TODO: apply the stem
        ### BEGIN SOLUTION
        return self.layers(x)  # [B, num_hiddens, H/8, W/8]
        ### END SOLUTION


# %% tags=["check"]
check.cnn_stem(CNNStem)

# %% [markdown]
# What does one token see? Take the token in the middle, and ask the gradient which pixels change it, and
# how much. Left the patch embedding, right your stem; white lines are the patch grid.

# %%
torch.manual_seed(0)
windows = {}
for name, module in (
    ("patch embedding", PatchEmbedding(56, 8, 512)),
    ("CNNStem", yours(CNNStem)(512)),
):
    pixels = torch.randn(16, 3, 56, 56, requires_grad=True)
    out = module.eval()(pixels)
    tokens = out if out.ndim == 3 else out.flatten(2).transpose(1, 2)  # [B, 49, 512]
    tokens[:, 24].square().sum().backward()
    windows[name] = pixels.grad.abs().mean(dim=(0, 1))  # [56, 56]
figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.8), layout="constrained")
for axis, (name, window) in zip(axes, windows.items()):
    picture = axis.imshow(window[16:40, 16:40] / window.max(), extent=(16, 40, 40, 16), vmin=0)
    axis.set(xticks=range(16, 41, 8), yticks=range(16, 41, 8), xlabel="column", ylabel="row")
    axis.grid(color="white", alpha=0.5)
    axis.set_title(f"{name}: {int((window.sum(0) > 0).sum())} pixels wide")
figure.colorbar(picture, ax=axes, label="mean gradient, of the largest")
paths = torch.ones(1, 1, 1)  # from one token back to the pixels, along one axis
for _ in range(3):
    paths = F.conv_transpose1d(paths, torch.ones(1, 1, 3), stride=2)
print("ways from each of 15 pixels to the token:", *paths.int().flatten().tolist())

# %% [markdown]
# The stem's window is 15 pixels wide, as computed. Its middle is the patch's *corner*: each layer pads
# one position in front, which is worth 1, 2 and 4 pixels, 7 together.
#
# And why the stripes? At stride 2 every other position lies in two windows of the next layer, the others
# in one. So from some pixels more ways lead to the token than from others, as the last line counts. Where
# there are three, the picture is bright; the dark cross runs through the pixel in the middle, from
# which only one way leads, although it is the middle.
#
# ## 2 · The hybrid
#
# Now put the stem where the patch embedding was. Its grid becomes a list of tokens just as before,
# and all else is lesson 1's ViT: CLS in front, positions, encoder, head.
#
# One thing changes on the quiet: **who decides how many tokens there are?** In the ViT it was
# `patch_size`. Here it is the stem, whose stride of 8 gives
#
# $$N = \left\lceil \frac{\mathrm{img\_size}}{8} \right\rceil^2 \qquad (+ 1 \text{ for CLS}).$$
#
# `patch_size` stays in the signature, so that both models are called alike, and has no effect.
#
# ### Exercise 2 · CoAtNEt (10 min, ★★☆)
#
# Imported for you: `TransformerEncoder(num_hiddens, depth, num_heads, mlp_dim, dropout)`, with an
# `mlp_dim` of 4 times `num_hiddens`, and `ClassificationHead(num_hiddens, num_classes)`.
#
# <details><summary>Hint 1: how many positions</summary>
#
# `math.ceil(img_size / 8) ** 2 + 1`. For 56 px: 7 x 7 = 49, and one for CLS.
# </details>
#
# <details><summary>Hint 2: from grid to list</summary>
#
# The stem gives `[B, D, h, w]`. As in the patch embedding: `.flatten(2).transpose(1, 2)`.
# </details>
#
# <details><summary>Hint 3: the rest of forward</summary>
#
# `self.cls_token.expand(len(x), -1, -1)` in front with `torch.cat(..., dim=1)`; add the positions;
# dropout; encoder; the head on `x[:, 0]`.
# </details>


# %% tags=["exercise"]
class CoAtNEt(nn.Module):
    """[B, 3, img_size, img_size] -> logits [B, num_classes]"""

    def __init__(
        self, img_size, patch_size, num_hiddens, num_heads, num_classes, depth=6, dropout=0.1
    ):
        super().__init__()
        # TODO: stem; CLS token and positions (random, times 0.02); dropout; encoder; classification head
        ### BEGIN SOLUTION
        self.stem = CNNStem(num_hiddens)
        num_tokens = math.ceil(img_size / 8) ** 2 + 1
        self.cls_token = nn.Parameter(torch.randn(1, 1, num_hiddens) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, num_tokens, num_hiddens) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.encoder = TransformerEncoder(num_hiddens, depth, num_heads, 4 * num_hiddens, dropout)
        self.head = ClassificationHead(num_hiddens, num_classes)
        ### END SOLUTION

    def forward(self, x):
        # TODO: stem, grid to list, CLS in front, positions, dropout, encoder, head
        ### BEGIN SOLUTION
        x = self.stem(x).flatten(2).transpose(1, 2)  # [B, N, D]
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)  # [B, 1 + N, D]
        x = self.encoder(self.dropout(x + self.positions))
        return self.head(x[:, 0])  # [B, num_classes]
        ### END SOLUTION


# %% tags=["check"]
check.coatnet_hybrid(CoAtNEt)

# %% [markdown]
# Take a size for real use: 512 wide, 6 blocks deep, and `patch_size=7` on images of 56 px. How many image
# tokens does the encoder get? And with a patch size of 14, or 56, the whole image as one patch?

# %%
Hybrid = yours(CoAtNEt)
for patch_size in (7, 14, 56):
    model = Hybrid(
        patch_size=patch_size, num_hiddens=512, num_heads=8, num_classes=100, img_size=56
    )
    count = sum(parameter.numel() for parameter in model.parameters())
    shape = list(model(torch.randn(2, 3, 56, 56)).shape)
    print(f"patch_size {patch_size:2}: {count:,} parameters, logits {shape}")

# %% [markdown]
# Three times the same model: 49 image tokens, whatever the patch size.
#
# ## 3 · The training loop, written out
#
# Predict, measure, differentiate, step: that is all. Here it is, on the smaller hybrid that we use from
# now on. A model that gives each of 100 classes the same chance has a loss of $\ln 100 \approx 4.6$. A
# fresh one starts near that, and may well be above it: its random logits have preferences, and nearly
# all of them are wrong.

# %% tags=["nbval-ignore-output"]
torch.manual_seed(0)
model = Hybrid(56, 8, num_hiddens=96, num_heads=4, num_classes=100, depth=3).train()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step, (images, targets) in enumerate(train.batches(batch_size=32, shuffle=True), start=1):
    logits = model(images)  # predict: [32, 100]
    loss = F.cross_entropy(logits, targets)  # measure: one number
    optimizer.zero_grad()
    loss.backward()  # differentiate: a gradient for each parameter
    optimizer.step()  # step: a little downhill
    if step in (1, 5, 10, 15, 20):
        print(f"step {step:2}: loss {loss.item():.2f}")
    if step == 20:
        break

# %% [markdown]
# `course.training.fit` is this loop with what one misses after the first hour: a progress bar, the
# accuracy on held-out images, the best device at hand, fixed seeds, a clear word when the loss
# becomes NaN. Interrupt the kernel while it runs, and the model keeps what it has learned.
#
# ## 4 · ViT against hybrid
#
# First the price. Same width, same depth, same number of tokens: what does the stem cost?

# %%
small = {"num_hiddens": 96, "num_heads": 4, "num_classes": 100, "depth": 3}
for name, module in (
    ("patch embedding", PatchEmbedding(56, 8, 96)),
    ("stem", yours(CNNStem)(96)),
    ("ViT", ViT(56, 8, **small)),
    ("hybrid", Hybrid(56, 8, **small)),
):
    with FlopCounterMode(display=False) as counter:
        module.eval()(torch.randn(1, 3, 56, 56))
    count = sum(parameter.numel() for parameter in module.parameters())
    print(
        f"{name:15}: {count:7,} parameters, {counter.get_total_flops() / 1e6:4.1f} MFLOP an image"
    )

# %% [markdown]
# The stem has ten times the weights of the patch embedding, and does more than twenty times its work. As
# a share of the whole that is less: the hybrid does twice the work of the ViT.
#
# Then the reward. Both train on the same images in the same order, for the same number of steps. Three
# times on the way, after every 70 steps (the bar calls that an epoch), they are tried on 500 images which
# they have never seen. "Held-out acc" counts an answer as right when shape *and* texture are.

# %% tags=["nbval-ignore-output"]
few = replace(test, images=test.images[:500], targets=test.targets[:500])
histories = {}
makers = {"ViT": (ViT, ViT), "hybrid": (Hybrid, coatnet.CoAtNEt)}  # yours, the reference
for name, (make, reference) in makers.items():
    print(f"{name}:")
    torch.manual_seed(0)
    if FULL:
        model = make(56, 8, num_hiddens=512, num_heads=8, num_classes=100, depth=6)
        training.estimate(model, train, epochs=50, batch_size=32)
        histories[name] = training.fit(model, train, test, epochs=50, batch_size=32, lr=3e-4)
    else:
        model, first = make(56, 8, **small), reference(56, 8, **small)
        model = same_start(model, first, torch.randn(2, 3, 56, 56))  # the same run for everybody
        histories[name] = training.fit(
            model, train, few, steps=210, steps_per_epoch=70, batch_size=32, lr=1e-3
        )

# %% tags=["nbval-ignore-output"]
plots.show_losses(histories)

# %% [markdown]
# The hybrid learns faster per step. *What* does it learn that the ViT does not? Mark each answer
# twice: was the texture right, was the shape right? Each point below is one of the three trials.

# %% tags=["nbval-ignore-output"]
if not FULL:
    paths = {
        name: [shape_texture_accuracy(e.held_out.predictions, few.targets) for e in history.epochs]
        for name, history in histories.items()
    }
    plots.show_shape_texture(paths)
    for name, path in paths.items():
        for trial, (shape, texture) in enumerate(path, start=1):
            print(f"{name:6}, trial {trial}: shape {shape:4.0%}, texture {texture:4.0%}")

# %% [markdown]
# Both read most textures in the end, the hybrid from the first trial on. The shape divides them: the
# hybrid gets many shapes right, the ViT hardly more than the 10 % of guessing.
#
# Convolutions see locally, so one might have bet on the opposite: better textures, not better shapes.
# But the textures are easy for both, and the encoder, which has to compare the five discs, is the
# same. It gets better tokens. What makes them better, question 5 asks, and its answer tests it.
#
# What the figure does *not* say: that a ViT can't learn shapes. It has seen 6,720 images; raise `steps`
# to 1,000 with `steps_per_epoch=200`, get a coffee, and look again: each run of the cell starts from fresh
# models. Nor that it takes convolutions. The ViT's positions start at 0.02, beside much larger tokens.
# Start them at 1 instead (`model.positions.data *= 50` before `fit`), and the ViT, too, gets most shapes
# in 210 steps, before it has all of the textures: a fresh model learns first what is loud. And equal
# steps are not equal work.
#
# ## What you have now
#
# - `CNNStem` and `CoAtNEt`, equal to the references in [`coatnet/hybrid.py`](../coatnet/hybrid.py)
# - a number to remember: stride 2 three times is 8, and *that* decides the number of tokens
# - a loop that trains, and a ruler with two scales, shape and texture
#
# ## Questions
#
# <details><summary>1. A stem of four such layers on images of 56 px: how many image tokens, and how many pixels
# wide is a token's window?</summary>
#
# 56, 28, 14, 7, and $\lceil 7/2 \rceil = 4$: 16 tokens. $2(15 - 1) + 3 = 31$ pixels.
# </details>
#
# <details><summary>2. Images of 60 px: how many positions does <code>CoAtNEt</code> need, and what does the ViT with patches
# of 8 px do?</summary>
#
# $\lceil 60/8 \rceil = 8$, so 64 tokens and CLS: 65. 8 does not divide 60, so that there is no such ViT: a
# convolution with padding rounds up, patches do not.
# </details>
#
# <details><summary>3. You take the biases out of the stem's three convolutions. What can the stem no longer
# compute?</summary>
#
# Nothing is lost. BatchNorm subtracts each channel's mean, a bias with it, and has an offset of its own.
# </details>
#
# <details><summary>4. The picture moves right by 8 pixels. What happens to the stem's grid, and what to the
# model's logits? And by 4 pixels?</summary>
#
# By 8: the grid moves right by one token, but for the border. The logits change all the same, since
# every token now gets another position. By 4: no token shows what any token showed before; half a step of
# the grid does not exist.
# </details>
#
# <details><summary>5. Three things tell the stem from the patch embedding: its windows overlap, it has three
# nonlinearities, and BatchNorm. How do you find out which of them brings the shapes sooner?</summary>
#
# Take out one and leave the rest. With `kernel_size=2, padding=0` the windows no longer overlap; all else
# stays. (Put that into your `CNNStem`, set `Hybrid = CoAtNEt`, and leave out `same_start`.) We did so for
# two seeds: textures come as soon as before, but after 210 steps the shapes are nearly where the ViT's
# are. So it is the windows. Why windows that overlap help, this does not say. A guess: a disc that moves
# by one pixel is cut along other lines by patches, and looks much the same through windows that overlap.
# </details>
#
# Still open is the second wish of lesson 1: the positions fit one image size only. And the stem's
# convolutions are of the plain, expensive kind. In lesson 3 you build the block that CoAtNet uses
# instead: **MBConv**.
