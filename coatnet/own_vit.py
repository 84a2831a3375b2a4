"""The `vit` of this course, even where another vit.py lies beside the notebook and hides it."""

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).parents[1] / "vit.py"


def use_own_vit(path: Path = HERE) -> None:
    """Makes `vit` mean the file beside this package, for all that imports it from now on.

    Python looks beside the notebook first. Where it has found another vit.py there already, that
    module is filled anew, so that a name bound to it means the course's as well.
    """
    spec = importlib.util.spec_from_file_location("vit", path)
    found = sys.modules.get("vit")
    if not path.exists() or spec is None or spec.loader is None:
        return
    if found is not None:
        came_from = getattr(found, "__file__", None)
        if came_from and Path(came_from).resolve() == path.resolve():
            return
        print(f"({came_from} has the name of the course's vit.py, which is used; rename yours)")
    module = importlib.util.module_from_spec(spec) if found is None else found
    if found is not None:
        vars(module).clear()
        vars(module).update(vars(importlib.util.module_from_spec(spec)))
    sys.modules["vit"] = module
    spec.loader.exec_module(module)


use_own_vit()
