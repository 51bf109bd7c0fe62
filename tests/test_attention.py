"""What the decoder looked at: its shapes, its sums, that it is about `predict`'s own answer, and that nothing stays changed."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from florence_lab.inference.davit import stage_grids
from florence_lab.interpret.features import extract_feature_maps, show_feature_maps
from florence_lab.interpret.plots import (
    show_attention,
    show_attention_heads,
    show_location_probabilities,
    show_top_tokens,
)
from florence_lab.interpret.spans import AnswerSpan, _parts
from florence_lab.interpret.trace import _eager_attention, trace
from florence_lab.scenes import draw_scene, sample_path

SCENE = draw_scene(92, (320, 180))


@pytest.fixture(scope="module")
def nano():
    from florence_lab.predictor import load

    return load("florence-2-nano", device="cpu")


@pytest.fixture(scope="module")
def caption(nano):
    return trace(nano, sample_path("street"), "<CAPTION>")


@pytest.fixture(scope="module")
def detection(nano):
    return trace(nano, SCENE.image, "<OD>", top=3)


def png_size(sheet):
    return Image.open(io.BytesIO(sheet._repr_png_())).size


# ---------------------------------------------------------------------- the numbers

QUESTIONS = [("<CAPTION>", None), ("<OD>", None), ("<REGION_TO_CATEGORY>", (20, 20, 200, 150)), ("What is it?", None)]


@pytest.mark.parametrize(("task", "text"), QUESTIONS)
@pytest.mark.parametrize("model", ["nano", "tiny"])
def test_it_is_the_answer_of_predict(model, task, text, request):
    predictor = request.getfixturevalue(model)
    encoded = predictor.encode_image(SCENE.image)
    traced = trace(predictor, encoded, task, text, max_new_tokens=20)
    predicted = predictor.predict(encoded, task, text, max_new_tokens=20)
    shown, said = (result.to_dict()[task or result.prompt] for result in (traced.result, predicted))
    if isinstance(said, dict):  # a whole at once, and token by token
        assert shown.pop("scores", None) == pytest.approx(said.pop("scores", None), rel=1e-4)
    assert shown == said
    assert "".join(t for t in traced.tokens if t not in ("<s>", "</s>")) == predicted.raw


@pytest.mark.parametrize("model", ["nano", "tiny"])
def test_every_row_of_attention_is_shared_out_over_all_positions(model, request):
    predictor = request.getfixturevalue(model)
    traced = trace(predictor, SCENE.image, "<OD>", max_new_tokens=12)
    config = predictor.model.config.text_config
    cells = traced.grid[0] * traced.grid[1]
    assert predictor.processor.num_image_tokens == 1 + cells
    positions = 1 + cells + len(traced.prompt_tokens)
    shape = (config.decoder_layers, config.decoder_attention_heads, len(traced.tokens), positions)
    assert traced.attention.shape == shape
    assert traced.attention.dtype == np.float32
    np.testing.assert_allclose(traced.attention.sum(axis=-1), 1, atol=1e-5)
    shares = traced.to_dataframe()[["on_mean", "on_picture", "on_prompt"]]
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-5)


def test_attention_is_that_of_a_step_of_generation(nano):
    """One parallel pass over the answer, or the answer token by token: the same weights."""
    traced = trace(nano, SCENE.image, "<OD>", max_new_tokens=8)
    model = nano.model.model.language_model
    read = nano._read([nano.encode_image(SCENE.image)], [traced.result.prompt])
    with torch.inference_mode(), _eager_attention(model):
        start = [nano.model.config.text_config.decoder_start_token_id]
        ids = nano.processor.tokenizer.convert_tokens_to_ids(["<s>"])
        step = model.decoder(
            input_ids=torch.tensor([start + ids]),
            encoder_hidden_states=read["encoder_outputs"].last_hidden_state,
            encoder_attention_mask=read["attention_mask"],
            output_attentions=True,
        )
    for layer, weights in enumerate(step.cross_attentions):
        np.testing.assert_allclose(traced.attention[layer, :, :2], weights[0].numpy(), atol=1e-5)


def test_probabilities_choices_and_locations_agree(detection):
    assert len(detection.tokens) == len(detection.probabilities) == len(detection.choices) == len(detection.locations)
    for place, choices in enumerate(detection.choices):
        assert len(choices) == 3
        probabilities = [choice.probability for choice in choices]
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0 < sum(probabilities) <= 1 + 1e-6
        # greedy decoding takes the best
        assert choices[0].token == detection.tokens[place]
        assert choices[0].probability == pytest.approx(detection.probabilities[place])
    box = next(part for part in detection.parts if part.name == "box 1")
    for place in box.positions:
        bin_ = int(detection.tokens[place][5:-1])
        assert detection.locations[place, bin_] == pytest.approx(detection.probabilities[place])
        assert detection.locations[place].sum() > 0.9


def test_with_beams_it_is_the_best_beam(nano):
    settings = {"num_beams": 3, "max_new_tokens": 20}
    traced = trace(nano, SCENE.image, "<CAPTION>", **settings)
    assert traced.result.raw == nano.predict(SCENE.image, "<CAPTION>", **settings).raw


@pytest.mark.parametrize("before", ["sdpa", "eager"])
def test_the_way_of_computing_attention_is_restored(nano, before, monkeypatch):
    language_model, tower = nano.model.model.language_model, nano.model.model.vision_tower
    tower_before = tower.config._attn_implementation
    language_model.set_attn_implementation(before)
    try:
        trace(nano, SCENE.image, "<OD>", max_new_tokens=4)
        assert language_model.config._attn_implementation == before

        def broken(*args, **kwargs):
            assert language_model.decoder.config._attn_implementation == "eager"
            raise RuntimeError("out of memory")

        monkeypatch.setattr(language_model.decoder, "forward", broken)
        with pytest.raises(RuntimeError, match="out of memory"), _eager_attention(language_model) as model:
            model.decoder()
        assert language_model.config._attn_implementation == before
        assert tower.config._attn_implementation == tower_before
    finally:
        language_model.set_attn_implementation("sdpa")


# ---------------------------------------------------------------------- words and boxes


def test_words_are_whole_and_boxes_have_their_corners(caption, detection):
    assert " ".join(part.name for part in caption.parts) == caption.result.text.replace(",", "").replace(".", "")
    boxes = [part for part in detection.parts if part.outline is not None]
    assert [part.name for part in boxes] == [f"box {i + 1}" for i in range(len(detection.result))]
    for part, box in zip(boxes, detection.result.boxes, strict=True):
        np.testing.assert_allclose([*part.outline[0], *part.outline[2]], box)
        assert "".join(detection.tokens[i] for i in part.positions).count("<loc_") == 4


@pytest.mark.parametrize(
    ("raw", "task", "names"),
    [
        ("cat<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8>", "<OD>", ["cat", "box 1", "box 2"]),
        (
            "on sale<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><loc_7><loc_8>",
            "<OCR_WITH_REGION>",
            ["on", "sale", "quad 1"],
        ),
        (
            "<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6><sep><loc_7><loc_8><loc_9><loc_9><loc_1><loc_0>",
            "<REFERRING_EXPRESSION_SEGMENTATION>",
            ["outline 1", "outline 2"],
        ),
        (
            "cat<poly><loc_1><loc_2><loc_3><loc_4><loc_5><loc_6></poly>",
            "<OPEN_VOCABULARY_DETECTION>",
            ["cat", "outline 1"],
        ),
        ("cat<loc_1><loc_2><loc_3>", "<OD>", ["cat", "box 1"]),  # cut off
        ("", "<OD>", []),
    ],
)
def test_the_parts_of_every_kind_of_answer(nano, raw, task, names):
    ids = nano.processor.tokenizer(raw).input_ids
    result = nano.template.parse(ids, task, (100, 100))
    parts = list(_parts(nano, ids, result))
    assert [part.name for part in parts] == names
    assert all(part.outline is None or part.outline.shape[1] == 2 for part in parts)


def test_finding_words(caption):
    words = caption.parts
    assert caption.find(words[1].name) == words[1]
    two = caption.find(f"{words[1].name.upper()} {words[2].name}!")
    assert two.positions == words[1].positions + words[2].positions
    assert caption.find(0) == AnswerSpan("<s>", (0,))
    assert caption.find(two) is two


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ("zebra", "no 'zebra' in the answer, which has 'A', "),
        ("", "no '' in the answer"),
        (-1, r"no token -1: this answer has the tokens 0 … \d+"),
        (10_000, "no token 10000"),
    ],
)
def test_what_is_not_in_the_answer(caption, of, message):
    with pytest.raises(ValueError, match=message):
        caption.find(of)


@pytest.mark.parametrize(("asked", "message"), [({"layer": 9}, "no layer 9: .* 0 … 2"), ({"head": -1}, "no head -1")])
def test_layers_and_heads_that_are_not_there(caption, asked, message):
    with pytest.raises(ValueError, match=message):
        caption.heat(1, **asked)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (("<OD>",), {"top": 0}, "top=0"),
        (("<OOD>",), {}, "<OOD>"),
        (("<OD>", "a cat"), {}, "takes no input"),
        (("<OD>",), {"num_beems": 2}, "num_beems"),
    ],
)
def test_bad_questions_are_refused_before_any_model_runs(nano, arguments, settings, message, monkeypatch):
    monkeypatch.setattr(nano, "encode_image", None)
    with pytest.raises(ValueError, match=message):
        trace(nano, SCENE.image, *arguments, **settings)


def test_a_picture_encoded_by_another_model(nano, small):
    encoded = small.encode_image(SCENE.image)
    with pytest.raises(ValueError, match="another model"):
        trace(nano, encoded, "<OD>")


# ---------------------------------------------------------------------- pictures


def test_heat_has_the_grid_of_the_model_whatever_the_shape_of_the_picture(detection):
    heat = detection.heat("box 1")
    assert heat.shape == detection.grid
    assert 0 < heat.sum() <= 1
    layers, heads = detection.attention.shape[:2]
    each = [detection.heat("box 1", layer, head) for layer in range(layers) for head in range(heads)]
    np.testing.assert_allclose(np.mean(each, axis=0), heat, atol=1e-6)


def test_a_heat_map_lies_over_the_whole_picture(detection):
    sheet = show_attention(detection, "box 1")
    (ax,) = sheet.axes
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 320), (180, 0))
    assert [[*image.get_extent()] for image in ax.images] == [[0, 320, 180, 0]] * 2
    assert ax.images[1].get_array().shape == detection.grid
    width, height = png_size(sheet)
    assert width > height


def test_without_words_the_whole_answer_is_shown(detection):
    sheet = show_attention(detection)
    titles = [ax.get_title() for ax in sheet.axes if ax.get_title()]
    assert [title.split("  ")[0] for title in titles] == [part.name for part in detection.parts]


def test_an_empty_answer_has_nothing_to_show(nano):
    traced = trace(nano, SCENE.image, "<OD>", max_new_tokens=1)
    assert traced.parts == ()
    with pytest.raises(ValueError, match="empty"):
        show_attention(traced)


def test_all_heads(detection):
    layers, heads = detection.attention.shape[:2]
    sheet = show_attention_heads(detection, "box 1")
    assert len(sheet.axes) == layers * heads
    assert png_size(sheet)[0] > 600


def test_choices_of_some_tokens(detection):
    sheet = show_top_tokens(detection, 1, 6)
    (ax,) = sheet.axes
    assert [label.get_text().split()[0] for label in ax.get_yticklabels()] == [t.strip() for t in detection.tokens[1:6]]
    png_size(sheet)
    with pytest.raises(ValueError, match=r"no token in 5000:6000; this answer has the tokens 0"):
        show_top_tokens(detection, 5000, 6000)


def test_locations_of_a_box_along_the_sides(detection):
    whole = show_location_probabilities(detection, "box 1")
    png_size(whole)
    above, beside = (len(whole.axes[i].collections) for i in (0, 3))
    assert (above, beside) == (2, 2)  # two x, two y
    one = show_location_probabilities(detection, detection.find("box 1").positions[1])
    assert [len(one.axes[i].collections) for i in (0, 3)] == [0, 1]  # the second coordinate is a y
    word = detection.parts[0].name
    with pytest.raises(ValueError, match=f"'{word}' has no location tokens; this answer's boxes: 'box 1'"):
        show_location_probabilities(detection, word)


def test_an_answer_from_plain_words_needs_no_picture_to_be_drawn(detection):
    from dataclasses import replace

    bare = replace(detection, result=replace(detection.result, image=None))
    for sheet in (show_attention(bare, "box 1"), show_location_probabilities(bare, "box 1")):
        png_size(sheet)


# ---------------------------------------------------------------------- the vision tower


@pytest.mark.parametrize("model", ["nano", "small"])
def test_the_maps_of_every_stage(model, request):
    predictor = request.getfixturevalue(model)
    config = predictor.model.config.vision_config
    size = predictor.processor.image_processor.size
    maps = extract_feature_maps(predictor, SCENE.image)
    grids = stage_grids(predictor.model, (size["height"], size["width"]))
    assert [m.shape for m in maps] == [(c, *grid) for c, grid in zip(config.embed_dim, grids, strict=True)]
    assert not any(stage[-1]._forward_hooks for stage in predictor.model.model.vision_tower.blocks)
    assert png_size(show_feature_maps(predictor, predictor.encode_image(SCENE.image)))[0] > 400


def test_the_grid_of_the_published_models(tiny):
    """768 x 768 pixels: 24 x 24 tokens, and the mean."""
    assert stage_grids(tiny.model, (768, 768)) == [(192, 192), (96, 96), (48, 48), (24, 24)]
