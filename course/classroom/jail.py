"""The sandbox on Linux: namespaces of users, mounts, processes, network and more, and limits.

No daemon, no root and no other program is needed, only a kernel that lets people make user
namespaces. Two layers, so that the warm process is paid for once: `enter` puts it into a file
system of its own, read-only, with the Python and the course alone; `enter_inner` gives every
session its own processes, network and scratch folder within, and takes all rights away.

See namespaces(7), user_namespaces(7), pivot_root(2), capabilities(7).
"""

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

from course.classroom.session import PLACE
from course.lesson_files import ROOT

NEWNS, NEWUTS, NEWIPC = 0x00020000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, REC, PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
DETACH = 2  # of umount2
SET_PDEATHSIG, SET_DUMPABLE, CAPBSET_DROP, SET_NO_NEW_PRIVS = 1, 4, 24, 38
NOBODY, STUDENT = 65534, 1000

MEMORY = 2 << 30  # bytes that a submission may add to what the warm process holds
SCRATCH = 64 << 20  # bytes of files
PROCESSES, FILES = 64, 256

DEVICES = ("null", "zero", "full", "random", "urandom")
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/sys/devices/system/cpu")
SETTINGS = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name, *arguments):
    """A function of libc; raises OSError."""
    if getattr(_libc, name)(*arguments) == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _mount(source, target, kind, flags, options=""):
    text = [os.fsencode(part) if part else None for part in (source, str(target), kind, options)]
    _call("mount", *text[:3], ctypes.c_ulong(flags), text[3])


def _map_user(inside, outside_user, outside_group):
    """Who one is in a namespace just made: alone, and without other groups."""
    _call("prctl", SET_DUMPABLE, 1, 0, 0, 0)  # or /proc/self would belong to root
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{inside} {outside_user} 1")
    Path("/proc/self/gid_map").write_text(f"{inside} {outside_group} 1")


def enter(shown: list[Path]) -> None:
    """Puts this process, which must have one thread, into a file system that holds the Python and
    `shown` alone, as the first process of its own, without a network. Root is nobody there.

    Returns in a child; the caller itself waits for it and exits. Raises OSError where the system
    does not allow it.
    """
    is_root = os.geteuid() == 0
    user, group = os.geteuid(), os.getegid()
    _call("unshare", (0 if is_root else NEWUSER) | NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS)
    if not is_root:
        _map_user(0, user, group)
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0x7F)
    _call("prctl", SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _make_root(shown)
    if is_root:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        _call("unshare", NEWUSER)
        _map_user(0, NOBODY, NOBODY)
        _call("prctl", SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # a change of user resets it


def _make_root(shown):
    """A new root with what may be seen, bound read-only to where it is outside."""
    _mount("none", "/", None, REC | PRIVATE)
    root = Path("/tmp")  # exists everywhere, and is mounted over in this namespace alone
    python = [Path(sys.prefix), Path(sys.base_prefix), *map(Path, sys.path)]
    python = [path for path in python if path.is_absolute() and path != ROOT]  # with its solutions
    wanted = [*map(Path, SYSTEM), *map(Path, SETTINGS), *python]
    wanted = [path for path in dict.fromkeys([*wanted, *shown]) if path.exists()]
    # Held open: /tmp itself, and what is in it, will be hidden
    held = {path: os.open(path.resolve(), os.O_PATH) for path in wanted if not path.is_symlink()}
    links = {path: os.readlink(path) for path in wanted if path.is_symlink()}
    devices = {name: os.open(f"/dev/{name}", os.O_PATH) for name in DEVICES}
    _mount("none", root, "tmpfs", NOSUID | NODEV, "size=1m,mode=755")
    for folder in ("scratch", "proc", "dev", "etc", "dev/shm"):
        (root / folder).mkdir()
    _mount("none", root / "scratch", "tmpfs", NOSUID | NODEV, "size=16m,mode=777")  # for imports
    if not any(path.is_relative_to("/tmp") for path in wanted):
        (root / "tmp").symlink_to(PLACE)
    _mount("none", root / "proc", "proc", NOSUID | NODEV | NOEXEC)
    for path, target in links.items():
        _place(root, path).symlink_to(target)
        held.setdefault(path.resolve(), os.open(path.resolve(), os.O_PATH))
    for path in sorted(held):  # what holds others comes before them
        if not any(parent in held for parent in path.parents):
            _bind(held[path], _place(root, path), RDONLY | NOSUID | NODEV)
    for name, descriptor in devices.items():
        _bind(descriptor, root / "dev" / name, NOSUID)
    (root / "dev" / "fd").symlink_to("/proc/self/fd")
    (root / "etc" / "passwd").write_text(f"student:x:{STUDENT}:{STUDENT}::{PLACE}:/bin/sh\n")
    for descriptor in (*held.values(), *devices.values()):
        os.close(descriptor)
    os.chdir(root)
    _call("syscall", _pivot_root(), b".", b".")
    _call("umount2", b".", DETACH)
    os.chdir("/")
    _mount("none", "/", None, REMOUNT | BIND | RDONLY | NOSUID | NODEV)


def _place(root, path):
    place = root / path.relative_to("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _bind(descriptor, place, flags):
    source = f"/proc/self/fd/{descriptor}"
    if os.path.isdir(source):
        place.mkdir(exist_ok=True)
    else:
        place.touch()
    _mount(source, place, None, BIND | REC)
    # What the system has set there must stay set: in a user namespace one may only add
    there = os.statvfs(place).f_flag & (RDONLY | NOSUID | NODEV | NOEXEC | 1024 | 2048)
    _mount(source, place, None, REMOUNT | BIND | flags | there)


def _pivot_root():
    """The number of the system call, which libc has no function for."""
    return {"x86_64": 155, "aarch64": 41}[os.uname().machine]


def enter_inner() -> None:
    """New namespaces for one session; the next child will be the first process in them."""
    _call("unshare", NEWUSER | NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS)
    _map_user(STUDENT, 0, 0)
    _mount("none", PLACE, "tmpfs", NOSUID | NODEV, f"size={SCRATCH},nr_inodes=10000,mode=777")
    for folder in ("shm", "work"):
        Path(PLACE, folder).mkdir()
    _mount(f"{PLACE}/shm", "/dev/shm", None, BIND)


def give_up_rights(seconds: int) -> None:
    """In the first process of a session: sees its own processes alone, can gain no right, and lives
    within limits, it and all its children."""
    _call("unshare", NEWNS)  # the guard keeps its own /proc
    _mount("none", "/proc", "proc", NOSUID | NODEV | NOEXEC)
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    Path("/proc/self/oom_score_adj").write_text("1000")  # the first to go where memory is short
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    data, everything = (int(status[name].split()[0]) << 10 for name in ("VmData", "VmSize"))
    for kind, value in (
        (resource.RLIMIT_DATA, data + MEMORY),
        (resource.RLIMIT_AS, everything + 4 * MEMORY),
        (resource.RLIMIT_NPROC, PROCESSES),
        (resource.RLIMIT_NOFILE, FILES),
        (resource.RLIMIT_FSIZE, SCRATCH),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    for capability in range(64):
        if _libc.prctl(CAPBSET_DROP, capability, 0, 0, 0) == -1:
            break  # the last that this kernel knows is behind us
    _call("prctl", SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    _call("capset", header, (ctypes.c_uint32 * 6)())


def die_with_parent() -> None:
    _call("prctl", SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def memory_of(first: int, shared: int) -> int:
    """Bytes that the processes of a session hold of their own; `first` is its first process,
    `shared` what each inherited from the warm process."""
    total, namespace = 0, os.stat(f"/proc/{first}/ns/pid").st_ino
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and os.stat(process / "ns" / "pid").st_ino == namespace:
                total += max(0, anonymous_memory(process.name) - shared)
        except OSError:
            continue  # it has just ended, or belongs to another session
    return total


def anonymous_memory(process: str) -> int:
    """Bytes of a process that are not a file's."""
    found = 0
    for line in Path("/proc", process, "status").read_text().splitlines():
        if line.startswith(("RssAnon:", "RssShmem:")):
            found += int(line.split()[1]) << 10
    return found
