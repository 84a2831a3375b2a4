"""Lesson 3: wrong answers with what their message says, and right ones in other styles."""

CONV = "nn.functional.conv2d(channel, kernel, stride=stride, padding=1)"
APPLY = "x * gates[:, :, None, None]"
SHORTCUT = "self.shortcut.append(nn.Conv2d(in_channels, out_channels, 1))"
POOL = "nn.AvgPool2d(2, ceil_mode=True)"
EXPAND = "nn.Conv2d(in_channels, hidden, 1, bias=False)"
DEPTHWISE = "DepthwiseConv(hidden, stride)"
EXCITE = "            SqueezeExcite(hidden, out_channels // 4),\n"
LAST = "            nn.Conv2d(hidden, out_channels, 1),"
AFTER_EXPAND = (
    "            nn.BatchNorm2d(hidden),\n            nn.GELU(),\n            DepthwiseConv"
)
AFTER_DEPTHWISE = f"            nn.BatchNorm2d(hidden),\n            nn.GELU(),\n{EXCITE}"
WRONG = [
    # exercise, text of the solution, what stands there instead, what the message says
    ("depthwise-conv", "groups=channels, ", "", "without `groups`"),
    ("depthwise-conv", "groups=channels", "groups=2", "as many groups as channels"),
    ("depthwise-conv", ", bias=False", "", "there is a bias"),
    ("depthwise-conv", ", padding=1", "", "padding 0 loses the border"),
    ("depthwise-conv", "stride=stride, ", "", "stride is not passed on"),
    ("depthwise-conv", "stride=stride", "stride=2", "stride is always 2"),
    ("depthwise-conv", "kernel_size=3", "kernel_size=1", "1x1; make it 3x3"),
    ("depthwise-conv", "kernel_size=3", "kernel_size=5", "5x5; make it 3x3"),
    ("depthwise-conv", "return self.conv(x)", "return self.conv(x).relu()", "differ"),
    ("depthwise-loop", "weight[c : c + 1]", "weight[:1]", "first channel's kernel"),
    ("depthwise-loop", "weight[c : c + 1]", "weight[-1:]", "last channel's kernel"),
    ("depthwise-loop", "weight[c : c + 1]", "weight[c : c + 1].mT", "rows and columns"),
    ("depthwise-loop", "weight[c : c + 1]", "weight[c : c + 1].flip(2, 3)", "kernel is flipped"),
    ("depthwise-loop", CONV, CONV.replace(", padding=1", ""), "padding 0"),
    ("depthwise-loop", CONV, CONV.replace("stride=stride, ", ""), "stride is ignored"),
    ("depthwise-loop", "torch.cat(outputs, dim=1)", "sum(outputs)", "channels are summed"),
    ("depthwise-loop", "torch.cat(outputs, dim=1)", "torch.cat(outputs)", "along the batch"),
    ("depthwise-loop", "torch.cat(outputs, dim=1)", "torch.stack(outputs, dim=1)", "new axis"),
    ("depthwise-loop", "torch.cat(outputs, dim=1)", "torch.cat(outputs[::-1], dim=1)", "reverse order"),
    ("depthwise-loop", "torch.cat(outputs, dim=1)", "outputs[0]", "only the first channel"),
    ("depthwise-loop", "return torch.cat(outputs, dim=1)", "torch.cat(outputs, dim=1)", "no `return`"),
    ("squeeze-excite", "            nn.Sigmoid(),\n", "", "no sigmoid"),
    ("squeeze-excite", "nn.Sigmoid()", "nn.Softmax(dim=1)", "channels compete"),
    ("squeeze-excite", "nn.Sigmoid()", "nn.Tanh()", "tanh instead of sigmoid"),
    ("squeeze-excite", "nn.SiLU()", "nn.ReLU()", "ReLU instead of SiLU"),
    ("squeeze-excite", "            nn.SiLU(),\n", "", "SiLU between the two layers is missing"),
    ("squeeze-excite", "dim=(2, 3)", "dim=(1, 2)", "goes over the channels"),
    ("squeeze-excite", "x.mean(dim=(2, 3))", "x.amax(dim=(2, 3))", "maxima instead of means"),
    ("squeeze-excite", "x.mean(dim=(2, 3))", "x.sum(dim=(2, 3))", "sums instead of means"),
    ("squeeze-excite", "x.mean(dim=(2, 3))", "x.mean(dim=(0, 2, 3)).expand(len(x), -1)", "mean of the whole batch"),
    ("squeeze-excite", APPLY, "x + gates[:, :, None, None]", "gates are added"),
    ("squeeze-excite", APPLY, "gates", "gates are returned"),
    ("squeeze-excite", APPLY, "x + x * gates[:, :, None, None]", "no shortcut"),
    ("squeeze-excite", "nn.Linear(channels, hidden_channels)", "nn.Linear(channels, hidden_channels, bias=False)", "first layer has no bias"),
    ("mbconv", "4 * out_channels", "4 * in_channels", "counts from the input channels"),
    ("mbconv", "4 * out_channels", "6 * out_channels", "6 * out_channels wide"),
    ("mbconv", "out_channels // 4", "hidden // 4", "a quarter of the expanded channels"),
    ("mbconv", "out_channels // 4", "in_channels // 4", "a quarter of the input channels"),
    ("mbconv", DEPTHWISE, "nn.Conv2d(hidden, hidden, 3, stride, 1, bias=False)", "lacks `groups`"),
    ("mbconv", DEPTHWISE, "nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden)", "or the depthwise convolution has a bias"),
    ("mbconv", DEPTHWISE, "nn.Conv2d(hidden, hidden, 3, stride, groups=hidden, bias=False)", "different sizes"),
    ("mbconv", DEPTHWISE, "DepthwiseConv(hidden)", "different sizes"),
    ("mbconv", EXPAND, "nn.Conv2d(in_channels, hidden, 1)", "expansion or the"),
    ("mbconv", SHORTCUT, "pass", "shortcut's projection is missing"),
    ("mbconv", SHORTCUT, SHORTCUT.replace(", 1))", ", 1, bias=False))"), "lacks its bias"),
    ("mbconv", "if in_channels != out_channels:", "if True:", "need no projection"),
    ("mbconv", POOL, "nn.MaxPool2d(2, ceil_mode=True)", "pools by maximum"),
    ("mbconv", POOL, "nn.MaxPool2d(3, stride=2, padding=1)", "pools by maximum"),
    ("mbconv", POOL, "nn.AvgPool2d(2)", "ceil_mode=True"),
    ("mbconv", POOL, "nn.AvgPool2d(3, stride=2, padding=1)", "3x3 pixels"),
    ("mbconv", "            nn.BatchNorm2d(in_channels),\n", "", "norm before the expansion"),
    ("mbconv", AFTER_EXPAND, AFTER_EXPAND.replace("            nn.BatchNorm2d(hidden),\n", ""), "norm after the expansion|norm after the depthwise"),
    ("mbconv", AFTER_EXPAND, AFTER_EXPAND.replace("            nn.GELU(),\n", ""), "GELU after the expansion"),
    ("mbconv", AFTER_DEPTHWISE, AFTER_DEPTHWISE.replace("            nn.GELU(),\n", ""), "GELU after the depthwise"),
    ("mbconv", AFTER_DEPTHWISE, AFTER_DEPTHWISE.replace("nn.GELU()", "nn.SiLU()"), "differ"),
    ("mbconv", AFTER_DEPTHWISE, f"{EXCITE}            nn.BatchNorm2d(hidden),\n            nn.GELU(),\n", "comes before the norm"),
    ("mbconv", EXCITE, "", "squeeze-excite is missing"),
    ("mbconv", LAST, LAST + "\n            nn.GELU(),", "after the projection"),
    ("mbconv", LAST, "            nn.Conv2d(hidden, out_channels, 1, bias=False),", "lacks its bias"),
    ("mbconv", "self.shortcut(x) + self.branch(x)", "self.branch(x)", "shortcut is not added"),
    ("mbconv", "self.shortcut(x) + self.branch(x)", "nn.functional.gelu(self.shortcut(x) + self.branch(x))", "after the sum"),
    ("mbconv", "self.shortcut(x) + self.branch(x)", "self.shortcut(self.branch[0](x)) + self.branch(x)", "behind the first norm"),
]  # fmt: skip
# exercise, pairs of texts, each replaced wherever it stands, and what the message says
SEVERAL = [
    (
        "mbconv",
        [
            (DEPTHWISE, "DepthwiseConv(hidden)"),
            (EXPAND, "nn.Conv2d(in_channels, hidden, 1, stride, bias=False)"),
        ],
        "stride sits in the expansion",
    ),
    (
        "mbconv",
        [
            (f"self.shortcut.append({POOL})", "pass"),
            (SHORTCUT, SHORTCUT.replace(", 1))", ", 1, 2))")),
        ],
        "strides without pooling",
    ),
]

RIGHT = {
    "depthwise-conv": {
        "a weight and the functional form": """
class DepthwiseConv(nn.Module):
    def __init__(self, channels, stride=1):
        super().__init__()
        self.kernels = nn.Parameter(torch.randn(channels, 1, 3, 3))
        self.stride = stride

    def forward(self, x):
        return nn.functional.conv2d(x, self.kernels, None, self.stride, 1, 1, x.shape[1])
""",
        "a convolution that is one": """
class DepthwiseConv(nn.Conv2d):
    def __init__(self, channels, stride=1):
        super().__init__(channels, channels, 3, stride, 1, groups=channels, bias=False)

    def forward(self, x):
        return super().forward(x)
""",
        "shifts of the padded image": """
class DepthwiseConv(nn.Module):
    def __init__(self, channels, stride=1):
        super().__init__()
        self.w = nn.Parameter(torch.randn(channels, 3, 3))
        self.stride = stride

    def forward(self, x):
        height, width = x.shape[2:]
        x = nn.functional.pad(x, (1, 1, 1, 1))
        total = 0
        for i in range(3):
            for j in range(3):
                shifted = x[:, :, i : i + height : self.stride, j : j + width : self.stride]
                total = total + self.w[:, i, j, None, None] * shifted
        return total
""",
    },
    "depthwise-loop": {
        "windows and einsum": """
def depthwise_by_hand(x, weight, stride=1):
    windows = nn.functional.pad(x, (1, 1, 1, 1)).unfold(2, 3, stride).unfold(3, 3, stride)
    return torch.einsum("bchwij,cij->bchw", windows, weight[:, 0])
""",
        "a tensor filled channel by channel": """
def depthwise_by_hand(x, weight, stride=1):
    B, C, H, W = x.shape
    out = torch.zeros(B, C, (H + stride - 1) // stride, (W + stride - 1) // stride)
    for c, kernel in enumerate(weight):
        out[:, c] = nn.functional.conv2d(x[:, c, None], kernel[None], None, stride, 1)[:, 0]
    return out
""",
        "one matrix product a channel": """
def depthwise_by_hand(x, weight, stride=1):
    height, width = (x.shape[2] - 1) // stride + 1, (x.shape[3] - 1) // stride + 1
    results = [
        weight[c].view(1, 9) @ nn.functional.unfold(x[:, [c]], 3, padding=1, stride=stride)
        for c in range(len(weight))
    ]
    return torch.stack([r.view(len(x), height, width) for r in results], 1)
""",
    },
    "squeeze-excite": {
        "1x1 convolutions on pooled pixels": """
class SqueezeExcite(nn.Module):
    def __init__(self, channels, hidden_channels):
        super().__init__()
        self.up = nn.Conv2d(hidden_channels, channels, 1)
        self.down = nn.Conv2d(channels, hidden_channels, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        return x * self.up(nn.functional.silu(self.down(self.pool(x)))).sigmoid()
""",
        "einsum and plain parameters": """
class SqueezeExcite(nn.Module):
    def __init__(self, channels, hidden_channels):
        super().__init__()
        self.w1 = nn.Parameter(torch.randn(hidden_channels, channels))
        self.b1 = nn.Parameter(torch.randn(hidden_channels))
        self.w2 = nn.Parameter(torch.randn(channels, hidden_channels))
        self.b2 = nn.Parameter(torch.randn(channels))

    def forward(self, x):
        h = torch.einsum("bchw,dc->bd", x, self.w1) / (x.shape[2] * x.shape[3]) + self.b1
        g = torch.sigmoid(torch.einsum("bd,cd->bc", h * torch.sigmoid(h), self.w2) + self.b2)
        return torch.einsum("bchw,bc->bchw", x, g)
""",
        "channels last": """
class SqueezeExcite(nn.Module):
    def __init__(self, channels, hidden_channels):
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(channels, hidden_channels), nn.Linear(hidden_channels, channels)]
        )
        self.silu = nn.SiLU(inplace=True)

    def forward(self, x):
        first, second = self.layers
        y = x.flatten(2).mean(-1)
        y = second(self.silu(first(y)))
        return (x.permute(2, 3, 0, 1) * torch.special.expit(y)).permute(2, 3, 0, 1)
""",
    },
    "mbconv": {
        "one layer at a time, pooling written as a mean": """
class MBConv(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        width = out_channels * 4
        self.stride = stride
        self.norm0 = nn.BatchNorm2d(in_channels)
        self.expand = nn.Conv2d(in_channels, width, kernel_size=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.depthwise = nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.se = SqueezeExcite(width, out_channels // 4)
        self.project = nn.Conv2d(width, out_channels, kernel_size=1)
        self.proj = None
        if stride == 2 and in_channels != out_channels:
            self.proj = nn.Conv2d(in_channels, out_channels, kernel_size=1)

    def forward(self, x):
        y = nn.functional.gelu(self.norm1(self.expand(self.norm0(x))))
        y = nn.functional.gelu(self.norm2(self.depthwise(y)))
        y = self.project(self.se(y))
        if self.stride == 2:
            x = nn.functional.avg_pool2d(x, 2, ceil_mode=True)
        return y + (x if self.proj is None else self.proj(x))
""",
        "projected before pooling, in a Sequential with Identity": """
class MBConv(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        mid = 4 * out_channels
        same = in_channels == out_channels
        self.skip = nn.Sequential(
            nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1),
            nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False)
            if stride == 2
            else nn.Identity(),
        )
        self.pre = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Sequential(
            nn.Conv2d(in_channels, mid, 1, bias=False), nn.BatchNorm2d(mid), nn.GELU()
        )
        self.conv2 = nn.Sequential(DepthwiseConv(mid, stride), nn.BatchNorm2d(mid), nn.GELU())
        self.rest = nn.Sequential(
            SqueezeExcite(mid, out_channels // 4), nn.Conv2d(mid, out_channels, 1)
        )

    def forward(self, x):
        branch = self.rest(self.conv2(self.conv1(self.pre(x))))
        return torch.add(branch, self.skip(x))
""",
        "linear layers for the 1x1 convolutions": """
class MBConv(nn.Module):
    def __init__(self, in_channels, out_channels, stride=1):
        super().__init__()
        mid = 4 * out_channels
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in (in_channels, mid, mid))
        self.expand = nn.Linear(in_channels, mid, bias=False)
        self.depthwise = DepthwiseConv(mid, stride)
        self.excite = SqueezeExcite(mid, out_channels // 4)
        self.project = nn.Linear(mid, out_channels)
        self.act = nn.GELU()
        if stride == 2:
            self.pool = nn.AvgPool2d(2, ceil_mode=True)
            if in_channels != out_channels:
                self.shortcut = nn.Linear(in_channels, out_channels)

    def forward(self, x):
        y = self.expand(self.norms[0](x).movedim(1, -1)).movedim(-1, 1)
        y = self.act(self.norms[1](y))
        y = self.excite(self.act(self.norms[2](self.depthwise(y))))
        y = self.project(y.movedim(1, -1)).movedim(-1, 1)
        if hasattr(self, "pool"):
            x = self.pool(x)
        if hasattr(self, "shortcut"):
            x = self.shortcut(x.movedim(1, -1)).movedim(-1, 1)
        return x + y
""",
    },
}
