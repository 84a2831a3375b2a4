"""The configurations of the paper's models and of timm's, by name."""

from difflib import get_close_matches

from coatnet.config import CoAtNetConfig


def sized(depths, width, stem_widths):
    widths = (width, 2 * width, 4 * width, 8 * width)
    return {"depths": depths, "widths": widths, "stem_widths": stem_widths}


NANO = sized((3, 4, 6, 3), 64, (32, 64))
RW_0 = sized((2, 3, 7, 2), 96, (32, 64))
RW_1 = sized((2, 6, 14, 2), 96, (32, 64))
RW_2 = sized((2, 6, 14, 2), 128, (64, 128)) | {"excite_activation": "silu"}
RW_3 = sized((2, 6, 14, 2), 192, (96, 192)) | {"excite_activation": "silu"}
NEW = {"activation": "silu", "expand_output": False, "attend_output": False, "mlp_head": False}
RW = NEW | {"pre_activation": True, "conv_bias": False, "excite_activation": "relu"}
POOLED = {"stride_in": "pool"}
EARLY = {"excite_first": True, "shortcut_bias": False}
MLP = {"position_bias": "mlp"}
MLP_384 = MLP | {"position_hidden": 384}
SCALED = {"layer_scale": 1e-6}
# The paper's models (table 3), then timm's own `_rw` ones, which vary almost every option
OPTIONS = {
    "coatnet_0_224": sized((2, 3, 5, 2), 96, (64, 64)),
    "coatnet_1_224": sized((2, 6, 14, 2), 96, (64, 64)),
    "coatnet_2_224": sized((2, 6, 14, 2), 128, (128, 128)),
    "coatnet_3_224": sized((2, 6, 14, 2), 192, (192, 192)),
    "coatnet_4_224": sized((2, 12, 28, 2), 192, (192, 192)),
    "coatnet_5_224": sized((2, 12, 28, 2), 256, (192, 192)) | {"widths": (256, 512, 1280, 2048)},
    "coatnet_pico_rw_224": NEW | NANO | {"depths": (2, 3, 5, 2)},
    "coatnet_nano_rw_224": NEW | NANO | POOLED,
    "coatnet_nano_cc_224": RW | NANO | POOLED | {"block_types": ("C", "C", "CT", "CT")},
    "coatnet_0_rw_224": RW | RW_0 | POOLED | EARLY,
    "coatnet_1_rw_224": RW | RW_1 | EARLY,
    "coatnet_2_rw_224": RW | RW_2,
    "coatnet_3_rw_224": RW | RW_3 | SCALED,
    "coatnet_bn_0_rw_224": RW | RW_0 | EARLY | {"norm": "batch"},
    "coatnet_rmlp_nano_rw_224": NEW | NANO | MLP_384,
    "coatnet_rmlp_0_rw_224": RW | RW_0 | MLP,
    "coatnet_rmlp_1_rw_224": RW | RW_1 | POOLED | EARLY | MLP_384 | {"pool": "max"},
    "coatnet_rmlp_1_rw2_224": RW | RW_1 | MLP,
    "coatnet_rmlp_2_rw_224": RW | RW_2 | MLP | SCALED,
    "coatnet_rmlp_2_rw_384": RW | RW_2 | MLP | SCALED,
    "coatnet_rmlp_3_rw_224": RW | RW_3 | MLP | SCALED,
}
CONFIGS = {name: CoAtNetConfig(**options) for name, options in OPTIONS.items()}


def list_models():
    """The names that `create_model` knows, those of `timm.list_models("coatnet_*")`, sorted."""
    return sorted(CONFIGS)


def get_config(name):
    """A model's configuration. Raises ValueError for an unknown name, with the nearest ones."""
    if name not in CONFIGS:
        near = get_close_matches(name, CONFIGS, cutoff=0.5) or list_models()
        raise ValueError(f"there is no model {name!r}; did you mean {', '.join(near)}?")
    return CONFIGS[name]
