"""The official numbers of an evaluation on a COCO file, beside the everyday metrics."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

from ..argument_validation import validate_arguments
from ..data.examples import Example, image_key
from ..data.readers.files import resolve_image
from ..data.rows import InvalidRow
from ..results import Instances
from .evaluator import Evaluation
from .official import CocoScores, NameTable, coco_scores, read_coco, to_detections

DETECTION_TASK = "<OD>"


@validate_arguments
def coco_file_scores(evaluation: Evaluation, annotations: str | Path, images: str | Path) -> CocoScores | None:
    """Return what `COCOeval` gives for the answers to `<OD>` on the annotation file itself.

    Crowds are ignored, boxes are those of the file, and examples without answer count as answered by nothing.

    Args:
        evaluation: of a data set `coco:FILE`. The images that it asked about are evaluated.
        annotations: the file.
        images: the folder of its images.

    Returns:
        None if `<OD>` was not asked about an image of the file.

    Raises:
        DatasetError: for a file that is not a COCO file.
    """
    data = read_coco(annotations)
    ids = _image_ids(data, Path(images))
    results: dict[Hashable, Instances] = {}
    asked: dict[Hashable, None] = {}
    for example in (*evaluation.examples, *(failed.example for failed in evaluation.errors)):
        if _is_detection(example, ids):
            asked[ids[example.image_key]] = None
    for example, prediction in zip(evaluation.examples, evaluation.predictions, strict=True):
        if _is_detection(example, ids) and isinstance(prediction, Instances):
            results[ids[example.image_key]] = prediction
    if not asked:
        return None
    names = NameTable(data["categories"])
    return coco_scores(data, to_detections(results, names), list(asked), names)


def _is_detection(example: Example, ids: dict[Hashable, Hashable]) -> bool:
    return example.prompt.task.token == DETECTION_TASK and example.image_key in ids


def _image_ids(data: dict, folder: Path) -> dict[Hashable, Hashable]:
    """Path of an image -> its id in the file."""
    ids: dict[Hashable, Hashable] = {}
    for image in data["images"]:
        try:
            source = resolve_image(image["file_name"], folder)
            if source is not None:
                ids[image_key(source)] = image["id"]
        except (InvalidRow, KeyError, TypeError):  # the reader reports it
            continue
    return ids
