"""`phrases`: which objects a phrase refers to, and how many a caption mentions."""

import pytest

from florence_lab.scenes import caption_counts, object_counts
from florence_lab.scenes.phrases import column_index, phrases, plural


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("A cartoon picture of four white sheep and a red car in a field.", {"sheep": 4, "car": 1}),
        ("Two people, an umbrella and three buses on a beach", {"person": 2, "umbrella": 1, "bus": 3}),
        ("one cactus and 2 cacti under the sun", {"cactus": 3, "sun": 1}),
        ("a sign that says CAT and a lighthouse", {"sign": 1, "lighthouse": 1}),
        ("a white sheep and another black sheep. The sheep stand in a field.", {"sheep": 2}),
        ("two bikes, a plane and a hot air balloon", {"bicycle": 2, "airplane": 1, "balloon": 1}),
        ("cats and a pair of dogs", {"cat": 2, "dog": 2}),
        ("nothing of the kind", {}),
    ],
)
def test_captions_are_counted(text, counts):
    assert caption_counts(text) == counts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the red car on the left", ("car", "red", None, "on the left")),
        ("two people in blue", ("person", "blue", None, None)),
        ("the grey cat", ("cat", "gray", None, None)),
        ("a yellow sign that says STOP in the middle", ("sign", "yellow", "STOP", "in the middle")),
    ],
)
def test_phrases_are_parsed(text, expected):
    [phrase] = phrases(text)
    assert phrase.text == text
    assert (phrase.label, phrase.color, phrase.sign_text, phrase.position) == expected


def test_every_noun_phrase_of_a_text_is_found_in_order():
    found = phrases("Two red cars stand by a lighthouse, and the moon shines on the cars.")
    assert [(phrase.label, phrase.count, phrase.is_plural) for phrase in found] == [
        ("car", 2, True),
        ("lighthouse", 1, False),
        ("moon", None, False),
        ("car", None, True),
    ]


def test_a_phrase_matches_by_color_number_and_position(four_sheep):
    objects = four_sheep.objects
    matched = {text: len(phrases(text)[0].matches(objects)) for text in ("the sheep", "the black sheep", "the bus")}
    assert matched == {"the sheep": 4, "the black sheep": 0, "the bus": 0}
    [leftmost] = phrases("the leftmost sheep")[0].matches(objects)
    assert leftmost is min(objects, key=lambda o: o.box[0] + o.box[2])
    [largest] = phrases("the largest sheep")[0].matches(objects)
    assert largest.area == max(o.area for o in objects)


def test_a_singular_position_matches_one_object_and_a_plural_all(scenes):
    for scene in scenes:
        for label in object_counts(scene):
            in_left_column = [o for o in scene.objects if o.label == label and column_index(o) == 0]
            several = phrases(f"the {plural(label)} on the left")[0].matches(scene.objects)
            one = phrases(f"the {label} on the left")[0].matches(scene.objects)
            if label != "sheep":  # its plural is its singular
                assert len(several) == len(in_left_column), (scene.seed, label)
                assert len(one) == 1, (scene.seed, label)
