# %% [markdown]
# # Lesson 1 · A Vision Transformer in five pieces
#
# CoAtNet marries convolution and attention. Before the wedding we meet the second half of the
# couple: you build a **Vision Transformer** (ViT) piece by piece, look at what each piece does, and
# find out at the end what it lacks. Everything after this lesson is about supplying just that.
#
# You need PyTorch's `nn.Module`, `nn.Linear`, `nn.Conv2d` and broadcasting. Plan on **90 minutes**: 65
# for the exercises, 25 to read and to look.
#
# How a lesson works:
#
# - Cells with **TODO** are yours. Replace `pass  # your code here` by code.
# - The one-line cell below each exercise checks it. It compares *values*, not just shapes: your
#   class and a reference get the same random weights and must return the same numbers. Names and
#   style are up to you.
# - Stars say how hard: ★☆☆ follows from the text above it, ★★☆ takes a thought of your own, ★★★ paper
#   and pencil. The minutes are for somebody who meets it for the first time.
# - Stuck? Unfold the hints: first a nudge, then nearly the answer. Or go on: every other cell falls
#   back on the reference until your own version passes, and *Run All* goes on below open exercises.
#
# Shapes are written like `[B, N, D]`: **B** images, **N** tokens, **D** features a token.

# %%
FULL = False  # True: train on CIFAR-100 for 50 epochs at the end (hours; it says how many first)

import torch
from torch import nn

import vit
from course import plots, training
from course.checking import yours
from course.checks import lesson01 as check
from course.data import load_data, shape_texture_accuracy
from course.seeding import same_start
from vit import ClassificationHead

train, test = load_data("cifar100" if FULL else "shapetexture100")
print(f"{len(train):,} images to train, {len(test):,} to test, {len(train.classes)} classes")

# %% [markdown]
# The images are the course's own: each class is one of 10 **shapes** (how five discs are arranged
# over the whole image) with one of 10 **textures** (what fills each disc). You see a texture by
# looking at any one disc; for the shape you have to look at all five. Remember this: it will tell
# apart models that look *closely* from models that look *around*.

# %%
some = range(0, 100, 9)
plots.show_images(train.images[some], [train.classes[train.targets[i]] for i in some])

# %% [markdown]
# ## 1 · From an image to tokens
#
# A transformer reads a *sequence of vectors*. A ViT makes one from an image in the plainest way
# there is: cut the image into square patches, and send the pixels $x_i$ of each patch through one
# and the same linear map,
#
# $$z_i = E\,x_i + b, \qquad x_i \in \mathbb{R}^{C p^2},\quad z_i \in \mathbb{R}^{D}.$$
#
# Patches are numbered like words on a page: row by row from the top left. (`patch_size` has to divide
# the image's size; otherwise the last row and column of pixels would belong to no patch.)

# %%
plots.show_patches(train.images[0], patch_size=8)

# %% [markdown]
# ### Exercise 1 · Patch embedding (10 min, ★☆☆)
#
# "The same linear map for every patch" is what a convolution does whose kernel is as large as a
# patch and whose stride takes it from patch to patch without overlap. It returns a grid; the
# transformer wants a list.
#
# <details><summary>Hint 1: the convolution</summary>
#
# `nn.Conv2d(in_channels, num_hiddens, kernel_size=..., stride=...)`: both are `patch_size`.
# Its result is `[B, D, rows, columns]`.
# </details>
#
# <details><summary>Hint 2: from grid to list</summary>
#
# `x.flatten(2)` joins all axes from number 2 on: `[B, D, N]`. `x.transpose(1, 2)` swaps two axes:
# `[B, N, D]`. A `reshape` to `[B, N, D]` has the right shape too, and scrambles the image: try it,
# and read what the check says.
# </details>


# %% tags=["exercise"]
class PatchEmbedding(nn.Module):
    """[B, in_channels, img_size, img_size] -> [B, num_patches, num_hiddens]"""

    def __init__(self, img_size, patch_size, num_hiddens, in_channels=3):
        super().__init__()
        # TODO: self.num_patches, the number of patches in an image
        # TODO: a nn.Conv2d that maps each patch to num_hiddens features
        ### BEGIN SOLUTION
        self.num_patches = (img_size // patch_size) ** 2
        self.proj = nn.Conv2d(in_channels, num_hiddens, kernel_size=patch_size, stride=patch_size)
        ### END SOLUTION

    def forward(self, x):
        # TODO: apply it, and turn the grid into a list: row by row, one token a patch
        ### BEGIN SOLUTION
        x = self.proj(x)  # [B, D, rows, columns]
        return x.flatten(2).transpose(1, 2)  # [B, N, D]
        ### END SOLUTION


# %% tags=["check"]
check.patch_embedding(PatchEmbedding)

# %%
torch.manual_seed(0)
embed = yours(PatchEmbedding)(img_size=56, patch_size=8, num_hiddens=64)
tokens = embed(train.normalise(train.images[:1])).detach()
print("image ", list(train.images[:1].shape), "=", train.images[0].numel(), "numbers")
print("tokens", list(tokens.shape), "=", tokens[0].numel(), "numbers")

# %% [markdown]
# ## 2 · One attention head
#
# Now the tokens talk. Each token $x_i$ asks a question (a **query** $q_i$), offers a description
# of itself (a **key** $k_i$), and has something to say (a **value** $v_i$). Query $i$ is compared with all keys;
# a softmax turns the comparisons into shares; the result is the values, averaged by these shares:
#
# $$
# A_{ij} = \operatorname*{softmax}_{j} \left( \frac{q_i \cdot k_j}{\sqrt{d}} \right), \qquad
# y_i = \sum_j A_{ij} \, v_j .
# $$
#
# Two details carry all the weight. The softmax runs over $j$, the keys, so that each *row* of $A$
# sums to 1. And the scores are divided by $\sqrt{d}$, with $d$ the width of the **head**: a dot
# product of $d$ random numbers spreads like $\sqrt{d}$, and a softmax over numbers far apart gives
# everything to one winner. From there no small change of a score changes anything: there is no
# gradient to learn from. See for yourself, with 200 random queries for each width, and 49 keys each:

# %%
torch.manual_seed(0)
print("           largest share       gradient of the shares")
print("           raw    scaled       raw    scaled      (medians)")
for d in (16, 64, 256, 1024):
    query, keys = torch.randn(200, d, 1), torch.randn(200, 49, d)
    scores = (keys @ query).squeeze(-1)  # [200, 49]
    largest, gradient = [], []
    for scale in (1, d**-0.5):
        shares = (scores * scale).softmax(dim=-1)
        largest.append(shares.amax(dim=-1).median())
        # How much share i changes with score j: p_i for i = j, minus p_i p_j
        slopes = torch.diag_embed(shares) - shares[:, :, None] * shares[:, None, :]
        gradient.append(slopes.norm(dim=(1, 2)).median())
    print(
        f"d = {d:4}   {largest[0]:.2f}   {largest[1]:.2f}         {gradient[0]:.3f}  {gradient[1]:.3f}"
    )

# %% [markdown]
# Scaled, the width makes no difference. Raw, the winner takes the more the wider the head is. A narrow
# head does not suffer yet; from $d = 64$ on there is less and less left to learn from, and at $d = 1024$
# nothing.
#
# ### Exercise 2 · Attention head (15 min, ★★☆)
#
# Write the two equations as two methods: `attention` for $A$, `forward` for $y$. Dropout is applied
# to $A$: in training, a token sometimes overlooks another.
#
# <details><summary>Hint 1: what goes into __init__</summary>
#
# Three `nn.Linear(dim, head_dim, bias=False)`, for query, key and value; a `nn.Dropout(dropout)`;
# and the scale, `head_dim**-0.5`.
# </details>
#
# <details><summary>Hint 2: all dot products at once</summary>
#
# With `q` and `k` both `[B, N, head_dim]`, `q @ k.transpose(-2, -1)` is `[B, N, N]`: row = query,
# column = key. Scale it, then `.softmax(dim=-1)`. In `forward`, `attention @ v`.
# </details>


# %% tags=["exercise"]
class AttentionHead(nn.Module):
    """[B, N, dim] -> [B, N, head_dim]"""

    def __init__(self, dim, head_dim, dropout=0.1):
        super().__init__()
        # TODO: three linear maps without bias, for query, key and value; the scale; dropout
        ### BEGIN SOLUTION
        self.query = nn.Linear(dim, head_dim, bias=False)
        self.key = nn.Linear(dim, head_dim, bias=False)
        self.value = nn.Linear(dim, head_dim, bias=False)
        self.scale = head_dim**-0.5
        self.dropout = nn.Dropout(dropout)
        ### END SOLUTION

    def attention(self, x):
        # TODO: the weights A, [B, N, N]: compare queries with keys, scale, softmax
        ### BEGIN SOLUTION
        scores = self.query(x) @ self.key(x).transpose(-2, -1)  # [B, N, N]
        return (scores * self.scale).softmax(dim=-1)
        ### END SOLUTION

    def forward(self, x):
        # TODO: average the values by the weights, after dropout
        ### BEGIN SOLUTION
        return self.dropout(self.attention(x)) @ self.value(x)  # [B, N, head_dim]
        ### END SOLUTION


# %% tags=["check"]
check.attention_head(AttentionHead)

# %% [markdown]
# Here is your head at work. It has learned nothing yet: the patch in the middle looks where the dice
# of the initial weights send it, and mostly everywhere: note the scale. Each patch with the same pixels
# gets the same share, since the head sees *what* a token is and not *where*. Move the slider to let
# another patch look; take another seed, and everybody looks elsewhere.

# %%
torch.manual_seed(1)
head = yours(AttentionHead)(dim=64, head_dim=16)
weights = head.attention(tokens)[0]  # [N, N]
plots.with_slider(
    lambda query: plots.show_attention(train.images[0], weights, query), query=(0, 48, 24)
)

# %% [markdown]
# ## 3 · Several heads
#
# One head has one way of looking. A block has $h$ heads side by side, each with three maps of its own.
# Each head reads the *whole* token, all $D$ numbers, and writes $d = D / h$. What they write is
# concatenated, head after head, which makes $D$ numbers again, and a last linear map $W_o$ mixes them:
#
# $$\operatorname{MultiHead}(x) = W_o\,[\,\text{head}_1(x);\ \dots;\ \text{head}_h(x)\,] + b_o.$$
#
# ### Exercise 3 · Multi-head attention (10 min, ★☆☆)
#
# Use your `AttentionHead`. PyTorch only finds parameters of modules that stand in an attribute, a
# `nn.Sequential` or a `nn.ModuleList`; in a plain list they would be forgotten, and never trained.
#
# <details><summary>Hint 1: the heads</summary>
#
# `nn.ModuleList(AttentionHead(...) for _ in range(num_heads))`, each of width
# `num_hiddens // num_heads`. Hand `dropout` on.
# </details>
#
# <details><summary>Hint 2: joining them</summary>
#
# `torch.cat([head(x) for head in self.heads], dim=-1)`, then `nn.Linear(num_hiddens, num_hiddens)`.
# </details>


# %% tags=["exercise"]
class MultiHeadAttention(nn.Module):
    """[B, N, num_hiddens] -> [B, N, num_hiddens]"""

    def __init__(self, num_hiddens, num_heads, dropout=0.1):
        super().__init__()
        # TODO: num_heads heads that share the width evenly, and a projection
        ### BEGIN SOLUTION
        head_dim = num_hiddens // num_heads
        self.heads = nn.ModuleList(
            AttentionHead(num_hiddens, head_dim, dropout) for _ in range(num_heads)
        )
        self.proj = nn.Linear(num_hiddens, num_hiddens)
        ### END SOLUTION

    def forward(self, x):
        # TODO: concatenate what the heads return, and project
        ### BEGIN SOLUTION
        x = torch.cat([head(x) for head in self.heads], dim=-1)  # [B, N, D]
        return self.proj(x)
        ### END SOLUTION


# %% tags=["check"]
check.multi_head(MultiHeadAttention)

# %% [markdown]
# What do more heads cost? Guess before you run this: sixteen heads against one.

# %%
Attention = yours(MultiHeadAttention)
for num_heads in (1, 2, 4, 8, 16):
    attention = Attention(num_hiddens=64, num_heads=num_heads)
    count = sum(parameter.numel() for parameter in attention.parameters())
    print(f"{num_heads:2} heads of width {64 // num_heads:2}: {count:,} parameters")

# %% [markdown]
# Nothing: $h$ heads of width $D / h$ have the same three $D \times D$ maps as one head of width $D$, cut
# into strips. What one pays is hidden: a head of width 4 compares tokens by 4 numbers only.
#
# ## 4 · The encoder block
#
# Attention moves information *between* tokens. A small MLP then works on each token by itself: widen,
# bend, narrow. The bend is **GELU**, a ReLU with a soft corner: $a \cdot \Phi(a)$, with $\Phi$ the
# normal distribution's share below $a$. Before each step stands a **LayerNorm**: it gives the $D$ numbers
# of each token mean 0 and variance 1, then a learned factor and offset for each of the $D$. The pattern
# is the same for both steps: **norm before, residual around**,
#
# $$
# \begin{aligned}
# x' &= x + \operatorname{MultiHead}(\operatorname{LN}(x)) \\
# x'' &= x' + \operatorname{MLP}(\operatorname{LN}(x')) .
# \end{aligned}
# $$
#
# The residual path from input to output stays free of norms ("pre-norm"). The original transformer
# put the norm after the sum; pre-norm trains deep stacks with less care.
#
# ### Exercise 4 · Feed-forward (5 min, ★☆☆)
#
# Linear to `mlp_dim`, GELU, dropout, linear back, dropout.
#
# <details><summary>Hint</summary>
#
# All five are modules: `nn.Linear`, `nn.GELU()`, `nn.Dropout(dropout)`. A `nn.Sequential` takes them
# in order.
# </details>


# %% tags=["exercise"]
class FeedForward(nn.Module):
    """[B, N, num_hiddens] -> [B, N, num_hiddens]"""

    def __init__(self, num_hiddens, mlp_dim, dropout=0.1):
        super().__init__()
        # TODO: linear, GELU, dropout, linear, dropout
        ### BEGIN SOLUTION
        self.net = nn.Sequential(
            nn.Linear(num_hiddens, mlp_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp_dim, num_hiddens),
            nn.Dropout(dropout),
        )
        ### END SOLUTION

    def forward(self, x):
        # TODO
        ### BEGIN SOLUTION
        return self.net(x)
        ### END SOLUTION


# %% tags=["check"]
check.feed_forward(FeedForward)

# %% [markdown]
# ### Exercise 5 · Encoder block (10 min, ★★☆)
#
# Put the two together as in the equations above. Each step has a `nn.LayerNorm` of its own.
#
# <details><summary>Hint 1: the parts</summary>
#
# Four modules: `nn.LayerNorm(num_hiddens)`, `MultiHeadAttention(...)`, another `nn.LayerNorm`,
# `FeedForward(...)`. Hand `dropout` on to both.
# </details>
#
# <details><summary>Hint 2: the first line of forward</summary>
#
# `x = x + self.attention(self.norm1(x))`. The second has the same form.
# </details>


# %% tags=["exercise"]
class EncoderBlock(nn.Module):
    """[B, N, num_hiddens] -> [B, N, num_hiddens]"""

    def __init__(self, num_hiddens, num_heads, mlp_dim, dropout=0.1):
        super().__init__()
        # TODO: two norms, the attention, the feed-forward
        ### BEGIN SOLUTION
        self.norm1 = nn.LayerNorm(num_hiddens)
        self.attention = MultiHeadAttention(num_hiddens, num_heads, dropout)
        self.norm2 = nn.LayerNorm(num_hiddens)
        self.feed_forward = FeedForward(num_hiddens, mlp_dim, dropout)
        ### END SOLUTION

    def forward(self, x):
        # TODO: norm, attention, residual; norm, feed-forward, residual
        ### BEGIN SOLUTION
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))
        ### END SOLUTION


# %% tags=["check"]
check.encoder_block(EncoderBlock)

# %% [markdown]
# What are the residuals for? Attention takes averages, and an average of averages soon is the same for
# everybody. Here 49 random tokens, very different from each other, go through six blocks: once as they
# should, once with both residual paths cut, and then through their attentions or their MLPs alone. How
# alike are two tokens, on average? 0 is unrelated, 1 is the same direction.

# %%
torch.manual_seed(0)
norm, others = nn.LayerNorm(64), ~torch.eye(49, dtype=torch.bool)
Attend, MLP = yours(MultiHeadAttention), yours(FeedForward)
parts = [(Attend(64, 4, dropout=0.0), MLP(64, 256, dropout=0.0)) for _ in range(6)]


def block(x, attend, mlp):
    x = x + attend(norm(x))
    return x + mlp(norm(x))


steps = {
    "with residuals": block,
    "without": lambda x, attend, mlp: mlp(norm(attend(norm(x)))),
    "attention alone": lambda x, attend, mlp: attend(norm(x)),
    "MLP alone": lambda x, attend, mlp: mlp(norm(x)),
}
start, alike = torch.randn(1, 49, 64), {}
for name, step in steps.items():
    x, alike[name] = start, []
    for attend, mlp in parts:
        x = step(x, attend, mlp).detach()  # [1, 49, 64]
        directions = nn.functional.normalize(x[0], dim=-1)
        alike[name].append((directions @ directions.T)[others].mean().item())
    print(f"{name:15}", " ".join(f"{value:.2f}" for value in alike[name]))

# %% [markdown]
# Cut the paths, and after two blocks all tokens are one. It is the attention that does it, as it does
# alone; MLPs alone take much longer. (Dong et al. 2021 study this collapse and prove it for pure attention:
# [arXiv 2103.03404](https://arxiv.org/abs/2103.03404).)
#
# ## 5 · The whole ViT
#
# Two things are missing. Attention does not know **where** a token came from, so each place gets a
# learned vector, the *position*, that is added to its token. And something has to be read out at the
# end: one extra learned token, **CLS**, is put in front of all others, travels along, gathers what it
# needs, and goes to the classifier.
#
# $$
# z = [\,\text{CLS};\ z_1;\ \dots;\ z_N\,] + P, \qquad P \in \mathbb{R}^{(N+1) \times D}
# $$
#
# The order matters: CLS joins first, then positions are added to all $N + 1$ tokens.
#
# The encoder is a stack of your blocks, nothing else:


# %%
class TransformerEncoder(nn.Sequential):
    """`depth` encoder blocks in a row: [B, N, D] -> [B, N, D]"""

    def __init__(self, num_hiddens, depth, num_heads, mlp_dim, dropout=0.1):
        super().__init__(
            *(EncoderBlock(num_hiddens, num_heads, mlp_dim, dropout) for _ in range(depth))
        )


# %% [markdown]
# ### Exercise 6 · Vision Transformer (15 min, ★★★)
#
# The encoder's `mlp_dim` is 4 times `num_hiddens`. `ClassificationHead(num_hiddens, num_classes)`,
# a norm and a linear layer on `[B, D]`, is imported for you.
#
# <details><summary>Hint 1: learned vectors</summary>
#
# `nn.Parameter(torch.randn(1, 1, num_hiddens) * 0.02)` for CLS, and the same with
# `num_patches + 1` in the middle for the positions. A plain tensor would not be trained.
# </details>
#
# <details><summary>Hint 2: one CLS for each image</summary>
#
# `self.cls_token.expand(len(x), -1, -1)` is `[B, 1, D]`; `torch.cat([cls, x], dim=1)` puts it in
# front: `[B, 1 + N, D]`.
# </details>
#
# <details><summary>Hint 3: the whole forward</summary>
#
# Patches; CLS in front; add positions; dropout; encoder; the head on `x[:, 0]`.
# </details>


# %% tags=["exercise"]
class ViT(nn.Module):
    """[B, 3, img_size, img_size] -> logits [B, num_classes]"""

    def __init__(
        self, img_size, patch_size, num_hiddens, num_heads, num_classes, depth=6, dropout=0.1
    ):
        super().__init__()
        # TODO: patch embedding; CLS token and positions (each a nn.Parameter that starts at random,
        # times 0.02); dropout; encoder; classification head
        ### BEGIN SOLUTION
        self.patches = PatchEmbedding(img_size, patch_size, num_hiddens)
        num_tokens = self.patches.num_patches + 1
        self.cls_token = nn.Parameter(torch.randn(1, 1, num_hiddens) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, num_tokens, num_hiddens) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.encoder = TransformerEncoder(num_hiddens, depth, num_heads, 4 * num_hiddens, dropout)
        self.head = ClassificationHead(num_hiddens, num_classes)
        ### END SOLUTION

    def forward(self, x):
        # TODO: patches, CLS in front, positions, dropout, encoder; the head reads CLS
        ### BEGIN SOLUTION
        x = self.patches(x)  # [B, N, D]
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)  # [B, 1 + N, D]
        x = self.encoder(self.dropout(x + self.positions))
        return self.head(x[:, 0])  # [B, num_classes]
        ### END SOLUTION


# %% tags=["check"]
check.vision_transformer(ViT)

# %% [markdown]
# You have a Vision Transformer. Does it learn? It gets 200 batches of training images. Then it is tried
# on test images, which it has never seen. (`same_start` gives your model the first weights that the
# reference draws from this seed, so that everybody sees the same run.) Each answer is marked twice, for the shape and for the
# texture; guessing gets 10 % of either.

# %% tags=["nbval-ignore-output"]
torch.manual_seed(0)
if FULL:
    model = yours(ViT)(img_size=56, patch_size=7, num_hiddens=512, num_heads=8, num_classes=100)
    training.estimate(model, train, epochs=50, batch_size=32)
    training.fit(model, train, test, epochs=50, batch_size=32, lr=3e-4)
else:
    sizes = {"num_hiddens": 96, "num_heads": 4, "num_classes": 100, "depth": 3}
    model, first = yours(ViT)(56, 8, **sizes), vit.ViT(56, 8, **sizes)
    model = same_start(model, first, torch.randn(2, 3, 56, 56))
    training.fit(model, train, steps=200, batch_size=32, lr=1e-3)
    predictions = training.evaluate(model, test).predictions
    shape, texture = shape_texture_accuracy(predictions, test.targets)
    print(f"held-out images: shape {shape:.0%}, texture {texture:.0%}")

# %% [markdown]
# It reads most textures, and as good as no shape. A texture shows in a single patch. For the
# shape, patches have to be *compared across the image*, and this is where a young ViT has a handicap:
#
# ## 6 · What a ViT lacks
#
# **No sense of place.** Leave out the learned positions, and cut the image into patches that you
# shuffle like cards. To you the picture is gone. To patch embedding and encoder *nothing* has changed:
# what they make of the image, averaged over the tokens, is the same but for rounding.
#
# Why? Each attention is a sum over all keys $j$, and a sum does not care in which order its terms come.
# Everything else works on one token at a time. So a shuffled image gives the same tokens, shuffled. A
# CLS token would not notice either: its own sum is over all of them.

# %% tags=["nbval-ignore-output"]
image = test.images[:1]
patches = image.unfold(2, 8, 8).unfold(3, 8, 8).flatten(2, 3)  # [1, 3, 49, 8, 8]
shuffled = patches[:, :, torch.randperm(49, generator=torch.Generator().manual_seed(0))]
shuffled = shuffled.unflatten(2, (7, 7)).transpose(3, 4).reshape(image.shape)

torch.manual_seed(0)
Block = yours(EncoderBlock)
embed = yours(PatchEmbedding)(img_size=56, patch_size=8, num_hiddens=96)
encoder = nn.Sequential(*(Block(96, 4, 384) for _ in range(3))).eval()
with torch.no_grad():
    seen = [encoder(embed(test.normalise(x))).mean(dim=1) for x in (image, shuffled)]
plots.show_images(torch.cat([image, shuffled]), ["an image", "its patches shuffled"], columns=2)
print(f"largest of 96 numbers: {seen[0].abs().max():.2f}")
print(f"largest difference:    {(seen[0] - seen[1]).abs().max():.0e}")

# %% [markdown]
# So all a ViT knows about *near* and *far*, left and right, it has to learn from data through its
# position vectors. A convolution is born with it: it only ever looks at neighbours, and at all
# places in the same way.
#
# **One image size for ever.** There is one position vector for each of the 49 places. An image of
# another size has another number of patches, here 64 of them and CLS, and no vectors to add to them:

# %% tags=["nbval-ignore-output"]
try:
    yours(ViT)(56, 8, 96, 4, 100, depth=3)(torch.randn(1, 3, 64, 64))
except (RuntimeError, ValueError) as error:
    print(f"{type(error).__name__}: {error}")

# %% [markdown]
# ## What you have now
#
# - a ViT of your own, equal in its values to the reference, [`vit.py`](../vit.py)
# - three sentences to keep: tokens are patches, attention is an average that the tokens choose,
#   residuals carry everything
# - two open wishes: a **sense of locality** from the start, and **any image size**
#
# ## Questions
#
# Answer before you unfold.
#
# <details><summary>1. An image twice as wide and twice as high, patches of the same size: how much more
# work are the MLPs, and how much more are the products of queries and keys?</summary>
#
# Four times as many tokens, so that the MLPs do 4 times the work. Pairs of tokens are 16 times as many,
# and so are the products. That is why attention on pixels is out of reach, and patches are large.
# </details>
#
# <details><summary>2. You permute the patches of <i>all</i> images, training and test, in one and the same
# way. The picture is gone for you. What becomes of the ViT with its learned positions, and what of a
# convolutional network?</summary>
#
# The ViT learns as well as before: it never knew which place was next to which, and learns a vector for
# each place as before. The convolutional network's kernels now look at patches that have nothing to do
# with each other.
# </details>
#
# <details><summary>3. A ViT of depth 0 (no block at all) reads CLS. What does it answer?</summary>
#
# The same logits for every image: CLS and its position are parameters. All that CLS knows of an image
# has come to it through attention, as values of other tokens.
# </details>
#
# <details><summary>4. Without <i>W<sub>o</sub></i> nothing would mix the heads. Where in the residual stream could head 2 of
# 4 then write, and who could still bring its findings together with those of head 1?</summary>
#
# Only into the second quarter of the $D$ numbers. The MLP could still combine them, since it reads the
# whole token; and so could the queries, keys and values of the next block.
# </details>
#
# <details><summary>5. Two patches show exactly the same background. Without positions, can their tokens
# differ at the encoder's end? And with positions?</summary>
#
# Without: no. They ask the same question of the same keys, and get the same answer, in every block.
# With: yes, from the first block on.
# </details>
#
# The first wish is lesson 2: keep the encoder, and replace the one big step from pixels to tokens by
# three small convolutions. The second has to wait for lesson 4, where positions become relative.
