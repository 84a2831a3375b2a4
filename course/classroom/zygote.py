"""The warm process: has imported everything, and is forked for every session.

`course.classroom.warm` starts it. It reads nothing that a notebook has to do with: for each session
it gets one end of a socket and forks a guard, which forks the session and watches it.

    grader -- asks over a socket --> guard -- numbers of steps --> first process --> runner
                                     (trusted)                    `---- in a sandbox -----'
"""

import gc
import json
import os
import secrets
import select
import signal
import socket
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from course.classroom import jail
from course.classroom.session import GRACE, PLACE, Watch
from course.lesson_files import ROOT

TICK = 0.2  # seconds between two looks at a session's memory
COURSE = ("vit.py", "coatnet", "course")  # what a session sees of it: no solutions, no others' work
READY = "ready"
LARGEST = 1 << 16  # bytes of a message from a session


class Guard:
    """Between the grader and one session: keeps its limits, and believes nothing that it says."""

    def __init__(self, asker: Connection, jailed: bool):
        self.asker, self.jailed = asker, jailed
        self.shared = jail.anonymous_memory("self") if jailed else 0
        self.failure = ""

    def serve(self) -> None:
        from course.classroom.planning import Step

        order = json.loads(self.asker.recv_bytes())
        steps = [Step(**step) for step in order["steps"]]
        try:
            self.channel, theirs = socket.socketpair(socket.AF_UNIX, _packets())
            if self.jailed:
                jail.enter_inner()
            self.first = os.fork()
            if self.first == 0:
                self.channel.close()
                self.asker.close()
                _first_process(theirs, steps, order, self.jailed)
            theirs.close()
            said = self.channel.recv(LARGEST).decode() or "it died at once"
        except OSError as error:
            said = str(error)
        if said != READY:
            self._say({"error": f"no session can be made: {said}"})
            return
        try:
            self._say({"ready": True})
            while True:
                request = json.loads(self.asker.recv_bytes())
                self._say(self._answer(request["number"], request["limit"]))
        except (EOFError, OSError):
            pass  # the grader needs no more
        finally:
            self._kill()

    def _say(self, message):
        self.asker.send_bytes(json.dumps(message).encode())

    def _answer(self, number, limit):
        """What became of a step: {"failure": None, or a pair of name and message, "alive": ...}."""
        secret = secrets.token_hex(16)
        try:
            self.channel.send(json.dumps([number, secret]).encode())
        except OSError:
            return self._dead()
        reply = self._reply(secret, Watch(self.first, limit))
        if reply is not None:
            return reply
        os.kill(self.first, signal.SIGINT)
        late = self._reply(secret, Watch(self.first, GRACE))
        if late is None or not late["alive"]:
            self._kill()
            return {"failure": "too long", "alive": False}
        return {"failure": "too long", "alive": True}

    def _reply(self, secret, watch):
        """The session's reply; None where there is none in time."""
        while True:
            ready, _, _ = select.select([self.channel, self.asker], [], [], TICK)
            if self.asker in ready:
                raise EOFError  # nobody waits for the answer any more
            if self.channel in ready:
                return self._read(secret)
            if self.jailed and jail.memory_of(self.first, self.shared) > jail.MEMORY:
                self._kill()
                text = f"took more than {jail.MEMORY >> 30} GB of memory and was stopped"
                return {"failure": ["", text], "alive": False}
            if not self.jailed and os.waitpid(self.first, os.WNOHANG)[0]:
                return self._dead()
            if watch.over():
                return None

    def _read(self, secret):
        try:
            message = self.channel.recv(LARGEST)
        except OSError:
            message = b""
        if not message:
            return self._dead()
        try:
            said, failure = json.loads(message)
            name, text = failure or ("", "")
            honest = secrets.compare_digest(said, secret) and isinstance(name + text, str)
        except (ValueError, TypeError, RecursionError):
            honest = False
        if honest:
            return {"failure": failure and [name, text], "alive": True}
        self._kill()
        text = "it wrote into the grader's own channel: look at this one by hand"
        return {"failure": ["", text], "alive": False}

    def _dead(self):
        self._kill()
        return {"failure": "died", "alive": False}

    def _kill(self):
        """The first process of a sandbox takes all others with it; elsewhere they are a group."""
        with suppress(OSError):
            os.kill(self.first, signal.SIGKILL)
        if not self.jailed:
            with suppress(OSError):
                os.killpg(self.first, signal.SIGKILL)
        with suppress(OSError):
            os.waitpid(self.first, 0)


def _packets():
    return getattr(socket, "SOCK_SEQPACKET", None) if sys.platform == "linux" else socket.SOCK_DGRAM


def _first_process(channel, steps, order, jailed):
    """Never returns. In a sandbox this process stays the first: it passes interrupts on, and takes
    everything with it when the runner ends."""
    try:
        if jailed:
            jail.give_up_rights(order["seconds"])
            jail.die_with_parent()
            runner = os.fork()
            if runner:
                channel.close()
                signal.signal(signal.SIGINT, lambda *_: os.kill(runner, signal.SIGINT))
                while os.wait()[0] != runner:
                    pass
                os._exit(0)
            os.chdir(f"{PLACE}/work")
            for name, data in order["files"].items():
                Path(name).parent.mkdir(parents=True, exist_ok=True)
                Path(name).write_bytes(bytes.fromhex(data))
        else:
            os.setsid()
            os.chdir(order["folder"])
        _run_steps(channel, steps)
    except Exception as error:  # before the first step: the grader is to know
        channel.send(f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(1)


def _run_steps(channel, steps):
    from course.classroom.runner import Runner

    runner = Runner(steps)
    channel.send(READY.encode())
    own = os.getpid()
    while request := channel.recv(LARGEST):
        number, secret = json.loads(request)
        reply = json.dumps([secret, runner.run(number)]).encode()
        if os.getpid() != own:
            return  # a fork that a cell made, and that has gone on to here
        channel.send(reply)


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    jailed, imports = sys.argv[2] == "jailed", sys.argv[3:]
    if jailed:
        try:
            jail.enter([ROOT / name for name in COURSE])
        except OSError as error:
            control.sendall(f"{error}\n".encode())
            return
    for text in (*imports, "from course.classroom import planning, runner"):
        with suppress(Exception):  # it will be said where a notebook needs it
            exec(text, {"__name__": "warm"})
    sys.modules["course.classroom.honesty"].seal()
    gc.collect()
    gc.freeze()  # a fork's collector would touch all that is here, and so copy its memory
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # guards are nobody's to wait for
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the grader's
    control.sendall(b"\n")
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                Guard(Connection(descriptors[0]), jailed).serve()
            finally:
                os._exit(0)
        os.close(descriptors[0])


if __name__ == "__main__":
    main()
