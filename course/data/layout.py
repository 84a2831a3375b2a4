"""Which files a folder of images holds, of which class, and which of them are held out."""

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from course.data.decoding import Picture, Unreadable, quiet

TRAIN = ("train", "training")
HELD_OUT = ("val", "valid", "validation", "dev", "test", "testing", "eval")  # the first one there
LAYOUT = (
    "a folder of images holds train/<class>/* and val/<class>/* (or test, valid, validation),"
    " or one folder a class"
)
SYSTEM = {  # what computers leave between pictures, beside all whose name begins with a dot
    *("thumbs.db", "desktop.ini", "__macosx", "@eadir", "#recycle", "$recycle.bin"),
    *("system volume information", "lost+found", "__pycache__"),
}


class Paths:
    """Many paths below one folder, in one array: worker processes share it without a copy."""

    def __init__(self, root: Path, below: Iterable[str]):
        names = [os.fsencode(name) for name in below]
        self.root = os.fspath(root)
        self.ends = np.cumsum([0, *map(len, names)])
        self.bytes = np.frombuffer(b"".join(names), np.uint8)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def below(self, index: int) -> str:
        """The path of file `index` below `root`."""
        return os.fsdecode(self.bytes[self.ends[index] : self.ends[index + 1]].tobytes())

    def part(self, which: Iterable[int]) -> "Paths":
        """Those with these numbers."""
        return Paths(Path(self.root), (self.below(index) for index in which))

    def __getitem__(self, index: int) -> str:
        return os.path.join(self.root, self.below(index))


@dataclass
class Listing:
    """The files of one split: `names` below `root`, a class's number for each; and what is not."""

    root: Path
    classes: list[str]
    names: list[str] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    present: list[int] = field(default_factory=list)  # the classes that have a folder
    skipped: dict[str, str] = field(default_factory=dict)  # name -> why

    def part(self, which: Iterable[int]) -> "Listing":
        """The files with these numbers."""
        which = list(which)
        names, targets = [self.names[i] for i in which], [self.targets[i] for i in which]
        return Listing(self.root, self.classes, names, targets, self.present)


def entries(folder: Path) -> list[os.DirEntry]:
    """What a folder holds, by name, without what the system or an editor left there."""
    with os.scandir(folder) as found:
        kept = [e for e in found if not e.name.startswith(".") and e.name.lower() not in SYSTEM]
    return sorted(kept, key=lambda entry: composed(entry.name))


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, links to folders among them."""
    return [Path(entry.path) for entry in entries(folder) if entry.is_dir()]


def composed(name: str) -> str:
    """A name whose accents are one character with their letter, however the disk spells them."""
    return unicodedata.normalize("NFC", name)


def find_splits(folder: Path) -> tuple[Path | None, list[Path]]:
    """The folder to train on, if there is one, and those that may be held out, the best first.

    A folder is a split by its name, in any capitals, if it holds folders itself. Where `folder`
    holds one folder alone, as an unpacked archive does, its splits may lie in there.
    """
    inside = folders_in(folder)
    splits = {path.name.lower(): path for path in reversed(inside) if folders_in(path)}
    train = next((splits[name] for name in TRAIN if name in splits), None)
    held_out = [splits[name] for name in HELD_OUT if name in splits]
    if train is None and not held_out and len(inside) == 1 and folders_in(inside[0]):
        return find_splits(inside[0])
    return train, held_out


def class_root(folder: Path) -> Path:
    """The folder that holds the class folders, inside an archive's one folder if need be."""
    inside = folders_in(folder)
    return class_root(inside[0]) if len(inside) == 1 and folders_in(inside[0]) else folder


def list_files(root: Path, classes: list[str] | None = None) -> Listing:
    """The images in the class folders of `root` and in folders below these.

    Classes are sorted by name unless `classes` gives their order. Whether a file is an image says
    its name, or its beginning where the name does not. Raises ValueError where there is no class
    folder, or one that `classes` does not name.
    """
    folders: dict[str, list[Path]] = {}
    skipped = {}
    for entry in entries(root):
        if entry.is_dir():
            folders.setdefault(composed(entry.name), []).append(Path(entry.path))
        elif entry.is_symlink() and not os.path.exists(entry.path):
            skipped[entry.name] = "a link to nothing"
        elif is_image_name(entry.name):
            skipped[entry.name] = "lies in no class folder"
    if not folders:
        loose = ": its images lie in no class folders" if skipped else ""
        raise ValueError(f"{root} has no class folders{loose}: {LAYOUT}")
    listing = Listing(root, classes or sorted(folders), skipped=skipped)
    if unknown := sorted(set(folders) - set(listing.classes)):
        raise ValueError(f"{root} has classes that are not known: {name_some(unknown)}")
    for target, name in enumerate(
        tqdm(listing.classes, f"Listing {root}", leave=False, delay=1, mininterval=0.5)
    ):
        if name in folders:
            listing.present.append(target)
        for folder in folders.get(name, []):
            for below in walk(folder, folder.name, set()):
                if why := why_not(root / below):
                    listing.skipped[below] = why
                else:
                    listing.names.append(below)
                    listing.targets.append(target)
    return listing


def walk(folder: Path, below: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    """The files in `folder` and in those below it, each folder once, however links run.

    `below` is what the names begin with.
    """
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    for entry in entries(folder):
        name = os.path.join(below, entry.name)
        if entry.is_dir():
            yield from walk(Path(entry.path), name, seen)
        else:
            yield name


def why_not(path: Path) -> str | None:
    """Why a file is left out, or None where it may be an image."""
    if is_image_name(path.name):
        return None
    try:
        with quiet():
            Picture(path)
    except Unreadable as reason:
        return str(reason)
    return None


def is_image_name(name: str) -> bool:
    """Whether a name ends as those of images do."""
    ending = os.path.splitext(name)[1].lower()
    return ending in {".heic", ".heif", ".avif"} or ending in Image.registered_extensions()


def find_listings(folder: Path, share: float, seed: int) -> tuple[Listing, Listing]:
    """(training, held out) of a folder, as `load_folder` says; what is not plain is said aloud."""
    train, candidates = find_splits(folder)
    if train is None and candidates:
        raise FileNotFoundError(f"there is no folder {folder / TRAIN[0]} to learn from: {LAYOUT}")
    if train is not None and candidates:
        best = candidates[0]
        if len(candidates) > 1:
            others = ", ".join(path.name for path in candidates[1:])
            say(f"held out: {best}; not looked at: {others}")
        listings = list_files(train), list_files(best)
        if alone := sorted(set(listings[0].classes) ^ set(listings[1].classes)):
            raise ValueError(f"not in both {train} and {best}: {name_some(alone)}")
        return listings
    root = train or class_root(folder)
    listing = list_files(root)
    if train is None and all(name.lower() in {*TRAIN, *HELD_OUT} for name in listing.classes):
        raise ValueError(f"{root / listing.classes[-1]} has no class folders: {LAYOUT}")
    rest, held_out = hold_out(listing, share, seed)
    why = "there is no folder with classes called val or test"
    say(
        f"held out: {len(held_out.names):,} of {len(listing.names):,} images in {root},"
        f" {share:.0%} of each class by seed {seed}, since {why}"
    )
    return rest, held_out


def hold_out(listing: Listing, share: float, seed: int) -> tuple[Listing, Listing]:
    """(the rest, held out): of each class about `share` of the files, one at least, but not all.

    Which ones depends on `seed` and on their names alone, so that most stay where they are when
    files are added.
    """
    if not 0 < share < 1:
        raise ValueError(f"hold_out={share}: it must be a share between 0 and 1")

    def draw(index: int) -> bytes:
        name = composed(listing.names[index]).replace(os.sep, "/")
        return hashlib.blake2b(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()

    by_class: dict[int, list[int]] = {target: [] for target in listing.present}
    for index, target in enumerate(listing.targets):
        by_class[target].append(index)
    chosen: set[int] = set()
    for indices in by_class.values():
        if len(indices) == 1:
            name = listing.classes[listing.targets[indices[0]]]
            raise ValueError(f"{listing.root / name} has one image: held-out images need another")
        count = min(max(1, round(share * len(indices))), len(indices) - 1)
        chosen.update(sorted(indices, key=draw)[:count])
    rest = listing.part(i for i in range(len(listing.names)) if i not in chosen)
    rest.skipped = listing.skipped
    return rest, listing.part(sorted(chosen))


def say(line: str) -> None:
    """Prints a line, in one of several processes."""
    if is_first():
        print(line, flush=True)


def is_first() -> bool:
    """Whether this is the only process, or the first of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def name_some(names: list[str], most: int = 10) -> str:
    """The first names, with a comma between, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
