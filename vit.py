"""A Vision Transformer, written to be read: the reference that lesson 1 rebuilds.

Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929, sections 3.1 and appendix A.
Shapes: B images, N tokens, D = num_hiddens, C channels, H x W pixels.
"""

import torch
from torch import Tensor, nn


class PatchEmbedding(nn.Module):
    """Cuts an image into square patches and maps each one to a token (section 3.1, equation 1).

    A convolution whose kernel and stride are both `patch_size` applies one linear map to every
    patch: [B, C, img_size, img_size] -> [B, num_patches, D], row by row from the top left.

    Raises ValueError where `patch_size` does not divide `img_size`, and for inputs of another size.
    """

    def __init__(self, img_size: int, patch_size: int, num_hiddens: int, in_channels: int = 3):
        super().__init__()
        if img_size % patch_size:
            raise ValueError(f"patch_size {patch_size} does not divide img_size {img_size}")
        self.img_size = img_size
        self.num_patches = (img_size // patch_size) ** 2
        self.proj = nn.Conv2d(in_channels, num_hiddens, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        check_image_size(x, self.img_size)
        return self.proj(x).flatten(2).transpose(1, 2)  # [B, D, h, w] -> [B, D, N] -> [B, N, D]


class AttentionHead(nn.Module):
    """One head of self-attention (appendix A, equations 5-7): [B, N, dim] -> [B, N, head_dim]."""

    def __init__(self, dim: int, head_dim: int, dropout: float = 0.1):
        super().__init__()
        self.q = nn.Linear(dim, head_dim, bias=False)
        self.k = nn.Linear(dim, head_dim, bias=False)
        self.v = nn.Linear(dim, head_dim, bias=False)
        self.scale = head_dim**-0.5
        self.dropout = nn.Dropout(dropout)

    def attention(self, x: Tensor) -> Tensor:
        """How much each token (row) looks at each token (column): [B, N, N], rows sum to 1."""
        scores = self.q(x) @ self.k(x).transpose(-2, -1) * self.scale  # [B, N, N]
        return scores.softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.attention(x)) @ self.v(x)  # [B, N, head_dim]


class MultiHeadAttention(nn.Module):
    """`num_heads` heads, concatenated and projected (equation 8): [B, N, D] -> [B, N, D].

    Raises ValueError where `num_heads` does not divide `num_hiddens`.
    """

    def __init__(self, num_hiddens: int, num_heads: int, dropout: float = 0.1):
        super().__init__()
        if num_hiddens % num_heads:
            raise ValueError(f"num_heads {num_heads} does not divide num_hiddens {num_hiddens}")
        head_dim = num_hiddens // num_heads
        self.heads = nn.ModuleList(
            AttentionHead(num_hiddens, head_dim, dropout) for _ in range(num_heads)
        )
        self.proj = nn.Linear(num_hiddens, num_hiddens)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(torch.cat([head(x) for head in self.heads], dim=-1))  # [B, N, D]


class FeedForward(nn.Module):
    """The MLP of an encoder block, `mlp_dim` wide, token by token: [B, N, D] -> [B, N, D]."""

    def __init__(self, num_hiddens: int, mlp_dim: int, dropout: float = 0.1):
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(num_hiddens, mlp_dim),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp_dim, num_hiddens),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class EncoderBlock(nn.Module):
    """Attention, then feed-forward; norm before and residual around each (equations 2 and 3)."""

    def __init__(self, num_hiddens: int, num_heads: int, mlp_dim: int, dropout: float = 0.1):
        super().__init__()
        self.norm1 = nn.LayerNorm(num_hiddens)
        self.attention = MultiHeadAttention(num_hiddens, num_heads, dropout)
        self.norm2 = nn.LayerNorm(num_hiddens)
        self.feed_forward = FeedForward(num_hiddens, mlp_dim, dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


class TransformerEncoder(nn.Sequential):
    """`depth` encoder blocks in a row: [B, N, D] -> [B, N, D]."""

    def __init__(
        self, num_hiddens: int, depth: int, num_heads: int, mlp_dim: int, dropout: float = 0.1
    ):
        super().__init__(
            *(EncoderBlock(num_hiddens, num_heads, mlp_dim, dropout) for _ in range(depth))
        )


class ClassificationHead(nn.Module):
    """Final norm and linear classifier: [B, D] -> logits [B, num_classes] (equation 4)."""

    def __init__(self, num_hiddens: int, num_classes: int):
        super().__init__()
        self.norm = nn.LayerNorm(num_hiddens)
        self.linear = nn.Linear(num_hiddens, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x))


class ViT(nn.Module):
    """Vision Transformer: [B, 3, img_size, img_size] -> logits [B, num_classes].

    The feed-forward layers are 4 x `num_hiddens` wide. Raises ValueError for an input whose size is
    not `img_size`: the learned positions are there for that grid of patches alone.
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
        self.patch_embedding = PatchEmbedding(img_size, patch_size, num_hiddens)
        num_tokens = self.patch_embedding.num_patches + 1  # the patches and the CLS token
        self.cls_token = nn.Parameter(torch.randn(1, 1, num_hiddens) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, num_tokens, num_hiddens) * 0.02)
        self.dropout = nn.Dropout(dropout)
        self.encoder = TransformerEncoder(num_hiddens, depth, num_heads, 4 * num_hiddens, dropout)
        self.head = ClassificationHead(num_hiddens, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embedding(x)  # [B, N, D]
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)  # [B, 1 + N, D]
        x = self.encoder(self.dropout(x + self.positions))
        return self.head(x[:, 0])  # the CLS token alone: [B, num_classes]


def check_image_size(x: Tensor, img_size: int) -> None:
    """Raises ValueError unless x is a batch of images of the size that a model was built for."""
    if x.ndim != 4 or x.shape[-2:] != (img_size, img_size):
        raise ValueError(
            f"expected images [B, C, {img_size}, {img_size}], got {list(x.shape)}: "
            "learned absolute positions fit one image size only"
        )
