"""Weights from timm, published or in a model at hand, which lesson 6 rebuilds."""

from contextlib import suppress
from dataclasses import replace
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from coatnet.family import get_config
from coatnet.staged import CoAtNet


def create_model(
    name, num_classes=1000, image_size=224, pretrained=False, in_channels=3, **options
):
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


def fetch(name, **options):
    """timm's model with its published weights. Raises as `create_model` does."""
    import timm  # here alone, since the models themselves do not need it
    from huggingface_hub import constants, try_to_load_from_cache

    published = sorted({tagged.split(".")[0] for tagged in timm.list_pretrained("coatnet_*")})
    if name not in published:
        raise ValueError(f"{name} has no published weights; these have: {', '.join(published)}")
    try:
        repository = timm.get_pretrained_cfg(name).hf_hub_id
        if not try_to_load_from_cache(repository, "model.safetensors"):
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


def from_timm(timm_model):
    """A CoAtNet with the weights of a timm one, in its type, on its device and in its mode.

    For what `timm.create_model("coatnet_...")` returns, with any `img_size`, `in_chans`,
    `num_classes`, `depths`, `embed_dim` and `stem_width`. Raises ValueError for other models.
    """
    name = (getattr(timm_model, "pretrained_cfg", None) or {}).get("architecture", "")
    config = get_config(name)
    stem, stages = timm_model.stem, timm_model.stages
    config = replace(
        config,
        depths=tuple(len(stage.blocks) for stage in stages),
        widths=tuple(info["num_chs"] for info in timm_model.feature_info[1:]),
        stem_widths=(stem.conv1.out_channels, stem.conv2.out_channels),
    )
    model = CoAtNet(config, timm_model.num_classes, timm_model.img_size, timm_model.in_chans)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    weights = {}
    for key, value in timm_model.state_dict().items():
        for theirs, ours in TIMM_NAMES.items():
            key = key.replace(theirs, ours)
        if key.endswith("position_bias.table"):
            value = value.T  # [offsets, heads] -> [heads, offsets]
        weights[key] = value.reshape(shapes[key])  # a 1x1 convolution's weights become a matrix
    model.load_state_dict(weights)
    return model.to(stem.conv1.weight).train(timm_model.training)
