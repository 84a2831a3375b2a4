"""The staged family in coatnet.py: timm's numbers, any input size, and what users expect.

timm is the oracle. All weights and statistics are drawn at random, bias tables and BatchNorm's
included, because their first values, zeros and ones, would hide mistakes. Logits of sizes 1 to 5
are compared at depths (1, 1, 2, 2) and 96 px with otherwise unchanged options, those of the
others in full at 224 px; parameters are counted in full.
"""

import copy
import socket
from dataclasses import replace
from urllib.error import URLError

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import coatnet
from coatnet import (
    CoAtNet,
    CoAtNetConfig,
    MBConv,
    RelativeAttention,
    RelativePositionBias,
    SqueezeExcite,
    TransformerBlock,
    create_model,
    from_timm,
    list_models,
    timm_weights,
)

NAMES = timm.list_models("coatnet_*")
LARGE = {"1", "2", "3", "4", "5"}
SMALL = CoAtNetConfig(depths=(1, 1, 2, 1), widths=(32, 32, 64, 64), stem_widths=(16, 32))
TINY = {"depths": (1, 1, 2, 1), "embed_dim": (32, 64, 96, 128), "stem_width": (16, 32)}


@pytest.fixture(autouse=True)
def _one_seed():
    torch.manual_seed(0)


@torch.no_grad()
def randomise(model):
    """Draws every parameter and buffer so that activations keep their size and nothing hides."""
    for key, value in model.state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif "bias_table" in key or key.endswith("position_bias.table"):
            value.normal_()  # timm's own 0.02 would hide a table of zeros
        elif value.ndim < 2:
            value.normal_(mean=float("norm" in key and key.endswith("weight")), std=0.3)
        else:
            value.normal_(std=value[0].numel() ** -0.5)
    return model


def timm_model(name, **options):
    if LARGE & set(name.split("_")):
        options = {"depths": (1, 1, 2, 2), "img_size": 96, **options}
    return randomise(timm.create_model(name, **{"num_classes": 7, **options})).eval()


def small_model(image_size=64, num_classes=5, **options):
    config = replace(SMALL, **options)
    return randomise(CoAtNet(config, num_classes, image_size))


def assert_close(ours, theirs, bound):
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= bound * theirs.abs().max()


def test_there_are_timms_names():
    assert list_models() == sorted(NAMES)
    assert len(NAMES) == 21


@pytest.mark.parametrize("name", NAMES)
def test_parameter_count_is_timms(name):
    with torch.device("meta"):
        ours, theirs = create_model(name), timm.create_model(name, num_classes=1000)
    count, expected = (sum(p.numel() for p in model.parameters()) for model in (ours, theirs))
    assert count == expected


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_timms_in_float32(name):
    theirs = timm_model(name)
    ours = from_timm(theirs)
    images = torch.randn(1, 3, *theirs.img_size)
    with torch.no_grad():
        expected, logits = theirs(images), ours(images)
        assert_close(logits, expected, 1e-4)
        assert_close(ours.forward_features(images), theirs.forward_features(images), 1e-4)
        # The same comparison does notice a wrong relative bias
        for module in ours.modules():
            if isinstance(module, RelativePositionBias):
                for parameter in module.parameters():
                    parameter.neg_()
        assert (ours(images) - expected).abs().max() > 3e-4 * expected.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_timms_in_float64(name):
    options = dict(TINY)
    if coatnet.CONFIGS[name].mlp_head:
        options["head_hidden_size"] = 128
    theirs = timm_model(name, img_size=(64, 96), **options).double()
    ours = from_timm(theirs)
    images = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        assert_close(ours(images), theirs(images), 1e-9)
    for model in (ours, theirs):
        model.train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # the MLP's, whose random choices would differ
    assert_close(ours(images), theirs(images), 1e-9)


@pytest.mark.parametrize(
    "name", ["coatnet_0_224", "coatnet_nano_rw_224", "coatnet_rmlp_nano_rw_224"]
)
@pytest.mark.parametrize("img_size", [256, (192, 320)])
def test_another_size_resizes_the_bias_as_timm_does(name, img_size):
    at_224 = timm_model(name)
    theirs = timm.create_model(name, img_size=img_size, num_classes=7).eval()
    weights = timm.models.maxxvit.checkpoint_filter_fn(at_224.state_dict(), theirs)
    theirs.load_state_dict(weights)
    size = theirs.img_size
    images = torch.randn(1, 3, *size)
    running = from_timm(at_224)  # interpolates as it runs
    loading = CoAtNet(running.config, 7, size).eval()  # interpolates as it loads
    loading.load_state_dict(running.state_dict())
    with torch.no_grad():
        expected = theirs.forward_features(images)
        assert_close(running.forward_features(images), expected, 1e-4)
        assert_close(loading.forward_features(images), expected, 1e-4)
        assert_close(from_timm(theirs)(images), theirs(images), 1e-4)


@pytest.mark.parametrize("old", [1, 3, 7, 13, 27])
@pytest.mark.parametrize("new", [1, 5, 13, 15, 63])
def test_tables_of_any_size_are_interpolated_as_timm_does(old, new):
    resize = timm.layers.resize_rel_pos_bias_table
    table = torch.randn(2, old, old)
    height, width = (new + 1) // 2, (new + 3) // 2
    shape = ((2 * height - 1) * (2 * width - 1), 2)
    expected = resize(table.flatten(1).T, (height, width), shape)
    ours = coatnet.resize_table(table, height, width)
    assert_close(ours.flatten(1).T, expected, 1e-5)


@pytest.mark.parametrize("size", [(56, 56), (50, 50), (100, 72), (33, 47), (32, 32)])
@pytest.mark.parametrize("name", ["coatnet_0_224", "coatnet_rmlp_1_rw_224", "coatnet_nano_cc_224"])
def test_complaint_every_size_runs_forward_and_backward(name, size):
    options = {"depths": (1, 1, 2, 2), "widths": (32, 32, 64, 64)}
    model = create_model(name, num_classes=5, **options).train()  # built for 224 x 224
    logits = model(torch.randn(2, 3, *size))
    assert logits.shape == (2, 5)
    F.cross_entropy(logits, torch.tensor([0, 1])).backward()
    missing = [n for n, p in model.named_parameters() if p.grad is None]
    assert not missing
    if min(size) >= 50:  # at 32 x 32 the last stage is one token, to which no position matters
        zero = [n for n, p in model.named_parameters() if not p.grad.any()]
        # a bias before a softmax over keys, and one that batch statistics remove, do no work
        assert not [n for n in zero if not n.endswith("bias")]


def test_a_stem_of_stride_1_leaves_small_images_something_to_look_at():
    model = CoAtNet(replace(SMALL, stem_stride=1), 10, 32)
    assert [x.shape[-1] for x in model.features(torch.randn(1, 3, 32, 32))] == [32, 16, 8, 4, 2]
    (table,) = {block.attention.position_bias.table.shape[1:] for block in model.stages[2]}
    assert table == (7, 7)  # offsets of a 4 x 4 grid: nothing is interpolated


@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize("stride_in", ["depthwise", "pool"])
def test_every_branch_rounds_odd_sizes_up(pool, stride_in):
    config = replace(SMALL, pool=pool, stride_in=stride_in)
    model = CoAtNet(config, image_size=(33, 47)).eval()
    shapes = [tuple(x.shape[-2:]) for x in model.features(torch.randn(1, 3, 33, 47))]
    assert shapes == [(17, 24), (9, 12), (5, 6), (3, 3), (2, 2)]
    assert model.stages[2][0].attention.position_bias.grid_size == (3, 3)


def test_the_pool_means_over_what_exists_at_an_odd_border():
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    expected = torch.tensor([[[[2.0, 3.5], [6.5, 8.0]]]])
    assert torch.equal(coatnet.make_pool("avg")(x), expected)


def test_bias_gradient_through_interpolation_is_exact():
    bias = RelativePositionBias(2, (2, 3)).double()
    assert torch.autograd.gradcheck(lambda _: bias(4, 3), (bias.table,))
    assert torch.autograd.gradcheck(lambda _: bias(2, 3), (bias.table,))


def test_index_counts_offsets_row_by_row():
    height, width = 3, 4
    index = coatnet.relative_position_index(height, width)
    for query in range(height * width):
        for key in range(height * width):
            row = query // width - key // width + height - 1
            column = query % width - key % width + width - 1
            assert index[query, key] == row * (2 * width - 1) + column


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.zeros(1, 3, 31, 64), ValueError, "at least 32 x 32 pixels, got 31 x 64"),
        (torch.zeros(1, 4, 64, 64), ValueError, r"\[B, 3, H, W\], got \[1, 4, 64, 64\]"),
        (torch.zeros(3, 64, 64), ValueError, r"\[B, 3, H, W\], got \[3, 64, 64\]"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), TypeError, "floating point.*torch.uint8"),
    ],
)
def test_wrong_images_are_named(images, error, message):
    with pytest.raises(error, match=message):
        small_model()(images)


def test_wrong_models_are_named():
    with pytest.raises(ValueError, match="at least 32 x 32 pixels, got 16 x 64"):
        CoAtNet(SMALL, image_size=(16, 64))
    with pytest.raises(ValueError, match=r"did you mean.*coatnet_0_224"):
        create_model("coatnet_0_225")
    with pytest.raises(ValueError, match="stride 1 keeps the channels, got 8 -> 16"):
        MBConv(8, 16)
    with pytest.raises(ValueError, match="stride 1 keeps the channels, got 32 -> 64"):
        TransformerBlock(32, 64, (2, 2))
    with pytest.raises(ValueError, match="width 48 has no heads of 32"):
        RelativeAttention(48, 48, (2, 2))
    with pytest.raises(ValueError, match=r"no CoAtNet.*maxvit_tiny_tf_224"), torch.device("meta"):
        from_timm(timm.create_model("maxvit_tiny_tf_224"))
    with pytest.raises(ValueError, match=r"no CoAtNet.*Linear"):
        from_timm(nn.Linear(1, 1))


def test_complaint_coatnet_0_has_25_million_parameters_not_18():
    with torch.device("meta"):
        model = create_model("coatnet_0_224")
    assert sum(p.numel() for p in model.parameters()) == 25_036_820
    # 4 x the output channels, also where a block widens: that is where the others lose theirs
    for stage, width in zip(model.stages[:2], (96, 192), strict=True):
        for block in stage:
            assert block.depthwise.weight.shape == (4 * width, 1, 3, 3)
            assert block.squeeze_excite.squeeze.weight.shape == (width // 4, 4 * width)


def test_complaint_the_model_ends_at_stride_32():
    outputs = small_model().eval().features(torch.randn(1, 3, 64, 96))
    assert [x.shape[1] for x in outputs] == [32, 32, 32, 64, 64]
    assert [(64 // x.shape[2], 96 // x.shape[3]) for x in outputs] == [
        (s, s) for s in (2, 4, 8, 16, 32)
    ]


def test_complaint_every_head_and_block_has_its_own_bias():
    attention = RelativeAttention(64, 64, (3, 3)).eval()
    x = torch.randn(1, 64, 3, 3)
    before = attention(x, return_weights=True)[1]
    with torch.no_grad():
        attention.position_bias.table[0].normal_()
    after = attention(x, return_weights=True)[1]
    assert not torch.allclose(after[:, 0], before[:, 0])
    assert torch.equal(after[:, 1], before[:, 1])
    tables = [p for n, p in small_model().named_parameters() if n.endswith("table")]
    assert len(tables) == len({id(table) for table in tables}) == 3


def test_complaint_the_relative_index_is_not_learned():
    bias = RelativePositionBias(2, (3, 4))
    assert [name for name, _ in bias.named_parameters()] == ["table"]
    assert dict(bias.named_buffers())["index"].dtype == torch.int64
    assert list(bias.state_dict()) == ["table"]


def test_complaint_missing_weights_are_an_error_that_lists_those_that_exist():
    with pytest.raises(ValueError, match="coatnet_0_224 has no published weights") as caught:
        create_model("coatnet_0_224", pretrained=True)
    published = {full.split(".")[0] for full in timm.list_pretrained("coatnet_*")}
    assert all(name in str(caught.value) for name in published)
    assert "coatnet_nano_rw_224" in published
    assert str(caught.value).count("coatnet_") == len(published) + 1


def test_pretrained_weights_come_from_timm_and_fit(monkeypatch, tmp_path):
    theirs = timm_model("coatnet_nano_rw_224", num_classes=1000)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    create = timm.create_model

    def from_file(name, **options):
        return create(name, pretrained_cfg_overlay={"file": tmp_path / "weights.pth"}, **options)

    monkeypatch.setattr(timm, "create_model", from_file)
    monkeypatch.setattr(timm_weights, "urlopen", lambda *_, **__: None)
    images = torch.randn(1, 3, 224, 224)
    ours = create_model("coatnet_nano_rw_224", pretrained=True, drop_path=0.1).eval()
    with torch.no_grad():
        assert_close(ours(images), theirs(images), 1e-4)
        expected = theirs.forward_features(images)
        ours = create_model(
            "coatnet_nano_rw_224", num_classes=10, image_size=96, in_channels=1, pretrained=True
        ).eval()
        assert ours(torch.randn(1, 1, 96, 96)).shape == (1, 10)
        # one channel's kernel is the sum of three, so a grey image gives what it gave before
        ours = create_model("coatnet_nano_rw_224", in_channels=1, pretrained=True).eval()
        grey = images[:, :1]
        expected = theirs.forward_features(grey.expand(-1, 3, -1, -1))
        assert_close(ours.forward_features(grey), expected, 1e-4)


def test_no_network_is_one_line(monkeypatch):
    def unreachable(*_, **__):
        raise URLError(socket.gaierror(-2, "Name or service not known"))

    monkeypatch.setattr(timm_weights, "urlopen", unreachable)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    with pytest.raises(ConnectionError, match=r"no network.*coatnet_nano_rw_224") as caught:
        create_model("coatnet_nano_rw_224", pretrained=True)
    assert "\n" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_from_timm_keeps_type_mode_classes_and_channels():
    theirs = timm_model("coatnet_pico_rw_224", img_size=64, in_chans=2, num_classes=3, **TINY)
    ours = from_timm(theirs.double())
    assert ours.head.classifier.weight.dtype == torch.float64
    assert not ours.training
    assert from_timm(theirs.train()).training
    images = torch.randn(1, 2, 64, 64, dtype=torch.float64)
    assert_close(ours(images), theirs.eval()(images), 1e-9)


def test_a_state_dict_goes_round():
    model, other = small_model(), small_model()
    other.load_state_dict(model.state_dict())
    for key, value in other.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key


def test_attention_weights_are_those_of_the_fused_kernel():
    attention = randomise(RelativeAttention(64, 96, (3, 5))).double()
    x = torch.randn(2, 64, 4, 6, dtype=torch.float64)
    with torch.no_grad():
        fused = attention(x)
    written_out = attention(x)  # on a CPU with gradients
    explicit, weights = attention(x, return_weights=True)
    torch.testing.assert_close(explicit, fused)
    torch.testing.assert_close(written_out, fused)
    assert weights.shape == (2, 3, 24, 24)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 24, dtype=torch.float64))


def test_attention_maps_are_pictures_of_every_transformer_block():
    model = small_model().eval()
    with torch.no_grad():
        maps = model.attention_maps(torch.randn(2, 3, 64, 96))
        assert {name: tuple(m.shape) for name, m in maps.items()} == {
            "stages.2.0": (2, 2, 4, 6, 4, 6),
            "stages.2.1": (2, 2, 4, 6, 4, 6),
            "stages.3.0": (2, 2, 2, 3, 2, 3),
        }
        block, x = model.stages[2][1], torch.randn(1, 64, 4, 6)
        weights = block.attention_weights(x)
        expected = block.attention(block.norm1(x), return_weights=True)[1]
        assert torch.equal(weights, expected)


def test_a_new_classifier():
    model = small_model().double()
    weight = model.head.hidden.weight.clone()
    model.reset_classifier(11)
    assert model(torch.randn(1, 3, 64, 64, dtype=torch.float64)).shape == (1, 11)
    assert torch.equal(model.head.hidden.weight, weight)


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_checkpointing_changes_neither_gradients_nor_statistics(norm):
    model = small_model(norm=norm, mlp_head=False, drop_path=0.3).double().train()
    other = copy.deepcopy(model)
    other.set_grad_checkpointing()
    images = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    for m in (model, other):
        torch.manual_seed(1)
        m(images).square().sum().backward()
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, msg=name)
    for (name, value), b in zip(model.named_buffers(), other.buffers(), strict=True):
        if not name.endswith("num_batches_tracked"):  # which nothing reads
            assert torch.equal(value, b), name
    before = other.stem.norm1.running_mean.clone(), other.stages[0][0].norm1.running_mean.clone()
    other(images)
    assert not torch.equal(other.stem.norm1.running_mean, before[0])
    assert not torch.equal(other.stages[0][0].norm1.running_mean, before[1])


def test_stochastic_depth_drops_samples_and_keeps_the_mean():
    drop = coatnet.DropPath(0.25)
    x = torch.ones(4000, 1, 2, 1)
    y = drop(x)
    assert sorted(y.unique().tolist()) == pytest.approx([0, 4 / 3])
    assert torch.equal(y[:, :, :1], y[:, :, 1:])  # whole samples
    assert y.mean().item() == pytest.approx(1, abs=0.05)
    assert drop.eval()(x) is x
    model = small_model(drop_path=0.4)
    rates = [m.rate for m in model.modules() if isinstance(m, coatnet.DropPath)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


@pytest.mark.parametrize("option", ["dropout", "attention_dropout", "projection_dropout"])
def test_dropout_acts_in_training_alone(option):
    plain, model = small_model(), small_model(**{option: 0.5})
    model.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(model.eval()(images), plain.eval()(images))
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert not torch.allclose(model(images), model(images))


@pytest.mark.parametrize("name", ["coatnet_0_224", "coatnet_rmlp_2_rw_224", "coatnet_bn_0_rw_224"])
def test_first_weights_are_drawn_as_timm_draws_them(name):
    options = {"depths": (1, 1, 2, 1)}
    theirs = from_timm(timm.create_model(name, **options)).state_dict()
    for key, ours in create_model(name, **options).state_dict().items():
        if "num_batches" in key:
            continue
        spread, expected = ours.std().item(), theirs[key].std().item()
        if expected < 1e-5:  # constants, and biases that are all but 0
            torch.testing.assert_close(ours, theirs[key], atol=1e-5, rtol=1e-5, msg=key)
        assert spread == pytest.approx(expected, rel=5 / ours.numel() ** 0.5, abs=1e-9), key
        if ours.numel() > 5000 and expected > 0:  # a uniform distribution or a normal one
            ratio = (ours.abs().max() / theirs[key].abs().max()).item()
            assert ratio == pytest.approx(1, abs=0.4), key


@pytest.mark.parametrize("name", ["coatnet_0_224", "coatnet_rmlp_2_rw_224"])
def test_norms_biases_and_relative_positions_do_not_decay(name):
    with torch.device("meta"):
        model = create_model(name)
    resting = model.no_weight_decay()
    decaying = {n for n, _ in model.named_parameters()} - resting
    assert decaying
    for n in decaying:
        assert n.endswith("weight"), n
        assert not any(part in n for part in ("norm", "position_bias")), n
    for n in resting:
        assert n.endswith(("bias", "scale")) or "norm" in n or "position_bias" in n, n


def test_activations_are_channels_last_without_asking():
    model = small_model().eval()
    for x in model.features(torch.randn(2, 3, 64, 64)):
        assert x.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("block_size", [(8, 8), (7, 5)])
def test_blocks_do_not_depend_on_the_memory_layout(block_size):
    for block in (MBConv(32, 64, stride=2), TransformerBlock(32, 64, (4, 4), stride=2)):
        block = randomise(block).double().eval()
        x = torch.randn(2, 32, *block_size, dtype=torch.float64)
        expected = block(x)
        assert expected.shape[2:] == tuple((n + 1) // 2 for n in block_size)
        actual = block(x.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(actual, expected)


def test_squeeze_excite_scales_channels_by_their_means():
    gate = randomise(SqueezeExcite(6, 3))
    x = torch.randn(2, 6, 4, 5)
    factors = (gate(x) / x).flatten(2)
    assert (factors.std(-1) < 1e-5).all()
    assert ((factors > 0) & (factors < 1)).all()
    x[:, :, 0, 0], x[:, :, 3, 4] = x[:, :, 3, 4].clone(), x[:, :, 0, 0].clone()
    torch.testing.assert_close((gate(x) / x).flatten(2), factors)


def test_bfloat16_autocast_stays_near_float32():
    for position_bias in ("table", "mlp"):
        model = small_model(position_bias=position_bias).eval()
        images = torch.randn(2, 3, 72, 64)
        with torch.no_grad():
            with torch.autocast("cpu", torch.bfloat16):
                half = model(images)
            full = model(images)
        assert half.dtype == torch.bfloat16
        assert_close(half.float(), full, 0.05)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model.train()(images).float().square().mean()
        loss.backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())


def test_compile_gives_the_same_logits_and_gradients():
    model = small_model().train()
    other = copy.deepcopy(model)
    compiled = torch.compile(other, backend="aot_eager", fullgraph=True)
    images = torch.randn(2, 3, 50, 64)
    for m in (model, compiled):
        m(images).square().sum().backward()
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, atol=1e-3, rtol=1e-3, msg=name)
    model.eval()
    other.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), model(images), atol=1e-4, rtol=1e-4)
        other.stages[2][0].attention.position_bias.table.add_(1 + torch.randn(2, 7, 7))
        changed = other(images)
        assert not torch.allclose(changed, model(images), atol=1e-4)
        torch.testing.assert_close(compiled(images), changed, atol=1e-4, rtol=1e-4)
