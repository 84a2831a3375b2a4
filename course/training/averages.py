"""The moving average of a model's weights."""

import copy
from typing import Any

import torch
from torch import nn


class MovingAverage:
    """A copy of `model` whose weights are an exponential moving average of the model's.

    After t updates: average <- d * average + (1 - d) * weights, d = min(decay, (1 + t) / (10 + t)),
    so that the untrained weights are soon forgotten, as in TensorFlow's ExponentialMovingAverage.
    Running statistics are averaged too; counters are copied. torch's `AveragedModel` gives the same
    with an `avg_fn` and `use_buffers`; lesson 7 writes it, and this is short.
    """

    def __init__(self, model: nn.Module, decay: float = 0.999) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    def update(self, model: nn.Module) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        update_average(self.model, model, decay)

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * model, in place, for all weights and statistics.

    Both are modules of one kind. What is no fraction, such as BatchNorm's counters, is copied.
    """
    new = model.state_dict()
    for name, value in average.state_dict().items():
        if value.is_floating_point():
            value.lerp_(new[name], 1 - decay)
        else:
            value.copy_(new[name])
