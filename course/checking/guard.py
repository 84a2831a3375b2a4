"""What a check must leave as it was: PyTorch's settings and every generator of random numbers."""

import random
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from course.checking.outcomes import CheckFailed

NEUTRAL = {  # what answers run under, whatever the notebook has set
    "gradients": True,
    "autocast": False,
    "autocast on a GPU": False,
    "default dtype": torch.float32,
    "default device": torch.device("cpu"),
    "torch.random": torch.random,
    "threads": 1,  # on a busy machine several would only wait for each other over small tensors
    "deterministic algorithms": (False, False),
}
ADVICE = {
    "gradients": "`with torch.no_grad():` ends by itself; torch.set_grad_enabled(...) stays",
    "autocast": "`with torch.autocast(...):` ends by itself",
    "autocast on a GPU": "`with torch.autocast(...):` ends by itself",
    "default dtype": "give a tensor its own type, dtype=..., instead of the default for all",
    "default device": "give a tensor its own device instead of the default for all",
}


def settings() -> dict:
    """PyTorch's settings that an answer could change for everything that runs after it."""
    return {
        "gradients": torch.is_grad_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "autocast on a GPU": torch.is_autocast_enabled("cuda"),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "torch.random": torch.random,
        "threads": torch.get_num_threads(),
        "deterministic algorithms": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
    }


def put_back(wanted: dict) -> None:
    """Sets what differs from `wanted`."""
    setters: dict[str, Callable] = {
        "gradients": torch.set_grad_enabled,
        "autocast": lambda on: torch.set_autocast_enabled("cpu", on),
        "autocast on a GPU": lambda on: torch.set_autocast_enabled("cuda", on),
        "default dtype": torch.set_default_dtype,
        "default device": lambda d: torch.set_default_device(None if d.type == "cpu" else d),
        "torch.random": lambda module: setattr(torch, "random", module),
        "threads": torch.set_num_threads,
        "deterministic algorithms": lambda pair: torch.use_deterministic_algorithms(
            pair[0], warn_only=pair[1]
        ),
    }
    for name, now in settings().items():
        if now != wanted[name]:
            setters[name](wanted[name])


def require_settings(before: dict | None = None) -> None:
    """Raises CheckFailed where an answer left a setting changed, and names it."""
    before = NEUTRAL if before is None else before
    for name, now in settings().items():
        if now != before[name]:
            put_back(before)
            raise CheckFailed(
                f"{name}: {_shown(before[name])} afterwards, as before the call",
                f"{name}: {_shown(now)}",
                f"that changes it for all that follows; {ADVICE.get(name, 'leave it alone')}",
            )


@contextmanager
def no_trace() -> Iterator[None]:
    """The same random numbers and settings for every check; afterwards everything as it was."""
    before, states = settings(), _random_states()
    with warnings.catch_warnings(action="ignore"):
        try:
            put_back(NEUTRAL)
            torch.default_generator.manual_seed(0)  # torch.manual_seed would seed GPUs as well
            yield
        finally:
            put_back(before)
            _set_random_states(states)


def _random_states():
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    legacy = np.random.get_state()  # noqa: NPY002 (what a student may use)
    return torch.get_rng_state(), cuda, random.getstate(), legacy


def _set_random_states(states):
    cpu, cuda, python, legacy = states
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)
    random.setstate(python)
    np.random.set_state(legacy)  # noqa: NPY002


@contextmanager
def seeds_watched() -> Iterator[None]:
    """Raises CheckFailed where an answer seeds random numbers, which the whole notebook shares."""
    seeded = []
    targets = [(torch, "manual_seed"), (torch.random, "manual_seed"), (random, "seed")]
    targets.append((np.random, "seed"))
    before = [(module, name, getattr(module, name)) for module, name in targets]

    def watching(label, function):
        def seed(*args, **kwargs):
            caller = sys._getframe(1).f_globals.get("__name__", "")
            if not caller.startswith(("torch", "numpy", "random", "course.")):
                seeded.append(label)
            return function(*args, **kwargs)

        return seed

    for module, name, function in before:
        setattr(module, name, watching(f"{module.__name__}.{name}", function))
    try:
        yield
    finally:
        for module, name, function in before:
            setattr(module, name, function)
    if seeded:
        raise CheckFailed(
            "random numbers go on as they were",
            f"the answer calls {seeded[0]}",
            "a seed inside makes the same numbers wherever it is called, and in the whole notebook;"
            " leave seeding to the cells outside",
        )


def _shown(value):
    if isinstance(value, types.ModuleType):
        return "the module"
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value
