"""Brings a student's copies up to date with the course: `python -m course.update`, `make update`.

Students work in work/, which git ignores: copies of notebooks/, made once. After the course has
changed, an update carries what they wrote over to the new lessons, cell by cell, and says what it
could not put where it was. Nothing is ever lost: the copy as it was is kept in work/backup/.

For each copy there are three versions: the base that it was made from (work/.base/), the student's,
and the new one. A cell is known by its id; an exercise also by the name that it defines.
"""

import argparse
import os
import re
import shutil
import sys
import time

import nbformat

from course import lesson_files

KEPT = "**Kept by `make update`:** "


def update(root=lesson_files.ROOT, only_missing=False):
    """Makes missing copies, and updates the others unless `only_missing`. Returns lines to print.

    The last element says whether every copy could be read.
    """
    report, readable, made = [], True, []
    work, base = root / "work", root / "work" / ".base"
    if (work / "base").is_dir() and not base.exists():  # where it was, in everybody's file list
        (work / "base").rename(base)
    base.mkdir(parents=True, exist_ok=True)
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        name, copy = path.stem, work / path.name
        new = new_version(root, path)
        text = nbformat.writes(new) + "\n"
        if not copy.exists():
            # Somebody may have worked in notebooks/ itself: then that is what goes on in work/
            first = nbformat.read(path, as_version=4)
            lesson_files.this_python(first)
            write(copy, nbformat.writes(first) + "\n")
            write(base / path.name, text)
            made.append(name)
            if lesson_files.edited_by_hand(path):
                report.append(f"{name}: your edits in notebooks/ go on in work/{path.name}")
            continue
        if (base / path.name).exists() and (base / path.name).read_text(encoding="utf-8") == text:
            continue
        if only_missing:
            report.append(f"{name}: there is a newer version; `make update` brings it")
            continue
        try:
            student = nbformat.read(copy, as_version=4)
        except Exception as error:  # no JSON, no notebook, no text: nbformat raises many things
            report.append(
                f"{name}: work/{path.name} cannot be read ({type(error).__name__}) and stays as it "
                "is. Move it away, and `make update` makes a fresh copy"
            )
            readable = False
            continue
        old = nbformat.read(base / path.name, as_version=4) if (base / path.name).exists() else new
        merged, notes = merge(old, student, new)
        kept = back_up(copy)
        write(copy, nbformat.writes(merged) + "\n")
        write(base / path.name, text)
        report.append(f"{name}: updated; the copy as it was is {kept.relative_to(root)}")
        report += [f"    {note}" for note in notes]
    if made:
        report.insert(0, f"new in work/, for you to work in: {', '.join(made)}")
    for copy in sorted(work.glob("*.ipynb")):
        if not (root / "notebooks" / copy.name).exists():
            report.append(f"{copy.stem}: no longer a lesson of the course; your copy stays")
    return report, readable


def new_version(root, path):
    """The lesson's notebook as the course has it, whatever somebody did to the file."""
    if lesson_files.edited_by_hand(path):
        return lesson_files.student_version(
            lesson_files.read_lesson(root / "lessons" / f"{path.stem}.py")
        )
    return nbformat.read(path, as_version=4)


def write(path, text):
    """Writes all of the file or nothing."""
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8", newline="\n")
    os.replace(part, path)


def back_up(copy):
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


def merge(old, student, new):
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
    for cell in student.cells:
        cell.id = moved.get(cell.id, cell.id)
    theirs, extras = match(student, new, before)
    notes, cells = [], []
    following, anchor = {}, ""  # id of a cell, "" at the top -> the student's own cells behind it
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
    lesson_files.this_python(merged)
    merged.metadata.pop("course", None)  # the mark of an unedited notebook in notebooks/
    give_own_ids(merged.cells)
    return merged, notes


def follow_moves(old, new):
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


def match(student, new, before):
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
        name = re.search(r"^(?:class|def) (\w+)", cell.source, re.MULTILINE)
        if cell.id in theirs or not cell.id.startswith("exercise-") or not name:
            continue
        pattern = rf"^(class|def) {name[1]}\b"
        found = [c for c in extras if re.search(pattern, c.source, re.MULTILINE)]
        if found:
            theirs[cell.id] = found[-1]
            extras = [c for c in extras if c is not found[-1]]
    return theirs, extras


def settle(cell, own, before, notes):
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
    return [cell, nbformat.v4.new_markdown_cell(fenced(text, own))]


def fenced(text, cell):
    if cell.cell_type == "markdown":
        return f"{text}\n\n{cell.source}"
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", cell.source)), default=0))
    return f"{text}\n\n{fence}python\n{cell.source}\n{fence}"


def with_id(cell, cell_id):
    cell = nbformat.from_dict(cell)
    cell.id = cell_id
    return cell


def with_tags(own, cell):
    """The student's cell with the lesson's id and tags, which say for one how Run All takes it."""
    own = with_id(own, cell.id)
    own.metadata.pop("tags", None)
    if "tags" in cell.metadata:
        own.metadata["tags"] = cell.metadata["tags"]
    return own


def title(cell):
    """A cell in a few words."""
    lines = [line for line in cell.source.splitlines() if line.strip()] or ["an empty cell"]
    return f"{lines[0].strip()[:60]!r}"


def give_own_ids(cells):
    """Gives a fresh id to what repeats one, which a notebook does not allow."""
    seen = set()
    for cell in cells:
        if cell.id in seen:
            cell.id = fresh_id()
        seen.add(cell.id)


def fresh_id():
    return nbformat.v4.new_code_cell().id


def main(arguments=None):
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
