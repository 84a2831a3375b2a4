"""The configurations of the paper's models and of timm's, by name."""

from dataclasses import replace
from difflib import get_close_matches

from coatnet.config import CoAtNetConfig


def sized(depths: tuple, width: int, stem_widths: tuple) -> dict:
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
# timm's models of the paper's sizes, then its own `_rw` ones, which vary almost every option
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


def paper_config(number: int) -> CoAtNetConfig:
    """CoAtNet-`number` of the paper, 0 to 7: tables 3 (-0 to -4), 11 (-5) and 12 (-6 and -7).

    -5 has attention heads of 64 channels where timm's `coatnet_5_224` has 32; -6 and -7 have heads
    of 128, and 8 MBConv blocks in S3 before its 42 transformer blocks of twice the width. Where the
    paper leaves something open or timm differs (see `CoAtNetConfig`), it is timm's choice.
    Parameters at 224 px with 1000 classes, in millions, beside the published ones:

        -0     -1     -2      -3      -4      -5       -6       -7
        25.04  42.23  74.68  166.97  275.43  687.05  1348.44  2441.97
        25     42     75     168     275     688     1470     2440

    -3 is 167 in the paper's first version. With 3072 channels in S4, as -7 has, -6 has 1471.13: its
    table and its count do not fit together. -3 and -5 do not round to what is published either.
    """
    if number not in range(8):
        raise ValueError(f"the paper has CoAtNet-0 to CoAtNet-7, got {number}")
    if number < 6:
        config = CONFIGS[f"coatnet_{number}_224"]
        return replace(config, head_dim=64) if number == 5 else config
    return CoAtNetConfig(
        depths=(2, 4, 50, 2),
        widths=(192, 384, (768, 1536), 2048) if number == 6 else (256, 512, (1024, 2048), 3072),
        stem_widths=(192, 192),
        block_types=("C", "C", "CCCCCCCCT", "T"),
        head_dim=128,
    )


def list_models() -> list[str]:
    """The names that `create_model` knows, those of `timm.list_models("coatnet_*")`, sorted."""
    return sorted(CONFIGS)


def get_config(name: str) -> CoAtNetConfig:
    """A model's configuration. Raises ValueError for an unknown name, with the nearest ones."""
    if name not in CONFIGS:
        near = get_close_matches(name, CONFIGS, cutoff=0.5) or list_models()
        raise ValueError(f"there is no model {name!r}; did you mean {', '.join(near)}?")
    return CONFIGS[name]
