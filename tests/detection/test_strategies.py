"""Questions of the strategies, and the classes of what they find."""

from dataclasses import replace

import pytest

from florence_lab.detection.ontology import Ontology
from florence_lab.detection.strategies import STRATEGIES, collect_candidates, resolve_strategies
from florence_lab.exceptions import ArgumentError, PromptError
from florence_lab.template.prompts import build_prompt
from florence_lab.template.template import FlorenceTemplate

CLASSES = Ontology.from_classes(["sheep", "dog", "person"], {"sheep": "a white sheep", "person": ["man", "woman"]})
BOX, OTHER = "<loc_100><loc_100><loc_300><loc_300>", "<loc_500><loc_500><loc_900><loc_900>"


class Asker:
    """Builds prompts for a model that reads at most `limit` characters."""

    def __init__(self, limit=1000):
        self.limit = limit

    def build_prompt(self, image_size, task, text=None, region_format="xyxy"):
        prompt = build_prompt(task, text, image_size)
        if len(prompt.prompt) > self.limit:
            raise PromptError(f"the prompt has {len(prompt.prompt)} tokens")
        return prompt


def ask(strategy, classes=CLASSES, limit=1000):
    return STRATEGIES[strategy].questions(classes, Asker(limit))


def parse(answer, question):
    """Return an answer as `predict_prompts` does, with scores."""
    result = FlorenceTemplate().parse_text(answer, question.prompt, (1000, 1000))
    return replace(result, scores=[0.5] * len(result))


def found(strategy, *answers, classes=CLASSES):
    """Return the labels, class ids and left edges of what the answers to the questions of a strategy find."""
    questions = ask(strategy, classes)
    results = [parse(answer, question) for answer, question in zip(answers, questions, strict=True)]
    boxes = collect_candidates(classes, questions, results)
    assert boxes.classes == classes.names
    columns = boxes.labels.tolist(), boxes.class_ids.tolist(), boxes.boxes[:, 0].astype(int).tolist()
    return list(zip(*columns, strict=True))


@pytest.mark.parametrize(
    ("strategy", "texts"),
    [
        ("open_vocabulary", ["a white sheep", "dog", "man", "woman"]),
        ("grounding", ["a white sheep, a dog, a man and a woman"]),
        ("od", [""]),
        ("regions", ["", ""]),
    ],
)
def test_questions(strategy, texts):
    assert [question.prompt.text for question in ask(strategy)] == texts


def test_captions_are_as_few_as_possible_and_of_equal_length():
    classes = Ontology.from_classes([f"thing {i}" for i in range(17)])
    questions = ask("grounding", classes)
    assert [len(question.class_ids) for question in questions] == [5, 6, 6]
    assert questions[0].prompt.text == "a thing 0, a thing 1, a thing 2, a thing 3 and a thing 4"
    assert [i for question in questions for i in question.class_ids] == list(range(17))


def test_a_caption_that_is_too_long_for_the_model_is_split():
    classes = Ontology.from_classes(["x" * 30, "y" * 30, "z" * 30])
    assert [len(question.class_ids) for question in ask("grounding", classes, limit=110)] == [1, 2]
    with pytest.raises(PromptError):
        ask("grounding", classes, limit=50)


def test_a_class_with_phrases_in_one_caption_is_asked_for_once():
    assert [question.class_ids for question in ask("grounding")] == [(0, 1, 2)]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (("", "", "", ""), []),
        ((f"a white sheep{BOX}", f"dog{OTHER}", "", f"woman{BOX}"), [("sheep", 0), ("dog", 1), ("person", 2)]),
        ((BOX, "", "", ""), [("sheep", 0)]),
        ((f"an unknown animal{BOX}{OTHER}", "", "", ""), [("sheep", 0), ("sheep", 0)]),
        ((f"dogs{BOX}", "", "", ""), [("dog", 1)]),
        (("sheep", "", "", ""), []),
    ],
    ids=["nothing", "own phrases", "no label", "unknown label", "the name of another class", "no box"],
)
def test_open_vocabulary(answers, expected):
    assert [row[:2] for row in found("open_vocabulary", *answers)] == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (f"a white sheep{BOX}{OTHER}woman{BOX}", [("sheep", 0, 100), ("sheep", 0, 500), ("person", 2, 100)]),
        (f"sheep{BOX}dog{BOX}sheep{OTHER}", [("sheep", 0, 100), ("dog", 1, 100), ("sheep", 0, 500)]),
        (f"two dogs{BOX}", [("dog", 1, 100)]),
        (f"white{BOX}", [("sheep", 0, 100)]),
        (f"a tree{BOX}", []),
        ("", []),
    ],
)
def test_grounding(answer, expected):
    assert found("grounding", answer) == expected


def test_a_grounded_label_that_may_stand_for_two_classes_gives_a_box_of_each():
    classes = Ontology.from_classes(["red car", "blue car"])
    assert found("grounding", f"car{BOX}", classes=classes) == [("red car", 0, 100), ("blue car", 1, 100)]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (f"sheep{BOX}dog{BOX}{OTHER}tree{BOX}", [("sheep", 0), ("dog", 1), ("dog", 1)]),
        (f"Man{BOX}women{BOX}people{BOX}", [("person", 2)] * 3),
        (f"hot dog{BOX}", []),
    ],
)
def test_object_detection_keeps_names_and_synonyms(answer, expected):
    assert [row[:2] for row in found("od", answer)] == expected


def test_a_region_is_a_candidate_for_all_classes():
    assert [row[:2] for row in found("regions", BOX, f"tree{OTHER}")] == [("sheep", 0), ("dog", 1), ("person", 2)] * 2


def test_polygons_are_kept():
    classes = Ontology.from_classes(["dog"])
    questions = ask("open_vocabulary", classes)
    raw = "dog<poly><loc_0><loc_0><loc_9><loc_0><loc_9><loc_9></poly>"
    answer = parse(raw, questions[0])
    assert collect_candidates(classes, questions, [answer]).polygons[0][0].shape == (3, 2)


@pytest.mark.parametrize(
    ("names", "verify", "expected"),
    [
        ("auto", True, ["open_vocabulary", "regions"]),
        ("auto", False, ["open_vocabulary", "od"]),
        ("od", False, ["od"]),
        (["od", "grounding"], False, ["od", "grounding"]),
        (("od", "od"), True, ["od"]),
    ],
)
def test_strategies_by_name(names, verify, expected):
    assert resolve_strategies(names, verify) == [STRATEGIES[name] for name in expected]


@pytest.mark.parametrize(
    ("names", "named"),
    [("open", "'open'"), ([], "none"), (["od", "auto"], "'auto'"), ("", "''"), ("regions", "verify=True")],
)
def test_unusable_strategies_are_refused(names, named):
    with pytest.raises(ArgumentError, match=named):
        resolve_strategies(names, verify=False)
