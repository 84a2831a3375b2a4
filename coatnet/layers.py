"""The small layers that MBConv and the transformer block share.

Shapes: B images, C channels, H x W pixels.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

ACTIVATIONS = {
    "gelu": nn.GELU,
    "silu": partial(nn.SiLU, inplace=True),  # what goes in is a layer's result, used here alone
    "relu": partial(nn.ReLU, inplace=True),
}


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of each pixel: [B, C, H, W] -> the same."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Linear2d(nn.Linear):
    """A linear layer on the channels of each pixel: [B, C, H, W] -> [B, C', H, W].

    That is a 1x1 convolution, and on a CPU it runs as one, which can be twice as fast.
    """

    def forward(self, x):
        if x.device.type == "cpu":
            return F.conv2d(x, self.weight[:, :, None, None], self.bias)
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FeedForward2d(nn.Sequential):
    """The ViT's feed-forward layers at each pixel, 4 times as wide: [B, C, H, W] -> the same."""

    def __init__(self, channels, dropout=0.0):
        super().__init__(
            Linear2d(channels, 4 * channels),
            nn.GELU(),
            nn.Dropout(dropout),
            Linear2d(4 * channels, channels),
            nn.Dropout(dropout),
        )


class LayerScale(nn.Module):
    """A learned factor a channel (Touvron et al., arXiv 2103.17239): [B, C, H, W] -> the same."""

    def __init__(self, channels, init):
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), init))

    def forward(self, x):
        return x * self.scale[:, None, None]


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., arXiv 1603.09382): zeroes whole samples in training."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.rate  # [B, 1, 1, 1]
        return x * (keep.to(x.dtype) / (1 - self.rate))


def make_pool(kind):
    """Halves height and width, rounding up as convolutions of stride 2 do.

    "avg" is the mean of 2x2 pixels, at an odd border of those that exist; "max" looks at 3x3.
    """
    if kind == "max":
        return nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    return nn.AvgPool2d(kernel_size=2, ceil_mode=True)


def make_shortcut(in_channels, out_channels, stride, pool, bias):
    """Proj(Pool(x)) for a block that halves the image, x for others (appendix A.1)."""
    if stride == 1:
        if in_channels != out_channels:
            raise ValueError(f"stride 1 keeps the channels, got {in_channels} -> {out_channels}")
        return nn.Identity()
    shortcut = nn.Sequential()
    shortcut.add_module("pool", make_pool(pool))
    if in_channels != out_channels:
        shortcut.add_module("proj", nn.Conv2d(in_channels, out_channels, 1, bias=bias))
    return shortcut


def make_norm(channels, config):
    norm = nn.BatchNorm2d if config.norm == "batch" else LayerNorm2d
    return norm(channels, eps=1e-6)


def conv_norm(conv, norm, x):
    """norm(conv(x)) for BatchNorm; in eval mode one convolution, since norm is linear there."""
    if norm.training:
        return norm(conv(x))
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)  # [channels]
    shift = norm.bias - norm.running_mean * scale
    weight = conv.weight * scale[:, None, None, None]
    return F.conv2d(x, weight, shift, conv.stride, conv.padding, groups=conv.groups)


def init_convolutions(module):
    """Draws weights with variance 2 / fan-out, as EfficientNet does; biases are 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_out = layer.weight[:, 0].numel() // getattr(layer, "groups", 1)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def init_transformer(module):
    """Draws Xavier-uniform weights, as ViT does; biases are 0, in MLPs all but 0."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                in_mlp = "feed_forward" in name or "mlp" in name
                nn.init.normal_(layer.bias, std=1e-6 if in_mlp else 0.0)
