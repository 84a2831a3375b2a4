"""What the lessons say of runs is so: the quick claims here, all of them by `make claims`."""

import re

import pytest

from course import lesson_files, training
from tests.checks import harness
from tests.claims import ledger, text
from tests.claims.ledger import Fact, above, below, equal

CLAIMS = [(number, claim) for number in ledger.numbers() for claim in ledger.claims(number)]
QUICK = [
    pytest.param(number, claim, id=f"{number:02d}-{claim.name}")
    for number, claim in CLAIMS
    if not claim.slow
]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "claim"), QUICK)
def test_a_quick_claim_holds_in_its_first_and_last_run(number, claim):
    """`make claims` has all of them; these differ in seed and in how the answers are written."""
    runs = list(claim.readings)
    assert len(runs) > 1
    for style, seed in (runs[0], runs[-1]):
        for fact in claim.facts(number, style, seed):
            assert fact.holds, f"answers {style}, seed {seed}: {fact}"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "claim"), [pair for pair in CLAIMS if pair[1].slow])
def test_a_claim_that_trains_runs_with_training_cut_short(number, claim, monkeypatch):
    """Whether it holds then says nothing: `make claims` trains in full."""
    fit = training.fit

    def short(*args, **options):
        return fit(*args, **{**options, "steps": 2, "steps_per_epoch": None})

    monkeypatch.setattr(training, "fit", short)
    assert list(claim.prove(ledger.Run(number, 0, 0)))


@pytest.mark.parametrize(("number", "claim"), CLAIMS)
def test_its_sentences_stand_in_the_lesson_once(number, claim):
    for sentence in claim.sentences:
        assert ledger.text_of(number).count(sentence) == 1, sentence


@pytest.mark.parametrize("number", ledger.numbers())
def test_every_number_in_the_text_has_something_behind_it(number):
    assert text.unfounded(number) == []


@pytest.mark.parametrize("number", ledger.numbers())
def test_what_is_a_definition_stands_in_the_lesson_and_has_a_reason(number):
    for phrase, reason in ledger.table(number).DEFINED.items():
        assert text.numbers_in(phrase), f"no number in {phrase!r}"
        assert phrase in ledger.text_of(number), phrase
        assert len(reason.split()) > 1, phrase


@pytest.mark.parametrize("number", ledger.numbers())
def test_the_minutes_of_a_lesson_are_those_of_its_exercises_and_of_reading(number):
    prose = ledger.text_of(number)
    minutes = [int(found) for found in re.findall(r"\((\d+) min, [★☆]{3}\)", prose)]
    plan = re.search(r"Plan on \*\*(\d+) minutes\*\*: (\d+) for the exercises, (\d+) ", prose)
    assert plan, "says for how long to plan, and for what"
    total, exercises, reading = map(int, plan.groups())
    assert (exercises, total) == (sum(minutes), exercises + reading)
    for path in ("README.md", "book/index.md"):
        lines = (lesson_files.ROOT / path).read_text(encoding="utf-8").splitlines()
        row = next(line for line in lines if f"{harness.lesson(number).name}.ipynb" in line)
        assert row.endswith(f"| {total} min |"), row


# The ledger can fail


def test_a_fact_knows_its_margin():
    assert above("share", 0.75, 0.5) == Fact("share", 0.75, "> 0.5", 0.5)
    assert below("share", 0.75, 0.5).margin == -0.5
    assert not above("share", 0.5, 0.5).holds
    assert equal("tokens", 49, 49).holds
    assert not equal("tokens", 50, 49).holds
    assert not above("share", float("nan"), 0.5).holds


@pytest.mark.parametrize(
    ("prose", "numbers"),
    [
        ("gets 71 % of them right, not 9.5%", ["71", "9.5"]),
        ("1,024 tokens, 25.0 million and 25 M, 4 times as wide", ["1,024", "25.0", "25", "4"]),
        ("3 x 3 kernels, section 2, 7 tokens, `lr=0.001`, [arXiv 2106.04803](https://a.b/1.5)", []),
        ("### Exercise 1 · Q, K, V (10 min, ★★☆)", []),
        ("takes 3 seconds, or a 2-minute walk", ["3", "2"]),
        ("4x as fast, 30ms, 12 parameters, $8{,}748$ is not a 1x1", ["4", "30", "12"]),
    ],
)
def test_numbers_in_prose(prose, numbers):
    assert [value for _, value in text.numbers_in(prose)] == numbers


def test_a_number_that_nothing_stands_behind_is_found(monkeypatch):
    number = ledger.numbers()[0]
    prose = ledger.text_of(number)
    assert text.unfounded(number) == []
    monkeypatch.setattr(ledger, "text_of", lambda _: f"{prose} It gets 12.34 % right.")
    assert [found.split(":")[0] for found in text.unfounded(number)] == ["12.34"]


def test_another_seed_and_another_style_are_another_run():
    texts = ["torch.manual_seed(1)\nhead"]
    runs = [ledger.Run(1, style, seed) for style, seed in ((0, 0), (0, 1), (1, 0))]
    cells = [
        run.after(
            "embed = yours(PatchEmbedding)(img_size=56, patch_size=8, num_hiddens=64)", *texts
        )
        for run in runs
    ]
    assert not cells[0]["weights"].equal(cells[1]["weights"])
    assert cells[0]["AttentionHead"] is not cells[2]["AttentionHead"]
    assert runs[0].after(*texts[:0]) is runs[0].after()
