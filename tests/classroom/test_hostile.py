"""Hostile submissions: what becomes of each. None passes, changes another's verdict, or leaves a
process or a file behind.

Each row is code in the cell of lesson 2's first exercise, above a wrong answer; the second exercise
is solved. `HOSTILE` maps what it tries to the code and to what the row of the first exercise says.
"""

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from course import lesson_files
from course.classroom import engine
from tests.checks.harness import exercise_cells

pytestmark = pytest.mark.slow

NAME = "02_cnn_stem_hybrid"
LESSON = lesson_files.read_lesson(lesson_files.ROOT / "lessons" / f"{NAME}.py")
WRONG = """
import torch
class CNNStem(torch.nn.Module):
    def __init__(self, num_hiddens):
        super().__init__()
        self.only = torch.nn.Conv2d(3, num_hiddens, 8, 8)
    def forward(self, x):
        return self.only(x)
"""
# What a cell found out goes into the message of the exception that ends it
SEEN = "raise ValueError(f'saw: {seen}')"
HINT = "parameters|BatchNorm|expected"  # the check's own verdict on the wrong answer

HOSTILE = {
    "endless loop": ("while True: pass", "ran longer than"),
    "endless loop that ignores interrupts": (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        "ran longer than",
    ),
    "endless loop that swallows interrupts": (
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
        "ran longer than",
    ),
    "sleep": ("import time; time.sleep(10**6)", "ran longer than"),
    "fork bomb": (
        "import os\nwhile True: os.fork()",
        "BlockingIOError|ran longer|took more than|its process died",
    ),
    "fork bomb that swallows errors": (
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        "ran longer than|took more than|its process died",
    ),
    "threads without end": (
        "import threading as t, time\nwhile True: t.Thread(target=time.sleep, args=(99,)).start()",
        "RuntimeError: can't start new thread",
    ),
    "50 GB at once": ("data = bytearray(50 << 30)", "MemoryError"),
    "50 GB piece by piece": (
        "def grow(data):\n    while True: data.append(bytearray(50 << 20))\ngrow([])",
        "MemoryError|took more than",
    ),
    "50 GB of tensors": ("data = torch.ones(50 << 28)", "RuntimeError|MemoryError"),
    "memory in several processes": (
        "import os, time\nfor _ in range(6): os.fork() or time.sleep(0)\n"
        "data = bytearray(b'x' * (300 << 20)); time.sleep(30)",
        "took more than|MemoryError|ran longer",
    ),
    "shared memory": (
        "import mmap\ndata = []\nwhile True:\n    m = mmap.mmap(-1, 100 << 20)\n"
        "    for i in range(0, 100 << 20, 4096): m[i] = 1\n    data.append(m)",
        "took more than|Cannot allocate memory|MemoryError|ran longer",
    ),
    "10 GB of output": (
        "line = 'x' * (1 << 20)\nfor _ in range(10 << 10): print(line)",
        HINT + "|ran longer",
    ),
    "10 GB into a file": (
        "with open('large', 'wb') as f:\n    while True: f.write(bytes(1 << 20))",
        "File too large|No space left",
    ),
    "10 GB in many files": (
        "for n in range(10**6): open(f'/scratch/{n}', 'wb').write(bytes(1 << 20))",
        "No space left",
    ),
    "a million empty files": (
        "for n in range(10**6): open(f'/scratch/{n}', 'w').close()",
        "No space left",
    ),
    "/etc/passwd": (
        "seen = 'root' in open('/etc/passwd').read() or len(open('/etc/passwd').readlines())\n"
        + SEEN,
        "saw: 1$",
    ),
    "/etc/shadow": ("open('/etc/shadow')", "FileNotFoundError"),
    "the home folder": (
        "import os, glob\nseen = [p for p in ({home!r}, '/root', '/home') for _ in [0]"
        " if os.path.exists(p) and set(os.listdir(p)) - {allowed!r}]\n" + SEEN,
        r"saw: \[\]",
    ),
    "another submission": ("open({other!r})", "FileNotFoundError"),
    "the solutions": ("open({solution!r})", "FileNotFoundError"),
    "writing over another submission": ("open({other!r}, 'w').write('')", "FileNotFoundError"),
    "writing over the results": ("open({results!r}, 'a').write('')", "FileNotFoundError"),
    "writing over the checks": (
        "import course.checks.lesson02 as c; open(c.__file__, 'a').write('')",
        "Read-only file system|PermissionError",
    ),
    "writing over the reference": (
        "import vit; open(vit.__file__, 'a').write('')",
        "Read-only file system|PermissionError",
    ),
    "making the course writable": (
        "import ctypes, vit, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "seen = libc.mount(b'none', os.path.dirname(vit.__file__).encode(), None, 4128, None)\n"
        + SEEN,
        "saw: -1",
    ),
    "a new user namespace": (
        "import ctypes\nseen = ctypes.CDLL(None).unshare(0x10000000)\n" + SEEN,
        "saw: -1",
    ),
    "a system setting": (
        "open('/proc/sys/kernel/core_pattern', 'w').write('|/tmp/x')",
        "PermissionError|Read-only|FileNotFound",
    ),
    "the network": (
        "import socket; socket.create_connection(('192.0.2.1', 80), timeout=3)",
        "OSError: .*unreachable|gaierror",
    ),
    "this machine's own ports": (
        "import socket; socket.create_connection(('127.0.0.1', {port}), timeout=3)",
        "OSError|ConnectionRefusedError",
    ),
    "a name looked up": (
        "import socket; socket.getaddrinfo('example.org', 80)",
        "gaierror|OSError",
    ),
    "an abstract socket": (
        "import socket; socket.socket(socket.AF_UNIX).connect({abstract!r})",
        "ConnectionRefusedError",
    ),
    "killing the parent": (
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL); os.kill(os.getppid(), 15)\n"
        "seen = 'alive'\n" + SEEN,
        "saw: alive",
    ),
    "killing everybody": (
        "import os, signal\nos.kill(-1, signal.SIGKILL)\nseen = 'alone'\n" + SEEN,
        "saw: alone|ProcessLookupError",
    ),
    "killing the grader": ("import os; os.kill({grader}, 9)", "ProcessLookupError|saw"),
    "seeing processes": (
        "import os\nseen = sorted(int(p) for p in os.listdir('/proc') if p.isdigit())\n" + SEEN,
        r"saw: \[1, 2\]",
    ),
    "patched check": (
        "import course.checks.lesson02 as c\nc.cnn_stem = lambda answer: None",
        "Forged: course.checks.lesson02.cnn_stem was replaced",
    ),
    "patched code of a check": (
        "import course.checks.lesson02 as c\nc.cnn_stem.__code__ = (lambda answer: None).__code__",
        "Forged|ValueError",
    ),
    "a module of checks of its own": (
        "import sys, types\nfake = types.ModuleType('course.checks.lesson02')\n"
        "fake.cnn_stem = lambda answer: None\nsys.modules['course.checks.lesson02'] = fake",
        "Forged: course.checks.lesson02 was replaced",
    ),
    "the checks' name": (
        "class check:\n    cnn_stem = staticmethod(lambda answer: None)",
        HINT,
    ),
    "patched torch.allclose": (
        "import torch\ntorch.allclose = lambda *a, **k: True",
        "Forged: torch.allclose was replaced",
    ),
    "patched comparing": (
        "import course.comparing as c\nc.compare = lambda *a, **k: 'right'",
        "Forged: course.comparing.compare was replaced",
    ),
    "patched Tensor": (
        "import torch\ntorch.Tensor.__eq__ = lambda self, other: torch.tensor(True)",
        "Forged: Tensor.__eq__ was replaced",
    ),
    "patched reference": (
        "import coatnet\ncoatnet.CNNStem.forward = lambda self, x: x",
        "Forged: CNNStem.forward was replaced",
    ),
    "references forgotten": (
        "from course.checking import exercises\nexercises._references.clear()",
        "Forged: course.checking.exercises._references was replaced",
    ),
    "the reference imported": ("from coatnet import *", "this is the course's own CNNStem"),
    "the reference as a base": (
        "import coatnet\nclass CNNStem(coatnet.CNNStem): pass",
        "this is the course's own CNNStem",
    ),
    "atexit": (
        "import atexit, os\natexit.register(lambda: open('/scratch/late', 'w'))",
        HINT,
    ),
    "a thread that goes on": (
        "import threading\nthreading.Thread(target=lambda: [None for _ in iter(int, 1)]).start()",
        HINT,
    ),
    "a process that goes on": (
        "import subprocess\nsubprocess.Popen(['sleep', '{marker}'], start_new_session=True)",
        HINT,
    ),
    "a daemon": (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n"
        "    if os.fork(): os._exit(0)\n    os.execvp('sleep', ['sleep', '{marker}'])",
        HINT,
    ),
    "crash": ("import ctypes; ctypes.string_at(0)", "its process died"),
    "os._exit": ("import os; os._exit(0)", "its process died"),
    "os.abort": ("import os; os.abort()", "its process died"),
    "deep recursion": (
        "import sys; sys.setrecursionlimit(10**9)\ndef f(): return f()\nf()",
        "RecursionError|its process died|MemoryError|took more than|ran longer than",
    ),
    "deep source": (
        "x = " + "(" * 9000 + ")" * 9000,
        "SyntaxError|MemoryError|RecursionError|died",
    ),
    "a link out of the scratch": (
        "import os; os.symlink({other!r}, 'link'); open('link').read()",
        "FileNotFoundError",
    ),
    "reply in the grader's channel": (
        "import os\nfor n in range(3, 99):\n    try: os.write(n, b'[\"\", null]')\n"
        "    except OSError: pass",
        "the grader's own channel|its process died",
    ),
    "an exception that lies about its name": (
        "raise type('CheckPassed', (Exception,), {})()",
        HINT + "|CheckPassed",
    ),
    "an exception whose text never ends": (
        "class Bad(Exception):\n    def __str__(self):\n        while True: pass\nraise Bad",
        "ran longer than",
    ),
    "input": ("input()", "it waits for input()"),
    "exit": ("import sys; sys.exit()", HINT + "|SystemExit"),
}


def notebook_with(source):
    """Lesson 2 with the code in its first exercise, and its second solved."""
    notebook = lesson_files.student_version(LESSON)
    for cell in notebook.cells:
        if cell.id == "exercise-cnn-stem":
            cell.source = source
        elif cell.id == "exercise-coatnet-hybrid":
            # The first exercise's class may be missing
            cell.source = "from coatnet import CNNStem\n" + exercise_cells(NAME)["coatnet-hybrid"]
    return notebook


@pytest.fixture(scope="module")
def secrets(tmp_path_factory):
    """What a submission must not see: another's file, the results, a port, an abstract socket."""
    folder = tmp_path_factory.mktemp("class")
    other, results = folder / "other.ipynb", folder / "results.jsonl"
    other.write_text("another's answers")
    results.write_text("{}\n")
    server, abstract = socket.socket(), socket.socket(socket.AF_UNIX)
    server.bind(("127.0.0.1", 0))
    server.listen()
    name = f"\0coatnet-{os.getpid()}"
    abstract.bind(name)
    abstract.listen()
    yield {
        "home": str(Path.home()),
        "allowed": {Path(p).parts[2] for p in _pythons() if p.startswith(str(Path.home()))},
        "other": str(other),
        "results": str(results),
        "solution": str(lesson_files.ROOT / "solutions" / f"{NAME}.ipynb"),
        "port": server.getsockname()[1],
        "abstract": name,
        "grader": os.getpid(),
        "marker": 300_000 + os.getpid(),
    }
    assert other.read_text() == "another's answers"
    assert results.read_text() == "{}\n"
    server.close()
    abstract.close()


def _pythons():
    return sys.prefix, sys.base_prefix


@pytest.fixture(scope="module")
def limit(jailed):
    """Seconds for a cell: ten times what the longest honest one takes on this machine now."""
    if jailed is None:
        return None
    started = time.monotonic()
    engine.run_notebook(NAME, notebook_with(WRONG), LESSON, jailed, Path("/tmp"))
    return max(4, 10 * (time.monotonic() - started))


@pytest.mark.parametrize("tries", HOSTILE)
def test_a_hostile_submission_gets_its_row_and_leaves_nothing(
    tries, jailed, limit, secrets, tmp_path
):
    if jailed is None:
        pytest.skip("this system has no sandbox")
    code, says = HOSTILE[tries]
    for name, value in secrets.items():
        code = code.replace(f"{{{name}!r}}", repr(value)).replace(f"{{{name}}}", str(value))
    source = code if tries.startswith("the reference") else f"{code}\n{WRONG}"
    before = {process.pid for process in psutil.process_iter()}
    files = set(os.listdir("/tmp"))
    rows = engine.run_notebook(
        NAME, notebook_with(source), LESSON, jailed, tmp_path, limit=limit, probed=True
    )
    first, second = rows
    assert first.outcome != "passed"
    assert re.search(says, first.message), first.message
    honest = "Forged" not in first.message  # what was broken for one check is broken for the next
    assert (second.outcome == "passed") == honest, second.message
    for _ in range(50):  # the kernel takes a moment to end them
        left = [p for p in psutil.process_iter() if p.pid not in before and _is_ours(p, jailed)]
        if not left:
            break
        time.sleep(0.1)
    assert not left, left
    assert not [name for name in set(os.listdir("/tmp")) - files if "late" in name]
    assert list(tmp_path.iterdir()) == []


def _is_ours(process, jailed):
    try:
        return jailed.process.pid in [parent.pid for parent in process.parents()]
    except psutil.Error:
        return False


def test_the_sandbox_is_there_on_linux():
    """Else all of the above would be skipped, and nobody would notice."""
    if sys.platform != "linux" or not Path("/proc/self/ns/user").exists():
        pytest.skip("no Linux with user namespaces")
    made = subprocess.run(["unshare", "-Urmpf", "true"], check=False, capture_output=True)
    if made.returncode:
        pytest.skip("this system does not let people make user namespaces")
    with engine.warm_sessions([], jailed=True) as sessions:
        rows = engine.run_notebook(NAME, notebook_with(WRONG), LESSON, sessions, Path("/tmp"))
    assert [row.outcome for row in rows] == ["failing", "passed"]


def test_there_are_enough():
    assert len(HOSTILE) >= 30
