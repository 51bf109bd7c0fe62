"""Caption metrics, beside pycocoevalcap's own evaluation."""

import contextlib
import io
import shutil

import pytest

from florence_lab.evaluation.official import MissingToolError, available_caption_metrics, caption_scores
from florence_lab.evaluation.official import captions as module
from florence_lab.exceptions import ArgumentError

pytest.importorskip("pycocoevalcap")
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")

FAST = ["CIDEr", "BLEU-1", "BLEU-4", "ROUGE-L"]
SCENES = {
    "two dogs": ["Two dogs play on the grass.", "A pair of dogs running in a park", "dogs, playing; outside!"],
    "kitchen": ["A kitchen with a stove and a sink.", "An oven in a small kitchen", "The kitchen is white."],
    "plane": ["An airplane flies over the city.", "A large jet in the sky", "plane above some buildings"],
    "tennis": ["A man hits a tennis ball.", "the player swings his racket", "Tennis player on the court."],
}


def official(captions, references):
    """The values of pycocoevalcap, called as in its `eval.py`."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenizer = PTBTokenizer()
    with contextlib.redirect_stdout(io.StringIO()):
        truth = tokenizer.tokenize({k: [{"caption": c} for c in references[k]] for k in captions})
        answers = tokenizer.tokenize({k: [{"caption": c}] for k, c in captions.items()})
        bleu = Bleu(4).compute_score(truth, answers)[0]
        cider, rouge = (scorer().compute_score(truth, answers)[0] for scorer in (Cider, Rouge))
    return {"CIDEr": cider, "BLEU-1": bleu[0], "BLEU-4": bleu[3], "ROUGE-L": rouge}


ANSWERS = {
    "perfect": {name: references[0] for name, references in SCENES.items()},
    "shuffled": dict(zip(SCENES, [SCENES[name][0] for name in [*list(SCENES)[1:], "two dogs"]], strict=True)),
    "changed": {name: references[1].upper() + " today!" for name, references in SCENES.items()},
    "empty": dict.fromkeys(SCENES, "") | {"plane": "a plane"},
}


@needs_java
@pytest.mark.parametrize(
    "answers", ["changed", *(pytest.param(name, marks=pytest.mark.slow) for name in ANSWERS if name != "changed")]
)
def test_the_values_are_those_of_pycocoevalcap(answers):
    captions = ANSWERS[answers]
    scores = caption_scores(captions, SCENES, FAST)
    assert scores.values == pytest.approx(official(captions, SCENES))
    assert {len(each) for each in scores.per_image.values()} == {len(SCENES)}


@needs_java
@pytest.mark.slow
def test_perfect_and_other_captions_are_far_apart():
    """An empty string scored 0.5 on real captions by the number of cartoon objects."""
    perfect, shuffled = (
        caption_scores(ANSWERS[name], SCENES, ["CIDEr"]).values["CIDEr"] for name in ("perfect", "shuffled")
    )
    assert perfect > 3 > 0.5 > shuffled
    assert caption_scores(dict.fromkeys(SCENES, ""), SCENES, ["CIDEr"]).values["CIDEr"] == 0


@needs_java
@pytest.mark.slow
def test_line_separators_in_a_caption_do_not_shift_the_others():
    """pycocoevalcap's own call gives the second half of such a caption to the next image."""
    captions = {name: text.replace(" ", "\u2028", 1) for name, text in ANSWERS["perfect"].items()}
    assert caption_scores(captions, SCENES, FAST).values == pytest.approx(
        caption_scores(ANSWERS["perfect"], SCENES, FAST).values
    )


@needs_java
@pytest.mark.slow
def test_nothing_is_printed(capfd):
    caption_scores(ANSWERS["perfect"], SCENES, FAST)
    assert capfd.readouterr() == ("", "")


@needs_java
@pytest.mark.slow
def test_meteor_is_computed_where_java_is():
    scores = caption_scores(ANSWERS["perfect"], SCENES, ["METEOR"])
    assert scores.values["METEOR"] > 0.9
    assert "METEOR" in available_caption_metrics()


@needs_java
def test_the_interval_of_a_mean_is_that_of_its_images():
    scores = caption_scores(ANSWERS["changed"], SCENES, ["CIDEr", "BLEU-4"])
    assert scores.estimate("CIDEr").value == pytest.approx(scores.values["CIDEr"])
    assert scores.estimate("BLEU-4").resample is None


def test_without_java_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    with pytest.raises(MissingToolError, match=r"need Java.*apt install default-jre-headless"):
        caption_scores(ANSWERS["perfect"], SCENES)


def test_without_the_package_the_message_names_the_extra(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingToolError, match=r"pip install 'florence_lab\[captions\]'"):
        caption_scores(ANSWERS["perfect"], SCENES)


@needs_java
@pytest.mark.parametrize(
    ("references", "metrics", "message"),
    [({"two dogs": []}, None, "image 'two dogs' has no reference"), (SCENES, ["CIDER"], "did you mean 'CIDEr'")],
)
def test_what_cannot_be_scored_is_refused(references, metrics, message):
    with pytest.raises(ArgumentError, match=message):
        caption_scores({"two dogs": "a dog"}, references, metrics)
