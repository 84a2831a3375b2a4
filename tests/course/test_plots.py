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
    shown, apart = pictures(plt.gcf())
    rows = [
        np.concatenate([apart[top : top + 4, left : left + 4] for left in (0, 7)], axis=1)
        for top in (3, 10)  # gaps of 3 pixels above and to the right of each
    ]
    assert np.array_equal(np.concatenate(rows), shown)
    assert [text.get_text() for text in plt.gcf().get_axes()[1].texts] == ["0", "1", "2", "3"]


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


def test_a_run_stopped_before_its_first_trial_is_named_and_leaves_the_others():
    plots.show_shape_texture({"a": [], "b": [(0.3, 0.4)]})
    a, b = plt.gca().lines[:2]
    assert a.get_label() == "a: stopped before its first trial"
    assert b.get_ydata() == pytest.approx([30])
    assert [text.get_text() for text in plt.gca().texts] == ["1"]


def test_without_anybody_to_move_a_slider_the_start_is_drawn(monkeypatch):
    drawn = []
    monkeypatch.setenv("COURSE_STATIC", "1")
    plots.with_slider(
        lambda row, column: drawn.append((row, column)), row=(0, 8, 4), column=(0, 6, 1)
    )
    assert drawn == [(4, 1)]


def test_a_slider_for_each_value(monkeypatch):
    calls = []
    monkeypatch.delenv("COURSE_STATIC", raising=False)
    monkeypatch.setattr("ipywidgets.interact", lambda draw, **sliders: calls.append(sliders))
    plots.with_slider(lambda row: None, row=(0, 8, 4))
    slider = calls[0]["row"]
    assert (slider.min, slider.max, slider.value) == (0, 8, 4)


def test_shape_against_texture_in_percent():
    plots.show_shape_texture({"a": [(0.1, 0.5), (0.2, 0.9)], "b": [(0.3, 0.4)]})
    a, b = plt.gca().lines[:2]
    assert a.get_xdata() == pytest.approx([50, 90])
    assert a.get_ydata() == pytest.approx([10, 20])
    assert (b.get_xdata(), b.get_ydata()) == (pytest.approx([40]), pytest.approx([30]))
    assert [a.get_color(), b.get_color()] == list(plots.COLOURS[:2])
