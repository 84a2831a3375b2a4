"""How many threads PyTorch gets, and what they do while they wait."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from course import threads

ROOT = Path(__file__).parents[2]


def groups(folder, lines, files):
    """A made-up /sys/fs/cgroup and /proc/self/cgroup."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "own").write_text(lines)
    return sorted(threads.quotas(folder, folder / "own"))


def test_a_quota_is_read_wherever_it_is_set(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    files = {"cpu.max": "max 100000\n", "a/cpu.max": "350000 100000\n", "a/b/cpu.max": "max 1\n"}
    assert groups(two, "0::/a/b\n", files) == [3.5]  # the parent's
    files = {"cpu/c/cpu.cfs_quota_us": "150000\n", "cpu/c/cpu.cfs_period_us": "100000\n"}
    files |= {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}
    assert groups(one, "4:cpu,cpuacct:/c\n3:memory:/m\n0::/\n", files) == [1.5]
    assert threads.quotas(tmp_path / "no", tmp_path / "no") == []


@pytest.mark.parametrize(
    ("cores", "quotas", "allowed"), [(8, [], 8), (8, [2.5, 3], 2), (2, [16], 2), (4, [0.5], 1)]
)
def test_no_more_cores_than_affinity_and_quota_allow(monkeypatch, cores, quotas, allowed):
    monkeypatch.setattr(threads, "visible_cores", lambda: cores)
    monkeypatch.setattr(threads, "quotas", lambda: quotas)
    assert threads.allowed_cores() == allowed


def told(code, **environment):
    """What a new process says that runs the code, in an environment without any settings."""
    own = ("OMP_", "MKL_", "OPENBLAS_", "PYTEST_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(own)}
    kept["PYTHONPATH"] = str(ROOT)
    shown = subprocess.run(
        [sys.executable, "-c", code], env=kept | environment, capture_output=True, text=True
    )
    assert not shown.returncode, shown.stderr
    return json.loads(shown.stdout.splitlines()[-1])


SAY = "print(json.dumps([os.environ.get('OMP_WAIT_POLICY'), torch.get_num_threads()]))"


@pytest.mark.slow
def test_import_course_comes_before_torch_and_sets_both():
    assert told(f"import json, os, course, torch; {SAY}") == ["PASSIVE", threads.allowed_cores()]
    assert told(f"import json, os, torch; {SAY}")[0] is None  # or the line above shows nothing
    chosen = {"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "1"}
    assert told(f"import json, os, course, torch; {SAY}", **chosen) == ["ACTIVE", 1]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_process_on_one_core_gets_one_thread_even_if_torch_was_first():
    code = "import json, os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    assert told(f"{code} import course, torch; {SAY}") == ["PASSIVE", 1]
    late = "import json, os, torch; torch.set_num_threads(2); "
    late += "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import course; "
    assert told(late + SAY)[1] == 1


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "predict", "progress", "grade"])
def test_commands_have_it_before_they_load_torch(command):
    code = f"""
import builtins, json, os, sys
real, seen = builtins.__import__, []
def watched(name, *args, **options):
    if name.partition(".")[0] == "torch" and not seen:
        seen.append(os.environ.get("OMP_WAIT_POLICY"))
    return real(name, *args, **options)
builtins.__import__ = watched
import course.{command}
import torch
print(json.dumps(seen))
"""
    assert told(code) == ["PASSIVE"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_kernel_of_the_environment_that_make_sets_up_is_passive(tmp_path):
    """The Makefile's own line, for another place; and a kernel from there says what it has."""
    line = next(s for s in (ROOT / "Makefile").read_text().splitlines() if "ipykernel install" in s)
    assert "--sys-prefix" in line
    words = line.strip().lstrip("@").replace("$(BIN)/python", sys.executable)
    words = words.replace("--sys-prefix", f"--prefix {tmp_path}").split()
    subprocess.run(words, check=True, capture_output=True)
    spec = json.loads((tmp_path / "share/jupyter/kernels/python3/kernel.json").read_text())
    assert spec["env"] == {"OMP_WAIT_POLICY": "PASSIVE"}
