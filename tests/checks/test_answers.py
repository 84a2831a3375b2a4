"""Every exercise's check: the solution passes, the placeholder is not attempted, typical wrong
answers are named, and right ones in other styles pass.
"""

import pytest

from course.checking import CheckFailed, NotAttempted
from tests.checks.answers import beginners
from tests.checks.harness import changed, lessons

SAMPLE = 4  # every fourth row of the beginners' table; `make slow` takes them all
EXERCISES = [(lesson, exercise) for lesson in lessons() for exercise in lesson.checks]
WRONG = [(lesson, *row) for lesson in lessons() for row in lesson.wrong]
SEVERAL = [(lesson, *row) for lesson in lessons() for row in lesson.several]
BEGINNERS = [
    pytest.param(lesson, *row, marks=[] if number % SAMPLE == 0 else pytest.mark.slow)
    for number, row in enumerate(beginners.ROWS)
    for lesson in lessons()
    if row[0] in lesson.checks
]
RIGHT = [
    pytest.param(lesson, exercise, source, id=f"{lesson.name[:2]}-{exercise}: {style}")
    for lesson in lessons()
    for exercise, styles in lesson.right.items()
    for style, source in styles.items()
]


@pytest.mark.parametrize(("lesson", "exercise"), EXERCISES)
def test_solution_passes(lesson, exercise, capsys):
    lesson.run_check(exercise, lesson.solutions[exercise])
    assert capsys.readouterr().out.startswith(f"✓ {lesson.titles[exercise]}: ")


@pytest.mark.parametrize(("lesson", "exercise"), EXERCISES)
def test_placeholder_is_not_attempted(lesson, exercise):
    with pytest.raises(NotAttempted, match="not attempted yet"):
        lesson.run_check(exercise, lesson.placeholders[exercise])


def edited(source, edits):
    for old, new in edits:
        assert old in source
        source = source.replace(old, new)
    return source


def assert_named(lesson, exercise, source, says):
    assert all(says.split("|")), "an empty text stands in every message"
    with pytest.raises(CheckFailed) as failure:
        lesson.run_check(exercise, source)
    message = " ".join(str(failure.value).split())  # lines are wrapped
    assert any(words in message for words in says.split("|")), message
    assert "expand_output=" not in message  # no configuration with all its fields


@pytest.mark.parametrize(("lesson", "exercise", "old", "new", "says"), WRONG)
def test_wrong_answer_is_named(lesson, exercise, old, new, says):
    assert_named(lesson, exercise, changed(lesson.solutions[exercise], old, new), says)


@pytest.mark.parametrize(("lesson", "exercise", "edits", "says"), SEVERAL)
def test_a_mistake_made_several_times_is_named(lesson, exercise, edits, says):
    assert_named(lesson, exercise, edited(lesson.solutions[exercise], edits), says)


@pytest.mark.parametrize(("lesson", "exercise", "edits", "says"), BEGINNERS)
def test_what_beginners_write_is_named(lesson, exercise, edits, says):
    assert_named(lesson, exercise, edited(lesson.solutions[exercise], edits), says)


@pytest.mark.parametrize(("lesson", "exercise", "source"), RIGHT)
def test_right_answer_in_another_style_passes(lesson, exercise, source, capsys):
    lesson.run_check(exercise, source)
    assert capsys.readouterr().out.startswith("✓ ")


@pytest.mark.parametrize(("lesson", "exercise"), EXERCISES)
def test_three_right_answers_in_other_styles_are_tried(lesson, exercise):
    assert len(lesson.right[exercise]) >= 3
