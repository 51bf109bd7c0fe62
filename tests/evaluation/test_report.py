"""The HTML report."""

import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from florence_lab.evaluation import Evaluation, Prediction, compare_predictions, write_report
from florence_lab.evaluation.evaluator import FailedExample
from florence_lab.exceptions import ImageError


class Tags(HTMLParser):
    """Counts tags, and fails at one that is not closed in order."""

    void = ("img", "meta", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.counts = [], {}
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def evaluation(make_example):
    """One right and two wrong answers."""
    found = "dog<loc_0><loc_0><loc_500><loc_500>"
    examples = [
        make_example("<OD>", found),
        make_example("<OD>", "cat<loc_500><loc_500><loc_900><loc_900>", source="<b>row</b> 2"),
        make_example("<CAPTION>", "a <script> & a cat"),
    ]
    predictions = [examples[0].ground_truth, examples[0].ground_truth, make_example("<CAPTION>", "a dog").ground_truth]
    failed = FailedExample(make_example("<OD>", source="row 9"), ImageError("gone.png does not exist"))
    return Evaluation("model <x>", examples, predictions, [failed])


def test_the_report_is_one_file_without_scripts(evaluation, tmp_path):
    text = write_report(evaluation, tmp_path / "report.html").read_text(encoding="utf-8")
    tags = Tags(text)
    assert "script" not in tags.counts
    assert not re.search(r"(?:src|href)='(?!data:)", text)
    assert "model &lt;x&gt;" in text
    assert "&lt;b&gt;row&lt;/b&gt; 2" in text
    assert "gone.png does not exist" in text


def test_wrong_answers_are_shown_beside_their_truth(evaluation, tmp_path):
    text = write_report(evaluation, tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count("<div class='pair'>") == 2
    assert text.count("image/jpeg") == 4
    assert "score 0.00" in text
    assert "a &lt;script&gt; &amp; a cat" in text


def test_classes_errors_and_scores_of_instances_are_shown(evaluation, tmp_path):
    text = write_report(evaluation, tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count("Kinds of errors") == text.count("By class") == text.count("image/png") == 1


def test_a_comparison_is_shown(evaluation, tmp_path):
    rows = [Prediction(source=f"row {i}", task="<OD>", score=1) for i in range(3)]
    comparisons = compare_predictions(rows, rows)
    text = write_report(evaluation, tmp_path / "report.html", comparisons).read_text(encoding="utf-8")
    assert "Compared with another run" in text
    Tags(text)


def test_an_image_that_is_gone_leaves_the_text(make_example, tmp_path, caplog):
    image = tmp_path / "image.png"
    Image.new("RGB", (64, 64)).save(image)
    example = make_example("<CAPTION>", "a cat", image=str(image))
    image.unlink()
    evaluation = Evaluation("m", [example], [make_example("<CAPTION>", "a dog").ground_truth])
    text = write_report(evaluation, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "a dog" in text
    assert "cannot be drawn" in caplog.text
    Tags(text)


def test_nothing_gives_an_empty_report(tmp_path):
    Tags(write_report(Evaluation("m", [], []), tmp_path / "report.html").read_text(encoding="utf-8"))
