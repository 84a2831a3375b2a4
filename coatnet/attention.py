"""Relative attention and the transformer block, which lesson 4 rebuilds.

Shapes: B images, N = H * W tokens, d channels a head. Sizes may be symbols (torch.export), and what
`fx.wrap` marks is one step to torch.fx, which can't look into conditions.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from coatnet.config import PAPER, CoAtNetConfig
from coatnet.layers import (
    DropPath,
    FeedForward2d,
    LayerScale,
    init_transformer,
    make_norm,
    make_pool,
    make_shortcut,
)

HEAD_DIM = PAPER.head_dim  # 32 channels a head: table 3, and all of timm's models


def relative_position_index(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Which entry of the bias table each pair of pixels uses: integers [N, N], N = height * width.

    Query (i, j) and key (i', j') use entry (i - i' + height - 1, j - j' + width - 1) of a table of
    2 * height - 1 by 2 * width - 1 (appendix A.1). Pixels and entries are counted row by row.
    """
    pixels = torch.arange(height * width, device=device)  # [N]
    rows = pixels // width
    columns = pixels - rows * width  # `%` by an open width has no place in ONNX
    row_offsets = rows[:, None] - rows + height - 1  # [N, N]
    column_offsets = columns[:, None] - columns + width - 1  # [N, N]
    return row_offsets * (2 * width - 1) + column_offsets


@fx.wrap
def resize_table(table: Tensor, height: int, width: int) -> Tensor:
    """A bias table [heads, 2h - 1, 2w - 1] for a grid of another size, differentiably."""
    (old_height, old_width), new_height, new_width = table.shape[1:], 2 * height - 1, 2 * width - 1
    if isinstance(height, int) and (old_height, old_width) == (new_height, new_width):
        return table
    new_size = torch.stack([torch.scalar_tensor(n, device="cpu") for n in (new_height, new_width)])
    same = (new_size == torch.tensor([old_height, old_width], device="cpu")).all()
    rows = interpolation_weights(old_height, new_height, same).to(table)
    columns = interpolation_weights(old_width, new_width, same).to(table)
    rows, columns = (weights.expand(len(table), -1, -1) for weights in (rows, columns.T))
    return rows.bmm(table).bmm(columns)  # [heads, 2 * height - 1, 2 * width - 1]


def interpolation_weights(old: int, new: int, same: Tensor) -> Tensor:
    """The matrix [new, old] that interpolates `new` offsets from `old` ones, both odd numbers.

    As in timm's `resize_rel_pos_bias_table`, after BEiT: old offsets 0, 1, 2, 3 ... come to lie at
    0, 1, 1 + q, 1 + q + q^2 ..., with q from 1.01 to 1.5 such that the last is at the new border.
    So neighbours keep what they learned, and only far offsets are stretched. In between it is
    linear, and beyond the last offset constant. (The paper stretches all offsets alike.) Where the
    grid is the `same`, q is 1: torch.export can't ask for it beforehand.
    """
    exact: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
    targets = torch.arange(new, **exact) - new // 2  # [new]
    powers, border = torch.arange(old // 2, **exact), targets[-1]
    q = torch.full((), 1.01, **exact)
    for step in (0.49 / 2**9, 0.49 / 2**18):  # where timm's bisection ends: a coarse, a fine search
        candidates = q + step * torch.arange(1, 2**9, **exact)
        q = q + step * ((candidates[:, None] ** powers).sum(1) <= border).sum()
    q = torch.where(same, 1.0, q + step / 2)
    outward = (q**powers).cumsum(0)  # 1, 1 + q, ...
    positions = torch.cat([-outward.flip(0), q.new_zeros(1), outward])  # [old]
    passed = (targets[:, None] - positions[:-1]) / positions.diff()  # [new, old - 1]
    passed = passed.clamp(0, 1)  # how far each target is on its way from one position to the next
    return F.pad(passed, (1, 0), value=1.0) - F.pad(passed, (0, 1), value=0.0)


@fx.wrap
def look_up(table: Tensor, index: Tensor, grid_size: tuple, height: int, width: int) -> Tensor:
    """The entries of a table [heads, 2 * height - 1, 2 * width - 1] by pixels: [heads, N, N]."""
    if not isinstance(height, int) or (height, width) != grid_size:
        index = relative_position_index(height, width, index.device)
    # The same as table.flatten(1)[:, index], with a gradient five times as fast on a CPU
    return table.flatten(1).index_select(1, index.flatten()).unflatten(1, index.shape)


class RelativePositionBias(nn.Module):
    """A learned number for every head and every offset of two pixels, w_{i-j} (equation 3).

    (height, width) -> bias [num_heads, N, N], N = height * width, to be added to the scores before
    softmax. Each head has a table [2 * height - 1, 2 * width - 1], made for `grid_size` = (height,
    width) as in appendix A.1, interpolated for other sizes and for checkpoints of other sizes.
    Which entry a pair of pixels uses is arithmetic and not learned: `index` is a buffer.
    """

    index: Tensor

    def __init__(self, num_heads: int, grid_size: tuple[int, int]):
        super().__init__()
        height, width = self.grid_size = tuple(grid_size)
        self.register_buffer("index", relative_position_index(height, width), persistent=False)
        self.table = nn.Parameter(torch.empty(num_heads, 2 * height - 1, 2 * width - 1))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, height: int, width: int) -> Tensor:
        table = resize_table(self.table, height, width)
        return look_up(table, self.index, self.grid_size, height, width)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        table = state_dict.get(prefix + "table")
        if table is not None and self.table is not None and table.shape != self.table.shape:
            state_dict[prefix + "table"] = resize_table(table, *self.grid_size)
        super()._load_from_state_dict(state_dict, prefix, *args)


class RelativePositionMLP(RelativePositionBias):
    """The same with a small MLP of the offset in place of the table, good for every size.

    Offsets enter as sign(d) * log(1 + |d|). Not in the paper; follows timm's `RelPosMlp` in mode
    "cr", after Swin V2 (arXiv 2111.09883).
    """

    def __init__(self, num_heads: int, grid_size: tuple[int, int], hidden: int):
        super().__init__(num_heads, grid_size)
        self.register_parameter("table", None)
        self.mlp = nn.Sequential(
            nn.Linear(2, hidden), nn.ReLU(), nn.Dropout(0.125), nn.Linear(hidden, num_heads)
        )

    def forward(self, height: int, width: int) -> Tensor:
        offsets = log_offsets(height, width, self.mlp[0].weight)
        table = self.mlp(offsets).permute(2, 0, 1)
        return look_up(table, self.index, self.grid_size, height, width)


@fx.wrap
def log_offsets(height: int, width: int, like: Any) -> Tensor:
    """What the MLP gets: [2 * height - 1, 2 * width - 1, 2], of the type of `like`."""
    rows, columns = (torch.arange(1 - n, n, device=like.device) for n in (height, width))
    offsets = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).float()
    return (offsets.sign() * offsets.abs().log1p()).to(like.dtype)


class RelativeAttention(nn.Module):
    """Multi-head attention with a bias for the offset between two pixels (equation 3):

        y_i = sum_j softmax_j(q_i . k_j / sqrt(d) + w_{i-j}) v_j

    That is its second form, the bias inside the softmax; Q, K, V and the root the paper leaves out
    of it (footnote 2). d is `config.head_dim`: 32 in table 3, 64 in CoAtNet-5 where timm has 32.

    [B, in_channels, H, W] -> [B, out_channels, H, W]. With `return_weights=True` also the softmax
    [B, num_heads, N, N], rows sum to 1. Channels of `qkv` are [q, k, v] head by head, as in timm.

    Raises ValueError where d does not divide the width.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        grid_size: tuple[int, int],
        config: CoAtNetConfig = PAPER,
    ):
        super().__init__()
        width = out_channels if config.attend_output else in_channels
        self.head_dim = config.head_dim
        if width % self.head_dim:
            raise ValueError(f"attention of width {width} has no heads of {self.head_dim} channels")
        self.num_heads = width // self.head_dim
        self.qkv = nn.Conv2d(in_channels, 3 * width, 1)
        self.position_bias: nn.Module
        if config.position_bias == "mlp":
            self.position_bias = RelativePositionMLP(
                self.num_heads, grid_size, config.position_hidden
            )
        else:
            self.position_bias = RelativePositionBias(self.num_heads, grid_size)
        self.dropout = config.attention_dropout
        self.proj = nn.Conv2d(width, out_channels, 1)
        self.proj_dropout = nn.Dropout(config.projection_dropout)

    def forward(self, x: Tensor, return_weights: bool = False) -> Any:
        height, width = grid_of(x)
        qkv = self.qkv(x).flatten(2).unflatten(1, (self.num_heads, 3 * self.head_dim))
        q, k, v = qkv.transpose(2, 3).chunk(3, dim=-1)  # each [B, heads, N, d]
        bias = self.position_bias(height, width).to(q.dtype)  # [heads, N, N]
        dropout = self.dropout if self.training else 0.0
        x, weights = attend(q, k, v, bias, dropout, self.training, return_weights)
        x = torch.cat(x.unbind(1), dim=-1)  # [B, N, heads * d]
        x = x.transpose(1, 2).unflatten(2, (height, width))  # [B, heads * d, H, W]
        x = self.proj_dropout(self.proj(x))  # [B, out_channels, H, W]
        return (x, weights) if return_weights else x


@fx.wrap
def grid_of(x: Tensor) -> tuple[int, int]:
    """Height and width: numbers, or symbols where torch.export leaves them open."""
    height, width = (n if isinstance(n, torch.SymInt) else int(n) for n in x.shape[-2:])
    return height, width


@fx.wrap
def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor,
    dropout: float,
    training: bool,
    return_weights: bool,
) -> tuple[Tensor, Tensor | None]:
    """softmax(q k^T / sqrt(d) + bias) v [B, heads, N, d], and the softmax, or None if not asked."""
    # On a CPU the fused kernel has no gradient for the bias, and PyTorch's way around that is
    # slower than the equation written out.
    if not return_weights and not (training and bias.device.type == "cpu"):
        return F.scaled_dot_product_attention(q, k, v, bias[None], dropout_p=dropout), None
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1) + bias  # [B, heads, N, N]
    weights = scores.softmax(dim=-1)
    return F.dropout(weights, dropout) @ v, weights


class TransformerBlock(nn.Module):
    """Relative attention and feed-forward layers, norm first (appendix A.1):

        x <- Shortcut(x) + Attention(Pool(Norm(x)))
        x <- x + FeedForward(Norm(x))

    [B, in_channels, H, W] -> [B, out_channels, H/stride, W/stride], rounded up; `grid_size` is the
    (height, width) that comes out. With stride 2 the shortcut is Proj(Pool(x)), otherwise x, and
    nothing is pooled. The paper pools by maximum, timm by mean.

    Raises ValueError for stride 1 between different numbers of channels, unless `config.widens`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        grid_size: tuple[int, int],
        stride: int = 1,
        drop_path: float = 0.0,
        config: CoAtNetConfig = PAPER,
    ):
        super().__init__()
        self.shortcut = make_shortcut(
            in_channels, out_channels, stride, config.pool, config.shortcut_bias, config.widens
        )
        self.norm1 = make_norm(in_channels, config)
        self.pool = make_pool(config.pool) if stride == 2 else nn.Identity()
        self.attention = RelativeAttention(in_channels, out_channels, grid_size, config)
        self.norm2 = make_norm(out_channels, config)
        self.feed_forward = FeedForward2d(out_channels, config.projection_dropout)
        self.layer_scale1: nn.Module = nn.Identity()
        self.layer_scale2: nn.Module = nn.Identity()
        if config.layer_scale is not None:
            self.layer_scale1 = LayerScale(out_channels, config.layer_scale)
            self.layer_scale2 = LayerScale(out_channels, config.layer_scale)
        self.drop_path = DropPath(drop_path)
        init_transformer(self)

    def forward(self, x: Tensor) -> Tensor:
        attended = self.attention(self.pool(self.norm1(x)))
        x = self.shortcut(x) + self.drop_path(self.layer_scale1(attended))
        return x + self.drop_path(self.layer_scale2(self.feed_forward(self.norm2(x))))

    def attention_weights(self, x: Tensor) -> Tensor:
        """Where each pixel looks, given the block's input: [B, num_heads, N, N], rows sum to 1."""
        return self.attention(self.pool(self.norm1(x)), return_weights=True)[1]
