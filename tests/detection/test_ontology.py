"""The classes of a detection, and which class a label names."""

import numpy as np
import pytest

from florence_lab.detection.ontology import Ontology, with_article
from florence_lab.exceptions import ArgumentError


def ontology(*names, **phrases):
    return Ontology.from_classes(list(names), phrases or None)


def names_of(classes, ids):
    return [classes.names[i] for i in ids]


@pytest.mark.parametrize("classes", [["sheep", "dog"], ("sheep", "dog"), np.array(["sheep", "dog"])])
def test_a_class_is_asked_for_by_its_name(classes):
    found = Ontology.from_classes(classes)
    assert found.names == ("sheep", "dog")
    assert found.queries == ((0, "sheep"), (1, "dog"))


def test_phrases_replace_the_name_in_questions():
    found = ontology("sheep", "dog", "person", person=["a man", "a woman "], sheep="a white sheep")
    assert found.queries == ((0, "a white sheep"), (1, "dog"), (2, "a man"), (2, "a woman"))


def test_a_mapping_gives_names_and_phrases():
    given = {"person": ["man", "woman"], "dog": "dog"}
    assert Ontology.from_classes(given) == ontology("person", "dog", person=["man", "woman"])


@pytest.mark.parametrize(
    ("classes", "phrases", "named"),
    [
        ([], None, "at least one class"),
        ({}, None, "at least one class"),
        ("sheep", None, "'sheep'"),
        (None, None, "None"),
        ({"sheep"}, None, "'sheep'"),
        ([["sheep"]], None, "sheep"),
        (["sheep", 3], None, "3"),
        ({3: "sheep"}, None, "3"),
        ({"sheep": None}, None, "None"),
        ({"sheep": [3]}, None, "3"),
        (["sheep", ""], None, "''"),
        (["sheep", " \n"], None, "blank"),
        (["sheep", "dog", "sheep"], None, "'sheep' occurs twice"),
        (["Hot  dog", "hot dog"], None, "'hot dog' occurs twice"),
        (["sheep<loc_5>"], None, "'sheep<loc_5>'"),
        (["sheep<sep>dog"], None, "'sheep<sep>dog'"),
        (["dog</s>"], None, "</s>"),
        (["<image>"], None, "<image>"),
        (["dog<loc_1000>"], None, "<loc_1000>"),
        (["a\ud800"], None, "surrogate"),
        (["sheep"], {"dog": "a dog"}, "'dog'"),
        (["sheep"], {"sheep": []}, "'sheep'"),
        (["sheep"], {"sheep": ""}, "blank"),
        (["sheep"], {"sheep": ["wool", "<loc_1>"]}, "'<loc_1>'"),
        (["sheep", "dog"], {"sheep": "animal", "dog": "Animal"}, "'Animal' occurs twice"),
        (["sheep", "dog"], {"sheep": "dog"}, "'dog' occurs twice"),
        ({"sheep": "a sheep"}, {"sheep": "a sheep"}, "twice"),
        (["sheep"], ["a sheep"], "a sheep"),
        (["sheep"], {"sheep": 3}, "3"),
    ],
)
def test_unusable_classes_are_refused(classes, phrases, named):
    with pytest.raises(ArgumentError) as error:
        Ontology.from_classes(classes, phrases)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("sheep", ["sheep"]),
        ("Sheep ", ["sheep"]),
        ("a sheep", ["sheep"]),
        ("two people", ["person"]),
        ("men", ["person"]),
        ("Buses", ["bus"]),
        ("3 buses", ["bus"]),
        ("snowman", ["Snowmen"]),
        ("cherry", ["cherries"]),
        ("boxes", ["box"]),
        ("glasses", ["glass"]),
        ("\u732b", ["\u732b"]),
        ("\U0001f411", ["\U0001f411"]),
        ("three", ["three"]),
        ("hot dog", []),
        ("dog", []),
        ("sheepdog", []),
        ("a", []),
        ("", []),
    ],
)
def test_a_label_names_a_class_whatever_its_case_article_and_number(label, expected):
    names = ("sheep", "person", "bus", "Snowmen", "cherries", "box", "glass", "hot dog stand", "three")
    classes = ontology(*names, "\u732b", "\U0001f411", person=["man", "woman"])
    assert names_of(classes, classes.named_by(label)) == expected


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("a white sheep", ["sheep"]),
        ("sheep", ["sheep"]),
        ("white sheeps on grass", ["sheep"]),
        ("sheep white", ["sheep"]),
        ("sheep sheep", ["sheep"]),
        ("red car", ["red car"]),
        ("a car", ["red car", "blue car"]),
        ("the traffic lights", ["traffic light"]),
        ("traffic", ["traffic light"]),
        ("dog", []),
        ("a", []),
        ("", []),
    ],
)
def test_a_grounded_label_refers_to_the_class_with_the_most_common_words(label, expected):
    classes = ontology("sheep", "red car", "blue car", "traffic light", "dog", sheep="a white sheep")
    assert names_of(classes, classes.mentioned_by(label, among=[0, 1, 2, 3])) == expected


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("sheep", "a sheep"),
        ("old car", "an old car"),
        ("Umbrella", "an Umbrella"),
        ("the sun", "the sun"),
        ("two dogs", "two dogs"),
        ("dogs", "dogs"),
        ("bus", "a bus"),
        ("\u732b", "\u732b"),
    ],
)
def test_a_phrase_in_a_caption_has_an_article(phrase, expected):
    assert with_article(phrase) == expected
