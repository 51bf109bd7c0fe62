"""Words and pixels to prompts, and generated tokens to results and scores."""

import json
import re
import warnings

import numpy as np
import pytest
import torch

from florence_lab.results import Boxes, Polygons, Quads, Text
from florence_lab.tasks import TASKS
from florence_lab.template.confidence import TokenProbabilities, instance_score
from florence_lab.template.locations import bins_to_pixels, format_location_tokens, pixels_to_bins
from florence_lab.template.template import FlorenceTemplate
from florence_lab.template.vocabulary import ADDED_TOKENS

GROUNDING, SEGMENTATION = "<CAPTION_TO_PHRASE_GROUNDING>", "<REFERRING_EXPRESSION_SEGMENTATION>"
OPEN, REGION = "<OPEN_VOCABULARY_DETECTION>", "<REGION_TO_CATEGORY>"
TAKING = {kind: [token for token, task in TASKS.items() if task.input == kind] for kind in ("none", "phrase", "region")}
WORDS = ["cat", " sheep", "the", " red", " hat", "."]


@pytest.fixture(scope="module")
def template(tiny) -> FlorenceTemplate:
    return tiny.template


@pytest.fixture(params=["tokens", "text"])
def parse(request, template):
    """Both ways to read what a model wrote; (1000, 500) makes bin n the pixel n + 0.5, and half of that down the side."""

    def from_tokens(raw, task, size=(1000, 500), phrase=""):
        return template.parse(ids_of(template, raw), task, size, phrase=phrase)

    def from_text(raw, task, size=(1000, 500), phrase=""):
        return FlorenceTemplate().parse_text(raw, task, size, phrase=phrase)

    return from_tokens if request.param == "tokens" else from_text


def ids_of(template, raw: str) -> list[int]:
    return template.tokenizer(raw, add_special_tokens=False).input_ids


def loc(*bins: int) -> str:
    return "".join(f"<loc_{n}>" for n in bins)


# ---------------------------------------------------------------------- prompts


@pytest.mark.parametrize("token", TAKING["none"])
def test_a_task_without_input_is_its_prompt(token):
    task, given, prompt = FlorenceTemplate().prompt(token)
    assert (task, given, prompt) == (TASKS[token], "", TASKS[token].prompt)


@pytest.mark.parametrize(
    ("token", "prompt"),
    [
        (GROUNDING, "Locate the phrases in the caption: a {red} sheep"),
        (SEGMENTATION, "Locate a {red} sheep in the image with mask"),
        (OPEN, "Locate a {red} sheep in the image."),
    ],
)
def test_a_phrase_stands_behind_the_token_or_beside_the_query(token, prompt):
    expected = (TASKS[token], "a {red} sheep", prompt)
    template = FlorenceTemplate()
    assert template.prompt(f"{token}a {{red}} sheep") == expected
    assert template.prompt(token, " a {red} sheep ") == expected
    assert template.prompt(f"{token}a {{red}} sheep", "") == expected


@pytest.mark.parametrize(
    ("token", "prompt"),
    [
        ("<REGION_TO_SEGMENTATION>", "What is the polygon mask of region <loc_250><loc_500><loc_999><loc_999>"),
        ("<REGION_TO_CATEGORY>", "What is the region <loc_250><loc_500><loc_999><loc_999>?"),
        ("<REGION_TO_DESCRIPTION>", "What does the region <loc_250><loc_500><loc_999><loc_999> describe?"),
        ("<REGION_TO_OCR>", "What text is in the region <loc_250><loc_500><loc_999><loc_999>?"),
    ],
)
def test_a_region_comes_in_pixels_or_as_location_tokens(token, prompt):
    tokens, pixels = loc(250, 500, 999, 999), (100, 50, 400, 100.0)
    template = FlorenceTemplate()
    for region in (pixels, list(pixels), np.array(pixels), np.array(pixels, np.float32), torch.tensor(pixels)):
        assert template.prompt(token, region, (400, 100)) == (TASKS[token], tokens, prompt)
    assert template.prompt(token, tokens) == template.prompt(token + tokens) == (TASKS[token], tokens, prompt)


def test_a_free_question_is_its_own_prompt():
    for asked in (("Describe the image",), ("", "Describe the image"), (" Describe the image ", "")):
        task, given, prompt = FlorenceTemplate().prompt(*asked)
        assert (task.token, given, prompt) == ("", "Describe the image", "Describe the image")


@pytest.mark.parametrize(
    ("query", "text", "message"),
    [
        *[(token, "a sheep", f"{token} takes no input, but got 'a sheep'") for token in TAKING["none"]],
        *[(token, (1, 2, 3, 4), f"{token} takes no input, but got (1, 2, 3, 4)") for token in TAKING["none"]],
        ("<OD>a sheep", None, "<OD> takes no input, but got 'a sheep'"),
        *[(token, None, f"{token} needs a phrase, as in {token}a sheep") for token in TAKING["phrase"]],
        *[(token, (1, 2, 3, 4), f"{token} takes a phrase, but got (1, 2, 3, 4)") for token in TAKING["phrase"]],
        (OPEN, "  ", "<OPEN_VOCABULARY_DETECTION> needs a phrase"),
        *[(token, None, f"{token} needs a region: (x0, y0, x1, y1) in pixels, or") for token in TAKING["region"]],
        *[(token, "a sheep", f"{token} takes a region: (x0, y0, x1, y1)") for token in TAKING["region"]],
        (OPEN + "a sheep", "a dog", "got its input twice: 'a sheep' in the query and 'a dog' beside it"),
        (REGION + loc(1, 2, 3, 4), (1, 2, 3, 4), "got its input twice"),
        (REGION + loc(1, 2, 3, 4), np.arange(4), "got its input twice"),
        ("Describe the image", "a dog", "a free question got its input twice"),
        ("", None, "a free question needs a phrase"),
        ("", (1, 2, 3, 4), "a free question takes a phrase, but got (1, 2, 3, 4)"),
        ("<ODD>", None, "unknown task '<ODD>'; did you mean '<OD>'?"),
    ],
)
def test_an_input_that_is_missing_superfluous_or_wrong_is_named(query, text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        FlorenceTemplate().prompt(query, text, (400, 100))


@pytest.mark.parametrize(
    ("region", "complaint"),
    [
        ((-1, 0, 10, 10), "the region (-1, 0, 10, 10) reaches outside the picture, which is 400 x 100"),
        ((0, 0, 401, 10), "the region (0, 0, 401, 10) reaches outside the picture, which is 400 x 100"),
        ((0, 0, 10, 100.5), "the region (0, 0, 10, 100.5) reaches outside the picture, which is 400 x 100"),
        ((0, -0.5, 10, 10), "the region (0, -0.5, 10, 10) reaches outside the picture, which is 400 x 100"),
        ((30, 0, 10, 10), "the region (30, 0, 10, 10) has no area or is inside out"),
        ((0, 30, 10, 10), "the region (0, 30, 10, 10) has no area or is inside out"),
        ((10, 0, 10, 10), "the region (10, 0, 10, 10) has no area or is inside out"),
        ((0, 10, 10, 10), "; the picture is 400 x 100"),
        ((float("nan"), 0, 10, 10), "(nan, 0, 10, 10) is not made of finite numbers; the picture is 400 x 100"),
        ((0, 0, float("inf"), 10), "(0, 0, inf, 10) is not made of finite numbers"),
        ((1, 2, 3), "or four location tokens <loc_0> … <loc_999>; got (1, 2, 3)"),
        ((1, 2, 3, 4, 5), "got (1, 2, 3, 4, 5)"),
        ([(1, 2, 3, 4)], "got [(1, 2, 3, 4)]"),
        (12, "got 12"),
        ({"x0": 1}, "got {'x0': 1}"),
        (("a", "b", "c", "d"), "got ('a', 'b', 'c', 'd')"),
        ((10**400, 0, 1, 1), "takes a region"),
        ("1, 2, 3, 4", "got '1, 2, 3, 4'"),
        (loc(1, 2, 3), "got '<loc_1><loc_2><loc_3>'"),
        (loc(1, 2, 3, 4, 5), "takes a region"),
        (loc(1, 2, 3, 1000), "takes a region"),
        ("<loc_01><loc_2><loc_3><loc_4>", "takes a region"),  # no token of the vocabulary
        (loc(30, 0, 10, 10), "the region <loc_30><loc_0><loc_10><loc_10>, of a picture of 400 x 100, is inside out"),
        (loc(0, 30, 10, 10), "is inside out"),
    ],
)
def test_a_region_that_is_none_is_named(region, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        FlorenceTemplate().prompt(REGION, region, (400, 100))


def test_a_region_in_pixels_needs_the_size():
    with pytest.raises(ValueError, match="needs the image's size"):
        FlorenceTemplate().prompt(REGION, (1, 2, 3, 4))


def test_a_region_thinner_than_a_bin_is_one():
    assert FlorenceTemplate().prompt(REGION, (100, 50, 100.1, 50.05), (400, 100))[1] == loc(250, 500, 250, 500)
    assert FlorenceTemplate().prompt(REGION, loc(5, 5, 5, 5))[1] == loc(5, 5, 5, 5)


@pytest.mark.parametrize("query", ["描述图片", OPEN + "一只羊"])
def test_chinese_is_answered_with_a_warning(query):
    with pytest.warns(UserWarning, match="not trained on Chinese"):
        FlorenceTemplate().prompt(query)


def test_other_alphabets_are_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FlorenceTemplate().prompt(OPEN, "ein Schäfchen, “овца”, 🐑")


# ---------------------------------------------------------------------- pixels and bins

SIZES = [(1000, 1000), (451, 300), (1, 1), (20000, 10), (1333, 97), (34, 85)]


@pytest.mark.parametrize("size", SIZES)
def test_every_bin_survives_the_way_to_pixels_and_back(size):
    bins = np.stack([np.arange(1000), np.arange(1000)[::-1]], axis=1)
    pixels = bins_to_pixels(bins, size)
    assert pixels.dtype == np.float64
    np.testing.assert_array_equal(pixels_to_bins(pixels, size), bins)
    np.testing.assert_allclose(pixels[250], [0.2505 * size[0], 0.7495 * size[1]], rtol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_pixels_fall_into_the_published_bins(size):
    """floor(x * 1000 / side), at whole pixels by integers, which do not round; the far edge belongs to the last bin."""
    for axis, side in enumerate(size):
        pixels = np.zeros((side + 1, 2))
        pixels[:, axis] = range(side + 1)
        expected = [min(x * 1000 // side, 999) for x in range(side + 1)]
        assert pixels_to_bins(pixels, size)[:, axis].tolist() == expected


def test_pixels_outside_are_kept_within():
    assert pixels_to_bins([-7, -0.1, 1e9, 100], (400, 100)).tolist() == [0, 0, 999, 999]


def test_location_tokens_of_any_shape():
    assert format_location_tokens((100, 50, 200, 75), (400, 100)) == loc(250, 500, 500, 750)
    assert format_location_tokens(np.array([[100, 50], [200, 75]]), (400, 100)) == loc(250, 500, 500, 750)


# ---------------------------------------------------------------------- what comes back: the seed's transcript

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
def test_the_boxes_of_the_seed(parse, task):
    raw, labels, boxes = SEED_BOXES[task]
    result = parse(raw, task, (640, 480), phrase="the sheeps" if task == GROUNDING else "")
    assert isinstance(result, Boxes)
    assert (list(result.labels), result.raw, result.scores, result.polygons) == (labels, raw, None, ())
    assert (result.boxes.shape, result.boxes.dtype) == ((len(labels), 4), np.float64)
    for i, box in boxes.items():
        np.testing.assert_allclose(result.boxes[i], box, rtol=1e-12)
    assert format_location_tokens(result.boxes, (640, 480)) == "".join(re.findall("<loc_[0-9]+>", raw))


def test_a_text_of_the_seed_keeps_its_trailing_space_in_raw(parse):
    raw = "Four sheep are standing in a field. There is grass and weeds on the ground in front of them. "
    result = parse(raw, "<MORE_DETAILED_CAPTION>")
    assert isinstance(result, Text)
    assert (result.raw, result.text) == (raw, raw.strip())


# ---------------------------------------------------------------------- what comes back: what models really emit


def test_a_result_knows_its_question(parse):
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
def test_boxes(parse, raw, labels, bins):
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
def test_start_end_and_padding_leave_no_trace(parse, raw):
    result = parse(raw, "<OD>")
    assert result.labels == ("cat",)
    assert result.boxes.tolist() == [[1.5, 1.25, 3.5, 2.25]]
    assert result.raw == "cat<loc_1><loc_2><loc_3><loc_4>"
    quad = parse(raw.replace("<loc_1>", "<loc_1>" * 5), "<OCR_WITH_REGION>")
    assert quad.labels == ("cat",)
    assert parse(raw.replace("<loc_", "<loc_"), "<CAPTION>").text == "cat"


OTHERS = [token for token in ADDED_TOKENS if not token.startswith("<loc_") and token not in ("<sep>", "<and>")]
OTHERS = [*(token for token in OTHERS if "poly" not in token), "<unk>", "<mask>", "<image>"]


@pytest.mark.parametrize("other", OTHERS)
def test_other_added_tokens_stay_in_raw_alone(parse, other):
    raw = f"{other}c{other}at{other}<loc_1>{other}<loc_2><loc_3><loc_4>{other}"
    result = parse(raw, "<OD>")
    assert (result.labels, result.raw) == (("cat",), raw)
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
def test_text(parse, raw, text):
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
def test_doubled_words_in_grounding(parse, label, caption, expected):
    result = parse(label + loc(1, 2, 3, 4), GROUNDING, phrase=caption)
    assert result.labels == (expected,)


@pytest.mark.parametrize("word", ["it", "They", "themselves", "the image", "itit"])
def test_pronouns_are_no_things_to_ground(parse, word):
    caption = "the image: it is a cat, they say, and themselves"
    raw = word + loc(1, 2, 3, 4, 5, 6, 7, 8) + "a cat" + loc(10, 20, 30, 40)
    result = parse(raw, GROUNDING, phrase=caption)
    assert result.labels == ("a cat",)
    assert result.boxes.tolist() == [[10.5, 10.25, 30.5, 20.25]]


def test_scores_follow_the_instances_that_grounding_keeps(template):
    ids = ids_of(template, "it" + loc(1, 2, 3, 4) + "cat" + loc(5, 6, 7, 8))
    probabilities = certain(template, ids, chosen={"cat": 0.5, "it": 0.125})
    result = template.parse(ids, GROUNDING, (100, 100), phrase="it is a cat", probabilities=probabilities)
    assert (result.labels, result.scores.tolist()) == (("cat",), [0.5])


# ---------------------------------------------------------------------- quads and polygons

TRIANGLE, SQUARE = (10, 20, 30, 40, 50, 10), (100, 100, 200, 100, 200, 200, 100, 200)


def points(*bins: int) -> list[list[float]]:
    """In pixels of (1000, 500)."""
    return [[x + 0.5, (y + 0.5) / 2] for x, y in zip(bins[::2], bins[1::2], strict=True)]


def test_quads(parse):
    result = parse(
        "</s>OPEN" + loc(*SQUARE) + "now" + loc(*SQUARE[::-1]) + "cut" + loc(*SQUARE[:7]), "<OCR_WITH_REGION>"
    )
    assert isinstance(result, Quads)
    assert result.labels == ("OPEN", "now")
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
def test_polygons(parse, raw, labels, expected):
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


# ---------------------------------------------------------------------- anything at all


def soup(rng: np.random.Generator, template: FlorenceTemplate, length: int) -> list[int]:
    """Tokens of all kinds, with runs of locations long enough to make boxes, quads and outlines."""
    ids: list[int] = []
    others = [t for t in ADDED_TOKENS if not t.startswith("<loc_")] + ["<s>", "</s>", "<pad>", "<mask>", "<image>"]
    while len(ids) < length:
        kind = rng.integers(3)
        if kind == 0:
            ids += (template.first_location_id + rng.integers(1000, size=rng.integers(1, 12))).tolist()
        else:
            ids += ids_of(template, rng.choice(others if kind == 1 else WORDS))
    return ids[:length]


@pytest.mark.parametrize("task", ["", *TASKS])
def test_whatever_a_model_emits_is_read(template, task):
    rng, size, found = np.random.default_rng(0), (451, 300), 0
    for _ in range(60):
        ids = soup(rng, template, rng.integers(1, 60))
        probabilities = TokenProbabilities(rng.random(len(ids)), rng.dirichlet(np.full(1000, 0.01), len(ids)))
        result = template.parse(ids, task, size, phrase="the cat", probabilities=probabilities)
        again = template.parse_text(result.raw, task, size, phrase="the cat")
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


def test_ids_come_as_list_array_or_tensor(template):
    ids = ids_of(template, "</s><s>cat" + loc(1, 2, 3, 4) + "</s>")
    for given in (ids, tuple(ids), np.array(ids), torch.tensor(ids), iter(ids)):
        assert template.parse(given, "<OD>", (100, 100)).labels == ("cat",)


@pytest.mark.parametrize("ids", [[3] * 1000, [5, *range(7, 1006)]], ids=["none", "not in a row"])
def test_a_tokenizer_without_location_tokens_is_refused(ids):
    class Other:
        def convert_tokens_to_ids(self, names):
            return ids

    with pytest.raises(ValueError, match="none of Florence-2"):
        FlorenceTemplate(Other()).parse([5], "<OD>", (100, 100))


# ---------------------------------------------------------------------- confidence


def spread(*rows: dict[int, float]) -> np.ndarray:
    """Probabilities of location tokens, a row per coordinate, from {bin: probability}."""
    table = np.zeros((len(rows), 1000))
    for row, entries in zip(table, rows, strict=True):
        row[list(entries)] = list(entries.values())
    return table


def certain(template: FlorenceTemplate, ids: list[int], chosen: dict[str, float]) -> TokenProbabilities:
    """Certainty of every location; of a word the given probability, shared out among its tokens; of the rest none."""
    first = template.first_location_id
    probabilities = TokenProbabilities(np.zeros(len(ids)), np.zeros((len(ids), 1000)))
    for position, token in enumerate(ids):
        if 0 <= token - first < 1000:
            probabilities.locations[position, token - first] = 1
    for word, value in chosen.items():
        parts = ids_of(template, word)
        start = next(i for i in range(len(ids)) if ids[i : i + len(parts)] == parts)
        probabilities.chosen[start : start + len(parts)] = value ** (1 / len(parts))
    return probabilities


NUM_BINS = (100, 200, 300, 600)  # 200 wide, 400 high: within 50 bins sideways and 100 up and down
WORKLOADS = (
    {100: 0.5, 50: 0.1, 150: 0.2, 49: 0.1, 151: 0.1},  # 0.8 of it near
    {200: 0.25, 100: 0.125, 300: 0.125, 99: 0.3, 301: 0.2},  # 0.5
    {300: 1.0},
    {600: 0.0, 601: 0.9},  # not the likeliest, as when sampled: 0.9 all the same
)


def test_score_of_a_box_by_hand():
    assert instance_score(np.array([0.9, 0.5]), spread(*WORKLOADS), NUM_BINS) == pytest.approx(
        0.9 * 0.5 * 0.8 * 0.5 * 0.9
    )


def test_score_without_a_label_is_that_of_the_place():
    assert instance_score(np.array([]), spread(*WORKLOADS), NUM_BINS) == pytest.approx(0.8 * 0.5 * 0.9)


@pytest.mark.parametrize("n", [8, 6, 30])
def test_a_quad_and_a_polygon_weigh_as_much_as_a_box(n):
    """0.5 at every coordinate is 0.5 ** 4, however many there are."""
    bins = [0, 0, 900, 0, 900, 900, *([450] * (n - 6))]
    assert instance_score(np.array([0.5]), spread(*[{b: 0.5} for b in bins]), bins) == pytest.approx(0.5**5)


def test_a_box_without_extent_may_be_off_by_one_bin():
    rows = [{7: 0.5, 8: 0.25, 6: 0.125, 9: 0.1, 5: 0.025}] * 4
    assert instance_score(np.array([]), spread(*rows), (7, 7, 7, 7)) == pytest.approx(0.875**4)
    assert instance_score(np.array([]), spread({0: 1.0}, {0: 0.5, 1: 0.5}, {1: 1}, {999: 1.0}), (0, 0, 0, 999)) == 1


def test_a_long_polygon_is_no_underflow():
    bins = np.resize([0, 0, 900, 900], 900)
    table = spread(*[{int(b): 0.01} for b in bins])
    assert np.prod(table.max(axis=1)) == 0  # it would be
    assert instance_score(np.array([]), table, bins) == pytest.approx(0.01**4)


def test_an_impossible_place_scores_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert instance_score(np.array([1.0]), spread({500: 1.0}, *WORKLOADS[1:]), NUM_BINS) == 0


def test_scores_lie_between_0_and_1():
    assert instance_score(np.array([1.0]), spread(*[{b: 1 + 1e-6} for b in NUM_BINS]), NUM_BINS) == 1  # rounded sums
    assert instance_score(np.array([1.0], np.float32), spread(*[{b: 1.0} for b in NUM_BINS]), NUM_BINS) == 1


def test_a_surer_model_scores_higher():
    rng = np.random.default_rng(0)
    label, table = rng.uniform(0.1, 0.9, 3), spread(*[{b: rng.uniform(0.1, 0.9)} for b in NUM_BINS])
    before = instance_score(label, table, NUM_BINS)
    for i in range(3):
        assert instance_score(label + 0.1 * (np.arange(3) == i), table, NUM_BINS) > before
    for i, b in enumerate(NUM_BINS):
        surer = table.copy()
        surer[i, b] += 0.1
        assert instance_score(label, surer, NUM_BINS) > before


def test_scores_are_read_at_the_places_of_each_instance(template):
    ids = ids_of(template, "</s><s>the sheep" + loc(1, 2, 3, 4) + loc(5, 6, 7, 8) + "cat" + loc(9, 10, 11, 12) + "</s>")
    probabilities = certain(template, ids, {"the sheep": 0.5, "cat": 0.25})
    seven = ids.index(template.first_location_id + 7)
    probabilities.locations[seven] = spread({7: 0.5, 500: 0.5})[0]
    result = template.parse(ids, "<OD>", (100, 100), probabilities=probabilities)
    assert result.labels == ("the sheep", "the sheep", "cat")  # a label in front of two boxes counts for each
    np.testing.assert_allclose(result.scores, [0.5, 0.25, 0.25])
    assert result.scores.dtype == np.float64


def test_scores_of_quads_and_polygons(template):
    ids = ids_of(template, "cat" + loc(*SQUARE))
    probabilities = certain(template, ids, {"cat": 0.5})
    probabilities.locations[len(ids) - 1] /= 4  # the fourth point's y: 4 / 8 of its power counts
    for task in ("<OCR_WITH_REGION>", SEGMENTATION):
        result = template.parse(ids, task, (100, 100), probabilities=probabilities)
        np.testing.assert_allclose(result.scores, [0.5 * 0.25**0.5])


def test_an_empty_answer_has_no_scores_where_they_are_known(template):
    ids = ids_of(template, "cat")
    result = template.parse(ids, "<OD>", (100, 100), probabilities=certain(template, ids, {}))
    assert (result.scores.shape, result.scores.dtype) == ((0,), np.float64)
