"""COCO captions (Karpathy), NoCaps and TextCaps: captions scored by pycocoevalcap."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...exceptions import DatasetError, shorten
from ..official import caption_scores
from ..official.captions import require_caption_tools
from .base import Answers, PublishedFile, Suite, SuiteData, SuiteQuestion, SuiteScores, answer_text, read_entries

_SFR = "https://storage.googleapis.com/sfr-vision-language-research/datasets"
_KARPATHY = PublishedFile(
    ("coco_karpathy_test.json", "annotations/coco_karpathy_test.json"), f"{_SFR}/coco_karpathy_test.json"
)
_KARPATHY_TRUTH = PublishedFile(
    ("coco_karpathy_test_gt.json", "annotations/coco_karpathy_test_gt.json"), f"{_SFR}/coco_karpathy_test_gt.json"
)
_VAL2014 = PublishedFile(("val2014", "images/val2014"), "http://images.cocodataset.org/zips/val2014.zip")
_NOCAPS = PublishedFile(
    ("nocaps_val_4500_captions.json", "annotations/nocaps_val_4500_captions.json"),
    "https://nocaps.s3.amazonaws.com/nocaps_val_4500_captions.json",
)
_OPEN_IMAGES = PublishedFile(
    ("val", "images", "validation"),
    "https://storage.googleapis.com/openimages (the addresses are `coco_url` of the annotation file)",
)
_TEXTCAPS = PublishedFile(
    ("TextCaps_0.1_val.json",), "https://dl.fbaipublicfiles.com/textvqa/data/textcaps/TextCaps_0.1_val.json"
)
_OPEN_IMAGES_TRAIN = PublishedFile(
    ("train_images", "train_val_images/train_images"),
    "https://dl.fbaipublicfiles.com/textvqa/images/train_val_images.zip",
)


@dataclass(frozen=True)
class CaptionSuite(Suite):
    """Captions with several references an image, by pycocoevalcap over all of them."""

    def check(self) -> None:
        """Verify that pycocoevalcap and Java are installed."""
        require_caption_tools()

    def score(self, data: SuiteData, answers: Answers) -> SuiteScores:
        """Return CIDEr, BLEU, ROUGE-L and what else can be computed here; by domain if the file states domains."""
        import pandas as pd

        captions = {q.key: answer_text(answer) for q, answer in zip(data.questions, answers, strict=True)}
        references = {q.key: q.truth["references"] for q in data.questions}
        scores = caption_scores(captions, references)
        domains: defaultdict[str, list[float]] = defaultdict(list)
        for question, value in zip(data.questions, scores.per_image["CIDEr"].tolist(), strict=True):
            if question.truth["domain"]:
                domains[question.truth["domain"]].append(value)
        rows = [{"domain": d, "CIDEr": 100 * sum(v) / len(v), "images": len(v)} for d, v in sorted(domains.items())]
        tables = {"CIDEr by domain": pd.DataFrame(rows)} if rows else {}
        return SuiteScores({metric: scores.estimate(metric) for metric in scores.values}, tables)

    def submission(self, data: SuiteData, answers: Answers) -> list[dict[str, Any]]:
        """Return COCO's result format for captions: `image_id`, `caption`."""
        pairs = zip(data.questions, answers, strict=True)
        return [{"image_id": q.group, "caption": answer_text(answer)} for q, answer in pairs]


def _question(
    image_id: Any, image: Path, references: list[str], size: tuple[int, int] | None = None, domain: str = ""
) -> SuiteQuestion:
    if not references:
        raise DatasetError(f"image {shorten(image_id)} has no reference caption in the published files, as for {image}")
    truth = {"references": references, "domain": domain}
    return SuiteQuestion(f"image {image_id}", image, "", image_id, truth, size)


class CocoCaptionSuite(CaptionSuite):
    """The 5,000 images of Karpathy's test split, with five references each."""

    def read_files(self, root: Path, split: str) -> SuiteData:
        """Return a question for each image. References are those of the ground-truth file that the scorer takes."""
        references = _references(_KARPATHY_TRUTH.find(root))
        path, folder = _KARPATHY.find(root), _VAL2014.find(root)
        questions = []
        for entry in read_entries(path, "", ("image", "caption")):
            name = Path(entry["image"]).name
            number = re.search(r"(\d+)\.\w+$", name)
            image_id = int(number[1]) if number else name
            if image_id not in references:
                raise DatasetError(f"{path} names {name}, for which {_KARPATHY_TRUTH.names[0]} has no references")
            questions.append(_question(image_id, folder / name, references[image_id]))
        return SuiteData(questions)

    def image_url(self, split: str) -> str:
        """Return the address of COCO's val2014."""
        return _VAL2014.url


class NocapsSuite(CaptionSuite):
    """The 4,500 validation images of NoCaps, with ten references each."""

    def read_files(self, root: Path, split: str) -> SuiteData:
        """Return a question for each image."""
        path, folder = _NOCAPS.find(root), _OPEN_IMAGES.find(root)
        references = _references(path)
        return SuiteData(
            [
                _question(
                    image["id"],
                    folder / image["file_name"],
                    references[image["id"]],
                    (int(image["width"]), int(image["height"])) if "width" in image and "height" in image else None,
                    str(image.get("domain", "")),
                )
                for image in read_entries(path, "images", ("id", "file_name"))
            ]
        )

    def image_url(self, split: str) -> str:
        """Return the address of the images."""
        return _OPEN_IMAGES.url


class TextcapsSuite(CaptionSuite):
    """The 3,166 validation images of TextCaps, with five references each: the file has an entry for each caption."""

    def read_files(self, root: Path, split: str) -> SuiteData:
        """Return a question for each image."""
        folder = _OPEN_IMAGES_TRAIN.find(root)
        references: defaultdict[str, list[str]] = defaultdict(list)
        for entry in read_entries(_TEXTCAPS.find(root), "data", ("image_id", "caption_str")):
            references[entry["image_id"]].append(entry["caption_str"])
        questions = [_question(id_, folder / f"{id_}.jpg", texts) for id_, texts in references.items()]
        return SuiteData(questions)

    def image_url(self, split: str) -> str:
        """Return the address of the images."""
        return _OPEN_IMAGES_TRAIN.url


def _references(path: Path) -> defaultdict[Any, list[str]]:
    """The captions of each image in a file of COCO's format."""
    references: defaultdict[Any, list[str]] = defaultdict(list)
    for annotation in read_entries(path, "annotations", ("image_id", "caption")):
        references[annotation["image_id"]].append(annotation["caption"])
    return references


CAPTION_SUITES = (
    CocoCaptionSuite("coco-caption", "COCO captions, Karpathy's test split", "<CAPTION>", ("test",), "CIDEr"),
    NocapsSuite("nocaps", "NoCaps, validation", "<CAPTION>", ("val",), "CIDEr"),
    TextcapsSuite("textcaps", "TextCaps, validation", "<CAPTION>", ("val",), "CIDEr"),
)
