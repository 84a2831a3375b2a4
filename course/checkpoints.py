"""Checkpoints: the whole state of a run in one file, which is there whole or not at all."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def save_checkpoint(path: str | Path, state: dict[str, Any]) -> None:
    """Writes `state`, of tensors, numbers, strings, lists and dicts, to the file `path`.

    A run that dies meanwhile leaves the previous checkpoint as it was: the new one is written
    beside it, forced to the disk, and only then takes its name, which happens in one step. Raises
    OSError where it can't be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    try:
        with open(beside, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:  # torch.save makes the one into the other
        beside.unlink(missing_ok=True)
        reason = error.strerror if isinstance(error, OSError) else "is the disk full?"
        kept = ": the one before is as it was" if path.exists() else ""
        raise OSError(f"could not write {path} ({reason}){kept}") from error
    os.replace(beside, path)


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """The state that `save_checkpoint` wrote, its tensors on `device`.

    Raises FileNotFoundError, and ValueError for a file that is no checkpoint. Nothing in the file
    is executed (`weights_only`), so that one from a stranger is safe to open.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    if torch.device(device).type == "cpu":
        device = "cpu"  # torch.load knows no cpu:0
    try:
        with open(path, "rb") as file:  # an OSError is no damage
            return torch.load(file, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError):
        raise ValueError(f"{path} is not a checkpoint, or a damaged one") from None


def random_state(device: str | torch.device) -> dict[str, Tensor]:
    """torch's random states of the CPU and, where it has one of its own, of `device`."""
    states = {"cpu": torch.get_rng_state()}
    if torch.device(device).type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_state(states: dict[str, Tensor], device: str | torch.device) -> None:
    """Puts back what `random_state` gave."""
    torch.set_rng_state(states["cpu"].cpu())
    if "cuda" in states and torch.device(device).type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
