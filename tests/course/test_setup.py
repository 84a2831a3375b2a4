"""The first hour: `make` sets up an environment, mends a broken one, and says what is missing.

Each test has a folder with the Makefile and requirements of its own, so that nothing large is
installed.
"""

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from functools import partial
from types import SimpleNamespace

import pytest

from course import learn
from course.lesson_files import ROOT

needs_make = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("make"), reason="there is no make"),
]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "a course"
    folder.mkdir()
    shutil.copy2(ROOT / "Makefile", folder)
    kernel = write_wheel(folder, "ipykernel", "0.1", {"__main__.py": SAID})
    (folder / "requirements.txt").write_text(f"./{kernel}\n")
    (folder / "pyproject.toml").write_text("")
    return folder


# In place of `python -m ipykernel install`: keeps what it was called with
SAID = "import json, sys\njson.dump(sys.argv[1:], open(sys.prefix + '/said.json', 'w'))\n"


def write_wheel(folder, name, version, modules):
    """A package that pip can install without a network; returns its file's name."""
    wheel, info = f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    files = {f"{name}/{module}": source for module, source in modules.items()} | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / wheel, "w") as file:
        for path, text in files.items():
            file.writestr(path, text)
    return wheel


def make(folder, *arguments, path=""):
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    environment["PATH"] = os.pathsep.join(filter(None, (path, environment["PATH"])))
    python = f"PYTHON={sys.executable}"
    command = ["make", "-C", str(folder), python, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def works(folder):
    command = [str(folder / ".venv/bin/python"), "-m", "pip", "--version"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


class TestEnvironment:
    pytestmark = needs_make

    def test_it_is_made_once(self, folder):
        assert make(folder, ".venv/ready").returncode == 0
        assert works(folder)
        said = json.loads((folder / ".venv" / "said.json").read_text())
        assert said == ["install", "--sys-prefix", "--env", "OMP_WAIT_POLICY", "PASSIVE"]
        again = make(folder, ".venv/ready")
        assert "up to date" in again.stdout

    def test_one_without_pip_is_made_anew(self, folder):
        command = [sys.executable, "-m", "venv", "--without-pip", ".venv"]
        subprocess.run(command, cwd=folder, check=True)
        assert not works(folder)
        assert make(folder, ".venv/ready").returncode == 0
        assert works(folder)

    def test_one_whose_python_is_gone_is_made_anew_though_it_was_ready(self, folder):
        assert make(folder, ".venv/ready").returncode == 0
        for python in (folder / ".venv" / "bin").glob("python*"):
            python.unlink()
            python.symlink_to("/nowhere/python")
        assert make(folder, ".venv/ready").returncode == 0
        assert works(folder)

    def test_one_that_was_moved_is_set_up_again(self, folder):
        assert make(folder, ".venv/ready").returncode == 0
        moved = folder.rename(folder.parent / "elsewhere")
        again = make(moved, ".venv/ready")
        assert again.returncode == 0, again.stderr
        assert "Setting up" in again.stdout
        assert "up to date" in make(moved, ".venv/ready").stdout

    def test_what_debian_lacks_is_named_and_nothing_stays(self, folder):
        stub = folder / "python-without-venv"
        stub.write_text(
            f'#!/bin/sh\ncase "$*" in *venv*) mkdir -p .venv/bin; exit 1;; esac\n'
            f'exec "{sys.executable}" "$@"\n'
        )
        stub.chmod(0o755)
        run = make(folder, ".venv/ready", f"PYTHON='{stub}'")
        assert run.returncode != 0
        assert "sudo apt install python3-venv" in run.stdout
        assert not (folder / ".venv").exists()
        assert make(folder, ".venv/ready").returncode == 0  # once it is installed

    def test_an_old_python_is_refused(self, folder):
        stub = folder / "python3.10"
        stub.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" -c '
            '"import sys; sys.version_info = (3, 10); exec(sys.argv[2])" "$@"\n'
        )
        stub.chmod(0o755)
        run = make(folder, ".venv/ready", f"PYTHON='{stub}'")
        assert run.returncode != 0
        assert "Python 3.11 or newer is needed" in run.stderr

    def test_torch_for_the_cpu_comes_from_the_index_that_is_set(self, folder):
        """An index on this machine with wheels of nothing, under the names that count."""
        index = folder / "index"
        for name in ("torch", "torchvision"):
            (index / name).mkdir(parents=True)
            wheel = write_wheel(index / name, name, "0.1+cpu", {})
            (index / name / "index.html").write_text(f'<a href="{wheel}">{wheel}</a>')
        handler = partial(Quiet, directory=index)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with (folder / "requirements.txt").open("a") as file:
            file.write("torch==0.1\ntorchvision==0.1\n")
        address = f"http://127.0.0.1:{server.server_port}"
        run = make(folder, ".venv/ready", "TORCH=cpu", f"TORCH_INDEX={address}")
        server.shutdown()
        assert run.returncode == 0, run.stdout + run.stderr
        code = "from importlib.metadata import version; print(version('torch'))"
        command = [str(folder / ".venv/bin/python"), "-c", code]
        assert subprocess.check_output(command, text=True) == "0.1+cpu\n"

    def test_another_torch_is_refused(self, folder):
        run = make(folder, "help", "TORCH=gpu")
        assert run.returncode != 0
        assert "TORCH=gpu is not known" in run.stderr

    def test_help_lists_every_command(self, folder):
        said = make(folder).stdout  # the first thing that somebody may type
        phony = next(
            line for line in (folder / "Makefile").read_text().splitlines() if ".PHONY" in line
        )
        names = set(phony.split()[1:]) - {"clean"}
        assert len(names) > 8
        assert names == {line.split()[1] for line in said.splitlines() if line.startswith("make ")}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class TestLearn:
    """Where JupyterLab starts, without starting it."""

    @pytest.fixture
    def started(self, monkeypatch):
        started = []
        app = SimpleNamespace(launch_instance=started.append)
        monkeypatch.setattr("jupyterlab.labapp.LabApp", app)
        monkeypatch.setattr(learn.subprocess, "run", lambda *_, **__: None)  # no copies are made
        monkeypatch.setattr(learn, "running", lambda root: "")
        return started

    @pytest.fixture
    def taken(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            yield other.getsockname()[1]

    def test_the_courses_folder_is_the_root(self, started):
        assert learn.main(["--no-browser"]) == 0
        ((*settings,),) = started
        assert f"--ServerApp.root_dir={ROOT}" in settings
        assert "--LabApp.default_url=/lab/tree/work/01_vit_recap.ipynb" in settings

    def test_a_port_that_is_taken_is_refused_where_it_was_asked_for(self, started, taken, capsys):
        assert learn.main(["--port", str(taken)]) == 1
        assert f"Port {taken} is taken" in capsys.readouterr().out
        assert started == []

    def test_without_a_port_the_next_one_is_said(self, started, taken, capsys, monkeypatch):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            free = probe.getsockname()[1]
        monkeypatch.setattr(learn, "PORTS", [taken, free])
        assert learn.main(["--no-browser"]) == 0
        assert f"JupyterLab takes {free}" in capsys.readouterr().out
        assert f"--ServerApp.port={free}" in started[0]

    def test_where_it_runs_the_browser_is_sent(self, started, monkeypatch, capsys):
        opened = []
        monkeypatch.setattr(learn, "running", lambda root: "http://localhost:8888/lab?token=t")
        monkeypatch.setattr(learn.webbrowser, "open", opened.append)
        assert learn.main([]) == 0
        assert opened == ["http://localhost:8888/lab?token=t"]
        assert "open already" in capsys.readouterr().out
        assert started == []

    def test_only_a_server_of_this_folder_counts(self, monkeypatch, tmp_path):
        servers = [
            {"root_dir": str(tmp_path / "other"), "url": "http://localhost:1/", "token": "a"},
            {"root_dir": str(tmp_path), "url": "http://localhost:2/", "token": "b"},
        ]
        monkeypatch.setattr("jupyter_server.serverapp.list_running_servers", lambda: servers)
        assert learn.running(tmp_path).startswith("http://localhost:2/lab/tree/work/01")
        assert learn.running(tmp_path).endswith("?token=b")
        assert learn.running(tmp_path / "nobody") == ""
