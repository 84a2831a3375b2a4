"""CoAtNet from scratch: what the notebooks import, and the commands around them."""

import sys

from course.threads import share_cores

share_cores()  # before anything loads torch


def _figures_say_what_they_show():
    """In a notebook, matplotlib's figures get alt text: see `course/alt_text.py`."""

    def add_alt_text(figure, include=None, exclude=None):
        from course.alt_text import describe

        try:
            return {}, {"image/png": {"alt": describe(figure)}}  # matplotlib adds the picture
        except Exception:  # a figure is shown, whatever it is made of
            return {}, {}

    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        bundles = shell.display_formatter.mimebundle_formatter
        bundles.for_type_by_name("matplotlib.figure", "Figure", add_alt_text)


_figures_say_what_they_show()
