"""Checks of lesson 1, the ViT: `from course.checks import lesson01 as check`."""

import itertools

import torch
from torch import nn

import vit
from course.checking import CheckFailed, exercise, students_code
from course.comparing import compare, in_order


def _patch_embedding_mistakes():
    def conv(**changes):
        kept = {"in_channels": 2, "out_channels": 10, "kernel_size": 4, "stride": 4}
        return lambda m: setattr(m, "proj", nn.Conv2d(**(kept | changes)))

    def tokens(rearrange):
        return lambda m: setattr(m, "forward", lambda x: rearrange(m.proj(x)))

    def overlapping(m):
        m.proj.stride = (1, 1)

    return [
        ("the convolution has no bias; leave `bias` at its default", conv(bias=False)),
        ("3 input channels are written in; use `in_channels`", conv(in_channels=3)),
        ("kernel size is not `patch_size`", conv(kernel_size=3)),
        (
            "the patches overlap: the stride must be `patch_size` too",
            overlapping,
        ),
        (
            "`reshape` or `view` cuts [B, D, N] anew and mixes patches; swap the two axes with "
            "`transpose(1, 2)`",
            tokens(lambda y: y.flatten(2).reshape(len(y), -1, y.shape[1])),
        ),
        (
            "the tokens come column by column; `flatten(2)` alone takes them row by row",
            tokens(lambda y: y.transpose(2, 3).flatten(2).transpose(1, 2)),
        ),
        (
            "the result is [B, D, N]; swap the last two axes: [B, N, D]",
            tokens(lambda y: y.flatten(2)),
        ),
        (
            "the grid is still there: flatten its two axes into one, then swap: [B, N, D]",
            tokens(lambda y: y),
        ),
    ]


@exercise("Patch embedding", vit.PatchEmbedding, ["__init__", "forward"])
def patch_embedding(answer):
    sizes = {"img_size": 12, "patch_size": 4, "num_hiddens": 10, "in_channels": 2}

    def orders(reference, student):
        # The pixels of a patch may reach a linear layer in any order of channel, row and column.
        weight, bias = reference.proj.weight, reference.proj.bias
        for axes in itertools.permutations((1, 2, 3)):
            yield [("weight", weight.permute(0, *axes)), ("bias", bias)]

    proven = compare(
        answer,
        vit.PatchEmbedding,
        torch.randn(3, 2, 12, 12),
        _patch_embedding_mistakes(),
        orders,
        **sizes,
    )
    with students_code("an attribute num_patches"):
        came = answer(**sizes).num_patches
    if not isinstance(came, int) or came != 9:
        likely = "(img_size // patch_size) ** 2, a number"
        if isinstance(came, int) and came == 3:
            likely = "that counts one side of the grid only; there are rows and columns"
        if isinstance(came, float):
            likely = "`/` gives a float; a number of patches is an int, from `//`"
        raise CheckFailed("num_patches = 9 for img_size=12, patch_size=4", came, likely)
    return proven


def _scores(head, x):
    return head.q(x) @ head.k(x).transpose(-2, -1)  # [B, N, N]


def _linear(names, dim, head_dim, **changes):
    def edit(head):
        for name in names:
            setattr(head, name, nn.Linear(dim, head_dim, **changes))

    return edit


def _attention(weigh):
    """An edit that puts `weigh(head, x)` in the place of a head's attention weights."""
    return lambda head: setattr(head, "attention", lambda x: weigh(head, x))


def default_dropout(part="", p=0.1):
    """An edit that leaves the dropout of a part of a module at a default, ours or PyTorch's 0.5."""

    def edit(module):
        for layer in module.get_submodule(part).modules():
            if isinstance(layer, nn.Dropout):
                layer.p = p

    return edit


FIXED_DROPOUT = [
    ("`dropout` is not used: 0.1 is written in, or a part's default", default_dropout()),
    ("`dropout` is not used: nn.Dropout() has a default of its own, 0.5", default_dropout(p=0.5)),
]


WRITTEN_IN = (1 / 2, 1 / 4, 1 / 8, 8**-0.5, 32**-0.5, 64**-0.5, 0.1)  # instead of head_dim's

HEAD_MISTAKES = [
    (
        "the scores are not scaled: multiply them by head_dim ** -0.5 before the softmax",
        lambda head: setattr(head, "scale", 1.0),
    ),
    (
        "the scores are scaled by the model width `dim`; scale by `head_dim`",
        lambda head: setattr(head, "scale", head.q.in_features**-0.5),
    ),
    (
        "the scores are multiplied by the square root of head_dim; divide by it",
        lambda head: setattr(head, "scale", head.scale**-1),
    ),
    (
        "the scores are divided by head_dim; divide by its square root",
        lambda head: setattr(head, "scale", head.scale**2),
    ),
    *(
        (
            "`*` multiplies; the power is `**`: head_dim ** -0.5",
            lambda head, f=factor: setattr(head, "scale", f(head.q.out_features)),
        )
        for factor in (lambda d: d * -0.5, lambda d: d * 0.5, lambda d: 1 / (d * 0.5))
    ),
    *(
        (
            "the scale is a number that is written in; it follows from head_dim",
            lambda head, s=scale: setattr(head, "scale", s),
        )
        for scale in WRITTEN_IN
    ),
    (
        "the softmax runs over the queries (dim=-2), so the columns sum to 1; each query shares "
        "out its attention over the keys: dim=-1",
        _attention(lambda head, x: (_scores(head, x) * head.scale).softmax(dim=-2)),
    ),
    (
        "the softmax runs over the batch (dim=0), so images look at each other; use dim=-1",
        _attention(lambda head, x: (_scores(head, x) * head.scale).softmax(dim=0)),
    ),
    ("the softmax is missing", _attention(lambda head, x: _scores(head, x) * head.scale)),
    (
        "the scale comes after the softmax; scale the scores before it",
        _attention(lambda head, x: _scores(head, x).softmax(dim=-1) * head.scale),
    ),
]


@exercise("Attention head", vit.AttentionHead, ["__init__", "attention", "forward"])
def attention_head(answer):
    dim, head_dim = 12, 7  # no power of two, so that no slip of the scale hides

    def orders(reference, student):
        # Query, key and value may be registered in any order, in one layer, or as x @ weight.
        for order in itertools.permutations([reference.q, reference.k, reference.v]):
            parameters = in_order(*order)
            yield parameters
            yield [(kind, weight.T) for kind, weight in parameters]

    def without_value(head):
        head.forward = lambda x: head.dropout(head.attention(x)) @ head.k(x)

    def drop_scores(head):
        def attention(x):
            return head.dropout(_scores(head, x) * head.scale).softmax(dim=-1)

        head.forward = lambda x: attention(x) @ head.v(x)

    def tokens_as_values(head):
        head.forward = lambda x: head.dropout(head.attention(x)) @ x

    def drop_output(head):
        head.forward = lambda x: head.dropout(head.attention(x) @ head.v(x))

    return compare(
        answer,
        vit.AttentionHead,
        torch.randn(2, 5, dim),
        [
            *(
                ("query, key and value have no bias: set bias=False", _linear(n, dim, head_dim))
                for n in ("q", "qk", "qkv")
            ),
            (
                "query, key and value are `dim` wide; make them `head_dim` wide",
                _linear("qkv", dim, dim, bias=False),
            ),
            *HEAD_MISTAKES,
            ("the keys are averaged; average the values", without_value),
            ("the tokens themselves are averaged; average the values", tokens_as_values),
            ("dropout acts on the output; it belongs on the attention weights", drop_output),
            ("dropout comes before the softmax; it belongs on the attention weights", drop_scores),
            (
                "query and key share one layer; each has its own, or attention is symmetric",
                lambda head: setattr(head, "k", head.q),
            ),
            *FIXED_DROPOUT,
        ],
        orders,
        methods=["attention"],
        dim=dim,
        head_dim=head_dim,
        dropout=0.3,
    )


def _multi_head_mistakes(num_heads, num_hiddens):
    def joined(join):
        def edit(m):
            m.forward = lambda x: m.proj(join([head(x) for head in m.heads]))

        return edit

    def heads(make):
        return lambda m: setattr(m, "heads", nn.ModuleList(make(m)))

    def without_projection(m):
        m.proj = nn.Identity()

    return [
        (
            "the heads are missing, or stand in a plain list, where PyTorch does not find their "
            "parameters; use nn.ModuleList",
            heads(lambda m: []),
        ),
        (
            "all heads are one and the same object, or there is only one; make `num_heads` new "
            "ones",
            heads(lambda m: [m.heads[0]] * num_heads),
        ),
        (
            "each head is `num_hiddens` wide; give each num_hiddens // num_heads",
            heads(lambda m: [vit.AttentionHead(15, 15) for _ in range(num_heads)]),
        ),
        (
            "each head gets a slice of the input; it reads whole tokens and "
            "writes num_hiddens // num_heads numbers",
            heads(lambda m: [vit.AttentionHead(5, 5) for _ in range(num_heads)]),
        ),
        ("the projection after the heads is missing", without_projection),
        (
            "the projection has no bias; leave `bias` at its default",
            lambda m: setattr(m, "proj", nn.Linear(15, 15, bias=False)),
        ),
        (
            "the heads are concatenated in the reverse order",
            joined(lambda outputs: torch.cat(outputs[::-1], dim=-1)),
        ),
        (
            "the features of the heads are interleaved; concatenate whole heads one after the "
            "other, torch.cat(..., dim=-1)",
            joined(lambda outputs: torch.stack(outputs, dim=-1).flatten(2)),
        ),
        (
            "the heads are stacked on another axis and reshaped, which mixes tokens; use "
            "torch.cat(..., dim=-1)",
            joined(lambda outputs: torch.cat(outputs, dim=1).reshape(len(outputs[0]), 5, 15)),
        ),
        (
            "the result is computed, but not projected: call the projection in `forward`",
            lambda m: setattr(
                m, "forward", lambda x: torch.cat([head(x) for head in m.heads], dim=-1)
            ),
        ),
        ("`dropout` is not handed on to the heads", default_dropout()),
        FIXED_DROPOUT[1],
    ]


@exercise(
    "Multi-head attention",
    vit.MultiHeadAttention,
    ["__init__", "forward"],
    builds_on=[vit.AttentionHead],
)
def multi_head(answer):
    num_hiddens, num_heads = 15, 3

    def orders(reference, student):
        if any(isinstance(module, vit.AttentionHead) for module in student.modules()):
            yield in_order(reference)
            return
        # Head after head, or one layer for the queries of all heads, one for the keys, ...
        for order in itertools.permutations("qkv"):
            by_head = [getattr(head, name) for head in reference.heads for name in order]
            by_kind = [getattr(head, name) for name in order for head in reference.heads]
            for projections in (by_head, by_kind):
                yield in_order(*projections, reference.proj)
                yield in_order(reference.proj, *projections)

    return compare(
        answer,
        vit.MultiHeadAttention,
        torch.randn(2, 5, num_hiddens),
        _multi_head_mistakes(num_heads, num_hiddens),
        orders,
        num_hiddens=num_hiddens,
        num_heads=num_heads,
        dropout=0.3,
    )


@exercise("Feed-forward", vit.FeedForward, ["__init__", "forward"])
def feed_forward(answer):
    def layers(change):
        return lambda m: setattr(m, "net", nn.Sequential(*change(list(m.net))))

    return compare(
        answer,
        vit.FeedForward,
        torch.randn(2, 5, 8),
        [
            (
                "the hidden width is written in; use `mlp_dim`",
                layers(lambda _: [nn.Linear(8, 32), nn.Linear(32, 8)]),
            ),
            ("ReLU instead of GELU", layers(lambda n: [n[0], nn.ReLU(), *n[2:]])),
            (
                "GELU in its tanh approximation; use the exact one, nn.GELU()",
                layers(lambda n: [n[0], nn.GELU("tanh"), *n[2:]]),
            ),
            ("the GELU between the two layers is missing", layers(lambda n: [n[0], *n[2:]])),
            (
                "a GELU after the second layer too; there is one, between the layers",
                layers(lambda n: [*n[:4], nn.GELU(), n[4]]),
            ),
            (
                "the GELU comes after the second layer; it belongs between the two",
                layers(lambda n: [n[0], n[2], n[3], nn.GELU(), n[4]]),
            ),
            ("the dropout after the GELU is missing", layers(lambda n: [n[0], n[1], n[3], n[4]])),
            ("the dropout after the second layer is missing", layers(lambda n: n[:4])),
            (
                "the dropout comes before the GELU; it comes after it",
                layers(lambda n: [n[0], n[2], n[1], n[3], n[4]]),
            ),
            (
                "a residual; here there is none, the encoder block adds it",
                lambda m: setattr(m, "forward", lambda x: x + m.net(x)),
            ),
            *FIXED_DROPOUT,
        ],
        num_hiddens=8,
        mlp_dim=20,
        dropout=0.3,
    )


def _encoder_block_mistakes():
    def forward(compute):
        def edit(m):
            m.forward = lambda x: compute(x, m.attention, m.feed_forward, m.norm1, m.norm2)

        return edit

    def post_norm(x, attention, feed_forward, norm1, norm2):
        x = norm1(x + attention(x))
        return norm2(x + feed_forward(x))

    def normed_residual(first, second):
        def compute(x, attention, feed_forward, norm1, norm2):
            x = (norm1(x) if first else x) + attention(norm1(x))
            return (norm2(x) if second else x) + feed_forward(norm2(x))

        return compute

    def shortcut_from_the_input(x, attention, feed_forward, norm1, norm2):
        return x + feed_forward(norm2(x + attention(norm1(x))))

    def feed_forward_first(x, attention, feed_forward, norm1, norm2):
        x = x + feed_forward(norm1(x))
        return x + attention(norm2(x))

    def no_residual(first, second):
        def compute(x, attention, feed_forward, norm1, norm2):
            x = x * first + attention(norm1(x))
            return x * second + feed_forward(norm2(x))

        return compute

    def without_norms(first, second):
        def compute(x, attention, feed_forward, norm1, norm2):
            x = x + attention(norm1(x) if first else x)
            return x + feed_forward(norm2(x) if second else x)

        return compute

    def first_norm_twice(x, attention, feed_forward, norm1, norm2):
        x = x + attention(norm1(x))
        return x + feed_forward(norm1(x))

    def norm_outside(x, attention, feed_forward, norm1, norm2):
        x = x + norm1(attention(x))
        return x + norm2(feed_forward(x))

    def in_parallel(x, attention, feed_forward, norm1, norm2):
        return x + attention(norm1(x)) + feed_forward(norm2(x))

    skip = nn.Identity()

    def residual_twice(x, attention, feed_forward, norm1, norm2):
        after = x + attention(norm1(x))
        return x + after + feed_forward(norm2(after))

    return [
        (
            "one LayerNorm for both places; each has its own",
            lambda m: setattr(m, "norm2", m.norm1),
        ),
        *(
            (f"there is no LayerNorm before the {step}", lambda m, n=n: setattr(m, n, skip))
            for n, step in (("norm1", "attention"), ("norm2", "feed-forward"))
        ),
        (
            "there is no LayerNorm",
            lambda m: [setattr(m, name, nn.Identity()) for name in ("norm1", "norm2")],
        ),
        ("both residuals are missing: x + ... around each step", forward(no_residual(0, 0))),
        ("the residual around the attention is missing", forward(no_residual(0, 1))),
        ("the residual around the feed-forward is missing", forward(no_residual(1, 0))),
        (
            "the norms come after the residuals (post-norm); put each before its step",
            forward(post_norm),
        ),
        *(
            ("the residual adds the normed x; add x as before the norm", forward(mistake))
            for mistake in map(normed_residual, (1, 0, 1), (0, 1, 1))
        ),
        (
            "the second residual adds the block's input; add the result of the first step",
            forward(shortcut_from_the_input),
        ),
        (
            "the feed-forward does not see what the attention added; take one step after the other",
            forward(in_parallel),
        ),
        ("the first norm is used in both places; each has its own", forward(first_norm_twice)),
        (
            "the norms are applied to what attention and feed-forward return; put each before",
            forward(norm_outside),
        ),
        ("the block's input is added twice", forward(residual_twice)),
        ("the feed-forward comes first; the attention does", forward(feed_forward_first)),
        ("the norm before the attention is not used", forward(without_norms(0, 1))),
        ("the norm before the feed-forward is not used", forward(without_norms(1, 0))),
        ("the norms are not used", forward(without_norms(0, 0))),
        ("`dropout` is not handed on to the parts", default_dropout()),
        ("`dropout` is not handed on to the attention", default_dropout("attention")),
        ("`dropout` is not handed on to the feed-forward", default_dropout("feed_forward")),
    ]


@exercise(
    "Encoder block",
    vit.EncoderBlock,
    ["__init__", "forward"],
    builds_on=[vit.AttentionHead, vit.MultiHeadAttention, vit.FeedForward],
)
def encoder_block(answer):
    return compare(
        answer,
        vit.EncoderBlock,
        torch.randn(2, 5, 8),
        _encoder_block_mistakes(),
        num_hiddens=8,
        num_heads=2,
        mlp_dim=20,
        dropout=0.3,
    )


TOKEN_SIZES = {  # all different, so that none can stand in for another
    "num_hiddens": 8,
    "num_heads": 4,
    "num_classes": 7,
    "depth": 2,
    "dropout": 0.3,
}


def token_mistakes(embed, side):
    """The typical mistakes that ViT and CoAtNEt share, for models of TOKEN_SIZES.

    embed(model, x): the image tokens, [B, N, D]. side: length of the grid, N = side * side.
    """

    def tokens(m, x):
        x = embed(m, x)
        return m.cls_token.expand(len(x), -1, -1), x

    def forward(compute):
        return lambda m: setattr(m, "forward", lambda x: compute(m, *tokens(m, x)))

    def encode(m, x):
        return m.encoder(m.dropout(x))

    def appended(m, cls, x):
        return m.head(encode(m, torch.cat([x, cls], dim=1) + m.positions)[:, -1])

    def appended_but_first_read(m, cls, x):
        return m.head(encode(m, torch.cat([x, cls], dim=1) + m.positions)[:, 0])

    def read(choose):
        def compute(m, cls, x):
            return m.head(choose(encode(m, torch.cat([cls, x], dim=1) + m.positions)))

        return compute

    def without_positions(m, cls, x):
        return m.head(encode(m, torch.cat([cls, x], dim=1))[:, 0])

    def positions_on_patches_only(m, cls, x):
        return m.head(encode(m, torch.cat([cls, x + m.positions[:, 1:]], dim=1))[:, 0])

    def dropout_first(m, cls, x):
        return m.head(m.encoder(m.dropout(torch.cat([cls, x], dim=1)) + m.positions)[:, 0])

    def probabilities(m, cls, x):
        return m.head(encode(m, torch.cat([cls, x], dim=1) + m.positions)[:, 0]).softmax(dim=-1)

    def encoder(depth, num_heads, mlp_dim):
        return lambda m: setattr(m, "encoder", vit.TransformerEncoder(8, depth, num_heads, mlp_dim))

    def without_encoder(m, cls, x):
        return m.head(m.dropout(torch.cat([cls, x], dim=1) + m.positions)[:, 0])

    def without_dropout(m, cls, x):
        return m.head(m.encoder(torch.cat([cls, x], dim=1) + m.positions)[:, 0])

    def positions_for(count):
        def edit(m):
            m.positions = nn.Parameter(torch.zeros(1, count, m.positions.shape[-1]))

        return edit

    def without(name):
        return lambda m: setattr(m, name, None)

    def plain_head(m):
        m.head = nn.Linear(8, 7)

    return [
        ("`depth` and `num_heads` are swapped", encoder(4, 2, 32)),
        ("`depth` is not handed on to the encoder", encoder(6, 4, 32)),
        ("the encoder has one block only; stack `depth` of them", encoder(1, 4, 32)),
        ("the feed-forward is as wide as the tokens; make it 4 times as wide", encoder(2, 4, 8)),
        (
            "the positions lack one: they were counted before the CLS token joined; there are "
            f"{side * side} image tokens and 1 CLS token",
            positions_for(side * side),
        ),
        (
            "there are as many positions as the grid has columns; it has rows too",
            positions_for(side + 1),
        ),
        *(
            (
                f"{count} tokens are written in; how many there are follows from img_size",
                positions_for(count),
            )
            for count in (49, 50, 64, 65, 196, 197)
        ),
        (
            "there are no learned positions, or they are a plain tensor: wrap it in nn.Parameter",
            without("positions"),
        ),
        (
            "there is no learned CLS token, or it is a plain tensor: wrap it in nn.Parameter",
            without("cls_token"),
        ),
        ("the head is a linear layer alone; ClassificationHead has a norm before it", plain_head),
        (
            "x[0] is the first image; the CLS token of every image is x[:, 0]",
            forward(read(lambda x: x[0])),
        ),
        (
            "the CLS token is appended, behind the image tokens; it comes first",
            forward(appended),
        ),
        (
            "the CLS token is appended, and the first image token is read out instead",
            forward(appended_but_first_read),
        ),
        (
            "the head reads the mean of all tokens; let it read the CLS token, x[:, 0]",
            forward(read(lambda x: x.mean(dim=1))),
        ),
        (
            "the head reads the mean of the image tokens; let it read the CLS token, x[:, 0]",
            forward(read(lambda x: x[:, 1:].mean(dim=1))),
        ),
        (
            "the head reads the last token; the CLS token is the first, x[:, 0]",
            forward(read(lambda x: x[:, -1])),
        ),
        (
            "the head reads every token; give it the CLS token alone, x[:, 0]",
            forward(read(lambda x: x)),
        ),
        ("the positions are never added", forward(without_positions)),
        (
            "the CLS token gets no position: the positions are added before it joins",
            forward(positions_on_patches_only),
        ),
        ("the encoder is left out", forward(without_encoder)),
        ("the dropout before the encoder is missing", forward(without_dropout)),
        ("the dropout comes before the positions; add them first", forward(dropout_first)),
        (
            "a softmax on the logits; leave them as they are, the loss takes care of it",
            forward(probabilities),
        ),
        *FIXED_DROPOUT,
        ("`dropout` is not handed on to the encoder", default_dropout("encoder")),
        ("the dropout before the encoder ignores `dropout`", default_dropout("dropout")),
    ]


@exercise(
    "Vision Transformer",
    vit.ViT,
    ["__init__", "forward"],
    builds_on=[
        vit.PatchEmbedding,
        vit.AttentionHead,
        vit.MultiHeadAttention,
        vit.FeedForward,
        vit.EncoderBlock,
    ],
)
def vision_transformer(answer):
    return compare(
        answer,
        vit.ViT,
        torch.randn(2, 3, 12, 12),
        token_mistakes(lambda m, x: m.patch_embedding(x), side=3),
        img_size=12,
        patch_size=4,
        **TOKEN_SIZES,
    )
