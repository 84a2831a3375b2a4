"""How much memory a dataset may take, and how many cores there are to decode it."""

import os
import re
from pathlib import Path

import psutil

from course.threads import allowed_cores

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
CGROUPS = Path("/sys/fs/cgroup")


def memory_budget(memory: str | int | None = None) -> int:
    """Bytes that the images may take: `memory`, such as "4G" or "500M", or half of what is free.

    Several processes on a machine share what is free. Raises ValueError for what is no size.
    """
    if memory is None:
        return free_memory() // 2 // local_processes()
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([KMGT]?)(?:I?B)?", str(memory).strip().upper())
    if not match:
        raise ValueError(f"memory {memory!r} is no size: write it like 4G or 500M")
    return int(float(match[1]) * UNITS[match[2]])


def free_memory() -> int:
    """Bytes that are free on this machine, and within the container that this runs in."""
    return min([psutil.virtual_memory().available, *free_in_cgroups()])


def free_in_cgroups(root: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Bytes left under each memory limit that this process has (Linux, cgroups of both kinds)."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return []
    folders = []
    for _, controllers, path in lines:
        top = root / "memory" if "memory" in controllers.split(",") else root
        if top != root or not controllers:
            folders += [top, top / path.lstrip("/")]  # a container sees its own group as the top
    left = []
    for folder in folders:
        for limit, usage in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            try:
                numbers = [int((folder / name).read_text()) for name in (limit, usage)]
                cache = re.search(r"^(?:total_)?inactive_file (\d+)", read(folder), re.M)
            except (OSError, ValueError):  # no such file, or "max"
                continue
            left.append(max(0, numbers[0] - numbers[1] + int(cache[1] if cache else 0)))
    return left


def read(folder: Path) -> str:
    """A group's account of its memory, in which files that are cached count as used."""
    return (folder / "memory.stat").read_text()


def local_processes() -> int:
    """How many processes the launcher started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def default_workers() -> int:
    """Processes to decode files in: one for each core that this one may use, at most 16."""
    return max(1, min(16, allowed_cores() // local_processes()))
