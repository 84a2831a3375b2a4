"""The workflow for students' repositories: its lines, run as a job would run them."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from course import classroom, lesson_files

WORKFLOW = Path(classroom.__file__).with_name("student-workflow.yml")


def script():
    job = yaml.safe_load(WORKFLOW.read_text())["jobs"]["progress"]
    (found,) = [s["run"] for s in job["steps"] if "course.progress" in s.get("run", "")]
    return found


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (1, 0), (3, 0), (2, 1), (130, 1)])
def test_open_exercises_are_no_failure_of_the_job_and_a_wrong_call_is(tmp_path, code, ends):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" > "{tmp_path}/called"\nexit {code}\n')
    python.chmod(0o755)
    settings = {"PATH": f"{tmp_path}:/usr/bin:/bin", "GITHUB_STEP_SUMMARY": "summary.md"}
    done = subprocess.run(["bash", "-e", "-c", script()], env=settings, check=False)
    assert done.returncode == ends
    called = (tmp_path / "called").read_text()
    assert called == "-m course.progress --summary summary.md --html progress.html\n"


def test_it_may_only_read():
    workflow = yaml.safe_load(WORKFLOW.read_text())
    assert workflow["permissions"] == {"contents": "read"}


@pytest.mark.slow
@pytest.mark.parametrize("command", ["progress", "grade", "build", "update"])
def test_commands_import_nothing_that_only_linux_has(command):
    code = f"import sys, course.{command}; sys.exit('course.classroom.jail' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=lesson_files.ROOT, check=False)
    assert done.returncode == 0
