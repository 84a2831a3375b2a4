"""What the checks of several lessons use."""

import math
import numbers
from contextlib import contextmanager
from unittest.mock import patch

import numpy
import torch

from coatnet import attention
from course.checking import CheckFailed
from course.checks.mistakes05 import COMPLAINTS


@contextmanager
def explained(look_at="", complaints=COMPLAINTS, first=False):
    """Adds what a layer's own complaint means to a failure that has no likely mistake yet.

    first: where one of the complaints fits, it says more than what is likely in general.
    """
    try:
        yield
    except CheckFailed as failure:
        rows = failure.rows
        text = f"{rows['came']} {rows['expected']}"
        found = next((hint for part, hint in complaints.items() if part in text), "")
        rows["likely"] = (found or rows["likely"]) if first else (rows["likely"] or found)
        if look_at and "__init__" in str(rows["look at"]):
            rows["look at"] = look_at
        raise


@contextmanager
def brief(config):
    """Shows a configuration in a message as `config`, instead of its 24 fields."""
    try:
        yield
    except CheckFailed as failure:
        for label, text in failure.rows.items():
            failure.rows[label] = str(text).replace(f"config={config!r}", "config")
        raise


@contextmanager
def small_grids(limit=4096):
    """Refuses bias tables for grids of more places: the index of a large one fills the memory."""
    make_index = attention.relative_position_index

    def checked(height, width, device=None):
        if height * width > limit:
            raise ValueError(f"a bias table for {height} x {width} places")
        return make_index(height, width, device)

    with patch.object(attention, "relative_position_index", checked):
        yield


class Calls(list):
    """What a probe has noted; a copy of the probe writes into the same list."""

    def __deepcopy__(self, memo):
        return self


def number_of(value, several="", expected="one number", likely=""):
    """A number, as Python's float; an array or tensor that holds one is a number too.

    several: what is likely where several came. likely: what is known already.
    """
    if value is None:
        raise CheckFailed(expected, "None", "the function has no `return`")
    if isinstance(value, torch.Tensor | numpy.ndarray | numpy.generic):
        shape = list(value.shape)
        if math.prod(shape) != 1:
            raise CheckFailed(expected, f"a tensor {shape}", likely or several)
        value = value.item()
    if not isinstance(value, numbers.Number) or isinstance(value, bool | complex):
        if isinstance(value, tuple | list | dict):
            likely = several
        elif isinstance(value, str):
            likely = "a text; return the number itself, and format it where you print it"
        elif isinstance(value, bool):
            likely = "True or False; return the number itself, and compare where you use it"
        elif callable(value):
            likely = "a function, not its result: are its parentheses missing?"
        raise CheckFailed(expected, f"{type(value).__name__}: {value}"[:60], likely)
    return float(value)


def close_tensors(a, b):
    """True where two tensors have one shape and equal values but for rounding."""
    return a.shape == b.shape and torch.allclose(a.double(), b.double(), atol=1e-6)
