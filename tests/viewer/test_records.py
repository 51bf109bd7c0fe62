"""Results as the values that the front end draws."""

import json
import random
import time
from dataclasses import replace

import numpy as np
import pytest

from florence_lab.results import Boxes, Polygons, Quads, Text
from florence_lab.tasks import TASKS, Task
from florence_lab.template import FlorenceTemplate, Prompt
from florence_lab.template.locations import pixels_to_bins
from florence_lab.template.vocabulary import SEPARATORS
from florence_lab.viewer.records import answer_record, number_styles, phrase_regions, segments
from florence_lab.visualization.instances import drawable_instances
from florence_lab.visualization.style import color_and_line_style

OD, OCR, DENSE = "<OD>", "<OCR_WITH_REGION>", "<DENSE_REGION_CAPTION>"
GROUNDING, OPEN = "<CAPTION_TO_PHRASE_GROUNDING>", "<OPEN_VOCABULARY_DETECTION>"
SEGMENTATION, REGION = "<REFERRING_EXPRESSION_SEGMENTATION>", "<REGION_TO_SEGMENTATION>"
CAPTION = "the sheep and a red dog stand"
SIZE = (1000, 500)


def loc(*bins):
    return "".join(f"<loc_{n}>" for n in bins)


def parse(raw, task=OD, phrase="", size=SIZE):
    return FlorenceTemplate().parse_text(raw, Prompt.from_task(task, phrase), size)


def linked(result):
    """Return the parts of `segments` that belong to instances: [(text, instances)], with runs of locations joined."""
    runs = []
    for text, kind, instances in segments(result):
        if runs and kind in "xy" and runs[-1][1] == instances and runs[-1][0].startswith("<loc"):
            runs[-1] = (runs[-1][0] + text, instances)
        elif instances:
            runs.append((text, instances))
    return runs


A, B, C = (1, 2, 30, 40), (5, 6, 70, 80), (9, 10, 110, 120)
P, Q = (1, 1, 50, 1, 50, 60), (100, 100, 200, 100, 200, 300, 100, 300)
QUAD = (1, 2, 90, 3, 91, 40, 2, 41)


@pytest.mark.parametrize(
    ("task", "phrase", "raw", "expected"),
    [
        (OD, "", f"sheep{loc(*A)}{loc(*B)}dog{loc(*C)}",
         [("sheep", [0, 1]), (loc(*A), [0]), (loc(*B), [1]), ("dog", [2]), (loc(*C), [2])]),
        (OD, "", f"sheep{loc(30, 40, 1, 2)}", [("sheep", [0]), (loc(30, 40, 1, 2), [0])]),  # corners in another order
        (OD, "", f"sheep{loc(*A)}dog{loc(1, 2, 3)}", [("sheep", [0]), (loc(*A), [0])]),  # truncated
        (OD, "", f"{loc(*A)}", [(loc(*A), [0])]),
        (GROUNDING, CAPTION, f"the{loc(*A)}the sheep{loc(*B)}", [("the sheep", [0]), (loc(*B), [0])]),  # not groundable
        (GROUNDING, CAPTION, f"thethe sheep{loc(*B)}", [("thethe sheep", [0]), (loc(*B), [0])]),
        (OCR, "", f"EXIT{loc(*QUAD)}", [("EXIT", [0]), (loc(*QUAD), [0])]),
        (SEGMENTATION, "a dog", f"{loc(*P)}<sep>{loc(*Q)}<and>{loc(*P[::-1])}",
         [(loc(*P, *Q), [0]), (loc(*P[::-1]), [1])]),
        (SEGMENTATION, "a dog", f"{loc(*P, 7)}", [(loc(*P), [0])]),  # an x without its y
        (OPEN, "a dog", f"dog{loc(*A)}cat<poly>{loc(*Q)}</poly>",
         [("dog", [0]), (loc(*A), [0]), ("cat", [1]), (loc(*Q), [1])]),
        (OD, "", f"dog{loc(*A)}dog{loc(*A)}", [("dog", [0]), (loc(*A), [0]), ("dog", [1]), (loc(*A), [1])]),  # repeated
        (OD, "", f"sh<od>eep{loc(*A)}", [("sh", [0]), ("eep", [0]), (loc(*A), [0])]),  # a token that no answer contains
        ("<CAPTION>", "", "two sheep", []),
        ("<REGION_TO_CATEGORY>", loc(*A), f"sheep{loc(*A)}", []),
    ],
)  # fmt: skip
def test_segments_belong_to_the_instances_that_were_parsed_from_them(task, phrase, raw, expected):
    result = parse(raw, task, phrase)
    assert linked(result) == expected
    assert "".join(text for text, _, _ in segments(result)) == raw


def test_a_task_of_ones_own_is_linked_by_its_kind_of_result(monkeypatch):
    monkeypatch.setitem(TASKS, "<SIGNS>", Task("<SIGNS>", "Which signs?", "none", "quads"))
    result = parse(f"EXIT{loc(*QUAD)}", "<SIGNS>")
    assert linked(result) == [("EXIT", [0]), (loc(*QUAD), [0])]
    monkeypatch.delitem(TASKS, "<SIGNS>")  # as in another process
    assert linked(result) == [("EXIT", [0]), (loc(*QUAD), [0])]


@pytest.mark.parametrize(
    ("raw", "change", "expected"),
    [
        (f"sheep{loc(*A)}dog{loc(*B)}", lambda r: r[[1, 0]], [("sheep", [1]), ("dog", [0])]),
        (f"sheep{loc(*A)}dog{loc(*B)}", lambda r: r[r.labels == "dog"], [("dog", [0])]),
        (f"sheep{loc(*A)}dog{loc(*B)}", lambda r: r.with_labels("animal"), [("sheep", [0]), ("dog", [1])]),
        # two labels at one place: only the label tells them apart
        (f"sheep{loc(*A)}dog{loc(*A)}", lambda r: r[[1]], [("dog", [0])]),
        (f"sheep{loc(*A)}dog{loc(*A)}", lambda r: r[[1]].with_labels("animal"), []),
        # `detect` returns one box for two classes
        (f"sheep{loc(*A)}", lambda r: r[[0, 0]].with_labels(["ewe", "ram"]), [("sheep", [0, 1])]),
        (f"sheep{loc(*A)}\ndog{loc(*B)}", lambda r: r[[1]], [("\ndog", [0])]),
        (f"sheep{loc(*A)}", lambda r: replace(r, raw=""), []),
        (f"sheep{loc(*A)}", lambda r: replace(r, boxes=r.boxes + 100), []),
        (f"sheep{loc(*A)}", lambda r: replace(r, raw="sheep<lo<od>c_1>" + loc(2, 30, 40)), []),
    ],
)
def test_selections_and_other_labels_keep_their_tokens_and_no_link_is_wrong(raw, change, expected):
    found = [(text, instances) for text, instances in linked(change(parse(raw))) if "<loc" not in text]
    assert found == expected


@pytest.mark.parametrize(
    ("raw", "owners"),
    [
        (f"{loc(*A)}car{loc(*A)}", [0, 1, 2, 3]),  # the region without a label is the one that got its class
        (f"car{loc(*A)}\ngrass{loc(*B)}\n{loc(*A)}", [11, 12, 13, 14]),  # each line is an answer of its own
        (f"grass{loc(1, 2, 3)}\n{loc(*A)}", [5, 6, 7, 8]),
        (f"car{loc(*A)}\ndog{loc(*A)}", []),
    ],
)
def test_a_detection_is_linked_to_the_answer_that_it_comes_from(raw, owners):
    result = replace(parse(loc(*A)), raw=raw, labels=["sheep"], class_ids=[0], classes=("sheep",))
    assert [number for number, segment in enumerate(segments(result)) if segment[2]] == owners


def test_a_ground_truth_whose_coordinates_are_not_the_centers_of_bins_is_linked():
    result = parse(f"sheep{loc(*A)}")
    assert linked(replace(result, boxes=result.boxes + 0.2)) == linked(result)


def test_detections_with_polygons_are_linked_though_their_task_is_one_of_boxes():
    result = replace(parse(f"dog<poly>{loc(*Q)}</poly>", OPEN, "dog"), task=OD)
    assert [instances for _, instances in linked(result)] == [[0], [0]]


@pytest.mark.parametrize(
    ("raw", "kinds"),
    [
        (f"a{loc(1, 2, 3, 4)}", "text x y x y"),
        (f"a{loc(1, 2, 3)}b{loc(4)}", "text x y x text x"),
        (f"a{loc(1)} {loc(2)}", "text x text y"),  # a blank is no label
        (f"{loc(1)}<sep>{loc(2)}<od>{loc(3)}", "x mark x mark y"),
    ],
)
def test_locations_are_x_and_y_in_turn(raw, kinds):
    assert [kind for _, kind, _ in segments(parse(raw))] == kinds.split()


# every kind, at random


def random_raw(rng, task):
    words = [
        "the",
        "sheep",
        "the sheep",
        "thethe sheep",
        " red dog",
        "",
        " ",
        "a red dog",
        "\n",
        "it",
        "<od>",
        "dog, 5 %",
    ]
    parts = []
    for _ in range(rng.randrange(1, 12)):
        coordinates = {"quads": 8, "polygons": 2 * rng.randrange(2, 6)}.get(TASKS[task].result, 4)
        count = rng.choice([coordinates, coordinates, coordinates, 2 * coordinates, rng.randrange(12)])
        few = [rng.randrange(1000) for _ in range(4)]  # collisions are likely
        parts += [rng.choice(words), rng.choice(["", "", *SEPARATORS]), loc(*(rng.choice(few) for _ in range(count)))]
    return "".join(parts)


def bins_of(result, i):
    """The bins of an instance, in the order of the text but for the corners of boxes."""
    contours = result.contours[i] or (result.xyxy[i].reshape(2, 2),)
    return [n for contour in contours for n in pixels_to_bins(contour, result.image_size).ravel().tolist()]


def check_links(result):
    """Assert that what is linked to an instance says it, and return the instances that are linked."""
    record = segments(result)
    assert "".join(text for text, _, _ in record) == result.raw
    by_instance = {}
    for text, kind, instances in record:
        for i in instances:
            by_instance.setdefault(i, []).append((text, kind))
    for i, parts in by_instance.items():
        locations = [int(text[5:-1]) for text, kind in parts if kind in "xy"]
        expected = bins_of(result, i)
        if result.contours[i]:
            assert locations == expected
        else:
            assert [sorted(locations[axis::2]) for axis in (0, 1)] == [sorted(expected[axis::2]) for axis in (0, 1)]
        label = "".join(text for text, kind in parts if kind == "text")
        assert result.labels[i] in label
        assert bool(label.strip()) == bool(result.labels[i])
    return set(by_instance)


@pytest.mark.parametrize("task", [OD, DENSE, "<REGION_PROPOSAL>", GROUNDING, OPEN, OCR, SEGMENTATION, REGION])
def test_each_instance_is_linked_to_what_it_was_parsed_from(task):
    rng = random.Random(task)
    phrase = {"phrase": CAPTION, "region": loc(*A)}.get(TASKS[task].input, "")
    num_instances = 0
    for _ in range(60):
        result = parse(random_raw(rng, task), task, phrase)
        assert check_links(result) == set(range(len(result)))
        order = rng.sample(range(len(result)), rng.randrange(len(result) + 1))
        assert check_links(result[order]) == set(range(len(order)))
        num_instances += len(result)
    assert num_instances > 60


# instances, regions, styles


def boxes(labels, **fields):
    return Boxes(raw="", image_size=SIZE, labels=labels, boxes=[[0, 0, 10.04, 20.06]] * len(labels), **fields)


def instances_of(result, **settings):
    return answer_record(result, **settings)["instances"]


def test_coordinates_are_rounded_and_small_images_have_two_decimals():
    (instance,) = instances_of(boxes(["a"], scores=[0.123456]))
    assert instance["score"] == 0.123456  # the front end compares it with the threshold
    assert instance["box"] == [0, 0, 10, 20.1]
    (instance,) = instances_of(replace(boxes(["a"]), image_size=(99, 400)))
    assert instance["box"] == [0, 0, 10.04, 20.06]
    assert instance["score"] is None


@pytest.mark.parametrize(
    ("result", "contours", "filled"),
    [
        (boxes(["a"]), [], False),
        (boxes(["a"], polygons=[[np.array([[0, 0], [1, 0], [1, 1]])]]), [[0, 0, 1, 0, 1, 1]], True),
        (Quads(raw="", image_size=SIZE, labels=["a"], quads=[[(0, 0), (1, 0), (1, 1), (0, 1)]]),
         [[0, 0, 1, 0, 1, 1, 0, 1]], False),
        (Polygons(raw="", image_size=SIZE, labels=["a"], polygons=[[np.array([[0, 0], [1, 0], [1, 1]])] * 2]),
         [[0, 0, 1, 0, 1, 1]] * 2, True),
    ],
)  # fmt: skip
def test_outlines_are_lists_of_numbers_and_only_masks_are_filled(result, contours, filled):
    (instance,) = instances_of(result)
    assert (instance["contours"], instance["filled"]) == (contours, filled)


def test_an_unlabelled_instance_has_the_phrase_as_its_label():
    assert instances_of(parse(loc(*P), SEGMENTATION, "a dog"))[0]["label"] == "a dog"


@pytest.mark.parametrize(
    "result",
    [
        boxes(["b", "a", "b", "", ""]),
        boxes(["b", "a"], class_ids=[4, 2], classes=["v", "w", "a", "x", "b"]),
        boxes(["b", "a"], class_ids=[4, 2]),
        boxes([str(i) for i in range(40)]),
    ],
)
def test_styles_are_those_of_the_drawing(result):
    styles = [color_and_line_style(number) for number in number_styles(result, {})]
    assert styles == [(instance.color, instance.line_style) for instance in drawable_instances(result)]


def test_answers_with_one_numbering_agree_on_the_style_of_a_label():
    styles = {}
    first, second = instances_of(boxes(["a", "b"]), styles=styles), instances_of(boxes(["b", "c", "a"]), styles=styles)
    assert [i["style"] for i in (*first, *second)] == [0, 1, 1, 2, 0]
    styles = {}
    detected = boxes(["b"], class_ids=[4])
    assert [i["style"] for result in (detected, boxes(["a", "b"])) for i in instances_of(result, styles=styles)] == [
        4,
        5,
        4,
    ]


@pytest.mark.parametrize(
    ("task", "phrase", "words", "regions"),
    [
        ("<REGION_TO_CATEGORY>", loc(35, 474, 157, 674), "region (36, 237, 158, 337)", 1),
        (GROUNDING, "two dogs", "two dogs", 0),
        ("<DocVQA>", f"what is {loc(0, 0, 9, 9)}?", "what is region (0, 0, 10, 5)?", 1),
        ("<DocVQA>", f"what is {loc(1, 2)}?", f"what is {loc(1, 2)}?", 0),
    ],
)
def test_a_region_is_told_in_pixels_and_drawn(task, phrase, words, regions):
    record = answer_record(Text(raw="x", text="x", image_size=SIZE, task=task, phrase=phrase))
    assert record["text"] == words
    assert len(record["regions"]) == regions
    assert phrase_regions(Text(raw="", text="", image_size=SIZE, phrase=phrase)).shape == (regions, 4)


@pytest.mark.parametrize(
    ("task", "title"),
    [(OD, "Object detection"), ("", "Question"), ("<DocVQA>", "<DocVQA>"), ("<Unknown>", "<Unknown>")],
)
def test_a_task_is_named_in_words_and_an_unknown_one_by_its_token(task, title):
    assert answer_record(Text(raw="x", text="x", image_size=SIZE, task=task))["task_name"] == title


def test_a_record_has_what_the_caller_says_and_is_json():
    result = replace(parse(f"sheep{loc(*A)}"), truncated=True, scores=np.array([0.5]))
    said = {"id": 7, "image": "i", "model": "m", "times": "t", "complete": False, "task_name": "n", "text": "x"}
    record = answer_record(result, **said, regions=[(1, 2, 3, 4)])
    assert said.items() <= record.items()
    assert record["regions"] == [[1, 2, 3, 4]]
    assert record["truncated"] is True
    assert record["kind"] == "instances"
    assert json.loads(json.dumps(record)) == record


def test_a_text_is_the_answer():
    record = answer_record(parse("two sheep", "<CAPTION>"))
    assert (record["kind"], record["answer"], record["instances"]) == ("text", "two sheep", [])


def test_a_hundred_instances_take_a_few_milliseconds():
    rng = random.Random(0)
    result = parse("".join(f"label {i}{loc(*(rng.randrange(1000) for _ in range(4)))}" for i in range(100)))

    def seconds():
        start = time.perf_counter()
        answer_record(result)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(10)) < 0.02  # 0.004 on a free machine
