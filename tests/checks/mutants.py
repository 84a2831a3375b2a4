"""Do the checks catch wrong answers that nobody thought of?

    python -m tests.checks.mutants [EXERCISE ...]

Changes each solution in every small way that it knows: an operand, a layer, a statement or an
argument dropped or swapped, a constant, an operator, a condition, a class changed. Each mutant goes
through the lesson's own check. Prints for every exercise how many there are, how many were caught,
how many of the messages name a likely mistake, and the mutants that passed and should not have.
With --show, also what the check said of each.
"""

import argparse
import ast
import copy
import difflib
import signal
import sys
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO

from course.checking import CheckFailed, NotAttempted
from tests.checks.harness import lessons

SECONDS = 20  # a mutant may loop for ever
OTHERS = {  # names, and what they may be mistaken for
    "GELU": ["ReLU", "Identity"],
    "SiLU": ["GELU", "Identity"],
    "Sigmoid": ["Softmax", "Identity"],
    "tanh": ["relu"],
    "BatchNorm2d": ["Identity"],
    "LayerNorm": ["Identity"],
    "LayerNorm2d": ["Identity"],
    "Dropout": ["Identity"],
    "AvgPool2d": ["MaxPool2d"],
    "mean": ["sum"],
    "sum": ["mean"],
    "max": ["mean"],
    "abs": ["square"],
    "softmax": ["sigmoid"],
    "cat": ["stack"],
    "zeros": ["ones"],
    "flatten": ["squeeze"],
}
SWAPPED = {
    ast.Add: [ast.Sub],
    ast.Sub: [ast.Add],
    ast.Mult: [ast.Add, ast.Div],
    ast.Div: [ast.Mult],
    ast.FloorDiv: [ast.Mult],
    ast.Eq: [ast.NotEq],
    ast.NotEq: [ast.Eq],
    ast.In: [ast.NotIn],
}

START = "where training starts from is left open, as long as it is small"
SAME_SHAPE = "the axis of length 1 that is missing is added again by broadcasting"
SAME_AXES = "the mean goes over the same axes"
SAME_ROW = "a row vector without its axis of length 1 broadcasts alike"
A_NUMBER = "a tensor with one number is a number too"
EVEN = "the cosine of -x is that of x"
# Mutants that are as right as the solution: (exercise, the changed line) -> why
EQUIVALENT = {
    **{
        (exercise, f"+ self.{name} = nn.Parameter({value})"): reason
        for exercise in ("vision-transformer", "coatnet-hybrid")
        for name, length in (("cls_token", "1, "), ("positions", "num_tokens, "))
        for value, reason in (
            (f"torch.randn(1, {length}num_hiddens) + 0.02", START),
            (f"torch.randn(1, {length}num_hiddens)", START),
            (f"torch.randn(1, {length}num_hiddens) * 0.04", START),
            (f"torch.randn({length}num_hiddens) * 0.02", SAME_SHAPE),
        )
    },
    ("squeeze-excite", "+ means = x.mean(dim=(3, 2))"): SAME_AXES,
    **{
        ("position-index", f"+ {offsets} = {name}[:, None] - {name}[{row}] + {side} - 1"): SAME_ROW
        for offsets, name, side in (
            ("row_offsets", "rows", "height"),
            ("column_offsets", "columns", "width"),
        )
        for row in (":,", "None,")
    },
    ("position-bias", "+ nn.init.trunc_normal_(self.table)"): START,
    ("position-bias", "+ nn.init.trunc_normal_(self.table, std=0.04)"): START,
    (
        "position-bias",
        "+ self.table = nn.Parameter(torch.empty(num_heads, 2 * width - 1, 2 * height - 1))",
    ): "as many numbers a head, and the table is flattened before it is used",
    (
        "attention-module",
        "+ num_heads = out_channels // 31",
    ): "as many heads for every multiple of 32 below 992",
    (
        "difference",
        "+ return (y - expected).abs().max() / expected.abs().max()",
    ): A_NUMBER,
    (
        "difference",
        "+ return ((expected - y).abs().max() / expected.abs().max()).item()",
    ): "a difference is as large in the other direction",
    (
        "settings",
        "+ return {'depths': depths, 'expand_output': hidden == 4 * output, "
        "'attend_output': three_widths != 3 * channels, "
        "'conv_bias': 'stages.1.0.project.bias' in shapes, "
        "'shortcut_bias': 'stages.3.0.shortcut.proj.bias' in shapes, "
        "'mlp_head': 'head.hidden.weight' in shapes}",
    ): "a list of four numbers is accepted too",
    (
        "settings",
        "+ three_widths, channels = shapes['stages.3.0.attention.qkv.weight'][:3]",
    ): "the weights of a linear layer have two lengths, so that nothing is cut off",
    (
        "field",
        "+ middle = grid[:, :, grid.shape[2] // 2, grid.shape[3] // 2].mean()",
    ): "a constant factor cancels in the shares",
    (
        "field",
        "+ field = gradient.abs().sum(dim=(0, 1))",
    ): "a constant factor cancels in the shares",
    ("field", "+ field = gradient.abs().mean(dim=(1, 0))"): SAME_AXES,
    (
        "coatnet-staged",
        "+ channels, side = (config.stem_widths[-1], image_size / 2)",
    ): "rounding up once is enough: ceil(ceil(n / 2) / 2) is ceil(n / 4)",
    ("sweep", "+ shares.append((predictions == targets).float().mean())"): A_NUMBER,
    ("schedule", "+ fallen = (warmup - share) / (1 - warmup)"): EVEN,
    ("schedule", "+ fallen = (share - warmup) / (warmup - 1)"): EVEN,
    (
        "shift",
        "+ return images.movedim(1, 3)[batch, rows[:, :, None], columns[:, None]].movedim(3, 1)",
    ): "[:, None] leaves the axes behind it as they are",
    (
        "bf16",
        "+ with torch.autocast(images.device.type):",
    ): "on a CPU, where the check runs, bfloat16 is the default",
}


# The mistakes that a check must be able to tell apart: (exercise, what the likely row says); the
# wrong answer stands in the table of that lesson
PITFALLS = {
    "attention not scaled": ("attention-head", "not scaled"),
    "attention scaled by the model width": ("attention-head", "model width"),
    "softmax over the wrong axis": ("attention-head", "over the queries"),
    "heads concatenated in the wrong order": ("multi-head", "reverse order"),
    "missing residual": ("encoder-block", "residual around the attention"),
    "norm after instead of before": ("encoder-block", "post-norm"),
    "CLS token appended instead of prepended": ("vision-transformer", "appended"),
    "position added before CLS": ("vision-transformer", "before the CLS token"),
    "patch count from patch_size": ("coatnet-hybrid", "counted from `patch_size`"),
    "BatchNorm missing in one layer": ("cnn-stem", "BatchNorm after the second"),
    "GELU missing in one layer": ("cnn-stem", "GELU after the third"),
    "padding 0": ("cnn-stem", "first convolution has padding 0"),
    "depthwise without groups": ("depthwise-conv", "without `groups`"),
    "squeeze-and-excitation over the wrong dims": ("squeeze-excite", "goes over the channels"),
    "its width from the wrong channels": ("mbconv", "a quarter of the expanded channels"),
    "expansion from the input channels": ("mbconv", "counts from the input channels"),
    "missing second shortcut projection": ("transformer-block", "projection is missing"),
    "relative index transposed": ("position-index", "query and key are swapped"),
    "relative index with the sign swapped": ("position-index", "row offsets are key minus query"),
    "one bias shared by all heads": ("position-bias", "one bias for all heads"),
    "bias added after softmax": ("attention-written-out", "after the softmax"),
    "bias index made a parameter": ("position-bias", "index is a parameter"),
    "CLS token kept in the staged model": ("coatnet-staged", "CLS token is left over"),
}


@dataclass
class Mutant:
    """An answer with one change: its source, and the first line that differs."""

    source: str
    line: str


@dataclass
class Result:
    mutant: Mutant
    outcome: str  # "caught", "passed", or the name of an exception that is not a check's
    named: bool = False
    message: str = ""


def mutants(source):
    """All mutants of an answer, each different from it and from the others."""
    tree = ast.parse(source)
    original = ast.unparse(tree)
    found = {}
    for number, node in enumerate(ast.walk(tree)):
        for change in changes(node):
            other = copy.deepcopy(tree)
            target = next(n for i, n in enumerate(ast.walk(other)) if i == number)
            try:
                text = ast.unparse(change(other, target) or other)
                compile(text, "<mutant>", "exec")
            except (SyntaxError, ValueError, AttributeError):
                continue
            if text != original:
                found.setdefault(text, Mutant(text, changed_line(original, text)))
    return list(found.values())


def changed_line(original, text):
    lines = difflib.ndiff(original.splitlines(), text.splitlines())
    marked = [line for line in lines if line[0] in "-+"]
    return next((line for line in marked if line[0] == "+"), marked[0]).replace("  ", "")


def changes(node):
    """Functions that change a copy of the tree at a copy of `node`."""
    if isinstance(node, ast.Constant):
        yield from constants(node)
    elif isinstance(node, ast.Attribute | ast.Name):
        field = "attr" if isinstance(node, ast.Attribute) else "id"
        for other in OTHERS.get(getattr(node, field), []):
            yield lambda _, n, f=field, o=other: setattr(n, f, o)
    elif isinstance(node, ast.BinOp):
        for other in SWAPPED.get(type(node.op), []):
            yield lambda _, n, o=other: setattr(n, "op", o())
        yield lambda tree, n: put(tree, n, n.left)
        yield lambda tree, n: put(tree, n, n.right)
        if not isinstance(node.op, ast.Add | ast.Mult):  # where the order does not matter
            yield lambda _, n: vars(n).update(left=n.right, right=n.left)
    elif isinstance(node, ast.Compare):
        for other in SWAPPED.get(type(node.ops[0]), []):
            yield lambda _, n, o=other: setattr(n, "ops", [o()])
    elif isinstance(node, ast.IfExp):
        yield lambda tree, n: put(tree, n, n.body)
        yield lambda tree, n: put(tree, n, n.orelse)
    elif isinstance(node, ast.If):
        yield lambda _, n: setattr(n, "test", ast.Constant(True))
        yield lambda _, n: setattr(n, "test", ast.Constant(False))
    elif isinstance(node, ast.Call):
        yield from calls(node)
    elif isinstance(node, ast.List | ast.Tuple) and isinstance(node.ctx, ast.Load):
        yield from sequences(node, "elts")
    if isinstance(node, ast.FunctionDef | ast.For | ast.With):
        yield from statements(node)


def constants(node):
    if isinstance(node.value, bool):
        yield lambda _, n: setattr(n, "value", not n.value)
    elif isinstance(node.value, int):
        yield lambda _, n: setattr(n, "value", n.value + 1)
        if node.value > 0:
            yield lambda _, n: setattr(n, "value", n.value - 1)
    elif isinstance(node.value, float):
        yield lambda _, n: setattr(n, "value", 2 * n.value)


def calls(node):
    modules = ("nn", "F", "torch", "math")
    owner = node.func.value if isinstance(node.func, ast.Attribute) else None
    if owner and ast.unparse(owner).partition(".")[0] not in modules:
        yield lambda tree, n: put(tree, n, n.func.value)  # x.method() -> x
    elif len(node.args) == 1:
        yield lambda tree, n: put(tree, n, n.args[0])  # f(x) -> x
    for place in range(len(node.keywords)):
        yield lambda _, n, p=place: n.keywords.pop(p) and None
    if getattr(node.func, "attr", "") != "transpose":  # whose two axes may be swapped
        yield from sequences(node, "args")


def sequences(node, field):
    """One element left out, or two neighbours swapped."""
    length = len(getattr(node, field))
    for place in range(length if length > 1 else 0):
        yield lambda _, n, p=place: getattr(n, field).pop(p) and None
    for place in range(length - 1):
        yield lambda _, n, p=place: swap(getattr(n, field), p)


def statements(node):
    """One statement left out."""
    for place, statement in enumerate(node.body):
        if isinstance(statement, ast.FunctionDef) or "super().__init__" in ast.unparse(statement):
            continue
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            continue  # a docstring
        yield lambda _, n, p=place: n.body.__setitem__(p, ast.Pass())


def swap(items, place):
    items[place], items[place + 1] = items[place + 1], items[place]


def put(tree, old, new):
    """The tree with `new` in the place of `old`."""

    class Replace(ast.NodeTransformer):
        def visit(self, node):
            return new if node is old else self.generic_visit(node)

    return Replace().visit(tree)


@contextmanager
def limit(seconds):
    def stop(*_):
        raise TimeoutError(f"longer than {seconds} s")

    if not hasattr(signal, "SIGALRM"):  # Windows
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def try_out(run_check, exercise, mutant):
    try:
        with limit(SECONDS), redirect_stdout(StringIO()):
            run_check(exercise, mutant.source)
    except CheckFailed as failure:
        return Result(mutant, "caught", bool(failure.rows["likely"]), str(failure))
    except NotAttempted as missing:
        return Result(mutant, "caught", True, str(missing))
    except NameError as error:
        # The mutant is no answer at all, such as a class body that does not run
        return Result(mutant, "caught", False, f"NameError: {error}")
    except Exception as error:
        return Result(mutant, type(error).__name__, False, str(error))
    return Result(mutant, "passed")


def pitfalls():
    """For each pitfall whether the check's likely row names it: pairs (pitfall, True or False)."""
    for pitfall, (exercise, words) in PITFALLS.items():
        lesson = next(lesson for lesson in lessons() if exercise in lesson.checks)
        _, old, new, _ = next(w for w in lesson.wrong if w[0] == exercise and w[-1] == words)
        answer = lesson.solutions[exercise].replace(old, new)
        result = try_out(lesson.run_check, exercise, Mutant(answer, new))
        likely = result.message.partition("likely")[2].partition("look at")[0]
        yield pitfall, words in likely


def is_equivalent(exercise, mutant):
    return (exercise, mutant.line) in EQUIVALENT


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exercises", nargs="*", help="such as mbconv (default: all)")
    parser.add_argument("--show", action="store_true", help="every mutant with its message")
    options = parser.parse_args()
    print("| exercise | mutants | equivalent | caught | likely mistake named | not caught |")
    print("|---|---|---|---|---|---|")
    total, holes = [], []
    for lesson in lessons():
        for exercise in lesson.checks:
            if options.exercises and exercise not in options.exercises:
                continue
            results = [
                try_out(lesson.run_check, exercise, mutant)
                for mutant in mutants(lesson.solutions[exercise])
            ]
            real = [r for r in results if not is_equivalent(exercise, r.mutant)]
            caught = [r for r in real if r.outcome == "caught"]
            holes += [(exercise, r) for r in real if r.outcome != "caught"]
            total.append(
                (
                    len(results),
                    len(results) - len(real),
                    len(caught),
                    sum(r.named for r in caught),
                    len(real) - len(caught),
                )
            )
            print(f"| {exercise} | {' | '.join(map(str, total[-1]))} |", flush=True)
            if options.show:
                for r in results:
                    print(f"\n{r.mutant.line}\n{r.outcome}: {r.message}")
    print(f"| all | {' | '.join(str(sum(column)) for column in zip(*total, strict=True))} |")
    print("\n| pitfall | named |\n|---|---|")
    for pitfall, named in pitfalls():
        print(f"| {pitfall} | {'yes' if named else 'no'} |")
    for exercise, result in holes:
        print(f"\n{exercise}: {result.outcome} {result.message}\n  {result.mutant.line}")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())
