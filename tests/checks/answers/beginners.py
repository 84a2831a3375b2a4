"""What beginners were seen to write, in all lessons: rows that fit no table of a single exercise.

Each row: (exercise, pairs of texts, each replaced wherever it stands, words of the likely mistake).
"""

CAT = "torch.cat([head(x) for head in self.heads], dim=-1)"
SLICED = "[head(s) for head, s in zip(self.heads, x.chunk(len(self.heads), dim=-1))]"
TABLE = "nn.Parameter(torch.empty(num_heads, 2 * height - 1, 2 * width - 1))"
TOKENS = "x = self.stem(x).flatten(2).transpose(1, 2)"
COUNT = "math.ceil(img_size / 8) ** 2 + 1"
SOFTMAX = "(scores * self.scale).softmax(dim=-1)"
DROPPED = "self.dropout(self.attention(x))"
NORM2 = "self.norm2 = LayerNorm2d(out_channels, eps=1e-6)"
FIRST_STEP = "x = x + self.attention(self.norm1(x))"
PARALLEL = "return x + self.attention(self.norm1(x)) + self.feed_forward(self.norm2(x))"
ONE = "one and the same|one LayerNorm for both"
AWAY = "stands in the way|cuts off"
IN_PLACE = "changes it in place|writes into what was given"

TYPOS = [
    ("feed-forward", [("return self.net(x)", "return self.net(x).gelu()")], "is a tensor, which has no `gelu`"),
    ("patch-embedding", [("x.flatten(2)", "x.flattn(2)")], "did you mean `flatten`?"),
    ("attention-written-out", [("(scores + bias).softmax", "(scores + bias).sofmax")], "did you mean `softmax`?"),
    ("encoder-block", [("self.attention(self.norm1(x))", "self.norm1(x).attention()")], "is a tensor, which has no `attention`"),
    ("vision-transformer", [("self.cls_token.expand(len(x)", "cls_token.expand(len(x)")], "it is an attribute: `self.cls_token`"),
    ("vision-transformer", [("self.patches.num_patches + 1", "self.patches.grid**2 + 1")], "has no `grid` in the reference"),
    ("attention-head", [("self.query(x) @", "self.query @")], "`self.query` is a layer (Linear)"),
    ("attention-head", [("        super().__init__()\n", "")], "`super().__init__()` is missing"),
    ("encoder-block", [("self.attention(self.norm1(x))", "self.attention(self.norm1)")], "`self.norm1` is a layer"),
    ("encoder-block", [("nn.LayerNorm(num_hiddens)", "nn.LayerNorm")], "is the class LayerNorm; parentheses"),
    ("feed-forward", [("nn.GELU()", "nn.GELU")], "`nn.GELU` without parentheses is the class"),
    ("feed-forward", [("nn.Sequential(\n", "nn.Sequential([\n"), ("nn.Dropout(dropout),\n        )", "nn.Dropout(dropout),\n        ])")], "a star unpacks them"),
    ("multi-head", [(CAT, "torch.cat(head(x) for head in self.heads)")], "takes a list: brackets"),
    ("multi-head", [(CAT, "torch.cat(self.heads(x), dim=-1)")], "nn.ModuleList only holds layers"),
    ("multi-head", [(CAT, "[head(x) for head in self.heads]")], "is a list of 3 tensors"),
    ("multi-head", [("num_hiddens // num_heads", "num_hiddens / num_heads")], "`//` divides to one"),
    ("vision-transformer", [("4 * num_hiddens", "num_hiddens / 2")], "`//` divides to one"),
    ("mbconv", [("out_channels // 4", "out_channels / 4")], "`//` divides to one"),
    ("attention-module", [("out_channels // 32", "out_channels / 32")], "`//` divides to one"),
    ("cnn-stem", [("64, kernel_size=3, stride=2, padding=1", "64, kernel_size=3, stride=2, padding=(3 - 1) / 2")], "is a float"),
    ("depthwise-conv", [("padding=1", "padding=(3 - 1) / 2")], "is a float"),
    ("depthwise-loop", [("range(x.shape[1])", "x.shape[1]")], "range(x.shape[1]) counts up to it"),
    ("depthwise-loop", [("outputs.append(", "outputs = outputs.append(")], "`append` changes the list itself"),
    ("qkv", [("self.num_heads, self.head_dim = num_heads, head_dim", "pass")], "`num_heads` is nowhere set"),
    ("qkv", [("q, k, v = x.chunk", "q, k = x.chunk")], "as many names are needed"),
    ("attention-module", [("self.bias())", "self.bias)")], "its result is `self.bias(...)`"),
    ("position-bias", [("def forward(self):", "def forward(self, x):")], "`forward` takes (self, x)"),
    ("cnn-stem", [("self.layers", "self.modules")], "choose another name"),
    ("patch-embedding", [("(img_size // patch_size) ** 2", "torch.tensor([3, 3])")], "a number"),
]  # fmt: skip
LEARNED = [
    ("position-bias", [(TABLE, TABLE.removeprefix("nn.Parameter(")[:-1])], "is a plain tensor, which is not learned"),
    ("position-bias", [(f"self.table = {TABLE}", "self.register_buffer('table', " + TABLE.removeprefix("nn.Parameter("))], "is a buffer, which is not learned"),
    ("vision-transformer", [("nn.Parameter(torch.randn(1, 1, num_hiddens) * 0.02)", "nn.Parameter(torch.randn(1, 1, num_hiddens)) * 0.02")], "the result of a computation, which is not learned"),
    ("cnn-stem", [("nn.BatchNorm2d(64)", "nn.BatchNorm2d(64, affine=False)")], "leave `affine` at its default"),
    ("attention-head", [("self.scale = head", "self.query.weight.requires_grad_(False)\n        self.scale = head")], "needs requires_grad=True"),
    ("attention-head", [("self.scale = head", "self.key.weight = self.query.weight\n        self.scale = head")], "are one and the same"),
    ("attention-head", [("self.key(x)", "self.query(x)")], "`self.key` is made in `__init__`, but `forward` does not use it"),
    ("attention-head", [("self.key = nn.Linear(dim, head_dim, bias=False)", "self.key = self.query")], "query and key share one layer"),
    ("encoder-block", [("self.norm2 = nn.LayerNorm(num_hiddens)", "self.norm2 = self.norm1")], ONE),
    ("transformer-block", [(NORM2, "self.norm2 = self.norm1")], ONE),
    ("mbconv", [("        self.branch = nn", "        norm = nn.BatchNorm2d(hidden)\n        self.branch = nn"), ("            nn.BatchNorm2d(hidden),\n", "            norm,\n")], ONE),
    ("encoder-block", [("        self.norm2 = nn.LayerNorm(num_hiddens)\n", ""), ("self.norm2(x)", "x")], "no LayerNorm before the feed-forward"),
    ("encoder-block", [("        self.norm1 = nn.LayerNorm(num_hiddens)\n", ""), ("self.norm1(x)", "x")], "no LayerNorm before the attention"),
    ("transformer-block", [(NORM2, "self.norm2 = nn.Identity()")], "the norm before the feed-forward layers is missing"),
    ("feed-forward", [("        self.net = nn", "        self.extra = nn.LazyLinear(3)\n        self.net = nn")], "a lazy layer never got a batch"),
]  # fmt: skip
MODES = [
    ("transformer-block", [("FeedForward2d(out_channels)", "nn.Sequential(FeedForward2d(out_channels), nn.Dropout(0.1))")], "dropout, where none is asked for"),
    ("cnn-stem", [("nn.BatchNorm2d(64)", "nn.BatchNorm2d(64, track_running_stats=False)")], "without track_running_stats"),
    ("cnn-stem", [("return self.layers(x)", "self.layers[1].eval()\n        return self.layers(x)")], "leave them out of `forward`"),
    ("cnn-stem", [("nn.BatchNorm2d(64)", "nn.BatchNorm2d(64, momentum=0.01)")], "`momentum`"),
    ("attention-head", [(f"return {SOFTMAX}", f"return self.dropout({SOFTMAX})")], "another place, or drops another share"),
    ("attention-head", [(f"return {SOFTMAX}", f"return self.dropout({SOFTMAX})"), (DROPPED, "self.attention(x)")], "`attention` itself returns other values"),
    ("attention-head", [(DROPPED, "nn.functional.dropout(self.attention(x), 0.1)")], "training=self.training"),
    ("attention-head", [(SOFTMAX, "self.dropout(scores * self.scale).softmax(dim=-1)"), (DROPPED, "self.attention(x)")], "dropout comes before the softmax"),
    ("attention-head", [("nn.Dropout(dropout)", "nn.Dropout(dropout, inplace=True)")], "changes in place what the gradient needs"),
]  # fmt: skip
SIZES = [
    ("attention-head", [("head_dim**-0.5", "0.5")], "a number that is written in"),
    ("attention-head", [("head_dim**-0.5", "8**-0.5")], "a number that is written in"),
    ("attention-head", [("head_dim**-0.5", "head_dim * -0.5")], "the power is `**`"),
    ("attention-head", [("head_dim**-0.5", "1 / (head_dim * 0.5)")], "the power is `**`"),
    ("attention-written-out", [("q.shape[-1] ** -0.5", "32 ** -0.5")], "32 is written in"),
    ("attention-written-out", [("q.shape[-1] ** -0.5", "q.shape[-1] * 0.5")], "the power is `**`"),
    ("coatnet-hybrid", [(COUNT, "(img_size // 8 + 1) ** 2 + 1")], "leaves nothing to round up"),
    ("coatnet-hybrid", [(COUNT, "math.ceil((img_size / 8) ** 2) + 1")], "rounded up after squaring"),
    ("coatnet-hybrid", [(COUNT, "50")], "50 tokens are written in"),
    ("squeeze-excite", [("x.mean(dim=(2, 3))", "x.mean(dim=(2, 3), keepdim=True).squeeze()")], "more indices than the tensor has axes"),
    ("patch-embedding", [(".transpose(1, 2)", ".transpose(1, 2).squeeze()")], "right for a batch of several"),
    ("vision-transformer", [("self.head(x[:, 0])", "self.head(x[:, :1]).squeeze()")], "right for a batch of several"),
    ("attention-module", [("(num_heads, grid_size)", "(num_heads, (7, 7))")], "7 x 7, which is written in"),
    ("attention-module", [("(num_heads, grid_size)", "(num_heads, grid_size[::-1])")], "height and width of the grid are swapped"),
    ("attention-module", [("num_heads = out_channels // 32", "num_heads = in_channels // 32")], "heads are counted from in_channels"),
    ("transformer-block", [("LayerNorm2d(out_channels", "LayerNorm2d(in_channels")], "the second norm is for in_channels"),
    ("transformer-block", [("out_channels, grid_size)", "out_channels, (grid_size[0] // 2, grid_size[1] // 2))")], "the grid is halved once more"),
    ("cnn-stem", [("nn.BatchNorm2d(64)", "nn.BatchNorm2d(3)")], "a norm is for 3 features"),
]  # fmt: skip
GRADIENTS = [
    ("encoder-block", [("x + self.attention(self", "x.detach() + self.attention(self")], AWAY),
    ("mbconv", [("self.shortcut(x) +", "self.shortcut(x).detach() +")], AWAY),
    ("mbconv", [("self.shortcut(x) +", "self.shortcut(x.detach()) +")], AWAY),
    ("transformer-block", [("self.shortcut(x) +", "self.shortcut(x.detach()) +")], AWAY),
    ("squeeze-excite", [("self.gate(means)", "self.gate(means.detach())")], AWAY),
    ("attention-module", [("self.bias())", "self.bias().detach())")], AWAY),
    ("vision-transformer", [("x + self.positions", "x + self.positions.data")], AWAY),
    ("attention-written-out", [("return weights @ v", "return (weights @ v).detach()")], AWAY),
    ("squeeze-excite", [("return x * gates[:, :, None, None]", "x *= gates[:, :, None, None]\n        return x")], IN_PLACE),
    ("encoder-block", [(FIRST_STEP, FIRST_STEP.replace("= x +", "+="))], IN_PLACE),
    ("attention-written-out", [("    scores = q", "    q *= q.shape[-1] ** -0.5\n    scores = q"), (" * q.shape[-1] ** -0.5  #", "  #")], IN_PLACE),
    ("depthwise-loop", [("    outputs = []", "    torch.set_grad_enabled(False)\n    outputs = []")], "changes it for all that follows"),
    ("attention-module", [("self.proj = nn", "self.kept = None\n        self.proj = nn"), ("self.bias())", "self.keep())"), ("    def forward", "    def keep(self):\n        if self.kept is None:\n            self.kept = self.bias()\n        return self.kept\n\n    def forward")], "a result is kept"),
    ("position-bias", [("    def forward(self):", "    def forward(self):\n        return self.kept\n\n    def unused(self):"), ("        self.register_buffer", "        self.kept = self.table.flatten(1)[:, relative_position_index(height, width)]\n        self.register_buffer")], "`forward` does not use it"),
]  # fmt: skip
AXES = [
    ("multi-head", [("[head(x) for head in self.heads]", SLICED), ("AttentionHead(num_hiddens, head_dim", "AttentionHead(head_dim, head_dim")], "each head gets a slice of the input"),
    ("vision-transformer", [("x[:, 0]", "x[0]")], "x[0] is the first image"),
    ("vision-transformer", [("ClassificationHead(", "nn.Linear(")], "the head is a linear layer alone"),
    ("vision-transformer", [("x], dim=1)", "x], dim=0)")], "along axis 1 alone"),
    ("vision-transformer", [("x], dim=1)", "x], dim=2)")], "along axis 1 alone"),
    ("patch-embedding", [("x.flatten(2)", "x.flatten(1)")], "`transpose` acts on a tensor [3, 90]"),
    ("coatnet-hybrid", [(TOKENS, "x = self.stem(x)")], "equally many axes"),
    ("coatnet-hybrid", [("self.stem = CNNStem(num_hiddens)", "self.stem = CNNStem(num_hiddens)\n        self.patches = nn.Conv2d(3, num_hiddens, patch_size, patch_size)")], "which is there too"),
    ("cnn-stem", [("return self.layers(x)", "return self.layers(x).flatten(2).transpose(1, 2)")], "tokens are returned"),
    ("depthwise-conv", [(", groups=channels, bias=False", "")], "neither `groups` nor bias=False"),
    ("depthwise-conv", [("stride=stride, padding=1", "padding=stride")], "the stride stands where the padding belongs"),
    ("depthwise-loop", [("weight[c : c + 1]", "weight[c]")], "keeps an axis that weight[c] takes away"),
    ("depthwise-loop", [("x[:, c : c + 1], weight[c : c + 1]", "x[:, c], weight[c]")], "keeps an axis"),
    ("depthwise-loop", [("weight[c : c + 1]", "weight[:, c : c + 1]")], "reaches beyond the end"),
    ("depthwise-loop", [("range(x.shape[1])", "range(len(x))")], "2 long instead of 5"),
    ("squeeze-excite", [("gates[:, :, None, None]", "gates")], "give the smaller new ones"),
    ("squeeze-excite", [("nn.SiLU()", "nn.Later()"), ("nn.Sigmoid()", "nn.SiLU()"), ("nn.Later()", "nn.Sigmoid()")], "SiLU and sigmoid are swapped"),
    ("mbconv", [("nn.Conv2d(hidden, out_channels, 1),", "nn.Conv2d(hidden, out_channels, 1),\n            nn.BatchNorm2d(out_channels),")], "a norm follows the last convolution"),
    ("mbconv", [(", bias=False", "")], "has a bias, idle before a norm"),
    ("position-index", [("(2 * width - 1)", "2 * width - 1")], "parentheses are missing"),
    ("position-index", [("rows[None, :] + height - 1", "rows[None, :] + height")], "7 is added to everything"),
    ("position-index", [("torch.arange(width).repeat(height)", "torch.arange(height * width) / width")], "`//`, not `/`"),
    ("attention-written-out", [("return weights @ v", "return weights")], "they are to average v"),
    ("attention-written-out", [("return weights @ v", "return weights @ v,")], "a comma behind the value"),
    ("attention-fused", [("product_attention(q,", "product_attention(q * q.shape[-1] ** -0.5,")], "scaled twice"),
    ("qkv", [("return q, k, v", "return torch.stack([q, k, v])")], "return all 3"),
    ("transformer-block", [("nn.AvgPool2d(2, ceil_mode=True)", "nn.AvgPool2d(2)")], "both poolings round odd sizes down"),
    ("transformer-block", [("self.attention(self.pool(self.norm1(x)))", "self.pool(self.attention(self.norm1(x)))")], "pools behind the attention"),
    ("transformer-block", [("LayerNorm2d(", "nn.LayerNorm(")], "move them to the end"),
    ("encoder-block", [(f"{FIRST_STEP}\n        return x + self.feed_forward(self.norm2(x))", PARALLEL)], "take one step after the other"),
]  # fmt: skip
ROWS = TYPOS + LEARNED + MODES + SIZES + GRADIENTS + AXES
