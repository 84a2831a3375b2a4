"""What lesson 5 says of its runs."""

import re

from tests.claims.ledger import above, below, claim, equal

# Numbers that are definitions, or arithmetic that the text spells out: phrase -> why
DEFINED = {
    "grows to 802,816 at first": "printed beside the plan",
    "Its table 9 has 4.6 billion": "the paper, table 9",
    "the 4.2 billion in its main text": "the paper, table 4",
    "CoAtNet-5 would fill 2.7 GB of memory": "687 million numbers of 4 bytes",
    "says 167 M, the final one 168 M": "the two versions of the paper",
    "it has 17.8 instead of 25 million parameters": "printed below as the sum of the causes: 17.82",
    "Section 2.2 of the paper argues": "a section of the paper",
    "1.3 million images": "the size of ImageNet-1K",
    "300 million images of JFT": "the paper, section 4.1",
    "82.39 % against C-T-T-T's 81.78 %": "the paper, table 2",
    "That is 1,280 images": "80 steps of 16",
}

MODEL = "for height, width in ((56, 56)"
COUNT = (MODEL, "count, config_of = ")
LAYOUTS = (*COUNT, "LAYOUTS = (", "LENGTH = {")


def numbers(text):
    return [float(found.replace(",", "")) for found in re.findall(r"-?\d[\d,]*\.?\d*", text)]


@claim(
    "At 224 pixels a transformer block in S1 would spend 544 % of what its layers cost on "
    "comparing places with places; in S3 it is 9 %, in S4 1 %.",
    seeds=1,
)
def price_of_attention(run):
    printed = run.after("def show_price")["printed"]
    shares = dict(re.findall(r"(S\d) (\d+)%", printed))
    yield equal("shares", shares == {"S1": "544", "S2": "68", "S3": "9", "S4": "1"}, True)


@claim(
    "Nine tenths of the parameters sit in S3 and S4",
    "S3 does the largest part of it: it has the most blocks.",
    "A block of S3 does about the same work as one of S4",
    seeds=1,
)
def where_parameters_and_work_are(run):
    cell = run.after(MODEL, "names, counts, flops =")
    counts, flops = cell["counts"], cell["flops"]
    yield equal("tenths of parameters", round(10 * sum(counts[3:5]) / sum(counts)), 9)
    yield equal("part with most work", flops.index(max(flops)), 3)
    yield equal("GFLOP", round(sum(flops), 2), 9.09)
    yield below("work of an S4 block over S3", (flops[4] / 2) / (flops[3] / 5), 1.1)
    yield above("work of an S4 block over S3", (flops[4] / 2) / (flops[3] / 5), 0.9)


@claim("They agree to the last parameter.", seeds=1)
def the_family_counts_as_timms(run):
    lines = run.after(*COUNT)["printed"].splitlines()
    lines = [line for line in lines if line.startswith("CoAtNet-")]
    yield equal("models", len(lines), 6)
    yield equal("without difference", sum(line.endswith("difference 0") for line in lines), 6)


@claim(
    "Counted as timm builds them at 224 pixels, five of eight round to what is published. None "
    "of the three ways gives all eight",
    "CoAtNet-3 counts 166.97 M.",
    "CoAtNet-5 counts 687.05 M: 687, not 688.",
    "with 3072 channels in S4, as CoAtNet-7 has, it would fit its count.",
    seeds=1,
)
def published_counts(run):
    lines = run.after(*COUNT, "PUBLISHED = (25")["printed"].splitlines()
    rows = [line for line in lines if re.match(r"CoAtNet-\d +\d+ M", line)]
    yield equal("models", len(rows), 8)
    ways = [[part.strip() for part in re.findall(r"\d+\.\d\d(?: \*|  )?", row)] for row in rows]
    yield equal("ways", {len(row) for row in ways} == {3}, True)
    right = [sum(row[way].endswith("*") for row in ways) for way in range(3)]
    yield equal("right at 224 px", right[0], 5)
    yield below("most right in any way", max(right), 8)
    yield equal("CoAtNet-3", float(ways[3][0].rstrip(" *")), 166.97)
    yield equal("CoAtNet-5", float(ways[5][0].rstrip(" *")), 687.05)
    yield equal("CoAtNet-6, wider", round(numbers(lines[-1])[-1] / 10) * 10, 1470)


@claim(
    "The four explain it. The expansion, which is usually blamed, is the least of them",
    "attention that stays 256 channels wide while the stages widen to 768 is half of it",
    seeds=1,
)
def causes_of_the_missing_parameters(run):
    lines = run.after('decisions = ("expansion"')["printed"].splitlines()
    right, *single, together = [numbers(line)[-1] for line in lines]
    missing = [right - count for count in single]
    yield equal("all four", together, 17.82)
    yield equal("the least is the expansion", missing.index(min(missing)), 0)
    yield above("attention's share", missing[2] / (right - together), 0.45)
    yield below("attention's share", missing[2] / (right - together), 0.55)


@claim("The four layouts lie within 6 % of each other.", seeds=1)
def layouts_are_of_one_size(run):
    lines = run.after(*LAYOUTS[:-1])["printed"].splitlines()
    lines = [line for line in lines if line.startswith(("C-C", "C-T"))]
    yield equal("layouts", len(lines), 4)
    counts = [numbers(line)[-2] for line in lines]
    yield below("largest over smallest", max(counts) / min(counts), 1.06)


@claim(
    "At both rates and with both seeds C-C-C-C is far ahead, and C-C-C-T second.",
    "C-C-T-T and C-T-T-T have hardly begun",
    "The lead of C-C-C-C is in the shapes; textures C-C-C-T reads about as well.",
    slow=True,
)
def convolutions_learn_sooner(run):
    cell = run.after(*LAYOUTS)
    for rate in (1e-3, 3e-3):
        results = [cell["run"](name, 1000 * run.seed, rate)[1] for name in cell["CONFIGS"]]
        right = [result.accuracy for result in results]
        shape, texture = (
            [
                cell["shape_texture_accuracy"](r.predictions, cell["few"].targets)[part]
                for r in results
            ]
            for part in (0, 1)
        )
        yield above(f"first over second, rate {rate:g}", right[0] / right[1], 1.3)
        yield above(f"second over the others, rate {rate:g}", right[1] / max(right[2:]), 1.1)
        yield below(f"the others, rate {rate:g}", max(right[2:]), 0.12)
        yield above(f"shapes, first over second, rate {rate:g}", shape[0] / shape[1], 1.5)
        yield above(f"textures, second over first, rate {rate:g}", texture[1] / texture[0], 0.7)


@claim(
    "C-C-T-T has the fewest seconds",
    "It is not eight times as fast",
    "The hybrid reads far more textures than the ViT after as many steps.",
    "in the hybrid's time C-C-T-T can take more than twice its steps",
    slow=True,
)
def the_hybrid_reads_more_textures(run):
    cell = run.after(*LAYOUTS)
    textures, seconds = {}, {}
    for name in ("ViT", "hybrid", "C-C-T-T"):
        _, result, seconds[name] = cell["run"](name, 1000 * run.seed)
        right = cell["shape_texture_accuracy"](result.predictions, cell["few"].targets)
        textures[name] = right[1]
    yield above("textures, hybrid over ViT", textures["hybrid"] / textures["ViT"], 1.3)
    yield below("seconds, C-C-T-T of the hybrid's", seconds["C-C-T-T"] / seconds["hybrid"], 0.5)
    yield above("seconds, C-C-T-T of the hybrid's", seconds["C-C-T-T"] / seconds["hybrid"], 1 / 8)
    yield below("seconds, C-C-T-T of the ViT's", seconds["C-C-T-T"] / seconds["ViT"], 1)
