"""BatchNorm for several processes, on CPUs too."""

import torch
from torch import nn
from torch.distributed.nn.functional import all_reduce


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` with the statistics of all processes' images: [B, C, H, W] -> the same.

    What `nn.SyncBatchNorm` is for GPUs alone. The reduction carries gradients, so that each
    process's images also learn from their influence on the others' mean and variance.
    """

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        channelwise = (None, slice(None), None, None)
        values = x.float()  # sums over a batch need more digits than bfloat16 has
        count = all_reduce(values.new_tensor(values.numel() / values.shape[1]))
        mean = all_reduce(values.sum((0, 2, 3))) / count  # [C]
        centred = values - mean[channelwise]
        variance = all_reduce(centred.square().sum((0, 2, 3))) / count  # [C]
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()  # [C]
        return (centred * scale[channelwise] + self.bias[channelwise]).to(x.dtype)


def synchronise_batch_norm(model):
    """Makes every `BatchNorm2d` of `model` a `SyncedBatchNorm2d` with the same parameters."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm2d  # keeps parameters, which an optimiser may hold


def separate_batch_norm(model):
    """Undoes `synchronise_batch_norm`."""
    for module in model.modules():
        if type(module) is SyncedBatchNorm2d:
            module.__class__ = nn.BatchNorm2d
