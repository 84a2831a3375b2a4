"""What lesson 7 says of its runs."""

from tests.claims.ledger import above, below, claim, equal

# Numbers that are definitions, or arithmetic that the text spells out: phrase -> why
DEFINED = {
    "smoothing keeps 0.099 for the others": "99 classes get a thousandth each",
    "A weight of 1 does not notice a step of 0.003": "printed just above, by its cell",
    "a loss cannot fall from 2.001 to 2": "printed just above, by its cell",
    "with $d = 0.95$": "as the cell below has it",
    "from 5,000 images": "fifty classes of a hundred images",
    "with the average, $d = 0.98$": "as the cell below has it",
    "that would be 193 GB in memory": "1,281,167 * 3 * 224 * 224 bytes",
    "with } d \\text{ such as } 0.99": "a proposal to the reader",
    "`FULL = True` makes it 20 times as long": "as the cell above has it",
    "in 90 seconds a run: [its table]": "as benchmarks/recipe.md says",
    "for `coatnet_nano_rw_224`, 60 MB, and": "15 M weights of 4 bytes",
    "an A100 with 80 GB is twice as fast": "2,039 against 936 GB/s, as the data sheets have it",
    "some 1,600 images/s": "twice 819",
    # the questions' own numbers, and what their answers compute from them
    "A run of 1,000 steps with": "a question's own number",
    "You give it 1,000 more, by resuming it with 2,000 in all.": "a question's own numbers",
    "a run planned for 2,000?": "a question's own number",
    "(1 + \\cos(\\pi \\cdot 0.4 / 0.9)) = 0.59$": "the schedule at a half",
    "the first 1,000 steps were taken at other rates than a run of 2,000": "the question's",
    "label smoothing of 0.1 and 100 classes. The training loss stops at 0.8.": "the question's",
    "The targets are 0.901 and 99 times 0.001": "0.9 + 0.1 / 100, and 0.1 / 100",
    "$-0.901 \\ln 0.901 - 99 \\cdot 0.001 \\ln 0.001 = 0.78$": "the formula that stands there",
    "in bfloat16, with $d = 0.999$": "a question's own number",
}

FEW = ("few = train.select(", "factor = yours(warmup_cosine)")
AVERAGE = (*FEW, "move_average = yours(update_average)")
RECIPE = (*FEW, "shift_flip = yours(", "mix_two = yours(mix)", "SETTINGS = {", "percent, parts =")


def changes(cell, name, other="schedule"):
    """Points by which a setting differs from another, seed by seed."""
    pairs = zip(cell["percent"][name], cell["percent"][other], strict=True)
    return [value - base for value, base in pairs]


def mean(values):
    return sum(values) / len(values)


@claim(
    "The **flips** break the promise, and it shows on every seed, far beyond what the shifts alone "
    "do. They cost shapes *and* textures",
    slow=True,
)
def flips_break_a_promise(run):
    cell = run.after(*RECIPE)
    yield below("points, the best of three seeds", max(changes(cell, "+ shift, flip")), -5)
    beyond = changes(cell, "+ shift, flip", "+ shift")
    yield below("points beyond the shifts, mean of three seeds", mean(beyond), -5)
    yield below("points beyond the shifts, the best of three seeds", max(beyond), -1)
    for place, part in enumerate(("shape", "texture")):
        flipped, shifted = (cell["parts"][name][place] for name in ("+ shift, flip", "+ shift"))
        yield below(f"points of {part}", flipped - shifted, -3)


@claim("The **schedule** is worth some points on average", slow=True)
def the_schedule_pays(run):
    yield below("plain, mean of three seeds", mean(changes(run.after(*RECIPE), "plain")), -0.5)


@claim("**Mixing** costs some points on average.", slow=True)
def mixing_costs(run):
    yield below("mean of three seeds", mean(changes(run.after(*RECIPE), "+ mix")), -0.5)


@claim("What **shifts** do depends on the seed.", slow=True)
def shifts_depend_on_the_seed(run):
    points = changes(run.after(*RECIPE), "+ shift")
    yield above("largest less smallest of three seeds, in points", max(points) - min(points), 2)


@claim("makes no difference to speak of: the schedule ends in small steps anyway", slow=True)
def averaging_adds_nothing(run):
    differences = changes(run.after(*RECIPE), "+ average")
    yield below("largest of three seeds, in points", max(map(abs, differences)), 3)


@claim("The losses agree to about a percent", slow=True)
def bfloat16_learns_as_well(run):
    losses = run.after(*FEW, "learners = {")["losses"]
    full, half = losses["float32"], losses["bfloat16"]
    yield below("difference of the losses", abs(half - full) / full, 0.015)


@claim(
    "It starts later, because it still remembers the untrained weights, and then is mostly ahead",
    slow=True,
)
def the_average_is_ahead(run):
    model, average = run.after(*AVERAGE)["curves"]
    yield below("after 20 steps, average over model", average[0] / model[0], 0.9)
    late = max(0, len(model) // 2 - 1)  # of eight trials the last five
    ahead = [a / m for m, a in zip(model[late:], average[late:], strict=True)]
    yield above("from step 80 on, average over model, mean", mean(ahead), 1.02)
    yield above("trials from step 80 on that it leads, of 5", sum(a > 1 for a in ahead), 2.5)


@claim("An **exact** resume ends with the very weights of a run that never stopped.")
def only_an_exact_resume_is_the_same_run(run):
    printed = run.after(*FEW, "resumed, careless =")["printed"]
    exact, careless = (float(line.split()[-1]) for line in printed.splitlines()[-2:])
    yield equal("resumed: difference of the weights", exact, 0)
    yield above("weights alone: difference", careless, 0.01)


@claim(
    "trained weights have nearly all of them in the end, random ones far fewer. The new *shapes* "
    "both learn in these 60 steps, if the rate is large enough.",
    "Here the trained weights, too, want the largest",
    slow=True,
)
def textures_are_handed_down(run):
    tuned = run.then(run.after(*AVERAGE), "new_few, new_unseen =")["tuned"]
    rates = sorted({rate for _, rate in tuned})
    (shape, texture), (own_shape, own_texture) = (
        tuned[name, rates[-1]] for name in ("trained", "random")
    )
    yield above("texture, trained", texture, 0.85)
    yield above("texture, trained less random", texture - own_texture, 0.15)
    yield above("shape, the lesser of both", min(shape, own_shape), 0.85)
    sums = [sum(tuned["trained", rate]) for rate in rates]
    yield equal("trained: the largest rate is the best", sums.index(max(sums)), len(rates) - 1)
