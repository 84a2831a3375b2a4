"""The check of lesson 6, exercise 4: settings from nothing but the shapes of weights."""

import functools
import math

import numpy
import torch

from coatnet import CoAtNet, CoAtNetConfig
from course.checking import CheckFailed, exercise, students_code
from course.checks import mistakes06
from course.comparing import require_unchanged


def read_settings(shapes):
    """The reference of exercise 4: what the shapes of our weights say about the configuration."""
    stages = [{n.split(".")[2] for n in shapes if n.startswith(f"stages.{s}.")} for s in range(4)]
    width, channels = shapes["stages.3.0.attention.qkv.weight"][:2]
    return {
        "depths": tuple(map(len, stages)),
        "expand_output": shapes["stages.1.0.expand.weight"][0]
        == 4 * shapes["stages.1.0.project.weight"][0],
        "attend_output": width != 3 * channels,
        "conv_bias": "stages.1.0.project.bias" in shapes,
        "shortcut_bias": "stages.3.0.shortcut.proj.bias" in shapes,
        "mlp_head": "head.hidden.weight" in shapes,
    }


FLAGS = ("expand_output", "attend_output", "conv_bias", "shortcut_bias", "mlp_head")
DEPTHS = [(1, 3, 2, 4), (2, 6, 14, 1), (3, 2, 5, 2), (1, 12, 3, 11), (2, 2, 1, 3), (1, 3, 4, 2)]
WIDTHS = [(32, 64, 96, 192), (48, 96, 64, 128)]


@functools.cache
def _setting_cases():
    """Shapes by name of models in which each setting differs from all others, once each way."""
    cases = {}
    for all_others in (True, False):
        for number, flag in enumerate((None, *FLAGS)):
            flags = dict.fromkeys(FLAGS, all_others) | ({flag: not all_others} if flag else {})
            plan = {"depths": (2,) * 4, "widths": WIDTHS[number % 2], "stem_widths": (16, 32)}
            name = f"a model with {', '.join(f for f in FLAGS if flags[f]) or 'nothing'} True"
            with torch.device("meta"):
                model = CoAtNet(CoAtNetConfig(**plan, **flags), 7, 64)
            cases[name] = _deepened(shapes_by_name(model), DEPTHS[number])
    return cases


def shapes_by_name(module):
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def _deepened(shapes, depths):
    """The shapes of a model of those depths, from those of one with two blocks a stage."""
    deep = {}
    for name, shape in shapes.items():
        if not name.startswith("stages."):
            deep[name] = shape
            continue
        _, stage, block, rest = name.split(".", 3)
        blocks = range(1, depths[int(stage)]) if block == "1" else [0]
        deep |= {f"stages.{stage}.{number}.{rest}": shape for number in blocks}
    return deep


@exercise("Settings from shapes", read_settings, ())
def settings(answer):
    cases = _setting_cases()
    results = [
        (read_settings(shapes), _settings_of(answer, name, shapes))
        for name, shapes in cases.items()
    ]
    for name, (right, came) in zip(cases, results, strict=True):
        for key, value in right.items():
            if came[key] != value or not isinstance(came[key], type(value)):
                pairs = [(expected[key], other[key]) for expected, other in results]
                likely = mistakes06.setting_mistake(key, value, came[key], pairs)
                raise CheckFailed(f"{key} = {value}, of {name}", f"{came[key]}", likely)
    return f"six settings of {len(cases)} models, from nothing but the shapes of their weights."


def _settings_of(answer, name, shapes):
    """What the answer reads, with tuples for lists and Python's own numbers and truths."""
    right = read_settings(shapes)
    with students_code(f"the settings of {name}"):
        given = dict(shapes)
        came = answer(given)
    require_unchanged((given,), (dict(shapes),), "read_settings(shapes)")
    if not isinstance(came, dict):
        likely = "the function has no `return`" if came is None else "return a dictionary"
        raise CheckFailed(f"a dictionary with {', '.join(right)}", type(came).__name__, likely)
    if came.keys() != right.keys():
        missing = [key for key in right if key not in came]
        likely = f"`{missing[0]}` is missing" if missing else "six entries, and no others"
        raise CheckFailed(f"the keys {', '.join(right)}", ", ".join(map(str, came)), likely)
    return {key: _plain(value) for key, value in came.items()}


def _plain(value):
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    if isinstance(value, torch.Tensor | numpy.ndarray | numpy.generic):
        return value.item() if math.prod(value.shape) == 1 else tuple(value.tolist())
    return value
