"""How checks judge, speak and behave, on a small exercise of their own."""

import os
import subprocess
import sys

import pytest
import torch
from IPython.testing.globalipapp import get_ipython
from torch import nn

from course import comparing
from course.checking import CheckFailed, NotAttempted, exercise, yours
from course.lesson_files import ROOT
from tests.checks.harness import define


class Double(nn.Module):
    """A reference: a linear layer, doubled, with dropout."""

    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x):
        return 2 * self.dropout(self.linear(x))


class Pair(nn.Module):
    """A reference that builds on another: Double twice."""

    def __init__(self, width):
        super().__init__()
        self.first, self.second = Double(width), Double(width)

    def forward(self, x):
        return self.second(self.first(x))


def tripled(m):
    m.forward = lambda x: 3 * m.dropout(m.linear(x))


@exercise("Doubling", Double, ["__init__", "forward"])
def check_double(answer):
    mistakes = [("it is tripled", tripled)]
    return comparing.compare(answer, Double, torch.randn(2, 4), mistakes, width=4)


@exercise("Pair", Pair, ["__init__", "forward"], builds_on=[Double])
def check_pair(answer):
    return comparing.compare(answer, Pair, torch.randn(2, 4), [], width=4)


def answer(forward="return 2 * self.drop(self.layer(x))", init=None, name="Double"):
    """The class that a student would write, from the bodies of its methods."""
    init = init or "self.layer = nn.Linear(width, width)\n        self.drop = nn.Dropout(0.5)"
    namespace = {"nn": nn, "torch": torch, "__name__": "__main__"}
    source = f"""class {name}(nn.Module):
    def __init__(self, width):
        super().__init__()
        {init}

    def forward(self, x):
        {forward}
"""
    define(source, namespace)
    return namespace[name]


def failure(*args, **kwargs):
    with pytest.raises(CheckFailed) as caught:
        check_double(answer(*args, **kwargs))
    return str(caught.value)


def test_right(capsys):
    check_double(answer())
    assert capsys.readouterr().out == (
        "✓ Doubling: shape [2, 4], 20 parameters, the reference's values with the same weights,\n"
        "gradients everywhere.\n"
    )


def test_a_known_mistake_is_named_with_both_numbers_and_the_place():
    message = failure("return 3 * self.drop(self.layer(x))")
    assert message.splitlines()[0] == "✗ Doubling"
    assert "likely    it is tripled" in message
    rows = dict(line.strip().split(maxsplit=1) for line in message.splitlines()[1:3])
    expected, came = (float(rows[row].split()[0].rstrip(";")) for row in ("expected", "came"))
    assert came == pytest.approx(1.5 * expected, rel=1e-3)


@pytest.mark.parametrize(
    ("forward", "init", "says"),
    [
        ("return 2.5 * self.drop(self.layer(x))", None, "100% of the values differ"),
        ("return self.drop(self.layer(x))[:, :3]", None, "shape [2, 4]\n  came      shape [2, 3]"),
        ("return 2 * self.layer(x)", None, "nothing is dropped in train mode"),
        ("return 2 * nn.functional.dropout(self.layer(x))", None, "in eval mode too"),
        ("self.layer(x)", None, "`forward` has no `return`"),
        ("return self.layer(x), x", None, "a tuple of 2"),
        (
            "return 2 * self.drop(self.layer(x))",
            "self.layer = nn.Linear(width, width, bias=False); self.drop = nn.Dropout()",
            "20 parameters\n  came      16; missing: [4]",
        ),
        (
            "return 2 * self.drop(self.layer(x.detach()).detach())",
            None,
            "a gradient for every parameter",
        ),
    ],
)
def test_wrong_answers(forward, init, says):
    assert says in failure(forward, init)


def test_weights_cut_off_from_the_gradient():
    message = failure(
        "return 2 * self.drop(nn.functional.linear(x, self.layer.weight.detach(), self.layer.bias))"
    )
    assert "none for layer.weight" in message


def test_an_error_in_the_answer_is_shown_with_the_students_line():
    message = failure("y = self.layer(x)\n        return 2 * self.drop(y @ y)")
    assert "line 9, in forward:\n            return 2 * self.drop(y @ y)" in message
    assert "RuntimeError: mat1 and mat2 shapes cannot be multiplied" in message
    assert "comparing.py" not in message
    message = failure(init="self.layer = nn.Linear(wdth, width)")
    assert "NameError: name 'wdth' is not defined" in message
    assert "line 4, in __init__" in message


@pytest.mark.parametrize(
    ("forward", "init", "says"),
    [
        ("pass  # your code here", "pass  # your code here", "not attempted yet"),
        ("pass  # your code here", None, "`forward` is still to be written"),
        ("return 2 * ...", None, "`forward` is still to be written"),
        ('"""Doubles."""', "...", "not attempted yet"),
    ],
)
def test_placeholders(forward, init, says):
    with pytest.raises(NotAttempted) as caught:
        check_double(answer(forward, init))
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_ellipsis_as_an_index_is_no_placeholder(capsys):
    check_double(answer("return 2 * self.drop(self.layer(x[..., :]))"))
    assert capsys.readouterr().out.startswith("✓")


def test_a_leftover_placeholder_line_does_not_hide_an_answer(capsys):
    check_double(
        answer("y = self.layer(x)\n        pass  # your code here\n        return 2 * self.drop(y)")
    )
    assert capsys.readouterr().out.startswith("✓")


def test_an_object_in_place_of_the_class():
    with pytest.raises(CheckFailed, match="the class itself"):
        check_double(Double(4))


def test_checks_leave_random_state_and_threads_alone():
    threads = torch.get_num_threads()
    torch.set_num_threads(3)  # which no check sets; in pytest's workers it is 1, as in some checks
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    check_double(answer())
    with pytest.raises(CheckFailed):
        check_double(answer("return 7 * self.layer(x)"))
    kept = torch.get_num_threads()
    torch.set_num_threads(threads)
    assert torch.equal(torch.rand(3), expected)
    assert kept == 3


def test_yours_is_the_answer_only_once_it_has_passed(capsys):
    right, wrong = answer(), answer("return 3 * self.drop(self.layer(x))")
    assert yours(right) is Double
    assert "the reference's Double stands in" in capsys.readouterr().out
    check_double(right)
    assert yours(right) is right
    assert yours(wrong) is Double
    with pytest.raises(CheckFailed):
        check_double(wrong)
    assert yours(right) is Double  # the last check failed


PAIR = """class Pair(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a, self.b = Double(width), Double(width)

    def forward(self, x):
        return self.b(self.a(x))
"""


def test_a_slip_in_a_part_does_not_show_in_the_whole(capsys):
    part = answer("return 3 * self.drop(self.layer(x))")
    namespace = {"nn": nn, "Double": part, "__name__": "__main__"}
    define(PAIR, namespace)
    check_pair(namespace["Pair"])
    assert capsys.readouterr().out.startswith("✓ Pair")
    assert namespace["Double"] is part  # put back
    assert yours(namespace["Pair"]) is Pair  # its part is still wrong
    namespace["Double"] = answer()
    check_double(namespace["Double"])
    assert yours(namespace["Pair"]) is namespace["Pair"]


def test_outcomes_are_shown_without_a_traceback(capsys):
    shell = get_ipython()
    shell.user_ns.update(check=check_double, wrong=answer("return 3 * self.drop(self.layer(x))"))
    shell.user_ns["empty"] = answer("pass", "pass")
    shell.run_cell("check(wrong)")
    shown = capsys.readouterr()
    assert "it is tripled" in shown.out + shown.err
    shell.run_cell("check(empty)")
    shown_too = capsys.readouterr()
    assert "not attempted yet" in shown_too.out + shown_too.err
    for text in (*shown, *shown_too):
        assert "Traceback" not in text
        assert "checking.py" not in text


def test_weights_that_do_not_fit_are_listed():
    with pytest.raises(ValueError, match=r"missing \[\[5\].*not expected \[\[6\]"):
        comparing.take_weights(nn.Linear(4, 6), nn.Linear(4, 5))


@pytest.mark.slow
@pytest.mark.parametrize("first", ["import vit", ""])
def test_a_vit_of_ones_own_beside_the_notebook_does_not_hide_the_courses(tmp_path, first):
    own = "class AttentionHead:\n    '''of my own'''\n"
    (tmp_path / "vit.py").write_text(own)
    script = f"""
import sys
sys.path.insert(0, "")  # as IPython does
{first}
found = sys.modules.get("vit")
print("own" if found and found.AttentionHead.__doc__ else "none")
from course.checks import lesson01 as check
from vit import ClassificationHead, ViT
import vit
check.attention_head(vit.AttentionHead)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    lines = done.stdout.splitlines()
    assert lines[0] == ("own" if first else "none"), done.stderr  # it is in the way
    assert ("rename yours" in done.stdout) == bool(first)
    assert any(line.startswith("✓ Attention head") for line in lines), done.stdout + done.stderr
