"""CoAtNet, written to be read: the reference that lessons 2 to 6 rebuild.

Dai et al., "CoAtNet: Marrying Convolution and Attention for All Data Sizes", arXiv 2106.04803.
Shapes: B images, N tokens, D = num_hiddens, H x W pixels.
"""

import math
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from itertools import pairwise
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from vit import ClassificationHead, TransformerEncoder, check_image_size


class CNNStem(nn.Sequential):
    """Three 3x3 convolutions of stride 2, each with BatchNorm and GELU.

    [B, 3, H, W] -> [B, num_hiddens, H/8, W/8], rounded up. Widths 3 -> 64 -> 128 -> num_hiddens.
    Follows the convolutional stems of Xiao et al., "Early Convolutions Help Transformers See
    Better", arXiv 2106.14881, section 4.
    """

    stride = 8

    def __init__(self, num_hiddens):
        widths = (3, 64, 128, num_hiddens)
        layers = []
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
        self, img_size, patch_size, num_hiddens, num_heads, num_classes, depth=6, dropout=0.1
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

    def forward(self, x):
        check_image_size(x, self.img_size)
        x = self.stem(x).flatten(2).transpose(1, 2)  # [B, D, h, w] -> [B, D, N] -> [B, N, D]
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)  # [B, 1 + N, D]
        x = self.encoder(self.dropout(x + self.positions))
        return self.head(x[:, 0])  # the CLS token alone: [B, num_classes]


@dataclass(frozen=True)
class CoAtNetConfig:
    """What tells one CoAtNet from another; the defaults are CoAtNet-0 as timm builds it.

    Tuples have an entry a stage, S1 to S4. Where timm's `maxxvit.py` and the paper differ, the
    defaults follow timm, so that its weights fit; the classes say where that is.
    """

    depths: tuple[int, ...] = (2, 3, 5, 2)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    stem_widths: tuple[int, int] = (64, 64)  # of the two convolutions of S0
    stem_stride: int = 2  # 1 for images so small that five halvings leave nothing to look at
    # C is MBConv and T transformer. The last letter repeats to the stage's depth: "CT" is CTTT...
    block_types: tuple[str, ...] = ("C", "C", "T", "T")
    pool: str = "avg"  # of shortcuts and before attention: "avg", or the paper's "max"
    activation: str = "gelu"  # of the stem and MBConv: "gelu" or "silu"
    expand_output: bool = True  # MBConv is 4 x as wide inside as its output, or as its input
    pre_activation: bool = False  # an activation after MBConv's first norm
    conv_bias: bool = True  # in MBConv's last convolution and its shortcut
    stride_in: str = "depthwise"  # what halves the image in MBConv: "depthwise" or "pool"
    excite_first: bool = False  # squeeze-excite before MBConv's last norm instead of after it
    excite_activation: str = "silu"  # inside squeeze-excite: "silu" or "relu"
    attend_output: bool = True  # attention is as wide as its output, or as its input
    shortcut_bias: bool = True  # in the transformer's shortcut
    layer_scale: float | None = None  # first value of a learned factor on transformer branches
    norm: str = "layer"  # in the transformer and before the head: "layer" or "batch"
    position_bias: str = "table"  # "table", or "mlp" for `RelativePositionMLP`
    position_hidden: int = 512  # width of that MLP
    mlp_head: bool = True  # a tanh layer before the classifier, and the norm after pooling
    dropout: float = 0.0  # before the classifier
    attention_dropout: float = 0.0  # of attention weights
    projection_dropout: float = 0.0  # after attention and in the feed-forward layers
    drop_path: float = 0.0  # stochastic depth in the last block, rising linearly from 0


PAPER = CoAtNetConfig()
ACTIVATIONS = {
    "gelu": nn.GELU,
    "silu": partial(nn.SiLU, inplace=True),  # what goes in is a layer's result, used here alone
    "relu": partial(nn.ReLU, inplace=True),
}
HEAD_DIM = 32  # channels a head, in all models (table 3)


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


def conv_norm(conv, norm, x):
    """norm(conv(x)) for BatchNorm; in eval mode one convolution, since norm is linear there."""
    if norm.training:
        return norm(conv(x))
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)  # [channels]
    shift = norm.bias - norm.running_mean * scale
    weight = conv.weight * scale[:, None, None, None]
    return F.conv2d(x, weight, shift, conv.stride, conv.padding, groups=conv.groups)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (Hu et al., arXiv 1709.01507, section 3): [B, C, H, W] -> the same.

    Two layers compute a factor in (0, 1) for each channel from the means of all channels.
    """

    def __init__(self, channels, hidden_channels, activation="silu"):
        super().__init__()
        self.squeeze = nn.Linear(channels, hidden_channels)
        self.activation = ACTIVATIONS[activation]()
        self.excite = nn.Linear(hidden_channels, channels)

    def forward(self, x):
        means = x.mean(dim=(2, 3))  # [B, C]
        gates = torch.sigmoid(self.excite(self.activation(self.squeeze(means))))  # [B, C]
        return x * gates[:, :, None, None]


class MBConv(nn.Module):
    """Inverted bottleneck, norm first (section 2.1, appendix A.1):

        x <- Shortcut(x) + Conv(SE(DepthConv(Conv(Norm(x)))))

    [B, in_channels, H, W] -> [B, out_channels, H/stride, W/stride], rounded up. It is 4 x
    `out_channels` wide inside, squeezed to a quarter of `out_channels`. With stride 2 the shortcut
    is Proj(Pool(x)), otherwise x. The paper strides in the first convolution, whose 1x1 kernel then
    skips three pixels of four; timm in the depthwise one. The paper pools by maximum, timm by mean.

    Raises ValueError for stride 1 between different numbers of channels.
    """

    def __init__(self, in_channels, out_channels, stride=1, drop_path=0.0, config=PAPER):
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

    def forward(self, x):
        shortcut = self.shortcut(x)
        x = self.pool(self.pre_activation(self.pre_norm(x)))
        x = self.activation(conv_norm(self.expand, self.norm1, x))  # [B, hidden, H, W]
        if self.excite_first:
            x = self.activation(self.norm2(self.squeeze_excite(self.depthwise(x))))
        else:
            x = self.squeeze_excite(self.activation(conv_norm(self.depthwise, self.norm2, x)))
        return shortcut + self.drop_path(self.project(x))


def init_convolutions(module):
    """Draws weights with variance 2 / fan-out, as EfficientNet does; biases are 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_out = layer.weight[:, 0].numel() // getattr(layer, "groups", 1)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def relative_position_index(height, width, device=None):
    """Which entry of the bias table each pair of pixels uses: integers [N, N], N = height * width.

    Query (i, j) and key (i', j') use entry (i - i' + height - 1, j - j' + width - 1) of a table of
    2 * height - 1 by 2 * width - 1 (appendix A.1). Pixels and entries are counted row by row.
    """
    rows = torch.arange(height, device=device).repeat_interleave(width)  # [N]
    columns = torch.arange(width, device=device).repeat(height)  # [N]
    row_offsets = rows[:, None] - rows + height - 1  # [N, N]
    column_offsets = columns[:, None] - columns + width - 1  # [N, N]
    return row_offsets * (2 * width - 1) + column_offsets


def resize_table(table, height, width):
    """A bias table [heads, 2h - 1, 2w - 1] for a grid of another size, differentiably."""
    rows = interpolation_weights(table.shape[1], 2 * height - 1).to(table)
    columns = interpolation_weights(table.shape[2], 2 * width - 1).to(table)
    return rows @ table @ columns.T  # [heads, 2 * height - 1, 2 * width - 1]


def interpolation_weights(old, new):
    """The matrix [new, old] that interpolates `new` offsets from `old` ones, both odd numbers.

    As in timm's `resize_rel_pos_bias_table`, after BEiT: old offsets 0, 1, 2, 3 ... come to lie at
    0, 1, 1 + q, 1 + q + q^2 ..., with q from 1.01 to 1.5 such that the last is at the new border.
    So neighbours keep what they learned, and only far offsets are stretched. In between it is
    linear, and beyond the last offset constant. (The paper stretches all offsets alike.)
    """
    if old == 1:
        return torch.ones(new, 1)
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        q = (low + high) / 2
        if sum(q**i for i in range(old // 2)) > new // 2:
            high = q
        else:
            low = q
    outward = [sum(q**i for i in range(n)) for n in range(1, old // 2 + 1)]  # 1, 1 + q, ...
    positions = torch.tensor([-p for p in reversed(outward)] + [0.0] + outward)  # [old]
    targets = torch.arange(new) - float(new // 2)  # [new]
    right = torch.searchsorted(positions, targets).clamp(1, old - 1)  # [new]
    left = right - 1
    share = (targets - positions[left]) / (positions[right] - positions[left])
    share = share.clamp(0, 1)[:, None]  # of the right neighbour, [new, 1]
    weights = torch.zeros(new, old)
    return weights.scatter(1, left[:, None], 1 - share).scatter(1, right[:, None], share)


class RelativePositionBias(nn.Module):
    """A learned number for every head and every offset of two pixels, w_{i-j} (equation 3).

    (height, width) -> bias [num_heads, N, N], N = height * width, to be added to the scores before
    softmax. Each head has a table [2 * height - 1, 2 * width - 1], made for `grid_size` = (height,
    width) as in appendix A.1, interpolated for other sizes and for checkpoints of other sizes.
    Which entry a pair of pixels uses is arithmetic and not learned: `index` is a buffer.

    In eval mode without gradients, the last bias is kept until a parameter or the size changes.
    """

    def __init__(self, num_heads, grid_size):
        super().__init__()
        height, width = self.grid_size = tuple(grid_size)
        self.register_buffer("index", relative_position_index(height, width), persistent=False)
        self.table = nn.Parameter(torch.empty(num_heads, 2 * height - 1, 2 * width - 1))
        nn.init.trunc_normal_(self.table, std=0.02)
        self._kept = None

    def forward(self, height, width):
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.bias_at(height, width)
        parameters = list(self.parameters())  # kept with the bias, so that no id is used again
        versions = [(id(p), 0 if p.is_inference() else p._version) for p in parameters]
        key = (height, width, versions)
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, parameters, self.bias_at(height, width))
        return self._kept[2]

    def bias_at(self, height, width):
        index = self.index
        if (height, width) != self.grid_size:
            index = relative_position_index(height, width, index.device)
        with torch.autocast(index.device.type, enabled=False):
            table = self.table_at(height, width).flatten(1)  # [num_heads, offsets]
        # The same as table[:, index], with a gradient five times as fast on a CPU
        return table.index_select(1, index.flatten()).unflatten(1, index.shape)

    def table_at(self, height, width):
        """One number a head and offset: [num_heads, 2 * height - 1, 2 * width - 1]."""
        if (height, width) == self.grid_size:
            return self.table
        return resize_table(self.table, height, width)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        table = state_dict.get(prefix + "table")
        if table is not None and self.table is not None and table.shape != self.table.shape:
            state_dict[prefix + "table"] = resize_table(table, *self.grid_size)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def train(self, mode=True):
        self._kept = None  # writes through .data leave no other trace
        return super().train(mode)

    def _apply(self, fn, recurse=True):
        self._kept = None  # .to(), .double() and .cuda() come here
        return super()._apply(fn, recurse)


class RelativePositionMLP(RelativePositionBias):
    """The same with a small MLP of the offset in place of the table, good for every size.

    Offsets enter as sign(d) * log(1 + |d|). Not in the paper; follows timm's `RelPosMlp` in mode
    "cr", after Swin V2 (arXiv 2111.09883).
    """

    def __init__(self, num_heads, grid_size, hidden):
        super().__init__(num_heads, grid_size)
        self.table = None
        self.mlp = nn.Sequential(
            nn.Linear(2, hidden), nn.ReLU(), nn.Dropout(0.125), nn.Linear(hidden, num_heads)
        )

    def table_at(self, height, width):
        weight = self.mlp[0].weight
        rows = torch.arange(1 - height, height, device=weight.device)
        columns = torch.arange(1 - width, width, device=weight.device)
        offsets = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).float()
        offsets = offsets.sign() * offsets.abs().log1p()  # [2 * height - 1, 2 * width - 1, 2]
        return self.mlp(offsets.to(weight.dtype)).permute(2, 0, 1)


class RelativeAttention(nn.Module):
    """Multi-head attention with a bias for the offset between two pixels (equation 3):

        y_i = sum_j softmax_j(q_i . k_j / sqrt(d) + w_{i-j}) v_j,  d = 32 channels a head

    [B, in_channels, H, W] -> [B, out_channels, H, W]. With `return_weights=True` also the softmax
    [B, num_heads, N, N], N = H * W: row i is where pixel i looks, and sums to 1.

    One linear layer on tokens yields Q, K and V head by head, as in timm.
    Raises ValueError where 32 does not divide its width.
    """

    def __init__(self, in_channels, out_channels, grid_size, config=PAPER):
        super().__init__()
        width = out_channels if config.attend_output else in_channels
        if width % HEAD_DIM:
            raise ValueError(f"attention of width {width} has no heads of {HEAD_DIM} channels")
        self.num_heads = width // HEAD_DIM
        self.qkv = Linear2d(in_channels, 3 * width)
        if config.position_bias == "mlp":
            self.position_bias = RelativePositionMLP(
                self.num_heads, grid_size, config.position_hidden
            )
        else:
            self.position_bias = RelativePositionBias(self.num_heads, grid_size)
        self.dropout = nn.Dropout(config.attention_dropout)
        self.proj = Linear2d(width, out_channels)
        self.proj_dropout = nn.Dropout(config.projection_dropout)

    def forward(self, x, return_weights=False):
        height, width = x.shape[-2:]
        qkv = self.qkv(x).flatten(2).unflatten(1, (self.num_heads, 3 * HEAD_DIM))
        q, k, v = qkv.transpose(2, 3).chunk(3, dim=-1)  # each [B, heads, N, d]
        bias = self.position_bias(height, width).to(q.dtype)  # [heads, N, N]
        # On a CPU the fused kernel has no gradient for the bias, and PyTorch's way around that is
        # slower than the equation written out.
        if return_weights or (bias.requires_grad and bias.device.type == "cpu"):
            scores = (q * HEAD_DIM**-0.5) @ k.transpose(-2, -1) + bias  # [B, heads, N, N]
            weights = scores.softmax(dim=-1)
            x = self.dropout(weights) @ v  # [B, heads, N, d]
        else:  # the same in one kernel
            dropout = self.dropout.p if self.training else 0.0
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None], dropout_p=dropout)
        x = x.transpose(2, 3).flatten(1, 2).unflatten(2, (height, width))  # [B, heads * d, H, W]
        x = self.proj_dropout(self.proj(x))  # [B, out_channels, H, W]
        return (x, weights) if return_weights else x


class TransformerBlock(nn.Module):
    """Relative attention and feed-forward layers, norm first (appendix A.1):

        x <- Shortcut(x) + Attention(Pool(Norm(x)))
        x <- x + FeedForward(Norm(x))

    [B, in_channels, H, W] -> [B, out_channels, H/stride, W/stride], rounded up; `grid_size` is the
    (height, width) that comes out. With stride 2 the shortcut is Proj(Pool(x)), otherwise x, and
    nothing is pooled. The paper pools by maximum, timm by mean.

    Raises ValueError for stride 1 between different numbers of channels.
    """

    def __init__(self, in_channels, out_channels, grid_size, stride=1, drop_path=0.0, config=PAPER):
        super().__init__()
        self.shortcut = make_shortcut(
            in_channels, out_channels, stride, config.pool, config.shortcut_bias
        )
        self.norm1 = make_norm(in_channels, config)
        self.pool = make_pool(config.pool) if stride == 2 else nn.Identity()
        self.attention = RelativeAttention(in_channels, out_channels, grid_size, config)
        self.norm2 = make_norm(out_channels, config)
        self.feed_forward = FeedForward2d(out_channels, config.projection_dropout)
        self.layer_scale1 = self.layer_scale2 = nn.Identity()
        if config.layer_scale is not None:
            self.layer_scale1 = LayerScale(out_channels, config.layer_scale)
            self.layer_scale2 = LayerScale(out_channels, config.layer_scale)
        self.drop_path = DropPath(drop_path)
        init_transformer(self)

    def forward(self, x):
        attended = self.attention(self.pool(self.norm1(x)))
        x = self.shortcut(x) + self.drop_path(self.layer_scale1(attended))
        return x + self.drop_path(self.layer_scale2(self.feed_forward(self.norm2(x))))

    def attention_weights(self, x):
        """Where each pixel looks, given the block's input: [B, num_heads, N, N], rows sum to 1."""
        return self.attention(self.pool(self.norm1(x)), return_weights=True)[1]


def make_norm(channels, config):
    norm = nn.BatchNorm2d if config.norm == "batch" else LayerNorm2d
    return norm(channels, eps=1e-6)


def init_transformer(module):
    """Draws Xavier-uniform weights, as ViT does; biases are 0, in MLPs all but 0."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                in_mlp = "feed_forward" in name or "mlp" in name
                nn.init.normal_(layer.bias, std=1e-6 if in_mlp else 0.0)


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


def sized(depths, width, stem_widths):
    widths = (width, 2 * width, 4 * width, 8 * width)
    return {"depths": depths, "widths": widths, "stem_widths": stem_widths}


NANO = sized((3, 4, 6, 3), 64, (32, 64))
RW_0 = sized((2, 3, 7, 2), 96, (32, 64))
RW_1 = sized((2, 6, 14, 2), 96, (32, 64))
RW_2 = sized((2, 6, 14, 2), 128, (64, 128)) | {"excite_activation": "silu"}
RW_3 = sized((2, 6, 14, 2), 192, (96, 192)) | {"excite_activation": "silu"}
NEW = {"activation": "silu", "expand_output": False, "attend_output": False, "mlp_head": False}
RW = NEW | {"pre_activation": True, "conv_bias": False, "excite_activation": "relu"}
POOLED = {"stride_in": "pool"}
EARLY = {"excite_first": True, "shortcut_bias": False}
MLP = {"position_bias": "mlp"}
MLP_384 = MLP | {"position_hidden": 384}
SCALED = {"layer_scale": 1e-6}
# The paper's models (table 3), then timm's own `_rw` ones, which vary almost every option
OPTIONS = {
    "coatnet_0_224": sized((2, 3, 5, 2), 96, (64, 64)),
    "coatnet_1_224": sized((2, 6, 14, 2), 96, (64, 64)),
    "coatnet_2_224": sized((2, 6, 14, 2), 128, (128, 128)),
    "coatnet_3_224": sized((2, 6, 14, 2), 192, (192, 192)),
    "coatnet_4_224": sized((2, 12, 28, 2), 192, (192, 192)),
    "coatnet_5_224": sized((2, 12, 28, 2), 256, (192, 192)) | {"widths": (256, 512, 1280, 2048)},
    "coatnet_pico_rw_224": NEW | NANO | {"depths": (2, 3, 5, 2)},
    "coatnet_nano_rw_224": NEW | NANO | POOLED,
    "coatnet_nano_cc_224": RW | NANO | POOLED | {"block_types": ("C", "C", "CT", "CT")},
    "coatnet_0_rw_224": RW | RW_0 | POOLED | EARLY,
    "coatnet_1_rw_224": RW | RW_1 | EARLY,
    "coatnet_2_rw_224": RW | RW_2,
    "coatnet_3_rw_224": RW | RW_3 | SCALED,
    "coatnet_bn_0_rw_224": RW | RW_0 | EARLY | {"norm": "batch"},
    "coatnet_rmlp_nano_rw_224": NEW | NANO | MLP_384,
    "coatnet_rmlp_0_rw_224": RW | RW_0 | MLP,
    "coatnet_rmlp_1_rw_224": RW | RW_1 | POOLED | EARLY | MLP_384 | {"pool": "max"},
    "coatnet_rmlp_1_rw2_224": RW | RW_1 | MLP,
    "coatnet_rmlp_2_rw_224": RW | RW_2 | MLP | SCALED,
    "coatnet_rmlp_2_rw_384": RW | RW_2 | MLP | SCALED,
    "coatnet_rmlp_3_rw_224": RW | RW_3 | MLP | SCALED,
}
CONFIGS = {name: CoAtNetConfig(**options) for name, options in OPTIONS.items()}


def list_models():
    """The names that `create_model` knows, those of `timm.list_models("coatnet_*")`, sorted."""
    return sorted(CONFIGS)


def get_config(name):
    """A model's configuration. Raises ValueError for an unknown name, with the nearest ones."""
    if name not in CONFIGS:
        near = get_close_matches(name, CONFIGS, cutoff=0.5) or list_models()
        raise ValueError(f"there is no model {name!r}; did you mean {', '.join(near)}?")
    return CONFIGS[name]


def create_model(
    name, num_classes=1000, image_size=224, pretrained=False, in_channels=3, **options
):
    """A CoAtNet by its name in timm, such as "coatnet_0_224"; `list_models()` has them all.

    `options` replace fields of the model's `CoAtNetConfig`, such as drop_path=0.2. With
    `pretrained=True`, timm fetches ImageNet weights. They are adapted to `in_channels` and
    `image_size`, but the classifier is a fresh one where `num_classes` is not theirs (1000, and
    11821 for coatnet_3_rw_224).

    Raises ValueError for an unknown name, and when asked for weights that nobody published;
    ConnectionError where there is no network.
    """
    model = CoAtNet(replace(get_config(name), **options), num_classes, image_size, in_channels)
    if pretrained:
        timm_model = fetch(name, num_classes=num_classes, in_chans=in_channels)
        model.load_state_dict(from_timm(timm_model).state_dict())
    return model


def fetch(name, **options):
    """timm's model with its published weights. Raises as `create_model` does."""
    import timm  # here alone, since the models themselves do not need it
    from huggingface_hub import constants, try_to_load_from_cache

    published = sorted({tagged.split(".")[0] for tagged in timm.list_pretrained("coatnet_*")})
    if name not in published:
        raise ValueError(f"{name} has no published weights; these have: {', '.join(published)}")
    try:
        repository = timm.get_pretrained_cfg(name).hf_hub_id
        if not try_to_load_from_cache(repository, "model.safetensors"):
            # Ask first: without a network, the download would go on trying for a minute
            with suppress(HTTPError):  # an answer, whatever it says
                urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=10)
        return timm.create_model(name, pretrained=True, **options)
    except OSError as error:
        raise ConnectionError(f"no network to fetch {name} from: {error}") from None


# What timm calls its layers, and what we do; replaced from top to bottom
TIMM_NAMES = {
    ".blocks.": ".",
    ".conv1_1x1.": ".expand.",
    ".conv2_kxk.": ".depthwise.",
    ".conv3_1x1.": ".project.",
    ".se_early.": ".se.",
    ".se.fc1.": ".squeeze_excite.squeeze.",
    ".se.fc2.": ".squeeze_excite.excite.",
    ".shortcut.expand.": ".shortcut.proj.",
    ".norm1.norm.": ".norm1.",
    ".attn.rel_pos.relative_position_bias_table": ".attention.position_bias.table",
    ".attn.rel_pos.mlp.fc1.": ".attention.position_bias.mlp.0.",
    ".attn.rel_pos.mlp.fc2.": ".attention.position_bias.mlp.3.",
    ".attn.": ".attention.",
    ".ls1.gamma": ".layer_scale1.scale",
    ".ls2.gamma": ".layer_scale2.scale",
    ".mlp.fc1.": ".feed_forward.0.",
    ".mlp.fc2.": ".feed_forward.3.",
    "head.pre_logits.fc.": "head.hidden.",
    "head.fc.": "head.classifier.",
}


def from_timm(timm_model):
    """A CoAtNet with the weights of a timm one, in its type, on its device and in its mode.

    For what `timm.create_model("coatnet_...")` returns, with any `img_size`, `in_chans`,
    `num_classes`, `depths`, `embed_dim` and `stem_width`. Raises ValueError for other models.
    """
    name = (getattr(timm_model, "pretrained_cfg", None) or {}).get("architecture", "")
    config = get_config(name)
    stem, stages = timm_model.stem, timm_model.stages
    config = replace(
        config,
        depths=tuple(len(stage.blocks) for stage in stages),
        widths=tuple(info["num_chs"] for info in timm_model.feature_info[1:]),
        stem_widths=(stem.conv1.out_channels, stem.conv2.out_channels),
    )
    model = CoAtNet(config, timm_model.num_classes, timm_model.img_size, timm_model.in_chans)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    weights = {}
    for key, value in timm_model.state_dict().items():
        for theirs, ours in TIMM_NAMES.items():
            key = key.replace(theirs, ours)
        if key.endswith("position_bias.table"):
            value = value.T  # [offsets, heads] -> [heads, offsets]
        weights[key] = value.reshape(shapes[key])  # a 1x1 convolution's weights become a matrix
    model.load_state_dict(weights)
    return model.to(stem.conv1.weight).train(timm_model.training)
