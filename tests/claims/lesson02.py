"""What lesson 2 says of its runs."""

import itertools
from unittest.mock import patch

import torch
from torch import nn

from tests.claims import ledger
from tests.claims.ledger import above, below, claim, equal

# Numbers that are definitions, or arithmetic that the text spells out: phrase -> why
DEFINED = {
    "has a loss of $\\ln 100 \\approx 4.6$": "natural logarithm of 100",
    "hardly more than the 10 % of guessing": "one of ten shapes",
    "It has seen 6,720 images": "210 steps of 32",
    "raise `steps` to 1,000 with": "a proposal to the reader",
    "positions start at 0.02, beside": "as vit.py draws them",
}

TRAINING = ("small = {", "histories = {}", "paths = {")


@claim(
    "Where there are three, the picture is bright; the dark cross runs through the pixel in the "
    "middle, from which only one way leads, although it is the middle."
)
def stripes_follow_the_ways(run):
    cell = run.after("windows = {}")
    ways = cell["paths"].flatten()  # along one axis, [15]
    window = cell["windows"]["CNNStem"][17:32, 17:32]
    assert window[0].sum() > 0
    profile = window.mean(dim=0)
    yield equal("ways from the pixel in the middle", ways[7].item(), 1)
    yield above(
        "mean brightness, three ways over one",
        profile[ways == 3].mean(),
        1.2 * profile[ways == 1].mean(),
    )
    darkest = profile[4:11].argmin().item() + 4
    yield equal("darkest of the seven inner columns", darkest, 7)


@claim("The stem's window is 15 pixels wide, as computed.", seeds=1)
def width_of_the_window(run):
    window = run.after("windows = {}")["windows"]["CNNStem"]
    columns = (window.sum(dim=0) > 0).nonzero().flatten()
    yield equal("columns", len(columns), 15)
    yield equal(
        "its middle", columns.float().mean().item(), 24
    )  # the corner of patch 3, 8 pixels each


@claim("Three times the same model: 49 image tokens, whatever the patch size.", seeds=1)
def patch_size_has_no_effect(run):
    lines = run.after("for patch_size in (7, 14, 56)")["printed"].splitlines()
    yield equal("models", len({line.split(":")[1] for line in lines}), 1)
    yield equal("lines", len(lines), 3)


@claim("A fresh one starts near that, and may well be above it")
def a_fresh_model_is_about_ignorant(run):
    line = run.after("for patch_size in (7, 14, 56)", "optimizer = torch.optim.Adam")
    first = float(line["printed"].split("step  1: loss ")[1].split()[0])
    yield above("loss at the first step", first, 4.3)
    yield below("loss at the first step", first, 5.2)


@claim(
    "The stem has ten times the weights of the patch embedding, and does more than twenty times "
    "its work.",
    "the hybrid does twice the work of the ViT.",
    seeds=1,
)
def price_of_the_stem(run):
    lines = run.after("for patch_size in (7, 14, 56)", "small = {")["printed"].splitlines()[3:]
    counts = [int(line.split(":")[1].split()[0].replace(",", "")) for line in lines]
    work = [float(line.split("parameters,")[1].split()[0]) for line in lines]
    yield equal("weights", round(counts[1] / counts[0]), 10)
    yield above("its work", work[1] / work[0], 20)
    yield equal("the models' work", round(work[3] / work[2]), 2)


@claim(
    "The hybrid learns faster per step.",
    "Both read most textures in the end, the hybrid from the first trial on.",
    "the hybrid gets many shapes right, the ViT hardly more than the 10 % of guessing.",
    slow=True,
)
def the_hybrid_gets_shapes_sooner(run):
    cell = run.after("Hybrid = yours(CoAtNEt)", *TRAINING)
    vit, hybrid = (cell["paths"][name] for name in ("ViT", "hybrid"))
    losses = [sum(cell["histories"][name].losses[-20:]) / 20 for name in ("ViT", "hybrid")]
    yield below("loss in the end, of the ViT's", losses[1] / losses[0], 0.9)
    yield above("texture, ViT", vit[-1][1], 0.6)
    yield above("texture, hybrid", hybrid[-1][1], 0.95)
    yield above("texture, hybrid, first trial", hybrid[0][1], 0.6)
    yield above("shape, hybrid", hybrid[-1][0], 0.3)
    yield below("shape, ViT", vit[-1][0], 0.2)
    yield above("shape, hybrid over ViT", hybrid[-1][0] / vit[-1][0], 2)


@claim(
    "and the ViT, too, gets most shapes in 210 steps, before it has all of the textures",
    slow=True,
)
def loud_positions_give_shapes(run):
    cell = run.after("Hybrid = yours(CoAtNEt)", "small = {")
    torch.manual_seed(1000 * run.seed)
    model = cell["ViT"](56, 8, **cell["small"])
    model.positions.data *= 50
    training, test = cell["training"], cell["test"]
    training.fit(model, cell["train"], steps=210, batch_size=32, lr=1e-3)
    predictions = training.evaluate(model, test).predictions
    shape, texture = cell["shape_texture_accuracy"](predictions, test.targets)
    yield above("shape, positions of 1", shape, 0.6)
    yield below("texture, positions of 1", texture, 0.95)


class Apart(nn.Sequential):
    """The stem with windows that do not overlap."""

    def __init__(self, num_hiddens):
        widths = ((3, 64), (64, 128), (128, num_hiddens))
        layers = [[nn.Conv2d(i, o, 2, stride=2), nn.BatchNorm2d(o), nn.GELU()] for i, o in widths]
        super().__init__(*itertools.chain(*layers))


@claim(
    "textures come as soon as before, but after 210 steps the shapes are nearly where the ViT's "
    "are.",
    slow=True,
)
def without_overlap_no_shapes(run):
    cell = run.after("Hybrid = yours(CoAtNEt)", "small = {")
    torch.manual_seed(1000 * run.seed)
    with patch.dict(ledger.notebook(2, run.style), CNNStem=Apart):
        model = cell["CoAtNEt"](56, 8, **cell["small"])
    assert any(isinstance(module, Apart) for module in model.modules())
    assert "steps=210, steps_per_epoch=70, batch_size=32, lr=1e-3" in ledger.code_cell(
        2, TRAINING[1]
    )
    training, test = cell["training"], cell["test"]
    training.fit(model, cell["train"], steps=210, batch_size=32, lr=1e-3)
    predictions = training.evaluate(model, test).predictions
    shape, texture = cell["shape_texture_accuracy"](predictions, test.targets)
    yield above("texture, no overlap", texture, 0.95)
    yield below("shape, no overlap", shape, 0.25)
