"""from_timm and to_timm with whatever options timm takes, and the paper's own family."""

import pytest
import timm
import torch
from torch import nn

from coatnet import CoAtNet, CoAtNetConfig, from_timm, list_models, paper_config, to_timm
from tests.coatnet.test_family import assert_close, randomise

TINY = {
    "depths": (1, 1, 2, 1),
    "embed_dim": (32, 64, 96, 128),
    "stem_width": (16, 32),
    "img_size": 64,
    "num_classes": 7,
}


def timm_model(name="coatnet_0_224", **options):
    torch.manual_seed(0)
    return randomise(timm.create_model(name, **{**TINY, **options})).eval()


def require_equal_logits(one, other, bound=1e-4):
    images = torch.randn(2, one.in_chans, *one.img_size).to(one.stem.conv1.weight)
    with torch.no_grad():
        assert_close(other(images), one(images), bound)


@pytest.mark.parametrize(
    "options",
    [
        {"num_classes": 0},
        {"in_chans": 1},
        {"img_size": (96, 64)},
        {"head_hidden_size": 24},
        {"embed_dim": (32, 128, 128, 128), "conv_expand_output": False},
        {"embed_dim": (32, 32, 32, 32), "transformer_expand_first": False},
        {"block_type": ("T", "T", "T", "T")},
        {"block_type": ("C", "C", "C", "C")},
        {"block_type": ("C", "C", ("C", "T"), "T")},
        {"conv_act_layer": "relu", "conv_attn_act_layer": "gelu"},
        {"conv_pre_norm_act": True, "conv_stride_mode": "pool", "conv_attn_early": True},
        {"conv_pool_type": "max", "transformer_pool_type": "max"},
        {"transformer_dim_head": 16, "transformer_shortcut_bias": False},
        {"transformer_init_values": 0.1, "transformer_norm_layer": "batchnorm2d"},
        {"transformer_rel_pos_type": "mlp", "transformer_rel_pos_dim": 33},
    ],
)
def test_every_option_that_a_config_has_goes_there_and_back(options):
    theirs = timm_model(**options)
    ours = from_timm(theirs)
    require_equal_logits(theirs, ours)
    back = to_timm(ours)
    assert str(back) == str(theirs)
    assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in back.state_dict().items())


@pytest.mark.parametrize("name", list_models())
def test_to_timm_gives_the_logits_of_every_model(name):
    theirs = timm_model(name).double()
    ours = from_timm(theirs)
    back = to_timm(ours)
    require_equal_logits(theirs, back, 1e-9)
    with torch.no_grad():  # the same comparison sees a table that is lost
        for key, value in back.state_dict().items():
            if "bias_table" in key or "rel_pos.mlp.fc2" in key:
                value.zero_()
    images = torch.randn(2, 3, 64, 64).double()
    assert (back(images) - ours(images)).abs().max() > 1e-3 * ours(images).abs().max()


def test_what_was_trained_here_loads_in_timm_by_name(tmp_path):
    from coatnet import create_model

    torch.manual_seed(0)
    model = randomise(create_model("coatnet_nano_rw_224", num_classes=5, image_size=64)).eval()
    theirs = to_timm(model)
    assert theirs.pretrained_cfg["architecture"] == "coatnet_nano_rw_224"
    file = tmp_path / "model.pth"
    torch.save(theirs.state_dict(), file)
    loaded = timm.create_model(
        "coatnet_nano_rw_224", num_classes=5, img_size=64, checkpoint_path=str(file)
    ).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert_close(loaded(images), model(images), 1e-4)


def test_drop_rates_are_kept():
    rates = {
        "drop_rate": 0.1,
        "drop_path_rate": 0.2,
        "transformer_attn_drop": 0.3,
        "transformer_proj_drop": 0.4,
    }
    theirs = timm_model(**rates)
    config = from_timm(theirs).config
    assert (config.dropout, config.attention_dropout, config.projection_dropout) == (0.1, 0.3, 0.4)
    assert config.drop_path == pytest.approx(0.2)
    ours = from_timm(theirs)
    assert [b.drop_path.rate for s in ours.stages for b in s] == pytest.approx(
        [0, 0.05, 0.1, 0.15, 0.2]
    )
    assert str(to_timm(ours)) == str(theirs)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda m: torch.compile(m, backend="eager"),
        nn.DataParallel,
        lambda m: torch.compile(nn.DataParallel(m), backend="eager"),
        lambda m: nn.DataParallel(torch.compile(m, backend="eager")),
    ],
)
def test_wrapped_models_go_both_ways(wrap):
    theirs = timm_model()
    ours = from_timm(wrap(theirs))
    require_equal_logits(theirs, ours)
    require_equal_logits(theirs, to_timm(wrap(ours)))


@pytest.mark.parametrize("mode", [True, False])
def test_type_and_mode_are_kept_both_ways(mode):
    theirs = timm_model().double().train(mode)
    ours = from_timm(theirs)
    for model in (ours, to_timm(ours)):
        assert model.training is mode
        assert {p.dtype for p in model.parameters()} == {torch.float64}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"global_pool": "max"}, "global_pool='max'"),
        ({"global_pool": "", "name": "coatnet_nano_rw_224"}, "global_pool=''"),
        ({"global_pool": "avgmax", "name": "coatnet_nano_rw_224"}, "global_pool='avgmax'"),
        ({"conv_act_layer": "gelu_tanh"}, "activation GELUTanh"),
        ({"transformer_act_layer": "silu"}, r"layer '\(act\): SiLU"),
        ({"conv_kernel_size": 5}, "kernel_size=\\(5, 5\\)"),
        ({"conv_stride_mode": "1x1"}, "conv1_1x1"),
        ({"conv_padding": "same"}, "Conv2dSame"),
        ({"conv_attn_layer": "eca"}, "EcaModule"),
        ({"conv_attn_ratio": 0.5}, "fc1"),
        ({"conv_expand_ratio": 2}, "conv1_1x1"),
        ({"conv_pool_type": "max"}, "MaxPool2d"),
        ({"stem_bias": True}, "conv1"),
        ({"transformer_norm_eps": 1e-5}, "eps=1e-05"),
        ({"transformer_attn_bias": False}, "bias=False"),
        ({"transformer_rel_pos_type": "bias_tf"}, "RelPosBiasTf"),
    ],
)
def test_what_no_config_can_express_is_refused_in_a_line(options, says):
    theirs = timm_model(**options)
    with pytest.raises(ValueError, match=says) as caught:
        from_timm(theirs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "size", "says"),
    [
        ({"stem_stride": 1}, 64, "stem of stride 2"),
        ({"widths": (32, 32, (32, 64), 64), "block_types": ("C", "C", "CT", "T")}, 64, "one width"),
        ({}, 56, "32 must divide the image size"),
    ],
)
def test_what_timm_does_not_have_is_refused_in_a_line(config, size, says):
    with pytest.raises(ValueError, match=says) as caught:
        to_timm(CoAtNet(CoAtNetConfig(**config), 5, size))
    assert "\n" not in str(caught.value)


# The paper's eight models: millions of parameters as counted here, and as published

COUNTED = (25.04, 42.23, 74.68, 166.97, 275.43, 687.05, 1348.44, 2441.97)
PUBLISHED = (25, 42, 75, 168, 275, 688, 1470, 2440)


@pytest.mark.parametrize("number", range(8))
def test_the_papers_family_by_its_parameters(number):
    with torch.device("meta"):
        model = CoAtNet(paper_config(number))
        logits = model(torch.empty(1, 3, 224, 224))
    assert logits.shape == (1, 1000)
    millions = sum(p.numel() for p in model.parameters()) / 1e6
    assert millions == pytest.approx(COUNTED[number], abs=0.005)
    assert millions == pytest.approx(PUBLISHED[number], rel=0.09 if number == 6 else 0.007)
    assert f"{COUNTED[number]:.2f}" in paper_config.__doc__
    heads = {m.head_dim for m in model.modules() if hasattr(m, "head_dim")}
    assert heads == {32 if number < 5 else 64 if number == 5 else 128}


def test_coatnet_6_mixes_blocks_in_s3():
    with torch.device("meta"):
        stage = CoAtNet(paper_config(6)).stages[2]
    assert [type(block).__name__ for block in stage] == ["MBConv"] * 8 + ["TransformerBlock"] * 42
    assert stage[7].project.out_channels == 768
    assert stage[8].shortcut.proj.in_channels == 768
    assert stage[8].attention.proj.out_channels == 1536


@pytest.mark.parametrize("number", [-1, 8])
def test_other_numbers_are_named(number):
    with pytest.raises(ValueError, match=f"CoAtNet-0 to CoAtNet-7, got {number}"):
        paper_config(number)
