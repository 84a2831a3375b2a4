"""The models of the course by name, and the one rule for weight decay."""

import torch

from coatnet import CoAtNEt, CoAtNet, CoAtNetConfig, create_model
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


def make_vit(num_classes, image_size):
    """An 8 x 8 grid of patches, 128 wide, 4 deep."""
    return ViT(image_size, image_size // 8, 128, num_heads=4, num_classes=num_classes, depth=4)


def make_hybrid(num_classes, image_size):
    """Lesson 2's, 128 wide, 4 deep."""
    return CoAtNEt(image_size, 8, 128, num_heads=4, num_classes=num_classes, depth=4)


def make_small(num_classes, image_size):
    """A staged CoAtNet for small images: nothing is halved before the first stage."""
    return CoAtNet(SMALL, num_classes, image_size)


MODELS = {"vit": make_vit, "hybrid": make_hybrid, "small": make_small}


def build_model(settings, num_classes):
    """The model by its name, its first weights drawn with the run's seed."""
    torch.manual_seed(settings["seed"])
    name, size = settings["model"], settings["image_size"]
    if name in MODELS:
        return MODELS[name](num_classes, size)
    return create_model(name, num_classes, size, pretrained=settings["pretrained"])


def make_optimizer(model, lr, weight_decay):
    """AdamW without decay of norms, biases and, in a CoAtNet, relative positions."""
    if hasattr(model, "no_weight_decay"):
        resting = model.no_weight_decay()
    else:
        resting = {name for name, p in model.named_parameters() if p.ndim < 2}
    decay = [p for name, p in model.named_parameters() if name not in resting]
    no_decay = [p for name, p in model.named_parameters() if name in resting]
    groups = [{"params": decay}, {"params": no_decay, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, weight_decay=weight_decay)
