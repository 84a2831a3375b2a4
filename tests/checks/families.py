"""Do the checks catch each family of wrong answers, and accept each of right ones, everywhere?

    python -m tests.checks.families [EXERCISE ...] [--only FAMILY]

Each family changes the solution of every exercise by machine: a few lines behind it that wrap the
class or function. So a new lesson is covered without more work. Prints a table, exercise x family,
and below it what is not as it should be:

    ok    a wrong answer was caught, a right one accepted
    -     nothing to change: no tensor, parameter or layer of that kind; or see SENSELESS
    HOLE  a wrong answer passed
    NO    a right answer was refused
    RAW   an exception that is not a check's
"""

import argparse
import inspect
import sys
import textwrap
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO

from course.checking import CheckFailed, NotAttempted
from tests.checks.harness import define, lessons
from tests.checks.mutants import SECONDS, limit

# What the lines of a family may use. `touched` notes that there was something to change.
TOOLS = """
import functools
import torch
from torch import nn

_touched = []

def touched(value=True):
    _touched.append(True)
    return value

def floats(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()

def changed(result, change):
    \"\"\"A result with `change` made to its tensors of floats.\"\"\"
    if floats(result):
        return touched(change(result))
    if isinstance(result, nn.Module):  # what an answer builds: when it is used
        result.register_forward_hook(lambda _, given, y: changed(y, change))
    if isinstance(result, (tuple, list)) and not hasattr(result, "_fields"):
        return type(result)(changed(part, change) for part in result)
    return result
"""

# A class whose calls go by `around`; a function whose calls do
MODULE = """
class {name}({name}):
    def forward(self, *args, **kwargs):
        return around(self, super().forward, args, kwargs)
"""
FUNCTION = """
def _wrapped(right):
    @functools.wraps(right)
    def wrapper(*args, **kwargs):
        return around(wrapper, right, args, kwargs)
    return wrapper

{name} = _wrapped({name})
"""
# A class with more to do once it is built
BUILT = """
class {name}({name}):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        built(self)
"""


@dataclass
class Family:
    """name: how the table calls it. right: whether its answers are. body: lines that define
    `around(self, call, args, kwargs)` or, for classes alone, `built(self)`; or, with `{name}`,
    lines that make the answer themselves. replaces: pairs of texts in the solution, instead."""

    name: str
    right: bool
    body: str = ""
    replaces: tuple = ()

    def source(self, solution: str, name: str) -> str | None:
        """The changed answer, or None where there is nothing to change."""
        is_class = f"class {name}(" in solution
        for old, new in self.replaces:
            if old not in solution:
                return None
            solution = solution.replace(old, new)
        if "def built(" in self.body and not is_class:
            return None
        body = textwrap.dedent(self.body)
        if "{name}" in body:
            return f"{solution}\n{body.replace('{name}', name)}"
        tail = ""
        if "def around(" in body:
            tail = MODULE if is_class else FUNCTION
        elif "def built(" in body:
            tail = BUILT
        return f"{body}\n{solution}\n{tail.format(name=name)}"


def _result(change):
    return f"""
    def around(self, call, args, kwargs):
        return changed(call(*args, **kwargs), lambda y: {change})
    """


WRONG = [
    Family("squeezed", False, _result("y.squeeze(0)")),
    Family("every axis squeezed", False, _result("y.squeeze()")),
    Family("double", False, _result("y.double()")),
    Family("NaN", False, _result("y * torch.nan")),
    Family("infinite", False, _result("y / 0")),
    Family("detached", False, _result("y.detach()")),
    Family("half a percent off", False, _result("y * 1.005")),
    Family("negative", False, _result("-y")),
    Family("zeros", False, _result("torch.zeros_like(y)")),
    Family("noise", False, _result("y + 0.01 * torch.randn_like(y)")),
    Family(
        "tuple",
        False,
        """
        def around(self, call, args, kwargs):
            result = call(*args, **kwargs)
            return touched((result,)) if isinstance(result, torch.Tensor) else result
        """,
    ),
    Family(
        "nothing",
        False,
        "def around(self, call, args, kwargs):\n    touched(call(*args, **kwargs))",
    ),
    Family(
        "input changed",
        False,
        """
        def around(self, call, args, kwargs):
            result = call(*args, **kwargs)
            for x in args:
                if floats(x) and not x.requires_grad:
                    touched(x.add_(1))
            return result
        """,
    ),
    Family(
        "input detached",
        False,
        """
        def around(self, call, args, kwargs):
            return call(*(touched(x.detach()) if floats(x) else x for x in args), **kwargs)
        """,
    ),
    Family(
        "result kept",
        False,
        """
        kept = {}

        def around(self, call, args, kwargs):
            tensors = [isinstance(a, torch.Tensor) for a in args]
            if not isinstance(self, nn.Module) and not any(tensors):
                return call(*args, **kwargs)
            shapes = [getattr(a, "shape", type(a)) for a in args]
            key = id(self), *shapes
            if key not in kept:
                kept[key] = call(*args, **kwargs), args
            return touched(kept[key][0])
        """,
    ),
    Family(
        "size of the first batch",
        False,
        """
        sizes = []

        def around(self, call, args, kwargs):
            if args and floats(args[0]) and args[0].ndim:
                sizes.append(len(args[0]))
                result = call(*args, **kwargs)
                return changed(result, lambda y: y.reshape(sizes[0], *y.shape[1:]))
            return call(*args, **kwargs)
        """,
    ),
    Family(
        "no gradient recorded",
        False,
        """
        def around(self, call, args, kwargs):
            with torch.no_grad():
                return changed(call(*args, **kwargs), lambda y: y)
        """,
    ),
    Family(
        "gradients off afterwards",
        False,
        """
        def around(self, call, args, kwargs):
            result = call(*args, **kwargs)
            touched(torch.set_grad_enabled(False))
            return result
        """,
    ),
    Family(
        "autocast on afterwards",
        False,
        """
        def around(self, call, args, kwargs):
            result = call(*args, **kwargs)
            touched(torch.set_autocast_enabled("cpu", True))
            return result
        """,
    ),
    Family(
        "default type changed",
        False,
        """
        def around(self, call, args, kwargs):
            result = call(*args, **kwargs)
            touched(torch.set_default_dtype(torch.float64))
            return result
        """,
    ),
    Family(
        "eval mode left",
        False,
        """
        def around(self, call, args, kwargs):
            result = call(*args, **kwargs)
            if isinstance(self, nn.Module):
                touched(self.eval())
            return result
        """,
    ),
    Family(
        "shared instances",
        False,
        """
        first = {}

        def built(self):
            key = str([(n, tuple(p.shape)) for n, p in self.named_parameters()])
            if any(isinstance(p, nn.parameter.UninitializedParameter) for p in self.parameters()):
                return
            other = first.setdefault(key, self)
            if other is not self and list(self.parameters()):
                self._parameters, self._modules = touched(other._parameters), other._modules
        """,
    ),
    Family(
        "tied",
        False,
        """
        def built(self):
            seen = {}
            for module in list(self.modules()):
                for name, parameter in list(module.named_parameters(recurse=False)):
                    first = seen.setdefault(parameter.shape, parameter)
                    if first is not parameter:
                        setattr(module, name, touched(first))
                        return
        """,
    ),
    Family(
        "frozen",
        False,
        """
        def built(self):
            for parameter in list(self.parameters())[:1]:
                touched(parameter.requires_grad_(False))
        """,
    ),
    Family(
        "seeded",
        False,
        """
        def built(self):
            touched(torch.manual_seed(0))
        """,
    ),
    Family(
        "one more parameter",
        False,
        """
        def built(self):
            self.unused_parameter = touched(nn.Parameter(torch.zeros(3)))
        """,
    ),
]

RIGHT = [
    Family(
        "as it is", True, "def around(self, call, args, kwargs):\n    return call(*args, **kwargs)"
    ),
    Family("copied result", True, _result("y.clone()")),
    Family("in memory otherwise", True, _result("y.mT.contiguous().mT if y.ndim > 1 else y")),
    Family(
        "order turned round",
        True,
        """
        def built(self):
            if not isinstance(self, (nn.Sequential, nn.ModuleList)):
                for name in ("_modules", "_parameters"):
                    setattr(self, name, dict(reversed(vars(self)[name].items())))
                touched()
        """,
    ),
    Family(
        "other names",
        True,
        """
        def built(self):
            if isinstance(self, (nn.Sequential, nn.ModuleList)):
                return
            other = {name: f"part_{len(name)}_{i}" for i, name in enumerate(self._modules)}
            self._modules = {other[name]: touched(m) for name, m in self._modules.items()}
            object.__setattr__(self, "other_names", other)

        class {name}({name}):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                built(self)

            def __getattr__(self, name):
                other = vars(self).get("other_names", {})
                return super().__getattr__(other.get(name, name))
        """,
    ),
    Family(
        "own parameters",
        True,
        """
        class Own(nn.Module):
            def __init__(self, inside, outside, bias=True):
                super().__init__()
                self.bias = nn.Parameter(torch.zeros(outside)) if bias else None
                self.matrix = nn.Parameter(torch.randn(inside, outside) * inside**-0.5)

            def forward(self, x):
                y = x @ self.matrix
                return y if self.bias is None else y + self.bias
        """,
        (("nn.Linear(", "Own("),),
    ),
    Family(
        "buffers",
        True,
        """
        def built(self):
            self.register_buffer("pixel_mean", touched(torch.tensor([0.4, 0.5, 0.6])))
            self.register_buffer("seen", torch.tensor(0), persistent=False)
        """,
    ),
    Family(
        "result kept to be looked at",
        True,
        """
        def around(self, call, args, kwargs):
            self.last_result = touched(call(*args, **kwargs))
            return self.last_result
        """,
    ),
    Family(
        "another default",
        True,
        """
        class {name}({name}):
            def __init__(self, *args, verbose=False, **kwargs):
                super().__init__(*args, **kwargs)
                touched()
        """,
    ),
    Family("a lambda", True, "_right = {name}\n{name} = lambda *a, **k: touched(_right(*a, **k))"),
    Family("a partial", True, "touched()\n{name} = functools.partial({name})"),
    Family(
        "a callable object",
        True,
        """
        class Callable:
            def __init__(self, right):
                self.right = right

            def __call__(self, *args, **kwargs):
                return touched(self.right(*args, **kwargs))

        {name} = Callable({name})
        """,
    ),
    Family(
        "a function with hints",
        True,
        """
        def _typed(right):
            def {name}(*args: object, **kwargs: object) -> object:
                return touched(right(*args, **kwargs))
            return {name}

        {name} = _typed({name})
        """,
    ),
]

FAMILIES = WRONG + RIGHT
# Cells that make no sense: (exercise, family) -> why
SENSELESS = {
    **{
        (
            exercise,
            family,
        ): "no gradient is asked of it: it changes data, or computes numbers to look at"
        for exercise in ("shift", "soft", "bf16", "reading", "field", "difference", "sweep")
        for family in ("detached", "input detached", "no gradient recorded")
    },
    **{
        (exercise, "buffers"): "the names of its state dict are given, and no others"
        for exercise in ("mbconv-rw", "coatnet-rw")
    },
    **{
        (exercise, family): "the result has no axis of the batch"
        for exercise in ("bf16", "field")
        for family in ("squeezed", "every axis squeezed")
    },
    ("bf16", "double"): "a loss to be printed: any number will do",
    ("average", "nothing"): "it changes a model and returns nothing",
    **{
        ("position-bias", family): "there is no batch: it takes no input"
        for family in ("squeezed", "every axis squeezed")
    },
    **{
        (exercise, "other names"): "the exercise gives the names: weights go in by name"
        for exercise in ("mbconv-rw", "coatnet-rw", "coatnet-staged")
    },
}


@dataclass
class Cell:
    mark: str
    message: str = ""


def try_family(lesson, exercise: str, family: Family) -> Cell:
    """What the check says of one family's answer to one exercise."""
    check, name = lesson.checks[exercise]
    source = family.source(lesson.solutions[exercise], name)
    if source is None or (exercise, family.name) in SENSELESS:
        return Cell("-")
    namespace = lesson.solved(until=exercise)
    define(lesson.given + TOOLS, namespace)
    said = StringIO()
    if "class {name}" in family.body and not inspect.isclass(_defined(lesson, exercise, name)):
        return Cell("-")
    try:
        with limit(SECONDS), redirect_stdout(said):
            define(source, namespace)
            check(namespace[name])
    except (CheckFailed, NotAttempted) as failure:
        mark = "NO" if family.right else "ok"
        return Cell(mark if namespace["_touched"] or family.right else "-", str(failure))
    except Exception as error:
        return Cell("RAW", f"{type(error).__name__}: {error}")
    if not namespace["_touched"] and not family.right:
        return Cell("-")
    return Cell("ok" if family.right else "HOLE", said.getvalue())


def _defined(lesson, exercise, name):
    namespace = lesson.solved(until=exercise)
    define(lesson.given, namespace)
    define(lesson.solutions[exercise], namespace)
    return namespace[name]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exercises", nargs="*", help="such as mbconv (default: all)")
    parser.add_argument("--only", metavar="FAMILY", help="one family, such as tied")
    parser.add_argument("--show", action="store_true", help="the message of every cell")
    options = parser.parse_args()
    families = [f for f in FAMILIES if options.only in (None, f.name)]
    numbered = " ".join(
        f"{i}={f.name}{'' if f.right else ' (wrong)'};" for i, f in enumerate(families, 1)
    )
    print(textwrap.fill(numbered, 95))
    bad, counts = [], {}
    for lesson in lessons():
        for exercise in lesson.checks:
            if options.exercises and exercise not in options.exercises:
                continue
            cells = [try_family(lesson, exercise, family) for family in families]
            print(f"{exercise:24}{' '.join(f'{cell.mark:>4}' for cell in cells)}", flush=True)
            for family, cell in zip(families, cells, strict=True):
                counts[cell.mark] = counts.get(cell.mark, 0) + 1
                if cell.mark not in ("ok", "-") or options.show:
                    bad.append(f"\n{exercise}, {family.name}: {cell.mark}\n{cell.message}")
    print(", ".join(f"{mark}: {count}" for mark, count in counts.items()))
    print("\n".join(bad))
    return 1 if {"HOLE", "NO", "RAW"} & counts.keys() else 0


if __name__ == "__main__":
    sys.exit(main())
