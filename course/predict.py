"""What a trained model sees in pictures.

    python -m course.predict runs/small-shapes holiday.jpg more/pictures
    python -m course.predict coatnet_0_rw_224 *.jpg --format csv > classes.csv
    python -m course.predict runs/small-shapes pictures --sheet sheet.png

The model is a run's folder, whose best weights are taken, or a name of the family with published
weights. Pictures are files, and folders with all that lies below. What can't be read is named, with
the reason, on stderr.
Exit code: 0 done, 1 some pictures could not be read, 2 nothing was done, with a line that says why.
"""

import argparse
import csv
import json
import math
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # what follows takes seconds, in which Ctrl-C should just end it
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F
from tqdm import tqdm

from course.data.decoding import Picture, Unreadable
from course.data.geometry import cut_centre
from course.data.layout import walk, why_not
from course.models import pretrained_model, published
from course.runs import WEIGHTS, RunFolder
from course.training.processes import checked_device

FORMATS = ("table", "csv", "jsonl")
ON_A_SHEET = 200  # pictures


@dataclass
class Sight:
    """A model, and how it wants to see pictures; `names` are its classes, in order."""

    model: nn.Module
    names: list[str]
    image_size: int
    mean: list[float]
    std: list[float]
    interpolation: str = "bilinear"
    crop_share: float = 1.0


@dataclass
class Prediction:
    """The likeliest classes of a picture, with their shares of 1; or why it could not be read."""

    file: str
    top: list[tuple[str, float]]
    image: Tensor | None = None  # as the model saw it: uint8 [3, S, S]
    reason: str = ""


def make_parser() -> argparse.ArgumentParser:
    about, *rest = (__doc__ or "").split("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m course.predict",
        description=about,
        epilog="\n\n".join(rest),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("model", metavar="RUN", help="a run's folder, or a name such as coatnet_0_rw_224")
    add("pictures", nargs="+", type=Path, help="files and folders")
    add("--weights", choices=WEIGHTS, default="best", help="of the run (default: best)")
    add("--weights-file", metavar="FILE", help="timm's weights of the name, and no download")
    add("--top", type=int, default=5, help="classes a picture (default: 5)")
    add("--format", choices=FORMATS, default="table", help="(default: table)")
    add("--sheet", type=Path, metavar="PNG", help="also draw all pictures with their classes")
    add("--batch-size", type=int, default=32, help="(default: 32)")
    add("--device", help="such as cuda or cpu (default: the best there is)")
    return parser


def open_model(name: str, weights: str, file: str | None) -> Sight:
    """A run's model, or one with published weights. Raises ValueError where there is neither."""
    if not Path(name).exists():
        try:
            seen = published(name)
        except ValueError as error:
            raise ValueError(f"{name} is no run's folder, and {error}") from None
        model = pretrained_model(name, len(seen.classes), seen.image_size, file)
        look = seen.mean, seen.std, seen.interpolation, seen.crop_share
        return Sight(model, seen.descriptions, seen.image_size, *look)
    folder = RunFolder(name)
    settings = folder.read()
    if weights == "best" and not folder.best.exists():
        weights = "last"  # the run has not come to the end of an epoch yet
    trained, _ = folder.model(settings, weights)
    if not (settings.classes and settings.mean and settings.std and settings.image_size):
        raise ValueError(f"{folder} does not say how it saw its pictures: go on with it once")
    look = settings.mean, settings.std, settings.interpolation, settings.crop_share
    return Sight(trained, settings.classes, settings.image_size, *look)


def find_pictures(places: list[Path]) -> Iterator[tuple[Path, str]]:
    """Each picture's file, in order, and "" or the reason why it can't be one."""
    for place in places:
        if place.is_dir():
            names = sorted(walk(place, "", set()))
            yield from ((place / name, why_not(place / name) or "") for name in names)
        else:
            yield place, "" if place.exists() else "there is no such file"


@torch.no_grad()
def predict(sight: Sight, batch: list[Prediction], device: torch.device, top: int) -> None:
    """Fills in the likeliest classes of the pictures that could be read."""
    readable = [p for p in batch if p.image is not None]
    if not readable:
        return
    stored = torch.stack([p.image for p in readable if p.image is not None])
    images = F.to_dtype(stored.to(device), scale=True)
    logits = sight.model(F.normalize(images, list(sight.mean), list(sight.std)))
    shares, classes = logits.softmax(dim=1).topk(min(top, len(sight.names)))
    for prediction, values, places in zip(readable, shares.tolist(), classes.tolist(), strict=True):
        prediction.top = [(sight.names[i], share) for i, share in zip(places, values, strict=True)]


def look_at(path: Path, reason: str, sight: Sight) -> Prediction:
    """The picture as the model wants it."""
    if reason:
        return Prediction(str(path), [], reason=reason)
    try:
        picture = cut_centre(
            Picture(path), sight.crop_share, sight.image_size, sight.interpolation, 8
        )
        return Prediction(str(path), [], picture)
    except Unreadable as error:
        return Prediction(str(path), [], reason=str(error))


def predictions(
    sight: Sight, places: list[Path], device: torch.device, batch_size: int, top: int
) -> Iterator[Prediction]:
    """One for each picture, in order."""
    sight.model.to(device).eval()
    files = list(find_pictures(places))
    batch = []
    for number, (path, reason) in enumerate(tqdm(files, "Looking", leave=False, delay=1), 1):
        batch.append(look_at(path, reason, sight))
        if len(batch) == batch_size or number == len(files):
            predict(sight, batch, device, top)
            yield from batch
            batch = []


class Writer:
    """Writes predictions to stdout: CSV and JSON lines as they come, a table in the end."""

    def __init__(self, form: str) -> None:
        self.form = form
        self.csv = csv.writer(sys.stdout)
        self.table = Table("picture", "class", "share")
        if form == "csv":
            self.csv.writerow(["file", "place", "class", "share"])

    def add(self, prediction: Prediction) -> None:
        file, top = prediction.file, prediction.top
        if self.form == "jsonl":
            found = [{"class": name, "share": round(share, 6)} for name, share in top]
            print(json.dumps({"file": file, "top": found}, ensure_ascii=False))
        elif self.form == "csv":
            for place, (name, share) in enumerate(top, 1):
                self.csv.writerow([file, place, name, f"{share:.6f}"])
        else:
            for place, (name, share) in enumerate(top):
                self.table.add_row("" if place else file, name, f"{share:.1%}")
            self.table.add_section()

    def close(self) -> None:
        if self.form == "table" and self.table.row_count:
            Console().print(self.table)


def draw_sheet(found: list[Prediction], file: Path) -> None:
    """The pictures as the model saw them, each with its likeliest class and that one's share."""
    columns = min(5, len(found))
    rows = math.ceil(len(found) / columns)
    figure = Figure(figsize=(2 * columns, 2.3 * rows), layout="constrained")
    for axis in figure.subplots(rows, columns, squeeze=False).flat:
        axis.set_axis_off()
    for axis, prediction in zip(figure.axes, found, strict=False):
        assert prediction.image is not None
        name, share = prediction.top[0]
        axis.imshow(prediction.image.permute(1, 2, 0))
        axis.set_title(f"{name.partition(',')[0][:24]}\n{share:.0%}", fontsize=8)
    figure.savefig(file, dpi=100)


def run(args: argparse.Namespace) -> int:
    """Does what is asked for; the exit code."""
    if args.top < 1 or args.batch_size < 1:
        raise ValueError("--top and --batch-size must be above 0")
    if args.sheet and not args.sheet.absolute().parent.is_dir():
        raise ValueError(f"there is no folder {args.sheet.absolute().parent} for the sheet")
    device = checked_device(args.device)
    sight = open_model(args.model, args.weights, args.weights_file)
    writer = Writer(args.format)
    drawn: list[Prediction] = []
    counts = {True: 0, False: 0}
    for found in predictions(sight, args.pictures, device, args.batch_size, args.top):
        counts[bool(found.reason)] += 1
        if found.reason:
            print(f"course.predict: {found.file}: {found.reason}", file=sys.stderr)
            continue
        writer.add(found)
        if args.sheet and len(drawn) < ON_A_SHEET:
            drawn.append(found)
    writer.close()
    if drawn:
        draw_sheet(drawn, args.sheet)
        if len(drawn) < counts[False]:
            print(f"course.predict: {args.sheet} has the first {ON_A_SHEET}", file=sys.stderr)
    if not counts[False]:
        raise ValueError("there is no picture to look at")
    return 1 if counts[True] else 0


def main(argv: list[str] | None = None) -> int:
    args: Any = make_parser().parse_args(argv)
    try:
        return run(args)
    except (ValueError, OSError) as error:
        print(f"course.predict: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
