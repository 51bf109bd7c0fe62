"""From finished parts to the files of a dataset, one image at a time."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ..data.readers.folders import LABELLED_MANIFEST
from ..detection.ontology import Ontology
from ..exceptions import ArgumentError, DatasetError, shorten, unknown_name
from ..output_files import write_text
from .corrections import CorrectionStore, correct
from .parts import PartStore, RowPlace
from .records import LabelledImage, asks_about_objects
from .writers import WRITERS
from .writers.base import Entry

SPLITS = ("train", "val", "test")

_UNSAFE_RE = re.compile(r"[^\w.()+=,-]+")
_MAX_STEM = 120


@dataclass(frozen=True)
class DatasetLayout:
    """How labels become a dataset.

    Attributes:
        format: a key of `WRITERS`.
        ontology: the classes.
        split: name -> share of the images, which sum up to 1.
        review: the scores from which an object is to be looked at, and from which it is sure; None marks none.
        has_masks: whether objects have outlines.
        tasks: tokens of further tasks.
    """

    format: str
    ontology: Ontology
    split: Mapping[str, float] = field(default_factory=lambda: {"train": 1.0})
    review: tuple[float, float] | None = None
    has_masks: bool = False
    tasks: tuple[str, ...] = ()

    def needs_review(self, score: float) -> bool:
        """Return whether an object with a score is to be looked at."""
        return self.review is not None and self.review[0] <= score < self.review[1]


@dataclass
class Counts:
    """What a dataset contains.

    Attributes:
        images: split -> number of images.
        objects: class -> number of objects, for all classes.
        errors: images without labels.
        review: objects to be looked at.
        verdicts: what people have said about objects -> number of objects in the dataset.
        first_error: the error of the first image without labels.
    """

    images: Counter[str]
    objects: Counter[str]
    errors: int = 0
    review: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    first_error: str = ""


def parse_split(text: str) -> dict[str, float]:
    """Return name -> share of `0.8/0.1/0.1` (train, val and test) or `0.9/0.1` (train and val).

    Raises:
        ArgumentError: for anything else, and for shares that do not sum up to 1.
    """
    try:
        shares = [float(part) for part in text.split("/")]
    except ValueError:
        shares = []
    if not 1 <= len(shares) <= len(SPLITS) or not all(0 < share <= 1 for share in shares):
        raise ArgumentError(f"split must be shares of train, val and test, as in 0.8/0.1/0.1, got {shorten(text)}")
    if abs(sum(shares) - 1) > 1e-6:
        raise ArgumentError(f"the shares of split must sum up to 1, got {shorten(text)}, which is {sum(shares):g}")
    return dict(zip(SPLITS, shares, strict=False))


def check_folder(folder: Path, layout: DatasetLayout) -> None:
    """Verify that a dataset can be written to a folder without touching files of others.

    Raises:
        ArgumentError: for an unknown format, and if a name is taken by a file that no earlier run has written.
    """
    if layout.format not in WRITERS:
        raise ArgumentError(unknown_name("format", layout.format, WRITERS))
    has_texts = not all(map(asks_about_objects, layout.tasks))
    texts = [f"texts_{split}.jsonl" for split in layout.split] if has_texts else []
    own = {*_read_manifest(folder / LABELLED_MANIFEST)}
    names = [
        "labels.jsonl",
        "errors.jsonl",
        "review.jsonl",
        *texts,
        *WRITERS[layout.format].top_level(tuple(layout.split)),
    ]
    taken = [name for name in names if name not in own and (folder / name).exists()]
    if taken:
        raise ArgumentError(
            f"{folder} already has {', '.join(taken)}, which no earlier run has written according to its "
            f"{LABELLED_MANIFEST}; choose another folder"
        )


def list_earlier_files(folder: Path) -> list[Path]:
    """Return the files and folders of a dataset that an earlier run has written to a folder."""
    return [folder / name for name in _read_manifest(folder / LABELLED_MANIFEST)]


def assemble(
    store: PartStore, layout: DatasetLayout, folder: Path, signatures: Mapping[str, str] | None = None
) -> Counts:
    """Write the dataset of all labels of a store. The files of an earlier run are replaced when all new ones are complete.

    The corrections of a review, see `corrections`, are applied to the labels. An image whose file is gone is taken from the
    dataset of the earlier run.

    Besides the files of the format there are `labels.jsonl` (everything that is known of each image, scores included),
    `errors.jsonl` (images without labels, if any), `review.jsonl` (objects to be looked at), `texts_SPLIT.jsonl` (further
    answers about images as rows for fine-tuning) and `labels.json` (a summary).

    Args:
        store: the labels.
        layout: the format.
        folder: where the files are written.
        signatures: as in `PartStore.index`.
    """
    places = store.index(signatures)
    corrections = CorrectionStore(folder)
    pending = corrections.pending
    temporary = store.folder / "assembly"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    counts = _write(store, layout, places, temporary, corrections, _Copies(folder))
    _replace_files(temporary, folder, layout, counts)
    corrections.clear_pending(pending)
    return counts


def assign_splits(keys: Sequence[str], shares: Mapping[str, float]) -> dict[str, str]:
    """Return key -> split, with exact numbers. The choice depends on the keys only, so that few images change their split when
    some are added.
    """
    ordered = sorted(keys, key=_digest)
    names, splits, total, start = list(shares), {}, 0.0, 0
    for name in names:
        total += shares[name]
        end = len(ordered) if name == names[-1] else round(total * len(ordered))
        splits.update(dict.fromkeys(ordered[start:end], name))
        start = end
    return splits


class FileNames:
    """Gives each image a name of its own in a flat folder: `farm/a.png` and `barn/a.png` become `farm__a.png`, `barn__a.png`."""

    def __init__(self) -> None:
        self._stems: set[str] = set()

    def choose(self, name: str, path: Path) -> str:
        """Return the name of a file for an image.

        Args:
            name: its path relative to the folder that was labelled.
            path: its file.
        """
        parts = PurePosixPath(name)
        joined = "__".join([*(part for part in parts.parent.parts if part not in (".", "..", "/")), parts.stem])
        stem = _UNSAFE_RE.sub("_", joined).strip(".")[-_MAX_STEM:] or "image"
        unique, number = stem, 1
        while unique.casefold() in self._stems:
            number += 1
            unique = f"{stem}-{number}"
        self._stems.add(unique.casefold())
        return f"{unique}{path.suffix.lower()}"


class _Copies:
    """The images of the dataset that an earlier run has written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, str] | None = None

    def find(self, key: str, original: Path) -> Path:
        """Return the file of an image: the original, or its copy if that is gone."""
        if original.exists():
            return original
        if self._files is None:
            self._files = {row["key"]: row["file"] for row in read_labels(self.folder)}
        copy = self.folder / self._files.get(key, "")
        return copy if copy.is_file() else original


def _write(
    store: PartStore,
    layout: DatasetLayout,
    places: Sequence[RowPlace],
    folder: Path,
    corrections: CorrectionStore,
    copies: _Copies,
) -> Counts:
    splits = assign_splits([place.key for place in places if not place.has_error], layout.split)
    counts = Counts(Counter(dict.fromkeys(layout.split, 0)), Counter(dict.fromkeys(layout.ontology.names, 0)))
    names, number = FileNames(), 0
    with ExitStack() as stack:
        lines = _LineFiles(folder, stack)
        writer = WRITERS[layout.format](folder, layout.ontology, list(layout.split), layout.has_masks, layout.tasks)
        for labelled in store.read(places):
            if labelled.error:
                counts.errors += 1
                counts.first_error = counts.first_error or labelled.error
                origin = {"source": labelled.source, "signature": labelled.signature}
                lines.write("errors", {"image": labelled.key, "error": labelled.error, **origin})
                continue
            number += 1
            row, verdicts = correct(labelled, corrections.read(labelled, layout.ontology.names))
            path = copies.find(row.key, store.images / row.stored if row.stored else Path(row.source))
            review = tuple(
                not verdict and layout.needs_review(item.score)
                for item, verdict in zip(row.objects, verdicts, strict=True)
            )
            entry = Entry(row, number, splits[row.key], names.choose(row.name, path), path, review)
            try:
                file = writer.add(entry)
            except OSError as error:
                raise DatasetError(f"{path} cannot be put into the dataset: {error.strerror or error}") from error
            _write_lines(lines, entry, verdicts, file, layout.tasks)
            counts.images[entry.split] += 1
            counts.objects.update(item.label for item in row.objects)
            counts.review += sum(review)
            counts.verdicts.update(filter(None, verdicts))
        writer.close()
    return counts


class _LineFiles:
    """Files of JSON lines, which are opened when their first line is written."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack = folder, stack
        self._files: dict[str, IO[str]] = {}

    def write(self, name: str, row: Mapping[str, Any]) -> None:
        if name not in self._files:
            file = (self.folder / f"{name}.jsonl").open("w", encoding="utf-8")
            self._files[name] = self.stack.enter_context(file)
        self._files[name].write(json.dumps(row) + "\n")


def _write_lines(lines: _LineFiles, entry: Entry, verdicts: Sequence[str], file: str, tasks: Sequence[str]) -> None:
    row: LabelledImage = entry.image
    objects = [
        vars(item) | {"review": review, "verdict": verdict}
        for item, review, verdict in zip(row.objects, entry.review, verdicts, strict=True)
    ]
    lines.write(
        "labels", row.to_json() | {"file": file, "split": entry.split, "image_id": entry.number, "objects": objects}
    )
    for item in objects:
        if item["review"]:
            lines.write("review", {"file": file, "split": entry.split, "image_id": entry.number, **item})
    for task in (task for task in tasks if not asks_about_objects(task)):
        response = row.answers[task].response
        lines.write(f"texts_{entry.split}", {"images": [file], "query": task, "response": response})


def _replace_files(temporary: Path, folder: Path, layout: DatasetLayout, counts: Counts) -> None:
    """Move the files of a dataset to their folder, in place of those that an earlier run has written.

    The old files are moved away first and deleted last, so that the folder is without files for an instant only.
    """
    old = temporary.with_name("replaced")
    shutil.rmtree(old, ignore_errors=True)
    old.mkdir()
    before = [name for name in _read_manifest(folder / LABELLED_MANIFEST) if os.path.lexists(folder / name)]
    names = sorted(path.name for path in temporary.iterdir())
    manifest = {
        "format": layout.format,
        "classes": list(layout.ontology.names),
        "split": dict(layout.split),
        "review": layout.review,
        "masks": layout.has_masks,
        "tasks": list(layout.tasks),
        "num_images": dict(counts.images),
        "num_objects": dict(counts.objects),
        "num_errors": counts.errors,
        "num_review": counts.review,
        "num_verdicts": dict(counts.verdicts),
        "files": names,
    }
    for name in before:
        (folder / name).rename(old / name)
    write_text(folder / LABELLED_MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    for name in names:
        (temporary / name).rename(folder / name)
    temporary.rmdir()
    shutil.rmtree(old, ignore_errors=True)


def read_labels(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of `labels.jsonl`; none if there is no such file.

    Raises:
        DatasetError: for a file that is damaged.
    """
    path = folder / "labels.jsonl"
    try:
        file = path.open(encoding="utf-8")
    except FileNotFoundError:
        return
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
    with file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
                _ = row["key"], row["source"], row["file"]
            except (ValueError, KeyError, TypeError) as error:
                raise DatasetError(
                    f"{path}, line {number} is no row of florence_lab.label: {shorten(error)}"
                ) from error
            yield row


def _read_manifest(path: Path) -> list[str]:
    """The files of an earlier run; names that lead out of the folder are none."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [name for name in names if isinstance(name, str) and Path(name).name == name and not name.startswith(".")]


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
