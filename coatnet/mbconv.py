"""Squeeze-and-excitation and MBConv, which lesson 3 rebuilds."""

import torch
from torch import Tensor, nn

from coatnet.config import PAPER, CoAtNetConfig
from coatnet.layers import ACTIVATIONS, DropPath, init_convolutions, make_pool, make_shortcut


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (Hu et al., arXiv 1709.01507, section 3): [B, C, H, W] -> the same.

    Two layers compute a factor in (0, 1) for each channel from the means of all channels. Ten of
    timm's 21 CoAtNets have ReLU between them, the others SiLU; the paper does not say.
    """

    def __init__(self, channels: int, hidden_channels: int, activation: str = "silu"):
        super().__init__()
        self.squeeze = nn.Linear(channels, hidden_channels)
        self.activation = ACTIVATIONS[activation]()
        self.excite = nn.Linear(hidden_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(dim=(2, 3))  # [B, C]
        gates = torch.sigmoid(self.excite(self.activation(self.squeeze(means))))  # [B, C]
        return x * gates[:, :, None, None]


class MBConv(nn.Module):
    """Inverted bottleneck, norm first (section 2.1, appendix A.1):

        x <- Shortcut(x) + Conv(SE(DepthConv(Conv(Norm(x)))))

    [B, in_channels, H, W] -> [B, out_channels, H/stride, W/stride], rounded up. It is 4 x
    `out_channels` wide inside, squeezed to a quarter of `out_channels`. With stride 2 the shortcut
    is Proj(Pool(x)), otherwise x. The paper strides in the first convolution, whose 1x1 kernel then
    skips three pixels of four, and adds in appendix A.1 that the depthwise one is better (81.6 ->
    82.0 % for CoAtNet-0): timm's choice, and ours. The paper pools by maximum, timm by mean.

    Raises ValueError for stride 1 between different numbers of channels.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int = 1,
        drop_path: float = 0.0,
        config: CoAtNetConfig = PAPER,
    ):
        super().__init__()
        hidden = 4 * (out_channels if config.expand_output else in_channels)
        squeezed = (out_channels if config.expand_output else hidden) // 4
        activation = ACTIVATIONS[config.activation]
        pool_first = stride == 2 and config.stride_in == "pool"
        conv_stride = 1 if pool_first else stride

        self.shortcut = make_shortcut(
            in_channels, out_channels, stride, config.pool, config.conv_bias
        )
        self.pre_norm = nn.BatchNorm2d(in_channels)
        self.pre_activation = activation() if config.pre_activation else nn.Identity()
        self.pool = make_pool("avg") if pool_first else nn.Identity()
        self.expand = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(
            hidden, hidden, 3, stride=conv_stride, padding=1, groups=hidden, bias=False
        )
        self.norm2 = nn.BatchNorm2d(hidden)
        self.activation = activation()
        self.squeeze_excite = SqueezeExcite(hidden, squeezed, config.excite_activation)
        self.excite_first = config.excite_first
        self.project = nn.Conv2d(hidden, out_channels, 1, bias=config.conv_bias)
        self.drop_path = DropPath(drop_path)
        init_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x)
        x = self.pool(self.pre_activation(self.pre_norm(x)))
        x = self.depthwise(self.activation(self.norm1(self.expand(x))))  # [B, hidden, H/s, W/s]
        if self.excite_first:
            x = self.activation(self.norm2(self.squeeze_excite(x)))
        else:
            x = self.squeeze_excite(self.activation(self.norm2(x)))
        return shortcut + self.drop_path(self.project(x))
