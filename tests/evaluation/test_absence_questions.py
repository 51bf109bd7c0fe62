"""Sampling of questions about present and absent names, on a toy set whose counts are known."""

from dataclasses import replace

import pytest

from florence_lab.data.examples import Example
from florence_lab.evaluation import sample_absence_questions, scene_examples
from florence_lab.exceptions import ArgumentError, DatasetError
from florence_lab.scenes import HELD_OUT_SEEDS
from florence_lab.tasks import TASKS, Task, register_task
from florence_lab.template.prompts import build_prompt

BOX = "<loc_0><loc_0><loc_500><loc_500>"
TOY = {
    "a": ["dog", "ball"],
    "b": ["dog", "ball"],
    "c": ["dog", "ball"],
    "d": ["dog", "cat"],
    "e": ["cat", "sun"],
    "f": ["sun"],
    "g": ["sun"],
    "h": ["sun"],
    "i": ["sun", "tree"],
}
"""Image -> its names. Images with: sun 5, dog 4, ball 3, cat 2, tree 1; ball occurs with dog only."""


def row(image, query, target):
    return Example(f"{image}.png", build_prompt(query), target, f"row {image}", (100, 100))


def detection(image, names, query="<OD>"):
    return row(image, query, "".join(name + BOX for name in names))


@pytest.fixture
def toy():
    return [detection(image, names) for image, names in TOY.items()]


def absent_names(questions, image, strategy):
    return [q.name for q in questions if q.image == f"{image}.png" and strategy in q.strategies and not q.is_present]


@pytest.mark.parametrize(
    ("image", "strategy", "expected"),
    [
        ("d", "popular", ["sun", "ball"]),
        ("d", "adversarial", ["ball", "sun"]),  # with dog or cat: ball 3, sun 1, tree 0
        ("f", "popular", ["dog"]),
        ("f", "adversarial", None),  # with sun: cat 1, tree 1, others 0
        ("a", "popular", ["sun", "cat"]),
        ("a", "adversarial", ["cat", None]),  # with dog: cat 1, others 0
    ],
)
def test_absent_names_are_those_of_pope(toy, image, strategy, expected):
    chosen = absent_names(sample_absence_questions(toy, strategies=[strategy], num_questions=4), image, strategy)
    if expected is None:
        assert chosen in (["cat"], ["tree"])
    else:
        assert chosen[: len(expected) - expected.count(None)] == [name for name in expected if name]


@pytest.mark.parametrize("seed", range(5))
def test_random_names_are_absent_names_of_the_dataset(toy, seed):
    questions = sample_absence_questions(toy, strategies=["random"], seed=seed)
    for image, names in TOY.items():
        assert set(absent_names(questions, image, "random")) <= {"dog", "ball", "cat", "sun", "tree"} - set(names)
    chosen = {s: absent_names(sample_absence_questions(toy, seed=s), "f", "random")[0] for s in range(20)}
    assert len(set(chosen.values())) == 4


def test_each_strategy_asks_as_often_about_present_as_about_absent_names(toy):
    questions = sample_absence_questions(toy, num_questions=4, names=["rocket"])
    for strategy, number in {"random": 4, "popular": 4, "adversarial": 4, "names": 2}.items():
        for image, names in TOY.items():
            asked = [q.is_present for q in questions if q.image == f"{image}.png" and strategy in q.strategies]
            assert asked.count(True) == asked.count(False) == min(number // 2, len(names)), (strategy, image)
    assert all((q.name in TOY[q.image[0]]) == q.is_present for q in questions)


def test_equal_questions_of_several_strategies_are_one(toy):
    questions = sample_absence_questions(toy)
    assert len({(q.image, q.name) for q in questions}) == len(questions)
    assert all(q.strategies == ("random", "popular", "adversarial") for q in questions if q.is_present)


def test_questions_depend_on_the_seed_alone(toy):
    assert sample_absence_questions(toy, seed=1) == sample_absence_questions(toy, seed=1)
    assert sample_absence_questions(toy, seed=1) != sample_absence_questions(toy, seed=2)


def test_questions_about_one_image_stand_together(toy):
    images = [q.image for q in sample_absence_questions(toy, names=["rocket"])]
    assert [image for i, image in enumerate(images) if i == 0 or images[i - 1] != image] == list(dict.fromkeys(images))


def test_given_names_are_a_strategy_of_their_own(toy):
    questions = sample_absence_questions(toy, names=["rocket", "dog", "rocket"])
    given = [q for q in questions if "names" in q.strategies and not q.is_present]
    assert {q.name for q in given} == {"rocket", "dog"}
    assert not any("dog" in TOY[q.image[0]] for q in given if q.name == "dog")
    assert all(q.strategies == ("names",) for q in given if q.name == "rocket")


@pytest.mark.parametrize("label", ["red dog", "Dog", "dog, sitting"])
def test_a_name_within_another_label_is_not_absent(toy, label):
    questions = sample_absence_questions([*toy, detection("z", [label, "sun"])], strategies=["popular"])
    assert "dog" not in absent_names(questions, "z", "popular")
    assert absent_names(questions, "z", "popular")


def test_a_phrase_of_another_task_is_a_label_too(toy):
    grounded = detection("f", ["two dogs", "a ball"], "<CAPTION_TO_PHRASE_GROUNDING>two dogs and a ball")
    questions = sample_absence_questions([*toy, grounded], strategies=["adversarial", "popular"], num_questions=10)
    assert "ball" not in absent_names(questions, "f", "popular")


def test_images_without_objects_are_asked_where_others_lack_absent_names(toy):
    """A detector of one class with background images: nothing is balanced within an image."""
    examples = [detection(image, ["dog"]) for image in "abc"] + [detection(image, []) for image in "xyzw"]
    questions = sample_absence_questions(examples, strategies=["random"])
    assert sorted((q.image[0] in "abc", q.is_present) for q in questions) == [(False, False)] * 3 + [(True, True)] * 3
    background = sample_absence_questions([*toy, detection("x", [])], strategies=["random"])
    assert "x.png" not in {q.image for q in background}


# the dataset's own questions


def test_empty_answers_of_the_dataset_are_questions(toy):
    own = [
        detection("a", ["red dog"], "<OPEN_VOCABULARY_DETECTION>red dog"),
        row("a", "<OPEN_VOCABULARY_DETECTION>a rocket", ""),
        detection("b", ["ball"], "<CAPTION_TO_PHRASE_GROUNDING>ball"),  # this task has no empty answer
    ]
    questions = sample_absence_questions([*toy, *own], strategies=[])
    assert [(q.name, q.is_present, q.strategies, q.task) for q in questions] == [
        ("red dog", True, ("dataset",), "<OPEN_VOCABULARY_DETECTION>"),
        ("a rocket", False, ("dataset",), "<OPEN_VOCABULARY_DETECTION>"),
    ]
    grounding = ["<CAPTION_TO_PHRASE_GROUNDING>"]
    assert not any(q.task for q in sample_absence_questions([*toy, *own], grounding))


def test_empty_answers_need_no_labels():
    examples = [row("a", "<REFERRING_EXPRESSION_SEGMENTATION>the red dog", "")]
    assert [q.is_present for q in sample_absence_questions(examples)] == [False]


# labels


def test_open_vocabulary_answers_give_names_if_no_image_has_a_detection(toy):
    asked = [
        detection(image, [name], f"<OPEN_VOCABULARY_DETECTION>{name}") for image, names in TOY.items() for name in names
    ]
    assert {(q.image, q.name) for q in sample_absence_questions(asked, strategies=["popular"])} == {
        (q.image, q.name) for q in sample_absence_questions(toy, strategies=["popular"])
    }
    phrase = detection("z", ["the leftmost dog"], "<OPEN_VOCABULARY_DETECTION>the leftmost dog")
    assert "z.png" not in {q.image for q in sample_absence_questions([*toy, phrase])}


def test_a_registered_detection_task_gives_names(toy):
    task = register_task(Task("<LOCATE_ALL>", "Locate all.", "none", "boxes", "all"))
    try:
        examples = [replace(e, prompt=build_prompt("<LOCATE_ALL>")) for e in toy]
        assert len(sample_absence_questions(examples)) == len(sample_absence_questions(toy))
    finally:
        del TASKS[task.token]


def test_scenes_have_names():
    examples = scene_examples(HELD_OUT_SEEDS[:5], ["<OD>"], size=64)
    truth = {e.image: set(e.ground_truth.labels.tolist()) for e in scene_examples(HELD_OUT_SEEDS[:5], ["<OD>"], 64)}
    questions = sample_absence_questions(examples)
    assert {q.is_present for q in questions} == {True, False}
    assert all((q.name in truth[q.image]) == q.is_present for q in questions)


# refused


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([], "no boxes with labels"),
        ([row("a", "<CAPTION>", "a dog")], "no boxes with labels"),
        ([row("a", "<REGION_PROPOSAL>", BOX)], "no boxes with labels"),
        ([detection("a", ["a dog"], "<CAPTION_TO_PHRASE_GROUNDING>a dog")], "no boxes with labels"),
        ([row("a", "<OD>", "")], "no boxes with labels"),
        ([detection("a", ["dog"]), detection("b", ["dog"])], r"lacks any of the 1 names \['dog'\]"),
    ],
)
def test_examples_without_a_question_are_an_error(examples, message):
    with pytest.raises(DatasetError, match=message):
        sample_absence_questions(examples)


def test_names_that_never_occur_make_up_for_a_single_class():
    questions = sample_absence_questions([detection("a", ["dog"])], names=["rocket"])
    assert [(q.name, q.strategies) for q in questions] == [("dog", ("names",)), ("rocket", ("names",))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ["rocket", " "]}, "names must not be empty, got ' '"),
        ({"num_questions": 1}, "num_questions must be at least 2, got 1"),
        ({"strategies": ["rare"]}, "'rare'"),
        ({"tasks": ["<OD>"]}, "<OD> does not locate a phrase"),
        ({"tasks": ["<REGION_TO_SEGMENTATION>"]}, "<REGION_TO_SEGMENTATION> does not locate a phrase"),
        ({"tasks": ["<NOTHING>"]}, "<NOTHING>"),
    ],
)
def test_invalid_arguments_are_refused(toy, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        sample_absence_questions(toy, **arguments)
