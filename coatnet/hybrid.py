"""The first hybrid, which lesson 2 rebuilds: a ViT on a convolutional stem.

Shapes: B images, N tokens, D = num_hiddens, H x W pixels.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from vit import ClassificationHead, TransformerEncoder, check_image_size


class CNNStem(nn.Sequential):
    """Three 3x3 convolutions of stride 2, each with BatchNorm and GELU.

    [B, 3, H, W] -> [B, num_hiddens, H/8, W/8], rounded up. Widths 3 -> 64 -> 128 -> num_hiddens.
    After the convolutional stems of Xiao et al., "Early Convolutions Help Transformers See Better",
    arXiv 2106.14881, section 3: theirs have 4 to 6 convolutions down to stride 16, ReLU, and a
    last 1x1.
    """

    stride = 8

    def __init__(self, num_hiddens: int):
        widths = (3, 64, 128, num_hiddens)
        layers: list[nn.Module] = []
        for in_channels, out_channels in pairwise(widths):
            layers += [
                nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=2, padding=1),
                nn.BatchNorm2d(out_channels),
                nn.GELU(),
            ]
        super().__init__(*layers)


class CoAtNEt(nn.Module):
    """The first hybrid: a ViT whose patches come from a `CNNStem` instead of one big convolution.

    [B, 3, img_size, img_size] -> logits [B, num_classes]. `patch_size` is there so that the call
    reads like `ViT`'s and has no effect: the stem's stride of 8 decides the number of tokens
    (img_size 56 gives 7 x 7 = 49). Raises ValueError for an input whose size is not `img_size`.
    """

    def __init__(
        self,
        img_size: int,
        patch_size: int,
        num_hiddens: int,
        num_heads: int,
        num_classes: int,
        depth: int = 6,
        dropout: float = 0.1,
    ):
        super().__init__()
        self.img_size = img_size
        self.stem = CNNStem(num_hiddens)
        num_tokens = math.ceil(img_size / CNNStem.stride) ** 2 + 1  # the grid and the CLS token
        self.cls_token = nn.Parameter(torch.randn(1, 1, num_hiddens) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, num_tokens, num_hiddens) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.encoder = TransformerEncoder(num_hiddens, depth, num_heads, 4 * num_hiddens, dropout)
        self.head = ClassificationHead(num_hiddens, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        check_image_size(x, self.img_size)
        x = self.stem(x).flatten(2).transpose(1, 2)  # [B, D, h, w] -> [B, D, N] -> [B, N, D]
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)  # [B, 1 + N, D]
        x = self.encoder(self.dropout(x + self.positions))
        return self.head(x[:, 0])  # the CLS token alone: [B, num_classes]
