"""Checks of lesson 4, relative attention: `from course.checks import lesson04 as check`."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

import coatnet
from coatnet import relative_position_index
from course.checking import CheckFailed, exercise
from course.comparing import compare, compare_calls, in_order, require_eps


class QKV(nn.Module):
    """Queries, keys and values by one 1x1 convolution: [B, C, H, W] -> 3 x [B, heads, N, d]."""

    def __init__(self, in_channels, num_heads, head_dim=32):
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        self.conv = nn.Conv2d(in_channels, 3 * num_heads * head_dim, 1)

    def forward(self, x):
        x = self.conv(x).flatten(2)  # [B, heads * 3 * d, N]
        x = x.unflatten(1, (self.num_heads, 3 * self.head_dim)).transpose(2, 3)
        return x.chunk(3, dim=-1)


class RelativePositionBias(nn.Module):
    """A learned number a head and offset: () -> [num_heads, N, N], N = height * width."""

    def __init__(self, num_heads, grid_size):
        super().__init__()
        height, width = grid_size
        self.table = nn.Parameter(torch.empty(num_heads, 2 * height - 1, 2 * width - 1))
        nn.init.trunc_normal_(self.table, std=0.02)
        index = relative_position_index(height, width)
        self.register_buffer("index", index, persistent=False)

    def forward(self):
        return self.table.flatten(1)[:, self.index]


def relative_attention(q, k, v, bias):
    """softmax(q k^T / sqrt(d) + bias) v: [B, heads, N, d]."""
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5 + bias
    return scores.softmax(dim=-1) @ v


def fused_attention(q, k, v, bias):
    """The same in one kernel."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])


def _forward(function):
    """An edit that makes `function(m, ...)` the forward pass."""

    def edit(m):
        m.forward = lambda *arguments: function(m, *arguments)

    return edit


def _qkv_mistakes(dim, heads, width):
    def stacked(rearrange):
        return _forward(lambda m, x: rearrange(m.conv(x)).chunk(3, dim=-1))

    def by_head(x, rows=True):
        x = (x if rows else x.mT).flatten(2)
        return x.unflatten(1, (heads, 3 * dim)).transpose(2, 3)

    def q_first(m, x):
        parts = m.conv(x).flatten(2).chunk(3, dim=1)
        return tuple(p.unflatten(1, (heads, dim)).transpose(2, 3) for p in parts)

    def interleaved(m, x):
        x = m.conv(x).flatten(2).unflatten(1, (3 * dim, heads)).permute(0, 2, 3, 1)
        return x.chunk(3, dim=-1)

    def in_another_order(order):
        return _forward(lambda m, x: tuple(by_head(m.conv(x)).chunk(3, -1)[i] for i in order))

    def scaled(m, x):
        q, k, v = by_head(m.conv(x)).chunk(3, dim=-1)
        return q * dim**-0.5, k, v

    def wide(out, kernel=1, bias=True):
        return lambda m: setattr(m, "conv", nn.Conv2d(10, out, kernel, bias=bias))

    return [
        ("the kernel is 3x3; a linear layer a pixel is a 1x1 convolution", wide(3 * width, 3)),
        ("the convolution has no bias; keep it", wide(3 * width, bias=False)),
        ("the width is 3 * in_channels; it is 3 * num_heads * head_dim", wide(30)),
        ("the convolution yields one of q, k, v; three times as many channels", wide(width)),
        (
            "all of q comes first, then k, then v; the order is head by head: "
            "unflatten into (num_heads, 3 * head_dim) before cutting in three",
            _forward(q_first),
        ),
        (
            "heads and channels are interleaved; unflatten into (num_heads, 3 * head_dim), heads "
            "first",
            _forward(interleaved),
        ),
        ("q and k are swapped", in_another_order((1, 0, 2))),
        ("k and v are swapped", in_another_order((0, 2, 1))),
        ("q and v are swapped", in_another_order((2, 1, 0))),
        ("the order is not q, k, v", in_another_order((1, 2, 0))),
        ("the order is not q, k, v", in_another_order((2, 0, 1))),
        (
            "the pixels come column by column; `flatten(2)` takes them row by row",
            stacked(lambda x: by_head(x, rows=False)),
        ),
        (
            "the axes are [B, N, heads, d]; heads come before tokens: [B, heads, N, d]",
            stacked(lambda x: by_head(x).transpose(1, 2)),
        ),
        (
            "the axes are [B, heads, d, N]; tokens come before channels: [B, heads, N, d]",
            _forward(lambda m, x: tuple(p.mT for p in by_head(m.conv(x)).chunk(3, -1))),
        ),
        (
            "`reshape` or `view` cuts the axes anew and mixes pixels with channels; unflatten, "
            "then transpose",
            stacked(lambda x: x.flatten(2).reshape(len(x), heads, -1, 3 * dim)),
        ),
        ("q is scaled already here; leave that to the attention", _forward(scaled)),
    ]


@exercise("Q, K and V in one convolution", QKV, ["__init__", "forward"])
def qkv(answer):
    heads, dim, width = 3, 4, 12

    mistakes = _qkv_mistakes(dim, heads, width)
    return compare(
        answer,
        QKV,
        torch.randn(2, 10, 3, 5),
        mistakes,
        in_channels=10,
        num_heads=heads,
        head_dim=dim,
    )


def _position_index_mistakes():
    def offsets(height, width, by_column=False):
        rows = torch.arange(height).repeat_interleave(width)
        columns = torch.arange(width).repeat(height)
        if by_column:
            rows, columns = (
                torch.arange(height).repeat(width),
                torch.arange(width).repeat_interleave(height),
            )
        return rows[:, None] - rows, columns[:, None] - columns

    def flat(combine, **options):
        return lambda h, w: combine(*offsets(h, w, **options), h, w)

    return [
        (
            "query and key are swapped: the offset is query minus key",
            lambda h, w: relative_position_index(h, w).T,
        ),
        (
            "the row offsets are key minus query; query minus key",
            flat(lambda r, c, h, w: (h - 1 - r) * (2 * w - 1) + c + w - 1),
        ),
        (
            "the column offsets are key minus query; query minus key",
            flat(lambda r, c, h, w: (r + h - 1) * (2 * w - 1) + w - 1 - c),
        ),
        (
            "height and width are swapped in the number of columns: a row of the table has "
            "2 * width - 1 entries",
            flat(lambda r, c, h, w: (r + h - 1) * (2 * h - 1) + c + w - 1),
        ),
        (
            "a row of the table has 2 * width - 1 entries, not `width`",
            flat(lambda r, c, h, w: (r + h - 1) * w + c + w - 1),
        ),
        (
            "a row of the table has 2 * width - 1 entries, not 2 * width",
            flat(lambda r, c, h, w: (r + h - 1) * 2 * w + c + w - 1),
        ),
        (
            "rows and columns are swapped: the row offset times (2 * width - 1), plus the column "
            "offset",
            flat(lambda r, c, h, w: (c + w - 1) * (2 * h - 1) + r + h - 1),
        ),
        (
            "rows and columns are swapped: the row offset times (2 * width - 1), plus the column "
            "offset",
            flat(lambda r, c, h, w: (c + w - 1) * (2 * w - 1) + r + h - 1),
        ),
        (
            "the pixels are counted column by column; row by row, as flatten does",
            flat(lambda r, c, h, w: (r + h - 1) * (2 * w - 1) + c + w - 1, by_column=True),
        ),
        (
            "the shifts are height - 1 and width - 1, not `height` and `width`",
            flat(lambda r, c, h, w: (r + h) * (2 * w - 1) + c + w),
        ),
        (
            "parentheses are missing: the row offset times (2 * width - 1)",
            flat(lambda r, c, h, w: (r + h - 1) * 2 * w - 1 + c + w - 1),
        ),
        (
            "the offsets are not shifted: the most negative one must become 0, so add height - 1 "
            "and width - 1",
            flat(lambda r, c, h, w: r * (2 * w - 1) + c),
        ),
        (
            "the row offsets are not shifted by height - 1",
            flat(lambda r, c, h, w: r * (2 * w - 1) + c + w - 1),
        ),
        (
            "the column offsets are not shifted by width - 1",
            flat(lambda r, c, h, w: (r + h - 1) * (2 * w - 1) + c),
        ),
        (
            "the shifts by height - 1 and width - 1 are swapped",
            flat(lambda r, c, h, w: (r + w - 1) * (2 * w - 1) + c + h - 1),
        ),
        (
            "left and right are the same: keep the offset's sign, without abs",
            flat(lambda r, c, h, w: (r.abs() + h - 1) * (2 * w - 1) + c.abs() + w - 1),
        ),
        (
            "left and right are the same: keep the offset's sign, without abs",
            flat(lambda r, c, h, w: r.abs() * (2 * w - 1) + c.abs()),
        ),
        (
            "the result is [H, W, H, W]; flatten both grids: [N, N]",
            lambda h, w: relative_position_index(h, w).view(h, w, h, w),
        ),
        (
            "that is the absolute position of the key",
            lambda h, w: torch.arange(h * w).repeat(h * w, 1),
        ),
    ]


@exercise("Relative position index", relative_position_index, [])
def position_index(answer):
    mistakes = _position_index_mistakes()
    calls = [(3, 4), (4, 2), (2, 2), (1, 5)]
    proven = compare_calls(
        answer, relative_position_index, calls, mistakes, "right for grids of four sizes."
    )
    kind = answer(2, 3).dtype
    if kind.is_floating_point or kind.is_complex or kind == torch.bool:
        raise CheckFailed("integers", f"{kind}", "an index of a table has to be an integer")
    return proven


def _position_bias_mistakes(heads, height, width):
    def table(*shape):
        return lambda m: setattr(m, "table", nn.Parameter(torch.zeros(shape)))

    def index_learned(m):
        learned = nn.Parameter(m.index.float())
        del m.index
        m.learned = learned

    def looked_up(look):
        return _forward(look)

    return [
        (
            "one bias for all heads; each head has a table of its own: [num_heads, ...]",
            table(2 * height - 1, 2 * width - 1),
        ),
        (
            "the index is a parameter; which entry a pair uses is arithmetic, not learned: "
            "register_buffer",
            index_learned,
        ),
        (
            "the table has an entry a pixel; there are 2 * height - 1 by 2 * width - 1 offsets",
            table(heads, height, width),
        ),
        (
            "the table has one row and one column too many: 2 * height - 1 by 2 * width - 1",
            table(heads, 2 * height, 2 * width),
        ),
        (
            "the table has an entry for every pair of pixels, so that it is not relative",
            table(heads, height * width, height * width),
        ),
        (
            "heads come last; they come first: [num_heads, N, N]",
            looked_up(lambda m: m.table.flatten(1)[:, m.index].permute(1, 2, 0)),
        ),
        (
            "queries and keys are swapped in the result",
            looked_up(lambda m: m.table.flatten(1)[:, m.index.T]),
        ),
        (
            "the table is flattened column by column; the index counts row by row",
            looked_up(lambda m: m.table.mT.flatten(1)[:, m.index]),
        ),
        (
            "all heads get the first one's table",
            looked_up(lambda m: m.table.flatten(1)[:1, m.index].expand(heads, -1, -1)),
        ),
        (
            "`view` mixes heads with offsets; index the second axis of [num_heads, offsets]",
            looked_up(lambda m: m.table.reshape(-1, heads)[m.index].permute(2, 0, 1)),
        ),
        (
            "a softmax has no place here; it follows when the scores have been added",
            looked_up(lambda m: m.table.flatten(1)[:, m.index].softmax(-1)),
        ),
    ]


@exercise(
    "Relative position bias",
    RelativePositionBias,
    ["__init__", "forward"],
    builds_on=[relative_position_index],
)
def position_bias(answer):
    heads, height, width = 6, 3, 4  # no two of the table's lengths are equal

    mistakes = _position_bias_mistakes(heads, height, width)
    proven = compare(
        answer,
        RelativePositionBias,
        (),
        mistakes,
        num_heads=heads,
        grid_size=(height, width),
    )
    module = answer(num_heads=2, grid_size=(2, 3))
    loose = [name for name, value in vars(module).items() if isinstance(value, torch.Tensor)]
    if loose:
        raise CheckFailed(
            "an index that moves to the GPU with the module",
            f"self.{loose[0]} is a plain attribute",
            "self.register_buffer(name, index)",
        )
    return proven


def _attention_mistakes():
    def attention(scores=None, weights=None, bias=None, scale=None):
        """The right computation with one step replaced."""

        def wrong(q, k, v, b):
            factor = q.shape[-1] ** -0.5 if scale is None else scale(q)
            logits = q @ k.mT * factor
            logits = logits + b if bias is None else bias(logits, b)
            logits = logits if scores is None else scores(logits)
            shares = logits.softmax(dim=-1) if weights is None else weights(logits)
            return shares @ v

        return wrong

    def after_softmax(q, k, v, b):
        return ((q @ k.mT * q.shape[-1] ** -0.5).softmax(-1) + b) @ v

    def weights_alone(q, k, v, b):
        return (q @ k.mT * q.shape[-1] ** -0.5 + b).softmax(-1)

    def all_scaled(q, k, v, b):
        return ((q @ k.mT + b) * q.shape[-1] ** -0.5).softmax(-1) @ v

    return [
        ("the bias is never added", attention(bias=lambda s, b: s)),
        ("the bias is added after the softmax; it comes before", after_softmax),
        ("the bias is scaled together with the scores; add it after scaling", all_scaled),
        ("the bias is subtracted; add it", attention(bias=lambda s, b: s - b)),
        ("the bias is multiplied; add it", attention(bias=lambda s, b: s * b)),
        ("the bias is transposed: queries are rows", attention(bias=lambda s, b: s + b.mT)),
        ("one head's bias is added to all heads", attention(bias=lambda s, b: s + b[:1])),
        (
            "the bias is averaged over heads; each head has its own",
            attention(bias=lambda s, b: s + b.mean(0)),
        ),
        ("the scores are not scaled; divide q . k by sqrt(head_dim)", attention(scale=lambda q: 1)),
        (
            "scaled by 1 / head_dim; divide by its square root",
            attention(scale=lambda q: 1 / q.shape[-1]),
        ),
        (
            "scaled by the width of the model; divide by sqrt(head_dim), of one head",
            attention(scale=lambda q: (q.shape[1] * q.shape[-1]) ** -0.5),
        ),
        (
            "scaled by the number of tokens; divide by sqrt(head_dim)",
            attention(scale=lambda q: q.shape[-2] ** -0.5),
        ),
        (
            "multiplied by sqrt(head_dim); divide by it",
            attention(scale=lambda q: q.shape[-1] ** 0.5),
        ),
        (
            "32 is written in; divide by the square root of q's last length",
            attention(scale=lambda q: 32**-0.5),
        ),
        *(
            (
                "`*` multiplies; the power is `**`: q.shape[-1] ** -0.5",
                attention(scale=lambda q, f=factor: q.shape[-1] * f),
            )
            for factor in (0.5, -0.5)
        ),
        ("the weights are returned; they are to average v: weights @ v", weights_alone),
        (
            "the softmax runs over the queries (dim=-2); each query shares out its attention over "
            "the keys: dim=-1",
            attention(weights=lambda s: s.softmax(dim=-2)),
        ),
        (
            "the softmax runs over the heads; over the keys: dim=-1",
            attention(weights=lambda s: s.softmax(1)),
        ),
        (
            "the softmax runs over the batch; over the keys: dim=-1",
            attention(weights=lambda s: s.softmax(0)),
        ),
        ("there is no softmax", attention(weights=lambda s: s)),
        ("a sigmoid instead of a softmax", attention(weights=torch.sigmoid)),
        (
            "the weights are transposed before they meet v",
            attention(weights=lambda s: s.softmax(-1).mT),
        ),
        ("q and k are swapped", lambda q, k, v, b: relative_attention(k, q, v, b)),
        ("k stands where v belongs", lambda q, k, v, b: relative_attention(q, k, k, b)),
        (
            "the mask is causal: tokens look back only",
            attention(
                scores=lambda s: s.masked_fill(torch.ones_like(s).triu(1).bool(), -torch.inf)
            ),
        ),
        (
            "the bias is made a mask of True and False; pass the numbers",
            lambda q, k, v, b: F.scaled_dot_product_attention(q, k, v, attn_mask=b > 0),
        ),
        (
            "the heads are merged; leave [B, heads, N, head_dim]",
            lambda *a: relative_attention(*a).transpose(1, 2).flatten(2),
        ),
        (
            "the result is [B, N, heads, head_dim]; leave [B, heads, N, head_dim]",
            lambda *a: relative_attention(*a).transpose(1, 2),
        ),
    ]


def _attention_calls():
    tokens, heads = 6, 3
    calls = []
    for batch, dim in ((2, 8), (1, 32), (3, 6)):
        q, k, v = 2 * torch.randn(3, batch, heads, tokens, dim)
        calls.append((q, k, v, torch.randn(heads, tokens, tokens)))
    return calls


@exercise("Relative attention, written out", relative_attention, [])
def attention_written_out(answer):
    return compare_calls(
        answer,
        relative_attention,
        _attention_calls(),
        _attention_mistakes(),
        "the reference's values for three widths of a head.",
    )


SCALED_TWICE = (
    "scaled twice: the kernel divides by sqrt(head_dim) by itself; leave q as it is",
    lambda q, k, v, b: relative_attention(q * q.shape[-1] ** -0.5, k, v, b),
)


class _Spy(TorchFunctionMode):
    """Counts the calls of the fused kernel."""

    calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls += func is F.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


@exercise("Relative attention, fused", fused_attention, [])
def attention_fused(answer):
    spy = _Spy()

    def spied(*arguments):
        with spy:
            return answer(*arguments)

    proven = compare_calls(
        spied,
        fused_attention,
        _attention_calls(),
        [SCALED_TWICE, *(m for m in _attention_mistakes() if "1 / head_dim" not in m[0])],
        "the same values, in one kernel.",
    )
    if spy.calls < len(_attention_calls()):
        raise CheckFailed(
            "one call of F.scaled_dot_product_attention",
            "right values without it",
            "that is exercise 4 again; here the fused kernel should do the work",
        )
    return proven


def _attention_module_mistakes():
    def attended(m, x):
        """[B, heads, N, 32] before heads are put together, as the reference computes it."""
        height, width = x.shape[-2:]
        q, k, v = m.qkv(x).flatten(2).unflatten(1, (m.num_heads, 96)).mT.chunk(3, dim=-1)
        return relative_attention(q, k, v, m.position_bias(height, width))

    def merged(merge, project=True):
        def forward(m, x):
            y = merge(attended(m, x)).reshape(len(x), -1, *x.shape[-2:])
            return m.proj(y) if project else y

        return _forward(forward)

    def without_bias(m, x):
        zeros = torch.zeros(m.num_heads, x[0, 0].numel(), x[0, 0].numel())
        q, k, v = m.qkv(x).flatten(2).unflatten(1, (m.num_heads, 96)).mT.chunk(3, dim=-1)
        y = relative_attention(q, k, v, zeros)
        return m.proj(y.mT.reshape(len(x), -1, *x.shape[-2:]))

    def residual(m, x):
        return type(m).forward(m, x) + (x if x.shape[1] == 64 else 0)

    def unprojected(m):
        m.proj = nn.Identity()

    def input_width(m):
        other = coatnet.RelativeAttention(64, 96, (3, 4), _attend_input())
        m.qkv, m.proj, m.position_bias = other.qkv, other.proj, other.position_bias

    def input_heads(m):
        inputs = m.qkv.in_channels
        if inputs == m.proj.out_channels:
            raise ValueError("as many heads either way")
        m.num_heads = inputs // 32
        m.position_bias = RelativePositionBias(m.num_heads, (3, 4))
        m.qkv = nn.Conv2d(inputs, 3 * inputs, 1)

    def written_in(*grid):
        return lambda m: setattr(m, "position_bias", RelativePositionBias(m.num_heads, grid))

    def biasless(m):
        m.position_bias = nn.Identity()

    def turned_grid(m):
        bias = RelativePositionBias(m.num_heads, (4, 3))
        bias.forward = lambda *_: RelativePositionBias.forward(bias)
        m.position_bias = bias

    return [
        (
            "height and width of the grid are swapped: grid_size is (height, width)",
            turned_grid,
        ),
        (
            "heads are counted from in_channels; attention is as wide as the output",
            input_heads,
        ),
        *(
            (
                f"the bias is for a grid of {side} x {side}, which is written in; it is grid_size",
                written_in(side, side),
            )
            for side in (7, 14)
        ),
        ("the projection after the heads is missing", unprojected),
        ("there is no position bias among the parameters", biasless),
        (
            "attention is as wide as the input; it is as wide as the output: out_channels // 32 "
            "heads",
            input_width,
        ),
        ("the bias is never added to the scores", _forward(without_bias)),
        (
            "heads and channels are interleaved; head after head: [B, heads, N, d] -> "
            "[B, heads, d, N] -> [B, heads * d, N]",
            merged(lambda y: y.permute(0, 3, 1, 2)),
        ),
        (
            "`reshape` mixes tokens with channels: swap tokens and channels first, "
            "[B, heads, N, d] -> [B, heads, d, N]",
            merged(lambda y: y),
        ),
        ("tokens come back column by column", merged(lambda y: y.mT.unflatten(3, (4, 3)).mT)),
        ("the projection is never applied", merged(lambda y: y.mT, project=False)),
        ("a shortcut is added; the block will do that", _forward(residual)),
    ]


@exercise(
    "RelativeAttention",
    coatnet.RelativeAttention,
    ["__init__", "forward"],
    builds_on=[QKV, RelativePositionBias, relative_attention, fused_attention],
)
def attention_module(answer):
    mistakes = _attention_module_mistakes()
    compare(
        answer,
        coatnet.RelativeAttention,
        torch.randn(2, 64, 3, 4),
        mistakes,
        in_channels=64,
        out_channels=64,
        grid_size=(3, 4),
    )
    return compare(
        answer,
        coatnet.RelativeAttention,
        torch.randn(2, 64, 3, 4),
        mistakes,
        in_channels=64,
        out_channels=96,
        grid_size=(3, 4),
    )


def _attend_input():
    return coatnet.CoAtNetConfig(attend_output=False)


def halves_up(length):
    return (length + 1) // 2


def _block_mistakes(stride):
    def flow(m, x, first=None, second=None):
        x = (first or right_first)(m, x)
        return (second or right_second)(m, x)

    def right_first(m, x):
        return m.shortcut(x) + m.attention(m.pool(m.norm1(x)))

    def right_second(m, x):
        return x + m.feed_forward(m.norm2(x))

    def first(function):
        return _forward(lambda m, x: flow(m, x, first=function))

    def second(function):
        return _forward(lambda m, x: flow(m, x, second=function))

    def edited(change):
        def edit(m):
            change(m)
            m.forward = lambda x: flow(m, x)

        return edit

    def layer(name, make):
        return edited(lambda m: setattr(m, name, make(m)))

    def set_pools(make):
        def change(m):
            m.pool = make()
            m.shortcut.pool = make()

        return edited(change)

    def norms(make):
        def change(m):
            for name in ("norm1", "norm2"):
                old = getattr(m, name)
                new = make(len(old.weight))
                new.weight, new.bias = old.weight, old.bias
                setattr(m, name, new)

        return edited(change)

    def wide_norm(m):
        m.norm2 = coatnet.LayerNorm2d(m.norm1.weight.numel())

    def other_grid(make):
        def change(m):
            table = m.attention.position_bias
            table.table = nn.Parameter(torch.zeros(2, *(2 * make(n) - 1 for n in (3, 4))))

        return edited(change)

    def narrow(m):
        channels = m.norm2.weight.numel()
        m.feed_forward = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        )

    mistakes = [
        ("the norm before the attention is missing", layer("norm1", lambda m: nn.Identity())),
        (
            "the norm before the feed-forward layers is missing",
            layer("norm2", lambda m: nn.Identity()),
        ),
        ("the second norm is for in_channels; there out_channels come in", edited(wide_norm)),
        (
            "the grid is halved once more; grid_size is the attention's own",
            other_grid(lambda n: n // 2),
        ),
        ("the grid is halved once more; grid_size is the attention's own", other_grid(halves_up)),
        ("the grid is doubled; grid_size is the attention's own", other_grid(lambda n: 2 * n)),
        ("the feed-forward layers are missing", layer("feed_forward", lambda m: nn.Identity())),
        ("the feed-forward layers are twice as wide inside; 4 times", edited(narrow)),
        (
            "the shortcut around the attention is missing",
            first(lambda m, x: m.attention(m.pool(m.norm1(x)))),
        ),
        (
            "the shortcut around the feed-forward layers is missing",
            second(lambda m, x: m.feed_forward(m.norm2(x))),
        ),
        (
            "the feed-forward layers get what is not normalised",
            second(lambda m, x: x + m.feed_forward(x)),
        ),
        (
            "the attention gets what is not normalised",
            first(lambda m, x: m.shortcut(x) + m.attention(m.pool(x))),
        ),
        (
            "the feed-forward shortcut starts behind the norm; it takes x as it is",
            second(lambda m, x: m.norm2(x) + m.feed_forward(m.norm2(x))),
        ),
        (
            "the attention's shortcut starts behind the norm; it takes x as it came in",
            first(lambda m, x: m.shortcut(m.norm1(x)) + m.attention(m.pool(m.norm1(x)))),
        ),
        (
            "the second norm stands behind the feed-forward layers; it comes first (pre-norm)",
            second(lambda m, x: x + m.norm2(m.feed_forward(x))),
        ),
        (
            "the second norm stands behind the sum; it comes first (pre-norm)",
            second(lambda m, x: m.norm2(x + m.feed_forward(x))),
        ),
        ("the feed-forward layers never run", second(lambda m, x: x)),
        (
            "the feed-forward layers do not see what the attention added; one after the other",
            _forward(
                lambda m, x: right_first(m, x) + m.feed_forward(m.norm2(m.shortcut(x))),
            ),
        ),
        (
            "BatchNorm instead of LayerNorm over the channels of each pixel",
            norms(nn.BatchNorm2d),
        ),
        (
            "the norm runs over all pixels together; LayerNorm over the channels of each pixel",
            norms(lambda channels: nn.GroupNorm(1, channels)),
        ),
    ]
    if stride == 1:
        mistakes += [
            (
                "the first norm stands behind the attention; it comes first (pre-norm)",
                first(lambda m, x: x + m.norm1(m.attention(x))),
            ),
            (
                "with stride 1 the shortcut is x itself",
                layer("shortcut", lambda m: nn.Conv2d(64, 64, 1)),
            ),
        ]
    else:
        mistakes += [
            (
                "the pooling comes before the norm in the branch; norm first, then pool",
                first(lambda m, x: m.shortcut(x) + m.attention(m.norm1(m.pool(x)))),
            ),
            (
                "the branch pools behind the attention; norm, pool, attention",
                first(lambda m, x: m.shortcut(x) + m.pool(m.attention(m.norm1(x)))),
            ),
            (
                "both poolings round odd sizes down; they round up: ceil_mode=True",
                set_pools(lambda: nn.AvgPool2d(2)),
            ),
            (
                "both pool by maximum; take means",
                set_pools(lambda: nn.MaxPool2d(2, ceil_mode=True)),
            ),
            (
                "the branch pools by maximum; take means",
                layer("pool", lambda m: nn.MaxPool2d(2, ceil_mode=True)),
            ),
            (
                "the shortcut pools by maximum; take means",
                edited(lambda m: setattr(m.shortcut, "pool", nn.MaxPool2d(2, ceil_mode=True))),
            ),
            ("both pool by maximum; take means", set_pools(lambda: nn.MaxPool2d(3, 2, 1))),
            ("3x3 pixels are pooled; 2x2", set_pools(lambda: nn.AvgPool2d(3, 2, 1))),
            (
                "pixels are skipped instead of pooled",
                set_pools(lambda: nn.MaxPool2d(1, 2)),
            ),
            (
                "the shortcut's projection is missing: where channels change, a 1x1 convolution "
                "behind the pooling",
                edited(lambda m: setattr(m, "shortcut", m.shortcut.pool)),
            ),
            (
                "the shortcut's 1x1 convolution has no bias; keep it",
                edited(lambda m: setattr(m.shortcut.proj, "bias", None)),
            ),
        ]
    return mistakes


def _shortcut_first_or_last(reference, student):
    """The orders in which the block's parts may stand; other layers differ in shape or kind."""
    children = dict(reference.named_children())
    shortcut = children.pop("shortcut")
    return [in_order(shortcut, *children.values()), in_order(*children.values(), shortcut)]


def _sizes_differ(shapes, size):
    """What the shapes say that could not be added with stride 2, for images of that size."""
    if any(tuple(shape[-2:]) == size for shape in shapes):
        return "the branch and the shortcut end in different sizes: with stride 2 both pool"
    return "odd sizes: the pooling rounds down, the grid up; ceil_mode=True"


@exercise(
    "TransformerBlock",
    coatnet.TransformerBlock,
    ["__init__", "forward"],
    builds_on=[coatnet.RelativeAttention],
)
def transformer_block(answer):
    proven = ""
    cases = ((64, 1, (3, 4)), (32, 2, (6, 8)), (32, 2, (5, 7)), (64, 2, (5, 7)))
    for in_channels, stride, size in cases:
        try:
            proven = compare(
                answer,
                coatnet.TransformerBlock,
                torch.randn(2, in_channels, *size),
                _block_mistakes(stride),
                orders=_shortcut_first_or_last,
                in_channels=in_channels,
                out_channels=64,
                grid_size=(3, 4),
                stride=stride,
            )
        except CheckFailed as failure:
            if failure.shapes and stride == 2:
                failure.rows["likely"] = _sizes_differ(failure.shapes, size)
            raise
    require_eps(answer(64, 64, (3, 4)))
    return proven
