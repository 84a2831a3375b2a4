"""How many threads PyTorch computes with, and what they do while they wait for each other.

PyTorch's threads wait by spinning. Where another process wants a core too, one of them spins for as
long as the other one is kept from its core, at every operation: twenty steps of a small model can
take a minute instead of two seconds. `OMP_WAIT_POLICY=PASSIVE` lets them sleep; it is read once,
when torch is loaded. So `import course` sets it, and commands and tests do that before all else.
A notebook imports torch first: its kernel gets the setting from its kernelspec, see the Makefile.
benchmarks/threads.py has the times.
"""

import os
import sys
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def share_cores() -> None:
    """Lets PyTorch's threads sleep while they wait, and be no more than the cores at hand.

    What the environment says, OMP_WAIT_POLICY and OMP_NUM_THREADS, is left as it is.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if "OMP_NUM_THREADS" in os.environ:
        return
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(min(torch.get_num_threads(), allowed_cores()))
    elif allowed_cores() < visible_cores():  # which is what torch would take
        os.environ["OMP_NUM_THREADS"] = str(allowed_cores())


def allowed_cores() -> int:
    """The cores that this process may keep busy: by its affinity, and by its container's quota."""
    return max(1, min([visible_cores(), *map(int, quotas())]))


def visible_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quotas(root: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> list[float]:
    """The limits on this process's computing time, in cores (Linux, cgroups of both kinds)."""
    try:
        lines = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:
        return []
    found = []
    for _, controllers, path in lines:
        top = root if not controllers else root / "cpu"
        if controllers and "cpu" not in controllers.split(","):
            continue
        below = Path(path.lstrip("/"))
        for folder in {top, *(top / part for part in (below, *below.parents))}:
            quota = read_quota(folder)
            if quota is not None:
                found.append(quota)
    return found


def read_quota(folder: Path) -> float | None:
    """A control group's limit in cores; None where it has none."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{n}_us").read_text() for n in ("quota", "period"))
        return float(quota) / float(period) if quota != "max" and float(quota) > 0 else None
    except (OSError, ValueError):
        return None
