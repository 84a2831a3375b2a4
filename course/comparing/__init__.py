"""Compares an answer with the reference by value, and names the mistake behind a difference."""

from course.comparing.functions import close, compare_calls, require_unchanged
from course.comparing.instead import Instead
from course.comparing.matching import by_name, in_order
from course.comparing.modules import compare
from course.comparing.shown import difference_shown
from course.comparing.weights import randomise, require_eps, take_weights

__all__ = [
    "Instead",
    "by_name",
    "close",
    "compare",
    "compare_calls",
    "difference_shown",
    "in_order",
    "randomise",
    "require_eps",
    "require_unchanged",
    "take_weights",
]
