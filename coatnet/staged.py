"""The staged CoAtNet, which lesson 5 rebuilds.

Shapes: B images, C channels, H x W pixels.
"""

import math
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from coatnet.attention import RelativePositionBias, TransformerBlock
from coatnet.config import PAPER
from coatnet.layers import ACTIVATIONS, conv_norm, init_convolutions, make_norm
from coatnet.mbconv import MBConv


class Stem(nn.Module):
    """S0: two 3x3 convolutions, the first of stride 2 (section 2.2) or `config.stem_stride`.

    [B, in_channels, H, W] -> [B, C, H/stride, W/stride], rounded up.
    """

    def __init__(self, in_channels=3, config=PAPER):
        super().__init__()
        first, second = config.stem_widths
        stride = config.stem_stride
        self.conv1 = nn.Conv2d(in_channels, first, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(first)
        self.activation = ACTIVATIONS[config.activation]()
        self.conv2 = nn.Conv2d(first, second, 3, padding=1, bias=False)
        init_convolutions(self)

    def forward(self, x):
        return self.conv2(self.activation(conv_norm(self.conv1, self.norm1, x)))


class Head(nn.Module):
    """Global average pooling and a classifier: [B, C, H, W] -> logits [B, num_classes].

    There is no CLS token (appendix A.1). With `config.mlp_head` the means pass a norm and a tanh
    layer first, which timm's `coatnet_N_224` have and the paper does not mention.
    """

    def __init__(self, channels, num_classes, config=PAPER):
        super().__init__()
        self.mlp = config.mlp_head
        if self.mlp:
            self.norm = make_norm(channels, config)
            self.hidden = nn.Linear(channels, channels)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, x):
        x = x.mean(dim=(2, 3), keepdim=True)  # [B, C, 1, 1]
        if self.mlp:
            x = torch.tanh(self.hidden(self.norm(x).flatten(1)))
        return self.classifier(self.dropout(x.flatten(1)))


class CoAtNet(nn.Module):
    """The staged model: a stem, four stages that each halve the image, and a head (section 2.2).

    Floating point images [B, in_channels, H, W] -> logits [B, num_classes], for any H and W from 32
    pixels up; what 2 does not divide rounds up. `image_size`, in pixels or as (height, width), is
    the size whose relative positions are learned; for others they are interpolated.

    The memory layout is channels-last throughout, without anybody asking. With
    `model.grad_checkpointing = True`, training recomputes each block instead of storing it.

    Raises ValueError for images too small or of another shape, TypeError for integers.
    """

    def __init__(self, config, num_classes=1000, image_size=224, in_channels=3):
        super().__init__()
        if isinstance(image_size, int):
            image_size = (image_size, image_size)
        check_min_size(*image_size)
        self.config = config
        self.image_size = tuple(image_size)
        self.in_channels = in_channels
        self.grad_checkpointing = False

        self.stem = Stem(in_channels, config)
        self.stages = nn.ModuleList()
        channels, grid_size = config.stem_widths[-1], self.image_size
        if config.stem_stride == 2:
            grid_size = halved(grid_size)
        drop_paths = iter(torch.linspace(0, config.drop_path, sum(config.depths), device="cpu"))
        for depth, width, types in zip(
            config.depths, config.widths, config.block_types, strict=True
        ):
            grid_size = halved(grid_size)
            stage = nn.Sequential()
            for letter in types.ljust(depth, types[-1])[:depth]:
                options = {"drop_path": next(drop_paths).item(), "config": config}
                options["stride"] = 1 if stage else 2
                if letter == "C":
                    stage.append(MBConv(channels, width, **options))
                else:
                    stage.append(TransformerBlock(channels, width, grid_size, **options))
                channels = width
            self.stages.append(stage)
        self.norm = nn.Identity() if config.mlp_head else make_norm(channels, config)
        self.head = Head(channels, num_classes, config)
        self.to(memory_format=torch.channels_last)

    def forward(self, images):
        return self.head(self.forward_features(images))

    def forward_features(self, images):
        """What the head gets: [B, widths[-1], H/32, W/32]."""
        return self.norm(self.features(images)[-1])

    def features(self, images):
        """The outputs of S0 to S4: a list of [B, C, H/s, W/s] for s = 2, 4, 8, 16, 32."""
        outputs = [self.stem(self.prepare(images))]
        for stage in self.stages:
            x = outputs[-1]
            for block in stage:
                x = recomputed(block, x) if self.grad_checkpointing else block(x)
            outputs.append(x)
        return outputs

    def attention_maps(self, images):
        """Where tokens look: {"stages.2.0": [B, heads, H, W, H, W], ...}, one a transformer block.

        H x W is that block's grid. `maps[name][0, head, i, j]` is a picture, which sums to 1: how
        much the token in row i, column j takes from every token.
        """
        maps = {}
        x = self.stem(self.prepare(images))
        for s, stage in enumerate(self.stages):
            for b, block in enumerate(stage):
                inputs, x = x, block(x)
                if isinstance(block, TransformerBlock):
                    weights, grid = block.attention_weights(inputs), x.shape[-2:]
                    maps[f"stages.{s}.{b}"] = weights.unflatten(3, grid).unflatten(2, grid)
        return maps

    def prepare(self, images):
        """Checks a batch of images and lays it channels-last in memory."""
        channels = self.in_channels
        if images.ndim != 4 or images.shape[1] != channels:
            raise ValueError(f"expected images [B, {channels}, H, W], got {list(images.shape)}")
        if not images.is_floating_point():
            raise TypeError(f"expected normalised floating point images, got {images.dtype}")
        check_min_size(*images.shape[-2:])
        return images.contiguous(memory_format=torch.channels_last)

    def reset_classifier(self, num_classes):
        """Replaces the last layer by a fresh one, for another number of classes."""
        old = self.head.classifier
        self.head.classifier = nn.Linear(old.in_features, num_classes).to(old.weight)

    def parameter_groups(self, weight_decay=0.05):
        """Two groups for an optimiser: norms, biases and relative positions do not decay."""
        biases = [m for m in self.modules() if isinstance(m, RelativePositionBias)]
        positions = {id(p) for bias in biases for p in bias.parameters()}
        decay, no_decay = [], []
        for p in self.parameters():
            (no_decay if p.ndim < 2 or id(p) in positions else decay).append(p)
        return [
            {"params": decay, "weight_decay": weight_decay},
            {"params": no_decay, "weight_decay": 0.0},
        ]


def check_min_size(height, width):
    if min(height, width) < 32:  # the model halves an image five times
        raise ValueError(f"expected at least 32 x 32 pixels, got {height} x {width}")


def halved(size):
    """Height and width after a layer of stride 2."""
    return tuple(math.ceil(length / 2) for length in size)


def recomputed(block, x):
    """block(x), whose activations are computed again in the backward pass instead of stored."""
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]

    @contextmanager
    def second_pass():  # must not count the batch in the running statistics once more
        for norm in norms:
            norm.momentum = 0.0
        try:
            yield
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum

    return checkpoint(
        block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), second_pass())
    )
