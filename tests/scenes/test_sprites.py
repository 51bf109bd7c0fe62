"""`sprites`: the categories, and categories of users."""

import pytest

from florence_lab.scenes import CATEGORIES, draw_scene, sprite, write_dataset
from florence_lab.scenes.paint import PALETTE, RandomSource, darker
from florence_lab.scenes.phrases import phrases
from florence_lab.scenes.sprites import SPRITES, sign_layout


@pytest.fixture
def rocket():
    """A category that a user registers."""

    @sprite("rocket", (72, 140), 0.36, {"red": 1, "blue": 1})
    def draw_rocket(pen, rng, color):
        pen.curve([(36, 4), (54, 40), (54, 90), (26, 108), (18, 40)], color)
        pen.box(24, 78, 48, rng.uniform(80, 90), darker(color), 2, outline=False)

    yield "rocket"
    del SPRITES["rocket"]


def test_colors_of_all_categories_are_in_the_palette():
    for entry in SPRITES.values():
        assert set(entry.colors) <= {*PALETTE, None}, entry.label


def test_a_registered_category_appears_where_it_is_requested(rocket):
    categories = (*CATEGORIES, rocket)
    labels = {o.label for seed in range(30) for o in draw_scene(seed, 48, categories=categories).objects}
    assert rocket in labels
    assert {o.label for o in draw_scene(0, 64, categories=[rocket]).objects} == {rocket}


def test_a_registered_category_does_not_change_other_scenes(request):
    before = [draw_scene(seed, 48).image.tobytes() for seed in range(6)]
    request.getfixturevalue("rocket")
    assert [draw_scene(seed, 48).image.tobytes() for seed in range(6)] == before
    assert "rocket" not in CATEGORIES


def test_phrases_name_a_registered_category(rocket):
    scene = draw_scene(0, 64, categories=[rocket])
    assert len(scene.answer("<OPEN_VOCABULARY_DETECTION>", "rockets")) == len(scene.objects)
    assert phrases("two red rockets")[0].label == rocket


def test_a_dataset_can_contain_a_registered_category(rocket, tmp_path):
    folder = write_dataset(tmp_path, [0], 64, ["<OD>"], categories=[rocket])
    assert '"name": "rocket"' in (folder / "annotations.json").read_text()
    assert "rocket<loc_" in (folder / "train.jsonl").read_text()


def test_longer_words_have_wider_signs():
    short, long = (sign_layout(word, "DejaVuSans", RandomSource(3)) for word in ("GO", "WELCOME"))
    assert long.board[0] > short.board[0]
    assert long.degrees == short.degrees
