"""The models of the course by name, published weights, and the one rule for weight decay."""

import difflib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from coatnet import CoAtNEt, CoAtNet, CoAtNetConfig, create_model, from_timm, list_models
from vit import ViT

# For a few minutes on a CPU; benchmarks/time_to_accuracy.py puts it beside others
SMALL = CoAtNetConfig(
    depths=(1, 2, 2, 1),
    widths=(48, 96, 192, 256),
    block_types=("C", "C", "C", "T"),
    stem_widths=(24, 24),
    stem_stride=1,
    stride_in="pool",
    mlp_head=False,
)


def make_vit(num_classes: int, image_size: int) -> ViT:
    """An 8 x 8 grid of patches, 128 wide, 4 deep."""
    if image_size % 8 or not image_size:
        raise ValueError(f"vit takes 8 x 8 patches: --image-size {image_size} is no multiple of 8")
    return ViT(image_size, image_size // 8, 128, num_heads=4, num_classes=num_classes, depth=4)


def make_hybrid(num_classes: int, image_size: int) -> CoAtNEt:
    """Lesson 2's, 128 wide, 4 deep."""
    return CoAtNEt(image_size, 8, 128, num_heads=4, num_classes=num_classes, depth=4)


def make_small(num_classes: int, image_size: int) -> CoAtNet:
    """A staged CoAtNet for small images: nothing is halved before the first stage."""
    return CoAtNet(SMALL, num_classes, image_size)


MODELS: dict[str, Callable[[int, int], nn.Module]] = {
    "vit": make_vit,
    "hybrid": make_hybrid,
    "small": make_small,
}


def check_model(name: str) -> None:
    """Raises ValueError unless a model of the course, or one of the family, has that name."""
    names = [*MODELS, *list_models()]
    if name not in names:
        near = difflib.get_close_matches(name, names, cutoff=0.5) or names
        raise ValueError(f"no model is called {name!r}: did you mean {' or '.join(near)}?")


def build_model(name: str, num_classes: int, image_size: int, seed: int = 0) -> nn.Module:
    """The model of that name, its weights drawn with the seed."""
    check_model(name)
    torch.manual_seed(seed)
    if name in MODELS:
        return MODELS[name](num_classes, image_size)
    return create_model(name, num_classes, image_size)


@dataclass
class Published:
    """What published weights were trained on, which is what they want to see.

    `classes` are WordNet's ids, such as "n01440764", in the order of the logits.
    """

    image_size: int
    mean: list[float]
    std: list[float]
    interpolation: str
    crop_share: float  # of a picture's shorter side, which is brought to image_size
    classes: list[str]
    descriptions: list[str]


def published(name: str) -> Published:
    """Of the weights that timm has under the name. Raises ValueError where there are none."""
    import timm  # here and below alone: it takes seconds, and most runs do not need it
    from timm.data import ImageNetInfo

    cfg = timm.get_pretrained_cfg(name) if name in list_models() else None
    if cfg is None or not cfg.has_weights:
        raise ValueError(f"nobody published weights of {name}")
    names = {1000: "imagenet-1k", 11821: "imagenet-12k"}
    info = ImageNetInfo(names[cfg.num_classes])
    classes, described = info.label_names(), info.label_descriptions()
    size, crop = cfg.input_size[-1], cfg.crop_pct
    mean, std = list(cfg.mean), list(cfg.std)
    return Published(size, mean, std, cfg.interpolation, crop, classes, list(described))


def pretrained_model(
    name: str, num_classes: int, image_size: int, file: str | Path | None = None
) -> CoAtNet:
    """The model with its published weights, from the network or from timm's `file` of them.

    The classifier is a fresh one where `num_classes` is not theirs. Raises ValueError where there
    are no weights, or not in this file, and ConnectionError where there is no network.
    """
    if file is None:
        return create_model(name, num_classes, image_size, pretrained=True)
    import timm

    theirs: Any = timm.create_model(name)
    try:  # all of them must be there: timm's own pretrained_cfg lets some stay at random
        theirs.load_state_dict(timm.models.load_state_dict(str(file), weights_only=True))
    except FileNotFoundError:
        raise ValueError(f"there is no file {file}") from None
    except (RuntimeError, pickle.UnpicklingError, KeyError, EOFError) as error:
        reason = " ".join(str(error).split())[:150]
        raise ValueError(f"{file} does not hold timm's weights of {name}: {reason}") from None
    if num_classes != theirs.num_classes:
        theirs.reset_classifier(num_classes)
    model = create_model(name, num_classes, image_size)
    model.load_state_dict(from_timm(theirs).state_dict())
    return model


def make_optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that lets norms and biases as they are, and what else the model wants to keep.

    Norms and biases have one dimension; a model's `no_weight_decay`, as in timm, names the others:
    CoAtNet's relative positions.
    """
    named = getattr(model, "no_weight_decay", None)
    kept = named() if named is not None else set()
    resting = {name for name, p in model.named_parameters() if p.ndim <= 1 or name in kept}
    decay = [p for name, p in model.named_parameters() if name not in resting]
    no_decay = [p for name, p in model.named_parameters() if name in resting]
    groups: list[dict] = [{"params": decay}, {"params": no_decay, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay)
