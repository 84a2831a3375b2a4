"""The figures hold the data that they were given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from course import plots
from course.training import History


@pytest.fixture(autouse=True)
def headless():
    plt.switch_backend("agg")
    yield
    plt.close("all")


def image(size=8):
    return torch.randint(0, 256, (3, size, size), dtype=torch.uint8)


def pictures(figure):
    return [axis.images[0].get_array() for axis in figure.get_axes() if axis.images]


def test_images_with_titles():
    images = torch.stack([image() for _ in range(4)])
    plots.show_images(images, list("abcd"), columns=3)
    shown = pictures(plt.gcf())
    assert [axis.get_title() for axis in plt.gcf().get_axes()[:4]] == list("abcd")
    for got, expected in zip(shown, images, strict=True):
        assert np.array_equal(got, expected.permute(1, 2, 0).numpy())


def test_patches_are_in_reading_order():
    whole = image()
    plots.show_patches(whole, patch_size=4)
    shown = pictures(plt.gcf())
    assert len(shown) == 5
    rows = [np.concatenate(shown[1:3], axis=1), np.concatenate(shown[3:5], axis=1)]
    assert np.array_equal(np.concatenate(rows), shown[0])


def test_attention_shows_the_row_of_the_query():
    weights = torch.rand(4, 4).softmax(dim=1)
    plots.show_attention(image(), weights, query=2)
    _, right = pictures(plt.gcf())
    assert np.allclose(right, weights[2].reshape(2, 2))
    outlines = [axis.patches[0].get_xy() for axis in plt.gcf().get_axes() if axis.patches]
    assert outlines == [(-0.5, 3.5), (0, 4)]  # second row, first column of a 2 x 2 grid


def test_losses_are_running_means():
    plots.show_losses({"a": History(losses=[4.0, 2.0, 0.0, 2.0])}, smooth=2)
    line = plt.gca().lines[0]
    assert line.get_xdata().tolist() == [2, 3, 4]
    assert line.get_ydata().tolist() == [3.0, 1.0, 1.0]


def test_shape_against_texture_in_percent():
    plots.show_shape_texture({"a": [(0.1, 0.5), (0.2, 0.9)], "b": [(0.3, 0.4)]})
    a, b = plt.gca().lines[:2]
    assert a.get_xdata() == pytest.approx([50, 90])
    assert a.get_ydata() == pytest.approx([10, 20])
    assert (b.get_xdata(), b.get_ydata()) == (pytest.approx([40]), pytest.approx([30]))
    assert [a.get_color(), b.get_color()] == list(plots.COLOURS[:2])
