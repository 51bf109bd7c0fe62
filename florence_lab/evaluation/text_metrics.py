"""Metrics of texts: exact match, the error rates of recognized text, and ROUGE-L, which is torchmetrics'."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ..results import Text
from .labels import normalize_label
from .official import count_character_edits, count_word_edits, error_rate
from .official.text import EditCounts

_WORD_RE = re.compile(r"[^\W_]+")


def exact_match(prediction: Text, ground_truth: Text) -> float:
    """Return 1 if the texts are equal up to case, punctuation at the ends and white space, else 0."""
    return float(normalize_label(prediction.text) == normalize_label(ground_truth.text))


def word_accuracy(prediction: Text, ground_truth: Text) -> float:
    """Return 1 - WER of one text, at least 0; 1 if both texts are empty. See `ocr_metrics`."""
    return ocr_metrics([prediction], [ground_truth])["word_accuracy"]


def ocr_metrics(predictions: Sequence[Text], ground_truths: Sequence[Text]) -> dict[str, float]:
    """Return `word_accuracy` (1 - WER), `character_accuracy` (1 - CER), both at least 0, and `exact_match`.

    An error rate is the number of substituted, missing and additional words or characters of all texts together, divided by
    the number of true ones. If no text has any, the accuracy is 1 if nothing is recognized, else 0; nan without texts. White space
    of any kind and length separates words; case counts.
    """
    pairs = [(p.text, t.text) for p, t in zip(predictions, ground_truths, strict=True)]
    equal = [" ".join(text.split()) == " ".join(true.split()) for text, true in pairs]
    return {
        "word_accuracy": _accuracy([count_word_edits(*pair) for pair in pairs]),
        "character_accuracy": _accuracy([count_character_edits(*pair) for pair in pairs]),
        "exact_match": float(np.mean(equal)) if equal else float("nan"),
    }


def _accuracy(counts: Sequence[EditCounts]) -> float:
    rate = error_rate(counts)
    return rate if np.isnan(rate) else max(0.0, 1 - rate)


def rouge_l(prediction: Text, ground_truth: Text) -> float:
    """Return ROUGE-L, the F1 score of the longest common subsequence of words (Lin, 2004); nan if neither text has words.

    Case and punctuation are ignored, and words are not stemmed. For English this is ROUGE-L of the package rouge_score, which
    drops letters other than a to z; here they count.
    """
    from torchmetrics.functional.text.rouge import rouge_score

    if not _WORD_RE.search(prediction.text + ground_truth.text):
        return float("nan")
    scores = rouge_score(
        prediction.text,
        ground_truth.text,
        normalizer=str.lower,
        tokenizer=_WORD_RE.findall,
        rouge_keys="rougeL",
    )
    return float(scores["rougeL_fmeasure"])
