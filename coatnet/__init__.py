"""CoAtNet, written to be read: the reference that lessons 2 to 6 rebuild, a module a lesson.

Dai et al., "CoAtNet: Marrying Convolution and Attention for All Data Sizes", arXiv 2106.04803.
"""

from coatnet import own_vit as own_vit

# isort: split  (the rest imports `vit`)
from coatnet.attention import (
    HEAD_DIM,
    RelativeAttention,
    RelativePositionBias,
    RelativePositionMLP,
    TransformerBlock,
    relative_position_index,
    resize_table,
)
from coatnet.config import PAPER, CoAtNetConfig
from coatnet.family import CONFIGS, get_config, list_models, paper_config
from coatnet.fused import fused
from coatnet.hybrid import CNNStem, CoAtNEt
from coatnet.layers import (
    DropPath,
    FeedForward2d,
    LayerNorm2d,
    LayerScale,
    make_norm,
    make_pool,
    make_shortcut,
)
from coatnet.mbconv import MBConv, SqueezeExcite
from coatnet.staged import CoAtNet, Head, Stem, halved
from coatnet.timm_weights import create_model, fetch, from_timm, to_timm

__all__ = [
    "CONFIGS",
    "HEAD_DIM",
    "PAPER",
    "CNNStem",
    "CoAtNEt",
    "CoAtNet",
    "CoAtNetConfig",
    "DropPath",
    "FeedForward2d",
    "Head",
    "LayerNorm2d",
    "LayerScale",
    "MBConv",
    "RelativeAttention",
    "RelativePositionBias",
    "RelativePositionMLP",
    "SqueezeExcite",
    "Stem",
    "TransformerBlock",
    "create_model",
    "fetch",
    "from_timm",
    "fused",
    "get_config",
    "halved",
    "list_models",
    "make_norm",
    "make_pool",
    "make_shortcut",
    "paper_config",
    "relative_position_index",
    "resize_table",
    "to_timm",
]
