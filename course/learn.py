"""Opens the course in JupyterLab: `python -m course.learn`, or `make learn`.

Makes your copies of the lessons in work/ where there are none yet, and starts JupyterLab in the
course's folder. Where it already runs there, the browser is sent to it.
"""

import argparse
import os
import socket
import subprocess
import sys
import webbrowser
from pathlib import Path

from course import lesson_files

FIRST = "lab/tree/work/01_vit_recap.ipynb"
PORTS = range(8888, 8938)


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        if os.name != "nt":  # there it would call a port free that is in use
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def running(root: Path) -> str:
    """The address of a JupyterLab that serves this folder, with its token; "" where none does."""
    from jupyter_server.serverapp import list_running_servers

    for server in list_running_servers():
        if Path(server["root_dir"]).resolve() == root.resolve():
            token = f"?token={server['token']}" if server["token"] else ""
            return f"{server['url']}{FIRST}{token}"
    return ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m course.learn",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--port", type=int, help="of JupyterLab (default: the first free from 8888)"
    )
    parser.add_argument("--no-browser", action="store_true", help="open none; for a server")
    options = parser.parse_args(arguments)
    root = lesson_files.ROOT
    copies = [sys.executable, "-m", "course.update", "--only-missing"]
    subprocess.run(copies, cwd=root, check=False)
    for name in ("JUPYTER_CONFIG_PATH", "JUPYTER_PATH"):  # no news; alt text: see course/jupyter
        paths = [str(root / "course" / "jupyter"), os.environ.get(name, "")]
        os.environ[name] = os.pathsep.join(filter(None, paths))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep: see the Makefile
    address = running(root)
    if address:
        print(
            f"The course is open already: {address}\nTo end it, press Ctrl-C where it was started."
        )
        if not options.no_browser:
            webbrowser.open(address)
        return 0
    if options.port and not is_free(options.port):
        print(f"Port {options.port} is taken by another program: choose another, PORT=8899 say.")
        return 1
    port = options.port or next(filter(is_free, PORTS), 0)
    if port not in (options.port, PORTS[0]):
        print(f"Port {PORTS[0]} is taken by another program: JupyterLab takes {port}.")

    from jupyterlab.labapp import LabApp

    settings = [f"--ServerApp.root_dir={root}", f"--LabApp.default_url=/{FIRST}"]
    settings += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    if options.no_browser:
        settings.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # in a container one often is root
        settings.append("--allow-root")
    LabApp.launch_instance(settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
