"""`answers`: the ground truth of every task."""

import random

import numpy as np
import pytest

from florence_lab.evaluation.suites import scene_examples
from florence_lab.scenes import draw_scene, object_counts
from florence_lab.scenes.answers import SCENE_ANSWERS, referenced_objects
from florence_lab.scenes.captions import description
from florence_lab.scenes.export import scene_rows
from florence_lab.scenes.phrases import plural
from florence_lab.tasks import TASKS, Task, register_task
from florence_lab.template import FlorenceTemplate
from florence_lab.template.locations import bins_to_pixels, format_location_tokens, pixels_to_bins

MAY_BE_EMPTY = ("<OCR>", "<OCR_WITH_REGION>")


@pytest.fixture
def count_task():
    """A registered task of which scenes have no ground truth."""
    task = register_task(Task("<COUNT>", "How many objects are there?", "none", "text", "the number of objects"))
    yield task
    del TASKS[task.token]


def quantized(box, scene):
    return tuple(pixels_to_bins(box, scene.size))


def test_every_published_task_has_ground_truth():
    assert set(SCENE_ANSWERS) == set(TASKS)


@pytest.mark.parametrize("task", SCENE_ANSWERS)
def test_target_strings_are_parsed_to_the_ground_truth(task, scenes):
    """The round trip: parsing `raw` as a prediction gives the same result."""
    template = FlorenceTemplate()
    for scene in scenes[:12]:
        for text in scene.sample_inputs(task, random.Random(1))[:3]:
            truth = scene.answer(task, text)
            assert truth.raw or task in MAY_BE_EMPTY, (scene.seed, text)
            prompt = template.build_prompt(task, text, scene.size)
            assert template.parse_text(truth.raw, prompt, scene.size).to_dict() == truth.to_dict(), (scene.seed, text)


def test_answers_keep_the_image(scenes):
    assert scenes[0].answer("<OD>").image is scenes[0].image


def test_detection_finds_every_object_with_its_category(scenes):
    for scene in scenes:
        result = scene.answer("<OD>")
        truth = sorted((o.label, *quantized(o.box, scene)) for o in scene.objects)
        found = [(label, *quantized(box, scene)) for label, box in zip(result.labels, result.boxes, strict=True)]
        assert sorted(found) == truth, scene.seed


def test_detection_lists_categories_from_left_to_right(scenes):
    for scene in scenes:
        result = scene.answer("<OD>")
        labels = list(result.labels)
        left_edges = [result.boxes[labels.index(label)][0] for label in dict.fromkeys(labels)]
        assert left_edges == sorted(left_edges), scene.seed


def test_dense_captions_describe_every_object(scenes):
    for scene in scenes:
        result = scene.answer("<DENSE_REGION_CAPTION>")
        assert sorted(result.labels) == sorted(description(o) for o in scene.objects), scene.seed


def test_proposals_are_the_boxes_without_labels(scenes):
    for scene in scenes:
        proposals = scene.answer("<REGION_PROPOSAL>")
        np.testing.assert_array_equal(proposals.boxes, scene.answer("<DENSE_REGION_CAPTION>").boxes)
        assert set(proposals.labels) == {""}, scene.seed


def test_grounding_a_caption_finds_every_object(scenes):
    for scene in scenes:
        caption = scene.answer("<CAPTION>").text
        result = scene.answer("<CAPTION_TO_PHRASE_GROUNDING>", caption)
        assert len(result) == len(scene.objects), scene.seed
        assert all(label in caption for label in result.labels), scene.seed


@pytest.mark.parametrize("phrase", ["the sheeps", "sheep", "four white sheep", "White sheep", "all the sheep"])
def test_grounding_labels_boxes_with_the_phrase(phrase, four_sheep):
    result = four_sheep.answer("<CAPTION_TO_PHRASE_GROUNDING>", phrase)
    assert list(result.labels) == [phrase] * 4
    found = sorted(quantized(box, four_sheep) for box in result.boxes)
    assert found == sorted(quantized(o.box, four_sheep) for o in four_sheep.objects)


@pytest.mark.parametrize("phrase", ["the bus", "the black sheep", "happiness"])
def test_a_phrase_that_matches_nothing_has_an_empty_answer(phrase, four_sheep):
    result = four_sheep.answer("<CAPTION_TO_PHRASE_GROUNDING>", phrase)
    assert (len(result), result.raw) == (0, "")


def test_open_vocabulary_detection_finds_all_objects_of_a_category(scenes):
    for scene in scenes:
        for label, count in object_counts(scene).items():
            for phrase in (label, f"the {plural(label)}"):
                assert len(scene.answer("<OPEN_VOCABULARY_DETECTION>", phrase)) == count, (scene.seed, phrase)


def test_referring_expression_segmentation_outlines_the_object(scenes):
    for scene in scenes[:12]:
        for expression in scene.sample_inputs("<REFERRING_EXPRESSION_SEGMENTATION>", random.Random(0))[:6]:
            result = scene.answer("<REFERRING_EXPRESSION_SEGMENTATION>", expression)
            [target] = referenced_objects(scene, "<REFERRING_EXPRESSION_SEGMENTATION>", expression)
            assert len(result) == 1, (scene.seed, expression)
            assert mask_iou(result.masks[0], target.mask) > 0.7, (scene.seed, expression)


def test_region_segmentation_outlines_the_object(scenes):
    for scene in scenes:
        for target in scene.objects:
            result = scene.answer("<REGION_TO_SEGMENTATION>", target.box)
            assert mask_iou(result.masks[0], target.mask) > 0.7, (scene.seed, target)


def mask_iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_region_category_and_description_name_the_object(scenes):
    for scene in scenes:
        for target in scene.objects:
            region = format_location_tokens(target.box, scene.size)
            category = scene.answer("<REGION_TO_CATEGORY>", region)
            assert (category.text, category.raw) == (target.label, target.label + region), scene.seed
            text = scene.answer("<REGION_TO_DESCRIPTION>", target.box).text
            assert text.startswith(description(target)), (scene.seed, text)


def test_region_ocr_reads_a_sign_by_its_box_and_by_that_of_its_word(many_scenes):
    for scene in many_scenes:
        for sign in scene.objects:
            if sign.text:
                word = (*sign.quad.min(axis=0), *sign.quad.max(axis=0))
                for region in (sign.box, word):
                    assert scene.answer("<REGION_TO_OCR>", region).text == sign.text, (scene.seed, region)


def test_ocr_reads_every_sign(many_scenes):
    for scene in many_scenes:
        text, quads = scene.answer("<OCR>"), scene.answer("<OCR_WITH_REGION>")
        signs = [o for o in scene.objects if o.text]
        assert sorted(text.text.split()) == sorted(sign.text for sign in signs), scene.seed
        assert list(quads.labels) == text.text.split(), scene.seed
        for sign in signs:
            expected = bins_to_pixels(pixels_to_bins(sign.quad.ravel(), scene.size), scene.size).reshape(4, 2)
            assert min(np.abs(quad - expected).max() for quad in quads.quads) < 1e-9, scene.seed


def test_scenes_without_text_have_empty_ocr_and_no_text_region(many_scenes):
    plain = [scene for scene in many_scenes if not any(o.text for o in scene.objects)]
    assert plain
    for scene in plain:
        assert scene.answer("<OCR>").raw == scene.answer("<OCR_WITH_REGION>").raw == "", scene.seed
        assert scene.sample_inputs("<REGION_TO_OCR>", random.Random(0)) == [], scene.seed


@pytest.mark.parametrize("task", [task.token for task in TASKS.values() if task.input != "none"])
def test_referenced_objects_are_those_in_the_answer(task):
    scene = next(s for s in (draw_scene(seed, 256) for seed in range(1_000_000, 1_000_100)) if is_rich(s))
    shown_as = {
        "grounding": lambda o: format_location_tokens(o.box, scene.size),
        "boxes_or_polygons": lambda o: format_location_tokens(o.box, scene.size),
        "polygons": lambda o: format_location_tokens(o.polygons[0], scene.size),
        "text": lambda o: o.text if "OCR" in task else o.label,
    }[TASKS[task].result]
    for text in scene.sample_inputs(task, random.Random(0)):
        answer, referenced = scene.answer(task, text).raw, referenced_objects(scene, task, text)
        if TASKS[task].input == "region":
            [target] = referenced
            assert shown_as(target) in answer, text
        else:
            assert [shown_as(o) in answer for o in scene.objects] == [o in referenced for o in scene.objects], text


def is_rich(scene):
    return sum(bool(o.text) for o in scene.objects) > 1


def test_inputs_are_sampled_reproducibly_with_either_kind_of_generator(scenes):
    for task in TASKS:
        first, second = (scenes[1].sample_inputs(task, random.Random(5)) for _ in range(2))
        assert first == second, task
        assert bool(scenes[1].sample_inputs(task, np.random.default_rng(5))) == (task != "<REGION_TO_OCR>"), task
    assert scenes[1].sample_inputs("<OD>", random.Random(0)) == [None]


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("", None, "scenes have no ground truth for a free-form question, only for <CAPTION>"),
        ("<OD>", "the cat", "<OD> takes no input"),
        ("<REFERRING_EXPRESSION_SEGMENTATION>", None, "needs"),
        ("<REGION_TO_CATEGORY>", "<loc_0><loc_998><loc_1><loc_999>", "no object in region <loc_0>.* of scene 0"),
        ("<REGION_TO_OCR>", "<loc_0><loc_0><loc_999><loc_999>", "no text in region"),
    ],
)
def test_questions_without_ground_truth_are_rejected(task, text, message, scenes):
    with pytest.raises(ValueError, match=message):
        scenes[0].answer(task, text)


def test_a_task_without_ground_truth_is_skipped(count_task, scenes):
    scene = scenes[0]
    assert scene.sample_inputs("<COUNT>", random.Random(0)) == []
    assert not [row for row in scene_rows(scene, "a.png", tuple(TASKS)) if row["query"].startswith("<COUNT>")]
    assert "<COUNT>" not in {example.prompt.task.token for example in scene_examples(range(2), size=64)}
    with pytest.raises(ValueError, match="scenes have no ground truth for <COUNT>"):
        scene.answer("<COUNT>")
