"""CoAtNet, written to be read: the reference that lessons 2 to 6 rebuild.

Dai et al., "CoAtNet: Marrying Convolution and Attention for All Data Sizes", arXiv 2106.04803.
Shapes: B images, N tokens, D = num_hiddens, H x W pixels.
"""

import math
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import pairwise
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from vit import ClassificationHead, FeedForward, TransformerEncoder, check_image_size


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
    """What tells one CoAtNet from another. The defaults are CoAtNet-0 as timm builds it.

    Tuples have one entry a stage, S1 to S4; S0 is the stem. Where timm (`maxxvit.py`) and the paper
    differ, the defaults follow timm, so that its weights fit.
    """

    depths: tuple[int, ...] = (2, 3, 5, 2)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    stem_widths: tuple[int, int] = (64, 64)
    # Letters of the blocks, C for MBConv and T for transformer; the last one repeats to the stage's
    # depth, so "CT" is one MBConv and transformers after it.
    block_types: tuple[str, ...] = ("C", "C", "T", "T")
    pool: str = "avg"  # of the shortcuts and before attention; "max" is the paper's
    mlp_head: bool = True  # a tanh layer before the classifier, and the norm after the pooling

    activation: str = "gelu"  # of the stem and of MBConv
    expand_output: bool = True  # MBConv is 4 x its output channels wide, or 4 x its input channels
    pre_activation: bool = False  # an activation after MBConv's first norm
    conv_bias: bool = True  # in MBConv's last convolution and its shortcut
    stride_in: str = "depthwise"  # where MBConv halves its branch: "depthwise" or "pool"
    excite_before_norm: bool = False  # squeeze-excite before MBConv's last norm, or after it
    excite_activation: str = "silu"

    norm: str = "layer"  # of the transformer blocks and before the head: "layer" or "batch"
    attend_output: bool = True  # attention is as wide as the block's output, or as its input
    shortcut_bias: bool = True  # in the transformer block's shortcut
    layer_scale: float | None = None  # initial factor on each residual branch, learned per channel
    position_bias: str = "table"  # the relative bias is a "table", or comes from an "mlp"
    position_hidden: int = 512  # hidden width of that MLP

    dropout: float = 0.0  # before the classifier
    attention_dropout: float = 0.0  # on attention weights
    projection_dropout: float = 0.0  # after attention, and inside the feed-forward layers
    drop_path: float = 0.0  # stochastic depth at the last block, rising linearly from 0


PAPER = CoAtNetConfig()
ACTIVATIONS = {"gelu": nn.GELU, "silu": nn.SiLU, "relu": nn.ReLU}
HEAD_DIM = 32  # appendix A.1: "we always use" this size


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of each pixel: [B, C, H, W] -> the same."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class FeedForward2d(FeedForward):
    """The ViT's feed-forward layers at each pixel: [B, C, H, W] -> the same."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class LayerScale(nn.Module):
    """A learned factor per channel (Touvron et al., arXiv 2103.17239): [B, C, H, W] -> the same."""

    def __init__(self, channels, init):
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), init))

    def forward(self, x):
        return x * self.scale[:, None, None]


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., arXiv 1603.09382): in training, zeroes whole samples.

    [B, C, H, W] -> the same. A sample is dropped with probability `rate` in [0, 1), and the others
    grow by 1 / (1 - rate) so that the expected value stays.
    """

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if not self.training or self.rate == 0:
            return x
        keep = 1 - self.rate
        kept = torch.rand(len(x), 1, 1, 1, device=x.device) < keep  # [B, 1, 1, 1]
        return x * (kept.to(x.dtype) / keep)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (Hu et al., arXiv 1709.01507, section 3): a gate for each channel.

    [B, C, H, W] -> the same, each channel scaled by a number in (0, 1) that two layers compute from
    the means of all channels.
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


def make_pool(kind):
    """A pooling layer that halves height and width, rounding up as a strided convolution does.

    The mean over the part of a 2x2 window that lies on the image, or the maximum of 3x3.
    """
    if kind == "max":
        return nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
    return nn.AvgPool2d(kernel_size=2, ceil_mode=True)


class Downsample(nn.Module):
    """The shortcut of a block that halves the image, Proj(Pool(x)) (appendix A.1).

    [B, in_channels, H, W] -> [B, out_channels, H/2, W/2], rounded up. Without the projection where
    the channels stay the same.
    """

    def __init__(self, in_channels, out_channels, pool, bias=True):
        super().__init__()
        self.pool = make_pool(pool)
        self.proj = nn.Identity()
        if in_channels != out_channels:
            self.proj = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=bias)

    def forward(self, x):
        return self.proj(self.pool(x))


class MBConv(nn.Module):
    """Inverted bottleneck with squeeze-and-excitation and norm first (section 2.1, appendix A.1).

    x <- Shortcut(x) + Conv(SE(DepthConv(Conv(Norm(x))))), 4 x as wide inside as outside:
    [B, in_channels, H, W] -> [B, out_channels, H/stride, W/stride], rounded up.

    With stride 2 the shortcut is Proj(Pool(x)), otherwise x itself. The paper puts the stride into
    the first 1x1 convolution, which never looks at three pixels of four; timm puts it into the
    depthwise one, or pools (`config.stride_in`). Raises ValueError for stride 1 between different
    numbers of channels.
    """

    def __init__(self, in_channels, out_channels, stride=1, drop_path=0.0, config=PAPER):
        super().__init__()
        hidden = 4 * (out_channels if config.expand_output else in_channels)
        squeezed = (out_channels if config.expand_output else hidden) // 4
        pooled = stride == 2 and config.stride_in == "pool"
        activation = ACTIVATIONS[config.activation]

        self.shortcut = make_shortcut(in_channels, out_channels, stride, config, config.conv_bias)
        self.pre_norm = nn.BatchNorm2d(in_channels)
        self.pre_activation = activation() if config.pre_activation else nn.Identity()
        self.pool = make_pool("avg") if pooled else nn.Identity()
        self.expand = nn.Conv2d(in_channels, hidden, kernel_size=1, bias=False)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(
            hidden,
            hidden,
            kernel_size=3,
            stride=1 if pooled else stride,
            padding=1,
            groups=hidden,
            bias=False,
        )
        self.norm2 = nn.BatchNorm2d(hidden)
        self.activation = activation()
        self.squeeze_excite = SqueezeExcite(hidden, squeezed, config.excite_activation)
        self.excite_before_norm = config.excite_before_norm
        self.project = nn.Conv2d(hidden, out_channels, kernel_size=1, bias=config.conv_bias)
        self.drop_path = DropPath(drop_path)
        init_convolutions(self)

    def forward(self, x):
        shortcut = self.shortcut(x)
        x = self.pool(self.pre_activation(self.pre_norm(x)))
        x = self.activation(self.norm1(self.expand(x)))  # [B, hidden, H, W]
        x = self.depthwise(x)  # [B, hidden, H/stride, W/stride]
        if self.excite_before_norm:
            x = self.activation(self.norm2(self.squeeze_excite(x)))
        else:
            x = self.squeeze_excite(self.activation(self.norm2(x)))
        return shortcut + self.drop_path(self.project(x))


def make_shortcut(in_channels, out_channels, stride, config, bias):
    if stride == 2:
        return Downsample(in_channels, out_channels, config.pool, bias)
    if in_channels != out_channels:
        raise ValueError(
            f"a block of stride 1 keeps its channels, got {in_channels} -> {out_channels}"
        )
    return nn.Identity()


def init_convolutions(module):
    """Draws the weights of stem and MBConv as EfficientNet does: variance 2 / fan-out, biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_out = layer.weight[:, 0].numel() // getattr(layer, "groups", 1)
            nn.init.normal_(layer.weight, std=math.sqrt(2 / fan_out))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def init_transformer(module):
    """Draws the weights of a transformer block as ViT does: Xavier, biases 0 or all but 0."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                in_mlp = "feed_forward" in name or "mlp" in name
                nn.init.normal_(layer.bias, std=1e-6 if in_mlp else 0.0)


def relative_position_index(height, width, device=None):
    """Where in the bias table each pair of pixels looks: [N, N] integers, N = height * width.

    The pair of query (i, j) and key (i', j') shares the entry (i - i' + height - 1,
    j - j' + width - 1) of a table of 2 * height - 1 by 2 * width - 1 (appendix A.1), here counted
    row by row. Pixels are counted row by row too.
    """
    rows = torch.arange(height, device=device).repeat_interleave(width)  # [N]
    columns = torch.arange(width, device=device).repeat(height)  # [N]
    row_offsets = rows[:, None] - rows + height - 1  # [N, N], 0 to 2 * height - 2
    column_offsets = columns[:, None] - columns + width - 1
    return row_offsets * (2 * width - 1) + column_offsets


def interpolation_weights(old, new, device=None):
    """Resamples `old` offsets to `new` ones, both odd: a matrix [new, old] whose rows sum to 1.

    The grid is timm's (`resize_rel_pos_bias_table`, from BEiT): the old offsets 0, 1, 2 ... move to
    0, 1, 1 + q, 1 + q + q^2 ..., with q such that the last one reaches the new border. So what was
    learned for neighbours stays with neighbours, and far offsets are stretched; between two old
    offsets the bias is interpolated linearly. (The paper stretches all offsets alike.)
    """
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        q = (low + high) / 2
        if sum(q**i for i in range(old // 2)) > new // 2:
            high = q
        else:
            low = q
    outward = [sum(q**i for i in range(n)) for n in range(old // 2 + 1)]  # 0, 1, 1 + q, ...
    positions = torch.tensor([-p for p in outward[:0:-1]] + outward, device=device)  # [old]
    targets = torch.arange(new, device=device) - new // 2.0  # [new]
    if old == 1:
        return torch.ones(new, 1, device=device)
    right = torch.searchsorted(positions, targets).clamp(1, old - 1)  # [new]
    left = positions[right - 1]
    share = ((targets - left) / (positions[right] - left)).clamp(0, 1)  # of the right neighbour
    weights = torch.zeros(new, old, device=device)
    weights.scatter_(1, right[:, None], share[:, None])
    return weights.scatter_(1, right[:, None] - 1, 1 - share[:, None])


def resize_table(table, height, width):
    """A bias table [heads, 2h - 1, 2w - 1] for a grid of another size, differentiably."""
    old_rows, old_columns = table.shape[1:]
    rows = interpolation_weights(old_rows, 2 * height - 1, table.device).to(table.dtype)
    columns = interpolation_weights(old_columns, 2 * width - 1, table.device).to(table.dtype)
    return rows @ table @ columns.T  # [heads, 2 * height - 1, 2 * width - 1]


class OffsetBias(nn.Module):
    """What both kinds of relative bias share: from one number an offset to one a pair of pixels.

    (height, width) -> bias [num_heads, N, N], N = height * width, to be added to the attention
    scores before softmax. Any size works; subclasses say in `table_at` what the numbers are. Which
    number a pair of pixels uses is arithmetic and not learned: `index` is a buffer.

    In eval mode without gradients the last bias is kept until a parameter, its type or the size
    changes. (Only writing through `.data` goes unnoticed; `eval()` again clears the memory.)
    """

    def __init__(self, grid_size):
        super().__init__()
        self.grid_size = tuple(grid_size)
        self.register_buffer("index", relative_position_index(*self.grid_size), persistent=False)
        self._kept = None

    def forward(self, height, width):
        if self.training or torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.bias_at(height, width)
        parameters = list(self.parameters())  # kept too, so that no other can take over their ids
        versions = [(id(p), 0 if p.is_inference() else p._version) for p in parameters]
        key = (height, width, versions)
        if self._kept is None or self._kept[0] != key:
            self._kept = (key, parameters, self.bias_at(height, width))
        return self._kept[2]

    def bias_at(self, height, width):
        """The bias [num_heads, N, N], computed afresh and in full precision under autocast."""
        index = self.index
        if (height, width) != self.grid_size:
            index = relative_position_index(height, width, index.device)  # [N, N]
        with torch.autocast(index.device.type, enabled=False):
            table = self.table_at(height, width).flatten(1)  # [num_heads, offsets]
        # index_select: the gradient of table[:, index] is five times as slow on a CPU
        return table.index_select(1, index.flatten()).unflatten(1, index.shape)

    def table_at(self, height, width):
        """One number a head and offset: [num_heads, 2 * height - 1, 2 * width - 1]."""
        raise NotImplementedError

    def train(self, mode=True):
        self._kept = None
        return super().train(mode)

    def _apply(self, fn, recurse=True):  # what .to(), .double(), .cuda() go through
        self._kept = None
        return super()._apply(fn, recurse)


class RelativePositionBias(OffsetBias):
    """A learned number for every head and every offset between two pixels (equation 3, w_{i-j}).

    Follows appendix A.1: a table for each head, made for `grid_size` = (height, width). At another
    size it is interpolated, when it runs and when a checkpoint of another size is loaded.
    """

    def __init__(self, num_heads, grid_size):
        super().__init__(grid_size)
        height, width = self.grid_size
        self.table = nn.Parameter(torch.empty(num_heads, 2 * height - 1, 2 * width - 1))
        nn.init.trunc_normal_(self.table, std=0.02)
        self.register_load_state_dict_pre_hook(fit_loaded_table)

    def table_at(self, height, width):
        if (height, width) == self.grid_size:
            return self.table
        return resize_table(self.table, height, width)


def fit_loaded_table(module, state_dict, prefix, *_):
    """Before loading: brings a table of another size to the size of this one."""
    table = state_dict.get(prefix + "table")
    if table is not None and table.ndim == 3 and table.shape != module.table.shape:
        state_dict[prefix + "table"] = resize_table(table, *module.grid_size)


class RelativePositionMLP(OffsetBias):
    """The bias as a smooth function of the offset, learned by a small MLP: timm's `rmlp` models.

    The offsets enter as sign(d) * log(1 + |d|), so any size works without interpolation. Follows
    timm's `RelPosMlp` in mode "cr", after Swin V2 (arXiv 2111.09883, section 3.3); not in the paper.
    """

    def __init__(self, num_heads, grid_size, hidden):
        super().__init__(grid_size)
        self.mlp = nn.Sequential(
            nn.Linear(2, hidden), nn.ReLU(), nn.Dropout(0.125), nn.Linear(hidden, num_heads)
        )

    def table_at(self, height, width):
        weight = self.mlp[0].weight
        rows = torch.arange(1 - height, height, device=weight.device, dtype=torch.float32)
        columns = torch.arange(1 - width, width, device=weight.device, dtype=torch.float32)
        offsets = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
        offsets = offsets.sign() * offsets.abs().log1p()  # [2 * height - 1, 2 * width - 1, 2]
        return self.mlp(offsets.to(weight.dtype)).permute(2, 0, 1)


class RelativeAttention(nn.Module):
    """Multi-head attention over all pixels, with a bias for their offset (section 2.1, equation 3).

    y_i = sum_j softmax_j(q_i . k_j / sqrt(d) + w_{i-j}) v_j, with d = 32 channels a head:
    [B, in_channels, H, W] -> [B, out_channels, H, W]. With `return_weights=True` also the softmax,
    [B, num_heads, N, N], N = H * W: row i says where pixel i looks, and sums to 1.

    Q, K and V come from one 1x1 convolution, here a linear layer on tokens, its output ordered by
    head and then Q, K, V, as in timm. Raises ValueError unless 32 divides its width.
    """

    def __init__(self, in_channels, out_channels, grid_size, config=PAPER):
        super().__init__()
        width = out_channels if config.attend_output else in_channels
        if width % HEAD_DIM:
            raise ValueError(f"heads of {HEAD_DIM} channels do not divide a width of {width}")
        self.num_heads = width // HEAD_DIM
        self.qkv = nn.Linear(in_channels, 3 * width)
        if config.position_bias == "mlp":
            self.position_bias = RelativePositionMLP(
                self.num_heads, grid_size, config.position_hidden
            )
        else:
            self.position_bias = RelativePositionBias(self.num_heads, grid_size)
        self.dropout = nn.Dropout(config.attention_dropout)
        self.proj = nn.Linear(width, out_channels)
        self.proj_dropout = nn.Dropout(config.projection_dropout)

    def forward(self, x, return_weights=False):
        height, width = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2)  # [B, C, H, W] -> [B, C, N] -> [B, N, C]
        qkv = self.qkv(x).unflatten(-1, (self.num_heads, 3 * HEAD_DIM)).transpose(1, 2)
        q, k, v = qkv.chunk(3, dim=-1)  # each [B, heads, N, d]
        bias = self.position_bias(height, width).to(q.dtype)  # [heads, N, N]
        if return_weights:
            scores = q @ k.transpose(-2, -1) * HEAD_DIM**-0.5 + bias  # [B, heads, N, N]
            weights = scores.softmax(dim=-1)
            x = self.dropout(weights) @ v
        else:  # the same in one kernel
            dropout = self.dropout.p if self.training else 0.0
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None], dropout_p=dropout)
        x = self.proj(x.transpose(1, 2).flatten(2))  # [B, heads, N, d] -> [B, N, out_channels]
        x = self.proj_dropout(x).transpose(1, 2).unflatten(2, (height, width))
        return (x, weights) if return_weights else x


class TransformerBlock(nn.Module):
    """Relative attention, then feed-forward; norm first and a residual around each (appendix A.1).

    x <- Shortcut(x) + Attention(Pool(Norm(x))), x <- x + FeedForward(Norm(x)):
    [B, in_channels, H, W] -> [B, out_channels, H/stride, W/stride], rounded up. `grid_size` is the
    size after the stride.

    With stride 2 the shortcut is Proj(Pool(x)), otherwise x itself and no pooling. timm pools by the
    mean where the paper takes the maximum. Raises ValueError for stride 1 between different numbers
    of channels.
    """

    def __init__(self, in_channels, out_channels, grid_size, stride=1, drop_path=0.0, config=PAPER):
        super().__init__()
        self.shortcut = make_shortcut(
            in_channels, out_channels, stride, config, config.shortcut_bias
        )
        self.norm1 = make_norm(in_channels, config)
        self.pool = make_pool(config.pool) if stride == 2 else nn.Identity()
        self.attention = RelativeAttention(in_channels, out_channels, grid_size, config)
        self.layer_scale1 = make_layer_scale(out_channels, config)
        self.norm2 = make_norm(out_channels, config)
        self.feed_forward = FeedForward2d(
            out_channels, 4 * out_channels, dropout=config.projection_dropout
        )
        self.layer_scale2 = make_layer_scale(out_channels, config)
        self.drop_path = DropPath(drop_path)
        init_transformer(self)

    def forward(self, x):
        attended = self.attention(self.pool(self.norm1(x)))
        x = self.shortcut(x) + self.drop_path(self.layer_scale1(attended))
        return x + self.drop_path(self.layer_scale2(self.feed_forward(self.norm2(x))))

    def attention_weights(self, x):
        """Where each pixel looks, for the block's input x: [B, num_heads, N, N], rows sum to 1."""
        return self.attention(self.pool(self.norm1(x)), return_weights=True)[1]


def make_norm(channels, config):
    norm = {"layer": LayerNorm2d, "batch": nn.BatchNorm2d}[config.norm]
    return norm(channels, eps=1e-6)


def make_layer_scale(channels, config):
    if config.layer_scale is None:
        return nn.Identity()
    return LayerScale(channels, config.layer_scale)


class Stem(nn.Module):
    """S0: two 3x3 convolutions, the first of stride 2 (section 2.2).

    [B, in_channels, H, W] -> [B, stem_widths[1], H/2, W/2], rounded up.
    """

    def __init__(self, in_channels=3, config=PAPER):
        super().__init__()
        width1, width2 = config.stem_widths
        self.conv1 = nn.Conv2d(in_channels, width1, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width1)
        self.activation = ACTIVATIONS[config.activation]()
        self.conv2 = nn.Conv2d(width1, width2, 3, padding=1, bias=False)
        init_convolutions(self)

    def forward(self, x):
        return self.conv2(self.activation(self.norm1(self.conv1(x))))


class Head(nn.Module):
    """Global average pooling and a classifier: [B, C, H, W] -> logits [B, num_classes].

    There is no CLS token (appendix A.1). With `config.mlp_head`, the mean passes a norm and a tanh
    layer first, which timm's `coatnet_N` models have and the paper does not mention.
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
    """The staged model: a convolutional stem, four stages that each halve the image, and a head.

    Float images [B, in_channels, H, W] of at least 32 x 32 -> logits [B, num_classes]. `image_size`,
    a number of pixels or (height, width), is the size whose relative positions the model learns;
    any other size runs too, its bias interpolated. Sizes that 2 does not divide round up.

    Activations lie channels-last in memory, which is the fast layout; nobody needs to ask for it.
    Set `grad_checkpointing = True` to recompute each block in the backward pass instead of storing
    its activations. Follows section 2.2 and appendix A.1, and timm's `MaxxVit` where they differ.

    Raises ValueError for images below 32 x 32 or of another shape, TypeError for integer images.
    """

    def __init__(self, config, num_classes=1000, image_size=224, in_channels=3):
        super().__init__()
        if isinstance(image_size, int):
            image_size = (image_size, image_size)
        if min(image_size) < MIN_SIZE:
            raise ValueError(f"image_size is at least {MIN_SIZE}, got {image_size}")
        self.config = config
        self.in_channels = in_channels
        self.image_size = tuple(image_size)
        self.grad_checkpointing = False

        self.stem = Stem(in_channels, config)
        self.stages = nn.ModuleList()
        drop_paths = torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").tolist()
        channels = config.stem_widths[-1]
        grid_size = halved(self.image_size)
        for depth, width, letters in zip(
            config.depths, config.widths, config.block_types, strict=True
        ):
            grid_size = halved(grid_size)
            letters = letters.ljust(depth, letters[-1])
            stage = nn.Sequential()
            for letter in letters[:depth]:
                options = {
                    "stride": 1 if stage else 2,
                    "drop_path": drop_paths.pop(0),
                    "config": config,
                }
                if letter == "C":
                    stage.append(MBConv(channels, width, **options))
                else:
                    stage.append(TransformerBlock(channels, width, grid_size, **options))
                channels = width
            self.stages.append(stage)
        # With a hidden layer in the head, the norm is in there, after the pooling
        self.norm = nn.Identity() if config.mlp_head else make_norm(channels, config)
        self.head = Head(channels, num_classes, config)
        self.to(memory_format=torch.channels_last)

    def forward(self, images):
        return self.head(self.forward_features(images))

    def forward_features(self, images):
        """The last feature map, as the head gets it: [B, widths[-1], H/32, W/32]."""
        return self.norm(self.features(images)[-1])

    def features(self, images):
        """The feature maps of stem and stages, S0 to S4: a list of [B, C, H/s, W/s], s = 2 to 32."""
        maps = [self.stem(self.prepare(images))]
        for stage in self.stages:
            x = maps[-1]
            for block in stage:
                x = self.run(block, x)
            maps.append(x)
        return maps

    def attention_maps(self, images):
        """Where each pixel looks: {"stages.2.0": [B, heads, H, W, H, W], ...}, one a transformer.

        H x W is that block's grid. `maps[name][0, head, i, j]` is a picture: the attention which the
        token at row i, column j pays to every token. It sums to 1.
        """
        maps = {}
        x = self.stem(self.prepare(images))
        for s, stage in enumerate(self.stages):
            for b, block in enumerate(stage):
                inputs, x = x, block(x)
                if isinstance(block, TransformerBlock):
                    grid_size = tuple(x.shape[-2:])
                    weights = block.attention_weights(inputs)  # [B, heads, N, N]
                    maps[f"stages.{s}.{b}"] = weights.unflatten(3, grid_size).unflatten(
                        2, grid_size
                    )
        return maps

    def prepare(self, images):
        """Checks a batch of images, and lays it channels-last in memory."""
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise ValueError(
                f"expected images [B, {self.in_channels}, H, W], got {list(images.shape)}"
            )
        if not images.is_floating_point():
            raise TypeError(
                f"expected floating point images, got {images.dtype}: "
                "convert them, divide by 255 and normalise"
            )
        if min(images.shape[-2:]) < MIN_SIZE:
            raise ValueError(
                f"expected images of at least {MIN_SIZE} x {MIN_SIZE} pixels, "
                f"got {images.shape[-2]} x {images.shape[-1]}: five halvings need them"
            )
        return images.contiguous(memory_format=torch.channels_last)

    def run(self, block, x):
        if self.grad_checkpointing and self.training:
            return checkpoint(
                block,
                x,
                use_reentrant=False,
                context_fn=lambda: (nullcontext(), without_statistics(block)),
            )
        return block(x)

    def reset_classifier(self, num_classes):
        """Replaces the last layer by a fresh one for another number of classes."""
        old = self.head.classifier
        self.head.classifier = nn.Linear(
            old.in_features, num_classes, device=old.weight.device, dtype=old.weight.dtype
        )

    def parameter_groups(self, weight_decay=0.05):
        """Two groups for an optimiser: norms, biases and relative positions get no weight decay."""
        positions = {
            id(p) for m in self.modules() if isinstance(m, OffsetBias) for p in m.parameters()
        }
        decay, no_decay = [], []
        for parameter in self.parameters():
            exempt = parameter.ndim < 2 or id(parameter) in positions
            (no_decay if exempt else decay).append(parameter)
        return [
            {"params": decay, "weight_decay": weight_decay},
            {"params": no_decay, "weight_decay": 0.0},
        ]


MIN_SIZE = 32


def halved(size):
    """Height and width after a layer of stride 2: half, rounded up."""
    return tuple((length + 1) // 2 for length in size)


@contextmanager
def without_statistics(block):
    """While a checkpointed block runs for the second time, a batch must not count twice."""
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


# The family. The paper's sizes (table 3) share one set of options; timm's own `_rw` models vary them.
SIZES = {
    "pico": {"widths": (64, 128, 256, 512), "stem_widths": (32, 64)},
    "nano": {"depths": (3, 4, 6, 3), "widths": (64, 128, 256, 512), "stem_widths": (32, 64)},
    "0": {"depths": (2, 3, 5, 2), "widths": (96, 192, 384, 768), "stem_widths": (64, 64)},
    "1": {"depths": (2, 6, 14, 2), "widths": (96, 192, 384, 768), "stem_widths": (64, 64)},
    "2": {"depths": (2, 6, 14, 2), "widths": (128, 256, 512, 1024), "stem_widths": (128, 128)},
    "3": {"depths": (2, 6, 14, 2), "widths": (192, 384, 768, 1536), "stem_widths": (192, 192)},
    "4": {"depths": (2, 12, 28, 2), "widths": (192, 384, 768, 1536), "stem_widths": (192, 192)},
    "5": {"depths": (2, 12, 28, 2), "widths": (256, 512, 1280, 2048), "stem_widths": (192, 192)},
    "0_rw": {"depths": (2, 3, 7, 2), "stem_widths": (32, 64)},
    "1_rw": {"depths": (2, 6, 14, 2), "stem_widths": (32, 64)},
    "2_rw": {
        "depths": (2, 6, 14, 2),
        "widths": (128, 256, 512, 1024),
        "stem_widths": (64, 128),
        "excite_activation": "silu",
    },
    "3_rw": {
        "depths": (2, 6, 14, 2),
        "widths": (192, 384, 768, 1536),
        "stem_widths": (96, 192),
        "excite_activation": "silu",
    },
}
NARROW = replace(PAPER, mlp_head=False, activation="silu", expand_output=False, attend_output=False)
WIDE = replace(NARROW, pre_activation=True, conv_bias=False, excite_activation="relu")
POOLED = {"stride_in": "pool"}
EARLY = {"excite_before_norm": True, "shortcut_bias": False}
MLP = {"position_bias": "mlp"}
SCALED = {"layer_scale": 1e-6}
CONFIGS = {
    **{f"coatnet_{n}_224": replace(PAPER, **SIZES[n]) for n in "012345"},
    "coatnet_pico_rw_224": replace(NARROW, **SIZES["pico"]),
    "coatnet_nano_rw_224": replace(NARROW, **SIZES["nano"], **POOLED),
    "coatnet_rmlp_nano_rw_224": replace(NARROW, **SIZES["nano"], **MLP, position_hidden=384),
    "coatnet_nano_cc_224": replace(
        WIDE, **SIZES["nano"], **POOLED, block_types=("C", "C", "CT", "CT")
    ),
    "coatnet_0_rw_224": replace(WIDE, **SIZES["0_rw"], **EARLY, **POOLED),
    "coatnet_bn_0_rw_224": replace(WIDE, **SIZES["0_rw"], **EARLY, norm="batch"),
    "coatnet_rmlp_0_rw_224": replace(WIDE, **SIZES["0_rw"], **MLP),
    "coatnet_1_rw_224": replace(WIDE, **SIZES["1_rw"], **EARLY),
    "coatnet_rmlp_1_rw_224": replace(
        WIDE, **SIZES["1_rw"], **EARLY, **POOLED, **MLP, position_hidden=384, pool="max"
    ),
    "coatnet_rmlp_1_rw2_224": replace(WIDE, **SIZES["1_rw"], **MLP),
    "coatnet_2_rw_224": replace(WIDE, **SIZES["2_rw"]),
    "coatnet_rmlp_2_rw_224": replace(WIDE, **SIZES["2_rw"], **MLP, **SCALED),
    "coatnet_rmlp_2_rw_384": replace(WIDE, **SIZES["2_rw"], **MLP, **SCALED),
    "coatnet_3_rw_224": replace(WIDE, **SIZES["3_rw"], **SCALED),
    "coatnet_rmlp_3_rw_224": replace(WIDE, **SIZES["3_rw"], **MLP, **SCALED),
}


def list_models():
    """The names that `create_model` knows: those of `timm.list_models("coatnet_*")`."""
    return sorted(CONFIGS)


def get_config(name):
    """The configuration of a model by name. Raises ValueError for a name that it does not know."""
    if name in CONFIGS:
        return CONFIGS[name]
    near = get_close_matches(name, CONFIGS, n=3, cutoff=0.5) or list_models()
    raise ValueError(f"no model is called {name!r}; did you mean {', '.join(near)}?")


def create_model(
    name, num_classes=1000, image_size=224, pretrained=False, in_channels=3, **options
):
    """A CoAtNet by its timm name, such as "coatnet_0_224"; `list_models()` has them all.

    `options` replace fields of its `CoAtNetConfig`, for example drop_path=0.2. With
    `pretrained=True`, timm fetches its ImageNet weights; for other numbers of classes or channels
    it adapts them as always, and for another `image_size` the bias tables are interpolated.

    Raises ValueError for an unknown name, and with `pretrained=True` for one without published
    weights; ConnectionError without network.
    """
    config = replace(get_config(name), **options)
    model = CoAtNet(config, num_classes, image_size, in_channels)
    if pretrained:
        timm_model = fetch(name, num_classes=num_classes, in_chans=in_channels)
        model.load_state_dict(from_timm(timm_model).state_dict())
    return model


def fetch(name, **options):
    """timm's model with its published weights. Raises as `create_model` does."""
    import timm
    from huggingface_hub import constants, try_to_load_from_cache

    published = sorted({full.split(".")[0] for full in timm.list_pretrained("coatnet_*")})
    if name not in published:
        raise ValueError(
            f"there are no published weights for {name}; there are for {', '.join(published)}"
        )
    try:
        # Asked first, because without network the hub's client would retry for a minute
        repository = timm.get_pretrained_cfg(name).hf_hub_id
        if not try_to_load_from_cache(repository, "model.safetensors"):
            with suppress(HTTPError):  # any answer will do
                urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=10)
        return timm.create_model(name, pretrained=True, **options)
    except OSError as error:
        raise ConnectionError(
            f"could not fetch the weights of {name}, is there a network? ({error})"
        ) from None


# timm's names in ours, replaced from top to bottom
TIMM_NAMES = {
    ".blocks.": ".",
    ".attn.rel_pos.relative_position_bias_table": ".attention.position_bias.table",
    ".attn.rel_pos.mlp.fc1.": ".attention.position_bias.mlp.0.",
    ".attn.rel_pos.mlp.fc2.": ".attention.position_bias.mlp.3.",
    ".attn.": ".attention.",
    ".mlp.fc1.": ".feed_forward.net.0.",
    ".mlp.fc2.": ".feed_forward.net.3.",
    ".norm1.norm.": ".norm1.",
    ".ls1.gamma": ".layer_scale1.scale",
    ".ls2.gamma": ".layer_scale2.scale",
    ".shortcut.expand.": ".shortcut.proj.",
    ".conv1_1x1.": ".expand.",
    ".conv2_kxk.": ".depthwise.",
    ".conv3_1x1.": ".project.",
    ".se_early.": ".se.",
    ".se.fc1.": ".squeeze_excite.squeeze.",
    ".se.fc2.": ".squeeze_excite.excite.",
    "head.pre_logits.fc.": "head.hidden.",
    "head.fc.": "head.classifier.",
}


def from_timm(timm_model):
    """A CoAtNet with the weights of a timm one, on its device and in its type and mode.

    The model comes from `timm.create_model("coatnet_...")`, with any `img_size`, `in_chans`,
    `num_classes`, `depths`, `embed_dim` or `stem_width`. Raises ValueError for other models.
    """
    name = (getattr(timm_model, "pretrained_cfg", None) or {}).get("architecture", "")
    stem = timm_model.stem
    config = replace(
        get_config(name),
        depths=tuple(len(stage.blocks) for stage in timm_model.stages),
        widths=tuple(info["num_chs"] for info in timm_model.feature_info[1:]),
        stem_widths=(stem.conv1.out_channels, stem.conv2.out_channels),
    )
    model = CoAtNet(config, timm_model.num_classes, tuple(timm_model.img_size), timm_model.in_chans)
    model.to(stem.conv1.weight).train(timm_model.training)

    ours = model.state_dict()
    weights = {}
    for key, value in timm_model.state_dict().items():
        for timm_name, our_name in TIMM_NAMES.items():
            key = key.replace(timm_name, our_name)
        if key.endswith("position_bias.table"):
            value = value.T  # [offsets, heads] -> [heads, offsets]
        weights[key] = value.reshape(ours[key].shape)  # 1x1 convolutions become linear layers
    model.load_state_dict(weights)
    return model
