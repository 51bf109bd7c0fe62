"""`captions`: captions, descriptions and referring expressions."""

import pytest

from florence_lab.scenes import caption_counts, draw_scene, object_counts
from florence_lab.scenes.captions import caption, counted_phrase, description, join_with_and, referring_expressions
from florence_lab.scenes.phrases import phrases

CAPTIONS = ("<CAPTION>", "<DETAILED_CAPTION>", "<MORE_DETAILED_CAPTION>")


@pytest.fixture(scope="module")
def tiny_scenes():
    return [draw_scene(seed, 64) for seed in range(100)]


@pytest.mark.parametrize("task", CAPTIONS)
def test_captions_mention_every_object_once(task, tiny_scenes):
    for scene in tiny_scenes:
        for phrasing in range(6):
            text = caption(scene, task, phrasing)
            assert caption_counts(text) == object_counts(scene), (scene.seed, text)


@pytest.mark.parametrize("task", CAPTIONS)
def test_captions_have_several_wordings(task, scenes):
    assert len({caption(scenes[0], task, phrasing) for phrasing in range(6)}) >= 3


@pytest.mark.parametrize("task", CAPTIONS[1:])
def test_long_captions_quote_the_signs(task, tiny_scenes):
    for scene in tiny_scenes:
        text = caption(scene, task)
        assert all(o.text in text for o in scene.objects if o.text), (scene.seed, text)


def test_a_caption_names_number_color_and_background(four_sheep):
    assert caption(four_sheep) == "A cartoon picture of four white sheep in a field."


@pytest.mark.parametrize(
    ("count", "label", "color", "text", "phrase"),
    [
        (4, "sheep", "white", None, "four white sheep"),
        (1, "airplane", None, None, "an airplane"),
        (1, "sun", None, None, "the sun"),
        (2, "person", "blue", None, "two people in blue"),
        (1, "sign", "yellow", "STOP", "a yellow sign that says STOP"),
    ],
)
def test_noun_phrases_carry_their_number(count, label, color, text, phrase):
    assert counted_phrase(count, label, color, text) == phrase


def test_enumerations_end_with_and():
    assert [join_with_and(parts) for parts in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_referring_expressions_match_exactly_their_object(many_scenes):
    for scene in many_scenes[:40]:
        for target in scene.objects:
            for expression in referring_expressions(target, scene.objects):
                assert phrases(expression)[0].matches(scene.objects) == [target], (scene.seed, expression)


def test_most_objects_have_a_referring_expression(many_scenes):
    has = [bool(referring_expressions(o, scene.objects)) for scene in many_scenes for o in scene.objects]
    assert sum(has) > 0.6 * len(has)


def test_descriptions_name_color_and_text(many_scenes):
    sign = next(o for scene in many_scenes for o in scene.objects if o.text)
    assert description(sign) == f"{sign.color} sign that says {sign.text}"
