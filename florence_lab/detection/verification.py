"""Evidence for candidate boxes of named classes: what the model says about each box when it is asked about the region.

The answer to `<REGION_TO_CATEGORY>` is not generated. The names of all classes are scored by teacher forcing, in one pass for
each region. Names of several words, which may describe more than a category ("red car"), are also looked for at the beginning of
`<REGION_TO_DESCRIPTION>`. `tests/measure_verification.py` measures these features, and others that did not earn their cost:
agreement with `<OD>` and `<REGION_PROPOSAL>`, and the likelihood of the empty answer. On florence-2-nano `p_name` alone separates
right boxes from wrong ones (AUROC 1.000, that of the boxes' own scores is 0.771).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..exceptions import ArgumentError, unknown_name
from ..inference.decoding import end_token_ids
from ..inference.generation import EncodedImage, EncodedPrompts, encode_prompts
from ..inference.scoring import answer_log_likelihoods
from ..results import Boxes
from ..template.locations import format_location_tokens
from .asker import Asker
from .calibration import FEATURES, Calibration

SAME_REGION_IOU = 0.9
"""Boxes with at least this IoU are asked about once. Candidates of different classes are often the same object."""

_ARTICLES = ("a", "an", "the")

Spellings = Sequence[Sequence[str]]
"""For each class, the texts that count as naming it."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What speaks for and against each of N candidate boxes.

    Attributes:
        names: the F names of the features, see `calibration.FEATURES`.
        features: N x F float64, all of them 0..1.
        scores: N float64 in 0..1, the verified confidence of each box.
        passes: number of prompts that the text encoder read for it.
    """

    names: tuple[str, ...]
    features: np.ndarray
    scores: np.ndarray
    passes: int

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, name: str) -> np.ndarray:
        """Return one feature of all boxes: N float64."""
        return self.features[:, self.names.index(name)]


def verify(
    asker: Asker,
    image: EncodedImage,
    candidates: Boxes,
    classes: Sequence[str],
    phrases: Mapping[str, str | Sequence[str]] | None = None,
    calibration: Calibration | None = None,
    batch_size: int = 16,
) -> Evidence:
    """Ask the model about each candidate box, and return the evidence for its label.

    Args:
        asker: the predictor.
        image: the encoded image.
        candidates: N boxes whose labels are among `classes`.
        classes: the names of all classes that were asked for.
        phrases: class -> the words that it was asked with, one text or several; the class itself by default.
        calibration: computes the scores from the features; without it they are the feature `p_name`.
        batch_size: prompts that the text encoder reads together.

    Raises:
        ArgumentError: for a label that is not among `classes`.
    """
    columns = {name: i for i, name in enumerate(classes)}
    for label in candidates.labels.tolist():
        if label not in columns:
            raise ArgumentError(unknown_name("class", label, classes))
    own = np.ones(len(candidates)) if candidates.scores is None else candidates.scores
    if not len(candidates):
        return Evidence(FEATURES, np.zeros((0, len(FEATURES))), np.zeros(0), 0)
    spellings = [name_spellings(name, (phrases or {}).get(name, ())) for name in classes]
    representatives, region_of = _distinct_regions(candidates.xyxy)
    class_of = [columns[label] for label in candidates.labels.tolist()]
    is_candidate = np.zeros((len(representatives), len(classes)), bool)
    is_candidate[region_of, class_of] = True
    regions = candidates.xyxy[representatives]
    log_p, passes = region_log_likelihoods(asker, image, regions, spellings, is_candidate, batch_size)
    log_p = log_p[region_of]
    log_p_name = log_p[np.arange(len(candidates)), class_of]
    log_p_among = log_p_name - np.logaddexp.reduce(log_p, axis=1)
    features = np.stack([own, np.exp(log_p_name), np.exp(log_p_among)], axis=1).clip(0, 1)
    scores = features[:, FEATURES.index("p_name")] if calibration is None else calibration.predict(features)
    return Evidence(FEATURES, features, scores, passes)


def name_spellings(name: str, phrases: str | Sequence[str] = ()) -> tuple[str, ...]:
    """Return the texts that count as naming a class: its name and phrases, in lower case too, without article and underscores."""
    texts = [name, *([phrases] if isinstance(phrases, str) else phrases)]
    texts = [" ".join(text.replace("_", " ").split()) for text in texts] + texts
    texts += [text.lower() for text in texts]
    parts = [text.partition(" ") for text in texts]
    texts += [rest for article, _, rest in parts if article.lower() in _ARTICLES and rest]
    return tuple(dict.fromkeys(text.strip() for text in texts))


def region_log_likelihoods(
    asker: Asker,
    image: EncodedImage,
    boxes: np.ndarray,
    spellings: Spellings,
    is_candidate: np.ndarray,
    batch_size: int = 16,
) -> tuple[np.ndarray, int]:
    """Return the log-probability that the model calls a region by a name.

    It is that of a category which is exactly the name. For names of several words it is that of a description which begins with
    it, if that is larger. Descriptions are asked for where such a name is a candidate and unlikely as a category.

    Args:
        asker: the predictor.
        image: the encoded image.
        boxes: N x 4, (x0, y0, x1, y1) in pixels.
        spellings: of C names; the probabilities of the spellings of a name are added.
        is_candidate: N x C bool, whether the region is a candidate for the name.
        batch_size: prompts that the text encoder reads together.

    Returns:
        N x C float64, and the number of prompts that the text encoder read.
    """
    ends = [*end_token_ids(asker.model), *asker.template.location_ids]  # the region may follow the name
    log_p = _log_likelihoods(asker, image, "<REGION_TO_CATEGORY>", boxes, spellings, ends, batch_size)
    descriptions = {i: _beginnings(texts) for i, texts in enumerate(spellings) if _beginnings(texts)}
    columns = np.array(list(descriptions), int)
    unclear = np.flatnonzero((is_candidate & (log_p < np.log(0.5)))[:, columns].any(axis=1))
    if not len(unclear):
        return log_p, len(boxes)
    described = _log_likelihoods(
        asker, image, "<REGION_TO_DESCRIPTION>", boxes[unclear], list(descriptions.values()), None, batch_size
    )
    chosen = np.ix_(unclear, columns)
    log_p[chosen] = np.maximum(log_p[chosen], described)
    return log_p, len(boxes) + len(unclear)


def _beginnings(texts: Sequence[str]) -> list[str]:
    """The beginnings of descriptions that name a class; none for a name of a single word."""
    names = [text for text in texts if len(text.split()) > 1 and text.partition(" ")[0].lower() not in _ARTICLES]
    return [f"{article}{name}" for name in names for article in ("", "a ", "an ")]


def _log_likelihoods(
    asker: Asker,
    image: EncodedImage,
    task: str,
    boxes: np.ndarray,
    spellings: Spellings,
    end_ids: Sequence[int] | None,
    batch_size: int,
) -> np.ndarray:
    """The log-probability of C names as the answer to a task about N regions, N x C.

    Without `end_ids`, that of all answers which begin with the name.
    """
    tokenizer = asker.processor.tokenizer
    texts = list(dict.fromkeys(text for options in spellings for text in options))
    parts = []
    for states in _encode_regions(asker, image, task, boxes, batch_size):
        rows = [row for row in range(len(states)) for _ in texts]
        values = answer_log_likelihoods(asker.model, tokenizer, states, rows, texts * len(states), end_ids)
        sums = [tokens.sum() if end_ids else tokens[:-1].sum() for tokens in values]
        parts.append(np.array(sums).reshape(len(states), len(texts)))
    of_text = np.concatenate(parts)
    columns = [[texts.index(text) for text in options] for options in spellings]
    return np.stack([np.logaddexp.reduce(of_text[:, c], axis=1) for c in columns], axis=1)


def _encode_regions(
    asker: Asker, image: EncodedImage, task: str, boxes: np.ndarray, batch_size: int
) -> Iterator[EncodedPrompts]:
    # location tokens, as a box that is too flat for a region in pixels is still one in bins
    regions = [format_location_tokens(box, image.size) for box in boxes]
    prompts = [asker.build_prompt(image.size, task, region).prompt for region in regions]
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        yield encode_prompts(asker.model, asker.processor.tokenizer, image.tokens.expand(len(batch), -1, -1), batch)


def _distinct_regions(boxes: np.ndarray) -> tuple[list[int], list[int]]:
    """The indices of boxes that differ, and for each of the N boxes, the number of the one among them that stands for it."""
    from torchvision.ops import box_iou

    # equal boxes first: a region may be a candidate for hundreds of classes
    _, first, inverse = np.unique(boxes, axis=0, return_index=True, return_inverse=True)
    distinct = torch.from_numpy(boxes[first])
    overlaps = box_iou(distinct, distinct).numpy() >= SAME_REGION_IOU
    representatives: list[int] = []
    region_of: list[int] = []
    for i in range(len(first)):
        found = next((n for n, j in enumerate(representatives) if overlaps[i, j]), None)
        if found is None:
            found = len(representatives)
            representatives.append(i)
        region_of.append(found)
    return first[representatives].tolist(), [region_of[i] for i in inverse]
