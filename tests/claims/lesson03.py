"""What lesson 3 says of its runs."""

import torch

from tests.claims.ledger import above, below, claim, equal

# Numbers that are definitions, or arithmetic that the text spells out: phrase -> why
DEFINED = {
    "768 it is not: 5.3 million weights": "9 * 768 * 768 = 5,308,416",
    "| 64 | 36,864 | 576 | 4,096 |": "9 * 64 * 64, 9 * 64, 64 * 64",
    "| 384 | 1,327,104 | 3,456 | 147,456 |": "the same for 384",
    "CoAtNet-0 got 82.0 % on ImageNet instead of 81.6 %": "the paper, appendix A.1 and table 9",
}


@claim(
    "On the left everything moves with everything. On the right there is the diagonal and nothing "
    "else."
)
def depthwise_channels_are_alone(run):
    moved = run.after("moved = {")["moved"]
    off = ~torch.eye(8, dtype=torch.bool)
    yield above("smallest move, plain", moved["plain"].min(), 1e-5)
    yield above("smallest on the diagonal", moved["depthwise"].diagonal().min(), 1e-3)
    yield equal("largest beside the diagonal", moved["depthwise"][off].max().item(), 0)


@claim(
    "The depthwise layer has 256 times fewer multiplications than the plain one. It is not 256 "
    "times as fast",
    "But it costs much less than the plain one, and so does the 1 x 1 convolution that mixes the "
    "channels.",
    slow=True,  # measures time
)
def cheap_but_not_256_times(run):
    lines = run.after("def milliseconds")["printed"].splitlines()
    weights = [int(line.split(":")[1].split()[0].replace(",", "")) for line in lines]
    plain, depthwise, mixing = (float(line.split()[-2]) for line in lines)
    yield equal("weights", weights[0] // weights[1], 256)
    yield below("plain over depthwise, time", plain / depthwise, 256)
    yield above("plain over depthwise, time", plain / depthwise, 2)
    yield above("plain over 1x1, time", plain / mixing, 2)


@claim("$2n + 1$ pixels: 3, 5, 7, 9.", "$2^{n+1} - 1$ pixels: 3, 7, 15, 31.", seeds=1)
def receptive_fields(run):
    cell = run.after("def receptive_field")
    for strides in ([1] * n for n in range(1, 5)):
        field = cell["receptive_field"]([cell["Depthwise"](4, stride) for stride in strides])
        yield equal(f"{len(strides)} layers", int((field.sum(0) > 0).sum()), 2 * len(strides) + 1)
    for n in range(1, 5):
        field = cell["receptive_field"]([cell["Depthwise"](4, 2) for _ in range(n)], size=65)
        yield equal(f"{n} layers, stride 2", int((field.sum(0) > 0).sum()), 2 ** (n + 1) - 1)


@claim(
    "Not cheaper: for the price of one plain convolution you get a layer that is four times as "
    "wide where it looks around. A plain one of that width would cost fourteen times as much.",
    seeds=1,
)
def what_mbconv_costs(run):
    lines = [
        line for line in run.after("for C in (64, 768)")["printed"].splitlines() if ":" in line
    ]
    counts = [int(line.split(":")[1].split()[0].replace(",", "")) for line in lines]
    for plain, mbconv in ((counts[0], counts[1]), (counts[3], counts[4])):
        yield above("MBConv over plain", mbconv / plain, 1)
        yield below("MBConv over plain", mbconv / plain, 1.3)
    yield equal("plain, as wide as inside, over MBConv at 768", round(counts[5] / counts[4]), 14)


@claim("You wrote the same block as the library.")
def mbconv_is_timms(run):
    printed = run.after("depths=(2, 1, 1, 1)")["printed"]
    yield equal("blocks equal to 1e-5", printed.count("equal to 1e-5: True"), 2)


@claim("timm's pooling rounds odd sizes down where its convolution rounds them up:", seeds=1)
def timm_fails_at_odd_sizes(run):
    printed = run.after("depths=(2, 1, 1, 1)", "odd = torch.randn(1, 64, 45, 45)")["printed"]
    yield equal("yours runs", "yours: [1, 96, 23, 23]" in printed, True)
    yield equal("timm fails", "timm:  The size of tensor a (23) must match" in printed, True)


GATES = ("    coatnet.MBConv(24, 24),", "def catch(", "by_texture, by_shape = (")


@claim(
    "From left to right the colours differ much more than from top to bottom",
    "that explains most of the variance. But most of what is left is decided by the texture.",
    "Its shape has hardly any",
    slow=True,
)
def gates_follow_the_texture(run):
    cell = run.after(*GATES)
    gates, by_texture, channels = cell["gates"], cell["by_texture"], cell["channels"]
    across, down = by_texture.std(dim=1).mean(), by_texture.std(dim=0).mean()
    yield above("spread from left to right, of that downwards", across / down, 1.5)
    yield above("variance by channel", 1 - cell["rest"] / gates.var(), 0.6)
    yield above("of the rest, by texture", cell["shares"][0], 0.6)
    yield below("of the rest, by shape", cell["shares"][1], 0.15)
    yield above("largest mean gate", channels.max(), 0.85)
