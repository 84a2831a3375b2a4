"""Figures say in words what they show."""

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient

from course.alt_text import LONGEST, describe


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_lines_are_told_by_name_and_numbers():
    figure, axis = plt.subplots()
    axis.plot([0, 1, 2], [4.6, 5.0, 2.0], label="ViT")
    axis.plot([0, 2], [7, 7], label="chance")
    axis.plot([0, 2], [1, 1])  # without a name: an aid to the eye
    axis.set(title="Loss", xlabel="step", ylabel="cross-entropy")
    assert describe(figure) == (
        'Line chart "Loss", cross-entropy by step: ViT from 4.6 to 2, within 2 and 5; chance at 7.'
    )


@pytest.mark.parametrize("bars", ["bar", "barh"])
def test_bars_are_told_by_name_and_length(bars):
    figure, axis = plt.subplots()
    getattr(axis, bars)(["yours", "timm"], [217, 263])
    figure.canvas.draw()
    assert describe(figure) == "Bar chart: yours 217; timm 263."


def test_many_bars_are_told_by_their_range():
    figure, axis = plt.subplots()
    axis.bar(range(100), np.arange(100) + 3.0)
    assert describe(figure) == "Bar chart: 100 bars from 3 to 102."


def test_maps_have_a_range_and_what_their_colours_show():
    figure, axis = plt.subplots()
    shown = axis.imshow(np.arange(6.0).reshape(2, 3))
    axis.set_title("bias of head 1")
    figure.colorbar(shown, label="entry of the table")
    assert describe(figure) == (
        'Picture "bias of head 1": values from 0 to 5. Colour shows: entry of the table.'
    )


def test_a_grid_of_pictures_is_a_list_of_titles():
    figure, axes = plt.subplots(2, 3)
    for number, axis in enumerate(axes.flat):
        axis.imshow(np.zeros((4, 4, 3)))
        axis.set_title(f"image\n{number}")
    figure.suptitle("Six")
    expected = "Six. 6 pictures: image 0, image 1, image 2, image 3, image 4, image 5."
    assert describe(figure) == expected


def test_it_ends_somewhere():
    figure, axis = plt.subplots()
    for number in range(200):
        axis.plot([1, 2], label=f"line {number}")
    assert LONGEST - 10 < len(describe(figure)) <= LONGEST


def test_an_empty_figure_and_one_of_nan_do_no_harm():
    assert describe(plt.figure()) == "An empty figure."
    figure, axis = plt.subplots()
    axis.plot([float("nan")] * 3, label="nothing")
    axis.imshow(np.full((2, 2), np.nan))
    assert describe(figure) == "Picture."


@pytest.mark.slow
def test_a_notebook_that_imports_the_course_has_it_in_its_outputs():
    source = "import matplotlib.pyplot as plt\nimport course\nplt.plot([1, 2], label='a');"
    cells = [nbformat.v4.new_code_cell(source)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=120).execute()
    (output,) = notebook.cells[0].outputs
    assert output.metadata["image/png"]["alt"] == "Line chart: a from 1 to 2, within 1 and 2."
    assert len(output.data["image/png"]) > 1000
