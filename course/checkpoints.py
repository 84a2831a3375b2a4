"""Checkpoints: the whole state of a run in one file, which is there whole or not at all."""

import os
import pickle
from pathlib import Path

import torch


def save_checkpoint(path, state):
    """Writes `state`, of tensors, numbers, strings, lists and dicts, to the file `path`.

    A run that dies meanwhile leaves the previous checkpoint as it was: the new one is written
    beside it, forced to the disk, and only then takes its name, which happens in one step.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    with open(beside, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def load_checkpoint(path, device="cpu"):
    """The state that `save_checkpoint` wrote, its tensors on `device`.

    Raises FileNotFoundError, and ValueError for a file that is no checkpoint. Nothing in the file
    is executed (`weights_only`), so that one from a stranger is safe to open.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError):
        raise ValueError(f"{path} is not a checkpoint, or a damaged one") from None


def random_state(device):
    """torch's random states of the CPU and, where it has one of its own, of `device`."""
    states = {"cpu": torch.get_rng_state()}
    if torch.device(device).type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_state(states, device):
    """Puts back what `random_state` gave."""
    torch.set_rng_state(states["cpu"].cpu())
    if "cuda" in states and torch.device(device).type == "cuda":
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)
