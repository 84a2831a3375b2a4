"""A copy of a CoAtNet for inference, faster and with the same logits."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from coatnet.attention import RelativeAttention
from coatnet.mbconv import MBConv
from coatnet.staged import CoAtNet, Stem


def fused(model: CoAtNet) -> CoAtNet:
    """A copy of `model` for inference: the same logits in less time, in eval mode for good.

    BatchNorm does without training what a convolution can do as well, so its numbers go into the
    convolution before it (or behind it, for MBConv's first norm) and `nn.Identity` takes its place.
    Position biases are computed once, for the grids of `model.image_size`; at other sizes they are
    computed as before. Activations overwrite what they get, which nobody else reads. Parameters
    have no gradients. What is no plain `nn.BatchNorm2d` stays.
    """
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for module in list(model.modules()):
        if isinstance(module, Stem):
            fuse_after(module, "conv1", "norm1")
        elif isinstance(module, MBConv):
            # The mean of 2x2 pixels, which may lie between norm and convolution, is linear too
            if isinstance(module.pre_activation, nn.Identity):
                fuse_before(module, "pre_norm", "expand")
            fuse_after(module, "expand", "norm1")
            if not module.excite_first:
                fuse_after(module, "depthwise", "norm2")
        elif isinstance(module, RelativeAttention):
            module.position_bias = KeptBias(module.position_bias)
        for name, child in module.named_children():
            if type(child) is nn.GELU:
                setattr(module, name, InPlaceGELU(child.approximate))
            elif isinstance(child, nn.SiLU | nn.ReLU):
                child.inplace = True
    return model


def fuse_after(module: nn.Module, conv_name: str, norm_name: str) -> None:
    """norm(conv(x)) as one convolution."""
    conv, norm = getattr(module, conv_name), getattr(module, norm_name)
    if type(conv) is nn.Conv2d and fusible(norm):
        setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
        setattr(module, norm_name, nn.Identity())


def fuse_before(module: nn.Module, norm_name: str, conv_name: str) -> None:
    """conv(norm(x)) as one convolution, whose kernel is 1x1."""
    norm, conv = getattr(module, norm_name), getattr(module, conv_name)
    if type(conv) is nn.Conv2d and conv.bias is None and fusible(norm):
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)  # [C]
        shift = norm.bias - norm.running_mean * scale  # [C]
        conv.bias = nn.Parameter(conv.weight.flatten(1) @ shift, requires_grad=False)
        conv.weight = nn.Parameter(conv.weight * scale[:, None, None], requires_grad=False)
        setattr(module, norm_name, nn.Identity())


def fusible(norm: nn.Module) -> bool:
    """Whether a norm is BatchNorm as the models have it, with weights and statistics."""
    return type(norm) is nn.BatchNorm2d and norm.affine and norm.running_mean is not None


class InPlaceGELU(nn.GELU):
    """GELU that overwrites its input."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.aten.gelu_(x, approximate=self.approximate)


class KeptBias(nn.Module):
    """A position bias, computed once for the grid that it was made for."""

    bias: Tensor

    def __init__(self, position_bias: Any):
        super().__init__()
        self.position_bias = position_bias
        self.register_buffer("bias", position_bias(*position_bias.grid_size))

    def forward(self, height: int, width: int) -> Tensor:
        if (height, width) == self.position_bias.grid_size:
            return self.bias
        return self.position_bias(height, width)
