"""Brings a student's copies up to date with the course: `python -m course.update`, `make update`.

Students work in work/, which git ignores: copies of notebooks/, made once. After the course has
changed, an update carries what they wrote over to the new lessons, cell by cell, and says what it
could not put where it was. Nothing is ever lost: the copy as it was is kept in work/backup/.

For each copy there are three versions: the base that it was made from (work/.base/), the student's,
and the new one. A cell is known by its id, else by its text; an exercise also by the name that it
defines.
"""

import argparse
import difflib
import os
import re
import shutil
import sys
import time
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from course import lesson_files

KEPT = "**Kept by `make update`:** "
ALIKE = 0.6  # share of a text that must be the same for a cell without its id to be known by it


def update(root: Path = lesson_files.ROOT, only_missing: bool = False) -> tuple[list[str], bool]:
    """Makes missing copies, and updates the others unless `only_missing`. Returns lines to print,
    and whether every copy could be read and written."""
    report, made, well = [], [], True
    work = root / "work"
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        try:
            base = base_folder(work)
            if not (work / path.name).exists():
                made.append(path.stem)
                report += make_copy(root, path, base)
            else:
                report += update_copy(root, path, base, only_missing)
        except ValueError as error:
            well = False
            report.append(
                f"{path.stem}: work/{path.name} cannot be read: {error}. It stays as it is; "
                "move it away, and `make update` makes a fresh copy"
            )
        except OSError as error:
            well = False
            place = error.filename or work / path.name
            report.append(f"{path.stem}: not updated: {place}: {error.strerror or error}")
        except Exception as error:  # whatever one copy holds, the others go on
            well = False
            report.append(
                f"{path.stem}: not updated, and stays as it is: {type(error).__name__}: {error}"
            )
    if made:
        report.insert(0, f"new in work/, for you to work in: {', '.join(made)}")
    for copy in sorted(work.glob("*.ipynb")):
        if not (root / "notebooks" / copy.name).exists():
            report.append(f"{copy.stem}: no lesson of the course is called so; your file stays")
    return report, well


def base_folder(work: Path) -> Path:
    """Where the versions are that the copies were made from."""
    base = work / ".base"
    if (work / "base").is_dir() and not base.exists():  # where it was, in everybody's file list
        (work / "base").rename(base)
    base.mkdir(parents=True, exist_ok=True)
    return base


def make_copy(root: Path, path: Path, base: Path) -> list[str]:
    """Makes the copy of a notebook. Somebody may have worked in notebooks/ itself: then that is
    what goes on in work/."""
    first = lesson_files.read_notebook(path)
    lesson_files.this_python(first)
    give_own_ids(first.cells)
    write(root / "work" / path.name, nbformat.writes(first) + "\n")
    write(base / path.name, nbformat.writes(new_version(root, path)) + "\n")
    if lesson_files.edited_by_hand(path):
        return [f"{path.stem}: your edits in notebooks/ go on in work/{path.name}"]
    return []


def update_copy(root: Path, path: Path, base: Path, only_missing: bool) -> list[str]:
    """Updates the copy of a notebook, where there is a newer version."""
    copy, new = root / "work" / path.name, new_version(root, path)
    text = nbformat.writes(new) + "\n"
    try:
        before = (base / path.name).read_text(encoding="utf-8")
        old = nbformat.reads(before, as_version=4) if before != text else None
    except Exception:  # missing, or damaged
        old = new
    if old is None:
        return []
    if only_missing:
        return [f"{path.stem}: there is a newer version; `make update` brings it"]
    merged, notes = merge(old, lesson_files.read_notebook(copy), new)
    kept = back_up(copy)
    write(copy, nbformat.writes(merged) + "\n")
    write(base / path.name, text)
    line = f"{path.stem}: updated; the copy as it was is {kept.relative_to(root)}"
    return [line, *(f"    {note}" for note in notes)]


def new_version(root: Path, path: Path) -> NotebookNode:
    """The lesson's notebook as the course has it, whatever somebody did to the file."""
    if lesson_files.edited_by_hand(path):
        return lesson_files.student_version(
            lesson_files.read_lesson(root / "lessons" / f"{path.stem}.py")
        )
    return nbformat.read(path, as_version=4)


def write(path: Path, text: str) -> None:
    """Writes all of the file or nothing; where a link leads, not over the link."""
    path = path.resolve()
    part = path.with_suffix(".part")
    try:
        part.write_text(text, encoding="utf-8", newline="\n")
        if path.exists():
            shutil.copymode(path, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def back_up(copy: Path) -> Path:
    """Keeps the copy in backup/ under a name that was not there before, and returns its path."""
    folder = copy.parent / "backup"
    folder.mkdir(exist_ok=True)
    stamp = time.strftime("%Y-%m-%d_%H-%M-%S")
    for number in range(1000):
        kept = folder / f"{copy.stem}.{stamp}{f'-{number}' if number else ''}.ipynb"
        if not kept.exists():
            shutil.copy2(copy, kept)
            return kept
    raise FileExistsError(f"{folder} is full of backups of this second")


def merge(
    old: NotebookNode, student: NotebookNode, new: NotebookNode
) -> tuple[NotebookNode, list[str]]:
    """The new notebook with what the student wrote, and notes on what is not where it was.

    - A cell that only the student changed stays the student's; one that only the course changed
      becomes the new one.
    - Where both changed an exercise, the answer stays, and the new text follows below it. Where
      both changed another cell, the new one stands, and the student's version follows below it.
    - The student's own cells follow the cell that they followed before.
    - Edited cells that the course has dropped come at the end.
    """
    moved = follow_moves(old, new)
    before = {moved[cell.id]: cell.source for cell in old.cells}
    student = nbformat.from_dict(student)
    # What has neither id nor text is a cell that has lost all that was in it
    student.cells = [cell for cell in student.cells if "id" in cell or cell.source.strip()]
    give_known_ids(student.cells, old.cells)
    for cell in student.cells:
        cell.id = moved.get(cell.id, cell.id)
    theirs, extras = match(student, new, before)
    notes: list[str] = []
    cells: list[NotebookNode] = []
    following: dict[str, list] = {}
    anchor = ""  # id of a cell, "" at the top -> the student's own cells behind it
    for cell in student.cells:
        if any(cell is extra for extra in extras):
            following.setdefault(anchor, []).append(cell)
        else:
            anchor = next((i for i, own in theirs.items() if own is cell), anchor)
    cells += following.get("", [])
    for cell in new.cells:
        own = theirs.get(cell.id)
        cells += settle(cell, own, before.get(cell.id), notes)
        cells += following.get(cell.id, [])
    placed = {id(cell) for cell in (*theirs.values(), *extras)}
    dropped = [
        cell
        for cell in student.cells
        if id(cell) not in placed and cell.source.strip() != before[cell.id].strip()
    ]
    if dropped:
        text = "these cells are of an earlier version of the lesson, which no longer has them."
        cells += [nbformat.v4.new_markdown_cell(KEPT + text), *dropped]
        notes += [f"no longer in the lesson, now at its end: {title(cell)}" for cell in dropped]
    merged = nbformat.from_dict({**new, "cells": cells})
    merged.metadata = metadata(student, new)
    lesson_files.this_python(merged)
    give_own_ids(merged.cells)
    return merged, notes


def metadata(student: NotebookNode, new: NotebookNode) -> NotebookNode:
    """The student's, such as a kernel of their own, and what the new version adds."""
    theirs = {**student.metadata}
    if theirs.get("kernelspec", {}).get("name") == "python3":
        del theirs["kernelspec"]
    merged = nbformat.from_dict({**new.metadata, **theirs})
    merged.pop("course", None)  # the mark of an unedited notebook in notebooks/
    return merged


def give_known_ids(cells: list[NotebookNode], old: list[NotebookNode]) -> None:
    """Gives cells that have lost their ids, as some editors and old formats do, those of the cells
    of `old` with the same text, then of those with much of the same text; or fresh ones.

    Changes `cells`.
    """
    by_id = {cell.id: cell for cell in old}
    there = {cell.get("id") for cell in cells}
    missing = [cell for cell in old if cell.id not in there]
    lost = [cell for cell in cells if cell.get("id") not in by_id]
    for cell in lost:
        same = [one for one in missing if one.source.strip() == cell.source.strip()]
        if same and cell.source.strip():
            cell.id = same[0].id
            missing = [one for one in missing if one is not same[0]]
    for cell in [cell for cell in lost if cell.get("id") not in by_id]:
        alike = [(likeness(cell, one), -number) for number, one in enumerate(missing)]
        best, place = max(alike, default=(0, 0))
        if best >= ALIKE:
            cell.id = missing.pop(-place).id
        elif "id" not in cell:
            cell.id = fresh_id()


def likeness(cell: NotebookNode, other: NotebookNode) -> float:
    """The share of text that two cells have in common; 0 for kinds that differ, and where one does
    not define what the other, an exercise, does."""
    name = defined(other)
    if cell.cell_type != other.cell_type or (name and defined(cell) != name):
        return 0.0
    if name and other.id.startswith("exercise-"):
        return 1.0
    return difflib.SequenceMatcher(None, cell.source, other.source, autojunk=False).ratio()


def defined(cell: NotebookNode) -> str:
    """The first class or function of a code cell, or ""."""
    found = re.search(r"^(?:class|def) (\w+)", cell.source, re.MULTILINE)
    return found[1] if found and cell.cell_type == "code" else ""


def follow_moves(old: NotebookNode, new: NotebookNode) -> dict[str, str]:
    """Where each cell of `old` stands in `new`: {old id: new id}, "gone-..." for those dropped.

    Exercises and checks keep their ids. The others' are made from their place, which changes when
    the course adds a cell above them: those are known by their text.
    """
    by_source = {cell.source: cell.id for cell in new.cells}
    moved = {}
    for cell in old.cells:
        if not cell.id.startswith(("exercise-", "check-")) and cell.source in by_source:
            moved[cell.id] = by_source[cell.source]
    taken, new_ids = set(moved.values()), {cell.id for cell in new.cells}
    for cell in old.cells:
        stays = cell.id in new_ids and cell.id not in taken
        moved.setdefault(cell.id, cell.id if stays else f"gone-{cell.id}")
    return moved


def match(
    student: NotebookNode, new: NotebookNode, before: dict[str, str]
) -> tuple[dict[str, NotebookNode], list[NotebookNode]]:
    """The student's cell for each id of `new`, and the cells that the student added."""
    new_ids = {cell.id for cell in new.cells}
    theirs, extras = {}, []
    for cell in student.cells:
        if cell.id in new_ids and cell.id not in theirs:
            theirs[cell.id] = cell
        elif cell.id not in before or cell.id in theirs:
            cell.id = fresh_id() if cell.id in new_ids else cell.id  # a copied cell
            extras.append(cell)
    for cell in new.cells:  # an exercise whose id was lost, by the name that it defines
        name = defined(cell)
        if cell.id in theirs or not cell.id.startswith("exercise-") or not name:
            continue
        pattern = rf"^(class|def) {name}\b"
        found = [c for c in extras if re.search(pattern, c.source, re.MULTILINE)]
        if found:
            theirs[cell.id] = found[-1]
            extras = [c for c in extras if c is not found[-1]]
    return theirs, extras


def settle(
    cell: NotebookNode, own: NotebookNode | None, before: str | None, notes: list[str]
) -> list[NotebookNode]:
    """The cells that stand where the lesson has `cell`: one, or two where both changed it."""
    if own is None or own.source.strip() in (cell.source.strip(), (before or "").strip()):
        if own is not None and own.source == cell.source:
            return [with_tags(own, cell)]  # with its outputs
        return [cell]
    if before == cell.source:
        return [with_id(own, cell.id)]
    if cell.id.startswith("exercise-"):
        notes.append(f"the exercise has changed, your answer stays: {title(own)}")
        text = f"{KEPT}this exercise has a new text. Your answer stays above; this is the new one:"
        return [with_id(own, cell.id), nbformat.v4.new_markdown_cell(fenced(text, cell))]
    notes.append(f"changed by you and by the course, yours is below the new one: {title(own)}")
    text = f"{KEPT}your version of the cell above, which the course has changed too:"
    beside = nbformat.v4.new_markdown_cell(fenced(text, own))
    if "attachments" in own:  # pasted pictures
        beside.attachments = own.attachments
    return [cell, beside]


def fenced(text: str, cell: NotebookNode) -> str:
    if cell.cell_type == "markdown":
        return f"{text}\n\n{cell.source}"
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", cell.source)), default=0))
    return f"{text}\n\n{fence}python\n{cell.source}\n{fence}"


def with_id(cell: NotebookNode, cell_id: str) -> NotebookNode:
    cell = nbformat.from_dict(cell)
    cell.id = cell_id
    return cell


def with_tags(own: NotebookNode, cell: NotebookNode) -> NotebookNode:
    """The student's cell with the lesson's id and tags, which say for one how Run All takes it."""
    own = with_id(own, cell.id)
    own.metadata.pop("tags", None)
    if "tags" in cell.metadata:
        own.metadata["tags"] = cell.metadata["tags"]
    return own


def title(cell: NotebookNode) -> str:
    """A cell in a few words."""
    lines = [line for line in cell.source.splitlines() if line.strip()] or ["an empty cell"]
    return f"{lines[0].strip()[:60]!r}"


def give_own_ids(cells: list[NotebookNode]) -> None:
    """Gives a fresh id to what repeats one, which a notebook does not allow."""
    seen = set()
    for cell in cells:
        if cell.get("id") is None or cell.id in seen:
            cell.id = fresh_id()
        seen.add(cell.id)


def fresh_id() -> str:
    return nbformat.v4.new_code_cell().id


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m course.update",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only-missing", action="store_true", help="make missing copies, change no other"
    )
    options = parser.parse_args(arguments)
    report, readable = update(only_missing=options.only_missing)
    print("\n".join(report or ([] if options.only_missing else ["all copies are up to date"])))
    return 0 if readable or options.only_missing else 1


if __name__ == "__main__":
    sys.exit(main())
