"""What augmentation does to images and targets. (flip_and_crop: tests/test_data.py.)"""

import torch

from course import augmentation
from course.augmentation import mixup, shift_and_flip, trivial_augment


def test_shift_and_flip_takes_each_pixel_from_where_it_says():
    torch.manual_seed(0)
    images = torch.rand(5, 2, 4, 6)
    down, right = torch.tensor([[0, 1, -2, 3, -9], [0, -1, 2, -5, 9]])
    flipped = torch.tensor([False, True, False, True, True])
    result = shift_and_flip(images, down, right, flipped)
    for i in range(5):
        for row in range(4):
            for column in range(6):
                seen = 5 - column if flipped[i] else column
                y = min(max(row + down[i].item(), 0), 3)
                x = min(max(seen + right[i].item(), 0), 5)
                assert torch.equal(result[i, :, row, column], images[i, :, y, x])


def test_trivial_augment_draws_an_operation_for_each_group(monkeypatch):
    """Without the flip and the crop, which differ for each image and would be variety enough."""
    monkeypatch.setattr(augmentation, "flip_and_crop", lambda images: images)
    image = torch.arange(3 * 32 * 32).reshape(3, 32, 32).remainder(251).to(torch.uint8)
    batch = image.expand(64, -1, -1, -1)
    torch.manual_seed(0)
    result = trivial_augment(batch, group=4)
    assert result.shape == batch.shape
    assert result.dtype == torch.uint8
    groups = result.unflatten(0, (16, 4))
    assert (groups == groups[:, :1]).all()
    assert len({tuple(r.flatten().tolist()) for r in result}) > 8  # one alone would be 1
    torch.manual_seed(0)
    assert torch.equal(trivial_augment(batch, group=4), result)


def test_mixup_fades_images_and_targets_alike():
    """Each image shows its class as a number: mixed, the number is the targets' mean class."""
    classes = torch.arange(6)
    images = classes[:, None, None, None].float().expand(-1, 3, 2, 2)
    torch.manual_seed(0)
    mixed, targets = mixup(images, torch.eye(6), alpha=1.0)
    assert torch.allclose(targets.sum(dim=1), torch.ones(6))
    assert torch.allclose(mixed[:, 0, 0, 0], targets @ classes.float())
    share = targets.diagonal().min()
    assert 0.01 < share < 0.99
    assert (targets > 0).sum(dim=1).max() == 2
