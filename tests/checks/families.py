"""Do the checks catch each family of wrong answers, and accept each of right ones, everywhere?

    python -m tests.checks.families [EXERCISE ...] [--only FAMILY]

Each family changes the solution of every exercise by machine: a few lines behind it that wrap the
class or function. So a new lesson is covered without more work. Prints a table, exercise x family,
and below it what is not as it should be:

    ok    a wrong answer was caught, a right one accepted
    -     nothing to change, see the family's `needs`; or the cell makes no sense, see SENSELESS
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
import dataclasses
import functools
import torch
from torch import nn

_touched = []

def touched(value=True):
    _touched.append(True)
    return value

def floats(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()

def differ(a, b):
    alike = a.shape == b.shape and a.dtype == b.dtype and a.requires_grad == b.requires_grad
    return not (alike and torch.equal(a, b))

def changed(result, change):
    \"\"\"A result with `change` made to its tensors and numbers, wherever they stand in it.\"\"\"
    if isinstance(result, torch.Tensor) and result.dtype != torch.bool:
        new = change(result)
        return touched(new) if differ(new, result) else new
    if isinstance(result, (int, float)) and not isinstance(result, bool):
        new = change(torch.tensor(result, dtype=torch.float64)).item()
        new = int(new) if isinstance(result, int) and new == new // 1 else new
        return touched(new) if new != result else result
    if isinstance(result, nn.Module):  # what an answer builds: when it is used
        result.register_forward_hook(lambda _, given, y: changed(y, change))
    if isinstance(result, (tuple, list)) and not hasattr(result, "_fields"):
        return type(result)(changed(part, change) for part in result)
    if isinstance(result, dict):
        return {key: changed(part, change) for key, part in result.items()}
    if dataclasses.is_dataclass(result):
        fields = ("stem_widths", "depths", "widths")  # those that an exercise asks for
        new = {name: changed(getattr(result, name), change) for name in fields}
        return dataclasses.replace(result, **new)
    return result

def spoil(value):
    \"\"\"Changes an argument in place.\"\"\"
    with torch.no_grad():
        if isinstance(value, torch.Tensor) and not value.requires_grad and value.numel():
            if value.dtype == torch.bool:
                touched(value.logical_not_())
            elif value.is_floating_point() or value._is_view() is False:
                touched(value.add_(1))
        elif isinstance(value, nn.Module):
            for parameter in list(value.parameters())[:1]:
                touched(parameter.add_(1))
        elif isinstance(value, list) and value:
            touched(value.append(value[0]))
        elif isinstance(value, dict) and value:
            touched(value.popitem())
"""

# A class whose calls go by `around`, or whose methods do where it is no module; a function
MODULE = """
class {name}({name}):
    def forward(self, *args, **kwargs):
        return around(self, super().forward, args, kwargs)
"""
METHODS = """
def _around(method):
    @functools.wraps(method)
    def wrapper(self, *args, **kwargs):
        return around(self, functools.partial(method, self), args, kwargs)
    return wrapper

for _name, _method in list(vars({name}).items()):
    if callable(_method) and not _name.startswith("__"):
        setattr({name}, _name, _around(_method))
"""
FUNCTION = """
def _wrapped(right):
    @functools.wraps(right)
    def wrapper(*args, **kwargs):
        return around(wrapper, right, args, kwargs)
    return wrapper

{name} = _wrapped({name})
"""
# A class, or a function that builds modules, with more to do once that is done
BUILT = """
class {name}({name}):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        built(self)
"""
BUILDER = """
def _building(right):
    @functools.wraps(right)
    def wrapper(*args, **kwargs):
        result = right(*args, **kwargs)
        if isinstance(result, nn.Module):
            built(result)
        return result
    return wrapper

{name} = _building({name})
"""


@dataclass
class Family:
    """name: how the table calls it. right: whether its answers are. body: lines that define
    `around(self, call, args, kwargs)` or `built(self)`, for modules; or, with `{name}`, lines that
    make the answer themselves. needs: what an exercise must have for it. replaces: pairs of texts
    in the solution, instead."""

    name: str
    right: bool
    body: str = ""
    needs: str = "a module"
    replaces: tuple = ()

    def source(self, solution: str, name: str) -> str | None:
        """The changed answer, or None where there is nothing to change."""
        module, plain = (f"class {name}{end}" in solution for end in ("(", ":"))
        for old, new in self.replaces:
            if old not in solution:
                return None
            solution = solution.replace(old, new)
        body = textwrap.dedent(self.body)
        if "{name}" in body:
            return f"{solution}\n{body.replace('{name}', name)}"
        tail = ""
        if "def around(" in body:
            tail = MODULE if module else METHODS if plain else FUNCTION
        elif "def built(" in body:
            tail = BUILT if module else BUILDER
        return f"{body}\n{solution}\n{tail.format(name=name)}"


def _result(name, change, right=False):
    body = f"""
    def around(self, call, args, kwargs):
        return changed(call(*args, **kwargs), lambda y: {change})
    """
    return Family(name, right, body, needs="a result with tensors or numbers that this changes")


WRONG = [
    _result("squeezed", "y.squeeze(0)"),
    _result("every axis squeezed", "y.squeeze()"),
    _result("double", "y.double()"),
    _result("NaN", "y * torch.nan"),
    _result("infinite", "y / 0"),
    _result("detached", "y.detach()"),
    _result("half a percent off", "y * 1.005"),
    _result("negative", "-y"),
    _result("zeros", "torch.zeros_like(y)"),
    _result("noise", "y + 0.01 * torch.randn(y.shape)"),
    Family(
        "tuple",
        False,
        """
        def around(self, call, args, kwargs):
            result = call(*args, **kwargs)
            several = result is None or isinstance(result, (tuple, list))
            return result if several else touched((result,))
        """,
        "one result",
    ),
    Family(
        "nothing",
        False,
        """
        def around(self, call, args, kwargs):
            if call(*args, **kwargs) is not None:
                touched()
        """,
        "a result",
    ),
    Family(
        "input changed",
        False,
        """
        def around(self, call, args, kwargs):
            result = call(*args, **kwargs)
            for x in (*args, *kwargs.values()):
                spoil(x)
            return result
        """,
        "tensors, modules, lists or dicts as arguments",
    ),
    Family(
        "input detached",
        False,
        """
        def around(self, call, args, kwargs):
            return call(*(
                touched(x.detach()) if floats(x) and x.requires_grad else x for x in args
            ), **kwargs)
        """,
        "arguments with a gradient",
    ),
    Family(
        "result kept for each size",
        False,
        """
        kept = {}

        def around(self, call, args, kwargs):
            if not any(isinstance(a, torch.Tensor) for a in args):
                return call(*args, **kwargs)
            key = id(self), *(getattr(a, "shape", type(a)) for a in args)
            if key in kept:
                return touched(kept[key][0])
            kept[key] = call(*args, **kwargs), args
            return kept[key][0]
        """,
        "tensors as arguments",
    ),
    Family(
        "first result for ever",
        False,
        """
        kept = {}

        def around(self, call, args, kwargs):
            if id(self) in kept:
                return touched(kept[id(self)][0])
            kept[id(self)] = call(*args, **kwargs), self
            return kept[id(self)][0]
        """,
        "more than one call",
    ),
    Family(
        "first result kept in eval mode",
        False,
        """
        kept = {}

        def around(self, call, args, kwargs):
            if not isinstance(self, nn.Module) or self.training:
                return call(*args, **kwargs)
            key = id(self), *(getattr(a, "shape", type(a)) for a in args)
            if key in kept:
                return touched(kept[key][0])
            kept[key] = call(*args, **kwargs), self
            return kept[key][0]
        """,
        "a module",
    ),
    Family(
        "size of the first batch",
        False,
        """
        sizes = []

        def around(self, call, args, kwargs):
            if args and isinstance(args[0], torch.Tensor) and args[0].ndim:
                sizes.append(len(args[0]))
                result = call(*args, **kwargs)
                if len(args[0]) != sizes[0]:
                    return changed(result, lambda y: touched(y.reshape(sizes[0], *y.shape[1:])))
                return result
            return call(*args, **kwargs)
        """,
        "batches as arguments",
    ),
    Family(
        "no gradient recorded",
        False,
        """
        def around(self, call, args, kwargs):
            if isinstance(self, nn.Module) or any(floats(a) and a.requires_grad for a in args):
                touched()
            with torch.no_grad():
                return call(*args, **kwargs)
        """,
        "a module, or arguments with a gradient",
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
        "default device changed",
        False,
        """
        def around(self, call, args, kwargs):
            result = call(*args, **kwargs)
            touched(torch.set_default_device("meta"))
            return result
        """,
    ),
    Family(
        "threads changed",
        False,
        """
        def around(self, call, args, kwargs):
            result = call(*args, **kwargs)
            touched(torch.set_num_threads(torch.get_num_threads() + 1))
            return result
        """,
    ),
    Family(
        "seeded when called",
        False,
        """
        def around(self, call, args, kwargs):
            touched(torch.manual_seed(0))
            return call(*args, **kwargs)
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
        "a module",
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
        "seeded when built",
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
    _result("copied result", "y.clone()", right=True),
    _result("in memory otherwise", "y.mT.contiguous().mT if y.ndim > 1 else y", right=True),
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
        "a linear layer",
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
    Family(
        "works on deep copies",
        True,
        """
        import copy

        def around(self, call, args, kwargs):
            if any(isinstance(a, nn.Module) for a in args):
                args = touched(copy.deepcopy(args))
            return call(*args, **kwargs)
        """,
        "modules as arguments",
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
        (exercise, "buffers"): "the names of its state dict are given, and no others"
        for exercise in ("mbconv-rw", "coatnet-rw")
    },
    **{
        (exercise, "other names"): "the exercise gives the names: weights or parts go by name"
        for exercise in ("mbconv-rw", "coatnet-rw", "coatnet-staged", "resume")
    },
    **{
        (exercise, "works on deep copies"): "what it is given is what it has to change"
        for exercise in ("bf16", "average")
    },
    ("reading", "detached"): "numbers to look at: no gradient is asked of them",
    ("bf16", "detached"): "a loss to be printed: with or without a gradient",
    ("bf16", "double"): "a loss to be printed: any number will do",
    ("resume", "input changed"): "the state is read once, and comes from a file",
    ("stage", "no gradient recorded"): "it builds layers, and computes nothing",
}


@dataclass
class Cell:
    mark: str
    message: str = ""


def try_family(lesson, exercise: str, family: Family) -> Cell:
    """What the check says of one family's answer to one exercise."""
    check, name = lesson.checks[exercise]
    source = family.source(lesson.solutions[exercise], name)
    empty = Cell("-", f"needs {family.needs}")
    if (exercise, family.name) in SENSELESS:
        return Cell("-", SENSELESS[exercise, family.name])
    if source is None:
        return empty
    namespace = lesson.solved(until=exercise)
    define(lesson.given + TOOLS, namespace)
    said = StringIO()
    if "class {name}" in family.body and not inspect.isclass(_defined(lesson, exercise, name)):
        return empty
    try:
        with limit(SECONDS), redirect_stdout(said):
            define(source, namespace)
            check(namespace[name])
    except (CheckFailed, NotAttempted) as failure:
        if not namespace["_touched"] and not family.right:
            return empty
        return Cell("NO" if family.right else "ok", str(failure))
    except Exception as error:
        return Cell("RAW", f"{type(error).__name__}: {error}")
    if not namespace["_touched"] and not family.right:
        return empty
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
    bad, counts, empty = [], {}, {}
    for lesson in lessons():
        for exercise in lesson.checks:
            if options.exercises and exercise not in options.exercises:
                continue
            cells = [try_family(lesson, exercise, family) for family in families]
            print(f"{exercise:24}{' '.join(f'{cell.mark:>4}' for cell in cells)}", flush=True)
            for family, cell in zip(families, cells, strict=True):
                counts[cell.mark] = counts.get(cell.mark, 0) + 1
                if cell.mark == "-":
                    empty.setdefault((family.name, cell.message), []).append(exercise)
                if cell.mark not in ("ok", "-") or options.show:
                    bad.append(f"\n{exercise}, {family.name}: {cell.mark}\n{cell.message}")
    print(", ".join(f"{mark}: {count}" for mark, count in counts.items()))
    print("\n".join(bad))
    print("\nWhy cells are empty:")
    for (family, reason), exercises in sorted(empty.items()):
        print(textwrap.fill(f"{family}: {reason} ({', '.join(exercises)})", 95))
    return 1 if {"HOLE", "NO", "RAW"} & counts.keys() else 0


if __name__ == "__main__":
    sys.exit(main())
