"""Checks of lesson 3, MBConv: `from course.checks import lesson03 as check`."""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

import coatnet
from course.checking import CheckFailed, exercise
from course.comparing import compare, compare_calls


class DepthwiseConv(nn.Module):
    """A 3x3 convolution of each channel on its own: [B, C, H, W] -> [B, C, H/stride, W/stride]."""

    def __init__(self, channels, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(
            channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False
        )

    def forward(self, x):
        return self.conv(x)


def depthwise_by_hand(x, weight, stride=1):
    """The same from [B, C, H, W] and weights [C, 1, 3, 3]."""
    return F.conv2d(x, weight, stride=stride, padding=1, groups=len(weight))


def _flow(m, x, first=True, second=True):
    """The reference's forward pass, step by step; `first` and `second` are its activations."""
    shortcut = m.shortcut(x)
    x = m.norm1(m.expand(m.pre_norm(x)))
    x = m.norm2(m.depthwise(m.activation(x) if first else x))
    x = m.squeeze_excite(m.activation(x) if second else x)
    return shortcut + m.project(x)


def _rewired(flow, *edits):
    """An edit that makes `flow(m, x)` the forward pass, after other edits of the layers."""

    def edit(m):
        for change in edits:
            change(m)
        m.forward = lambda x: flow(m, x)

    return edit


def _layer(name, make):
    return lambda m: setattr(m, name, make())


@exercise("Depthwise convolution", DepthwiseConv, ["__init__", "forward"])
def depthwise_conv(answer):
    def convolution(channels, **options):
        options = {"padding": 1, "groups": channels, "bias": False} | options
        return lambda m: setattr(m, "conv", nn.Conv2d(channels, channels, 3, **options))

    def changed(**settings):
        def edit(m):
            for name, value in settings.items():
                setattr(m.conv, name, value)

        return edit

    def mistakes(stride):
        return [
            (
                "without `groups` each output channel mixes all input channels; "
                "groups=channels keeps them apart",
                convolution(6, stride=stride, groups=1),
            ),
            (
                "neither `groups` nor bias=False: groups=channels keeps the channels apart, and "
                "there is no bias",
                convolution(6, stride=stride, groups=1, bias=True),
            ),
            (
                "the stride stands where the padding belongs: pass both by name",
                changed(padding=(stride, stride), stride=(1, 1)),
            ),
            ("groups=2 still mixes channels; as many groups as channels", convolution(6, groups=2)),
            ("groups=3 still mixes channels; as many groups as channels", convolution(6, groups=3)),
            ("there is a bias; pass bias=False", convolution(6, bias=True)),
            (
                "padding 0 loses the border; a 3x3 kernel needs padding=1",
                changed(padding=(0, 0)),
            ),
            ("the stride is not passed on to the convolution", changed(stride=(1, 1))),
            ("the stride is always 2; pass `stride` on", changed(stride=(2, 2))),
            (
                "the kernel is 1x1; make it 3x3",
                lambda m: setattr(m, "conv", nn.Conv2d(6, 6, 1, groups=6, bias=False)),
            ),
            (
                "the kernel is 5x5; make it 3x3",
                lambda m: setattr(m, "conv", nn.Conv2d(6, 6, 5, groups=6, bias=False)),
            ),
            ("circular padding; zeros are meant", changed(padding_mode="circular")),
        ]

    images = torch.randn(3, 6, 7, 10)
    compare(answer, DepthwiseConv, images, mistakes(1), channels=6)
    return compare(answer, DepthwiseConv, images, mistakes(2), channels=6, stride=2)


def _depthwise_loop_mistakes():
    def mixed(x, weight, stride=1):
        return F.conv2d(x, weight.expand(-1, x.shape[1], -1, -1), stride=stride, padding=1)

    def every_channel(choose):
        return lambda x, w, stride=1: depthwise_by_hand(x, choose(w), stride)

    return [
        (
            "every channel gets the first channel's kernel; channel c has weight[c]",
            every_channel(lambda w: w[:1].expand_as(w)),
        ),
        (
            "every channel gets the last channel's kernel; channel c has weight[c]",
            every_channel(lambda w: w[-1:].expand_as(w)),
        ),
        ("the channels come out in reverse order", lambda *a: depthwise_by_hand(*a).flip(1)),
        (
            "the kernel is flipped; PyTorch's convolution multiplies without flipping",
            every_channel(lambda w: w.flip(2, 3)),
        ),
        ("rows and columns of the kernel are swapped", every_channel(lambda w: w.mT)),
        (
            "the channels are summed; each one stays on its own: torch.cat(..., dim=1)",
            lambda *a: depthwise_by_hand(*a).sum(1, keepdim=True),
        ),
        (
            "the channels are summed; each one stays on its own",
            lambda x, w, stride=1: (
                depthwise_by_hand(x, w, stride).sum(1, keepdim=True).expand(-1, len(w), -1, -1)
            ),
        ),
        ("each output mixes all the channels", mixed),
        (
            "padding 0 loses the border; pad by 1",
            lambda x, w, stride=1: F.conv2d(x, w, stride=stride, groups=len(w)),
        ),
        (
            "the stride is ignored",
            lambda x, w, stride=1: depthwise_by_hand(x, w),
        ),
        (
            "the channels are stacked along the batch; join them along dim=1",
            lambda *a: depthwise_by_hand(*a).transpose(0, 1).flatten(0, 1)[:, None],
        ),
        (
            "the channels are joined in a new axis; torch.cat along dim=1 instead of torch.stack",
            lambda *a: depthwise_by_hand(*a)[:, :, None],
        ),
        ("only the first channel comes out", lambda *a: depthwise_by_hand(*a)[:, :1]),
        ("only the last channel comes out", lambda *a: depthwise_by_hand(*a)[:, -1:]),
    ]


@exercise("Depthwise by hand", depthwise_by_hand, [])
def depthwise_loop(answer):
    mistakes = _depthwise_loop_mistakes()
    x, weight = torch.randn(2, 5, 6, 9), torch.randn(5, 1, 3, 3)
    calls = [(x, weight), (x, weight, 2), (torch.randn(1, 3, 7, 7), torch.randn(3, 1, 3, 3), 2)]
    return compare_calls(
        answer,
        depthwise_by_hand,
        calls,
        mistakes,
        "equal to the convolution with `groups`, for stride 1 and 2.",
    )


def _excited(means=lambda x: x.mean(dim=(2, 3)), gate=torch.sigmoid, apply=torch.mul):
    def edit(m):
        def forward(x):
            hidden = m.activation(m.squeeze(means(x)))
            return apply(x, gate(m.excite(hidden))[:, :, None, None])

        m.forward = forward

    return edit


def _squeeze_excite_mistakes():
    def sized(hidden):
        def edit(m):
            m.squeeze, m.excite = nn.Linear(12, hidden), nn.Linear(hidden, 12)

        return edit

    def swapped(m):
        def forward(x):
            hidden = torch.sigmoid(m.squeeze(x.mean(dim=(2, 3))))
            return x * F.silu(m.excite(hidden))[:, :, None, None]

        m.forward = forward

    def over_pixels(m):  # the gates of pixels instead of channels
        def forward(x):
            gates = torch.sigmoid(m.excite(m.activation(m.squeeze(x.mean(dim=(2, 3))))))
            return x * torch.sigmoid(x.mean(dim=1, keepdim=True)) * gates[:, :, None, None]

        m.forward = forward

    def without(name):
        def edit(m):
            getattr(m, name).bias = None

        return edit

    return [
        ("the hidden layer has `channels` units; it has `hidden_channels`", sized(12)),
        ("the hidden width is computed anew; `hidden_channels` is the width itself", sized(3)),
        ("the hidden width is computed anew; `hidden_channels` is the width itself", sized(1)),
        ("the first layer has no bias; keep the biases", without("squeeze")),
        ("the second layer has no bias; keep the biases", without("excite")),
        (
            "both layers have no bias; keep the biases",
            lambda m: (without("squeeze")(m), without("excite")(m)),
        ),
        ("the gate has no sigmoid, so that it is no share", _excited(gate=lambda g: g)),
        (
            "softmax makes the channels compete; a sigmoid decides on each by itself",
            _excited(gate=lambda g: g.softmax(dim=1)),
        ),
        ("tanh instead of sigmoid: a gate lies between 0 and 1", _excited(gate=torch.tanh)),
        ("ReLU instead of sigmoid: a gate lies between 0 and 1", _excited(gate=torch.relu)),
        ("SiLU and sigmoid are swapped: SiLU between the layers, sigmoid at the end", swapped),
        ("the gates are returned; multiply x with them", _excited(apply=lambda x, g: g)),
        (
            "the gates are returned; multiply x with them",
            _excited(apply=lambda x, g: g.flatten(1)),
        ),
        ("the gates are added; multiply x with them", _excited(apply=torch.add)),
        (
            "x is added once more; squeeze-and-excitation has no shortcut",
            _excited(apply=lambda x, g: x + x * g),
        ),
        ("the gates are applied as 1 - gate", _excited(apply=lambda x, g: x * (1 - g))),
        ("ReLU instead of SiLU between the layers", _layer("activation", nn.ReLU)),
        ("GELU instead of SiLU between the layers", _layer("activation", nn.GELU)),
        ("the SiLU between the two layers is missing", _layer("activation", nn.Identity)),
        ("sigmoid instead of SiLU between the layers", _layer("activation", nn.Sigmoid)),
        (
            "maxima instead of means: squeeze with x.mean(dim=(2, 3))",
            _excited(means=lambda x: x.amax(dim=(2, 3))),
        ),
        (
            "sums instead of means: squeeze with x.mean(dim=(2, 3))",
            _excited(means=lambda x: x.sum(dim=(2, 3))),
        ),
        (
            "the mean of the whole batch; each image has its own: x.mean(dim=(2, 3))",
            _excited(means=lambda x: x.mean(dim=(0, 2, 3)).expand(len(x), -1)),
        ),
        ("pixels are gated too; only channels are", over_pixels),
        (
            "only one row is squeezed; the mean goes over height and width",
            _excited(means=lambda x: x[:, :, 0].mean(dim=2)),
        ),
    ]


@exercise("Squeeze-and-excitation", coatnet.SqueezeExcite, ["__init__", "forward"])
def squeeze_excite(answer):
    mistakes = _squeeze_excite_mistakes()
    cubes = torch.randn(3, 12, 12, 12)  # so that a mean over the wrong axes may run
    for dims, name in (((1, 2), "channels"), ((1, 3), "channels"), ((1,), "channels")):
        mistakes.append(
            (
                f"the mean goes over the {name}; it goes over height and width: dim=(2, 3)",
                _excited(means=lambda x, d=dims: x.mean(dim=d).flatten(1)),
            )
        )
    compare(answer, coatnet.SqueezeExcite, cubes, mistakes, channels=12, hidden_channels=5)
    return compare(
        answer,
        coatnet.SqueezeExcite,
        torch.randn(2, 12, 5, 8),
        mistakes,
        channels=12,
        hidden_channels=5,
    )


IN, OUT, HIDDEN = 8, 12, 48  # channels of the MBConv under test


def _sized(hidden=HIDDEN, squeezed=OUT // 4, in_channels=IN, out_channels=OUT):
    """An edit that builds the branch anew with other widths."""

    def edit(m):
        stride = m.depthwise.stride
        m.expand = nn.Conv2d(in_channels, hidden, 1, bias=False)
        m.norm1, m.norm2 = nn.BatchNorm2d(hidden), nn.BatchNorm2d(hidden)
        m.depthwise = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        m.squeeze_excite = coatnet.SqueezeExcite(hidden, squeezed)
        m.project = nn.Conv2d(hidden, out_channels, 1)

    return edit


def _width_mistakes():
    return [
        (
            "the expansion counts from the input channels; it is 4 * out_channels wide inside",
            _sized(4 * IN),
        ),
        (
            "the expansion and squeeze-excite count from the input channels; inside the block is "
            "4 * out_channels wide, squeezed to out_channels // 4",
            _sized(4 * IN, IN // 4),
        ),
        (
            "squeeze-excite's hidden width is a quarter of the expanded channels; it is "
            "out_channels // 4",
            _sized(squeezed=HIDDEN // 4),
        ),
        (
            "squeeze-excite's hidden width is a quarter of the input channels; it is "
            "out_channels // 4",
            _sized(squeezed=IN // 4),
        ),
        ("the expansion is missing: 4 * out_channels inside", _sized(OUT)),
        ("the block is 6 * out_channels wide inside; 4 times", _sized(6 * OUT)),
    ]


def _layer_mistakes():
    def ordinary(m):
        stride = m.depthwise.stride
        m.depthwise = nn.Conv2d(HIDDEN, HIDDEN, 3, stride, 1, bias=False)

    def bias(name, on):
        def edit(m):
            conv = getattr(m, name)
            conv.bias = nn.Parameter(torch.zeros(conv.out_channels)) if on else None

        return edit

    def norms(*names):
        def edit(m):
            for name in names:
                setattr(m, name, nn.Identity())

        return _rewired(_flow, edit)

    def unprojected(m):
        m.shortcut = nn.Sequential(coatnet.make_pool("avg"))

    def normed_end(m):
        m.project = nn.Sequential(m.project, nn.BatchNorm2d(OUT))

    def excited_end(m):
        m.squeeze_excite = nn.Identity()
        m.project = nn.Sequential(m.project, coatnet.SqueezeExcite(OUT, OUT // 4))

    def post_norm(m):
        m.pre_norm = nn.BatchNorm2d(OUT)

    return [
        ("the depthwise convolution lacks `groups`: every channel mixes with all", ordinary),
        (
            "the expansion or the depthwise convolution has a bias, idle before a norm; bias=False",
            bias("expand", True),
        ),
        (
            "a 1x1 convolution lacks its bias: the last one or the shortcut's",
            bias("project", False),
        ),
        (
            "the shortcut's projection is missing: where channels change, a 1x1 convolution "
            "behind the pooling",
            unprojected,
        ),
        ("the norm before the expansion is missing (pre-norm)", norms("pre_norm")),
        ("the norm after the expansion is missing", norms("norm1")),
        ("the norm after the depthwise convolution is missing", norms("norm2")),
        ("the two norms inside the block are missing", norms("norm1", "norm2")),
        ("all three norms are missing", norms("pre_norm", "norm1", "norm2")),
        (
            "squeeze-excite is missing between the depthwise convolution and the projection",
            norms("squeeze_excite"),
        ),
        ("a norm follows the last convolution; there is none behind it", normed_end),
        ("squeeze-excite follows the last convolution; it comes before it", excited_end),
        (
            "expansion and depthwise convolution have biases, idle before a norm; bias=False",
            lambda m: (bias("expand", True)(m), bias("depthwise", True)(m)),
        ),
        ("the norm stands behind the block; it comes first (pre-norm)", post_norm),
    ]


def _strided_mistakes():
    def pooled(make):
        return lambda m: m.shortcut.__setattr__("pool", make())

    def stride_first(m):
        m.expand.stride, m.depthwise.stride = (2, 2), (1, 1)

    def projected_by_stride(m):  # a strided 1x1 convolution instead of pooling and projection
        m.shortcut.pool = nn.Identity()
        m.shortcut.proj.stride = (2, 2)

    def pooled_after(m):
        m.shortcut = nn.Sequential(m.shortcut.proj, nn.AvgPool2d(3, 2, 1))

    def after_norm(m, x):
        normed = m.pre_norm(x)
        inner = m.activation(m.norm1(m.expand(normed)))
        inner = m.squeeze_excite(m.activation(m.norm2(m.depthwise(inner))))
        return m.shortcut(normed) + m.project(inner)

    return [
        (
            "the stride sits in the expansion, whose 1x1 kernel then skips three pixels of four; "
            "put it into the depthwise convolution",
            _rewired(_flow, stride_first),
        ),
        (
            "the shortcut strides without pooling; take means of 2x2 pixels, then the 1x1 "
            "convolution",
            _rewired(_flow, projected_by_stride),
        ),
        (
            "the shortcut pools by maximum; take means",
            _rewired(_flow, pooled(lambda: nn.MaxPool2d(2, ceil_mode=True))),
        ),
        (
            "the shortcut pools by maximum; take means",
            _rewired(_flow, pooled(lambda: nn.MaxPool2d(3, 2, 1))),
        ),
        (
            "the shortcut pools 3x3 pixels; 2x2",
            _rewired(_flow, pooled(lambda: nn.AvgPool2d(3, 2, 1))),
        ),
        ("the shortcut pools 3x3 pixels, and after the projection", _rewired(_flow, pooled_after)),
        (
            "the shortcut starts behind the first norm; it takes x as it came in",
            _rewired(after_norm),
        ),
    ]


def _flow_mistakes():
    def no_residual(m, x):
        return _flow(m, x) - m.shortcut(x)

    def excite_before_norm(m, x):
        inner = m.activation(m.norm1(m.expand(m.pre_norm(x))))
        inner = m.activation(m.norm2(m.squeeze_excite(m.depthwise(inner))))
        return m.shortcut(x) + m.project(inner)

    def excite_before_activation(m, x):
        inner = m.activation(m.norm1(m.expand(m.pre_norm(x))))
        inner = m.activation(m.squeeze_excite(m.norm2(m.depthwise(inner))))
        return m.shortcut(x) + m.project(inner)

    def excite_before_depthwise(m, x):
        inner = m.squeeze_excite(m.activation(m.norm1(m.expand(m.pre_norm(x)))))
        return m.shortcut(x) + m.project(m.activation(m.norm2(m.depthwise(inner))))

    def activated_before_norm(m, x):
        inner = m.norm1(m.activation(m.expand(m.pre_norm(x))))
        inner = m.norm2(m.activation(m.depthwise(inner)))
        return m.shortcut(x) + m.project(m.squeeze_excite(inner))

    def activated_input(m, x):
        inner = m.activation(m.norm1(m.expand(m.activation(m.pre_norm(x)))))
        inner = m.squeeze_excite(m.activation(m.norm2(m.depthwise(inner))))
        return m.shortcut(x) + m.project(inner)

    def activated_branch(m, x):
        return m.shortcut(x) + m.activation(_flow(m, x) - m.shortcut(x))

    def activated_sum(m, x):
        return m.activation(_flow(m, x))

    return [
        ("the shortcut is not added: shortcut(x) + branch", _rewired(no_residual)),
        (
            "squeeze-excite comes before the norm; it stands between the second activation and the "
            "projection",
            _rewired(excite_before_norm),
        ),
        (
            "squeeze-excite comes before the second activation; it stands right before the "
            "projection",
            _rewired(excite_before_activation),
        ),
        (
            "squeeze-excite comes before the depthwise convolution; it stands right before the "
            "projection",
            _rewired(excite_before_depthwise),
        ),
        (
            "GELU comes before the norm; the order is convolution, norm, GELU",
            _rewired(activated_before_norm),
        ),
        (
            "there is an activation between the first norm and the expansion",
            _rewired(activated_input),
        ),
        (
            "there is an activation after the projection, which is linear on purpose",
            _rewired(activated_branch),
        ),
        ("there is an activation after the sum; the block ends with it", _rewired(activated_sum)),
        (
            "the GELU after the expansion is missing",
            _rewired(lambda m, x: _flow(m, x, first=False)),
        ),
        (
            "the GELU after the depthwise convolution is missing",
            _rewired(lambda m, x: _flow(m, x, second=False)),
        ),
        (
            "both GELUs are missing",
            _rewired(lambda m, x: _flow(m, x, first=False, second=False)),
        ),
        ("SiLU instead of GELU", _rewired(_flow, _layer("activation", nn.SiLU))),
        ("ReLU instead of GELU", _rewired(_flow, _layer("activation", nn.ReLU))),
        (
            "GELU in its tanh approximation; use nn.GELU()",
            _rewired(_flow, _layer("activation", lambda: nn.GELU("tanh"))),
        ),
    ]


@contextmanager
def _sizes_that_differ(hint):
    """Names the likeliest reason why two branches could not be added."""
    try:
        yield
    except CheckFailed as failure:
        if failure.shapes:
            failure.rows["likely"] = hint
        raise


@exercise(
    "MBConv",
    coatnet.MBConv,
    ["__init__", "forward"],
    builds_on=[DepthwiseConv, coatnet.SqueezeExcite],
)
def mbconv(answer):
    mistakes = [*_width_mistakes(), *_layer_mistakes(), *_strided_mistakes(), *_flow_mistakes()]
    sizes = {"in_channels": IN, "out_channels": OUT, "stride": 2}
    with _sizes_that_differ(
        "the branch and the shortcut end in different sizes: the depthwise convolution takes the "
        "stride, and the shortcut pools 2x2 pixels"
    ):
        compare(answer, coatnet.MBConv, torch.randn(3, IN, 8, 6), mistakes, **sizes)
    with _sizes_that_differ(
        "odd sizes: the convolution rounds them up, the shortcut's pooling down; ceil_mode=True"
    ):
        proven = compare(answer, coatnet.MBConv, torch.randn(3, IN, 7, 10), mistakes, **sizes)

    def projected(m):
        m.shortcut = nn.Conv2d(OUT, OUT, 1)

    hints = {
        1: "with stride 1 the shortcut is x itself, without a convolution",
        2: "channels that do not change need no projection",
    }
    for stride, hint in hints.items():
        compare(
            answer,
            coatnet.MBConv,
            torch.randn(3, OUT, 6, 5),
            [(hint, projected), *_flow_mistakes()],
            in_channels=OUT,
            out_channels=OUT,
            stride=stride,
        )
    return proven
