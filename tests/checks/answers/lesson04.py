"""Lesson 4: wrong answers with what their message says, and right ones in other styles."""

SPLIT = "x = x.unflatten(1, (self.num_heads, 3 * self.head_dim))"
INDEX = "return row_offsets * (2 * width - 1) + column_offsets"
LOOKUP = "self.table.flatten(1)[:, self.index]"
TABLE = "torch.empty(num_heads, 2 * height - 1, 2 * width - 1)"
BUFFER = 'self.register_buffer("index", relative_position_index(height, width))'
SCALE = " * q.shape[-1] ** -0.5"
FUSED = "F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])"
MERGE = "y = y.transpose(2, 3).flatten(1, 2)"
FIRST = "x = self.shortcut(x) + self.attention(self.pool(self.norm1(x)))"
SECOND = "return x + self.feed_forward(self.norm2(x))"
PROJECT = "self.shortcut.append(nn.Conv2d(in_channels, out_channels, 1))"
BRANCH_POOL = "self.pool = nn.AvgPool2d(2, ceil_mode=True)"
SHORT_POOL = "self.shortcut.append(nn.AvgPool2d(2, ceil_mode=True))"
WRONG = [
    # exercise, text of the solution, what stands there instead, what the message says
    ("qkv", "kernel_size=1", "kernel_size=3, padding=1", "kernel is 3x3"),
    ("qkv", "kernel_size=1", "kernel_size=1, bias=False", "no bias"),
    ("qkv", "3 * num_heads * head_dim,", "3 * in_channels,", "width is 3 * in_channels"),
    ("qkv", "3 * num_heads * head_dim,", "num_heads * head_dim,", "three times as many channels"),
    ("qkv", SPLIT, "x = x.unflatten(1, (3, self.num_heads, self.head_dim)).transpose(1, 2).flatten(2, 3)", "all of q comes first"),
    ("qkv", SPLIT, "x = x.unflatten(1, (3 * self.head_dim, self.num_heads)).transpose(1, 2)", "interleaved"),
    ("qkv", "dim=-1)\n        return q, k, v", "dim=-1)\n        return k, q, v", "q and k are swapped"),
    ("qkv", "dim=-1)\n        return q, k, v", "dim=-1)\n        return q, v, k", "k and v are swapped"),
    ("qkv", "dim=-1)\n        return q, k, v", "dim=-1)\n        return q, k", "3 tensors"),
    ("qkv", "dim=-1)\n        return q, k, v", "dim=-1)\n        return q * 0.5, k, v", "scaled already"),
    ("qkv", "self.conv(x).flatten(2)", "self.conv(x).transpose(2, 3).flatten(2)", "column by column"),
    ("qkv", "x = x.transpose(2, 3)", "x = x.reshape(*x.shape[:2], x.shape[3], x.shape[2])", "mixes pixels"),
    ("qkv", "x = x.transpose(2, 3)", "x = x.permute(0, 3, 1, 2)", "heads come before tokens"),
    ("qkv", "x.chunk(3, dim=-1)", "x.transpose(2, 3).chunk(3, dim=2)", "tokens come before channels"),
    ("position-index", "rows[:, None] - rows[None, :]", "rows[None, :] - rows[:, None]", "row offsets are key minus query"),
    ("position-index", INDEX, f"return ({INDEX[7:]}).T", "query and key are swapped"),
    ("position-index", "(2 * width - 1)", "(2 * height - 1)", "height and width are swapped"),
    ("position-index", "(2 * width - 1)", "width", "not `width`"),
    ("position-index", "(2 * width - 1)", "2 * width", "not 2 * width"),
    ("position-index", " + height - 1", "", "row offsets are not shifted"),
    ("position-index", " + width - 1", "", "column offsets are not shifted"),
    ("position-index", INDEX, "return column_offsets * (2 * height - 1) + row_offsets", "rows and columns are swapped"),
    ("position-index", INDEX, INDEX.replace("row_offsets", "row_offsets.view(height, width, height, width)", 1).replace("+ column_offsets", "+ column_offsets.view(height, width, height, width)"), "flatten both grids"),
    ("position-index", INDEX, INDEX.replace("return ", "return 1.0 * "), "integer"),
    ("position-index", "rows[:, None] - rows[None, :]", "(rows[:, None] - rows[None, :]).abs()", "differ"),
    ("position-bias", TABLE, "torch.empty(1, 2 * height - 1, 2 * width - 1)", "one bias for all heads"),
    ("position-bias", TABLE, "torch.empty(num_heads, height, width)", "there are 2 * height - 1 by"),
    ("position-bias", TABLE, "torch.empty(num_heads, 2 * height, 2 * width)", "one row and one column too many"),
    ("position-bias", TABLE, "torch.empty(num_heads, height * width, height * width)", "not relative"),
    ("position-bias", BUFFER, "self.index = nn.Parameter(relative_position_index(height, width).float())", "index is a parameter"),
    ("position-bias", BUFFER, "self.index = relative_position_index(height, width)", "moves to the GPU"),
    ("position-bias", LOOKUP, LOOKUP + ".permute(1, 2, 0)", "heads come last"),
    ("position-bias", LOOKUP, LOOKUP + ".mT", "queries and keys are swapped"),
    ("position-bias", LOOKUP, "self.table.mT.flatten(1)[:, self.index]", "column by column"),
    ("position-bias", LOOKUP, LOOKUP + ".softmax(-1)", "softmax has no place"),
    ("position-bias", LOOKUP, LOOKUP + "[:1].expand(len(self.table), -1, -1)", "the first one's table"),
    ("attention-written-out", SCALE, "", "not scaled"),
    ("attention-written-out", SCALE, " / q.shape[-1]", "its square root"),
    ("attention-written-out", SCALE, " * (q.shape[1] * q.shape[-1]) ** -0.5", "width of the model"),
    ("attention-written-out", SCALE, " * q.shape[-2] ** -0.5", "number of tokens"),
    ("attention-written-out", "dim=-1", "dim=-2", "softmax runs over the queries"),
    ("attention-written-out", "dim=-1", "dim=1", "softmax runs over the heads"),
    ("attention-written-out", "(scores + bias).softmax(dim=-1)", "scores.softmax(dim=-1) + bias", "after the softmax"),
    ("attention-written-out", "(scores + bias)", "scores", "never added"),
    ("attention-written-out", "(scores + bias)", "(scores - bias)", "subtracted"),
    ("attention-written-out", "(scores + bias)", "(scores * bias)", "multiplied"),
    ("attention-written-out", "(scores + bias)", "(scores + bias.mT)", "bias is transposed"),
    ("attention-written-out", "(scores + bias)", "(scores + bias[:1])", "one head's bias"),
    ("attention-written-out", "weights @ v", "weights.mT @ v", "weights are transposed"),
    ("attention-written-out", "weights @ v", "weights @ k", "k stands where v"),
    ("attention-written-out", "weights @ v", "(weights @ v).transpose(1, 2).flatten(2)", "heads are merged"),
    ("attention-fused", FUSED, "F.scaled_dot_product_attention(q, k, v)", "never added"),
    ("attention-fused", FUSED, FUSED.replace("attn_mask=bias[None]", "is_causal=True"), "differ"),
    ("attention-fused", FUSED, FUSED.replace("bias[None]", "bias[None] > 0"), "made a mask"),
    ("attention-fused", FUSED, FUSED.replace("bias[None]", "bias[None], scale=1.0"), "not scaled"),
    ("attention-fused", FUSED, FUSED.replace("(q,", "(q * q.shape[-1] ** -0.5,"), "scaled"),
    ("attention-fused", FUSED, FUSED.replace("bias[None]", "bias[None] * q.shape[-1] ** -0.5"), "scaled together"),
    ("attention-fused", FUSED, FUSED.replace("bias[None]", "bias[None].mT"), "bias is transposed"),
    ("attention-fused", FUSED, "relative_attention(q, k, v, bias)", "fused kernel"),
    ("attention-module", "        self.proj = nn.Conv2d(out_channels, out_channels, kernel_size=1)\n", "        self.proj = nn.Identity()\n", "projection after the heads"),
    ("attention-module", "num_heads = out_channels", "num_heads = in_channels", "missing"),
    ("attention-module", MERGE, "y = y.permute(0, 3, 1, 2).flatten(1, 2)", "interleaved"),
    ("attention-module", MERGE, "y = y.reshape(len(y), -1, y.shape[2])", "mixes tokens"),
    ("attention-module", "self.bias())", "0 * self.bias())", "never added"),
    ("attention-module", "return self.proj(y.unflatten(2, x.shape[2:]))", "return y.unflatten(2, x.shape[2:])", "projection is never applied"),
    ("attention-module", "return self.proj(y.unflatten(2, x.shape[2:]))", "y = self.proj(y.unflatten(2, x.shape[2:]))\n        return x + y", "shortcut is added"),
    ("transformer-block", FIRST, FIRST.replace("self.shortcut(x) + ", ""), "shortcut around the attention"),
    ("transformer-block", FIRST, FIRST.replace("self.norm1(x)", "x"), "the attention gets what is not normalised"),
    ("transformer-block", FIRST, FIRST.replace("self.pool(self.norm1(x))", "self.norm1(self.pool(x))"), "norm first, then pool"),
    ("transformer-block", FIRST, FIRST.replace("self.shortcut(x)", "self.shortcut(self.norm1(x))"), "starts behind the norm"),
    ("transformer-block", SECOND, SECOND.replace("x + ", ""), "around the feed-forward"),
    ("transformer-block", SECOND, SECOND.replace("self.norm2(x)", "x"), "feed-forward layers get what is not"),
    ("transformer-block", SECOND, "return x + self.norm2(self.feed_forward(x))", "second norm stands behind the feed"),
    ("transformer-block", SECOND, "return self.norm2(x + self.feed_forward(x))", "behind the sum"),
    ("transformer-block", SECOND, "return x", "never run"),
    ("transformer-block", PROJECT, "pass", "projection is missing"),
    ("transformer-block", PROJECT, PROJECT.replace(", 1))", ", 1, bias=False))"), "no bias"),
    ("transformer-block", BRANCH_POOL, "self.pool = nn.MaxPool2d(2, ceil_mode=True)", "branch pools by maximum"),
    ("transformer-block", SHORT_POOL, "self.shortcut.append(nn.MaxPool2d(2, ceil_mode=True))", "shortcut pools by maximum"),
    ("transformer-block", SHORT_POOL, "self.shortcut.append(nn.AvgPool2d(2))", "ceil_mode=True"),
    ("transformer-block", BRANCH_POOL, "pass", "both pool"),
    ("transformer-block", "LayerNorm2d(in_channels, eps=1e-6)", "nn.GroupNorm(1, in_channels)", "differ"),
    ("transformer-block", "self.feed_forward = FeedForward2d(out_channels)", "self.feed_forward = nn.Identity()", "feed-forward layers are missing"),
    ("transformer-block", "self.norm1 = LayerNorm2d(in_channels, eps=1e-6)", "self.norm1 = nn.Identity()", "norm before the attention"),
    ("position-bias", "nn.init.trunc_normal_(self.table, std=0.02)", "pass", "torch.empty only reserves memory"),
    ("position-bias", "(num_heads, 2 * height - 1, 2 * width - 1)", "(2 * height - 1, num_heads, 2 * width - 1)", "shape [5, 12, 12]"),
    ("transformer-block", "self.norm1 = LayerNorm2d(in_channels, eps=1e-6)", "self.norm1 = LayerNorm2d(in_channels)", "eps=1e-06"),
    ("transformer-block", "if in_channels != out_channels:", "if True:", "weights [64, 64]: too many"),
    ("transformer-block", "stride=1):", "stride=2):", "other cells count on it"),
]  # fmt: skip
# exercise, pairs of texts, each replaced wherever it stands, and what the message says
SEVERAL = [
    ("transformer-block", [("nn.AvgPool2d(2, ceil_mode=True)", "nn.MaxPool2d(2, ceil_mode=True)")], "both pool by maximum"),
    ("transformer-block", [("nn.AvgPool2d(2, ceil_mode=True)", "nn.AvgPool2d(3, 2, 1)")], "3x3 pixels are pooled"),
    ("transformer-block", [("LayerNorm2d", "nn.BatchNorm2d")], "BatchNorm instead of LayerNorm"),
]  # fmt: skip

RIGHT = {
    "qkv": {
        "a linear layer": """
class QKV(nn.Module):
    def __init__(self, in_channels, num_heads, head_dim=32):
        super().__init__()
        self.linear = nn.Linear(in_channels, 3 * num_heads * head_dim)
        self.shape = num_heads, 3, head_dim

    def forward(self, x):
        x = self.linear(x.flatten(2).mT).unflatten(2, self.shape)
        return [x[:, :, :, i].transpose(1, 2) for i in range(3)]
""",
        "sliced by hand": """
class QKV(nn.Module):
    def __init__(self, in_channels, num_heads, head_dim=32):
        super().__init__()
        self.d = head_dim
        self.h = num_heads
        self.c = nn.Conv2d(in_channels, num_heads * head_dim * 3, 1)

    def forward(self, x):
        y = self.c(x)
        y = y.reshape(y.shape[0], self.h, 3 * self.d, -1)
        return tuple(y[:, :, i * self.d : (i + 1) * self.d].swapaxes(2, 3) for i in range(3))
""",
        "einsum over a parameter": """
class QKV(nn.Module):
    def __init__(self, in_channels, num_heads, head_dim=32):
        super().__init__()
        self.w = nn.Parameter(torch.randn(num_heads, 3, head_dim, in_channels))
        self.b = nn.Parameter(torch.randn(num_heads, 3, head_dim))

    def forward(self, x):
        y = torch.einsum("bcn,htdc->tbhnd", x.flatten(2), self.w)
        y = y + self.b.transpose(0, 1)[:, None, :, None]
        return y[0], y[1], y[2]
""",
    },
    "position-index": {
        "loops": """
def relative_position_index(height, width):
    index = torch.zeros(height * width, height * width, dtype=torch.long)
    for i in range(height * width):
        for j in range(height * width):
            row = i // width - j // width + height - 1
            column = i % width - j % width + width - 1
            index[i, j] = row * (2 * width - 1) + column
    return index
""",
        "meshgrid and stacked coordinates": """
def relative_position_index(height, width):
    grid = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    where = torch.stack(grid).flatten(1)
    offset = (where[:, :, None] - where[:, None, :]).permute(1, 2, 0)
    offset = offset + torch.tensor([height - 1, width - 1])
    return (offset * torch.tensor([2 * width - 1, 1])).sum(-1)
""",
        "one number a pixel in a padded grid": """
def relative_position_index(height, width):
    stretched = torch.arange(height)[:, None] * (2 * width - 1) + torch.arange(width)
    stretched = stretched.reshape(-1).int()
    return stretched.unsqueeze(1) - stretched + stretched[-1]
""",
    },
    "position-bias": {
        "rows and columns apart": """
class RelativePositionBias(nn.Module):
    def __init__(self, num_heads, grid_size):
        super().__init__()
        self.h, self.w = grid_size
        self.bias = nn.Parameter(torch.zeros(num_heads, 2 * self.h - 1, 2 * self.w - 1))

    def forward(self):
        r = torch.arange(self.h).repeat_interleave(self.w)
        c = torch.arange(self.w).repeat(self.h)
        return self.bias[:, r[:, None] - r + self.h - 1, c[:, None] - c + self.w - 1]
""",
        "index_select, a flat table and a persistent buffer": """
class RelativePositionBias(nn.Module):
    def __init__(self, num_heads, grid_size):
        super().__init__()
        h, w = grid_size
        self.t = nn.Parameter(torch.randn(num_heads, (2 * h - 1) * (2 * w - 1)))
        self.register_buffer("where", relative_position_index(h, w).flatten())
        self.n = h * w

    def forward(self):
        return self.t.index_select(1, self.where).view(-1, self.n, self.n)
""",
        "gather": """
class RelativePositionBias(nn.Module):
    def __init__(self, num_heads, grid_size):
        super().__init__()
        self.table = nn.Parameter(torch.ones([num_heads] + [2 * n - 1 for n in grid_size]))
        index = relative_position_index(*grid_size)
        self.register_buffer("index", index.expand(num_heads, -1, -1), persistent=False)

    def forward(self):
        flat = self.table.view(len(self.table), -1)
        return flat.gather(1, self.index.flatten(1)).view_as(self.index)
""",
    },
    "attention-written-out": {
        "einsum": """
def relative_attention(q, k, v, bias):
    s = torch.einsum("bhid,bhjd->bhij", q, k) / q.size(-1) ** 0.5
    return torch.einsum("bhij,bhjd->bhid", torch.softmax(s + bias.unsqueeze(0), 3), v)
""",
        "head by head, exponentials by hand": """
def relative_attention(q, k, v, bias):
    heads = []
    for h in range(q.shape[1]):
        e = torch.exp(q[:, h] @ k[:, h].mT / q.shape[-1] ** 0.5 + bias[h])
        heads.append(e / e.sum(-1, keepdim=True) @ v[:, h])
    return torch.stack(heads, dim=1)
""",
        "the queries scaled first": """
def relative_attention(q, k, v, bias):
    q = q * torch.rsqrt(torch.tensor(float(q.shape[3])))
    return F.softmax(torch.matmul(q, k.permute(0, 1, 3, 2)) + bias, dim=3).matmul(v)
""",
    },
    "attention-fused": {
        "the mask for the whole batch": """
def fused_attention(q, k, v, bias):
    mask = bias.expand(len(q), -1, -1, -1)
    return nn.functional.scaled_dot_product_attention(q, k, v, mask)
""",
        "a scale of its own": """
def fused_attention(q, k, v, bias):
    d = q.shape[-1]
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, bias, scale=1 / d**0.5)
""",
        "contiguous, with the name imported": """
from torch.nn.functional import scaled_dot_product_attention

def fused_attention(q, k, v, bias):
    out = scaled_dot_product_attention(
        query=q.contiguous(), key=k.contiguous(), value=v.contiguous(), attn_mask=bias
    )
    return out
""",
    },
    "attention-module": {
        "written-out attention, a linear projection": """
class RelativeAttention(nn.Module):
    def __init__(self, in_channels, out_channels, grid_size):
        super().__init__()
        self.out = nn.Linear(out_channels, out_channels)
        self.rel = RelativePositionBias(out_channels // 32, grid_size)
        self.qkv = QKV(in_channels, out_channels // 32, 32)

    def forward(self, x):
        y = relative_attention(*self.qkv(x), self.rel())
        y = self.out(y.transpose(1, 2).flatten(2))
        return y.transpose(1, 2).reshape(len(x), -1, *x.shape[-2:])
""",
        "all in one class": """
class RelativeAttention(nn.Module):
    def __init__(self, in_channels, out_channels, grid_size):
        super().__init__()
        self.heads = out_channels // 32
        self.conv = nn.Conv2d(in_channels, 3 * out_channels, 1)
        h, w = grid_size
        self.table = nn.Parameter(torch.zeros(self.heads, 2 * h - 1, 2 * w - 1))
        self.register_buffer("idx", relative_position_index(h, w))
        self.proj = nn.Conv2d(out_channels, out_channels, 1)

    def forward(self, x):
        B, _, H, W = x.shape
        qkv = self.conv(x).view(B, self.heads, 96, H * W).mT
        q, k, v = qkv.split(32, dim=-1)
        bias = self.table.flatten(1)[:, self.idx]
        y = (q @ k.mT / 32**0.5 + bias).softmax(-1) @ v
        return self.proj(y.mT.reshape(B, -1, H, W))
""",
        "einsum to put the heads together": """
class RelativeAttention(nn.Module):
    def __init__(self, in_channels, out_channels, grid_size):
        super().__init__()
        self.n = out_channels // 32
        self.parts = nn.ModuleList([QKV(in_channels, self.n), RelativePositionBias(self.n, grid_size)])
        self.proj = nn.Conv2d(out_channels, out_channels, kernel_size=1)

    def forward(self, x):
        q, k, v = self.parts[0](x)
        y = fused_attention(q, k, v, self.parts[1]())
        y = torch.einsum("bhnd->bhdn", y).contiguous().view(x.shape[0], -1, x.shape[2], x.shape[3])
        return self.proj(y)
""",
    },
    "transformer-block": {
        "the shortcut last, pooling by the function": """
class TransformerBlock(nn.Module):
    def __init__(self, in_channels, out_channels, grid_size, stride=1):
        super().__init__()
        self.norms = nn.ModuleList(
            [LayerNorm2d(in_channels, eps=1e-6), LayerNorm2d(out_channels, eps=1e-6)]
        )
        self.att = RelativeAttention(in_channels, out_channels, grid_size)
        self.mlp = FeedForward2d(out_channels)
        self.stride = stride
        self.proj = nn.Identity()
        if in_channels != out_channels:
            self.proj = nn.Conv2d(in_channels, out_channels, 1)

    def small(self, x):
        return F.avg_pool2d(x, 2, ceil_mode=True) if self.stride == 2 else x

    def forward(self, x):
        y = self.att(self.small(self.norms[0](x)))
        y = y + self.proj(self.small(x))
        return self.mlp(self.norms[1](y)) + y
""",
        "LayerNorm on permuted axes": """
class TransformerBlock(nn.Module):
    def __init__(self, in_channels, out_channels, grid_size, stride=1):
        super().__init__()
        pool = nn.AvgPool2d(2, 2, ceil_mode=True) if stride == 2 else nn.Identity()
        same = in_channels == out_channels
        proj = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1)
        self.pool, self.proj = pool, proj
        self.ln1 = nn.LayerNorm(in_channels, eps=1e-6)
        self.attn = RelativeAttention(in_channels, out_channels, grid_size)
        self.ln2 = nn.LayerNorm(out_channels, eps=1e-6)
        self.ff = FeedForward2d(out_channels)

    def forward(self, x):
        y = self.ln1(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.proj(self.pool(x)) + self.attn(self.pool(y))
        y = self.ln2(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x + self.ff(y)
""",
        "sequential branches, feed-forward layers by hand": """
class TransformerBlock(nn.Module):
    def __init__(self, in_channels, out_channels, grid_size, stride=1):
        super().__init__()
        pool = [nn.AvgPool2d(2, ceil_mode=True)] if stride == 2 else []
        proj = [nn.Conv2d(in_channels, out_channels, 1)] if in_channels != out_channels else []
        self.short = nn.Sequential(*pool, *proj)
        self.branch1 = nn.Sequential(
            LayerNorm2d(in_channels, eps=1e-6),
            *pool,
            RelativeAttention(in_channels, out_channels, grid_size),
        )
        self.branch2 = nn.Sequential(
            LayerNorm2d(out_channels, eps=1e-6),
            nn.Conv2d(out_channels, 4 * out_channels, 1),
            nn.GELU(),
            nn.Conv2d(4 * out_channels, out_channels, 1),
        )

    def forward(self, x):
        x = self.short(x) + self.branch1(x)
        return x + self.branch2(x)
""",
    },
}
