"""Lesson 7: wrong answers with what their message says, and right ones in other styles."""

from tests.checks.harness import exercise_cells

SOLUTIONS = exercise_cells("07_training_for_real")
RISE = "    if share < warmup:\n        return share / warmup\n"
FALLEN = "(share - warmup) / (1 - warmup)"
FALL = "(1 + math.cos(math.pi * fallen)) / 2"
ROWS = "(torch.arange(height) + down[:, None]).clamp(0, height - 1)"
COLUMNS = "(torch.arange(width) + right[:, None]).clamp(0, width - 1)"
FLIP = "torch.where(flipped[:, None], columns.flip(1), columns)"
MOVED = "images.movedim(1, 3)[batch, rows[:, :, None], columns[:, None, :]].movedim(3, 1)"
SMOOTH = "(1 - smoothing) * targets + smoothing / targets.shape[1]"
FADE = "share * images + (1 - share) * images[partner]"
FADE_TARGETS = "share * targets + (1 - share) * targets[partner]"
AUTOCAST = "with torch.autocast(images.device.type, torch.bfloat16):"
LOSS = "F.cross_entropy(logits.float(), targets)"
LERP = "value.copy_(decay * value + (1 - decay) * new[name])"
STATES = "average.state_dict().items()"
WRONG = [
    # exercise, text of the solution, what stands there instead, what the message says
    ("schedule", RISE, "", "the warm-up is missing"),
    ("schedule", FALL, "1.0", "it stays at 1"),
    ("schedule", FALLEN, "share", "counts from the start"),
    ("schedule", FALLEN, "share - warmup", "too slow"),
    ("schedule", FALL, "(1 + math.cos(2 * math.pi * fallen)) / 2", "a whole wave"),
    ("schedule", FALL, "math.cos(math.pi / 2 * fallen)", "a quarter"),
    ("schedule", FALL, "1 - fallen", "straight line"),
    ("schedule", FALL, "1 + math.cos(math.pi * fallen)", "halve it"),
    ("schedule", FALL, "math.cos(math.pi * fallen)", "1 + is missing"),
    ("schedule", FALL, "(1 - math.cos(math.pi * fallen)) / 2", "it rises"),
    ("schedule", FALL, "(1 + math.cos(180 * fallen)) / 2", "radians"),
    ("schedule", "return share / warmup", "return share", "not divided"),
    ("schedule", "return share / warmup", "return 1 - share / warmup", "it rises: share / warmup"),
    ("schedule", RISE, RISE.replace("warmup", "0.1"), "differ|at share"),
    ("schedule", "warmup=0.1", "warmup=0.2", "warmup=0.1 by default"),
    ("schedule", "return " + FALL, FALL, "no `return`"),
    ("shift", "+ down[", "+ right[", "shape|row|down and right|differ"),
    ("shift", ROWS, ROWS.replace("+", "-"), "rows go the other way"),
    ("shift", COLUMNS, COLUMNS.replace("+", "-"), "columns go the other way"),
    ("shift", ROWS, ROWS.replace(".clamp(0, height - 1)", " % height"), "differ"),
    ("shift", ROWS, "torch.arange(height).expand(len(images), -1)", "rows do not move"),
    ("shift", COLUMNS, "torch.arange(width).expand(len(images), -1)", "columns do not move"),
    ("shift", FLIP, "columns", "nothing is flipped"),
    ("shift", FLIP, "columns.flip(1)", "all are flipped"),
    ("shift", FLIP, "torch.where(flipped[:, None], columns, columns.flip(1))", "the others are flipped"),
    ("shift", FLIP, "torch.where(flipped[:, None], width - 1 - columns, columns)", "numbers are mirrored"),
    ("shift", MOVED, MOVED.removesuffix(".movedim(3, 1)"), "channels stand last"),
    ("shift", "return " + MOVED, "return (" + MOVED + ").mT", "swapped in the result"),
    ("shift", "return " + MOVED, "return (" + MOVED + ").float()", "uint8 stays uint8|float"),
    ("shift", "return " + MOVED, MOVED, "no `return`"),
    ("shift", "down[:, None]", "down[:1, None]", "shape|differ|mismatch"),
    ("soft", SMOOTH, "targets", "not smoothed"),
    ("soft", SMOOTH, "targets + smoothing / targets.shape[1]", "add up to more than 1"),
    ("soft", SMOOTH, "(1 - smoothing) * targets", "for all classes is missing"),
    ("soft", SMOOTH, "(1 - smoothing) * targets + smoothing", "not shared out"),
    ("soft", SMOOTH, "(1 - smoothing) * targets + smoothing / len(targets)", "number of images"),
    ("soft", SMOOTH, "smoothing * targets + (1 - smoothing) / targets.shape[1]", "are swapped"),
    ("soft", SMOOTH, "torch.where(targets == 1, 1 - smoothing, smoothing / (targets.shape[1] - 1))", "lacks its part"),
    ("soft", FADE, "images", "images are not mixed"),
    ("soft", FADE_TARGETS, "targets", "targets are not mixed"),
    ("soft", FADE_TARGETS, "(1 - share) * targets + share * targets[partner]", "of the targets, the share is the partner's"),
    ("soft", FADE, "(1 - share) * images + share * images[partner]", "of the images, the share is the partner's"),
    ("soft", FADE, "share * images + (1 - share) * images.flip(0)", "differ"),
    ("soft", "return images, targets", "return targets, images", "swapped in the result|shape"),
    ("soft", "return images, targets", "return images", "return all 2"),
    ("soft", "smoothing=0.1", "smoothing=0.0", "smoothing=0.1 by default"),
    ("bf16", AUTOCAST, "if True:", "runs in float32"),
    ("bf16", AUTOCAST, "model.bfloat16()\n    images = images.bfloat16()\n    if True:", "weights that stay float32"),
    ("bf16", AUTOCAST, 'with torch.autocast("cpu", torch.float16):', "float16 needs"),
    ("bf16", LOSS, "F.cross_entropy(logits, targets)", "with three digits"),
    ("bf16", "    optimizer.zero_grad()\n", "", "step before are added"),
    ("bf16", "    optimizer.step()\n", "", "weights did not change"),
    ("bf16", "    loss.backward()\n", "", "weights did not change"),
    ("bf16", "return loss", "loss", "no `return`"),
    ("schedule", FALL, "0.5 * 1 + math.cos(math.pi * fallen)", "only a part is halved"),
    ("schedule", FALLEN, "(share - warmup / (1 - warmup))", "parentheses are missing"),
    ("shift", ".clamp(0, height - 1)", "", "outside of the tensor"),
    ("shift", "return " + MOVED, "moved = " + MOVED + "\n    return torch.where(flipped[:, None, None, None], moved.flip(2), moved)", "upside down too"),
    ("soft", SMOOTH, "targets.mul_(1 - smoothing).add_(smoothing / targets.shape[1])", "write into them|leaves its arguments"),
    ("bf16", LOSS, "F.cross_entropy(logits.float().softmax(dim=1), targets)", "one of its own"),
    ("bf16", LOSS, 'F.cross_entropy(logits.float(), targets, reduction="sum")', "sum over the batch"),
    ("bf16", "return loss", "return logits", "one number"),
    ("bf16", AUTOCAST, "model.eval()\n    " + AUTOCAST, "stays in train mode"),
    ("average", "value.is_floating_point()", "not value.is_floating_point()", "wrong way round"),
    ("average", "            else:\n                value.copy_(new[name])",
     "    for a, b in zip(average.buffers(), model.buffers()):\n            a.data = b.data", "lets both use"),
    ("average", "    new = model.state_dict()\n", "    new = model.requires_grad_(False).state_dict()\n", "goes on learning"),
    ("average", LERP, "value.copy_((1 - decay) * value + decay * new[name])", "are swapped"),
    ("average", LERP, "value.copy_(new[name])", "weights are copied"),
    ("average", LERP, "value.copy_((value + new[name]) / 2)", "plain mean"),
    ("average", LERP, "value.copy_(decay * value)", "nothing of the model"),
    ("average", LERP, "value.copy_(decay * value + new[name])", "part is not scaled"),
    ("average", LERP, "value = decay * value + (1 - decay) * new[name]", "gives the name"),
    ("average", LERP, "new[name].copy_(decay * value + (1 - decay) * new[name])", "model stays as it is"),
    ("average", STATES, "average.named_parameters()", "running statistics"),
    ("average", "value.is_floating_point()", "True", "counter"),
    ("resume", '            "model": self.model.state_dict(),\n', "", "KeyError"),
    ("resume", '        self.model.load_state_dict(state["model"])\n', "", "model is not restored"),
    ("resume", '        self.optimizer.load_state_dict(state["optimizer"])\n', "", "optimiser is not restored"),
    ("resume", '        self.schedule.load_state_dict(state["schedule"])\n', "", "schedule is not restored"),
    ("resume", '\n        torch.set_rng_state(state["random"])', "", "random state is not restored"),
    ("resume", 'self.step, self.order = state["step"], state["order"]', 'self.step = state["step"]', "is not restored as it was"),
    ("resume", 'self.step, self.order = state["step"], state["order"]', 'self.order = state["order"]', "self.step is not"),
    ("resume", '"optimizer": self.optimizer.state_dict()', '"optimizer": self.optimizer', "save their state_dict"),
    ("resume", "self.model.state_dict()", "self.model.state_dict", "parentheses missing"),
    ("resume", "self.step,\n", "self.step + 1,\n", "self.step is not"),
    ("resume", 'self.model.load_state_dict(state["model"])', 'self.model = state["model"]', "restore into the one"),
    ("resume", 'self.model.load_state_dict(state["model"])', 'self.model.load_state_dict({k: v for k, v in state["model"].items() if "running" not in k}, strict=False)', "running statistics"),
    ("resume", "self.model.state_dict()", "dict(self.model.named_parameters())", "Missing key|Error"),
    ("resume", 'self.model.load_state_dict(state["model"])',
     "for p, v in zip(self.model.parameters(), state['model'].values()):\n            p.data = v", "the model is not restored"),
]  # fmt: skip
LOOP = SOLUTIONS["resume"].partition("    def state_dict")[0]
RIGHT = {
    "schedule": {
        "one expression, a tensor": """
def warmup_cosine(share, warmup=0.1):
    share = torch.tensor(share)
    fall = 0.5 + 0.5 * torch.cos(torch.pi * (share - warmup) / (1 - warmup))
    return torch.where(share < warmup, share / warmup, fall)
""",
        "the square of a cosine": """
def warmup_cosine(share, warmup=0.1):
    return share / warmup if share <= warmup else math.cos(math.pi / 2 * (share - warmup) / (1 - warmup)) ** 2
""",
        "min": """
def warmup_cosine(share, warmup=0.1):
    rise = min(share / warmup, 1)
    rest = max(share - warmup, 0) / (1.0 - warmup)
    return rise * 0.5 * (1 + math.cos(rest * math.pi))
""",
    },
    "shift": {
        "image by image": """
def shift_and_flip(images, down, right, flipped):
    pad = 8
    out = []
    for image, d, r, f in zip(images, down.tolist(), right.tolist(), flipped.tolist()):
        _, h, w = image.shape
        rows = [min(max(i + d, 0), h - 1) for i in range(h)]
        columns = [min(max(i + r, 0), w - 1) for i in range(w)]
        image = image[:, rows][:, :, columns]
        out.append(image.flip(-1) if f else image)
    return torch.stack(out)
""",
        "gather": """
def shift_and_flip(images, down, right, flipped):
    B, C, H, W = images.shape
    rows = (torch.arange(H) + down.unsqueeze(1)).clamp(min=0, max=H - 1)
    columns = (torch.arange(W) + right.unsqueeze(1)).clamp(min=0, max=W - 1)
    images = images.gather(2, rows[:, None, :, None].expand(B, C, H, W))
    images = images.gather(3, columns[:, None, None, :].expand(B, C, H, W))
    return torch.where(flipped.view(-1, 1, 1, 1), torch.flip(images, (3,)), images)
""",
        "padded with the border, then cut": """
def shift_and_flip(images, down, right, flipped):
    result = images.clone()
    most = int(max(down.abs().max(), right.abs().max()))
    wide = F.pad(images.float(), (most,) * 4, mode="replicate").to(images.dtype)
    h, w = images.shape[2:]
    for i in range(len(images)):
        top, left = most + int(down[i]), most + int(right[i])
        result[i] = wide[i, :, top : top + h, left : left + w]
    result[flipped] = result[flipped].flip(3)
    return result
""",
    },
    "soft": {
        "lerp": """
def mix(images, targets, share, partner, smoothing=0.1):
    K = targets.size(1)
    soft = torch.lerp(targets, torch.full_like(targets, 1 / K), smoothing)
    return torch.lerp(images[partner], images, share), torch.lerp(soft[partner], soft, share)
""",
        "mixed first, smoothed afterwards": """
def mix(images, targets, share, partner, smoothing=0.1):
    fade = lambda x: x * share + x.index_select(0, partner) * (1 - share)
    return fade(images), fade(targets) * (1 - smoothing) + smoothing / targets.shape[-1]
""",
        "a matrix that mixes, a list": """
def mix(images, targets, share, partner, smoothing=0.1):
    n = len(images)
    matrix = share * torch.eye(n) + (1 - share) * torch.eye(n)[partner]
    smooth = targets - smoothing * (targets - 1 / targets.shape[1])
    return [torch.einsum("ij,jchw->ichw", matrix, images), matrix @ smooth]
""",
    },
    "bf16": {
        "the loss inside, on float logits; zeroed at the end": """
def bf16_step(model, optimizer, images, targets):
    with torch.autocast(device_type="cpu", dtype=torch.bfloat16):
        loss = F.cross_entropy(model(images).float(), targets)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()
""",
        "by hand": """
def bf16_step(model, optimizer, images, targets):
    optimizer.zero_grad(set_to_none=False)
    with torch.amp.autocast("cpu", dtype=torch.bfloat16, enabled=True):
        logits = model(images.to(torch.float32))
    logits = logits.to(torch.float32)
    log_probabilities = logits - logits.logsumexp(dim=1, keepdim=True)
    loss = -log_probabilities[torch.arange(len(targets)), targets].mean()
    loss.backward()
    optimizer.step()
    return loss.detach()
""",
        "as a decorator": """
def bf16_step(model, optimizer, images, targets):
    model.zero_grad()
    forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    criterion = nn.CrossEntropyLoss()
    loss = criterion(forward(images).float(), targets)
    loss.backward()
    optimizer.step()
    return loss
""".replace("nn.Cross", "torch.nn.Cross"),
    },
    "average": {
        "lerp": """
@torch.no_grad()
def update_average(average, model, decay):
    for mine, theirs in zip(average.state_dict().values(), model.state_dict().values()):
        if mine.dtype.is_floating_point:
            mine.lerp_(theirs, 1 - decay)
        else:
            mine.copy_(theirs)
""",
        "parameters and buffers apart": """
def update_average(average, model, decay):
    with torch.no_grad():
        for a, p in zip(average.parameters(), model.parameters()):
            a.mul_(decay).add_(p, alpha=1 - decay)
        for a, b in zip(average.buffers(), model.buffers()):
            a.copy_(decay * a + (1 - decay) * b if a.is_floating_point() else b)
""",
        "a new state, loaded": """
def update_average(average, model, decay):
    old, new = average.state_dict(), model.state_dict()
    mixed = {k: decay * old[k] + (1 - decay) * v if torch.is_floating_point(v) else v for k, v in new.items()}
    average.load_state_dict(mixed)
""",
    },
    "resume": {
        "lists under other names, the random state as numbers": LOOP
        + """
    def state_dict(self):
        parts = [x.state_dict() for x in (self.model, self.optimizer, self.schedule)]
        return {"parts": parts, "place": [self.step, self.order.tolist()], "rng": torch.random.get_rng_state()}

    def load_state_dict(self, state):
        for part, values in zip((self.model, self.optimizer, self.schedule), state["parts"]):
            part.load_state_dict(values)
        self.step, order = state["place"]
        self.order = torch.tensor(order, dtype=torch.long)
        torch.random.set_rng_state(state["rng"])
""",
        "clones": LOOP
        + """
    def state_dict(self):
        state = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "schedule")}
        return copy.deepcopy(state) | dict(step=self.step, order=self.order.clone(), random=torch.get_rng_state())

    def load_state_dict(self, state):
        torch.set_rng_state(state["random"])
        self.order = state["order"]
        self.step = state["step"]
        for name in ("model", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(state[name])
""",
        "the schedule's place set by hand": LOOP
        + """
    def state_dict(self):
        return dict(m=self.model.state_dict(), o=self.optimizer.state_dict(), n=self.step,
                    left=self.order, r=torch.get_rng_state())

    def load_state_dict(self, state):
        self.model.load_state_dict(state["m"])
        self.optimizer.load_state_dict(state["o"])
        self.step = state["n"]
        self.schedule.last_epoch = self.step
        self.order = state["left"]
        torch.set_rng_state(state["r"])
""",
    },
}
