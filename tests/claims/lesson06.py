"""What lesson 6 says of its runs."""

from coatnet import CONFIGS
from tests.claims.ledger import above, below, claim, equal

# Numbers that are definitions, or arithmetic that the text spells out: phrase -> why
DEFINED = {
    "60 and 110 MB": "15 and 27 million parameters of 4 bytes",
    "Now the whole model, 25 million numbers": "parameters of coatnet_0_224, counted in lesson 5",
    "1.3 million photographs": "the size of ImageNet-1K",
}

PROOF = (
    "theirs = timm.create_model",
    "pairs = list(zip(",
    "randomise(theirs)\n",
)
MISTAKES = (*PROOF, 'WEIGHTS = (\n    "tables')


@claim("CoAtNet-0 is yours, down to the last digit that counts.")
def the_converted_model_gives_timms_logits(run):
    cell = run.after(*PROOF)
    share = cell["difference"](cell["ours"], cell["theirs"], cell["images"])
    yield below("difference, of the largest logit", share, 1e-5)
    fresh = cell["CoAtNet"](cell["CoAtNetConfig"]())
    yield above(
        "that of a fresh model", cell["difference"](fresh, cell["theirs"], cell["images"]), 0.01
    )


@claim(
    "Not one error message, and all the same none of them is right.",
    "Wrong tables move the logits by a thousandth or so of the largest",
    "All others change them by a twentieth of the largest logit and more, all but one",
)
def mistakes_that_load(run):
    shares = dict(run.after(*MISTAKES)["shares"])
    yield equal("mistakes", len(shares), 12)
    yield above("tanh's GELU", shares.pop("tanh's GELU in the feed-forward layers"), 2e-6)
    for name in [name for name in shares if name.startswith(("tables", "rows"))]:
        share = shares.pop(name)
        yield above(name, share, 2e-4)
        yield below(name, share, 5e-3)
    yield equal("others", len(shares), 8)
    yield above("smallest of the others", min(shares.values()), 0.05)


@claim(
    "Mistakes in the model show, since activations and pooling act on whatever comes.",
    "swapped norms do not show at all: fresh norms are all alike. Q, K and V in another order do",
    "Wrong tables show less than above",
)
def mistakes_with_fresh_weights(run):
    cell = run.after(*MISTAKES)
    fresh = cell["CoAtNet"](cell["CoAtNetConfig"]())
    weights, shares = fresh.state_dict(), {}
    for mistake in cell["WEIGHTS"]:
        other = cell["CoAtNet"](cell["CoAtNetConfig"]())
        other.load_state_dict(cell["mistaken"](weights, mistake))
        shares[mistake] = cell["difference"](other, fresh, cell["images"][:1])
    for mistake, options in cell["MODELS"].items():
        other = cell["CoAtNet"](cell["replace"](cell["CoAtNetConfig"](), **options))
        other.load_state_dict(weights)
        if options:
            shares[mistake] = cell["difference"](other, fresh, cell["images"][:1])
    tables = [name for name in shares if name.startswith(("tables", "rows"))]
    yield equal("norms swapped", shares.pop("norm1 and norm2 of MBConv swapped"), 0)
    for name in tables:
        share = shares.pop(name)
        yield below(f"{name}, of its share above", share / cell["shares"][name], 0.5)
    yield equal("others", len(shares), 7)
    yield above("smallest of the others", min(shares.values()), 1e-4)


@claim(
    "timm has no trained weights for it.",
    "Two of the published models are made of just this: `coatnet_nano_rw_224` and "
    "`coatnet_0_rw_224`.",
    seeds=1,
)
def two_published_models_are_built(run):
    published = run.after("timm.list_pretrained")["published"]
    yield equal("coatnet_0_224 among them", "coatnet_0_224" in published, False)
    built = []
    for name in published:
        config = CONFIGS[name]
        plain = config.block_types == ("C", "C", "T", "T") and config.norm == "layer"
        table = config.position_bias == "table" and config.layer_scale is None
        pooled = config.stride_in == "pool" and config.pool == "avg"
        built += [name] if plain and table and pooled else []
    yield equal("built", built == ["coatnet_0_rw_224", "coatnet_nano_rw_224"], True)


SPEED = (
    *PROOF,
    "their[name], kind = fetch(name)",
    'models = {\n    "yours": (mine[NAME], image)',
)


@claim(
    "The large matrix products, which nobody can skip, are the same in all five, and none of them "
    "is twice as fast as another.",
    slow=True,  # measures time
)
def all_five_do_the_same_work(run):
    medians = run.after(*SPEED)["medians"]
    yield equal("models", len(medians), 5)
    yield below("slowest over fastest", max(medians) / min(medians), 2)
