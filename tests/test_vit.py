"""The reference ViT against PyTorch's own layers, and its errors."""

import pytest
import torch
from torch import nn

import vit


def copy_attention(ours, theirs):
    """Our heads' weights into a nn.MultiheadAttention, which has no biases on q, k, v either."""
    with torch.no_grad():
        weights = [torch.cat([getattr(head, name).weight for head in ours.heads]) for name in "qkv"]
        theirs.in_proj_weight.copy_(torch.cat(weights))
        theirs.in_proj_bias.zero_()
        theirs.out_proj.load_state_dict(ours.proj.state_dict())


def test_attention_head_averages_values_by_scaled_softmax_of_scores():
    torch.manual_seed(0)
    head = vit.AttentionHead(dim=6, head_dim=3).eval()
    x = torch.randn(1, 4, 6)
    q, k, v = (getattr(head, name)(x)[0] for name in "qkv")
    expected = torch.zeros(4, 3)
    for i in range(4):
        shares = torch.exp(k @ q[i] / 3**0.5)
        expected[i] = (shares / shares.sum()) @ v
    torch.testing.assert_close(head(x)[0], expected)
    torch.testing.assert_close(head.attention(x).sum(dim=-1), torch.ones(1, 4))


def test_multi_head_attention_equals_pytorchs():
    torch.manual_seed(0)
    ours = vit.MultiHeadAttention(num_hiddens=12, num_heads=3).eval()
    theirs = nn.MultiheadAttention(12, 3, batch_first=True).eval()
    copy_attention(ours, theirs)
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


def test_encoder_equals_pytorchs_pre_norm_encoder():
    torch.manual_seed(0)
    ours = vit.TransformerEncoder(12, depth=2, num_heads=3, mlp_dim=20, dropout=0.0).eval()
    layer = nn.TransformerEncoderLayer(
        12, 3, 20, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    theirs = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    for block, layer in zip(ours, theirs.layers, strict=True):
        copy_attention(block.attention, layer.self_attn)
        layer.norm1.load_state_dict(block.norm1.state_dict())
        layer.norm2.load_state_dict(block.norm2.state_dict())
        layer.linear1.load_state_dict(block.feed_forward.net[0].state_dict())
        layer.linear2.load_state_dict(block.feed_forward.net[3].state_dict())
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(ours(x), theirs(x))


def test_patch_embedding_maps_each_patch_by_the_same_matrix():
    torch.manual_seed(0)
    embed = vit.PatchEmbedding(img_size=6, patch_size=3, num_hiddens=4, in_channels=2)
    images = torch.randn(1, 2, 6, 6)
    patches = [images[0, :, r : r + 3, c : c + 3].flatten() for r in (0, 3) for c in (0, 3)]
    expected = torch.stack(patches) @ embed.proj.weight.flatten(1).T + embed.proj.bias
    torch.testing.assert_close(embed(images)[0], expected)
    assert embed.num_patches == 4


def test_vit_reads_the_cls_token_and_adds_positions_to_all():
    torch.manual_seed(0)
    model = vit.ViT(8, 4, num_hiddens=6, num_heads=2, num_classes=3, depth=0).eval()
    images = torch.randn(2, 3, 8, 8)
    # Without blocks nothing reaches CLS, which then is all that the head sees.
    expected = model.head((model.cls_token + model.positions[:, :1])[:, 0]).expand(2, 3)
    torch.testing.assert_close(model(images), expected)
    assert model.positions.shape == (1, 5, 6)


def test_dropout_acts_in_train_mode_alone():
    torch.manual_seed(0)
    model = vit.ViT(8, 4, num_hiddens=8, num_heads=2, num_classes=3, depth=2, dropout=0.5)
    images = torch.randn(2, 3, 8, 8)
    assert not torch.equal(model.train()(images), model(images))
    assert torch.equal(model.eval()(images), model(images))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: vit.PatchEmbedding(56, 9, 8), "9 does not divide img_size 56"),
        (lambda: vit.MultiHeadAttention(10, 3), "3 does not divide num_hiddens 10"),
        (
            lambda: vit.ViT(8, 4, 8, 2, 3, depth=1)(torch.zeros(1, 3, 12, 12)),
            r"expected images \[B, C, 8, 8\], got \[1, 3, 12, 12\]",
        ),
        (lambda: vit.ViT(8, 4, 8, 2, 3, depth=1)(torch.zeros(3, 8, 8)), "expected images"),
    ],
)
def test_misuse_is_named(make, says):
    with pytest.raises(ValueError, match=says):
        make()
