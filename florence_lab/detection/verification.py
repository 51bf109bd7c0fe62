"""Evidence for candidate boxes of named classes: what else the model says about each box."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..inference.generation import EncodedImage, EncodedPrompts, encode_prompts, end_token_ids
from ..inference.scoring import answer_log_likelihoods
from ..results import Boxes
from ..template.locations import format_location_tokens
from .asker import Asker
from .calibration import Calibration

REGION_TASK = "<REGION_TO_CATEGORY>"


@dataclass(frozen=True, eq=False)
class Evidence:
    """What speaks for and against each of N candidate boxes.

    Attributes:
        names: the F names of the features.
        features: N x F float64.
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
    phrases: Mapping[str, str] | None = None,
    calibration: Calibration | None = None,
    batch_size: int = 16,
) -> Evidence:
    """Ask the model about each candidate box, and return the evidence for its label.

    Args:
        asker: the predictor.
        image: the encoded image.
        candidates: N boxes whose labels are among `classes`.
        classes: the names of all classes that were asked for.
        phrases: class -> the words that it was asked with; the class itself by default.
        calibration: computes the scores from the features; without it they are `p_name`.
        batch_size: prompts that the text encoder reads together.
    """
    spellings = {name: name_spellings(name, (phrases or {}).get(name)) for name in classes}
    log_p = region_log_probabilities(asker, image, candidates.xyxy, spellings, batch_size)
    index = [list(classes).index(label) for label in candidates.labels.tolist()]
    p_name = np.exp(log_p[np.arange(len(candidates)), index]) if len(candidates) else np.zeros(0)
    features = np.stack([p_name], axis=1)
    names = ("p_name",)
    scores = p_name if calibration is None else calibration.predict(features)
    return Evidence(names, features, np.clip(scores, 0, 1), len(candidates))


def name_spellings(name: str, phrase: str | None = None) -> tuple[str, ...]:
    """Return the texts that count as naming a class: the name and the phrase, also in lower case and without article."""
    texts = [name, *([phrase] if phrase else [])]
    texts += [text.replace("_", " ") for text in texts]
    texts += [text.lower() for text in texts]
    texts += [
        rest for text in texts for article, _, rest in [text.partition(" ")] if article in ("a", "an", "the") and rest
    ]
    return tuple(dict.fromkeys(text.strip() for text in texts))


def region_log_probabilities(
    asker: Asker,
    image: EncodedImage,
    boxes: np.ndarray,
    spellings: Mapping[str, Sequence[str]],
    batch_size: int = 16,
) -> np.ndarray:
    """Return the log-probability that the model calls a region by a name: N boxes x C names, float64.

    Args:
        asker: the predictor.
        image: the encoded image.
        boxes: N x 4, (x0, y0, x1, y1) in pixels.
        spellings: C names, each with the texts that count as it; their probabilities are added.
        batch_size: prompts that the text encoder reads together.
    """
    texts = list(dict.fromkeys(text for options in spellings.values() for text in options))
    log_p = np.concatenate(
        [_name_regions(asker, s, texts) for s in _encode_regions(asker, image, boxes, batch_size)]
        or [np.zeros((0, len(texts)))]
    )
    columns = [[texts.index(text) for text in options] for options in spellings.values()]
    return np.stack([np.logaddexp.reduce(log_p[:, c], axis=1) for c in columns], axis=1)


def _encode_regions(asker: Asker, image: EncodedImage, boxes: np.ndarray, batch_size: int) -> Iterable[EncodedPrompts]:
    prompts = [
        asker.build_prompt(image.size, REGION_TASK, format_location_tokens(box, image.size)).prompt for box in boxes
    ]
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        yield encode_prompts(asker.model, asker.processor.tokenizer, image.tokens.expand(len(batch), -1, -1), batch)


def _name_regions(asker: Asker, states: EncodedPrompts, texts: Sequence[str]) -> np.ndarray:
    """The log-probability of each text as the name of each region, B x T."""
    rows = [row for row in range(len(states)) for _ in texts]
    ends = [*end_token_ids(asker.model), *asker.template.location_ids]
    values = answer_log_likelihoods(asker.model, asker.processor.tokenizer, states, rows, [*texts] * len(states), ends)
    return np.array([v.sum() for v in values]).reshape(len(states), len(texts))
