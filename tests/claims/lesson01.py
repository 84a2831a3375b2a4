"""What lesson 1 says of its runs."""

import torch

from tests.claims.ledger import above, below, claim, equal

# Numbers that are definitions, or arithmetic that the text spells out: phrase -> why
DEFINED = {
    "guessing gets 10 % of either": "one of ten shapes, one of ten textures",
    "the MLPs do 4 times the work. Pairs of tokens are 16 times": "2 x 2 times the tokens, squared",
}

DATA = "embed = yours(PatchEmbedding)(img_size=56, patch_size=8, num_hiddens=64)"
HEAD = "head = yours(AttentionHead)"


@claim(
    "Scaled, the width makes no difference. Raw, the winner takes the more the wider the head is.",
    "from $d = 64$ on there is less and less left to learn from, and at $d = 1024$ nothing.",
)
def scaling_keeps_the_gradient(run):
    lines = run.after("largest share")["printed"].splitlines()[2:]
    rows = [[float(word) for word in line.split()[3:]] for line in lines]  # d = 16, 64, 256, 1024
    winner, raw, scaled = ([row[place] for row in rows] for place in (0, 2, 3))
    yield equal("the winner takes more", sorted(set(winner)) == winner, True)
    yield below("largest over smallest gradient, scaled", max(scaled) / min(scaled), 1.2)
    yield below("gradient at d = 256, raw, of that at 64", raw[2] / raw[1], 0.5)
    yield below("gradient at d = 1024, raw", raw[3], 0.005)


@claim("Each patch with the same pixels gets the same share")
def equal_patches_get_equal_shares(run):
    cell = run.after(DATA, HEAD)
    patches = cell["train"].images[0].unfold(1, 8, 8).unfold(2, 8, 8)  # [3, 7, 7, 8, 8]
    patches = patches.permute(1, 2, 0, 3, 4).reshape(49, -1)
    same = (patches[:, None] == patches).all(dim=-1)
    assert same.sum() > 2 * 49, "the background repeats"
    shares = cell["weights"].detach()
    apart = (shares[:, None, :] - shares[:, :, None]).abs().amax(dim=0)
    yield below("largest difference of their shares", apart[same].max(), 1e-5)
    yield above("largest difference of other shares", apart[~same].max(), 1e-3)


@claim("and mostly everywhere: note the scale.")
def a_fresh_head_looks_everywhere(run):
    shares = run.after(DATA, HEAD)["weights"].detach()
    yield below("largest share of token 24, of an even one", 49 * shares[24].max(), 3)


@claim("Nothing: $h$ heads of width $D / h$ have the same three $D \\times D$ maps", seeds=1)
def heads_cost_nothing(run):
    lines = run.after("for num_heads in (1, 2, 4, 8, 16)")["printed"].splitlines()
    yield equal("counts of parameters", len({line.split(": ")[1] for line in lines}), 1)
    yield equal("lines", len(lines), 5)


@claim(
    "Cut the paths, and after two blocks all tokens are one.",
    "It is the attention that does it, as it does alone; MLPs alone take much longer.",
)
def without_residuals_tokens_become_one(run):
    alike = run.after("steps = {")["alike"]
    yield above("likeness after two blocks, without", alike["without"][1], 0.99)
    yield above("likeness after two, attention alone", alike["attention alone"][1], 0.99)
    yield below("likeness after six, MLP alone", alike["MLP alone"][5], 0.9)
    yield below("likeness after six, with residuals", alike["with residuals"][5], 0.25)


@claim("It reads most textures, and as good as no shape.", slow=True)
def a_young_vit_reads_textures_only(run):
    cell = run.after("model, first = yours(ViT)")
    yield above("texture", cell["texture"], 0.6)
    yield below("shape", cell["shape"], 0.2)


@claim(
    "To patch embedding and encoder *nothing* has changed: what they make of the image, averaged "
    "over the tokens, is the same but for rounding."
)
def shuffled_patches_make_no_difference(run):
    image, shuffled = run.after("patches = image.unfold(2, 8, 8)")["seen"]
    yield below(
        "difference, of the largest", (image - shuffled).abs().max() / image.abs().max(), 1e-5
    )
    yield above("that", image.abs().max(), 0.1)
    assert torch.isfinite(image).all()
