"""Lesson 6: wrong answers with what their message says, and right ones in other styles."""

EVAL = "    model.eval()\n    reference.eval()\n"
FRACTION = "((y - expected).abs().max() / expected.abs().max())"
TRANSPOSED = "            tensor = tensor.T  # [offsets, heads] -> [heads, offsets]"
RESHAPED = "tensor.reshape(shapes[name])"
EXCITE = "SqueezeExcite(hidden, hidden // 4, config.excite_activation)"
DEPTHWISE = "nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)"
PROJECT = "nn.Conv2d(hidden, out_channels, 1, bias=config.conv_bias)"
POOL = 'make_pool("avg") if stride == 2 else nn.Identity()'
FIRST = "nn.SiLU() if config.pre_activation else nn.Identity()"
MIDDLE = "self.act(self.norm1(self.expand(x)))"
LATE = "self.squeeze_excite(self.act(self.norm2(x)))"
SHORTCUT = "return shortcut + self.project(x)"
BLOCK = "TransformerBlock(channels, width, grid_size, stride, config=config)"
LOOP = 'zip("CCTT", config.depths, config.widths)'
FORWARD = "self.head(self.norm(self.stages(self.stem(x))))"
WRONG = [
    # exercise, text of the solution, what stands there instead, what the message says
    ("names", '        ".blocks.": ".",\n', "", "hold their blocks directly"),
    ("names", '        ".conv1_1x1.": ".expand.",\n', "", "`conv1_1x1` is our `expand`"),
    ("names", '        ".conv2_kxk.": ".depthwise.",\n', "", "is our `depthwise`"),
    ("names", '        ".se_early.": ".se.",\n', "", "`_rw` models say `se_early`"),
    ("names", '        ".shortcut.expand.": ".shortcut.proj.",\n', "", "ours is `shortcut.proj`"),
    ("names", '".shortcut.expand."', '".expand."', "a part of a longer word"),
    ("names", '        ".norm1.norm.": ".norm1.",\n', "", "ours is the norm itself"),
    ("names", ".feed_forward.3.", ".feed_forward.2.", "its layers 0 and 3"),
    ("names", '".blocks.": "."', '".blocks.": ""', "a dot got lost"),
    ("names", '        "head.fc.": "head.classifier.",\n', "", "`head.fc` is our `head.classifier`"),
    ("names", "position_bias.table", "position_bias", "position_bias.table"),
    ("names", "    return name", "    name", "no `return`"),
    ("names", "    return name", "    return name.split('.')", "return the new name, a str"),
    ("names", "    return name", "    return name.replace('running', 'moving')", "leave it as it is"),
    ("weights", TRANSPOSED, "            pass", "transpose first"),
    ("weights", "tensor = tensor.T ", "tensor = tensor.T.flip(1) ", "offsets are reversed"),
    ("weights", RESHAPED, RESHAPED + ".flip(0)", "wrong order"),
    ("weights", RESHAPED, "tensor", "become a matrix|ours [heads"),
    ("weights", RESHAPED, "tensor.squeeze()", "keeps its axes of length 1|depthwise kernels"),
    ("weights", RESHAPED, "torch.zeros(shapes[name])", "only zeros"),
    ("weights", RESHAPED, "model.state_dict()[name]", "other numbers than timm's"),
    ("weights", "name = rename(name)", "name = name.replace('.T', '')", "KeyError"),
    ("weights", "converted[name] =", "weights[name] =", "changed size during iteration|it was changed"),
    ("weights", "in weights.items():", "in weights.items():\n        if 'running' in name or 'tracked' in name: continue", "buffers are left out"),
    ("weights", "in weights.items():", "in weights.items():\n        if 'bias_table' in name: continue", "tables are left out"),
    ("weights", "    return converted", "    converted", "no `return`"),
    ("weights", "    return converted", "    model.load_state_dict(converted)\n    return model", "return a dictionary"),
    ("weights", "    return converted", "    for tensor in weights.values(): tensor.zero_()\n    return converted", "new tensors"),
    ("difference", EVAL, "", "model.eval()"),
    ("difference", "    reference.eval()\n", "", "reference.eval()"),
    ("difference", "with torch.no_grad():", "if True:", "torch.no_grad()"),
    ("difference", FRACTION, "((y - expected).max() / expected.abs().max())", "difference goes unseen"),
    ("difference", FRACTION, "((y - expected).abs().max() / expected.max())", "logit goes unseen"),
    ("difference", FRACTION, "(y - expected).abs().max()", "not divided"),
    ("difference", FRACTION, "((y - expected).abs().mean() / expected.abs().max())", "mean of the differences"),
    ("difference", FRACTION, "((y - expected).abs().max() / y.abs().max())", "the reference's is the measure"),
    ("difference", FRACTION, "((y - expected).abs() / expected.abs()).max()", "its own logit"),
    ("difference", FRACTION, "(100 * (y - expected).abs().max() / expected.abs().max())", "in percent"),
    ("difference", FRACTION, "((y.abs().max() - expected.abs().max()).abs() / expected.abs().max())", "difference of the maxima"),
    ("difference", "return " + FRACTION + ".item()", "return (y - expected).abs() / expected.abs().max()", "over all images and classes"),
    ("difference", "return " + FRACTION, FRACTION, "no `return`"),
    ("difference", "model(images), reference(images)", "model(images), model(images)", "was not called"),
    ("settings", 'name.split(".")[2] for', "name for", "count each block number once"),
    ("settings", 'name.split(".")[2] for', 'name.split(".")[3] for', "count the different block numbers"),
    ("settings", "depths.append(len(", "depths.append(set(", "four numbers are asked for"),
    ("settings", "range(4)", "range(3)", "four stages"),
    ("settings", "depths.append(len(", "depths.append(-1 + len(", "start at 0"),
    ("settings", "hidden == 4 * output", "hidden != 4 * output", "the other way round"),
    ("settings", "hidden == 4 * output", "hidden == output", "`project`'s first length"),
    ("settings", "three_widths != 3 * channels", "three_widths == 3 * channels", "the other way round"),
    ("settings", "three_widths != 3 * channels", "three_widths // channels", "True or False is asked for"),
    ("settings", '"stages.1.0.project.bias" in', '"stages.1.0.expand.bias" in', "`project.bias`"),
    ("settings", '"stages.3.0.shortcut.proj.bias" in', '"stages.1.0.shortcut.proj.bias" in', "in a transformer block"),
    ("settings", '"head.hidden.weight" in', '"head.norm.bias" not in', "`head.hidden.weight`"),
    ("settings", '        "mlp_head": "head.hidden.weight" in shapes,\n', "", "depths"),
    ("mbconv-rw", "hidden = 4 * in_channels", "hidden = 4 * out_channels", "counts from the output channels"),
    ("mbconv-rw", EXCITE, EXCITE.replace("hidden // 4", "out_channels // 4"), "here it is hidden // 4"),
    ("mbconv-rw", EXCITE, EXCITE.replace(", config.excite_activation", ""), "activation is not passed on"),
    ("mbconv-rw", EXCITE, EXCITE.replace("config.excite_activation", '"relu"'), "activation is not passed on"),
    ("mbconv-rw", PROJECT, PROJECT.replace(", bias=config.conv_bias", ""), "does not follow config.conv_bias"),
    ("mbconv-rw", '"avg", config.conv_bias', '"avg", True', "shortcut's bias does not follow"),
    ("mbconv-rw", '"avg", config.conv_bias', '"max", config.conv_bias', "shortcut pools by maximum"),
    ("mbconv-rw", DEPTHWISE, DEPTHWISE.replace("padding=1", "stride=stride, padding=1"), "half as large"),
    ("mbconv-rw", DEPTHWISE, DEPTHWISE.replace("groups=hidden, ", ""), "lacks `groups`"),
    ("mbconv-rw", DEPTHWISE, DEPTHWISE.replace(", bias=False", ""), "`depthwise` has a bias"),
    ("mbconv-rw", POOL, "nn.Identity()", "half as large"),
    ("mbconv-rw", POOL, 'make_pool("max") if stride == 2 else nn.Identity()', "pooling by maximum"),
    ("mbconv-rw", POOL, 'make_pool("avg")', "half as large"),
    ("mbconv-rw", FIRST, "nn.SiLU()", "nothing follows the first norm"),
    ("mbconv-rw", FIRST, "nn.Identity()", "SiLU follows the first norm"),
    ("mbconv-rw", "if self.excite_first", "if not self.excite_first", "squeeze-excite comes after norm2"),
    ("mbconv-rw", "if self.excite_first", "if False", "squeeze-excite comes before norm2"),
    ("mbconv-rw", LATE, "self.act(self.squeeze_excite(self.norm2(x)))", "between norm2 and its SiLU"),
    ("mbconv-rw", LATE, "self.act(self.norm2(x))", "built but not used"),
    ("mbconv-rw", MIDDLE, "self.norm1(self.expand(x))", "SiLU after norm1 is missing"),
    ("mbconv-rw", "self.act, self.excite_first = nn.SiLU()", "self.act, self.excite_first = nn.GELU()", "GELU instead of SiLU"),
    ("mbconv-rw", "self.pool(self.pre_activation(self.pre_norm(x)))", "self.pre_activation(self.pre_norm(self.pool(x)))", "pooling comes before the first norm"),
    ("mbconv-rw", SHORTCUT, "return self.project(x)", "shortcut is not added"),
    ("mbconv-rw", SHORTCUT, "return self.act(shortcut + self.project(x))", "SiLU after the sum"),
    ("mbconv-rw", SHORTCUT, "shortcut + self.project(x)", "no `return`"),
    ("coatnet-rw", "Stem(3, config)", "Stem(3)", "stem does not get the `config`"),
    ("coatnet-rw", "Stem(3, config)", 'Stem(3, replace(config, activation="gelu"))', "stem does not get the `config`"),
    ("coatnet-rw", BLOCK, BLOCK.replace(", config=config", ""), "blocks do not get the `config`"),
    ("coatnet-rw", BLOCK, BLOCK.replace("config=config", "config"), "blocks do not get the `config`"),
    ("coatnet-rw", "Head(channels, num_classes, config)", "Head(channels, num_classes)", "head does not get the `config`"),
    ("coatnet-rw", "Head(channels, num_classes, config)", "Head(channels, 1000, config)", "1000 classes"),
    ("coatnet-rw", "LayerNorm2d(channels, eps=1e-6)", "nn.Identity()", "norm behind S4 is missing"),
    ("coatnet-rw", "LayerNorm2d(channels, eps=1e-6)", "LayerNorm2d(channels)", "default is 1e-5"),
    ("coatnet-rw", "num_classes=1000", "num_classes=10", "other cells count on it"),
    ("coatnet-rw", FORWARD, "self.head(self.stages(self.stem(x)))", "built but not used"),
    ("coatnet-rw", FORWARD, "self.head(self.norm(self.stages(self.stem(x)).mean((2, 3), keepdim=True)))", "after the mean"),
    ("coatnet-rw", FORWARD, FORWARD + ".softmax(dim=1)", "a softmax at the end"),
    ("coatnet-rw", '"CCTT"', '"CCCC"', "all stages are MBConv"),
    ("coatnet-rw", '"CCTT"', '"CCCT"', "three stages are MBConv"),
    ("coatnet-rw", '"CCTT"', '"TTCC"', "are swapped|expected"),
    ("coatnet-rw", "[2] + [1] * (depth - 1)", "[2]", "one block; use config.depths"),
    ("coatnet-rw", "[2] + [1] * (depth - 1)", "[2] + [1] * depth", "one block too many"),
    ("coatnet-rw", "halved((image_size, image_size))", "(image_size, image_size)", "stem halves the image too"),
    ("coatnet-rw", "halved((image_size, image_size))", "(image_size // 2, image_size // 2)", "stem's half is rounded down"),
    ("coatnet-rw", "halved((image_size, image_size))", "halved((224, 224))", "those of 224 pixels"),
]  # fmt: skip
# exercise, pairs of texts, each replaced wherever it stands, and what the message says
SEVERAL = [
    (
        "mbconv-rw",
        [
            (POOL, "nn.Identity()"),
            (DEPTHWISE, DEPTHWISE.replace("3, padding", "3, stride, padding")),
        ],
        "stride sits in the depthwise convolution",
    ),
    ("mbconv-rw", [("self.expand", "self.conv1")], "weights go in by name"),
    (
        "mbconv-rw",
        [
            ("self.norm1(self", "self.other(self"),
            ("self.norm2(self", "self.norm1(self"),
            ("self.norm2(x", "self.norm1(x"),
            ("self.other(self", "self.norm2(self"),
        ],
        "norm1 and norm2 have changed places",
    ),
]

RIGHT = {
    "names": {
        "regular expressions, and parts instead of a chain": """
import re
def rename(name):
    name = re.sub(r"blocks[.]", "", name)
    name = re.sub(r"shortcut[.]expand", "shortcut.proj", name)
    for number, ours in enumerate(("expand", "depthwise", "project"), start=1):
        name = re.sub(rf"conv{number}_(1x1|kxk)", ours, name)
    name = re.sub(r"[.]se(_early)?[.]fc1", ".squeeze_excite.squeeze", name)
    name = re.sub(r"[.]se(_early)?[.]fc2", ".squeeze_excite.excite", name)
    name = name.replace("norm1.norm", "norm1")
    name = name.replace("rel_pos.relative_position_bias_table", "position_bias.table")
    name = re.sub(r"[.]attn[.]", ".attention.", name)
    name = name.replace("mlp.fc1", "feed_forward.0").replace("mlp.fc2", "feed_forward.3")
    return name.replace("pre_logits.fc", "hidden").replace("head.fc", "head.classifier")
""",
        "by exceptions for whole suffixes": """
TABLE = {"shortcut.expand": "shortcut.proj", "conv1_1x1": "expand", "conv2_kxk": "depthwise",
         "conv3_1x1": "project", "se.fc1": "squeeze_excite.squeeze",
         "se.fc2": "squeeze_excite.excite", "se_early.fc1": "squeeze_excite.squeeze",
         "se_early.fc2": "squeeze_excite.excite", "norm1.norm": "norm1",
         "attn.qkv": "attention.qkv", "attn.proj": "attention.proj",
         "attn.rel_pos.relative_position_bias_table": "attention.position_bias.table",
         "mlp.fc1": "feed_forward.0", "mlp.fc2": "feed_forward.3"}
def rename(name):
    if name.startswith("head"):
        return name.replace("pre_logits.fc", "hidden").replace("fc.", "classifier.")
    if ".blocks." not in name:
        return name
    where, block = name.split(".blocks.")
    number, rest = block.split(".", 1)
    for old, new in TABLE.items():
        if rest.startswith(old):
            rest = new + rest[len(old):]
            break
    return f"{where}.{number}.{rest}"
""",
        "replacing in another order": """
def rename(name):
    pairs = [("se_early", "se"), ("shortcut.expand", "shortcut.proj"), ("blocks.", ""),
             ("se.fc1", "squeeze_excite.squeeze"), ("se.fc2", "squeeze_excite.excite"),
             ("conv3_1x1", "project"), ("conv2_kxk", "depthwise"), ("conv1_1x1", "expand"),
             ("attn.rel_pos.relative_position_bias_table", "attention.position_bias.table"),
             ("norm1.norm", "norm1"), ("attn", "attention"), ("mlp.fc1", "feed_forward.0"),
             ("mlp.fc2", "feed_forward.3"), ("pre_logits.fc", "hidden"), ("head.fc", "head.classifier")]
    for pair in pairs:
        name = name.replace(*pair)
    return name
""",
    },
    "weights": {
        "a comprehension": """
def convert(weights, model):
    target = model.state_dict()
    return {rename(n): (t.permute(1, 0) if "bias_table" in n else t).reshape(target[rename(n)].shape)
            for n, t in weights.items()}
""",
        "case by case, in copies": """
from collections import OrderedDict
def convert(weights, model):
    result = OrderedDict()
    for theirs, tensor in weights.items():
        ours = rename(theirs)
        tensor = tensor.detach().clone()
        if "relative_position_bias_table" in theirs:
            heads = tensor.shape[1]
            side = int(len(tensor) ** 0.5)
            tensor = tensor.view(side, side, heads).permute(2, 0, 1).contiguous()
        elif "squeeze_excite" in ours and tensor.ndim == 4:
            tensor = tensor.flatten(1)
        result[ours] = tensor
    return result
""",
        "filling a copy of the model's own": """
def convert(weights, model):
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for name, tensor in weights.items():
        place = own[rename(name)]
        place.copy_((tensor.mT if name.endswith("table") else tensor).reshape(place.shape))
    return own
""",
    },
    "difference": {
        "torch.dist and a norm": """
def largest_difference(model, reference, images):
    with torch.inference_mode():
        a, b = (m.eval()(images) for m in (model, reference))
        return torch.dist(a, b, p=float("inf")) / b.norm(p=float("inf"))
""",
        "no_grad as a decorator, train(False)": """
@torch.no_grad()
def largest_difference(model, reference, images):
    model.train(False), reference.train(False)
    expected = reference(images)
    gap = torch.abs(model(images) - expected)
    return float(gap.max()) / float(expected.abs().max())
""",
        "lists of numbers": """
def largest_difference(model, reference, images):
    for m in (model, reference):
        m.eval()
    with torch.set_grad_enabled(False):
        y, z = model(images).flatten().tolist(), reference(images).flatten().tolist()
    return max(abs(a - b) for a, b in zip(y, z)) / max(map(abs, z))
""",
    },
    "settings": {
        "dict() and any()": """
def read_settings(shapes):
    depths = [0, 0, 0, 0]
    for name in shapes:
        if name.startswith("stages."):
            stage, block = map(int, name.split(".")[1:3])
            depths[stage] = max(depths[stage], block + 1)
    inside, into = shapes["stages.0.0.expand.weight"][:2] if False else shapes["stages.1.0.expand.weight"][:2]
    return dict(depths=depths, expand_output=inside != 4 * into,
                attend_output=shapes["stages.3.0.attention.proj.weight"][1]
                == shapes["stages.3.0.attention.proj.weight"][0],
                conv_bias=any(n.endswith("project.bias") for n in shapes),
                shortcut_bias=any(n.startswith(("stages.2", "stages.3")) and "shortcut.proj.bias" in n
                                  for n in shapes),
                mlp_head=any("hidden" in n for n in shapes))
""",
        "a regular expression, a tuple": """
import re
def read_settings(shapes):
    def depth(stage):
        blocks = {int(m[1]) for n in shapes if (m := re.match(rf"stages[.]{stage}[.](\\d+)", n))}
        return 1 + max(blocks)
    expand, qkv = shapes["stages.1.0.expand.weight"], shapes["stages.3.0.attention.qkv.weight"]
    return {
        "mlp_head": shapes.get("head.hidden.bias") is not None,
        "depths": tuple(depth(stage) for stage in range(4)),
        "expand_output": expand[0] // expand[1] == 8,
        "attend_output": qkv[0] // qkv[1] == 6,
        "conv_bias": "stages.0.0.project.bias" in shapes.keys(),
        "shortcut_bias": "stages.2.0.shortcut.proj.bias" in shapes or "stages.3.0.shortcut.proj.bias" in shapes,
    }
""",
        "counting up while a block is there": """
def read_settings(shapes):
    answer = {"depths": ()}
    for stage in "0123":
        n = 0
        while any(name.startswith(f"stages.{stage}.{n}.") for name in shapes):
            n += 1
        answer["depths"] += (n,)
    answer["expand_output"] = shapes["stages.1.0.norm1.weight"] == (4 * shapes["stages.1.1.pre_norm.weight"][0],) if answer["depths"][1] > 1 else None
    answer["attend_output"] = shapes["stages.3.0.attention.position_bias.table"][0] * 32 == shapes["stages.3.0.norm2.weight"][0]
    for key, name in (("conv_bias", "stages.1.0.project.bias"), ("mlp_head", "head.hidden.weight"),
                      ("shortcut_bias", "stages.3.0.shortcut.proj.bias")):
        answer[key] = name in shapes
    return answer
""",
    },
    "mbconv-rw": {
        "layers in another order, functional activations": """
class MBConvRW(nn.Module):
    def __init__(self, in_channels, out_channels, stride, config):
        super().__init__()
        self.config, self.stride = config, stride
        inside = in_channels * 4
        self.squeeze_excite = SqueezeExcite(inside, in_channels, config.excite_activation)
        self.project = nn.Conv2d(inside, out_channels, kernel_size=1, bias=config.conv_bias)
        self.expand = nn.Conv2d(in_channels, inside, kernel_size=1, bias=False)
        self.depthwise = nn.Conv2d(inside, inside, 3, 1, 1, groups=inside, bias=False)
        self.norm2, self.norm1 = nn.BatchNorm2d(inside), nn.BatchNorm2d(inside)
        self.pre_norm = nn.BatchNorm2d(in_channels)
        self.shortcut = make_shortcut(in_channels, out_channels, stride, "avg", config.conv_bias)

    def forward(self, x):
        silu = nn.functional.silu
        y = self.pre_norm(x)
        if self.config.pre_activation:
            y = silu(y)
        if self.stride == 2:
            y = nn.functional.avg_pool2d(y, 2, ceil_mode=True)
        y = self.depthwise(silu(self.norm1(self.expand(y))))
        if self.config.excite_first:
            y = self.squeeze_excite(y)
        y = silu(self.norm2(y))
        if not self.config.excite_first:
            y = self.squeeze_excite(y)
        return self.project(y) + self.shortcut(x)
""",
        "lists of steps": """
class MBConvRW(nn.Module):
    def __init__(self, in_channels, out_channels, stride, config):
        super().__init__()
        hidden = 4 * in_channels
        self.pre_norm = nn.BatchNorm2d(in_channels)
        self.expand = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding="same", groups=hidden, bias=False)
        self.norm2 = nn.BatchNorm2d(hidden)
        self.squeeze_excite = SqueezeExcite(hidden, in_channels, config.excite_activation)
        self.project = nn.Conv2d(hidden, out_channels, 1, bias=config.conv_bias)
        self.shortcut = make_shortcut(in_channels, out_channels, stride, "avg", config.conv_bias)
        names = ["pre_norm"] + ["silu"] * config.pre_activation + ["pool"] * (stride == 2)
        names += ["expand", "norm1", "silu", "depthwise"]
        rest = ["norm2", "silu"]
        names += ["squeeze_excite", *rest] if config.excite_first else [*rest, "squeeze_excite"]
        self.steps = names + ["project"]

    def forward(self, x):
        y = x
        for name in self.steps:
            if name == "silu":
                y = y * torch.sigmoid(y)
            elif name == "pool":
                y = make_pool("avg")(y)
            else:
                y = getattr(self, name)(y)
        return y + self.shortcut(x)
""",
        "a class above": """
class Base(nn.Module):
    def __init__(self, in_channels, out_channels, stride, config):
        super().__init__()
        c, d, s, self.config = in_channels, out_channels, stride, config
        self.shortcut = make_shortcut(c, d, s, "avg", config.conv_bias)
        self.pre_norm, self.norm1, self.norm2 = nn.BatchNorm2d(c), nn.BatchNorm2d(4 * c), nn.BatchNorm2d(4 * c)
        self.expand = nn.Conv2d(c, 4 * c, (1, 1), bias=False)
        self.depthwise = nn.Conv2d(4 * c, 4 * c, (3, 3), padding=(1, 1), groups=4 * c, bias=False)
        self.squeeze_excite = SqueezeExcite(4 * c, c, config.excite_activation)
        self.project = nn.Conv2d(4 * c, d, (1, 1), bias=config.conv_bias)
        self.down = make_pool("avg") if s == 2 else (lambda x: x)
        self.act = nn.SiLU(inplace=False)

class MBConvRW(Base):
    def forward(self, x):
        h = self.pre_norm(x)
        h = self.act(h) if self.config.pre_activation else h
        h = self.depthwise(self.act(self.norm1(self.expand(self.down(h)))))
        late = lambda z: self.act(self.norm2(z))
        h = late(self.squeeze_excite(h)) if self.config.excite_first else self.squeeze_excite(late(h))
        return self.shortcut(x) + self.project(h)
""",
    },
    "coatnet-rw": {
        "a list of blocks for each stage, ModuleList": """
class CoAtNetRW(nn.Module):
    def __init__(self, config, num_classes=1000, image_size=224):
        super().__init__()
        self.head = Head(config.widths[-1], num_classes, config)
        self.norm = LayerNorm2d(config.widths[-1], eps=1e-6)
        sides = [-(-image_size // 2 ** n) for n in range(2, 6)]
        before = [config.stem_widths[1], *config.widths]
        stages = []
        for s in range(4):
            blocks = []
            for b in range(config.depths[s]):
                c_in, stride = (before[s], 2) if b == 0 else (config.widths[s], 1)
                if s < 2:
                    blocks.append(MBConvRW(c_in, config.widths[s], stride, config))
                else:
                    blocks.append(TransformerBlock(c_in, config.widths[s], (sides[s],) * 2, stride, config=config))
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.stem = Stem(3, config)

    def forward(self, x):
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(self.norm(x))
""",
        "a method for a stage": """
class CoAtNetRW(nn.Module):
    def __init__(self, config, num_classes=1000, image_size=224):
        super().__init__()
        self.stem = Stem(config=config)
        grid, c = halved((image_size,) * 2), config.stem_widths[1]
        stages = []
        for number, (depth, width) in enumerate(zip(config.depths, config.widths)):
            grid = halved(grid)
            stages.append(self.stage(number, c, width, depth, grid, config))
            c = width
        self.stages = nn.Sequential(*stages)
        self.norm, self.head = LayerNorm2d(c, eps=1e-6), Head(c, num_classes, config=config)

    @staticmethod
    def stage(number, c, width, depth, grid, config):
        def block(c, stride):
            if number > 1:
                return TransformerBlock(c, width, grid, stride, config=config)
            return MBConvRW(c, width, stride, config)
        return nn.Sequential(block(c, 2), *(block(width, 1) for _ in range(depth - 1)))

    def forward(self, x):
        y = self.norm(self.stages(self.stem(x)))
        return self.head(y)
""",
        "one Sequential for all": """
class CoAtNetRW(nn.Sequential):
    def __init__(self, config, num_classes=1000, image_size=224):
        super().__init__()
        self.stem = Stem(3, config)
        self.stages = nn.Sequential()
        grid, channels = halved((image_size, image_size)), config.stem_widths[-1]
        for s in range(4):
            grid = halved(grid)
            self.stages.append(nn.Sequential())
            for b in range(config.depths[s]):
                width, stride = config.widths[s], 1 + (b == 0)
                self.stages[s].append(
                    MBConvRW(channels, width, stride, config) if s in (0, 1)
                    else TransformerBlock(channels, width, grid, stride, config=config))
                channels = width
        self.norm = LayerNorm2d(channels, 1e-6)
        self.head = Head(channels, num_classes, config)

    def forward(self, x):
        return super().forward(x)
""",
    },
}
