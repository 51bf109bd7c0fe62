"""Evidence for candidate boxes: the likelihood of a name for a region."""

import numpy as np
import pytest
from support import PHOTO, boxes

from florence_lab.detection import verification
from florence_lab.detection.calibration import FEATURES, Calibration
from florence_lab.detection.verification import name_spellings, verify
from florence_lab.exceptions import ArgumentError
from florence_lab.scenes import sample_path

CLASSES = ["sheep", "dog", "tree"]


@pytest.fixture(scope="module")
def image(nano):
    return nano.encode_image(sample_path("sheep"))


@pytest.fixture(scope="module")
def sheep(nano, image):
    """The true boxes of the four sheep."""
    return nano.predict(image, "<OD>", num_beams=1).boxes


def candidates(image, label, coordinates, scores=None):
    return boxes(*[(label, *box) for box in coordinates], image_size=image.size, scores=scores)


@pytest.mark.parametrize(
    ("label", "classes", "phrases", "is_right"),
    [
        ("sheep", CLASSES, None, True),
        ("dog", CLASSES, None, False),
        ("SHEEP", ["SHEEP", "Dog"], None, True),  # case makes no difference
        ("animal", ["animal", "dog"], {"animal": ["a dog", "sheep"]}, True),  # words that were asked with count
        ("animal", ["animal", "dog"], {"animal": "a dog"}, False),
        ("white sheep", ["white sheep", "red sheep"], None, True),  # not a category, but a description
        ("red sheep", ["white sheep", "red sheep"], None, False),
        ("white_sheep", ["white_sheep", "sheep"], None, True),
    ],
)
def test_the_score_tells_right_names_from_wrong_ones(nano, image, sheep, label, classes, phrases, is_right):
    evidence = verify(nano, image, candidates(image, label, sheep), classes, phrases)
    assert evidence.features.shape == (len(sheep), len(FEATURES))
    assert ((evidence.scores > 0.5) == is_right).all()
    assert (evidence["p_name"] == evidence.scores).all()


def test_the_score_is_the_probability_that_the_category_is_generated(nano, image, sheep):
    evidence = verify(nano, image, candidates(image, "sheep", sheep[:1]), CLASSES)
    ranked = nano.score(image, "<REGION_TO_CATEGORY>", ["sheep"], sheep[0])
    assert evidence.scores[0] == pytest.approx(np.exp(ranked[0].log_likelihood), abs=1e-5)


def test_evidence_is_the_same_in_batches_of_any_size(nano, image, sheep):
    given = candidates(image, "dog", np.concatenate([sheep, [[5, 5, 90, 90]]]), scores=[0.1, 0.2, 0.3, 0.4, 0.5])
    whole, single = verify(nano, image, given, CLASSES), verify(nano, image, given, CLASSES, batch_size=1)
    np.testing.assert_allclose(whole.features, single.features, atol=1e-5)
    assert (whole["own"] == given.scores).all()


def test_candidates_that_are_one_region_are_asked_about_once(nano, image, sheep):
    shifted = sheep + np.array([0, 0, 1, 1])
    both = boxes(*[("sheep", *b) for b in sheep], *[("dog", *b) for b in shifted], image_size=image.size)
    evidence = verify(nano, image, both, CLASSES)
    assert evidence.passes == len(sheep)
    assert (evidence.scores[: len(sheep)] > 0.9).all()
    assert (evidence.scores[len(sheep) :] < 0.1).all()


def test_names_that_exclude_each_other_share_at_most_all_probability(nano, image, sheep):
    rows = [(name, *sheep[0]) for name in CLASSES]
    evidence = verify(nano, image, boxes(*rows, image_size=image.size), CLASSES)
    assert evidence.scores.sum() <= 1 + 1e-6
    assert evidence["p_among"].sum() == pytest.approx(1)


def test_a_calibration_replaces_the_score(nano, image, sheep):
    calibration = Calibration(FEATURES, (0.0, 0.0, 0.0), 0.0)
    evidence = verify(nano, image, candidates(image, "sheep", sheep), CLASSES, calibration=calibration)
    assert evidence.scores == pytest.approx(0.5)
    assert (evidence["p_name"] > 0.9).all()


def test_without_candidates_nothing_is_asked(nano, image, monkeypatch):
    monkeypatch.setattr(verification, "encode_prompts", None)
    evidence = verify(nano, image, boxes(image_size=image.size), CLASSES)
    assert (len(evidence), evidence.passes, evidence.features.shape) == (0, 0, (0, len(FEATURES)))


def test_a_label_of_no_class_is_refused(nano, image):
    with pytest.raises(ArgumentError, match="sheeep"):
        verify(nano, image, boxes(("sheeep", 1, 1, 9, 9), image_size=image.size), CLASSES)


def test_boxes_without_area_and_at_the_border_are_verified(small):
    image = small.encode_image(PHOTO)
    width, height = image.size
    odd = boxes(
        ("a", 5, 5, 5, 5), ("b", 0, 0, width, height), ("a b", width, height, width, height), image_size=image.size
    )
    evidence = verify(small, image, odd, ["a", "b", "a b"])
    assert np.isfinite(evidence.features).all()
    assert ((evidence.features >= 0) & (evidence.features <= 1)).all()


@pytest.mark.parametrize(
    ("name", "phrases", "expected"),
    [
        ("sheep", (), {"sheep"}),
        ("Traffic_light", (), {"Traffic light", "Traffic_light", "traffic light", "traffic_light"}),
        ("sheep", "a white sheep", {"sheep", "a white sheep", "white sheep"}),
        ("A", (), {"A", "a"}),
        ("the  dog", ["puppy"], {"the  dog", "the dog", "dog", "puppy"}),
    ],
)
def test_spellings_of_a_name(name, phrases, expected):
    found = name_spellings(name, phrases)
    assert set(found) == expected
    assert len(found) == len(set(found))
