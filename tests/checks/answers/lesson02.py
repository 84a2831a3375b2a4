"""Lesson 2: wrong answers with what their message says, and right ones in other styles."""

TOKENS = "self.stem(x).flatten(2).transpose(1, 2)"
IN_FRONT = "torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)"
WRONG = [
    # exercise, text of the solution, what stands there instead, what the message says
    ("cnn-stem", "            nn.BatchNorm2d(64),\n", "", "BatchNorm after the first"),
    ("cnn-stem", "            nn.BatchNorm2d(128),\n", "", "BatchNorm after the second"),
    ("cnn-stem", "            nn.BatchNorm2d(num_hiddens),\n", "", "BatchNorm after the third"),
    ("cnn-stem", "nn.BatchNorm2d(64),\n            nn.GELU(),", "nn.BatchNorm2d(64),", "GELU after the first"),
    ("cnn-stem", "nn.BatchNorm2d(num_hiddens),\n            nn.GELU(),", "nn.BatchNorm2d(num_hiddens),", "GELU after the third"),
    ("cnn-stem", "nn.BatchNorm2d(128),\n            nn.GELU(),", "nn.GELU(),\n            nn.BatchNorm2d(128),", "GELU comes before BatchNorm"),
    ("cnn-stem", "nn.Conv2d(3, 64, kernel_size=3, stride=2, padding=1)", "nn.Conv2d(3, 64, kernel_size=3, stride=2)", "first convolution has padding 0"),
    ("cnn-stem", "nn.Conv2d(64, 128, kernel_size=3, stride=2, padding=1)", "nn.Conv2d(64, 128, kernel_size=3, padding=1)", "second convolution has stride 1"),
    ("cnn-stem", "nn.Conv2d(64, 128, kernel_size=3,", "nn.Conv2d(64, 128, kernel_size=5,", "missing: [128, 64, 3, 3]; not expected: [128, 64, 5, 5]"),
    ("cnn-stem", "nn.Conv2d(128, num_hiddens,", "nn.Conv2d(128, 512,", "not expected: [512], [512, 128, 3, 3]"),
    ("coatnet-hybrid", "math.ceil(img_size / 8) ** 2 + 1", "(img_size // patch_size) ** 2 + 1", "counted from `patch_size`"),
    ("coatnet-hybrid", "math.ceil(img_size / 8) ** 2 + 1", "(img_size // 8) ** 2 + 1", "rounds up"),
    ("coatnet-hybrid", "** 2 + 1", "** 2", "before the CLS token"),
    ("coatnet-hybrid", TOKENS, "self.stem(x).reshape(len(x), -1, self.positions.shape[-1])", "mixes pixels"),
    ("coatnet-hybrid", TOKENS, "self.stem(x).transpose(2, 3).flatten(2).transpose(1, 2)", "column by column"),
    ("coatnet-hybrid", IN_FRONT, "torch.cat([x, self.cls_token.expand(len(x), -1, -1)], dim=1)", "appended"),
    ("coatnet-hybrid", "self.dropout(x + self.positions)", "self.dropout(x)", "never added"),
    ("coatnet-hybrid", "self.dropout(x + self.positions)", "x + self.positions", "dropout before the encoder"),
    ("coatnet-hybrid", "x[:, 0]", "x[:, 1:].mean(dim=1)", "mean of the image tokens"),
    ("coatnet-hybrid", "x[:, 0]", "x.mean(dim=1)", "mean of all tokens"),
    ("coatnet-hybrid", "        x = self.encoder(self.dropout(x + self.positions))", "        x = self.dropout(x + self.positions)", "encoder is left out"),
    ("coatnet-hybrid", "num_hiddens, depth, num_heads, 4", "num_hiddens, 1, num_heads, 4", "one block only"),
    ("coatnet-hybrid", "num_hiddens, depth, num_heads, 4", "num_hiddens, num_heads, depth, 4", "swapped"),
    ("coatnet-hybrid", "nn.Dropout(dropout)", "nn.Dropout()", "differ"),
    ("coatnet-hybrid", "4 * num_hiddens", "num_hiddens", "4 times as wide"),
]  # fmt: skip
# exercise, pairs of texts, each replaced wherever it stands, and what the message says
SEVERAL = [
    ("cnn-stem", [("nn.GELU()", "nn.ReLU()")], "ReLU instead of GELU"),
    (
        "cnn-stem",
        [
            (
                f"nn.BatchNorm2d({width}),\n            nn.GELU(),",
                f"nn.GELU(),\n            nn.BatchNorm2d({width}),",
            )
            for width in ("64", "128", "num_hiddens")
        ],
        "GELU comes before BatchNorm",
    ),
    ("cnn-stem", [(", padding=1", "")], "padding 0 loses the border"),
]

RIGHT = {
    "cnn-stem": {
        "a loop, without the biases that BatchNorm makes idle": """
class CNNStem(nn.Module):
    def __init__(self, num_hiddens):
        super().__init__()
        self.blocks = nn.ModuleList()
        for c_in, c_out in ((3, 64), (64, 128), (128, num_hiddens)):
            conv = nn.Conv2d(c_in, c_out, 3, 2, 1, bias=False)
            self.blocks.append(nn.Sequential(conv, nn.BatchNorm2d(c_out)))

    def forward(self, x):
        for block in self.blocks:
            x = F.gelu(block(x))
        return x
""",
        "norms registered before the convolutions": """
class CNNStem(nn.Module):
    def __init__(self, num_hiddens):
        super().__init__()
        widths = [3, 64, 128, num_hiddens]
        self.norms = nn.ModuleList(nn.BatchNorm2d(w) for w in widths[1:])
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=(2, 2), padding="valid") for a, b in zip(widths, widths[1:])
        )

    def forward(self, x):
        for conv, norm in zip(self.convs, self.norms):
            x = nn.functional.gelu(norm(conv(F.pad(x, (1, 1, 1, 1)))))
        return x
""",
        "a subclass of nn.Sequential": """
class CNNStem(nn.Sequential):
    def __init__(self, num_hiddens):
        def layer(a, b):
            return [nn.Conv2d(a, b, 3, stride=2, padding=1), nn.BatchNorm2d(b), nn.GELU()]
        super().__init__(*layer(3, 64), *layer(64, 128), *layer(128, num_hiddens))
""",
        "lazy layers": """
class CNNStem(nn.Module):
    def __init__(self, num_hiddens):
        super().__init__()
        layers = []
        for width in (64, 128, num_hiddens):
            layers += [nn.LazyConv2d(width, 3, 2, 1), nn.LazyBatchNorm2d(), nn.GELU()]
        self.net = nn.Sequential(*layers)

    def forward(self, x):
        return self.net(x)
""",
    },
    "coatnet-hybrid": {
        "tokens by einsum, positions in an embedding": """
class CoAtNEt(nn.Module):
    def __init__(self, img_size, patch_size, num_hiddens, num_heads, num_classes,
                 depth=6, dropout=0.1):
        super().__init__()
        self.head = ClassificationHead(num_hiddens, num_classes)
        self.stem = CNNStem(num_hiddens)
        side = (img_size + 7) // 8
        self.pos = nn.Embedding(side * side + 1, num_hiddens)
        self.cls = nn.Parameter(torch.zeros(1, 1, num_hiddens))
        self.drop = nn.Dropout(dropout)
        self.encoder = TransformerEncoder(num_hiddens, depth, num_heads, num_hiddens * 4, dropout)

    def forward(self, images):
        grid = self.stem(images)
        tokens = torch.einsum("bdhw->bhwd", grid).flatten(1, 2)
        tokens = torch.cat((self.cls.repeat(len(tokens), 1, 1), tokens), 1) + self.pos.weight
        return self.head(self.encoder(self.drop(tokens))[:, 0, :])
""",
        "the number of tokens read off a forward pass": """
class CoAtNEt(nn.Module):
    def __init__(self, img_size, patch_size, num_hiddens, num_heads, num_classes,
                 depth=6, dropout=0.1):
        super().__init__()
        self.stem = CNNStem(num_hiddens)
        with torch.no_grad():
            grid = self.stem(torch.zeros(1, 3, img_size, img_size))
        self.pos = nn.Parameter(torch.randn(grid[0, 0].numel() + 1, num_hiddens))
        self.cls = nn.Parameter(torch.randn(num_hiddens))
        self.rest = nn.Sequential(
            nn.Dropout(dropout),
            TransformerEncoder(num_hiddens, depth, num_heads, 4 * num_hiddens, dropout),
        )
        self.head = ClassificationHead(num_hiddens, num_classes)

    def forward(self, x):
        x = self.stem(x).permute(0, 2, 3, 1)
        x = x.reshape(len(x), -1, x.shape[-1])
        x = torch.cat([self.cls.expand(len(x), 1, -1), x], dim=1)
        return self.head(self.rest(x + self.pos)[:, 0])
""",
        "a ViT in small steps": """
class CoAtNEt(nn.Module):
    def __init__(self, img_size, patch_size, num_hiddens, num_heads, num_classes,
                 depth=6, dropout=0.1):
        super().__init__()
        self.stem = CNNStem(num_hiddens)
        side = img_size
        for _ in range(3):
            side = -(-side // 2)
        self.cls_token = nn.Parameter(torch.zeros(num_hiddens))
        self.positions = nn.Parameter(torch.zeros(1, 1 + side * side, num_hiddens).normal_(0, 0.02))
        self.encoder = TransformerEncoder(num_hiddens, depth, num_heads, 4 * num_hiddens, dropout)
        self.head = ClassificationHead(num_hiddens, num_classes)
        self.dropout = dropout

    def forward(self, x):
        x = self.stem(x)
        x = x.view(*x.shape[:2], -1).mT
        x = nn.functional.pad(x, (0, 0, 1, 0))
        first = nn.functional.pad(self.cls_token[None], (0, 0, 0, x.shape[1] - 1))
        x = nn.functional.dropout(x + first + self.positions, self.dropout, self.training)
        return self.head(self.encoder(x)[:, 0])
""",
    },
}
