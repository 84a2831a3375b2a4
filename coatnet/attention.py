"""Relative attention and the transformer block, which lesson 4 rebuilds.

Shapes: B images, N = H * W tokens, d channels a head.
"""

import torch
import torch.nn.functional as F
from torch import nn

from coatnet.config import PAPER
from coatnet.layers import (
    DropPath,
    FeedForward2d,
    LayerScale,
    Linear2d,
    init_transformer,
    make_norm,
    make_pool,
    make_shortcut,
)

HEAD_DIM = 32  # channels a head, in all models (table 3)


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
