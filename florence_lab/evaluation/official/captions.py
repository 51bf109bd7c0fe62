"""Caption metrics by pycocoevalcap, the code behind the published numbers of COCO, NoCaps and TextCaps.

Its tokenizer is that of Stanford CoreNLP, a Java program; no Python port gives the same tokens. The package is the extra
`florence_lab[captions]`. It writes temporary files into its own folder and shifts captions that contain a line separator, such
as U+2028; here the same program is called on a file elsewhere, with the words separated by single spaces.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...argument_validation import validate_arguments
from ...exceptions import ArgumentError, FlorenceLabError, shorten, unknown_name
from ..labels import normalize_space
from .estimates import Estimate, mean_estimate

logger = logging.getLogger(__name__)

_TIMEOUT = 600  # seconds for the tokenizer, which takes one for 30,000 captions


class MissingToolError(FlorenceLabError, RuntimeError):
    """A program or package that a metric needs and that is not installed."""


@dataclass(frozen=True, eq=False)
class CaptionScores:
    """The scores of captions.

    Attributes:
        values: metric -> value of all images, as pycocoevalcap gives it: CIDEr 0..10, the others 0..1.
        per_image: metric -> N values, one for each image in the order of the captions. BLEU of all captions together is not
            the mean of these.
    """

    values: Mapping[str, float]
    per_image: Mapping[str, np.ndarray]

    def estimate(self, metric: str) -> Estimate:
        """Return a metric for resampling. BLEU is no mean over images, and has no interval."""
        if metric.startswith("BLEU"):
            return Estimate(self.values[metric])
        return mean_estimate(self.per_image[metric])


@validate_arguments
def caption_scores(
    captions: Mapping[Any, str], references: Mapping[Any, Sequence[str]], metrics: Sequence[str] | None = None
) -> CaptionScores:
    """Return the scores of captions as pycocoevalcap computes them.

    CIDEr weighs words by how rare they are in the references given: part of a data set gives another value than all of it.

    Args:
        captions: image -> caption; an empty one counts.
        references: image -> all its reference captions, at least one. Those of other images are ignored.
        metrics: of `available_caption_metrics()`; by default all of them.

    Raises:
        MissingToolError: without pycocoevalcap or without Java.
        ArgumentError: for an unknown metric, and for an image without references.
    """
    require_caption_tools()
    chosen = list(metrics) if metrics is not None else available_caption_metrics()
    for name in chosen:
        if name not in CAPTION_METRICS:
            raise ArgumentError(unknown_name("metric", name, CAPTION_METRICS))
    for image in captions:
        if not references.get(image):
            raise ArgumentError(f"image {shorten(image)} has no reference caption")
    values: dict[str, float] = {}
    per_image: dict[str, np.ndarray] = {}
    if not captions:
        return CaptionScores(dict.fromkeys(chosen, float("nan")), {name: np.zeros(0) for name in chosen})
    # numbered, since Spice sorts the images
    tokenized = tokenize({i: [caption] for i, caption in enumerate(captions.values())})
    tokenized_references = tokenize({i: references[image] for i, image in enumerate(captions)})
    scorers = dict.fromkeys(CAPTION_METRICS[name] for name in chosen)
    for make in scorers:
        with contextlib.redirect_stdout(io.StringIO()):  # Bleu and Spice print
            for name, value, each in make(tokenized_references, tokenized):
                if name in chosen:
                    values[name], per_image[name] = value, each
    return CaptionScores({name: values[name] for name in chosen}, {name: per_image[name] for name in chosen})


def available_caption_metrics() -> list[str]:
    """Return the metrics that can be computed here: SPICE needs files that its first run downloads."""
    return [name for name in CAPTION_METRICS if name != "SPICE" or _has_spice()]


def require_caption_tools() -> None:
    """Raise a `MissingToolError` that says what to install, unless pycocoevalcap and Java are there."""
    if importlib.util.find_spec("pycocoevalcap") is None:
        raise MissingToolError(
            "caption metrics are computed by pycocoevalcap, which is not installed: pip install 'florence_lab[captions]'"
        )
    if shutil.which("java") is None:
        raise MissingToolError(
            "caption metrics need Java, whose program `java` is not on the path: pycocoevalcap tokenizes with Stanford CoreNLP; "
            "install a Java runtime (apt install default-jre-headless, or conda install openjdk)"
        )


@validate_arguments
def tokenize(captions: Mapping[Any, Sequence[str]]) -> dict[Any, list[str]]:
    """Return the captions of each image as the tokenizer of pycocoevalcap gives them: lower case, without punctuation.

    Raises:
        MissingToolError: as `caption_scores`, and if the program fails.
    """
    require_caption_tools()
    from pycocoevalcap.tokenizer import ptbtokenizer

    jar = Path(ptbtokenizer.__file__).with_name(ptbtokenizer.STANFORD_CORENLP_3_4_1_JAR)
    texts = [normalize_space(text) for each in captions.values() for text in each]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "captions.txt")
        path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        java = shutil.which("java") or "java"
        command = [java, "-Dfile.encoding=UTF-8", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
        options = ["-preserveLines", "-lowerCase", "-encoding", "UTF-8", str(path)]
        done = subprocess.run([*command, *options], capture_output=True, timeout=_TIMEOUT, check=False)
    lines = done.stdout.decode("utf-8").split("\n")
    if done.returncode or len(lines) != len(texts) + 1:
        last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise MissingToolError(f"the tokenizer of pycocoevalcap failed: {''.join(last) or 'it gave other lines'}")
    tokens = iter(lines)
    dropped = set(ptbtokenizer.PUNCTUATIONS)
    return {
        image: [" ".join(w for w in next(tokens).rstrip().split(" ") if w not in dropped) for _ in each]
        for image, each in captions.items()
    }


def _has_spice() -> bool:
    spec = importlib.util.find_spec("pycocoevalcap")
    folders = (spec and spec.submodule_search_locations) or ()
    return any(Path(folder, "spice", "lib", "stanford-corenlp-3.6.0.jar").is_file() for folder in folders)


_Tokens = Mapping[Hashable, list[str]]
_Scored = Iterable[tuple[str, float, np.ndarray]]


def _bleu(references: _Tokens, captions: _Tokens) -> _Scored:
    from pycocoevalcap.bleu.bleu import Bleu

    values, per_image = Bleu(4).compute_score(references, captions)
    return [(f"BLEU-{n}", float(values[n - 1]), np.array(per_image[n - 1], float)) for n in (1, 2, 3, 4)]


def _cider(references: _Tokens, captions: _Tokens) -> _Scored:
    from pycocoevalcap.cider.cider import Cider

    value, per_image = Cider().compute_score(references, captions)
    return [("CIDEr", float(value), np.asarray(per_image, float))]


def _rouge(references: _Tokens, captions: _Tokens) -> _Scored:
    from pycocoevalcap.rouge.rouge import Rouge

    value, per_image = Rouge().compute_score(references, captions)
    return [("ROUGE-L", float(value), np.asarray(per_image, float))]


def _meteor(references: _Tokens, captions: _Tokens) -> _Scored:
    from pycocoevalcap.meteor.meteor import Meteor

    value, per_image = Meteor().compute_score(references, captions)
    return [("METEOR", float(value), np.asarray(per_image, float))]


def _spice(references: _Tokens, captions: _Tokens) -> _Scored:
    from pycocoevalcap.spice.spice import Spice

    value, per_image = Spice().compute_score(references, captions)
    return [("SPICE", float(value), np.array([each["All"]["f"] for each in per_image], float))]


CAPTION_METRICS: Mapping[str, Callable[[_Tokens, _Tokens], _Scored]] = {
    "CIDEr": _cider,
    **dict.fromkeys(("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"), _bleu),
    "ROUGE-L": _rouge,
    "METEOR": _meteor,
    "SPICE": _spice,
}
"""Metric -> the scorer that computes it."""
