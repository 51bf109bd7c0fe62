"""From generated tokens, or text in the answer grammar, to typed results."""

import json
import re

import numpy as np
import pytest
import torch

from florence_lab.results import Boxes, Polygons, Quads, Text
from florence_lab.tasks import TASKS
from florence_lab.template import FlorenceTemplate, Prompt
from florence_lab.template.confidence import TokenProbabilities
from florence_lab.template.locations import format_location_tokens
from florence_lab.template.parsing import RESULT_FORMATS, drop_incomplete
from florence_lab.template.vocabulary import ADDED_TOKENS

GROUNDING, SEGMENTATION = "<CAPTION_TO_PHRASE_GROUNDING>", "<REFERRING_EXPRESSION_SEGMENTATION>"
OPEN, REGION = "<OPEN_VOCABULARY_DETECTION>", "<REGION_TO_CATEGORY>"
WORDS = ["cat", " sheep", "the", " red", " hat", "."]


@pytest.fixture(scope="module")
def template(tiny) -> FlorenceTemplate:
    return tiny.template


@pytest.fixture(params=["tokens", "text"])
def parse(request, template):
    """Both parsers. At (1000, 500) pixels, bin n is the pixel n + 0.5 horizontally, and half of that vertically."""

    def from_tokens(raw, task, size=(1000, 500), phrase=""):
        return template.parse(ids_of(template, raw), Prompt.from_task(task, phrase), size)

    def from_text(raw, task, size=(1000, 500), phrase=""):
        return FlorenceTemplate().parse_text(raw, Prompt.from_task(task, phrase), size)

    return from_tokens if request.param == "tokens" else from_text


def ids_of(template, raw: str) -> list[int]:
    return template.tokenizer(raw, add_special_tokens=False).input_ids


def loc(*bins: int) -> str:
    return "".join(f"<loc_{n}>" for n in bins)


def spread(entries: dict[int, float]) -> np.ndarray:
    row = np.zeros(1000)
    row[list(entries)] = list(entries.values())
    return row


def certain(template: FlorenceTemplate, ids: list[int], generated: dict[str, float]) -> TokenProbabilities:
    """Probability 1 for each location, the given one for a word (shared out among its tokens), 0 for the rest."""
    first = template.location_ids.start
    probabilities = TokenProbabilities(np.zeros(len(ids)), np.zeros((len(ids), 1000)))
    for position, token in enumerate(ids):
        if token in template.location_ids:
            probabilities.locations[position, token - first] = 1
    for word, value in generated.items():
        parts = ids_of(template, word)
        start = next(i for i in range(len(ids)) if ids[i : i + len(parts)] == parts)
        probabilities.generated[start : start + len(parts)] = value ** (1 / len(parts))
    return probabilities


SEED_BOXES = {
    # at 640 x 480: (bin + 0.5) * 0.64 and * 0.48, by hand
    "<OD>": (
        "shelf<loc_264><loc_173><loc_572><loc_748><loc_755><loc_274><loc_966><loc_737><loc_46><loc_335><loc_261>"
        "<loc_763><loc_555><loc_360><loc_760><loc_756>",
        ["shelf"] * 4,
        {0: [169.28, 83.28, 366.4, 359.28], 3: [355.52, 173.04, 486.72, 363.12]},
    ),
    "<DENSE_REGION_CAPTION>": (
        "cartoon sheep illustration<loc_265><loc_175><loc_572><loc_748>cartoon ram illustration<loc_755><loc_275>"
        "<loc_966><loc_737>cartoon white sheep illustration<loc_44><loc_335><loc_262><loc_764>cartoon goat illustration"
        "<loc_555><loc_361><loc_762><loc_756>",
        [f"cartoon {animal} illustration" for animal in ("sheep", "ram", "white sheep", "goat")],
        {1: [483.52, 132.24, 618.56, 354.0], 2: [28.48, 161.04, 168.0, 366.96]},
    ),
    "<REGION_PROPOSAL>": (
        "<loc_45><loc_176><loc_967><loc_761><loc_266><loc_175><loc_570><loc_749><loc_757><loc_274><loc_966><loc_738>"
        "<loc_46><loc_334><loc_261><loc_763><loc_556><loc_361><loc_760><loc_756>",
        [""] * 5,
        {0: [29.12, 84.72, 619.2, 365.52], 4: [356.16, 173.52, 486.72, 363.12]},
    ),
    GROUNDING: (
        "thethe sheeps<loc_45><loc_175><loc_967><loc_764><loc_266><loc_176><loc_572><loc_749><loc_756><loc_275>"
        "<loc_965><loc_739><loc_46><loc_335><loc_261><loc_765><loc_557><loc_361><loc_760><loc_758>",
        ["the sheeps"] * 5,
        {0: [29.12, 84.24, 619.2, 366.96], 1: [170.56, 84.72, 366.4, 359.76]},
    ),
}


@pytest.mark.parametrize("task", SEED_BOXES)
def test_boxes_of_the_ms_swift_transcript(parse, task):
    raw, labels, boxes = SEED_BOXES[task]
    result = parse(raw, task, (640, 480), phrase="the sheeps" if task == GROUNDING else "")
    assert isinstance(result, Boxes)
    assert (list(result.labels), result.raw, result.scores, result.polygons) == (labels, raw, None, ())
    assert (result.boxes.shape, result.boxes.dtype) == ((len(labels), 4), np.float64)
    for i, box in boxes.items():
        np.testing.assert_allclose(result.boxes[i], box, rtol=1e-12)
    assert format_location_tokens(result.boxes, (640, 480)) == "".join(re.findall("<loc_[0-9]+>", raw))


def test_a_text_keeps_its_trailing_space_in_raw_only(parse):
    raw = "Four sheep are standing in a field. There is grass and weeds on the ground in front of them. "
    result = parse(raw, "<MORE_DETAILED_CAPTION>")
    assert isinstance(result, Text)
    assert (result.raw, result.text) == (raw, raw.strip())


def test_a_result_carries_its_prompt(parse):
    result = parse("sheep" + loc(1, 2, 3, 4), OPEN, (640, 480), phrase="a sheep")
    assert (result.task, result.phrase, result.prompt) == (OPEN, "a sheep", "Locate a sheep in the image.")
    assert (result.image_size, result.image) == ((640, 480), None)


@pytest.mark.parametrize(
    ("raw", "labels", "bins"),
    [
        ("", [], []),
        ("a sheep", [], []),  # text without boxes
        (loc(1, 2, 3, 4), [""], [[1, 2, 3, 4]]),  # boxes without text
        (loc(1, 2, 3, 4) + "cat" + loc(5, 6, 7, 8), ["", "cat"], [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ("cat" + loc(1, 2, 3, 4) + "hat" + loc(5, 6, 7), ["cat"], [[1, 2, 3, 4]]),  # a cut-off last box
        ("cat" + loc(1, 2, 3) + "hat" + loc(5, 6, 7, 8), ["hat"], [[5, 6, 7, 8]]),  # which never leans on the next
        ("cat" + loc(1, 2, 3, 4, 5, 6), ["cat"], [[1, 2, 3, 4]]),
        ("cat" + loc(1, 2, 3, 4) + " " + loc(5, 6, 7, 8), ["cat"] * 2, [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ("cat" + loc(1, 2, 3) + "<and>" + loc(5, 6, 7, 8), ["cat"], [[5, 6, 7, 8]]),  # nor across a mark
        ("cat" + loc(1, 2, 3) + "<sep>" + loc(5, 6, 7, 8), ["cat"], [[5, 6, 7, 8]]),
        (" a cat " + loc(1, 2, 3, 4), ["a cat"], [[1, 2, 3, 4]]),
        (
            "the" + loc(1, 2, 3, 4),
            ["the"],
            [[1, 2, 3, 4]],
        ),  # a pronoun or article is a label like any, outside grounding
        ("cat" + loc(30, 40, 10, 20), ["cat"], [[10, 20, 30, 40]]),  # corners in the other order
        ("cat<loc_1000>" + loc(1, 2, 3, 4), ["cat<loc_1000>"], [[1, 2, 3, 4]]),  # no token of the vocabulary, so words
    ],
)
def test_boxes_are_parsed_from_labels_and_locations(parse, raw, labels, bins):
    result = parse(raw, "<OD>")
    assert list(result.labels) == labels
    expected = (np.array(bins, float).reshape(-1, 4) + 0.5) * [1, 0.5, 1, 0.5]
    np.testing.assert_allclose(result.boxes, expected)
    assert (result.boxes.shape, result.boxes.dtype, len(result)) == ((len(labels), 4), np.float64, len(labels))


@pytest.mark.parametrize(
    "raw",
    [
        "</s><s>cat<loc_1><loc_2><loc_3><loc_4></s>",
        "<s>cat<loc_1><loc_2><loc_3><loc_4></s><pad><pad>",
        "c</s>at<loc_1><loc_2><s><loc_3><pad><loc_4>",
    ],
)
def test_special_tokens_are_removed(parse, raw):
    result = parse(raw, "<OD>")
    assert result.labels.tolist() == ["cat"]
    assert result.boxes.tolist() == [[1.5, 1.25, 3.5, 2.25]]
    assert result.raw == "cat<loc_1><loc_2><loc_3><loc_4>"
    quad = parse(raw.replace("<loc_1>", "<loc_1>" * 5), "<OCR_WITH_REGION>")
    assert quad.labels.tolist() == ["cat"]
    assert parse(raw.replace("<loc_", "<loc_"), "<CAPTION>").text == "cat"


OTHERS = [token for token in ADDED_TOKENS if not token.startswith("<loc_") and token not in ("<sep>", "<and>")]
OTHERS = [*(token for token in OTHERS if "poly" not in token), "<unk>", "<mask>", "<image>"]


@pytest.mark.parametrize("other", OTHERS)
def test_unused_tokens_appear_in_raw_only(parse, other):
    raw = f"{other}c{other}at{other}<loc_1>{other}<loc_2><loc_3><loc_4>{other}"
    result = parse(raw, "<OD>")
    assert (result.labels.tolist(), result.raw) == (["cat"], raw)
    assert result.boxes.tolist() == [[1.5, 1.25, 3.5, 2.25]]
    assert parse(raw, "<CAPTION>").text == "cat"


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("", ""),
        (" A cat. ", "A cat."),
        ("cat" + loc(1, 2, 3, 4), "cat"),  # a region task echoes its region
        (loc(1, 2, 3, 4), ""),
        ("cat<and> hat<sep>", "cat hat"),
        ("1 < 2 <b>bold</b>", "1 < 2 <b>bold</b>"),  # what looks like a token, but is none
    ],
)
def test_text_is_parsed_without_markup(parse, raw, text):
    result = parse(raw, REGION)
    assert isinstance(result, Text)
    assert (result.text, result.raw) == (text, raw)


@pytest.mark.parametrize(
    ("label", "caption", "expected"),
    [
        ("thethe sheeps", "the sheeps", "the sheeps"),
        ("TheThe sheeps", "the sheeps in a field", "The sheeps"),
        ("the the sheeps", "the sheeps", "the sheeps"),
        ("AA man", "A man and a dog", "A man"),
        ("a man", "A man and a dog", "a man"),
        ("thethe sheeps", "", "thethe sheeps"),  # without a caption nobody can know
        ("panda", "a bear", "panda"),  # ends in a word of the caption, but doubles nothing
        ("cacat", "a concat b", "cacat"),  # doubled, but no word of the caption
        ("sheep sheep", "a sheep", "sheep"),
        ("thethe (red man", "the (red man", "the (red man"),
        ("cacao", "cacao and cao", "cacao"),  # doubled, but the caption has it so
    ],
)
def test_doubled_words_are_removed_in_grounding(parse, label, caption, expected):
    result = parse(label + loc(1, 2, 3, 4), GROUNDING, phrase=caption)
    assert result.labels.tolist() == [expected]


@pytest.mark.parametrize("word", ["it", "They", "themselves", "the image", "itit"])
def test_pronouns_are_dropped_in_grounding(parse, word):
    caption = "the image: it is a cat, they say, and themselves"
    raw = word + loc(1, 2, 3, 4, 5, 6, 7, 8) + "a cat" + loc(10, 20, 30, 40)
    result = parse(raw, GROUNDING, phrase=caption)
    assert result.labels.tolist() == ["a cat"]
    assert result.boxes.tolist() == [[10.5, 10.25, 30.5, 20.25]]


def test_scores_match_the_instances_that_grounding_keeps(template):
    ids = ids_of(template, "it" + loc(1, 2, 3, 4) + "cat" + loc(5, 6, 7, 8))
    probabilities = certain(template, ids, {"cat": 0.5, "it": 0.125})
    result = template.parse(ids, Prompt.from_task(GROUNDING, "it is a cat"), (100, 100), probabilities)
    assert (result.labels.tolist(), result.scores.tolist()) == (["cat"], [0.5])


TRIANGLE, SQUARE = (10, 20, 30, 40, 50, 10), (100, 100, 200, 100, 200, 200, 100, 200)


def points(*bins: int) -> list[list[float]]:
    """In pixels of (1000, 500)."""
    return [[x + 0.5, (y + 0.5) / 2] for x, y in zip(bins[::2], bins[1::2], strict=True)]


def test_quads_are_parsed_from_eight_locations(parse):
    result = parse(
        "</s>OPEN" + loc(*SQUARE) + "now" + loc(*SQUARE[::-1]) + "cut" + loc(*SQUARE[:7]), "<OCR_WITH_REGION>"
    )
    assert isinstance(result, Quads)
    assert result.labels.tolist() == ["OPEN", "now"]
    assert (result.quads.shape, result.quads.dtype) == ((2, 4, 2), np.float64)
    assert result.quads.tolist() == [points(*SQUARE), points(*SQUARE[::-1])]


@pytest.mark.parametrize(
    ("raw", "labels", "expected"),
    [
        ("", [], []),
        ("cat", [], []),
        (loc(*TRIANGLE), [""], [[TRIANGLE]]),
        ("cat" + loc(*TRIANGLE), ["cat"], [[TRIANGLE]]),
        ("</s><s>" + loc(*TRIANGLE) + "</s>", [""], [[TRIANGLE]]),
        (loc(*TRIANGLE) + "<sep>" + loc(*SQUARE), [""], [[TRIANGLE, SQUARE]]),  # one thing in two pieces
        (loc(*TRIANGLE) + "<and>" + loc(*SQUARE), ["", ""], [[TRIANGLE], [SQUARE]]),  # two things
        ("<poly>" + loc(*TRIANGLE) + "</poly><poly>" + loc(*SQUARE) + "</poly>", ["", ""], [[TRIANGLE], [SQUARE]]),
        ("cat<poly>" + loc(*TRIANGLE) + "<sep>" + loc(*SQUARE) + "</poly>", ["cat"], [[TRIANGLE, SQUARE]]),
        ("cat" + loc(*TRIANGLE) + "hat" + loc(*SQUARE), ["cat", "hat"], [[TRIANGLE], [SQUARE]]),
        ("<sep>" + loc(*TRIANGLE) + "<sep><sep>", [""], [[TRIANGLE]]),
        (loc(*SQUARE, 7), [""], [[SQUARE]]),  # a coordinate without its partner
        (loc(*TRIANGLE) + "<sep>" + loc(1, 2, 3, 4), [""], [[TRIANGLE]]),  # two points are no outline
        (loc(1, 2, 3, 4, 5) + "<and>" + loc(*TRIANGLE), [""], [[TRIANGLE]]),
    ],
)
def test_polygons_are_parsed_with_separators(parse, raw, labels, expected):
    result = parse(raw, SEGMENTATION)
    assert isinstance(result, Polygons)
    assert list(result.labels) == labels
    assert [[p.tolist() for p in outlines] for outlines in result.polygons] == [
        [points(*bins) for bins in outlines] for outlines in expected
    ]


BOX = (300, 310, 320, 330)


@pytest.mark.parametrize(
    ("raw", "labels", "boxes", "outlines"),
    [
        ("cat" + loc(*BOX, *BOX), ["cat"] * 2, [BOX, BOX], []),
        ("cat" + loc(*BOX) + "hat" + loc(*SQUARE[:4]), ["cat", "hat"], [BOX, SQUARE[:4]], []),
        ("cat" + loc(*BOX) + "<and>hat" + loc(*BOX), ["cat", "hat"], [BOX, BOX], []),
        ("cat<poly>" + loc(*TRIANGLE) + "</poly>", ["cat"], [(10, 10, 50, 40)], [[TRIANGLE]]),
        ("cat" + loc(*TRIANGLE) + "<sep>" + loc(*SQUARE), ["cat"], [(10, 10, 200, 200)], [[TRIANGLE, SQUARE]]),
        (
            "cat" + loc(*BOX) + "hat<poly>" + loc(*TRIANGLE) + "</poly><poly>" + loc(*SQUARE) + "</poly>",
            ["cat", "hat", "hat"],
            [BOX, (10, 10, 50, 40), (100, 100, 200, 200)],
            [[], [TRIANGLE], [SQUARE]],
        ),
        (
            "cat" + loc(*BOX) + "<poly>" + loc(*SQUARE) + "</poly>" + loc(*BOX),
            ["cat"] * 3,
            [BOX, (100, 100, 200, 200), BOX],
            [[], [SQUARE], []],
        ),
        ("cat<poly>" + loc(*BOX), [], [], []),  # a cut-off outline is no box
    ],
)
def test_open_vocabulary_detection_gives_boxes_polygons_or_both(parse, raw, labels, boxes, outlines):
    result = parse(raw, OPEN, phrase="cat")
    assert isinstance(result, Boxes)
    assert list(result.labels) == labels
    np.testing.assert_allclose(result.boxes, (np.array(boxes, float).reshape(-1, 4) + 0.5) * [1, 0.5, 1, 0.5])
    assert [[p.tolist() for p in found] for found in result.polygons] == [
        [points(*bins) for bins in expected] for expected in outlines
    ]


def soup(rng: np.random.Generator, template: FlorenceTemplate, length: int) -> list[int]:
    """Tokens of all kinds, with runs of locations long enough to make boxes, quads and outlines."""
    ids: list[int] = []
    others = [t for t in ADDED_TOKENS if not t.startswith("<loc_")] + ["<s>", "</s>", "<pad>", "<mask>", "<image>"]
    while len(ids) < length:
        kind = rng.integers(3)
        if kind == 0:
            ids += (template.location_ids.start + rng.integers(1000, size=rng.integers(1, 12))).tolist()
        else:
            ids += ids_of(template, rng.choice(others if kind == 1 else WORDS))
    return ids[:length]


@pytest.mark.parametrize("task", ["", *TASKS])
def test_any_sequence_of_tokens_is_parsed(template, task):
    rng, size, found = np.random.default_rng(0), (451, 300), 0
    for _ in range(60):
        ids = soup(rng, template, rng.integers(1, 60))
        probabilities = TokenProbabilities(rng.random(len(ids)), rng.dirichlet(np.full(1000, 0.01), len(ids)))
        prompt = Prompt.from_task(task, "the cat")
        result = template.parse(ids, prompt, size, probabilities)
        again = template.parse_text(result.raw, prompt, size)
        answer = result.to_dict()
        if isinstance(result, Text):
            found += bool(result.text)
        else:
            found += len(result)
            extents = result.to_dataframe()[["x0", "y0", "x1", "y1"]].to_numpy()
            assert len(extents) == len(result.labels) == len(result.scores)
            assert np.isfinite(extents).all()
            assert (extents >= 0).all()
            assert (extents <= [*size, *size]).all()
            assert (extents[:, :2] <= extents[:, 2:]).all()
            assert ((result.scores >= 0) & (result.scores <= 1)).all()
            assert not any(token in label for label in result.labels for token in [*ADDED_TOKENS, "<s>", "</s>"])
            without = {name: value for name, value in answer[task].items() if "scores" not in name}
            answer = {task: without}
        assert again.to_dict() == answer  # the two readers agree
        json.dumps([answer, result.to_coco()])
    assert found > 10


def test_ids_are_a_list_an_array_a_tensor_or_an_iterator(template):
    ids = ids_of(template, "</s><s>cat" + loc(1, 2, 3, 4) + "</s>")
    for given in (ids, tuple(ids), np.array(ids), torch.tensor(ids), iter(ids)):
        assert template.parse(given, "<OD>", (100, 100)).labels.tolist() == ["cat"]


def test_each_instance_is_scored_at_its_own_tokens(template):
    ids = ids_of(template, "</s><s>the sheep" + loc(1, 2, 3, 4) + loc(5, 6, 7, 8) + "cat" + loc(9, 10, 11, 12) + "</s>")
    probabilities = certain(template, ids, {"the sheep": 0.5, "cat": 0.25})
    seven = ids.index(template.location_ids.start + 7)
    probabilities.locations[seven] = spread({7: 0.5, 500: 0.5})
    result = template.parse(ids, "<OD>", (100, 100), probabilities=probabilities)
    assert result.labels.tolist() == ["the sheep", "the sheep", "cat"]  # a label in front of two boxes counts for each
    np.testing.assert_allclose(result.scores, [0.5, 0.25, 0.25])
    assert result.scores.dtype == np.float64


def test_quads_and_polygons_are_scored(template):
    ids = ids_of(template, "cat" + loc(*SQUARE))
    probabilities = certain(template, ids, {"cat": 0.5})
    probabilities.locations[len(ids) - 1] /= 4  # the fourth point's y: 4 / 8 of its power counts
    for task in ("<OCR_WITH_REGION>", SEGMENTATION):
        result = template.parse(ids, task, (100, 100), probabilities=probabilities)
        np.testing.assert_allclose(result.scores, [0.5 * 0.25**0.5])


def test_an_answer_without_instances_has_an_empty_array_of_scores(template):
    ids = ids_of(template, "cat")
    result = template.parse(ids, "<OD>", (100, 100), probabilities=certain(template, ids, {}))
    assert (result.scores.shape, result.scores.dtype) == ((0,), np.float64)


def test_the_image_is_kept_in_the_result(template, encoded):
    result = template.parse([], "<CAPTION>", encoded.size, image=encoded.image)
    assert result.image is encoded.image


@pytest.mark.parametrize("prompt", ["<OD>", "od", TASKS["<OD>"], Prompt.from_task("<OD>")])
def test_a_prompt_without_input_may_be_given_as_a_task(prompt):
    result = FlorenceTemplate().parse_text("cat" + loc(1, 2, 3, 4), prompt, (100, 100))
    assert (result.task, result.prompt) == ("<OD>", TASKS["<OD>"].prompt)


def test_every_kind_of_result_with_instances_has_a_format():
    assert {task.result for task in TASKS.values()} == {"text", *RESULT_FORMATS}
    assert {kind: f.coordinates for kind, f in RESULT_FORMATS.items()} == {
        "boxes": 4,
        "grounding": 4,
        "boxes_or_polygons": None,
        "quads": 8,
        "polygons": None,
    }


@pytest.mark.parametrize(("raw", "expected"), [("the X\ufffd", "the X"), ("the X", "the X"), ("\ufffd", "")])
def test_an_incomplete_character_is_dropped(raw, expected):
    result = drop_incomplete(FlorenceTemplate().parse_text(raw, "<CAPTION>", (9, 9)))
    assert (result.text, result.raw) == (expected, expected)


def test_the_last_polygon_is_dropped_as_it_may_grow():
    raw = "<poly>" + loc(*TRIANGLE) + "</poly><poly>" + loc(*TRIANGLE) + "</poly><poly>" + loc(*SQUARE)
    for task in (SEGMENTATION, OPEN):
        result = FlorenceTemplate().parse_text(raw, task, (1000, 500))
        assert (len(result), len(drop_incomplete(result))) == (3, 2)
    boxes = FlorenceTemplate().parse_text("cat" + loc(1, 2, 3, 4), OPEN, (1000, 500))
    assert len(drop_incomplete(boxes)) == 1
    mixed = FlorenceTemplate().parse_text("cat<poly>" + loc(*SQUARE) + "</poly>" + loc(1, 2, 3, 4), OPEN, (1000, 500))
    assert len(drop_incomplete(mixed)) == 2  # the last instance is a box
    assert len(drop_incomplete(FlorenceTemplate().parse_text("", SEGMENTATION, (9, 9)))) == 0
