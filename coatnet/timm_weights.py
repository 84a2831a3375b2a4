"""Weights from timm, published or in a model at hand, which lesson 6 rebuilds."""

from contextlib import suppress
from dataclasses import replace
from itertools import zip_longest
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from torch import nn

from coatnet.config import CoAtNetConfig
from coatnet.family import CONFIGS, get_config
from coatnet.layers import ACTIVATIONS
from coatnet.staged import CoAtNet


def create_model(
    name: str,
    num_classes: int = 1000,
    image_size: int | tuple[int, int] = 224,
    pretrained: bool = False,
    in_channels: int = 3,
    **options: Any,
) -> CoAtNet:
    """A CoAtNet by its name in timm, such as "coatnet_0_224"; `list_models()` has them all.

    `options` replace fields of the model's `CoAtNetConfig`, such as drop_path=0.2. With
    `pretrained=True`, timm fetches ImageNet weights. They are adapted to `in_channels` and
    `image_size`, but the classifier is a fresh one where `num_classes` is not theirs (1000, and
    11821 for coatnet_3_rw_224).

    Raises ValueError for an unknown name, and when asked for weights that nobody published;
    ConnectionError where there is no network.
    """
    model = CoAtNet(replace(get_config(name), **options), num_classes, image_size, in_channels)
    if pretrained:
        timm_model = fetch(name, num_classes=num_classes, in_chans=in_channels)
        model.load_state_dict(from_timm(timm_model).state_dict())
    return model


def fetch(name: str, **options: Any) -> nn.Module:
    """timm's model with its published weights. Raises as `create_model` does."""
    import timm  # here alone, since the models themselves do not need it
    from huggingface_hub import constants, try_to_load_from_cache

    published = sorted({tagged.split(".")[0] for tagged in timm.list_pretrained("coatnet_*")})
    if name not in published:
        raise ValueError(f"{name} has no published weights; these have: {', '.join(published)}")
    try:
        weights: Any = timm.get_pretrained_cfg(name)
        if not try_to_load_from_cache(weights.hf_hub_id, "model.safetensors"):
            # Ask first: without a network, the download would go on trying for a minute
            with suppress(HTTPError):  # an answer, whatever it says
                urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=10)
        return timm.create_model(name, pretrained=True, **options)
    except OSError as error:
        raise ConnectionError(f"no network to fetch {name} from: {error}") from None


# What timm calls its layers, and what we do; replaced from top to bottom
TIMM_NAMES = {
    ".blocks.": ".",
    ".conv1_1x1.": ".expand.",
    ".conv2_kxk.": ".depthwise.",
    ".conv3_1x1.": ".project.",
    ".se_early.": ".se.",
    ".se.fc1.": ".squeeze_excite.squeeze.",
    ".se.fc2.": ".squeeze_excite.excite.",
    ".shortcut.expand.": ".shortcut.proj.",
    ".norm1.norm.": ".norm1.",
    ".attn.rel_pos.relative_position_bias_table": ".attention.position_bias.table",
    ".attn.rel_pos.mlp.fc1.": ".attention.position_bias.mlp.0.",
    ".attn.rel_pos.mlp.fc2.": ".attention.position_bias.mlp.3.",
    ".attn.": ".attention.",
    ".ls1.gamma": ".layer_scale1.scale",
    ".ls2.gamma": ".layer_scale2.scale",
    ".mlp.fc1.": ".feed_forward.0.",
    ".mlp.fc2.": ".feed_forward.3.",
    "head.pre_logits.fc.": "head.hidden.",
    "head.fc.": "head.classifier.",
}


def from_timm(timm_model: nn.Module) -> CoAtNet:
    """A CoAtNet with the weights of a timm one, in its type, on its device and in its mode.

    For what `timm.create_model("coatnet_...")` returns, with any options that `CoAtNetConfig` can
    express: `img_size`, `in_chans`, `num_classes` (0 too), `depths`, `embed_dim`, `stem_width`,
    drop rates, `head_hidden_size` and others; wrapped by torch.compile or DataParallel, too.
    Raises ValueError for other models, and for options that would give other logits.
    """
    given = unwrapped(timm_model)
    config = read_config(given)
    if given.head.global_pool.pool_type != "avg":
        kind = given.head.global_pool.pool_type
        raise ValueError(f"global_pool={kind!r} would give other logits: a CoAtNet's head means")
    sizes = (given.num_classes, given.img_size, given.in_chans)
    require_same_layers(given, build_timm(config, *sizes, device="meta"))
    model = CoAtNet(config, *sizes)
    theirs = {our_name(key): value for key, value in given.state_dict().items()}
    weights = {}
    for key, value in model.state_dict().items():
        theirs[key] = theirs[key].T if key.endswith("position_bias.table") else theirs[key]
        weights[key] = theirs.pop(key).reshape(value.shape)  # 1x1 convolutions become matrices
    model.load_state_dict(weights | theirs)
    return model.to(given.stem.conv1.weight).train(given.training)


def to_timm(model: CoAtNet) -> nn.Module:
    """timm's model with the weights of a CoAtNet: the same logits, type, device and mode.

    So what was trained here runs in all tools made for timm. Raises ValueError where timm has no
    such model: a stem of stride 1, a stage of two widths, an image size that 32 does not divide.
    """
    given = unwrapped(model)
    config = given.config
    if config.stem_stride != 2 or not all(isinstance(width, int) for width in config.widths):
        raise ValueError("timm's CoAtNets have a stem of stride 2 and one width a stage")
    if any(length % 32 for length in given.image_size):
        raise ValueError(
            f"timm rounds down where we round up: 32 must divide the image size {given.image_size};"
            " load the weights into a CoAtNet of another image_size first"
        )
    timm_model = build_timm(config, given.num_classes, given.image_size, given.in_channels)
    ours, weights = given.state_dict(), {}
    for key, value in timm_model.state_dict().items():
        weights[key] = ours[our_name(key)]
        if key.endswith("position_bias_table"):
            weights[key] = weights[key].flatten(1).T  # [heads, offsets] -> [offsets, heads]
        weights[key] = weights[key].reshape(value.shape)
    timm_model.load_state_dict(weights)
    return timm_model.to(given.stem.conv1.weight).train(given.training)


def our_name(key: str) -> str:
    """The name of a tensor in our state dict, given timm's."""
    for theirs, ours in TIMM_NAMES.items():
        key = key.replace(theirs, ours)
    return key


def unwrapped(model: nn.Module) -> Any:
    """The model inside torch.compile's and DataParallel's wrappers."""
    while wrapper := {"_orig_mod", "module"} & set(model._modules):
        model = model.get_submodule(wrapper.pop())
    return model


def read_config(timm_model: Any) -> CoAtNetConfig:
    """The configuration of a timm model, read from its layers."""
    kinds = {"MbConvBlock": "C", "TransformerBlock2d": "T"}
    stages = [list(stage.blocks) for stage in getattr(timm_model, "stages", ())]
    letters = ["".join(kinds.get(type(block).__name__, "?") for block in s) for s in stages]
    if type(timm_model).__name__ != "MaxxVit" or "?" in "".join(letters):
        name = (getattr(timm_model, "pretrained_cfg", None) or {}).get("architecture", "")
        raise ValueError(f"no CoAtNet of timm's: {name or type(timm_model).__name__}")
    stem, head = timm_model.stem, timm_model.head
    convolutions = [b for s in stages for b in s if type(b).__name__ == "MbConvBlock"]
    transformers = [b for s in stages for b in s if type(b).__name__ == "TransformerBlock2d"]
    options: dict[str, Any] = {
        "depths": tuple(map(len, stages)),
        "widths": tuple(info["num_chs"] for info in timm_model.feature_info[1:]),
        "stem_widths": (stem.conv1.out_channels, stem.conv2.out_channels),
        "block_types": tuple(letters),
        "activation": activation_of(stem.norm1.act),
        "mlp_head": hasattr(head, "pre_logits"),
        "head_hidden": getattr(head, "hidden_size", None),
        "dropout": head.drop.p,
        "drop_path": max(getattr(m, "drop_prob", 0.0) for m in timm_model.modules()),
    }
    if convolutions:
        options |= read_mbconv(convolutions)
    if transformers:
        options |= read_transformer(transformers)
    return CoAtNetConfig(**options)


def read_mbconv(blocks: list[Any]) -> dict[str, Any]:
    """The options of MBConv; the first block of all halves the image."""
    block = blocks[0]
    excite = block.se or block.se_early
    if not hasattr(excite, "fc1"):
        raise ValueError(f"no CoAtNetConfig gives timm's layer {type(excite).__name__}")
    hidden, channels = block.conv1_1x1.out_channels, block.conv3_1x1.out_channels
    return {
        "pool": pool_of(block.shortcut.pool),
        "expand_output": hidden == 4 * channels and excite.fc1.out_channels == channels // 4,
        "pre_activation": not isinstance(block.pre_norm.act, nn.Identity),
        "conv_bias": block.conv3_1x1.bias is not None,
        "stride_in": "depthwise" if isinstance(block.down, nn.Identity) else "pool",
        "excite_first": block.se is None,
        "excite_activation": activation_of(excite.act),
    }


def read_transformer(blocks: list[Any]) -> dict[str, Any]:
    """The options of transformer blocks; the first of all halves the image, or follows MBConv."""
    block, attention = blocks[0], blocks[0].attn
    strided = [b for b in blocks if not isinstance(b.shortcut, nn.Identity)]
    positions = attention.rel_pos
    options: dict[str, Any] = {
        "head_dim": attention.dim_head,
        "attend_output": attention.proj.in_channels == attention.proj.out_channels,
        "layer_scale": 1e-6 if hasattr(block.ls1, "gamma") else None,
        "norm": "batch" if isinstance(block.norm2, nn.BatchNorm2d) else "layer",
        "attention_dropout": attention.attn_drop.p,
        "projection_dropout": attention.proj_drop.p,
    }
    if hasattr(positions, "mlp"):
        options |= {"position_bias": "mlp", "position_hidden": positions.mlp.fc1.out_features}
    if strided:
        options["pool"] = pool_of(strided[0].shortcut.pool)
        projections = [b.shortcut.expand for b in strided if hasattr(b.shortcut.expand, "bias")]
        options["shortcut_bias"] = all(layer.bias is not None for layer in projections)
    return options


def activation_of(layer: nn.Module) -> str:
    name = type(layer).__name__.lower()
    if name not in ACTIVATIONS:
        raise ValueError(f"no CoAtNetConfig has the activation {type(layer).__name__}")
    return name


def pool_of(layer: nn.Module) -> str:
    return "max" if isinstance(layer, nn.MaxPool2d) else "avg"


def build_timm(
    config: CoAtNetConfig,
    num_classes: int,
    image_size: tuple[int, int],
    in_channels: int,
    device: str | None = None,
) -> nn.Module:
    """timm's model of a configuration, with first weights, under the name of the same layers."""
    import timm

    plain = replace(
        config, dropout=0.0, attention_dropout=0.0, projection_dropout=0.0, drop_path=0.0
    )
    base = "coatnet_0_224" if config.mlp_head else "coatnet_pico_rw_224"
    name = next((name for name, known in CONFIGS.items() if known == plain), base)
    return timm.create_model(
        name,
        num_classes=num_classes,
        img_size=image_size,
        in_chans=in_channels,
        device=device,
        embed_dim=config.widths,
        depths=config.depths,
        block_type=tuple(map(tuple, config.block_types)),
        stem_width=config.stem_widths,
        head_hidden_size=(config.head_hidden or config.widths[-1]) if config.mlp_head else None,
        drop_rate=config.dropout,
        drop_path_rate=config.drop_path,
        conv_pool_type="max" if config.pool == "max" else "avg2",
        conv_act_layer=config.activation,
        conv_expand_output=config.expand_output,
        conv_pre_norm_act=config.pre_activation,
        conv_output_bias=config.conv_bias,
        conv_stride_mode="dw" if config.stride_in == "depthwise" else "pool",
        conv_attn_early=config.excite_first,
        conv_attn_act_layer=config.excite_activation,
        conv_attn_ratio=0.25,
        transformer_pool_type="max" if config.pool == "max" else "avg2",
        transformer_dim_head=config.head_dim,
        transformer_expand_first=config.attend_output,
        transformer_shortcut_bias=config.shortcut_bias,
        transformer_init_values=config.layer_scale,
        transformer_norm_layer="batchnorm2d" if config.norm == "batch" else "layernorm2d",
        transformer_rel_pos_type="mlp" if config.position_bias == "mlp" else "bias",
        transformer_rel_pos_dim=config.position_hidden,
        transformer_attn_drop=config.attention_dropout,
        transformer_proj_drop=config.projection_dropout,
    )


def require_same_layers(given: nn.Module, rebuilt: nn.Module) -> None:
    """Raises ValueError unless both print alike: no option may get lost in silence."""
    for one, other in zip_longest(str(given).splitlines(), str(rebuilt).splitlines(), fillvalue=""):
        if one != other:
            raise ValueError(
                f"no CoAtNetConfig gives timm's layer {one.strip()!r}, only {other.strip()!r}"
            )
