"""What robustness tests do to images and positions."""

import pytest
import torch

from coatnet import CoAtNEt
from course.robustness import at_size, occlude, shift, shuffle_patches
from vit import ViT


def test_shift_moves_right_and_down_and_repeats_the_border():
    image = torch.arange(12.0).view(1, 1, 3, 4)
    moved = shift(image, 1)[0, 0]
    assert moved.tolist() == [[0, 0, 1, 2], [0, 0, 1, 2], [4, 4, 5, 6]]
    assert torch.equal(shift(image, 0), image)


def test_occlusion_covers_one_square_an_image_at_its_own_place():
    images = torch.ones(20, 3, 9, 12)
    covered = occlude(images, 4) == 0
    assert covered.sum(dim=(2, 3)).eq(16).all()  # in every channel
    assert covered.any(dim=3).sum(dim=2).eq(4).all()  # four rows
    assert len({tuple(image.flatten().tolist()) for image in covered}) > 5
    assert torch.equal(occlude(images, 4), occlude(images, 4))
    assert torch.equal(occlude(images, 0), images)


def test_shuffled_patches_are_whole_and_all_there():
    images = torch.randn(2, 3, 8, 8)
    shuffled = shuffle_patches(images, 4)
    patches, others = (
        {tuple(image[:, i : i + 4, j : j + 4].flatten().tolist()) for i in (0, 4) for j in (0, 4)}
        for image in (images[0], shuffled[0])
    )
    assert patches == others
    assert not torch.equal(shuffle_patches(images, 2), images)
    assert torch.equal(shuffle_patches(images, 8), images)
    with pytest.raises(ValueError, match="do not divide"):
        shuffle_patches(images, 3)


@pytest.mark.parametrize(
    "model",
    [ViT(56, 8, 16, 2, 5, depth=1), CoAtNEt(56, 8, 16, 2, 5, depth=1)],
    ids=["ViT", "CoAtNEt"],
)
def test_models_of_absolute_positions_run_at_another_size(model):
    model.eval()
    images = torch.randn(2, 3, 56, 56)
    with torch.no_grad():
        torch.testing.assert_close(at_size(model, 56)(images), model(images))
        assert at_size(model, 80)(torch.randn(2, 3, 80, 80)).shape == (2, 5)
    model.positions.data[:, 1:] = 0.5  # what is the same everywhere stays so
    torch.testing.assert_close(at_size(model, 80).positions[:, 1:], torch.full((1, 100, 16), 0.5))
    torch.testing.assert_close(at_size(model, 80).positions[:, 0], model.positions[:, 0])
    assert model.positions.shape[1] == 50
