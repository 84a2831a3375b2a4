"""The first hybrid: CNNStem and CoAtNEt."""

import pytest
import torch
import torch.nn.functional as F

from coatnet import CNNStem, CoAtNEt
from vit import ViT


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_original_setting():
    model = CoAtNEt(patch_size=7, num_hiddens=512, num_heads=8, num_classes=100, img_size=56)
    assert model(torch.randn(2, 3, 56, 56)).shape == (2, 100)
    assert count(model) == 19_650_916  # stem 667,392; positions 26,112; encoder 18,905,088; head
    assert CNNStem(num_hiddens=512)(torch.randn(1, 3, 56, 56)).shape == (1, 512, 7, 7)


def test_stem_is_three_times_convolution_norm_gelu():
    torch.manual_seed(0)
    stem = CNNStem(num_hiddens=8).eval()
    x = images = torch.randn(2, 3, 20, 28)
    for convolution, norm in ((stem[0], stem[1]), (stem[3], stem[4]), (stem[6], stem[7])):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        x = F.conv2d(x, convolution.weight, convolution.bias, stride=2, padding=1)
        mean, var = (t[:, None, None] for t in (norm.running_mean, norm.running_var))
        x = F.gelu((x - mean) / (var + norm.eps).sqrt())
    torch.testing.assert_close(stem(images), x)
    assert x.shape == (2, 8, 3, 4)  # 20 -> 10 -> 5 -> 3, 28 -> 14 -> 7 -> 4


@pytest.mark.parametrize(("img_size", "tokens"), [(56, 49), (50, 49), (64, 64), (33, 25)])
@pytest.mark.parametrize("patch_size", [1, 7, 56])
def test_the_stem_decides_how_many_tokens_there_are(img_size, tokens, patch_size):
    model = CoAtNEt(img_size, patch_size, num_hiddens=8, num_heads=2, num_classes=3, depth=1)
    assert model.positions.shape[1] == tokens + 1
    assert model(torch.randn(1, 3, img_size, img_size)).shape == (1, 3)


def test_it_is_a_vit_behind_another_embedding():
    torch.manual_seed(0)
    hybrid = CoAtNEt(16, 8, num_hiddens=8, num_heads=2, num_classes=3, depth=2).eval()
    vit = ViT(16, 8, num_hiddens=8, num_heads=2, num_classes=3, depth=2).eval()
    vit.load_state_dict(hybrid.state_dict(), strict=False)
    vit.patch_embedding.forward = lambda x: hybrid.stem(x).flatten(2).transpose(1, 2)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(hybrid(images), vit(images))


def test_every_parameter_gets_a_gradient():
    model = CoAtNEt(16, 8, num_hiddens=8, num_heads=2, num_classes=3, depth=2)
    model(torch.randn(2, 3, 16, 16)).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert model.positions.grad.abs().min() > 0


def test_another_image_size_is_an_error_that_says_why():
    model = CoAtNEt(16, 8, num_hiddens=8, num_heads=2, num_classes=3, depth=1)
    with pytest.raises(ValueError, match=r"expected images \[B, C, 16, 16\], got \[1, 3, 24, 24\]"):
        model(torch.randn(1, 3, 24, 24))
