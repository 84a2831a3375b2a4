"""Lesson 8: wrong answers with what their message says, and right ones in other styles."""

INPUT = "block.pool(block.norm1(x))"
SCORES = "q @ k.transpose(-2, -1) * HEAD_DIM**-0.5 + bias"
SOFTMAX = "scores.softmax(dim=-1)"
HEADS = ".unflatten(1, (heads, 3 * HEAD_DIM))"
SPLIT = "qkv.transpose(2, 3).chunk(3, dim=-1)"
MEAN = "gradient.abs().mean(dim=(0, 1))"
MIDDLE = "grid[:, :, grid.shape[2] // 2, grid.shape[3] // 2].sum()"
GRADIENT = "(gradient,) = torch.autograd.grad(middle, images)"
SHARE = "(predictions == targets).float().mean().item()"
RESIZE = 'F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)'
WRONG = [
    # exercise, text of the solution, what stands there instead, what the message says
    ("reading", INPUT, "block.pool(x)", "the norm is missing"),
    ("reading", INPUT, "block.norm1(x)", "the pooling is missing"),
    ("reading", INPUT, "x", "norm and pooling are missing|the norm is missing"),
    ("reading", SCORES, "q @ k.transpose(-2, -1) + bias", "not scaled"),
    ("reading", SCORES, "q @ k.transpose(-2, -1) / HEAD_DIM + bias", "not by its root"),
    ("reading", SCORES, "q @ k.transpose(-2, -1) * HEAD_DIM**0.5 + bias", "with the root of 32"),
    ("reading", SCORES, "q @ k.transpose(-2, -1) * HEAD_DIM**-0.5", "bias is missing"),
    ("reading", SCORES, "q @ k.transpose(-2, -1) * HEAD_DIM**-0.5 + bias.mT", "bias is transposed"),
    ("reading", SCORES, "(q @ k.transpose(-2, -1) + bias) * HEAD_DIM**-0.5", "differ"),
    ("reading", SOFTMAX, "scores.softmax(dim=-2)", "over the queries"),
    ("reading", SOFTMAX, "scores.softmax(dim=1)", "over the heads"),
    ("reading", SOFTMAX, "scores", "softmax is missing"),
    ("reading", SOFTMAX, "(scores - bias).softmax(dim=-1) + bias", "after the softmax"),
    ("reading", SOFTMAX, "scores.softmax(dim=-1).mean(dim=1)", "mean over the heads"),
    ("reading", SOFTMAX, "scores.softmax(dim=-1)[:, 0]", "one head alone"),
    ("reading", "return " + SOFTMAX, SOFTMAX, "no `return`"),
    ("reading", "q, k, _ =", "k, q, _ =", "q and k are swapped"),
    ("reading", "q, k, _ =", "q, _, k =", "k and v are swapped"),
    ("reading", "q, k, _ =", "_, k, q =", "v takes the place of q"),
    ("reading", HEADS, ".unflatten(1, (3, heads, HEAD_DIM)).transpose(1, 2).flatten(2, 3)", "head by head"),
    ("reading", SPLIT, "qkv.chunk(3, dim=2)", "shape|Error"),
    ("field", MEAN, "gradient.mean(dim=(0, 1))", "absolute values are missing"),
    ("field", MEAN, "gradient.mean(dim=(0, 1)).abs()", "come after the mean"),
    ("field", MEAN, "gradient.square().mean(dim=(0, 1))", "squares"),
    ("field", MEAN, "gradient[0].abs().mean(dim=0)", "first image alone"),
    ("field", MEAN, "gradient[:, 0].abs().mean(dim=0)", "one colour alone"),
    ("field", MEAN, "gradient.abs().amax(dim=1).mean(dim=0)", "largest of the colours"),
    ("field", MEAN, "gradient.abs().mean(dim=0)", "colours are left apart"),
    ("field", "return field / field.sum()", "return field", "do not add up to 1"),
    ("field", "return field / field.sum()", "return field / field.max()", "largest value"),
    ("field", "return field / field.sum()", "field / field.sum()", "no `return`"),
    ("field", "return field / field.sum()", "return (field / field.sum()).mT", "swapped in the result"),
    ("field", MIDDLE, "grid.sum()", "gradient of all places"),
    ("field", MIDDLE, "grid[:, :, 0, 0].sum()", "the corner"),
    ("field", MIDDLE, "grid[:, :, grid.shape[2] // 2].sum()", "a whole row"),
    ("field", MIDDLE, "grid[:, :, grid.shape[3] // 2, grid.shape[2] // 2].sum()", "row and column|out of bounds"),
    ("field", MIDDLE, "grid[:, :, (grid.shape[2] - 1) // 2, (grid.shape[3] - 1) // 2].sum()", "one place too far"),
    ("field", "images.clone().requires_grad_()", "images.clone()", "does not require grad"),
    ("field", "images.clone().requires_grad_()", "images.requires_grad_()", "leaves them alone|leaves its arguments"),
    ("sweep", ", antialias=True", "", "without antialias"),
    ("sweep", 'mode="bilinear"', 'mode="bicubic"', "bicubic"),
    ("sweep", RESIZE, "F.interpolate(images, size=(size, size))", "nearest pixels"),
    ("sweep", "resized = F", "resized = images = F", "resized last"),
    ("sweep", "model(resized)", "model(images)", "not resized"),
    ("sweep", "    model.eval()\n", "", "model.eval()"),
    ("sweep", "with torch.no_grad():", "if True:", "torch.no_grad()"),
    ("sweep", SHARE, "100 * " + SHARE, "in percent"),
    ("sweep", SHARE, "(predictions != targets).float().mean().item()", "wrong answers are counted"),
    ("sweep", SHARE, "(predictions == targets).sum().item()", "number of right answers"),
    ("sweep", "in sizes", "in sorted(sizes)", "ascending order"),
    ("sweep", "return shares", "return shares[::-1]", "reverse order"),
    ("sweep", "return shares", "return dict(zip(sizes, shares))", "return a list"),
    ("sweep", "return shares", "shares", "no `return`"),
    ("sweep", "    return shares", "        return shares", "shares, one a size"),
]  # fmt: skip
RIGHT = {
    "reading": {
        "einsum": """
def attention_weights(block, x):
    y = block.attention.qkv(block.pool(block.norm1(x)))
    batch, _, h, w = y.shape
    y = y.reshape(batch, block.attention.num_heads, 3, 32, h * w)
    scores = torch.einsum("bhdn,bhdm->bhnm", y[:, :, 0], y[:, :, 1]) / 32**0.5
    return F.softmax(scores + block.attention.position_bias(h, w)[None], dim=3)
""",
        "head by head": """
def attention_weights(block, x):
    x = block.norm1(x)
    x = block.pool(x)
    h, w = x.shape[2], x.shape[3]
    tokens = block.attention.qkv(x).flatten(2).transpose(1, 2)
    bias = block.attention.position_bias(h, w)
    maps = []
    for head in range(block.attention.num_heads):
        q = tokens[..., 96 * head : 96 * head + 32]
        k = tokens[..., 96 * head + 32 : 96 * head + 64]
        scores = (q / HEAD_DIM**0.5).bmm(k.transpose(1, 2)) + bias[head]
        maps.append(scores.softmax(-1))
    return torch.stack(maps, dim=1)
""",
        "the exponential written out, in two halves of an equation": """
@torch.no_grad()
def attention_weights(block, x):
    a = block.attention
    x = block.pool(block.norm1(x))
    q, k, v = a.qkv(x).flatten(2).mT.unflatten(2, (a.num_heads, 3, HEAD_DIM)).permute(3, 0, 2, 1, 4)
    scores = q @ k.mT
    scores = scores / scores.new_tensor(HEAD_DIM).sqrt() + a.position_bias(*x.shape[-2:])
    scores = (scores - scores.amax(-1, keepdim=True)).exp()
    return scores / scores.sum(-1, keepdim=True)
""",
    },
    "field": {
        "backward, as in lessons 2 and 3": """
def receptive_field(features, images):
    images = images.detach().clone().requires_grad_()
    grid = features(images)
    grid[:, :, grid.shape[2] // 2, grid.shape[3] // 2].sum().backward()
    field = images.grad.abs().mean(dim=(0, 1))
    return field / field.sum()
""",
        "detach, and a list for autograd.grad": """
def receptive_field(features, images):
    x = images.detach().requires_grad_(True)
    y = features(x)
    h, w = y.shape[-2:]
    g = torch.autograd.grad(y[..., h // 2, w // 2].sum(), [x])[0]
    total = g.abs().sum((0, 1))
    return total / total.sum()
""",
        "one image after the other": """
def receptive_field(features, images):
    field = 0
    for image in images:
        x = image[None].clone().requires_grad_()
        y = features(x)[0]
        row, column = y.shape[1] // 2, y.shape[2] // 2
        gradient = torch.autograd.grad(y[:, row, column].sum(), x)[0][0]
        field = field + gradient.abs().sum(dim=0)
    return field / field.sum()
""",
        "a weight of one in the middle": """
def receptive_field(features, images):
    images = images.clone().requires_grad_()
    grid = features(images)
    ones = torch.zeros_like(grid)
    ones[:, :, grid.size(-2) // 2, grid.size(-1) // 2] = 1
    gradient = torch.autograd.grad(grid, images, grad_outputs=ones)[0]
    return F.normalize(gradient.abs().flatten(0, 1).mean(0).flatten(), p=1, dim=0).view(images.shape[2:])
""",
    },
    "sweep": {
        "a function for each size": """
@torch.no_grad()
def resolution_sweep(model, images, targets, sizes):
    model.train(False)
    def share(side):
        small = nn.functional.interpolate(images, (side, side), mode="bilinear", align_corners=False, antialias=True)
        return float((model(small).max(dim=1)[1] == targets).double().mean())
    return [share(side) for side in sizes]
""".replace("nn.functional", "torch.nn.functional"),
        "in batches": """
def resolution_sweep(model, images, targets, sizes):
    model.eval()
    answer = []
    for size in sizes:
        right = 0
        for batch, expected in zip(images.split(64), targets.split(64)):
            batch = F.interpolate(batch, size=size, mode="bilinear", antialias=True)
            with torch.inference_mode():
                right += int(model(batch).argmax(-1).eq(expected).sum())
        answer.append(right / len(images))
    return answer
""",
        "torchvision's resize, a tuple of tensors": """
from torchvision.transforms.v2.functional import resize
def resolution_sweep(model, images, targets, sizes):
    model.eval()
    with torch.no_grad():
        logits = [model(resize(images, [s, s], antialias=True)) for s in sizes]
    return tuple(torch.mean((l.argmax(1) == targets).float()) for l in logits)
""",
    },
}
