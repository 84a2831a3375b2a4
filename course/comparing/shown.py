"""The rows of a message for outputs that differ."""

from typing import Any

import torch

from course.checking import CheckFailed
from course.comparing.weights import TOLERANCE, same


def difference_shown(
    expected: Any, came: Any, likely: str = "", mode: str = "eval", where_from: str = ""
) -> CheckFailed:
    """The failure for outputs that differ, tuples of tensors: the number that is furthest off."""
    if len(expected) != len(came):
        counts = [f"{len(x)} tensors" if len(x) > 1 else "one tensor" for x in (expected, came)]
        return CheckFailed(counts[0], counts[1], likely)
    number, right, answer = next(
        (i, e, c) for i, (e, c) in enumerate(zip(expected, came, strict=True)) if not same(c, e)
    )
    which = f", result {number + 1}" if len(expected) > 1 else ""
    if right.shape != answer.shape:
        return CheckFailed(
            f"shape {list(right.shape)}{which}", f"shape {list(answer.shape)}", likely
        )
    r, a = right.detach().double(), answer.detach().double()
    difference = (a - r).abs()
    off = ~(difference <= TOLERANCE * r.abs().max())  # NaN is off
    difference = torch.where(difference.isnan(), torch.inf, difference)
    index = [i.item() for i in torch.unravel_index(difference.argmax(), r.shape)]
    where = f"at {index}{which}" if index else ""
    where += f", {where_from}" if where_from else ""
    where += ", in train mode" if mode == "train" else ""
    share = off.double().mean().item()
    return CheckFailed(
        f"{_number(r[tuple(index)], right)} {where}".strip(),
        f"{_number(a[tuple(index)], answer)}; {share:.0%} of the values differ",
        likely or ("a division by zero, or a logarithm or root of it" if a.isnan().any() else ""),
    )


def _number(value, tensor):
    if value.isnan():
        return "nan, no number"
    return f"{value:.4f}" if tensor.is_floating_point() else f"{value:.0f}"
