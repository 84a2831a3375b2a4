"""What lesson 4 says of its runs."""

import torch

from tests.claims.ledger import above, below, claim, equal

# Numbers that are definitions, or arithmetic that the text spells out: phrase -> why
DEFINED = {
    "$12 \\cdot 27 \\cdot 27 = 8,748$ are learned": "the product that stands there",
    "$12 \\cdot 196 \\cdot 196 = 460,992$ entries": "the product that stands there",
}


@claim("the weights are the same, with two axes of length 1 more.")
def one_convolution_is_three_linear_layers(run):
    printed = run.after("linears = [")["printed"]
    yield equal("equal of q, k, v", printed.count("equal True"), 3)


@claim(
    "every pixel has the same offset from itself, so that it is 17 throughout.",
    "the numbers are constant along diagonals.",
    seeds=1,
)
def the_index_has_constant_diagonals(run):
    index = torch.as_tensor(run.after("index = yours(relative_position_index)(3, 4)")["index"])
    yield equal("smallest on the diagonal", index.diagonal().min().item(), 17)
    yield equal("largest on the diagonal", index.diagonal().max().item(), 17)
    blocks = index.unflatten(0, (3, 4)).unflatten(2, (3, 4)).transpose(1, 2)  # [3, 3, 4, 4]
    same = [
        len(block.diagonal(k).unique()) for row in blocks for block in row for k in range(-3, 4)
    ]
    yield equal("different numbers on a diagonal of a block", max(same), 1)
    yield equal("entries", len(index.unique()), 5 * 7)


@claim("And timm's `TransformerBlock2d`, with random weights?", "The rest fits as it stands.")
def the_block_is_timms(run):
    printed = run.after("for block, arguments in zip(model.stages[2].blocks")["printed"]
    yield equal("blocks equal to 1e-5", printed.count("equal to 1e-5: True"), 2)


TRACE = ("def trace(", "empty, changes = ")


@claim(
    "With relative positions the trace moves along, and stays near the pattern. Without any "
    "positions it moves along as well; but near and far are the same to that layer, and all of the "
    "empty grid is changed alike. With absolute positions every pixel has a voice of its own"
)
def what_shifts_with_the_image(run):
    cell = run.after(*TRACE)
    yield below("change of the trace, relative", cell["changes"]["relative"], 0.02)
    yield below("change, no positions", cell["changes"]["none"], 1e-4)
    yield above("change, absolute positions", cell["changes"]["absolute"], 0.2)
    empty = torch.ones(12, 12, dtype=torch.bool)
    empty[3:6, 3:6] = False
    far = torch.ones(12, 12, dtype=torch.bool)
    far[:10, :10] = False
    for name, (table, grid) in cell["layers"].items():
        trace = cell["trace"](table, grid, 3).norm(dim=0)
        if name == "relative":
            yield below("relative: far, of the largest", trace[far].max() / trace.max(), 0.05)
        if name == "none":
            yield below(
                "none: spread over the empty grid", trace[empty].std() / trace[empty].mean(), 1e-3
            )
            yield above("none: there, of the largest", trace[empty].mean() / trace.max(), 0.05)


@claim(
    "The black line around the offsets that count most keeps its size in the middle, and grows "
    "with the table on the right.",
    seeds=1,
)
def near_offsets_stay(run):
    tables = list(run.after("def show_kernels", "bilinear = F.interpolate")["tables"].values())
    sizes = [int((table > 1.2).sum()) for table in tables]
    yield below("resized over old", sizes[1] / sizes[0], 1.3)
    yield above("bilinear over old", sizes[2] / sizes[0], 1.5)


@claim("It does so for any number of tokens.", "the same weights work at another image size.")
def weights_for_every_size(run):
    printed = run.after("missing, unexpected = ")["printed"]
    yield equal("all placed", "weights that found no place: none" in printed, True)
    yield equal("runs", "relative attention: [1, 64, 10, 8]" in printed, True)
    yield equal("ViT fails", "ViT: expected images" in printed, True)
