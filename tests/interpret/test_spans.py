"""Splitting answers into words and shapes."""

import numpy as np
import pytest

from florence_lab.interpret.spans import split_spans, split_words
from florence_lab.template import Prompt


def spans_of(predictor, raw, task):
    ids = predictor.processor.tokenizer(raw).input_ids
    token_spans = predictor.template.split_tokens(ids)
    return list(split_spans(predictor.processor.tokenizer, ids, token_spans, Prompt.from_task(task), (1000, 1000)))


@pytest.mark.parametrize(
    ("raw", "task", "texts"),
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
            ["polygon 1", "polygon 2"],
        ),
        (
            "cat<poly><loc_1><loc_2><loc_3><loc_4><loc_5><loc_6></poly>",
            "<OPEN_VOCABULARY_DETECTION>",
            ["cat", "polygon 1"],
        ),
        ("cat<loc_1><loc_2><loc_3><loc_4>", "<OPEN_VOCABULARY_DETECTION>", ["cat", "box 1"]),
        ("cat<loc_1><loc_2><loc_3>", "<OD>", ["cat", "box 1"]),  # truncated
        ("a box<loc_1><loc_2><loc_3><loc_4>", "<REGION_TO_DESCRIPTION>", ["a", "box", "box 1"]),
        ("", "<OD>", []),
    ],
)
def test_an_answer_is_split_by_the_kind_of_its_task(nano, raw, task, texts):
    spans = spans_of(nano, raw, task)
    assert [span.text for span in spans] == texts
    assert [span.kind for span in spans] == [text.split()[0] if text[-1].isdigit() else "word" for text in texts]
    assert all((span.points is None) == (span.kind == "word") for span in spans)


def test_a_box_has_its_corners_clockwise_in_pixels(nano):
    _, box = spans_of(nano, "cat<loc_10><loc_20><loc_30><loc_40>", "<OD>")
    assert box.points.tolist() == [[10.5, 20.5], [30.5, 20.5], [30.5, 40.5], [10.5, 40.5]]


def test_a_polygon_has_its_vertices_in_pixels(nano):
    (polygon,) = spans_of(nano, "<loc_1><loc_2><loc_3><loc_4><loc_5><loc_6>", "<REGION_TO_SEGMENTATION>")
    np.testing.assert_allclose(polygon.points, [[1.5, 2.5], [3.5, 4.5], [5.5, 6.5]])


def test_positions_index_the_generated_tokens(detection):
    for span in detection.spans:
        text = "".join(detection.tokens[i] for i in span.positions)
        assert text.count("<loc_") == 4 if span.kind == "box" else text.strip() == span.text


def test_words_exclude_punctuation(caption):
    assert " ".join(span.text for span in caption.spans) == caption.result.text.replace(",", "").replace(".", "")


def test_shapes_are_those_of_the_result(detection):
    boxes = [span for span in detection.spans if span.kind == "box"]
    assert [box.text for box in boxes] == [f"box {i + 1}" for i in range(len(detection.result))]
    for span, box in zip(boxes, detection.result.boxes, strict=True):
        np.testing.assert_allclose([*span.points[0], *span.points[2]], box)


def test_a_text_is_split_into_lower_case_words():
    assert split_words(" Four sheep, in a Field! ") == ["four", "sheep", "in", "a", "field"]
    assert split_words("!, .") == []
