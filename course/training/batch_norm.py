"""BatchNorm for several processes, on CPUs too, and for one image alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _Sum(torch.autograd.Function):
    """The sum of all processes' tensors. Each one's result depends on everybody's input, so that
    the gradients are summed too."""

    @staticmethod
    def forward(ctx, values):
        values = values.clone()
        dist.all_reduce(values)
        return values

    @staticmethod
    def backward(ctx, gradients):
        gradients = gradients.clone()
        dist.all_reduce(gradients)
        return gradients


class _Synced(_BatchNorm):
    """Makes a BatchNorm use the statistics of all processes' images: [B, C, ...] -> the same.

    What `nn.SyncBatchNorm` is for GPUs alone, which refuses CPUs. The sum carries gradients, so
    that each process's images also learn from their influence on the others' mean and variance. One
    message for each norm, and one on the way back: everybody fills in a row of a table.
    """

    synced = True

    def forward(self, x: Tensor) -> Tensor:
        if not self.synced or not (self.training or self.running_mean is None):
            return super().forward(x)
        channels = (1, -1) + (1,) * (x.ndim - 2)  # the shape in which [C] spreads over x
        dims = [d for d in range(x.ndim) if d != 1]
        values = x.float()  # sums over a batch need more digits than bfloat16 has
        count = values.new_tensor([values.numel() / values.shape[1]])
        mean = values.mean(dims)  # [C]
        squares = (values - mean.view(channels)).square().sum(dims)  # [C]
        table = values.new_zeros(dist.get_world_size(), 1 + 2 * len(mean))
        own = torch.arange(len(table), device=x.device) == dist.get_rank()
        table = _Sum.apply(torch.where(own[:, None], torch.cat([count, mean, squares]), table))
        counts, means, squares = table.split([1, len(mean), len(mean)], dim=1)  # [P, 1 or C]
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        variance = (squares + counts * (means - mean).square()).sum(0) / count
        if self.training and self.running_mean is not None:
            self._follow(mean, variance * count / (count - 1))
        scale = (variance + self.eps).rsqrt()
        y = (values - mean.view(channels)) * scale.view(channels)
        if self.affine:
            y = y * self.weight.view(channels) + self.bias.view(channels)
        return y.to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean, variance):
        """Moves the running statistics, as `_BatchNorm.forward` does."""
        self.num_batches_tracked += 1
        share = self.momentum
        if share is None:  # the plain mean of all batches
            share = 1 / self.num_batches_tracked.item()
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


def synchronise_batch_norm(model: nn.Module) -> None:
    """Lets every BatchNorm of `model` see all processes' images. Parameters and optimisers stay.

    Raises ValueError for one with a forward pass of its own, which this cannot replace.
    """
    for name, module in model.named_modules():
        if not isinstance(module, _BatchNorm) or isinstance(module, nn.SyncBatchNorm):
            continue
        kind = type(module)
        if kind.forward is not _BatchNorm.forward:
            raise ValueError(
                f"{name} is a {kind.__name__}, which would see its own process's images alone: "
                "take an nn.BatchNorm, or one process"
            )
        module.__class__ = type(f"Synced{kind.__name__}", (_Synced, kind), {})


def pause_synchronisation(model: nn.Module, paused: bool) -> None:
    """While `paused`, each process's norms see its own images alone."""
    for module in model.modules():
        if isinstance(module, _Synced):
            module.synced = not paused


def separate_batch_norm(model: nn.Module) -> None:
    """Undoes `synchronise_batch_norm`."""
    for module in model.modules():
        if isinstance(module, _Synced):
            vars(module).pop("synced", None)
            module.__class__ = type(module).__bases__[1]


@contextmanager
def learned_statistics(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Where `wanted`, BatchNorm uses the statistics that it has learned, and learns nothing.

    So one image can be a batch: at 1 x 1 pixels its values have no spread of their own.
    """
    norms = [m for m in model.modules() if wanted and isinstance(m, _BatchNorm) and m.training]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()
