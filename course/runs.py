"""A run's folder: all that its model depends on, and what it has learned.

settings.json   how it was asked for, and what it found: classes, mean, std, versions
metrics.jsonl   a line for each step and each epoch
checkpoint.pt   the whole state of the run, to go on from
best.pt         the weights that did best on held-out images
"""

import json
import os
import platform
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from course.checkpoints import load_checkpoint
from course.models import build_model

WEIGHTS = ("last", "best")


def option(default: Any, help: str, **details: Any) -> Any:
    """A field that is an option of `python -m course.train`, with what argparse wants to know."""
    return field(default=default, metadata={"help": help} | details)


@dataclass
class Settings:
    """How a run was asked for, and, from `classes` on, what it found when it began."""

    model: str = option("small", "vit, hybrid, small, or a name of the family")
    pretrained: bool = option(False, "start from ImageNet weights, if published")
    weights_file: str | None = option(
        None, "with --pretrained, timm's file of the weights in place of a download", metavar="FILE"
    )
    data: str = option("shapetexture100", "shapetexture100, cifar100, cifar10, or a folder")
    hold_out: float = option(0.2, "share of each class, where a folder has no part to hold out")
    memory: str | None = option(
        None, "of a folder's images, such as 4G; more is streamed (default: half of what is free)"
    )
    workers: int | None = option(None, "processes to decode files (default: a core each)", type=int)
    image_size: int | None = option(
        None, "pixels (default: the weights' own, 224 for the family, 32 for the others)", type=int
    )
    epochs: int | None = option(None, "passes through the training data (default: 5)", type=int)
    steps: int | None = option(None, "batches, instead of --epochs", type=int)
    batch_size: int = option(64, "of all processes together")
    lr: float = option(2e-3, "highest learning rate of AdamW")
    weight_decay: float = option(0.05, "on all but norms, biases and relative positions")
    augment: str | None = option(
        None,
        "default: none for the embedded data, whose mirror images are other classes, and"
        " flip-and-crop for the rest",
        choices=("none", "flip-and-crop", "trivial", "random-resized-crop"),
    )
    mixup: float = option(0.0, "mix images in pairs; 0 is off", metavar="ALPHA")
    label_smoothing: float = option(0.0, "share of each target for all classes")
    average: float = option(0.0, "moving average of the weights; 0 is off", metavar="DECAY")
    precision: str = option(
        "fp32",
        "of the forward pass; fp16 is for GPUs without bf16",
        choices=("fp32", "bf16", "fp16"),
    )
    checkpoint_every: int = option(500, "beside each epoch's checkpoint", metavar="STEPS")
    seed: int = option(0, "of weights, order and augmentation")
    device: str | None = option(
        None, "such as cuda, mps or cpu (default: the best there is)", type=str
    )

    classes: list[str] | None = None  # in the order of the logits
    mean: list[float] | None = None  # of each channel, for pixel values in [0, 1]
    std: list[float] | None = None
    interpolation: str = "bilinear"  # how images are brought to image_size
    crop_share: float = 1.0  # of their shorter side that they keep
    images: int | None = None  # to train on
    processes: int = 1  # that share the run, in the end
    versions: dict[str, str] = field(default_factory=dict)


OPTIONS = [f for f in fields(Settings) if f.metadata]


def option_name(name: str) -> str:
    """A setting's name on the command line."""
    return "--" + name.replace("_", "-")


def versions() -> dict[str, str]:
    """Of what a run's numbers depend on."""
    packages = ("torch", "torchvision", "timm", "coatnet-from-scratch")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


class RunFolder:
    """The files of a run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.settings, self.metrics = self.path / "settings.json", self.path / "metrics.jsonl"
        self.checkpoint, self.best = self.path / "checkpoint.pt", self.path / "best.pt"

    def __str__(self) -> str:
        return str(self.path)

    @property
    def begun(self) -> bool:
        """Whether there is something to go on from: a folder without is as good as a new one."""
        return self.checkpoint.exists()

    def require_place(self) -> None:
        """Raises ValueError unless a new run may begin here."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self} is a file: choose another --out for the run's folder")
        if self.begun:
            raise ValueError(f"{self} holds a run: go on with --resume, or choose another --out")

    def read(self) -> Settings:
        """The run's settings. Raises ValueError where there is no run, or a damaged one."""
        if not self.settings.is_file():
            raise ValueError(f"{self} holds no run: say where it is, or start one there")
        try:
            return Settings(**json.loads(self.settings.read_text(encoding="utf-8")))
        except (UnicodeDecodeError, json.JSONDecodeError, TypeError):
            raise ValueError(
                f"{self.settings} is damaged: it should hold the run's settings"
            ) from None

    def begin(self, settings: Settings) -> None:
        """Makes the folder, and drops what a run left that died before its first checkpoint."""
        self.require_place()
        self.path.mkdir(parents=True, exist_ok=True)
        for file in (self.metrics, self.best):
            file.unlink(missing_ok=True)
        self.write(settings)

    def write(self, settings: Settings) -> None:
        text = json.dumps(asdict(settings), indent=2, ensure_ascii=False) + "\n"
        beside = self.settings.with_name(self.settings.name + ".part")
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, self.settings)

    def model(self, settings: Settings, weights: str = "last") -> tuple[nn.Module, int]:
        """The run's model with its last or its best weights, and after how many steps they were.

        The moving average, where there is one. Raises ValueError for a file that holds no such
        model.
        """
        file = self.best if weights == "best" else self.checkpoint
        if settings.classes is None:
            raise ValueError(f"{self} does not say which classes it learned")
        state = load_checkpoint(file)
        model = build_model(settings.model, len(settings.classes), settings.image_size or 0)
        try:
            if weights == "best":
                model.load_state_dict(state["model"])
                return model, state["step"]
            averaged = state["average"]
            model.load_state_dict(averaged["model"] if averaged else state["model"])
            return model, len(state["history"]["losses"])
        except (KeyError, TypeError, RuntimeError):
            raise ValueError(f"{file} does not hold a {settings.model} of this run") from None


class Metrics:
    """Appends records to a file of JSON lines.

    A resumed run repeats the steps since its checkpoint: their old lines go when the first new one
    comes, so that the file reads as if the run had never stopped.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.began = False

    def __call__(self, record: dict[str, Any]) -> None:
        if not self.began:
            self.drop_from(record["step"])
            self.began = True
        with open(self.path, "a") as file:
            file.write(json.dumps(record) + "\n")

    def drop_from(self, step: int) -> None:
        """Leaves the lines of earlier steps."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text().splitlines():
            try:
                if json.loads(line)["step"] < step:
                    kept.append(line + "\n")
            except json.JSONDecodeError:
                break  # half a line, from a run that was killed while it wrote
        beside = self.path.with_name(self.path.name + ".part")
        beside.write_text("".join(kept))
        os.replace(beside, self.path)
