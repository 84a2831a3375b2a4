"""The processes that share a run: how many they are, where each computes, how they speak.

`torchrun`, and `accelerate launch` where there are GPUs, start the copies of a program and tell
them about each other in the environment, where `torch.distributed` finds it.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from course.threads import allowed_cores

# What launchers say: how many processes they were asked for
ASKED = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


@dataclass(frozen=True)
class Processes:
    """This process, number `rank` of `count`, which computes on `device`."""

    device: torch.device
    count: int = 1
    rank: int = 0

    def total(self, values: Tensor) -> Tensor:
        """The sum of all processes' `values`, in place."""
        if self.count > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Each process's `value`, in order. All must call it."""
        values = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(values, value)
        return values

    def __str__(self) -> str:
        return self.device.type + (f" in {self.count} processes" if self.count > 1 else "")


def pick_device() -> str:
    """The best kind of device at hand, such as "cuda" or "mps", or else "cpu"."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return found.type if found is not None else "cpu"


def checked_device(name: str | torch.device | None = None) -> torch.device:
    """The device of that name, by default the best there is; ValueError where there is none."""
    there = list(dict.fromkeys(["cpu", pick_device()]))
    try:
        device = torch.device(name or there[-1])
    except RuntimeError:
        raise ValueError(f"no device is called {name}: take {' or '.join(there)}") from None
    number = device.index or 0
    if device.type not in there or (number and number >= torch.accelerator.device_count()):
        raise ValueError(f"there is no device {name} on this computer: take {' or '.join(there)}")
    return device


def connect(device: str | torch.device | None = None) -> Processes:
    """Finds the other processes of this run, and waits for them; usually there are none.

    In several processes each takes the GPU of its own number, or else the CPU. Raises ValueError
    where a launcher was asked for more processes than there are: each would think that it is alone,
    train on whole batches, and write over the others' files.
    """
    asked = max(int(os.environ.get(name) or 1) for name in ASKED)
    if asked == 1 and not dist.is_initialized():
        if "MASTER_ADDR" in os.environ and "RANK" not in os.environ:
            raise ValueError(  # `accelerate launch --num_processes 2` without GPUs leaves this
                "the launcher was asked for several processes and started one: on CPUs, start them "
                "with torchrun --nproc_per_node"
            )
        return Processes(checked_device(device))
    device = checked_device(device)
    if device.type == "cuda":
        device = checked_device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")
        torch.cuda.set_device(device)
    elif device.type != "cpu":
        device = torch.device("cpu")  # processes can't speak on the others
    if not dist.is_initialized() and "RANK" in os.environ:
        dist.init_process_group(dist.get_default_backend_for_device(device))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    torch.set_num_threads(min(torch.get_num_threads(), max(1, allowed_cores() // local)))
    count = dist.get_world_size() if dist.is_initialized() else 1
    if count < asked:
        raise ValueError(
            f"{asked} processes were asked for, but this one finds {count}: start them with "
            f"torchrun --nproc_per_node {asked}"
        )
    return Processes(device, count, dist.get_rank())


def in_turn(together: Processes, work: Callable[[], Any]) -> Any:
    """`work()`, first in the first process, then in the others: what it downloads is there then.

    If it raises ValueError, OSError or RuntimeError in one, ValueError is raised in all.
    """
    result, problem = None, None
    for first in (True, False):
        if (together.rank == 0) == first:
            try:
                result = work()
            except (ValueError, OSError, RuntimeError) as error:
                problem = str(error)
        problem = next((text for text in together.gather(problem) if text), None)
        if problem:
            raise ValueError(problem)
    return result


def disconnect() -> None:
    """Ends what `connect` began, if it did."""
    if dist.is_initialized():
        dist.destroy_process_group()
