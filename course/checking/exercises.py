"""`exercise` makes a check of a function; `yours` gives an answer once it has passed."""

import functools
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any

from course.checking.attempts import namespace_of, require_attempt, require_signature
from course.checking.explain import failure_of, is_students
from course.checking.guard import no_trace, require_settings, seeds_watched
from course.checking.outcomes import CheckBroke, CheckFailed, Shown, wrapped

_references: dict[str, tuple] = {}  # name of an answer -> (the reference's, what it builds on)
_passed: dict = {}  # name of an answer -> the student's version that passed its check last


def exercise(
    title: str,
    reference: Callable,
    to_write: Sequence[str],
    builds_on: Sequence[Callable] = (),
    required: Sequence[str] = (),
) -> Callable:
    """Makes a check of a function that takes a student's answer and returns what it proved.

    title: the exercise's name, as the lesson's heading has it.
    reference: the class or function of vit.py or coatnet/ that the answer rebuilds.
    to_write: names of the methods that the student fills in; () where the answer is a function.
    builds_on: references that the answer uses and that are exercises of the same lesson. Where the
        student's own has passed, the answer is checked with it; otherwise, so that a slip there
        does not show here, with the reference in its place, and the message says so.
    required: arguments that have a default in the reference, but none in the exercise.

    The check prints one line when the answer is right, raises NotAttempted where the placeholder
    still stands, and CheckFailed where the answer is wrong. Whatever happens in it, it leaves
    settings and random states alone, and raises nothing but these and CheckBroke.
    """

    def decorate(prove):
        name = reference.__name__
        _references[name] = reference, builds_on

        @functools.wraps(prove)
        def check(answer):
            _passed.pop(name, None)
            caller = sys._getframe(1).f_globals
            try:
                require_attempt(title, answer, to_write)
                require_signature(answer, reference, required)
                namespace = namespace_of(answer) or caller
                parts = [] if answer is reference else builds_on
                proven, notes = _proven_with_parts(prove, answer, parts, namespace)
            except CheckFailed as failure:
                failure.title = title
                raise failure.with_traceback(None) from None
            except Shown:
                raise
            except Exception as error:
                raise CheckBroke(title, error).with_traceback(None) from error
            _passed[name] = answer
            print(wrapped("\n".join([f"✓ {title}: {proven}", *(f"  ({n})" for n in notes)])))

        return check

    return decorate


def _proven_with_parts(prove, answer, parts, namespace):
    """What `prove` says of the answer, with the student's own parts as far as they have passed; if
    it fails then, once more with the reference's. Returns it with notes on what stood in."""
    theirs = {part.__name__: namespace.get(part.__name__, part) for part in parts}
    open_ = [
        part for part in parts if theirs[part.__name__] is not part and not proven(part, theirs)
    ]
    own = [p for p in parts if p not in open_ and theirs[p.__name__] is not p]
    notes = [stands_in(open_)] if open_ else []
    first = None
    if own:
        try:
            return _tried(prove, answer, open_, namespace), notes
        except CheckFailed as failure:
            first = failure
            if failure.rows["look at"].startswith("line "):  # it does not run
                failure.notes += notes
                raise
    try:
        return _tried(prove, answer, parts, namespace), notes
    except CheckFailed as failure:
        failure.notes += notes
        raise failure from first


def _tried(prove, answer, standing_in, namespace):
    with no_trace(), seeds_watched(), _in_place(standing_in, namespace):
        try:
            proved = prove(answer)
        except CheckFailed:
            require_settings()
            raise
        except Shown:
            raise
        except Exception as error:
            require_settings()  # a changed default breaks what comes after it
            if is_students(error):  # raised where no check expected it
                raise failure_of(error, "it runs") from error
            raise
        require_settings()
        return proved


def stands_in(parts: Any) -> str:
    names = ", ".join(f"`{part.__name__}`" for part in parts)
    return f"with the reference's {names}, until the check of yours passes"


def yours(answer: Any) -> Any:
    """The student's answer once it has passed its check; until then the reference in its place.

    Lets the cells after an exercise run, whether or not it has been done.
    """
    caller = sys._getframe(1).f_globals
    name = _name_of(answer, caller)
    if name is None:
        return answer  # no exercise of this lesson
    if _passed.get(name) is answer or answer is _references[name][0]:
        namespace = namespace_of(answer) or caller
        theirs = {n: namespace[n] for n in _references if n in namespace}
        if all(proven(part, theirs) for part in _references[name][1]):
            return answer
    reference = _references[name][0]
    print(
        wrapped(
            f"(the reference's {reference.__name__} stands in until the check of yours, and of its "
            "parts, passes)"
        )
    )
    return reference


def proven(part: Any, theirs: dict) -> bool:
    """True where the version of `part` among `theirs` has passed, with all that it builds on."""
    name = part.__name__
    reference, builds_on = _references.get(name, (part, ()))
    answer = theirs.get(name, reference)
    if answer is reference:
        return True
    return _passed.get(name) is answer and all(proven(p, theirs) for p in builds_on)


def _name_of(answer, namespace):
    """The name of the exercise that an answer answers, whatever the answer calls itself."""
    for name, passed in _passed.items():
        if passed is answer:
            return name
    named = [n for n, value in namespace.items() if value is answer and n in _references]
    own = getattr(answer, "__name__", None)
    return next(iter(named), own if own in _references else None)


@contextmanager
def _in_place(references, namespace):
    """Puts the references in place of the student's versions of those names, and back again."""
    theirs = {r.__name__: namespace[r.__name__] for r in references if r.__name__ in namespace}
    namespace.update({r.__name__: r for r in references if r.__name__ in theirs})
    try:
        yield
    finally:
        namespace.update(theirs)
