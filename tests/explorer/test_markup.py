"""The HTML of the panel: what it shows, and that it escapes all text."""

import dataclasses
import re
from html import unescape

import numpy as np
import pytest

from florence_lab.explorer import markup
from florence_lab.results import Boxes, Text

EVIL = "<img src=x onerror=alert(1)>"


def strip_tags(html):
    return unescape(re.sub("<[^>]+>", " ", html)).strip()


@pytest.fixture
def boxes():
    return Boxes(
        raw=EVIL,
        image_size=(8, 8),
        task="<OD>",
        labels=["", EVIL],
        boxes=np.array([[1, 2, 3, 4]] * 2, float),
        scores=np.array([0.25, 1]),
    )


def test_location_tokens_are_colored_by_axis_and_the_text_is_escaped():
    html = markup.color_tokens("<b>a&b<loc_1><loc_22><poly><loc_333>")
    assert unescape(re.sub("</?span[^>]*>", "", html)) == "<b>a&b<loc_1><loc_22><poly><loc_333>"
    assert re.findall('class="([^"]+)"', html) == ["x", "y", "mark", "x"]
    assert "<b>" not in html


def test_a_table_has_a_row_for_each_instance(boxes):
    rows = re.findall("<tr><td>.*?</tr>", markup.render_result(boxes))
    assert strip_tags(rows[0]).split() == ["1", "–", "0.25", "1", "2", "3", "4"]
    assert len(rows) == 2


def test_empty_results_say_so():
    empty = Boxes(raw="", image_size=(8, 8), labels=[], boxes=np.zeros((0, 4)))
    assert strip_tags(markup.render_result(empty)) == "No instances."
    assert strip_tags(markup.render_result(Text(raw="", image_size=(8, 8), text=""))) == "The answer is empty."


def test_a_table_of_tasks_has_labels_and_scores(boxes):
    rows = re.findall("<tr><td.*?</tr>", markup.render_tasks([boxes]))
    assert strip_tags(rows[0]).split()[:3] == ["<OD>", "–", "0.25"]


@pytest.mark.parametrize(
    "html",
    [
        markup.heading(EVIL),
        markup.hint(EVIL),
        markup.status_line("error", EVIL),
        markup.render_pending_title(EVIL),
        markup.render_result(Text(raw=EVIL, image_size=(8, 8), text=EVIL)),
        markup.render_tasks([Text(raw=EVIL, image_size=(8, 8), text=EVIL, task=EVIL)]),
        markup.render_downloads({EVIL: ("text/plain", b"")}),
    ],
)
def test_text_is_escaped(html):
    assert "<img" not in html
    assert "&lt;img" in html


def test_labels_are_escaped(boxes):
    assert "<img" not in markup.render_result(boxes) + markup.render_tasks([boxes])


def test_lines_without_text_are_empty():
    assert markup.hint("") == markup.status_line("note", "") == ""


def test_the_style_sheet_has_a_thumbnail_of_each_sample():
    from florence_lab.scenes import SAMPLES

    css = markup.style_sheet()
    assert all(f".fl-sample-{name} {{ background-image: url(data:image/jpeg;base64," in css for name in SAMPLES)


def test_a_truncated_answer_has_a_notice(boxes):
    truncated = dataclasses.replace(boxes, truncated=True)
    assert "truncated" not in markup.render_result(boxes)
    assert "The answer is truncated" in strip_tags(markup.render_result(truncated))
    assert "(<OD>)" in strip_tags(markup.render_tasks([boxes, truncated]))
