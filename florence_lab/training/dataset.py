"""Training data: many formats -> `Example`s, each checked before anything is trained on it.

    examples, problems = read_examples(["train.jsonl", "coco:annotations.json", "scenes:500#2000"], tokenizer)

| dataset | what it is |
| --- | --- |
| `rows.jsonl`, `rows.json` | rows `{"query", "response", "images"}` of ms-swift, with `"objects"` or without, or `{"image", "prefix", "suffix"}` of Roboflow |
| `coco:FILE` | a COCO file; `?images=DIR` for its pictures, `?tasks=OD,REGION_TO_CATEGORY` for what is asked |
| `scenes:COUNT` | that many scenes of the cartoon world, every task about each |
| `hf:ID`, `ms:ID` | a dataset of Hugging Face or ModelScope; `?split=train&query=<CAPTION>&response=text` maps columns |

Behind any of them, `#500` takes a sample of 500 rows.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

import numpy as np
from PIL import Image
from tqdm.auto import tqdm
from tqdm.contrib.concurrent import thread_map

from ..evaluation import Question
from ..images import load_image
from ..scenes import TRAIN_SEEDS, draw_scene
from ..scenes.dataset import rows as scene_rows
from ..tasks import TASKS, get_task
from ..template import BINS, FlorenceTemplate, location_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SCENE_SIZE = 384
OUTSIDE = 1.0
"""Pixels by which a box may leave its picture and still be taken for one that was rounded."""


class DatasetError(ValueError):
    """A dataset that can't be read at all; what is wrong with single rows is a `Problem` each."""


class ScenePicture(NamedTuple):
    """A picture that is drawn when it is needed."""

    seed: int
    size: int


@dataclass(frozen=True)
class Example:
    """One question about one picture, ready to be trained on.

    Attributes:
        image: what `open_picture` takes.
        task: the task token; empty for a free question.
        text: the phrase, or the region as location tokens; empty where the task takes none.
        prompt: the sentence that the model reads.
        response: the answer, in Florence-2's own grammar.
        source: where it stands, `train.jsonl, row 12`.
    """

    image: Any
    task: str
    text: str
    prompt: str
    response: str
    source: str


class Problem(NamedTuple):
    """A row that can't be trained on: the dataset, the row's number from 1 on, and what is wrong with it."""

    dataset: str
    row: int
    reason: str

    def __str__(self) -> str:
        return f"{self.dataset}, row {self.row}: {self.reason}"


@dataclass(frozen=True)
class Record:
    """A row as it was found. A box is still in the units of its file, since only the picture tells its pixels."""

    image: Any
    query: str
    response: str
    objects: list[dict] = field(default_factory=list)


def open_picture(image: Any) -> Image.Image:
    """The picture of an example, upright RGB: drawn, or read as `load_image` does.

    Raises:
        ImageError: if it can't be read.
    """
    return draw_scene(*image).image if isinstance(image, ScenePicture) else load_image(image)


def check_datasets(datasets: Sequence[str]) -> None:
    """Refuse what is no dataset, or isn't there, before anything large is loaded. Raises `DatasetError`."""
    for dataset in datasets:
        _records(dataset.partition("#")[0])


def identity(image: Any) -> Any:
    """What is the same for the questions about one picture: its path or its seed; or the object, which the rows share."""
    return image if isinstance(image, (str, Path, tuple, bytes)) else id(image)


def read_examples(
    datasets: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int = 1024,
    seed: int = 42,
    answered: bool = True,
) -> tuple[list[Example], list[Problem]]:
    """Read datasets, and check every row: its picture, its question, its boxes, its answer.

    Args:
        datasets: see the top of this file.
        tokenizer: to count the tokens of answers.
        max_length: the longest answer, in tokens, with `<s>` and `</s>`.
        seed: for samples.
        answered: whether a row without an answer is faulty; to be asked, it needs none.

    Returns:
        The examples, in the order of their rows, and the rows that are none.

    Raises:
        DatasetError: for a dataset that isn't there, or is none.
    """
    examples, problems = [], []
    for dataset in datasets:
        name, _, count = dataset.partition("#")
        numbered = list(enumerate(_records(name), start=1))
        if count:
            numbered = _sample(numbered, count, dataset, seed)
        check = _Check(name, FlorenceTemplate(tokenizer), max_length, answered)
        for found in thread_map(check, numbered, desc=f"checking {name}", unit="row", chunksize=16):
            kept, problem = found
            examples += kept
            problems += [problem] if problem else []
    return examples, problems


def as_questions(examples: Iterable[Example]) -> list[Question]:
    """Examples as evaluation asks them, with their responses as the truth; free questions have no measure.

    Each picture is opened once for the questions about it that follow one another, and kept in memory.
    """
    questions: list[Question] = []
    shown: Any = None
    template = FlorenceTemplate()
    for example in examples:
        if example.task:
            if not questions or identity(example.image) != shown:
                shown, picture = identity(example.image), open_picture(example.image)
            truth = template.parse_text(example.response, example.task, picture.size, phrase=example.text)
            questions.append(Question(picture, example.task, example.text or None, truth, example.source))
    return questions


def read_questions(
    dataset: str, tokenizer: PreTrainedTokenizerBase, tasks: Sequence[str] | None = None
) -> list[Question]:
    """A dataset as `evaluate` asks it.

    Args:
        dataset: see the top of this file.
        tokenizer: of the model that is asked.
        tasks: task tokens; all by default.

    Raises:
        DatasetError: for a dataset that can't be read, for faulty rows, or if nothing is asked.
    """
    examples, problems = read_examples([dataset], tokenizer)
    if problems:
        raise DatasetError(f"{len(problems)} faulty rows: {describe(problems)}")
    questions = as_questions(example for example in examples if not tasks or example.task in tasks)
    if not questions:
        raise DatasetError(f"{dataset} asks nothing of {', '.join(tasks or ['any task'])}")
    return questions


def describe(problems: Sequence[Problem], shown: int = 5) -> str:
    """How many rows have which fault, each with its first ones."""
    kinds = defaultdict(list)
    for problem in problems:
        kinds[problem.reason.split(":")[0]].append(problem)
    lines = []
    for kind, same in sorted(kinds.items(), key=lambda item: -len(item[1])):
        lines.append(f"{len(same)} x {kind}")
        lines += [f"    {problem}" for problem in same[:shown]]
        lines += [f"    … and {len(same) - shown} more"] if len(same) > shown else []
    return "\n".join(lines)


def _sample(numbered: list[tuple[int, Any]], count: str, dataset: str, seed: int) -> list[tuple[int, Any]]:
    if not count.isdecimal() or int(count) == 0:
        raise DatasetError(f"{dataset!r}: behind # stands how many rows to take, as in {dataset.partition('#')[0]}#500")
    chosen = random.Random(seed).sample(range(len(numbered)), min(int(count), len(numbered)))
    return [numbered[i] for i in sorted(chosen)]


# ---------------------------------------------------------------------- one row: is it good?


class _Bad(ValueError):
    """What is wrong with a row: what kind of fault, a colon, and the particulars."""


class _Check(NamedTuple):
    """A row -> its examples, or what is wrong with it."""

    dataset: str
    template: FlorenceTemplate
    max_length: int
    answered: bool

    def __call__(self, numbered: tuple[int, Record | str]) -> tuple[list[Example], Problem | None]:
        number, record = numbered
        try:
            return self.examples(record, f"{self.dataset}, row {number}"), None
        except _Bad as bad:
            return [], Problem(self.dataset, number, str(bad))

    def examples(self, record: Record | str, source: str) -> list[Example]:
        if isinstance(record, str):  # what the reader of the file has to say about it
            raise _Bad(record)
        size = self.size(record.image)
        return [self.example(record.image, query, answer, size, source) for query, answer in _questions(record, size)]

    def size(self, image: Any) -> tuple[int, int]:
        if isinstance(image, ScenePicture):
            return image.size, image.size
        try:
            return open_picture(image).size
        except ValueError as error:
            raise _Bad(f"no picture: {error}") from error

    def example(self, image: Any, query: str, answer: str, size: tuple[int, int], source: str) -> Example:
        try:
            task, text, prompt = self.template.prompt(query, image_size=size)
        except ValueError as error:
            raise _Bad(f"no question for a task: {error}") from error
        if self.answered and not answer.strip():
            raise _Bad("the answer is empty")
        length = len(self.template.tokenizer(answer)["input_ids"])
        if length > self.max_length:
            raise _Bad(f"the answer is too long: {length} tokens, with --max_length {self.max_length}")
        return Example(image, task.token, text, prompt, answer, source)


def _questions(record: Record, size: tuple[int, int]) -> list[tuple[str, str]]:
    """(query, answer) pairs of a row, boxes as location tokens."""
    if not record.objects:
        return [(record.query, record.response)]
    named = [_read_object(thing, size) for thing in record.objects]
    if "<bbox>" in record.query and "<ref-object>" in record.response:
        return [("<REGION_TO_DESCRIPTION>" + box, caption + box) for caption, boxes in named for box in boxes]
    if "<ref-object>" in record.query and "<bbox>" in record.response:
        phrases = " and ".join(dict.fromkeys(caption for caption, _ in named))
        return [("<OPEN_VOCABULARY_DETECTION>" + phrases, "".join(name + "".join(boxes) for name, boxes in named))]
    raise _Bad(
        "objects without a place: a row with objects has <bbox> in its query and <ref-object> in its response, or the "
        "other way round"
    )


def _read_object(thing: dict, size: tuple[int, int]) -> tuple[str, list[str]]:
    """Caption, and the location tokens of each of its boxes."""
    caption = str(thing.get("caption", "")).strip()
    if not caption:
        raise _Bad(f"an object without a caption: {json.dumps(thing, ensure_ascii=False)[:100]}")
    if thing.get("image", 0) not in (0, None):
        raise _Bad(f"more than one picture: an object of image {thing['image']}, but a row has one image")
    kind = thing.get("bbox_type", "real")
    if kind not in BOX_UNITS:
        raise _Bad(f"unknown bbox_type: {kind!r}, give {', '.join(BOX_UNITS)}")
    try:
        boxes = np.array(thing["bbox"], float).reshape(-1, 4)
    except (KeyError, TypeError, ValueError):
        raise _Bad(f"no box: {thing.get('bbox')!r}, give x0, y0, x1, y1") from None
    return caption, [_box_tokens(box, size) for box in boxes * BOX_UNITS[kind](size)]


BOX_UNITS: dict[str, Callable[[tuple[int, int]], np.ndarray]] = {
    "real": lambda size: np.ones(4),
    "norm_1000": lambda size: np.array(size * 2) / BINS,
    "norm_1": lambda size: np.array(size * 2, float),
}
"""bbox_type -> what its coordinates are to be multiplied with to be pixels of a picture of (width, height)."""


def _box_tokens(box: np.ndarray, size: tuple[int, int]) -> str:
    """Pixels -> four location tokens; a box has an area and lies in its picture."""
    x0, y0, x1, y1 = box
    readable = f"({x0:g}, {y0:g}, {x1:g}, {y1:g}) in a picture of {size[0]} x {size[1]}"
    if not (x0 < x1 and y0 < y1):
        raise _Bad(f"a box without an area: {readable}")
    if min(x0, y0) < -OUTSIDE or x1 > size[0] + OUTSIDE or y1 > size[1] + OUTSIDE:
        raise _Bad(f"a box outside its picture: {readable}")
    return location_tokens(box, size)


# ---------------------------------------------------------------------- files -> rows


def _records(dataset: str) -> Iterator[Record | str]:
    """The rows of a dataset; a string is what is wrong with one."""
    kind, colon, rest = dataset.partition(":")
    if colon and kind in READERS:
        place, _, options = rest.partition("?")
        return READERS[kind](place, dict(parse_qsl(options)))
    path = Path(dataset).expanduser()
    if path.suffix not in FILES:
        known = ", ".join([*FILES, *(f"{kind}:" for kind in READERS)])
        raise DatasetError(f"unknown dataset {dataset!r}: it ends or begins with none of {known}")
    if not path.is_file():
        raise DatasetError(f"{path} can't be read: there is no such file")
    return FILES[path.suffix](path)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from error


def _json_of(path: Path) -> Any:
    try:
        return json.loads(_text_of(path))
    except ValueError as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path} is no JSON: {error}") from error


def _read_lines(path: Path) -> Iterator[Record | str]:
    for line in _text_of(path).splitlines():
        if line.strip():
            try:
                yield _record(json.loads(line), path.parent)
            except ValueError as error:
                yield f"no JSON: {error}"


def _read_list(path: Path) -> Iterator[Record | str]:
    rows = _json_of(path)
    if not isinstance(rows, list):
        raise DatasetError(f"{path} holds no list of rows; a COCO file is coco:{path}")
    return (_record(row, path.parent) for row in rows)


def _record(row: Any, folder: Path) -> Record | str:
    """A row of ms-swift or of Roboflow. Paths are relative to the file that it stands in."""
    if not isinstance(row, dict):
        return f"no row: a row is an object with names, but this is {str(row)[:60]!r}"
    if {"image", "prefix", "suffix"} <= row.keys():
        return Record(_place(row["image"], folder), str(row["prefix"]), str(row["suffix"]))
    if "query" not in row:
        return f"unknown columns: {', '.join(row)}; give query, response and images, or image, prefix and suffix"
    images = row.get("images", row.get("image", []))
    images = [images] if isinstance(images, (str, dict)) else images
    if len(images) != 1:
        return f"not one picture: {len(images)} images, but a row has one"
    if row.get("history"):
        return "more than one round: Florence-2 answers one question, and has no history"
    objects = row.get("objects") or []
    try:
        objects = json.loads(objects) if isinstance(objects, str) else objects
    except ValueError as error:
        return f"no objects: {error}"
    return Record(_place(images[0], folder), str(row["query"]), str(row.get("response") or ""), list(objects))


def _place(image: Any, folder: Path) -> Any:
    """A path relative to the folder becomes absolute; URLs, pictures and `{"bytes": …}` stay."""
    if isinstance(image, dict):
        return image.get("bytes") or _place(image.get("path"), folder)
    if isinstance(image, str) and "://" not in image:
        return folder / Path(image).expanduser()
    return image


def _read_scenes(count: str, options: dict[str, str]) -> Iterator[Record]:
    if not count.isdecimal() or int(count) == 0:
        raise DatasetError(f"scenes:{count} is no dataset: give how many, as in scenes:500")
    # from the far end: florence-2-nano was trained on those in front
    for seed in tqdm(TRAIN_SEEDS[-int(count) :], desc=f"drawing scenes:{count}", unit="scene"):
        scene, picture = draw_scene(seed, SCENE_SIZE), ScenePicture(seed, SCENE_SIZE)
        for row in scene_rows(scene, "", tuple(TASKS)):
            yield Record(picture, row["query"], row["response"])


HUB_COLUMNS = ("query", "response", "image", "objects")


def _read_hub(fetch: Callable[[str], str], dataset_id: str, options: dict[str, str]) -> Iterator[Record | str]:
    """A dataset of a hub, read by `datasets`, which runs no code from it.

    Args:
        fetch: an id -> what `datasets.load_dataset` takes.
        dataset_id: as the hub knows it, or a folder.
        options: `split` and `subset`; and where a column has another name than `HUB_COLUMNS`, that. What begins as a task
            token does, as in `query=<CAPTION>`, is not a column but the query of every row.
    """
    from datasets import Image as Pictures
    from datasets import load_dataset

    unknown = options.keys() - {"split", "subset", *HUB_COLUMNS}
    if unknown:
        known = ", ".join(("split", "subset", *HUB_COLUMNS))
        raise DatasetError(f"{dataset_id}?{'&'.join(unknown)}=…: only {known} can be given")
    try:
        table = load_dataset(fetch(dataset_id), options.get("subset"), split=options.get("split", "train"))
    except Exception as error:  # of the network, of a hub, of a file: there are dozens
        raise DatasetError(f"the dataset {dataset_id} can't be had: {str(error).splitlines()[0][:300]}") from error
    columns = {name: options.get(name, name) for name in HUB_COLUMNS}
    constant = {name: value for name, value in columns.items() if value.startswith("<")}
    missing = [
        value
        for name, value in columns.items()
        if value not in table.column_names and name not in constant and (name in options or name in ("image", "query"))
    ]
    if missing:
        have = ", ".join(table.column_names)
        raise DatasetError(
            f"{dataset_id} has no column {', '.join(missing)}, but {have}: name them, as in ?image=picture"
        )
    for name, feature in table.features.items():
        if isinstance(feature, Pictures):  # opened when its row is met, and by us
            table = table.cast_column(name, Pictures(decode=False))
    for row in table:
        named = {name: row[value] for name, value in columns.items() if value in table.column_names}
        yield _record(named | constant, Path())


def _modelscope_folder(dataset_id: str) -> str:
    if Path(dataset_id).is_dir():
        return dataset_id
    from modelscope import dataset_snapshot_download

    return dataset_snapshot_download(dataset_id)


def _read_coco(place: str, options: dict[str, str]) -> Iterator[Record | str]:
    path = Path(place).expanduser()
    data = _json_of(path)
    if not isinstance(data, dict) or not {"images", "annotations", "categories"} <= data.keys():
        raise DatasetError(f"{path} is no COCO file: it has no images, annotations and categories")
    folder = Path(options.get("images", path.parent)).expanduser()
    tasks = [get_task(name).token for name in options.get("tasks", "OD").split(",")]
    unknown = [task for task in tasks if task not in COCO_TASKS]
    if unknown:
        raise DatasetError(f"a COCO file has no answers to {', '.join(unknown)}; it has to {', '.join(COCO_TASKS)}")
    names = {category["id"]: category["name"] for category in data["categories"]}
    of_image = defaultdict(list)
    for annotation in data["annotations"]:
        of_image[annotation["image_id"]].append(annotation | {"name": names[annotation["category_id"]]})
    for picture in data["images"]:
        size = picture["width"], picture["height"]
        things = of_image[picture["id"]]
        for task in tasks if things else ():
            try:
                rows = list(COCO_TASKS[task](things, size))
            except _Bad as bad:
                rows = [str(bad)]
            for row in rows:
                yield row if isinstance(row, str) else Record(folder / picture["file_name"], task + row[0], row[1])


def _coco_box(thing: dict, size: tuple[int, int]) -> str:
    x, y, width, height = thing["bbox"]
    return _box_tokens(np.array([x, y, x + width, y + height]), size)


def _coco_detection(things: list[dict], size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    by_name = defaultdict(str)
    for thing in sorted(things, key=lambda thing: thing["bbox"][0]):
        by_name[thing["name"]] += _coco_box(thing, size)
    yield "", "".join(name + boxes for name, boxes in by_name.items())


def _coco_dense(things: list[dict], size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    ordered = sorted(things, key=lambda thing: thing["bbox"][0])
    yield "", "".join(str(thing.get("caption", thing["name"])) + _coco_box(thing, size) for thing in ordered)


def _coco_category(things: list[dict], size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    for thing in things:
        yield (box := _coco_box(thing, size)), thing["name"] + box


def _coco_description(things: list[dict], size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    for thing in things:
        yield (box := _coco_box(thing, size)), str(thing.get("caption", thing["name"])) + box


def _coco_outline(things: list[dict], size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    for thing in things:
        if isinstance(thing.get("segmentation"), list) and thing["segmentation"]:  # run lengths have no outline
            outlines = (np.array(outline).reshape(-1, 2) for outline in thing["segmentation"])
            yield _coco_box(thing, size), "<sep>".join(location_tokens(outline, size) for outline in outlines)


COCO_TASKS: dict[str, Callable[[list[dict], tuple[int, int]], Iterable[tuple[str, str]]]] = {
    "<OD>": _coco_detection,
    "<DENSE_REGION_CAPTION>": _coco_dense,
    "<REGION_TO_CATEGORY>": _coco_category,
    "<REGION_TO_DESCRIPTION>": _coco_description,
    "<REGION_TO_SEGMENTATION>": _coco_outline,
}
"""Task -> (input, answer) pairs from the annotations of one picture."""


FILES: dict[str, Callable[[Path], Iterator[Record | str]]] = {".jsonl": _read_lines, ".json": _read_list}
READERS: dict[str, Callable[[str, dict[str, str]], Iterator[Record | str]]] = {
    "coco": _read_coco,
    "scenes": _read_scenes,
    "hf": partial(_read_hub, str),
    "ms": partial(_read_hub, _modelscope_folder),
}
"""What stands before the colon -> its reader, which gets what stands behind it and the options."""
