"""Lesson 1: wrong answers with what their message says, and right ones in other styles."""

GIVEN = """
import math

class TransformerEncoder(nn.Sequential):
    def __init__(self, num_hiddens, depth, num_heads, mlp_dim, dropout=0.1):
        super().__init__(
            *(EncoderBlock(num_hiddens, num_heads, mlp_dim, dropout) for _ in range(depth))
        )
"""
WRONG = [
    # exercise, text of the solution, what stands there instead, what the message says
    ("patch-embedding", "x.flatten(2).transpose(1, 2)", "x.flatten(2).reshape(len(x), -1, x.shape[1])", "mixes patches"),
    ("patch-embedding", "x.flatten(2).transpose(1, 2)", "x.flatten(2)", "swap the last two axes"),
    ("patch-embedding", "x.flatten(2).transpose(1, 2)", "x", "flatten its two axes"),
    ("patch-embedding", "x.flatten(2)", "x.transpose(2, 3).flatten(2)", "column by column"),
    ("patch-embedding", ", stride=patch_size", "", "the patches overlap"),
    ("patch-embedding", "(img_size // patch_size) ** 2", "img_size // patch_size", "one side of the grid"),
    ("patch-embedding", "img_size // patch_size", "img_size / patch_size", "gives a float"),
    ("patch-embedding", "self.num_patches = ", "num_patches = ", "attribute of `self`"),
    ("patch-embedding", "        super().__init__()\n", "", "`super().__init__()` is missing"),
    ("patch-embedding", "nn.Conv2d(in_channels,", "nn.Conv2d(3,", "use `in_channels`"),
    ("patch-embedding", "stride=patch_size)", "stride=patch_size, bias=False)", "has no bias"),
    ("attention-head", "(scores * self.scale)", "scores", "not scaled"),
    ("attention-head", "head_dim**-0.5", "dim**-0.5", "model width"),
    ("attention-head", "head_dim**-0.5", "head_dim**0.5", "divide by it"),
    ("attention-head", "head_dim**-0.5", "1 / head_dim", "square root"),
    ("attention-head", "softmax(dim=-1)", "softmax(dim=-2)", "over the queries"),
    ("attention-head", "softmax(dim=-1)", "softmax(dim=0)", "over the batch"),
    ("attention-head", ".softmax(dim=-1)", "", "softmax is missing"),
    ("attention-head", "(scores * self.scale).softmax(dim=-1)", "scores.softmax(dim=-1) * self.scale", "before it"),
    ("attention-head", "self.key = nn.Linear(dim, head_dim, bias=False)", "self.key = nn.Linear(dim, head_dim)", "bias=False"),
    ("attention-head", "self.dropout(self.attention(x))", "self.attention(x)", "nothing is dropped"),
    ("attention-head", "self.dropout(self.attention(x)) @ self.value(x)", "self.dropout(self.attention(x) @ self.value(x))", "on the attention weights"),
    ("attention-head", "nn.Dropout(dropout)", "nn.Dropout()", "default of its own"),
    ("attention-head", ".transpose(-2, -1)", ".T", "last but one of the second"),
    ("attention-head", "return (scores", "(scores", "`self.attention` gives None: it is empty, or its last line lacks `return`"),
    ("attention-head", "@ self.value(x)", "@ x", "values"),
    ("attention-head", "return self.dropout", "self.dropout", "no `return`"),
    ("multi-head", "num_hiddens // num_heads", "num_hiddens", "num_hiddens // num_heads"),
    ("multi-head", "nn.ModuleList(\n            AttentionHead(num_hiddens, head_dim, dropout) for _ in range(num_heads)\n        )", "[AttentionHead(num_hiddens, head_dim, dropout) for _ in range(num_heads)]", "nn.ModuleList"),
    ("multi-head", "AttentionHead(num_hiddens, head_dim, dropout) for _ in range(num_heads)", "[AttentionHead(num_hiddens, head_dim, dropout)] * num_heads", "one and the same"),
    ("multi-head", "in self.heads]", "in reversed(self.heads)]", "reverse order"),
    ("multi-head", "torch.cat([head(x) for head in self.heads], dim=-1)", "torch.stack([head(x) for head in self.heads], dim=-1).flatten(2)", "interleaved"),
    ("multi-head", "return self.proj(x)", "return x", "call the projection"),
    ("multi-head", "self.proj = nn.Linear(num_hiddens, num_hiddens)", "self.proj = nn.Identity()", "projection after the heads"),
    ("multi-head", "head_dim, dropout)", "head_dim)", "not handed on"),
    ("feed-forward", "nn.Dropout(dropout),\n            nn.Linear(mlp", "nn.Dropout(),\n            nn.Linear(mlp", "differ"),
    ("feed-forward", "return self.net(x)", "return x + self.net(x)", "the encoder block adds it"),
    ("feed-forward", "nn.GELU(),\n            nn.Dropout(dropout),", "nn.Dropout(dropout),\n            nn.GELU(),", "before the GELU"),
    ("feed-forward", "nn.GELU()", "nn.ReLU()", "ReLU instead of GELU"),
    ("feed-forward", "            nn.GELU(),\n", "", "GELU between the two layers is missing"),
    ("feed-forward", "nn.GELU()", 'nn.GELU(approximate="tanh")', "tanh"),
    ("feed-forward", "nn.GELU(),\n            nn.Dropout(dropout),\n", "nn.GELU(),\n", "dropout after the GELU"),
    ("feed-forward", "nn.Linear(mlp_dim, num_hiddens),\n            nn.Dropout(dropout),", "nn.Linear(mlp_dim, num_hiddens),", "dropout after the second"),
    ("encoder-block", "x = x + self.attention", "x += self.attention", "in place"),
    ("encoder-block", "self.norm2(x)", "self.norm1(x)", "first norm is used in both"),
    ("encoder-block", "x = x + self.attention", "x = self.attention", "residual around the attention"),
    ("encoder-block", "return x + self.feed", "return self.feed", "residual around the feed-forward"),
    ("encoder-block", "x = x + self.attention(self.norm1(x))\n        return x + self.feed_forward(self.norm2(x))", "x = self.norm1(x + self.attention(x))\n        return self.norm2(x + self.feed_forward(x))", "post-norm"),
    ("encoder-block", "x = x + self.attention(self.norm1(x))", "x = self.norm1(x)\n        x = x + self.attention(x)", "adds the normed x"),
    ("encoder-block", "self.norm2(x)", "x", "norm before the feed-forward"),
    ("encoder-block", "self.norm2 = nn.LayerNorm(num_hiddens)", "self.norm2 = self.norm1", "`self.norm1.weight` and `self.norm2.weight` are one and the same|one LayerNorm for both places"),
    ("encoder-block", "num_heads, dropout)\n", "num_heads)\n", "not handed on to the attention"),
    ("vision-transformer", "[self.cls_token.expand(len(x), -1, -1), x]", "[x, self.cls_token.expand(len(x), -1, -1)]", "appended"),
    ("vision-transformer", "self.patches.num_patches + 1", "self.patches.num_patches", "before the CLS token"),
    ("vision-transformer", "num_hiddens, depth, num_heads, 4", "num_hiddens, num_heads, depth, 4", "swapped"),
    ("vision-transformer", "num_hiddens, depth, num_heads, 4", "num_hiddens, 6, num_heads, 4", "`depth` is not handed on"),
    ("vision-transformer", "self.cls_token.expand(len(x), -1, -1)", "self.cls_token", "see `expand`"),
    ("vision-transformer", "self.head(x[:, 0])", "self.head(x[:, 0]).softmax(-1)", "softmax on the logits"),
    ("vision-transformer", "self.dropout(x + self.positions)", "self.dropout(x) + self.positions", "dropout comes before the positions"),
    ("vision-transformer", "x + self.positions", "x", "never added"),
    ("vision-transformer", "x[:, 0]", "x.mean(dim=1)", "mean of all tokens"),
    ("vision-transformer", "x[:, 0]", "x", "every token"),
    ("vision-transformer", "x[:, 0]", "x[:, -1]", "last token"),
    ("vision-transformer", "nn.Parameter(torch.randn(1, num_tokens, num_hiddens) * 0.02)", "torch.randn(1, num_tokens, num_hiddens) * 0.02", "nn.Parameter"),
    ("vision-transformer", "self.dropout(x + self.positions)", "x + self.positions", "dropout before the encoder"),
    ("vision-transformer", "4 * num_hiddens", "num_hiddens", "4 times as wide"),
    ("vision-transformer", "        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)  # [B, 1 + N, D]\n        x = self.encoder(self.dropout(x + self.positions))", "        x = x + self.positions[:, 1:]\n        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)\n        x = self.encoder(self.dropout(x))", "before it joins"),
]  # fmt: skip
RIGHT = {
    "patch-embedding": {
        "unfold and a linear layer": """
class PatchEmbedding(nn.Module):
    def __init__(self, img_size, patch_size, num_hiddens, in_channels=3):
        super().__init__()
        self.num_patches = (img_size // patch_size) * (img_size // patch_size)
        self.cut = nn.Unfold(patch_size, stride=patch_size)
        self.to_token = nn.Linear(in_channels * patch_size**2, num_hiddens)

    def forward(self, x):
        return self.to_token(self.cut(x).transpose(1, 2))
""",
        "pixels by row, column, channel": """
class PatchEmbedding(nn.Module):
    def __init__(self, img_size, patch_size, num_hiddens, in_channels=3):
        super().__init__()
        self.grid, self.p = img_size // patch_size, patch_size
        self.num_patches = self.grid**2
        self.linear = nn.Linear(patch_size * patch_size * in_channels, num_hiddens)

    def forward(self, images):
        b, c = images.shape[:2]
        x = images.reshape(b, c, self.grid, self.p, self.grid, self.p)
        x = torch.einsum("bcrpsq->brspqc", x)
        return self.linear(x.reshape(b, self.num_patches, -1))
""",
        "patch by patch": """
class PatchEmbedding(nn.Module):
    def __init__(self, img_size, patch_size, num_hiddens, in_channels=3):
        super().__init__()
        self.starts = range(0, img_size, patch_size)
        self.num_patches = len(self.starts) ** 2
        self.size = patch_size
        self.proj = nn.LazyLinear(num_hiddens)

    def forward(self, x):
        s = self.size
        patches = [x[:, :, i : i + s, j : j + s].flatten(1) for i in self.starts for j in self.starts]
        return self.proj(torch.stack(patches, dim=1))
""",
    },
    "attention-head": {
        "one layer for all three, einsum": """
class AttentionHead(nn.Module):
    def __init__(self, dim, head_dim, dropout=0.1):
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * head_dim, bias=False)
        self.p = dropout

    def attention(self, x):
        q, k, _ = self.qkv(x).chunk(3, dim=-1)
        return torch.softmax(torch.einsum("bid,bjd->bij", q, k) / q.shape[-1] ** 0.5, dim=2)

    def forward(self, x):
        weights = nn.functional.dropout(self.attention(x), self.p, training=self.training)
        return torch.einsum("bij,bjd->bid", weights, self.qkv(x).chunk(3, dim=-1)[2])
""",
        "bare matrices, the fused kernel": """
class AttentionHead(nn.Module):
    def __init__(self, dim, head_dim, dropout=0.1):
        super().__init__()
        self.v = nn.Parameter(torch.randn(dim, head_dim))
        self.k = nn.Parameter(torch.randn(dim, head_dim))
        self.q = nn.Parameter(torch.randn(dim, head_dim))
        self.p = dropout

    def attention(self, x):
        scores = (x @ self.q) @ (x @ self.k).mT
        return (scores / math.sqrt(self.q.shape[1])).softmax(-1)

    def forward(self, x):
        return nn.functional.scaled_dot_product_attention(
            x @ self.q, x @ self.k, x @ self.v, dropout_p=self.p if self.training else 0.0
        )
""",
        "the softmax written out, scaled queries": """
class AttentionHead(nn.Module):
    def __init__(self, dim, head_dim, dropout=0.1):
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(dim, head_dim, bias=False) for _ in range(3))
        self.drop = nn.Dropout(p=dropout)

    def attention(self, x):
        q, k = self.maps[0](x), self.maps[1](x)
        scores = torch.einsum("bid,bjd->bij", q / math.sqrt(q.size(-1)), k)
        powers = torch.exp(scores - scores.max(dim=2, keepdim=True).values)
        return powers / powers.sum(dim=2, keepdim=True)

    def forward(self, x):
        return torch.bmm(self.drop(self.attention(x)), self.maps[2](x))
""",
    },
    "multi-head": {
        "all heads in one layer": """
class MultiHeadAttention(nn.Module):
    def __init__(self, num_hiddens, num_heads, dropout=0.1):
        super().__init__()
        self.out = nn.Linear(num_hiddens, num_hiddens)
        self.qkv = nn.Linear(num_hiddens, 3 * num_hiddens, bias=False)
        self.drop = nn.Dropout(dropout)
        self.h = num_heads

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.h, d // self.h).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (d // self.h) ** -0.5).softmax(-1)
        return self.out((self.drop(weights) @ v).transpose(1, 2).reshape(b, n, d))
""",
        "PyTorch's own attention": """
class MultiHeadAttention(nn.Module):
    def __init__(self, num_hiddens, num_heads, dropout=0.1):
        super().__init__()
        self.m = nn.MultiheadAttention(
            num_hiddens, num_heads, dropout, bias=False, batch_first=True
        )
        self.m.out_proj = nn.Linear(num_hiddens, num_hiddens)

    def forward(self, x):
        return self.m(x, x, x)[0]
""",
        "a loop over attributes": """
class MultiHeadAttention(nn.Module):
    def __init__(self, num_hiddens, num_heads, dropout=0.1):
        super().__init__()
        self.count = num_heads
        for i in range(num_heads):
            self.add_module(f"h{i}", AttentionHead(num_hiddens, num_hiddens // num_heads, dropout))
        self.mix = nn.Linear(num_hiddens, num_hiddens)

    def forward(self, x):
        parts = []
        for i in range(self.count):
            parts.append(getattr(self, f"h{i}")(x))
        return self.mix(torch.concat(parts, -1))
""",
    },
    "feed-forward": {
        "layer by layer, registered back to front": """
class FeedForward(nn.Module):
    def __init__(self, num_hiddens, mlp_dim, dropout=0.1):
        super().__init__()
        self.down = nn.Linear(mlp_dim, num_hiddens)
        self.up = nn.Linear(num_hiddens, mlp_dim)
        self.p = dropout

    def forward(self, x):
        F = nn.functional
        x = F.dropout(F.gelu(self.up(x)), self.p, self.training)
        return F.dropout(self.down(x), self.p, self.training)
""",
        "convolutions of width 1": """
class FeedForward(nn.Module):
    def __init__(self, num_hiddens, mlp_dim, dropout=0.1):
        super().__init__()
        self.a, self.b = nn.Conv1d(num_hiddens, mlp_dim, 1), nn.Conv1d(mlp_dim, num_hiddens, 1)
        self.d = nn.Dropout(dropout)

    def forward(self, x):
        return self.d(self.b(self.d(nn.functional.gelu(self.a(x.mT))))).mT
""",
        "a subclass of nn.Sequential": """
class FeedForward(nn.Sequential):
    def __init__(self, num_hiddens, mlp_dim, dropout=0.1):
        super().__init__(
            nn.Linear(num_hiddens, mlp_dim), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(mlp_dim, num_hiddens), nn.Dropout(dropout),
        )
""",
    },
    "encoder-block": {
        "norms registered last, in the other order": """
class EncoderBlock(nn.Module):
    def __init__(self, num_hiddens, num_heads, mlp_dim, dropout=0.1):
        super().__init__()
        self.mlp = FeedForward(num_hiddens, mlp_dim, dropout)
        self.attn = MultiHeadAttention(num_hiddens, num_heads, dropout)
        self.ln_mlp, self.ln_attn = nn.LayerNorm(num_hiddens), nn.LayerNorm(num_hiddens)

    def forward(self, x):
        residual = x
        x = self.attn(self.ln_attn(x)) + residual
        residual = x
        return self.mlp(self.ln_mlp(x)) + residual
""",
        "norm and step in one nn.Sequential, added in place": """
class EncoderBlock(nn.Module):
    def __init__(self, num_hiddens, num_heads, mlp_dim, dropout=0.1):
        super().__init__()
        self.steps = nn.ModuleList([
            nn.Sequential(nn.LayerNorm(num_hiddens),
                          MultiHeadAttention(num_hiddens, num_heads, dropout)),
            nn.Sequential(nn.LayerNorm(num_hiddens), FeedForward(num_hiddens, mlp_dim, dropout)),
        ])

    def forward(self, x):
        for step in self.steps:
            x = x + step(x)
        return x
""",
        "each half in a function": """
class EncoderBlock(nn.Module):
    def __init__(self, num_hiddens, num_heads, mlp_dim, dropout=0.1):
        super().__init__()
        self.parts = nn.ModuleDict({
            "mix": MultiHeadAttention(num_hiddens, num_heads, dropout),
            "think": FeedForward(num_hiddens, mlp_dim, dropout),
            "norm_mix": nn.LayerNorm(num_hiddens),
            "norm_think": nn.LayerNorm(num_hiddens),
        })

    def step(self, name, x):
        return torch.add(x, self.parts[name](self.parts["norm_" + name](x)))

    def forward(self, x):
        for name in ("mix", "think"):
            x = self.step(name, x)
        return x
""",
    },
    "vision-transformer": {
        "positions in an embedding, CLS repeated": """
class ViT(nn.Module):
    def __init__(self, img_size, patch_size, num_hiddens, num_heads, num_classes,
                 depth=6, dropout=0.1):
        super().__init__()
        self.head = ClassificationHead(num_hiddens, num_classes)
        self.encoder = TransformerEncoder(
            num_hiddens=num_hiddens, depth=depth, num_heads=num_heads,
            mlp_dim=num_hiddens * 4, dropout=dropout,
        )
        self.embed = PatchEmbedding(img_size, patch_size, num_hiddens)
        self.cls = nn.Parameter(torch.zeros(num_hiddens))
        self.where = nn.Embedding(self.embed.num_patches + 1, num_hiddens)
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        cls = self.cls.repeat(x.shape[0], 1, 1)
        x = torch.hstack([cls, self.embed(x)]) + self.where.weight
        return self.head(self.encoder(self.drop(x)).select(1, 0))
""",
        "tokens written into an empty tensor": """
class ViT(nn.Module):
    def __init__(self, img_size, patch_size, num_hiddens, num_heads, num_classes,
                 depth=6, dropout=0.1):
        super().__init__()
        self.embed = PatchEmbedding(img_size, patch_size, num_hiddens)
        self.pos = nn.Parameter(torch.randn(self.embed.num_patches + 1, num_hiddens))
        self.cls = nn.Parameter(torch.randn(1, num_hiddens))
        self.body = nn.Sequential(
            nn.Dropout(dropout),
            TransformerEncoder(num_hiddens, depth, num_heads, 4 * num_hiddens, dropout),
        )
        self.head = ClassificationHead(num_hiddens, num_classes)

    def forward(self, x):
        patches = self.embed(x)
        x = patches.new_empty(len(patches), patches.shape[1] + 1, patches.shape[2])
        x[:, 0] = self.cls
        x[:, 1:] = patches
        return self.head(self.body(x + self.pos)[:, 0])
""",
        "CLS by padding, positions apart for CLS and patches": """
class ViT(nn.Module):
    def __init__(self, img_size, patch_size, num_hiddens, num_heads, num_classes,
                 depth=6, dropout=0.1):
        super().__init__()
        self.to_tokens = PatchEmbedding(img_size, patch_size, num_hiddens)
        self.register_parameter("cls", nn.Parameter(torch.empty(1, 1, num_hiddens).normal_(std=0.02)))
        self.register_parameter("pos", nn.Parameter(
            nn.init.trunc_normal_(torch.empty((img_size // patch_size) ** 2 + 1, num_hiddens), std=0.02)))
        self.encoder = TransformerEncoder(num_hiddens, depth, num_heads, 4 * num_hiddens, dropout)
        self.head = ClassificationHead(num_hiddens, num_classes)
        self.p = dropout

    def forward(self, x):
        first = (self.cls + self.pos[:1]).expand(x.size(0), -1, -1)
        tokens = torch.concat((first, self.to_tokens(x) + self.pos[1:]), dim=-2)
        tokens = nn.functional.dropout(tokens, self.p, training=self.training)
        return self.head(self.encoder(tokens)[:, 0, :])
""",
    },
}
