"""What lesson 8 says of its runs. All claims look at the same three models, trained once a run."""

from tests.claims.ledger import above, below, claim, equal

# Numbers that are definitions, or arithmetic that the text spells out: phrase -> why
DEFINED = {
    "chance is 1 %. The last size": "one of a hundred classes",
    "If all counted alike, it would be 22.9 px.": "root of (56 * 56 - 1) / 6",
    "falls from 59 to 28 % right": "benchmarks/robustness.md, photographs, none and resized 64",
    "is about 1 % in S2": "what_each_stage_keeps has its bound",
}

TRAINED = "MODELS = {"


def trained(run):
    return run.after(TRAINED)


def damaged(run):
    """{model: {damage: {amount: (percent of shapes, percent of textures)}}}."""
    cell = run.then(trained(run), "DAMAGE = {")
    amounts = [(label.split()[0], values) for label, (_, values) in cell["DAMAGE"].items()]
    return {
        name: {
            label: dict(zip(values, shares, strict=True))
            for (label, values), shares in zip(amounts, result.values(), strict=True)
        }
        for name, result in cell["results"].items()
    }


@claim(
    "The ViT reads most textures and few shapes, as in lesson 1. The other two read nearly all "
    "textures and most shapes.",
    slow=True,
)
def what_the_three_models_learn(run):
    lines = trained(run)["printed"].splitlines()[-3:]
    percent = [[int(w.strip(",")[:-1]) for w in line.split() if "%" in w] for line in lines]
    (vit, hybrid, staged) = percent
    yield above("ViT, texture", vit[1], 50)
    yield below("ViT, shape", vit[0], 30)
    yield above("the others, shape", min(hybrid[0], staged[0]), 50)
    yield above("the others, texture", min(hybrid[1], staged[1]), 90)


@claim(
    "Heads are of different opinions. In S4 one of them may send nearly everything to a single "
    "quarter, four times the even share, while another looks everywhere more or less alike.",
    slow=True,
)
def heads_are_of_different_opinions(run):
    heads = run.then(trained(run), "heads = []")["heads"]
    largest = [4 * weights.max().item() for title, weights in heads if title.startswith("S4")]
    yield above("S4, sharpest head, of the even share", max(largest), 3)
    yield below("S4, evenest head, of the sharpest", min(largest) / max(largest), 0.75)


@claim(
    "the tables vary more than twice as much as before",
    "none of the heads has its peak in the middle.",
    "Contents differ by several times as much, so that they decide most.",
    slow=True,
)
def biases_become_slopes(run):
    cell = run.then(trained(run), "tables = torch.cat")
    before, after = (float(line.split()[-1]) for line in cell["printed"].splitlines()[-2:])
    yield above("spread of the tables, after over before", after / before, 2)
    peaks = cell["tables"].flatten(1).argmax(dim=1)
    yield equal("heads with the peak in the middle", int((peaks == 24).sum()), 0)
    cell = run.then(trained(run), "heads = []", "content = weights.log()")
    for line in cell["printed"].splitlines()[-2:]:
        content, bias = (float(part.split()[-1]) for part in line.split(", ")[-2:])
        yield above("contents over bias", content / bias, 3)


@claim(
    "S0 to S2 see squares that grow from stage to stage, before training as after it.",
    "In S3 and S4 the field fills the image, but training draws it together",
    "goes from its own patch to everything in one step. Yet the brightest patch remains its own",
    slow=True,
)
def how_far_they_see(run):
    cell = run.then(trained(run), "def vit_grid(", "distances = {}")
    distances = cell["distances"]
    for when in ("before", "after"):
        found = [distances[f"staged, {when}", f"S{s}"] for s in range(5)]
        yield equal(f"{when}: grows from stage to stage", sorted(found[:3]) == found[:3], True)
        yield below(f"S2, {when}", found[2], 13)
        yield above(f"S3 and S4, {when}", min(found[3:]), 15)
    for s in (3, 4):
        after, before = (distances[f"staged, {when}", f"S{s}"] for when in ("after", "before"))
        yield below(f"S{s}, after over before", after / before, 1)
    yield below("ViT, its own patch", distances["ViT, after", "0 blocks"], 4)
    yield above("ViT, one block", distances["ViT, after", "1 block"], 12)
    for name, field in cell["fields"]["ViT, after"][1:]:
        patches = field.unflatten(0, (7, 8)).unflatten(2, (7, 8)).sum(dim=(1, 3))
        yield equal(f"brightest patch, {name}", int(patches.argmax()), 24)


@claim(
    "The means of S0 to S2 follow the texture, and know as good as nothing of the shape",
    "Shapes come in where attention does",
    "in S4 more of them do. The texture does not go away.",
    slow=True,
)
def what_each_stage_keeps(run):
    kept = run.then(trained(run), "def explained(")["kept"]
    yield above("texture, S0 to S2", min(kept["texture"][:3]), 0.5)
    yield below("shape, S0 to S2", max(kept["shape"][:3]), 0.05)
    yield above("shape, S3", kept["shape"][3], 0.06)
    yield above("shape, S4 over S3", kept["shape"][4] / kept["shape"][3], 1.2)
    yield above("texture, S4", kept["texture"][4], 0.3)


@claim(
    "One pixel, as in training, costs little. By two the hybrid has lost many of its shapes, by "
    "four nearly all; the staged model loses them later.",
    "the ViT reads textures again, and the hybrid gets some of its shapes back, where the staged "
    "model has none left.",
    slow=True,
)
def shifts_that_fit_the_stride(run):
    found = {name: result["shift"] for name, result in damaged(run).items()}
    vit, hybrid, staged = found["ViT"], found["hybrid"], found["staged"]
    for name in ("hybrid", "staged"):
        yield above(f"{name}: shape at 1, of that at 0", found[name][1][0] / found[name][0][0], 0.8)
    yield below("hybrid: shape at 2, of that at 0", hybrid[2][0] / hybrid[0][0], 0.8)
    yield below("hybrid: shape at 4", hybrid[4][0], 25)
    yield above(
        "at 2, staged over hybrid, of those at 0", lasting(staged, 2) / lasting(hybrid, 2), 1
    )
    yield above(
        "at 4, staged over hybrid, of those at 0", lasting(staged, 4) / lasting(hybrid, 4), 1
    )
    yield above("ViT: texture at 8 over that at 4", vit[8][1] / vit[4][1], 1.5)
    yield above("hybrid: shape at 8 over that at 4", hybrid[8][0] / hybrid[4][0], 1.3)
    yield below("staged: shape at 8", staged[8][0], 18)


def lasting(shares, amount):
    """Shapes right at a shift, of those right without."""
    return shares[amount][0] / shares[0][0]


@claim(
    "A square of 8 pixels costs nobody anything. One of 16, a twelfth of the image, costs some "
    "shapes and few textures; one of 32, a third of it, hides most.",
    slow=True,
)
def what_a_square_hides(run):
    for name, result in damaged(run).items():
        square = result["occluded"]
        part = 1 if name == "ViT" else 0
        yield above(f"{name}: at 8, of that at 0", square[8][part] / square[0][part], 0.93)
        yield below(f"{name}: at 32, of that at 0", square[32][part] / square[0][part], 0.6)
        if name != "ViT":
            yield below(f"{name}: shape at 16, of that at 0", square[16][0] / square[0][0], 0.97)
            yield above(f"{name}: texture at 16, of that at 0", square[16][1] / square[0][1], 0.85)


@claim(
    "In four quarters the staged model still finds most of its shapes, the hybrid about half. In "
    "patches of 14 pixels all shapes are gone",
    "with patches of exactly 8 pixels the ViT reads textures as well as ever",
    slow=True,
)
def patches_laid_out_anew(run):
    found = {name: result["side"] for name, result in damaged(run).items()}
    quarters = {name: shares[28][0] / shares[56][0] for name, shares in found.items()}
    yield above("staged, quarters: of its shapes", quarters["staged"], 0.5)
    yield above("hybrid, quarters: of its shapes", quarters["hybrid"], 0.3)
    yield below("hybrid, quarters: of its shapes", quarters["hybrid"], 0.7)
    yield below("most shapes at 14", max(shares[14][0] for shares in found.values()), 22)
    yield above("ViT: texture at 8, of that at 56", found["ViT"][8][1] / found["ViT"][56][1], 0.93)


@claim(
    "Eight pixels more or fewer cost the staged model a good part of its right answers, and the "
    "hybrid more; at twice the size all three are near chance.",
    slow=True,
)
def at_other_sizes(run):
    cell = run.then(trained(run), "DAMAGE = {", "SIZES = (40")
    found = {
        name: dict(zip(cell["SIZES"], shares, strict=True))
        for name, shares in cell["sizes_right"].items()
    }
    for size in (48, 64):
        left = {name: shares[size] / shares[56] for name, shares in found.items()}
        yield below(f"staged: right at {size}, of those at 56", left["staged"], 0.8)
        yield above(f"staged over hybrid at {size}", left["staged"] / left["hybrid"], 1)
    yield below("best at 112", max(shares[112] for shares in found.values()), 0.1)
