"""RefCOCO, RefCOCO+ and RefCOCOg: boxes of referring expressions, and their masks (RES)."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...data.readers.masks import MAX_MASK_PIXELS, decode_rle
from ...exceptions import DatasetError, shorten, summarize_error
from ...geometry import polygons_to_mask
from ..matching import IOU_THRESHOLD
from ..official import box_iou, mask_areas, mean_estimate, ratio_estimate
from ..official.boxes import PRECISION_THRESHOLDS, MaskAreas
from .base import (
    Answers,
    PublishedFile,
    Suite,
    SuiteData,
    SuiteQuestion,
    SuiteScores,
    answer_instances,
    answer_polygons,
    read_json,
)

_REFER = "https://github.com/lichengunc/refer"
_TRAIN2014 = PublishedFile(
    ("images/mscoco/images/train2014", "train2014", "images/train2014"),
    "http://images.cocodataset.org/zips/train2014.zip",
)
_KEYS = ("ref_id", "ann_id", "image_id", "split", "sentences")


@dataclass(frozen=True)
class ReferSuite(Suite):
    """Referring expressions in the layout of `lichengunc/refer`.

    Attributes:
        dataset: the folder of the data set: refcoco, refcoco+, refcocog.
        split_by: who made the split, which is in the name of the file: unc, umd, google.
    """

    dataset: str = ""
    split_by: str = "unc"

    def read_files(self, root: Path, split: str) -> SuiteData:
        """Return a question for each expression of the split."""
        name = f"refs({self.split_by}).p"
        path = PublishedFile((f"{self.dataset}/{name}", name), f"{_REFER} ({self.dataset}.zip)").find(root)
        refs = read_refs(path)
        instances = PublishedFile(
            (f"{self.dataset}/instances.json", "instances.json"), f"{_REFER} ({self.dataset}.zip)"
        )
        instances_path, folder = instances.find(root), _TRAIN2014.find(root)
        data = read_json(instances_path)
        try:
            images = {image["id"]: image for image in data["images"]}
            annotations = {annotation["id"]: annotation for annotation in data["annotations"]}
            questions = [
                _question(ref, sentence, annotations[ref["ann_id"]], images[ref["image_id"]], folder)
                for ref in sorted(refs, key=lambda ref: ref["image_id"])
                if ref["split"] == split
                for sentence in ref["sentences"]
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{instances_path} and {path} do not fit each other: {shorten(error, 200)}") from error
        if not questions:
            found = ", ".join(sorted({str(ref["split"]) for ref in refs}))
            raise DatasetError(f"{path} has no expression of the split {split}; it has {found}")
        return SuiteData(questions)

    def image_url(self, split: str) -> str:
        """Return the address of train2014."""
        return _TRAIN2014.url


class ReferBoxSuite(ReferSuite):
    """Accuracy: the share of expressions whose box has an IoU of at least 0.5. An answer counts by its best box."""

    def score(self, data: SuiteData, answers: Answers) -> SuiteScores:
        """Return the accuracy and the mean IoU."""
        ious = []
        for question, answer in zip(data.questions, answers, strict=True):
            box = _best_box(answer)
            ious.append(0.0 if box is None else float(box_iou(box[None], question.truth["box"][None])[0, 0]))
        values = np.array(ious)
        return SuiteScores({"accuracy@0.5": mean_estimate(values >= IOU_THRESHOLD), "mean IoU": mean_estimate(values)})

    def submission(self, data: SuiteData, answers: Answers) -> list[dict[str, Any]]:
        """Return `{"sent_id", "box"}` as `evaluation` of lichengunc/MAttNet writes boxes: x, y, width, height."""
        rows = []
        for question, answer in zip(data.questions, answers, strict=True):
            x0, y0, x1, y1 = (0.0,) * 4 if (box := _best_box(answer)) is None else box.tolist()
            rows.append({"sent_id": question.truth["sent_id"], "box": [x0, y0, x1 - x0, y1 - y0]})
        return rows


class ReferMaskSuite(ReferSuite):
    """mIoU, cIoU and P@X of the union of all outlines of an answer, at the size of the image.

    `test.py` of LAVT compares masks that are resized to 480 x 480 pixels; other papers use the size of the image.
    """

    def read_files(self, root: Path, split: str) -> SuiteData:
        """Return a question for each expression of the split, whose masks can be drawn."""
        data = super().read_files(root, split)
        for question in data.questions:
            try:
                true_mask(question)
            except Exception as error:  # pycocotools raises nearly any type
                raise DatasetError(
                    f"{root}: the segmentation of {question.key} cannot be drawn: {summarize_error(error)}"
                ) from error
        return data

    def score(self, data: SuiteData, answers: Answers) -> SuiteScores:
        """Return mIoU, cIoU and P@0.5 to P@0.9."""
        areas = [_areas(question, answer) for question, answer in zip(data.questions, answers, strict=True)]
        ious = np.array([area.iou for area in areas])
        return SuiteScores(
            {
                "mIoU": mean_estimate(ious),
                "cIoU": ratio_estimate([area.intersection for area in areas], [area.union for area in areas]),
                **{f"P@{t}": mean_estimate(ious >= t) for t in PRECISION_THRESHOLDS},
            }
        )

    def submission(self, data: SuiteData, answers: Answers) -> list[dict[str, Any]]:
        """Return `{"sent_id", "segmentation"}` with the mask as COCO's run lengths."""
        from pycocotools import mask as coco_mask

        rows = []
        for question, answer in zip(data.questions, answers, strict=True):
            encoded = coco_mask.encode(np.asfortranarray(_predicted_mask(question, answer), dtype=np.uint8))
            encoded["counts"] = encoded["counts"].decode("ascii")
            rows.append({"sent_id": question.truth["sent_id"], "segmentation": encoded})
        return rows


def _question(ref: dict, sentence: dict, annotation: dict, image: dict, folder: Path) -> SuiteQuestion:
    size = (int(image["width"]), int(image["height"]))
    if min(size) < 1 or size[0] * size[1] > MAX_MASK_PIXELS:
        raise ValueError(f"an image of {size[0]} x {size[1]} pixels")
    _check_segmentation(annotation["segmentation"], size)
    x, y, width, height = annotation["bbox"]
    truth = {
        "sent_id": sentence["sent_id"],
        "box": np.array([x, y, x + width, y + height], float),
        "segmentation": annotation["segmentation"],
    }
    path = folder / Path(image["file_name"]).name
    return SuiteQuestion(f"sentence {sentence['sent_id']}", path, sentence["sent"], ref["image_id"], truth, size)


def _check_segmentation(segmentation: Any, size: tuple[int, int]) -> None:
    """Raise `ValueError` for outlines that pycocotools cannot draw. It takes gigabytes for coordinates that are not finite or far away."""
    if isinstance(segmentation, dict):
        if decode_rle(segmentation).shape != size[::-1]:
            raise ValueError(
                f"run lengths of size {shorten(segmentation['size'])} in an image of {size[0]} x {size[1]} pixels"
            )
        return
    far = 2 * max(size)
    for part in segmentation:
        if len(part) < 6 or len(part) % 2 or not all(-far <= value <= far for value in part):
            raise ValueError(f"an outline {shorten(part)} in an image of {size[0]} x {size[1]} pixels")


def _best_box(answer: Any) -> np.ndarray | None:
    """The box with the highest score, the first if there are no scores; None if nothing was found."""
    instances = answer_instances(answer)
    if instances is None:
        return None
    best = 0 if instances.scores is None else int(np.argmax(instances.scores))
    return np.asarray(instances.xyxy[best])


def _areas(question: SuiteQuestion, answer: Any) -> MaskAreas:
    return mask_areas(_predicted_mask(question, answer), true_mask(question))


def _predicted_mask(question: SuiteQuestion, answer: Any) -> np.ndarray:
    size = question.image_size or (0, 0)
    polygons = answer_polygons(answer)
    outlines = [] if polygons is None else [part for parts in polygons.polygons for part in parts]
    return polygons_to_mask(outlines, size)


def true_mask(question: SuiteQuestion) -> np.ndarray:
    """Return the H x W bool mask of an expression, as `getMask` of refer.py and LAVT's data set make it.

    Pixels that lie in two parts of an object are not in the mask: the published code compares their number with 1.
    """
    from pycocotools import mask as coco_mask

    width, height = question.image_size or (0, 0)
    segmentation = question.truth["segmentation"]
    if isinstance(segmentation, dict):
        is_compressed = not isinstance(segmentation["counts"], list)
        encoded = segmentation if is_compressed else coco_mask.frPyObjects(segmentation, height, width)
        return np.asarray(coco_mask.decode(encoded), bool)
    parts = coco_mask.decode(coco_mask.frPyObjects(segmentation, height, width))
    return np.asarray(parts.sum(axis=2) == 1)


class _PlainUnpickler(pickle.Unpickler):
    """Reads pickled lists, dictionaries, text and numbers, and refuses everything that would call code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it contains {module}.{name}, and may run code")


def read_refs(path: Path) -> list[dict[str, Any]]:
    """Return the references of a file `refs(unc).p`, without running code that a pickle can contain.

    Raises:
        DatasetError: for a file that cannot be read, or has another content.
    """
    try:
        with path.open("rb") as file:
            # written by Python 2, whose texts are bytes
            refs = _PlainUnpickler(file, encoding="utf-8", errors="replace").load()
    except Exception as error:  # a damaged pickle raises anything
        raise DatasetError(f"{path} cannot be read: {summarize_error(error)}") from error
    if not isinstance(refs, list) or not refs:
        raise DatasetError(f"{path} must be a list of references, got {shorten(refs)}")
    for ref in refs:
        missing = [key for key in _KEYS if not isinstance(ref, dict) or key not in ref]
        if missing:
            raise DatasetError(f"{path}: a reference lacks {', '.join(missing)}: {shorten(ref)}")
    return refs


_PHRASE = "<CAPTION_TO_PHRASE_GROUNDING>"
_UNC, _UMD = ("val", "testA", "testB"), ("val", "test")
REFERRING_SUITES = (
    ReferBoxSuite("refcoco", "RefCOCO, boxes", _PHRASE, _UNC, "accuracy@0.5", "refcoco"),
    ReferBoxSuite("refcoco+", "RefCOCO+, boxes", _PHRASE, _UNC, "accuracy@0.5", "refcoco+"),
    ReferBoxSuite("refcocog", "RefCOCOg, boxes", _PHRASE, _UMD, "accuracy@0.5", "refcocog", "umd"),
    ReferMaskSuite("res", "RefCOCO, masks", "<REFERRING_EXPRESSION_SEGMENTATION>", _UNC, "mIoU", "refcoco"),
)
