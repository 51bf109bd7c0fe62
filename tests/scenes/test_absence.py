"""`absence`: inputs that name something that a scene does not show."""

import random
from collections import Counter

import pytest

from florence_lab.scenes import HELD_OUT_SEEDS, draw_scene
from florence_lab.scenes.absence import (
    ABSENT_NOUNS,
    is_absent,
    sample_absent_expression,
    sample_absent_phrase,
    sample_caption_with_absent_phrase,
    sample_name_list,
)
from florence_lab.scenes.phrases import phrases
from florence_lab.scenes.sprites import SPRITES

SEEDS = HELD_OUT_SEEDS[:25]


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(seed, 48) for seed in SEEDS]


def test_scenes_do_not_know_the_absent_nouns():
    assert not [noun for noun in ABSENT_NOUNS if phrases(noun) or noun in SPRITES]


@pytest.mark.parametrize(
    ("sample", "tasks"),
    [
        (sample_absent_phrase, ("<OPEN_VOCABULARY_DETECTION>", "<CAPTION_TO_PHRASE_GROUNDING>")),
        (sample_absent_expression, ("<REFERRING_EXPRESSION_SEGMENTATION>",)),
    ],
)
def test_what_is_absent_has_an_empty_answer(sample, tasks, scenes):
    for scene in scenes:
        for seed in range(10):
            text = sample(scene, random.Random(seed))
            assert is_absent(scene, text), text
            assert [scene.answer(task, text).raw for task in tasks] == [""] * len(tasks)


def test_absent_phrases_are_of_every_kind(scenes):
    """A model could otherwise tell them from the others by their form."""
    texts = [sample_absent_phrase(scene, random.Random(seed)) for scene in scenes for seed in range(20)]
    kinds = Counter()
    for text in texts:
        found = phrases(text)
        kinds["known category" if found else "unknown noun"] += 1
        kinds["word"] += bool(found and found[0].sign_text)
        kinds["color"] += bool(found and found[0].color)
        kinds["the"] += text.startswith("the ")
        kinds["plural"] += bool(found and found[0].is_plural)
    assert all(kinds[kind] > 10 for kind in ("known category", "unknown noun", "word", "color", "the", "plural")), kinds


def test_a_caption_keeps_its_other_phrases(scenes):
    changed = [sample_caption_with_absent_phrase(scene, random.Random(0)) for scene in scenes]
    answers = [scene.answer("<CAPTION_TO_PHRASE_GROUNDING>", text) for scene, text in zip(scenes, changed, strict=True)]
    assert all(len(answer) < len(scene.objects) for answer, scene in zip(answers, scenes, strict=True))
    assert sum(len(answer) > 0 for answer in answers) > 5


def test_a_list_names_what_is_there_and_what_is_not(scenes):
    for scene in scenes:
        labels = {scene_object.label for scene_object in scene.objects}
        for seed in range(5):
            text = sample_name_list(scene, random.Random(seed))
            answer = scene.answer("<CAPTION_TO_PHRASE_GROUNDING>", text)
            assert set(answer.labels.tolist()) & labels, text
            assert len(answer) <= 2 * len(scene.objects)
