"""What a figure shows, in words: the alt text that figures carry in notebooks and in the book.

The words are made from the figure itself, so that they are true of your own run as well: titles,
axes, and for each line or bar its name and its numbers. `course/__init__.py` turns it on.
"""

import numpy as np
from matplotlib.container import BarContainer
from matplotlib.figure import Figure

LONGEST = 1000  # characters; a screen reader cannot skip within alt text
SEVERAL = 12  # more bars are told by their range, more words within a picture not at all


def describe(figure: Figure) -> str:
    """A figure's content in sentences: what kind of chart, its axes, its series and their range."""
    panels = [axis for axis in figure.axes if axis.get_label() != "<colorbar>" and axis.has_data()]
    parts = [_clean(part.get_suptitle()) for part in (figure, *figure.subfigs)]
    if len(panels) > 3 and all(_kind(panel) == "picture" for panel in panels):
        titles = [_title(panel) for panel in panels]
        parts.append(f"{len(panels)} pictures: {', '.join(filter(None, titles)) or 'untitled'}")
    else:
        parts += [_panel(panel) for panel in panels]
    for axis in figure.axes:
        if axis.get_label() == "<colorbar>" and (axis.get_ylabel() or axis.get_xlabel()):
            parts.append(f"Colour shows: {axis.get_ylabel() or axis.get_xlabel()}")
    words = ". ".join(dict.fromkeys(filter(None, parts)) or ["An empty figure"]) + "."
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 2]} …"


def _panel(axis):
    """One panel: `Line chart "title", y by x: name from 1 to 2; ...`"""
    kind = _kind(axis)
    words = {"picture": "Picture", "lines": "Line chart", "bars": "Bar chart", "": "Drawing"}[kind]
    if _title(axis):
        words += f' "{_title(axis)}"'
    across, up = _clean(axis.get_xlabel()), _clean(axis.get_ylabel())
    if across or up:
        words += ", " + (f"{up} by {across}" if across and up else across or up)
    series = {"picture": _values, "bars": _bars}.get(kind, _lines)(axis)
    if kind != "bars" and len(axis.texts) <= SEVERAL:  # a bar's text is its number once more
        series += [_text(text) for text in axis.texts]
    rest = "; ".join(filter(None, series))
    return f"{words}: {rest}" if rest else words


def _kind(axis):
    if axis.images:
        return "picture"
    if any(isinstance(container, BarContainer) for container in axis.containers):
        return "bars"
    return "lines" if axis.lines or axis.collections else ""


def _values(axis):
    """The range of what a picture shows in false colours; a photograph has none to tell."""
    values = np.ma.masked_invalid(axis.images[0].get_array())
    if values.ndim != 2 or not values.count():
        return []
    return [f"values from {values.min():.3g} to {values.max():.3g}"]


def _lines(axis):
    """Each named line by where it begins and ends, and how far it goes in between."""
    told = []
    for line in axis.lines:
        values = np.asarray(line.get_ydata(), dtype=float)
        values = values[np.isfinite(values)]
        if line.get_label().startswith("_") or not len(values):
            continue
        name = _clean(line.get_label())
        if len(values) == 1 or np.ptp(values) == 0:
            told.append(f"{name} at {values[0]:.3g}")
        else:
            low, high = f"{values.min():.3g}", f"{values.max():.3g}"
            told.append(f"{name} from {values[0]:.3g} to {values[-1]:.3g}, within {low} and {high}")
    told += [_clean(c.get_label()) for c in axis.collections if not c.get_label().startswith("_")]
    return told


def _bars(axis):
    """Each bar with its name and its length."""
    told = []
    for container in axis.containers:
        if not isinstance(container, BarContainer):
            continue
        upright = container.orientation == "vertical"
        side = axis.xaxis if upright else axis.yaxis
        ticks = zip(side.get_ticklocs(), side.get_ticklabels(), strict=True)
        names = {round(at, 6): _text(tick) for at, tick in ticks}
        sizes = [bar.get_height() if upright else bar.get_width() for bar in container]
        label = (
            "" if container.get_label().startswith("_") else f"{_clean(container.get_label())}, "
        )
        if len(sizes) > SEVERAL:
            told.append(f"{label}{len(sizes)} bars from {min(sizes):.3g} to {max(sizes):.3g}")
            continue
        for bar, size in zip(container, sizes, strict=True):
            middle = bar.get_center()[0 if upright else 1]
            told.append(f"{label}{names.get(round(middle, 6), '')} {size:.3g}".strip())
    return told


def _title(axis):
    return _clean(axis.get_title() or axis.get_title(loc="left"))


def _text(artist):
    return _clean(artist.get_text())


def _clean(text):
    return " ".join(text.replace("$", "").split())
