"""Lesson 5: wrong answers with what their message says, and right ones in other styles."""

GIVEN = "import coatnet"
FIRST = "nn.Conv2d(in_channels, first, 3, stride=2, padding=1, bias=False)"
SECOND = "nn.Conv2d(first, second, 3, padding=1, bias=False)"
CHOICE = "(in_channels, 2) if number == 0 else (out_channels, 1)"
TRANSFORMER = "TransformerBlock(channels, out_channels, grid_size, stride)"
STAGE = "make_stage(channels, width, depth, kind, (side, side))"
START = "math.ceil(image_size / 2)"
HALVED = "side = math.ceil(side / 2)"
BLOCKS = "config.block_types"
HEAD = "        return self.head(x)"
CONFIG = "CoAtNetConfig(stem_widths=(stem, stem), depths=depths, widths=widths)"
COUNT = "sum(parameter.numel() for parameter in model.parameters())"
WRONG = [
    # exercise, text of the solution, what stands there instead, what the message says
    ("stem", FIRST, FIRST.replace("stride=2, ", ""), "no convolution has a stride"),
    ("stem", SECOND, SECOND.replace("3, ", "3, stride=2, "), "both convolutions have stride 2"),
    ("stem", FIRST, FIRST.replace(", bias=False", ""), "first convolution has a bias"),
    ("stem", SECOND, SECOND.replace(", bias=False", ""), "second convolution has a bias"),
    ("stem", FIRST, FIRST.replace("padding=1, ", ""), "first convolution has padding 0"),
    ("stem", SECOND, SECOND.replace("padding=1, ", ""), "second convolution has padding 0"),
    ("stem", "first, second = config", "second, first = config", "two widths are swapped"),
    ("stem", FIRST, FIRST.replace("in_channels", "3"), "3 input channels are written in"),
    ("stem", "            nn.BatchNorm2d(first),\n", "", "BatchNorm after the first convolution"),
    ("stem", "            nn.GELU(),\n", "", "GELU between the convolutions is missing"),
    ("stem", "nn.GELU()", "nn.ReLU()", "ReLU instead of GELU"),
    ("stem", SECOND, SECOND + ", nn.GELU()", "GELU follows the second convolution"),
    ("stem", SECOND, SECOND + ", nn.BatchNorm2d(second)", "a norm follows the second convolution"),
    ("stage", CHOICE, "(in_channels if number == 0 else out_channels), 2", "every block has stride 2"),
    ("stage", CHOICE, "(in_channels if number == 0 else out_channels), 1", "only the first block of a stage"),
    ("stage", CHOICE, "(in_channels, 2)", "starts from in_channels"),
    ("stage", "range(depth)", "range(depth + 1)", "one block too many"),
    ("stage", "range(depth)", "range(depth - 1)", "one block too few"),
    ("stage", 'if kind == "C":', 'if kind == "T":', "grid"),
    ("stage", 'if kind == "C":', "if True:", "these are MBConv blocks"),
    ("stage", TRANSFORMER, TRANSFORMER.replace("grid_size", "coatnet.halved(grid_size)"), "halved once too often"),
    ("stage", TRANSFORMER, TRANSFORMER.replace("grid_size", "(7, 7)"), "`grid_size` is not used"),
    ("stage", TRANSFORMER, TRANSFORMER.replace("grid_size", "(grid_size[0] * 2, grid_size[1] * 2)"), "grid_size is doubled"),
    ("stage", TRANSFORMER, TRANSFORMER.replace("grid_size", "grid_size[::-1]"), "height and width are swapped"),
    ("stage", "return nn.Sequential(*blocks)", "return blocks", "makes a module of a list"),
    ("stage", "return nn.Sequential(*blocks)", "return nn.ModuleList(blocks)", "only holds layers"),
    ("coatnet-staged", "math.ceil(side / 2)\n            stages", "4 * side\n            stages", "grids become smaller"),
    ("coatnet-staged", "zip(config.depths, config.widths, config.block_types)", "list(zip(config.depths, config.widths, config.block_types))[:3]", "three stages"),
    ("coatnet-staged", BLOCKS, "config.block_types[::-1]", "transformer blocks come before MBConv"),
    ("coatnet-staged", BLOCKS, '"CCCC"', "all stages are MBConv"),
    ("coatnet-staged", BLOCKS, '"TTTT"', "all stages are transformer blocks"),
    ("coatnet-staged", START, "image_size", "twice too large"),
    ("coatnet-staged", START, "math.ceil(image_size / 4)", "halved once too often"),
    ("coatnet-staged", HALVED, "side = side // 2", "rounded down"),
    ("coatnet-staged", START, "image_size // 2", "rounded down"),
    ("coatnet-staged", HALVED, "pass", "then no more"),
    ("coatnet-staged", "            channels = width\n", "", "every stage starts from the stem's channels"),
    ("coatnet-staged", STAGE, STAGE.replace("channels", "width"), "every stage starts from its own width"),
    ("coatnet-staged", STAGE, STAGE.replace("depth", "1"), "one block only"),
    ("coatnet-staged", "in zip(config.depths, config.widths", "in zip(config.depths[::-1], config.widths", "depths are read from the end"),
    ("coatnet-staged", "Head(channels, num_classes)", "Head(channels, 1000)", "1000 classes are written in"),
    ("coatnet-staged", HEAD, "        return self.head(x).softmax(dim=1)", "softmax at the end"),
    ("coatnet-staged", HEAD, "        return self.head(x.amax(dim=(2, 3), keepdim=True))", "max pooling"),
    ("coatnet-staged", HEAD, "        return self.head(x[:, :, :1, :1])", "first token"),
    ("coatnet-staged", HEAD, "        return self.head(x.flatten(2))", "mean itself|`mean` acts on"),
    ("coatnet-staged", "self.head = Head", "self.cls = nn.Parameter(torch.zeros(1, 1, channels))\n        self.head = Head", "CLS token is left over"),
    ("coatnet-staged", "self.stages = nn.Sequential(*stages)", "self.stages = stages", "plain list"),
    ("family", "(stem, stem)", "(stem // 2, stem)", "not half of it first"),
    ("family", "(stem, stem)", "(stem, widths[0])", "both widths are the D of S0"),
    ("family", "(stem, stem)", "(stem,)", "two convolutions"),
    ("family", CONFIG, "CoAtNetConfig(stem_widths=(stem, stem), depths=widths, widths=depths)", "swapped"),
    ("family", "depths=depths", "depths=depths[::-1]", "S4 to S1"),
    ("family", "depths=depths", "depths=(2, *depths)", "S0 to S4"),
    ("family", "depths=depths", "depths=(2, *depths[:3])", "S0 to S3"),
    ("family", "rows[number]", "rows[number - 1]", "D of S0|a row of the table|expected"),
    ("family", "(256, 512, 1280, 2048)", "(256, 512, 1024, 2048)", "not in CoAtNet-5"),
    ("family", f"return {CONFIG}", CONFIG, "return CoAtNetConfig"),
    ("counting", COUNT, COUNT + " / 1e6", "wrong unit"),
    ("counting", COUNT, "4 * " + COUNT, "that is bytes"),
    ("counting", COUNT, "len(list(model.parameters()))", "number of tensors"),
    ("counting", COUNT, "sum(v.numel() for v in model.state_dict().values())", "buffers are counted"),
    ("counting", COUNT, COUNT[:-1] + " if parameter.requires_grad)", "frozen parameters are left out"),
    ("counting", "parameter.numel()", "(len(parameter) if parameter.ndim else 1)", "first length"),
    ("counting", 'with torch.device("meta"):', "if True:", "built on the meta device"),
    ("counting", f"return {COUNT}", COUNT, "no `return`"),
]  # fmt: skip
RIGHT = {
    "stem": {
        "its own attributes": """
class Stem(nn.Module):
    def __init__(self, in_channels, config):
        super().__init__()
        a, b = config.stem_widths
        self.two = nn.Conv2d(a, b, (3, 3), (1, 1), "same", bias=False)
        self.norm = nn.BatchNorm2d(a)
        self.one = nn.Conv2d(in_channels, a, (3, 3), (2, 2), (1, 1), bias=False)

    def forward(self, x):
        return self.two(nn.functional.gelu(self.norm(self.one(x))))
""",
        "a Sequential itself": """
class Stem(nn.Sequential):
    def __init__(self, in_channels, config):
        options = {"kernel_size": 3, "padding": 1, "bias": False}
        super().__init__(
            nn.Conv2d(in_channels, config.stem_widths[0], stride=2, **options),
            nn.BatchNorm2d(config.stem_widths[0]),
            nn.GELU(),
            nn.Conv2d(*config.stem_widths, **options),
        )

    def forward(self, x):
        for layer in self:
            x = layer(x)
        return x
""",
        "weights and the functional form": """
class Stem(nn.Module):
    def __init__(self, in_channels, config):
        super().__init__()
        first, second = config.stem_widths
        self.w1 = nn.Parameter(torch.randn(first, in_channels, 3, 3))
        self.norm = nn.BatchNorm2d(first)
        self.w2 = nn.Parameter(torch.randn(second, first, 3, 3))

    def forward(self, x):
        x = nn.functional.gelu(self.norm(nn.functional.conv2d(x, self.w1, stride=2, padding=1)))
        return nn.functional.conv2d(x, self.w2, padding=1)
""",
    },
    "stage": {
        "the first block apart, the rest in a comprehension": """
def make_stage(in_channels, out_channels, depth, kind, grid_size):
    def block(channels, stride=1):
        if kind == "T":
            return TransformerBlock(channels, out_channels, grid_size, stride=stride)
        return MBConv(channels, out_channels, stride=stride)

    return nn.Sequential(block(in_channels, 2), *(block(out_channels) for _ in range(depth - 1)))
""",
        "a table of classes and recursion": """
def make_stage(in_channels, out_channels, depth, kind, grid_size):
    if depth == 0:
        return nn.Sequential()
    make = {"C": MBConv, "T": partial(TransformerBlock, grid_size=grid_size)}[kind]
    stage = make_stage(in_channels, out_channels, depth - 1, kind, grid_size)
    first = len(stage) == 0
    stage.append(
        make(in_channels if first else out_channels, out_channels, stride=2 if first else 1)
    )
    return stage
""",
        "a module of its own": """
class Row(nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x

    def __iter__(self):
        return iter(self.blocks)

def make_stage(in_channels, out_channels, depth, kind, grid_size):
    widths = [in_channels] + [out_channels] * depth
    strides = [2] + [1] * (depth - 1)
    extra = [] if kind == "C" else [grid_size]
    block = MBConv if kind == "C" else TransformerBlock
    rows = zip(widths[:-1], widths[1:], strides)
    return Row([block(a, b, *extra, s) for a, b, s in rows])
""",
    },
    "coatnet-staged": {
        "integer arithmetic and a ModuleList": """
class CoAtNet(nn.Module):
    def __init__(self, config, num_classes=1000, image_size=224):
        super().__init__()
        self.head = Head(config.widths[-1], num_classes)
        self.stem = Stem(3, config)
        inputs = (config.stem_widths[1], *config.widths[:3])
        sides = [-(-image_size // 2 ** (s + 2)) for s in range(4)]
        self.stages = nn.ModuleList(
            make_stage(i, o, d, k, (s, s))
            for i, o, d, k, s in zip(
                inputs, config.widths, config.depths, config.block_types, sides
            )
        )

    def forward(self, x):
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.head(x)
""",
        "the sides measured, by index": """
class CoAtNet(nn.Module):
    def __init__(self, config, num_classes=1000, image_size=224):
        super().__init__()
        self.stem = Stem(in_channels=3, config=config)
        self.stages = nn.Sequential()
        side = (image_size + 1) // 2
        for n in range(len(config.depths)):
            side = (side + 1) // 2
            before = config.widths[n - 1] if n > 0 else config.stem_widths[-1]
            self.stages.append(
                make_stage(before, config.widths[n], config.depths[n], config.block_types[n],
                           (side, side))
            )
        self.head = Head(config.widths[-1], num_classes)

    def forward(self, x):
        return self.head(self.stages(self.stem(x)))
""",
        "a Sequential of named parts": """
class CoAtNet(nn.Module):
    def __init__(self, config, num_classes=1000, image_size=224):
        super().__init__()
        grid = (math.ceil(image_size / 2),) * 2
        channels = config.stem_widths[-1]
        stages = {}
        for s, plan in enumerate(zip(config.widths, config.depths, config.block_types), start=1):
            width, depth, kind = plan
            grid = tuple(math.ceil(side / 2) for side in grid)
            stages[f"S{s}"] = make_stage(channels, width, depth, kind, grid)
            channels = width
        self.add_module("stem", Stem(3, config))
        self.stages = nn.Sequential()
        for name, stage in stages.items():
            self.stages.add_module(name, stage)
        self.add_module("head", Head(channels, num_classes))

    def forward(self, x):
        for part in self.children():
            x = part(x)
        return x
""",
    },
    "family": {
        "a dictionary and keyword arguments": """
def paper_config(number):
    depths = {0: [2, 3, 5, 2], 4: [2, 12, 28, 2], 5: [2, 12, 28, 2]}.get(number, [2, 6, 14, 2])
    first = [96, 96, 128, 192, 192, 256][number]
    widths = (256, 512, 1280, 2048) if number == 5 else tuple(first * 2**s for s in range(4))
    stem = [64, 64, 128, 192, 192, 192][number]
    return CoAtNetConfig(depths=tuple(depths), widths=widths, stem_widths=(stem, stem))
""",
        "match": """
def paper_config(number):
    match number:
        case 0:
            return CoAtNetConfig()
        case 1:
            return CoAtNetConfig(depths=(2, 6, 14, 2))
        case 2:
            return CoAtNetConfig((2, 6, 14, 2), (128, 256, 512, 1024), (128, 128))
        case 3:
            return CoAtNetConfig((2, 6, 14, 2), (192, 384, 768, 1536), (192, 192))
        case 4:
            return CoAtNetConfig((2, 12, 28, 2), (192, 384, 768, 1536), (192, 192))
        case 5:
            return CoAtNetConfig((2, 12, 28, 2), (256, 512, 1280, 2048), (192, 192))
""",
        "replace": """
def paper_config(number):
    config = CoAtNetConfig(block_types=("C", "C", "T", "T"))
    large = replace(config, depths=(2, 6, 14, 2))
    huge = replace(large, widths=(192, 384, 768, 1536), stem_widths=(192,) * 2)
    deep = replace(huge, depths=(2, 12, 28, 2))
    wide = replace(large, widths=(128, 256, 512, 1024), stem_widths=(128, 128))
    last = replace(deep, widths=(256, 512, 1280, 2048))
    return [config, large, wide, huge, deep, last][number]
""",
    },
    "counting": {
        "a loop over named parameters": """
def count_parameters(build):
    total = 0
    with torch.device("meta"):
        for _, p in build().named_parameters():
            total += math.prod(p.shape)
    return total
""",
        "one vector": """
def count_parameters(build):
    with torch.device(device="meta"):
        return nn.utils.parameters_to_vector(build().parameters()).numel()
""",
        "map and nelement": """
def count_parameters(build):
    with torch.device("meta"):
        model = build()
    return sum(map(torch.Tensor.nelement, model.parameters()))
""",
    },
}
