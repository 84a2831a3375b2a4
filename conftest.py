"""For all tests, those in solutions/ too: how they share the cores that there are."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded
os.environ["COURSE_STATIC"] = "1"  # no sliders in notebooks that nobody looks at
if "PYTEST_XDIST_WORKER" in os.environ:  # as many workers as cores: a thread each
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


def pytest_collection_modifyitems(items):
    """One worker runs all cells of a notebook, and all tests that share a server or a browser."""
    for item in items:
        if item.path.suffix == ".ipynb" or item.path.parent.name == "browser":
            item.add_marker(pytest.mark.xdist_group(item.path.name))
