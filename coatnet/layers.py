"""The small layers that MBConv and the transformer block share.

Shapes: B images, C channels, H x W pixels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from coatnet.config import CoAtNetConfig

ACTIVATIONS = {"gelu": nn.GELU, "silu": nn.SiLU, "relu": nn.ReLU}


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of each pixel: [B, C, H, W] -> the same."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FeedForward2d(nn.Sequential):
    """The ViT's feed-forward layers at each pixel, 4 times as wide: [B, C, H, W] -> the same."""

    def __init__(self, channels: int, dropout: float = 0.0):
        super().__init__(
            nn.Conv2d(channels, 4 * channels, 1),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Conv2d(4 * channels, channels, 1),
            nn.Dropout(dropout),
        )


class LayerScale(nn.Module):
    """A learned factor a channel (Touvron et al., arXiv 2103.17239): [B, C, H, W] -> the same."""

    def __init__(self, channels: int, init: float):
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), init))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale[:, None, None]


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., arXiv 1603.09382): zeroes whole samples in training."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(1 - self.rate)  # [B, 1, 1, 1]
        return x * (kept / (1 - self.rate))


class AvgPool2d(nn.AvgPool2d):
    """The same in torch.export, where `ceil_mode` asks what open sizes can't answer."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return F.avg_pool2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), 2)
        return super().forward(x)


def make_pool(kind: str) -> nn.Module:
    """Halves height and width, rounding up as convolutions of stride 2 do.

    "avg" is the mean of 2x2 pixels, at an odd border of those that exist (timm rounds down). "max"
    looks at 3x3, as timm's does; the paper says stride 2 and leaves the kernel open.
    """
    if kind == "max":
        return nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    return AvgPool2d(kernel_size=2, ceil_mode=True)


def make_shortcut(
    in_channels: int, out_channels: int, stride: int, pool: str, bias: bool, widens: bool = False
) -> nn.Module:
    """Proj(Pool(x)) for a block that halves the image, x for others (appendix A.1).

    With stride 1, ValueError for a change of channels, unless the model `widens` within a stage.
    """
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if stride == 1 and not widens:
        raise ValueError(f"stride 1 keeps the channels, got {in_channels} -> {out_channels}")
    shortcut = nn.Sequential()
    if stride == 2:
        shortcut.add_module("pool", make_pool(pool))
    if in_channels != out_channels:
        shortcut.add_module("proj", nn.Conv2d(in_channels, out_channels, 1, bias=bias))
    return shortcut


def make_norm(channels: int, config: CoAtNetConfig) -> nn.Module:
    """The norm of transformer blocks and of the head."""
    norm = nn.BatchNorm2d if config.norm == "batch" else LayerNorm2d
    return norm(channels, eps=1e-6)


def init_convolutions(module: nn.Module) -> None:
    """Draws weights with variance 2 / fan-out, as EfficientNet does; biases are 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_out = layer.weight[:, 0].numel() // getattr(layer, "groups", 1)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def init_transformer(module: nn.Module) -> None:
    """Draws Xavier-uniform weights, as ViT does; biases are 0, in MLPs all but 0."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                in_mlp = "feed_forward" in name or "mlp" in name
                nn.init.normal_(layer.bias, std=1e-6 if in_mlp else 0.0)
