"""The ledger of claims: sentences of the lessons that say what a run gives, each with its proof.

A table `tests/claims/lessonNN.py` quotes them:

    @claim("Cut the path, and after four blocks all tokens are one.")
    def without_the_path_tokens_become_one(run):
        cell = run.after('for name in ("with residuals", "path cut")')
        yield above("likeness after four blocks", cell["alike"][3], 0.99)

The function reads the lesson once: `run` has a seed of its own and one accepted way to write the
answers. It yields facts. The sentence holds where all facts of all runs do.
"""

import ast
import contextlib
import functools
import importlib
import io
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib as mpl

from course import lesson_files, training
from tests.checks import harness


class Fact(NamedTuple):
    """A measured number and the bound that it has to keep."""

    what: str
    value: float
    bound: str
    margin: float  # how far it is on the right side, as a share of the bound; negative: it fails

    @property
    def holds(self) -> bool:
        return self.margin > 0


def above(what: str, value: float, bound: float) -> Fact:
    return Fact(what, float(value), f"> {bound:.4g}", (float(value) - bound) / abs(bound))


def below(what: str, value: float, bound: float) -> Fact:
    return Fact(what, float(value), f"< {bound:.4g}", (bound - float(value)) / abs(bound))


def equal(what: str, value: float, expected: float) -> Fact:
    """For what is exact: counts, sizes, how many of something hold."""
    return Fact(what, value, f"= {expected:,}", math.inf if value == expected else -math.inf)


@dataclass(frozen=True)
class Claim:
    """Sentences of a lesson, quoted, and what proves them.

    seeds: how many; 1 where nothing is drawn. slow: trains, so that `make claims` alone runs it.
    """

    sentences: tuple[str, ...]
    prove: Callable[["Run"], Iterator[Fact]]
    seeds: int
    slow: bool

    @property
    def name(self) -> str:
        return self.prove.__name__

    @property
    def readings(self) -> list[tuple[int, int]]:
        """The pairs (style of the answers, seed) that it is tried with.

        Every seed meets both styles, except that of slow claims, where they take turns.
        """
        if self.slow:
            return [(seed % 2, seed) for seed in range(self.seeds)]
        return [(style, seed) for seed in range(self.seeds) for style in (0, 1)]

    def facts(self, number: int, style: int, seed: int) -> list[Fact]:
        found = list(self.prove(reading(number, style, seed)))
        assert found, f"{self.name} shows nothing"
        return found


def claim(*sentences: str, seeds: int = 5, slow: bool = False) -> Callable[[Callable], Claim]:
    """Makes a claim of the function that proves these sentences."""
    assert sentences
    return lambda prove: Claim(sentences, prove, seeds, slow)


class Run:
    """A lesson with one seed and one style of answers: 0 is the lesson's own, 1 another right one.

    Seed 0 is the lesson's; another is added to every seed that its cells set.
    """

    def __init__(self, number: int, style: int, seed: int):
        self.number, self.style, self.seed = number, style, seed
        self._after: dict[tuple[str, ...], dict] = {}

    def after(self, *texts: str) -> dict:
        """The variables after the cells that hold these texts have run, one after the other.

        Each text stands in one code cell. What was printed is under "printed". The same texts give
        the same variables, run once.
        """
        if texts not in self._after:
            namespace = dict(notebook(self.number, self.style))
            _shift_training(namespace, self.seed)
            self._after[texts] = self.then(namespace, *texts)
        return self._after[texts]

    def then(self, variables: dict, *texts: str) -> dict:
        """The variables after further cells, such as those that look at what `after` trained."""
        namespace, printed = dict(variables), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            for text in texts:
                harness.define(self._with_seed(code_cell(self.number, text)), namespace)
        _close_figures()
        return namespace | {"printed": printed.getvalue()}

    def _with_seed(self, source: str) -> str:
        shifted = rf"torch.manual_seed(\1 + {1000 * self.seed})"
        return re.sub(r"torch\.manual_seed\(([^()]*)\)", shifted, source)


@functools.lru_cache(maxsize=4)  # one reading serves all claims of its lesson
def reading(number: int, style: int, seed: int) -> Run:
    return Run(number, style, seed)


@functools.cache
def notebook(number: int, style: int) -> dict:
    """The variables of a lesson whose first cell and exercises have run, in that style."""
    mpl.use("agg")
    lesson = harness.lesson(number)
    namespace = {"__name__": "__main__"}
    cells = [c for c in harness.read(lesson.name).cells if c.cell_type == "code"]
    with contextlib.redirect_stdout(io.StringIO()):
        harness.define(cells[0].source, namespace)
    namespace["yours"] = lambda answer: answer
    if style:
        harness.define(lesson.given, namespace)
    for cell in cells[1:]:
        exercise = cell.id.removeprefix("exercise-")
        if exercise in lesson.solutions:
            harness.define(lesson.solutions[exercise], namespace)
            styles = list(lesson.right.get(exercise, {}).values())
            if style and styles:
                harness.define(styles[(style - 1) % len(styles)], namespace)
        elif _only_defines(cell.source):
            harness.define(cell.source, namespace)
    return namespace


def _only_defines(source: str) -> bool:
    body = ast.parse(source).body
    return all(isinstance(node, ast.ClassDef | ast.FunctionDef) for node in body)


def code_cell(number: int, text: str) -> str:
    """The source of the one plain code cell that holds `text`."""
    cells = harness.read(harness.lesson(number).name).cells
    found = [c.source for c in cells if c.cell_type == "code" and text in c.source]
    if len(found) != 1:
        raise LookupError(f"lesson {number}: {len(found)} code cells hold {text!r}")
    return found[0]


def _shift_training(namespace: dict, seed: int) -> None:
    """Makes `fit` draw other batches for every seed, whatever name it has there."""

    @functools.wraps(training.fit)
    def fit(*args, **options):
        return training.fit(*args, **{**options, "seed": options.get("seed", 0) + 1000 * seed})

    class Training:
        def __getattr__(self, name):
            return fit if name == "fit" else getattr(training, name)

    for name, value in list(namespace.items()):
        if value is training:
            namespace[name] = Training()
        elif value is training.fit:
            namespace[name] = fit


def _close_figures() -> None:
    from matplotlib import pyplot

    pyplot.close("all")


def table(number: int):
    """The module `lessonNN` of a lesson's claims."""
    return importlib.import_module(f"tests.claims.lesson{number:02d}")


def claims(number: int) -> list[Claim]:
    return [value for value in vars(table(number)).values() if isinstance(value, Claim)]


def numbers() -> list[int]:
    """The lessons that have a table."""
    folder = lesson_files.ROOT / "tests" / "claims"
    return [int(path.stem[6:]) for path in sorted(folder.glob("lesson[0-9][0-9].py"))]


def text_of(number: int) -> str:
    """All prose of a lesson, with single blanks between words; a comma in a formula is a comma."""
    cells = harness.read(harness.lesson(number).name).cells
    prose = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return " ".join(prose.split()).replace("{,}", ",")
