"""The figures that more than one lesson draws. Each function leaves its figure with matplotlib.

Colours are Okabe and Ito's, which people with any colour vision tell apart; maps use "viridis".
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.patches import Rectangle
from torch import Tensor

from course.training import History

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")


def to_pixels(image: Tensor) -> np.ndarray:
    """uint8 [3, H, W] -> [H, W, 3] for matplotlib."""
    return image.permute(1, 2, 0).cpu().numpy()


def show_images(images: Tensor, titles: Sequence[str] | None = None, columns: int = 6) -> None:
    """A grid of uint8 images [N, 3, H, W] with their titles."""
    rows = -(-len(images) // columns)
    _, axes = plt.subplots(
        rows, columns, figsize=(1.7 * columns, 2 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for index, (axis, image) in enumerate(zip(axes.flat, images, strict=False)):
        axis.imshow(to_pixels(image))
        if titles is not None:
            axis.set_title(titles[index], fontsize=9)


def show_patches(image: Tensor, patch_size: int, gap: int = 3) -> None:
    """An image uint8 [3, H, W] with its patch grid; beside it the patches, numbered and apart."""
    grid = image.shape[-1] // patch_size
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
    left.imshow(to_pixels(image))
    lines = [patch_size * i - 0.5 for i in range(1, grid)]
    left.hlines(lines, -0.5, image.shape[-1] - 0.5, colors="white", linewidths=1)
    left.vlines(lines, -0.5, image.shape[-2] - 0.5, colors="white", linewidths=1)
    left.set(title=f"an image, {image.shape[-2]} x {image.shape[-1]} pixels", xticks=[], yticks=[])
    apart = image.new_full((3, *(2 * [grid * (patch_size + gap)])), 255)
    for index in range(grid * grid):
        row, column = divmod(index, grid)
        top, corner = row * (patch_size + gap) + gap, column * (patch_size + gap)
        patch = image[:, row * patch_size :, column * patch_size :][:, :patch_size, :patch_size]
        apart[:, top : top + patch_size, corner : corner + patch_size] = patch
        right.text(corner - 0.5, top - 0.8, index, fontsize=7, va="bottom", color="#444444")
    right.imshow(to_pixels(apart))
    right.set_axis_off()
    right.set_title(f"its {grid * grid} patches, {patch_size} x {patch_size} pixels each")


def show_attention(image: Tensor, weights: Tensor, query: int) -> None:
    """Where one token looks: its row of attention weights over the patches of an image.

    image: uint8 [3, H, W]; weights: [N, N] of a square grid of patches, rows sum to 1;
    query: the token that looks, 0 .. N - 1, outlined.
    """
    weights = weights.detach().cpu()
    grid = round(len(weights) ** 0.5)
    side = image.shape[-1] / grid
    row, column = divmod(query, grid)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
    left.imshow(to_pixels(image))
    left.set_title(f"token {query} looks ...")
    looked_at = right.imshow(
        weights[query].reshape(grid, grid).numpy(),
        extent=(0, image.shape[-1], image.shape[-2], 0),
        vmin=0,
    )
    right.set_title(f"... here (1/{len(weights)} = {1 / len(weights):.3f} would be even)")
    figure.colorbar(looked_at, ax=right, label="attention weight")
    for axis, offset in ((left, -0.5), (right, 0)):
        corner = (column * side + offset, row * side + offset)
        axis.add_patch(
            Rectangle(corner, side, side, edgecolor=COLOURS[1], linewidth=2.5, fill=False)
        )
        axis.set(xticks=[], yticks=[])


def show_losses(histories: Mapping[str, History], smooth: int = 20) -> None:
    """Training loss by step for each name in `histories`, as a running mean over `smooth` steps."""
    _, axis = plt.subplots(figsize=(7, 3.5), layout="constrained")
    for (name, history), colour in zip(histories.items(), COLOURS, strict=False):
        losses = torch.tensor(history.losses)
        width = min(smooth, len(losses))
        means = losses.unfold(0, width, 1).mean(dim=1).numpy()
        axis.plot(range(width, len(losses) + 1), means, color=colour, label=name)
    axis.set(xlabel="step", ylabel=f"cross-entropy, mean of {smooth} steps")
    axis.grid(alpha=0.3)
    axis.legend()


def show_shape_texture(paths: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Shape accuracy against texture accuracy on held-out images, in trials numbered from 1.

    paths: for each model's name a list of (shape accuracy, texture accuracy), each in [0, 1]; it is
    empty where training was stopped before the first trial.
    """
    _, axis = plt.subplots(figsize=(5.5, 5), layout="constrained")
    for (name, path), colour, marker in zip(paths.items(), COLOURS, MARKERS, strict=False):
        shape, texture = [100 * s for s, _ in path], [100 * t for _, t in path]
        label = name if path else f"{name}: stopped before its first trial"
        axis.plot(texture, shape, color=colour, marker=marker, label=label)
        for trial, place in enumerate(zip(texture, shape, strict=True), start=1):
            beside = (-3, -16) if colour == COLOURS[0] else (-10, 6)  # two paths may meet
            axis.annotate(str(trial), place, beside, textcoords="offset points", color=colour)
    axis.plot([0, 100], [0, 100], color="grey", linestyle=":", label="both alike")
    axis.plot(10, 10, color="black", marker="x", linestyle="", label="chance")
    axis.set(
        xlabel="texture accuracy (%)",
        ylabel="shape accuracy (%)",
        xlim=(0, 102),
        ylim=(0, 102),
        aspect="equal",
    )
    axis.grid(alpha=0.3)
    axis.legend(loc="upper left")


def with_slider(draw: Callable[..., None], **values: Any) -> None:
    """Calls `draw(name=start)`; in a live notebook, a slider for each name draws it anew.

    values: for each name (lowest, highest, start), three integers. Where nobody could move a slider
    (solutions, the book, tests: COURSE_STATIC is set) or ipywidgets is missing, it is drawn once.
    """
    try:
        import ipywidgets
    except ImportError:
        ipywidgets = None
    if ipywidgets is None or os.environ.get("COURSE_STATIC"):
        draw(**{name: start for name, (_, _, start) in values.items()})
        return
    sliders = {
        name: ipywidgets.IntSlider(
            start, lowest, highest, description=name, continuous_update=False
        )
        for name, (lowest, highest, start) in values.items()
    }
    ipywidgets.interact(draw, **sliders)
