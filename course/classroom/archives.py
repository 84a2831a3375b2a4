"""Files in folders and archives alike, read within limits and never written anywhere.

What is in an archive is only read into memory, so that no name in it, absolute or with "..", can
lead anywhere; what it unpacks to is counted, so that a small file cannot become a large one.
"""

import io
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from course.lesson_files import LARGEST

WANTED = (".ipynb", ".py")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
UNREAD = (".7z", ".rar")
PASSED_OVER = (".ipynb_checkpoints", "__MACOSX", ".git", ".venv", "__pycache__", "@eaDir")
DEEPEST, MEMBERS, UNPACKED = 3, 20_000, 300_000_000  # archives in archives; files; bytes


@dataclass
class File:
    """A file somewhere in what was handed in; `problem`: why it was not read."""

    path: PurePosixPath  # from the top, an archive as a folder
    modified: float  # seconds since 1970
    data: bytes = b""
    problem: str = ""


class Budget:
    """How much of an archive, and of those in it, may still be read."""

    def __init__(self):
        self.bytes, self.members = UNPACKED, MEMBERS

    def spend(self, size: int) -> None:
        self.bytes -= size
        self.members -= 1
        if self.bytes < 0 or self.members < 0:
            raise ValueError(f"it unpacks to more than {UNPACKED >> 20} MB or {MEMBERS:,} files")


def files(top: Path) -> Iterator[File]:
    """Notebooks and modules below a folder, or in an archive, in no order. Follows no links."""
    if top.is_file():
        yield from _of_file(top, PurePosixPath(), top)
        return
    for folder, folders, names in top.walk() if hasattr(top, "walk") else _walk(top):
        for name in [n for n in folders if n in PASSED_OVER]:
            folders.remove(name)
        for path in [folder / name for name in (*folders, *names)]:
            place = PurePosixPath(path.relative_to(top).as_posix())
            if path.is_symlink():
                if _wanted(path.name) or path.name in folders:
                    yield File(place, 0, problem="it is a link, and links are not followed")
            elif path.name in names:
                yield from _of_file(path, place, path)


def _walk(top):
    import os  # Python 3.11 has no Path.walk

    for folder, folders, names in os.walk(top):
        yield Path(folder), folders, names


def _wanted(name):
    return name.lower().endswith((*WANTED, *ARCHIVES, *UNREAD)) and not name.startswith("._")


def _of_file(path, place, name):
    if not _wanted(name.name):
        return
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            yield File(place, 0, problem="it is no ordinary file")
        elif path.name.lower().endswith(UNREAD):
            yield File(place, status.st_mtime, problem="archives of this kind are not read")
        elif path.name.lower().endswith(ARCHIVES):
            with path.open("rb") as opened:
                yield from _of_archive(opened, without_ending(place), Budget(), 1)
        elif status.st_size > LARGEST:
            yield File(place, status.st_mtime, problem=f"larger than {LARGEST // 1_000_000} MB")
        else:
            yield File(place, status.st_mtime, path.read_bytes())
    except OSError as error:
        yield File(place, 0, problem=error.strerror or str(error))


def without_ending(place: PurePosixPath) -> PurePosixPath:
    """An archive's place as that of a folder."""
    ending = next(
        (e for e in sorted(ARCHIVES, key=len)[::-1] if place.name.lower().endswith(e)), ""
    )
    return place.with_name(place.name[: -len(ending)] or place.name) if ending else place


def _of_archive(opened, place, budget, depth):
    try:
        if depth > DEEPEST:
            raise ValueError(f"archives in archives, more than {DEEPEST} deep")
        members = _zip_members if zipfile.is_zipfile(opened) else _tar_members
        opened.seek(0)
        for name, modified, data in members(opened, budget):
            inner = place / PurePosixPath(*[p for p in PurePosixPath(name).parts if p not in "/.."])
            if any(part in PASSED_OVER for part in inner.parts):
                continue
            if name.lower().endswith(ARCHIVES):
                yield from _of_archive(io.BytesIO(data), without_ending(inner), budget, depth + 1)
            else:
                yield File(inner, modified, data)
    except (ValueError, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        yield File(place, 0, problem=f"the archive cannot be read: {error}")
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error) as error:
        yield File(place, 0, problem=f"the archive is damaged: {error}")


def _zip_members(opened, budget):
    with zipfile.ZipFile(opened) as archive:
        for member in archive.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if member.is_dir() or not _wanted(PurePosixPath(member.filename).name):
                continue
            if kind not in (0, stat.S_IFREG):
                continue  # a link
            with archive.open(member) as file:
                data = file.read(LARGEST + 1)  # whatever size the archive states
            budget.spend(len(data))
            modified = time.mktime((*member.date_time, 0, 0, -1))
            yield member.filename, modified, data


def _tar_members(opened, budget):
    with tarfile.open(fileobj=opened) as archive:
        for member in archive:
            budget.spend(member.size)  # known before it is unpacked
            if member.isreg() and _wanted(PurePosixPath(member.name).name):
                data = archive.extractfile(member).read(LARGEST + 1)
                yield member.name, member.mtime, data
