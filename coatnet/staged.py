"""The staged CoAtNet, which lesson 5 rebuilds.

Shapes: B images, C channels, H x W pixels.
"""

import math

import torch
from torch import Tensor, fx, nn

from coatnet.attention import TransformerBlock
from coatnet.config import PAPER, CoAtNetConfig
from coatnet.interface import TimmInterface, recomputed
from coatnet.layers import ACTIVATIONS, init_convolutions, make_norm
from coatnet.mbconv import MBConv


class Stem(nn.Module):
    """S0: two 3x3 convolutions, the first of stride 2 (section 2.2) or `config.stem_stride`.

    [B, in_channels, H, W] -> [B, C, H/stride, W/stride], rounded up.
    """

    def __init__(self, in_channels: int = 3, config: CoAtNetConfig = PAPER):
        super().__init__()
        first, second = config.stem_widths
        stride = config.stem_stride
        self.conv1 = nn.Conv2d(in_channels, first, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(first)
        self.activation = ACTIVATIONS[config.activation]()
        self.conv2 = nn.Conv2d(first, second, 3, padding=1, bias=False)
        init_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.activation(self.norm1(self.conv1(x))))


class Stage(nn.Sequential):
    """Blocks in a row. With `grad_checkpointing`, each is recomputed instead of stored."""

    grad_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        for block in self:
            x = recomputed(block, x) if self.grad_checkpointing else block(x)
        return x


class Head(nn.Module):
    """Global average pooling and a classifier: [B, C, H, W] -> logits [B, num_classes].

    There is no CLS token (appendix A.1). With `config.mlp_head` the means pass a norm and a tanh
    layer first, which timm's `coatnet_N_224` have and the paper does not mention. Without classes,
    or with `pre_logits=True`, it returns what the classifier gets: [B, num_features].
    """

    def __init__(self, channels: int, num_classes: int, config: CoAtNetConfig = PAPER):
        super().__init__()
        self.mlp = config.mlp_head
        self.num_features = channels
        if self.mlp:
            self.num_features = config.head_hidden or channels
            self.norm = make_norm(channels, config)
            self.hidden = nn.Linear(channels, self.num_features)
        self.dropout = nn.Dropout(config.dropout)
        self.reset(num_classes)

    def reset(self, num_classes: int) -> None:
        """A fresh classifier, or none for 0 classes."""
        self.classifier: nn.Module = nn.Identity()
        if num_classes:
            self.classifier = nn.Linear(self.num_features, num_classes)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = x.mean(dim=(2, 3), keepdim=True)  # [B, C, 1, 1]
        if self.mlp:
            x = torch.tanh(self.hidden(self.norm(x).flatten(1)))
        x = self.dropout(x.flatten(1))
        return x if pre_logits else self.classifier(x)


class CoAtNet(TimmInterface):
    """The staged model: a stem, four stages that each halve the image, and a head (section 2.2).

    Floating point images [B, in_channels, H, W] -> logits [B, num_classes], for any H and W from 32
    pixels up; what 2 does not divide rounds up. `image_size`, in pixels or as (height, width), is
    the size whose relative positions are learned; for others they are interpolated. Without classes
    it returns pooled features. `TimmInterface` has more methods, those of timm's models. The memory
    layout is channels-last throughout, without anybody asking.

    Raises ValueError for images too small or of another shape, TypeError for integers.
    """

    def __init__(
        self,
        config: CoAtNetConfig,
        num_classes: int = 1000,
        image_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
    ):
        super().__init__()
        size = (image_size, image_size) if isinstance(image_size, int) else image_size
        height, width = size
        check_min_size(height, width)
        self.config, self.num_classes = config, num_classes
        self.image_size, self.in_channels = (height, width), in_channels

        self.stem = Stem(in_channels, config)
        self.stages = nn.ModuleList()
        channels, grid_size = config.stem_widths[-1], self.image_size
        if config.stem_stride == 2:
            grid_size = halved(grid_size)
        rates = iter(torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").tolist())
        for depth, widths, types in zip(
            config.depths, config.widths, config.block_types, strict=True
        ):
            grid_size = halved(grid_size)
            widths = (widths, widths) if isinstance(widths, int) else widths
            stage = Stage()
            for letter in types.ljust(depth, types[-1])[:depth]:
                width, stride = widths["CT".index(letter)], 1 if stage else 2
                block: nn.Module
                if letter == "C":
                    block = MBConv(channels, width, stride, next(rates), config)
                else:
                    block = TransformerBlock(
                        channels, width, grid_size, stride, next(rates), config
                    )
                stage.append(block)
                channels = width
            self.stages.append(stage)
        self.num_features = channels
        self.norm = nn.Identity() if config.mlp_head else make_norm(channels, config)
        self.head = Head(channels, num_classes, config)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """What the head gets: [B, num_features, H/32, W/32]."""
        return self.norm(self.features(images)[-1])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits of what `forward_features` returns, or what the classifier gets."""
        return self.head(x, pre_logits=True) if pre_logits else self.head(x)

    def features(self, images: Tensor, stages: int | None = None) -> list[Tensor]:
        """The outputs of S0 to S4: a list of [B, C, H/s, W/s] for s = 2, 4, 8, 16, 32.

        With `stages`, those of S0 and so many stages.
        """
        outputs = [self.stem(prepared(images, self.in_channels))]
        for stage in self.stages[:stages]:
            outputs.append(stage(outputs[-1]))
        return outputs

    def attention_maps(self, images: Tensor) -> dict[str, Tensor]:
        """Where tokens look: {"stages.2.0": [B, heads, H, W, H, W], ...}, one a transformer block.

        H x W is that block's grid. `maps[name][0, head, i, j]` is a picture, which sums to 1: how
        much the token in row i, column j takes from every token.
        """
        maps = {}
        x = self.stem(prepared(images, self.in_channels))
        for s, stage in enumerate(self.stages):
            for b, block in stage.named_children():
                inputs, x = x, block(x)
                if isinstance(block, TransformerBlock):
                    weights, grid = block.attention_weights(inputs), x.shape[-2:]
                    maps[f"stages.{s}.{b}"] = weights.unflatten(3, grid).unflatten(2, grid)
        return maps


@fx.wrap  # one step to torch.fx, which can't look into conditions
def prepared(images: Tensor, channels: int) -> Tensor:
    """A batch of images, checked, and channels-last in memory as all that follows."""
    if images.ndim != 4 or images.shape[1] != channels:
        raise ValueError(f"expected images [B, {channels}, H, W], got {list(images.shape)}")
    if not images.is_floating_point():
        raise TypeError(f"expected normalised floating point images, got {images.dtype}")
    check_min_size(*images.shape[-2:])
    return images.contiguous(memory_format=torch.channels_last)


def check_min_size(height: int, width: int) -> None:
    if height < 32 or width < 32:  # the model halves an image five times
        raise ValueError(f"expected at least 32 x 32 pixels, got {height} x {width}")


def halved(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width after a layer of stride 2."""
    return math.ceil(size[0] / 2), math.ceil(size[1] / 2)
