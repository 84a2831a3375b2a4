"""Where an exception arose, and with which objects: the student's line, the values in it, and the
arguments of the call that failed.
"""

import ast
import dataclasses
import dis
import linecache
import operator
import os
import sys
import types
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

COURSE = Path(__file__).parents[2]
NOT_THE_STUDENTS = (  # files whose frames are left out when a student's line is shown
    str(COURSE / "course"),
    str(COURSE / "vit.py"),
    str(COURSE / "coatnet"),
    str(Path(torch.__file__).parents[1]),  # site-packages
    str(Path(os.__file__).parent),  # the standard library
    "<frozen",
)
UNKNOWN = object()


class CallsWatched(TorchFunctionMode):
    """Remembers the innermost call of PyTorch that failed, with its arguments."""

    failed = None

    def __torch_function__(self, func, types, args=(), kwargs=None):
        try:
            return func(*args, **(kwargs or {}))
        except Exception as error:
            if self.failed is None or self.failed.error is not error:
                self.failed = Call(error, func, args, kwargs or {})
            raise


@dataclasses.dataclass
class Call:
    """A call of PyTorch that raised an error."""

    error: Exception
    func: object
    args: tuple
    kwargs: dict

    @property
    def name(self) -> str:
        return getattr(self.func, "__name__", str(self.func)).strip("_")


@dataclasses.dataclass
class Problem:
    """An exception with what is known of it.

    frame, node: the student's frame in which it arose, and the expression there that failed.
    inner: the innermost frame, mostly PyTorch's. call: the call of PyTorch that failed.
    """

    error: Any
    frame: Any
    line: int
    node: Any
    opname: str
    inner: Any
    call: Call | None

    def value(self, node: ast.AST) -> Any:
        """What an expression stands for in the student's frame, without calling anything."""
        return evaluate(node, self.frame)

    def parts(self) -> list[tuple[ast.AST, Any]]:
        """The expressions in what failed, the larger first, each with its value as far as known."""
        if self.node is None:
            return []
        called = {id(n.func) for n in ast.walk(self.node) if isinstance(n, ast.Call)}
        owners = {id(n.value) for n in ast.walk(self.node) if isinstance(n, ast.Attribute)}
        found: list[tuple[ast.AST, Any]] = []
        for node in ast.walk(self.node):
            if isinstance(node, ast.expr) and id(node) not in called | owners:
                value = self.value(node)
                if value is not UNKNOWN:
                    found.append((node, value))
        return found


def problem_of(error: BaseException, call: Call | None) -> Problem:
    frame, line, node, opname, inner = None, 0, None, "", None
    link = error.__traceback__
    while link is not None:
        inner = link.tb_frame
        if is_students_frame(inner):
            frame, line = inner, link.tb_lineno
            node, opname = _failing(link)
        link = link.tb_next
    return Problem(error, frame, line, node, opname, inner, call)


def is_students_frame(frame: types.FrameType) -> bool:
    return not frame.f_code.co_filename.startswith(NOT_THE_STUDENTS)


def _failing(link):
    """The expression that a traceback's frame stopped in, and the name of the instruction."""
    code = link.tb_frame.f_code
    positions = list(code.co_positions())[link.tb_lasti // 2]
    opname = next((i.opname for i in dis.get_instructions(code) if i.offset == link.tb_lasti), "")
    first, last, start, end = positions
    if None in positions:
        return None, opname
    lines = [linecache.getline(code.co_filename, n) for n in range(first, last + 1)]
    if not all(lines):
        return None, opname
    raw = [line.encode() for line in lines]  # columns count bytes
    raw[-1] = raw[-1][:end]
    raw[0] = raw[0][start:]
    text = b"".join(raw).decode(errors="replace")
    try:
        return ast.parse(f"({text})", mode="eval").body, opname
    except SyntaxError:
        return None, opname


def evaluate(node: ast.AST, frame: types.FrameType | None) -> Any:
    """The value of names, attributes, constants and arithmetic of numbers; UNKNOWN for the rest."""
    if frame is None or node is None:
        return UNKNOWN
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        for names in (frame.f_locals, frame.f_globals, vars(sys.modules["builtins"])):
            if node.id in names:
                return names[node.id]
        return UNKNOWN
    if isinstance(node, ast.Attribute):
        owner = evaluate(node.value, frame)
        return UNKNOWN if owner is UNKNOWN else getattr(owner, node.attr, UNKNOWN)
    if isinstance(node, ast.Starred):
        return UNKNOWN
    if isinstance(node, ast.Tuple | ast.List):
        values = [evaluate(element, frame) for element in node.elts]
        return UNKNOWN if any(v is UNKNOWN for v in values) else values
    if isinstance(node, ast.BinOp):
        return _arithmetic(node, frame)
    if isinstance(node, ast.Subscript):
        owner, index = evaluate(node.value, frame), evaluate(node.slice, frame)
        if isinstance(owner, list | tuple | dict):
            try:
                return operator.getitem(owner, index)  # type: ignore[call-overload]
            except (LookupError, TypeError):
                return UNKNOWN
    return UNKNOWN


OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


def _arithmetic(node, frame):
    left, right = evaluate(node.left, frame), evaluate(node.right, frame)
    numbers = all(isinstance(v, int | float) for v in (left, right))
    if not numbers or type(node.op) not in OPERATORS:
        return UNKNOWN
    try:
        return OPERATORS[type(node.op)](left, right)
    except ArithmeticError:
        return UNKNOWN
