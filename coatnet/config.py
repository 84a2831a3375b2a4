"""What tells one CoAtNet from another."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CoAtNetConfig:
    """What tells one CoAtNet from another; the defaults are CoAtNet-0 as timm builds it.

    Tuples have an entry a stage, S1 to S4. Where timm's `maxxvit.py` and the paper differ, the
    defaults follow timm, so that its weights fit; the classes say where that is.
    """

    depths: tuple[int, ...] = (2, 3, 5, 2)
    # Channels; a pair where MBConv and the transformer blocks of a stage differ (CoAtNet-6 and -7)
    widths: tuple[int | tuple[int, int], ...] = (96, 192, 384, 768)
    stem_widths: tuple[int, int] = (64, 64)  # of the two convolutions of S0
    stem_stride: int = 2  # 1 for images so small that five halvings leave nothing to look at
    # C is MBConv and T transformer. The last letter repeats to the stage's depth: "CT" is CTTT...
    block_types: tuple[str, ...] = ("C", "C", "T", "T")
    pool: str = "avg"  # of shortcuts and before attention: "avg", or the paper's "max"
    activation: str = "gelu"  # of the stem and MBConv: "gelu", "silu" or "relu"
    expand_output: bool = True  # MBConv is 4 x as wide inside as its output, or as its input
    pre_activation: bool = False  # an activation after MBConv's first norm
    conv_bias: bool = True  # in MBConv's last convolution and its shortcut
    stride_in: str = "depthwise"  # what halves the image in MBConv: "depthwise" or "pool"
    excite_first: bool = False  # squeeze-excite before MBConv's last norm instead of after it
    excite_activation: str = "silu"  # inside squeeze-excite, likewise
    head_dim: int = 32  # channels an attention head; the paper has 64 in -5, 128 in -6 and -7
    attend_output: bool = True  # attention is as wide as its output, or as its input
    shortcut_bias: bool = True  # in the transformer's shortcut
    layer_scale: float | None = None  # first value of a learned factor on transformer branches
    norm: str = "layer"  # in the transformer and before the head: "layer" or "batch"
    position_bias: str = "table"  # "table", or "mlp" for `RelativePositionMLP`
    position_hidden: int = 512  # width of that MLP
    mlp_head: bool = True  # a tanh layer before the classifier, and the norm after pooling
    head_hidden: int | None = None  # width of that tanh layer; None: that of S4
    dropout: float = 0.0  # before the classifier
    attention_dropout: float = 0.0  # of attention weights
    projection_dropout: float = 0.0  # after attention and in the feed-forward layers
    drop_path: float = 0.0  # stochastic depth in the last block, rising linearly from 0

    @property
    def widens(self) -> bool:
        """Whether transformer blocks are wider than the MBConv blocks of the same stage."""
        return any(isinstance(width, tuple) for width in self.widths)


PAPER = CoAtNetConfig()
