"""The everyday metrics and the official numbers of a COCO file."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from florence_lab.cli import main
from florence_lab.cli.evaluation import evaluate_dataset
from florence_lab.data.datasets import load_examples
from florence_lab.data.validation import RowValidator
from florence_lab.evaluation import Evaluation
from florence_lab.evaluation.coco_file import coco_file_scores
from florence_lab.evaluation.evaluator import FailedExample
from florence_lab.exceptions import ImageError
from florence_lab.template.template import FlorenceTemplate

BOXES = {  # image -> (category, box, crowd); pixels that 1,000 bins of 640 pixels do not hit
    1: [(1, [100.3, 50.7, 6.1, 6.3], 0), (2, [200.1, 80.9, 8.2, 7.7], 0), (1, [20.4, 20.6, 300.2, 200.8], 0)],
    2: [(1, [0, 0, 600, 400], 1), (2, [300.7, 100.2, 12.4, 9.1], 0)],
    3: [],
    4: [(2, [635.2, 470.1, 4.8, 9.9], 0)],
}


@pytest.fixture
def coco(tmp_path):
    """Four images with crowds, tiny objects, and one without objects."""
    images = [{"id": i, "file_name": f"{i}.png", "width": 640, "height": 480} for i in BOXES]
    for image in images:
        Image.new("RGB", (640, 480)).save(tmp_path / image["file_name"])
    annotations = [
        {"image_id": i, "category_id": category, "bbox": box, "iscrowd": crowd, "segmentation": []}
        | ({"segmentation": {"size": [480, 640], "counts": [0, 640 * 480]}} if crowd else {})
        for i, rows in BOXES.items()
        for category, box, crowd in rows
    ]
    annotations = [{"id": i, **annotation} for i, annotation in enumerate(annotations, 1)]
    categories = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    path = tmp_path / "coco.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def load(path, options="?empty=ask"):
    validator = RowValidator(FlorenceTemplate(), merge_answers=True)
    return load_examples([f"coco:{path}{options}"], validator).require_valid()


@pytest.fixture
def perfect(coco):
    """The boxes of the file as answers."""
    examples = load(coco)
    answers = [replace(e.ground_truth, scores=np.full(len(e.ground_truth), 0.9)) for e in examples]
    return Evaluation("perfect", examples, answers)


def test_a_perfect_answer_is_perfect(perfect, coco):
    """It scored 0.945 where pycocotools said 0.958: crowds were objects, and boxes passed through location tokens."""
    assert perfect.metrics["<OD>"]["mAP@[.5:.95]"] == pytest.approx(1)
    assert perfect.metrics["<OD>"]["F1@0.5"] == 1
    assert coco_file_scores(perfect, coco, coco.parent).values["AP"] == pytest.approx(1)


def test_the_boxes_are_those_of_the_file(perfect):
    found = {tuple(np.round(box, 6)) for answer in perfect.predictions for box in answer.boxes.tolist()}
    assert found == {
        tuple(np.round((x, y, x + w, y + h), 6))
        for rows in BOXES.values()
        for _, (x, y, w, h), crowd in rows
        if not crowd
    }


def test_answers_in_location_tokens_lose_on_small_objects(coco, perfect):
    """A model that writes the target exactly does not reach 1 in COCO."""
    rounded = [FlorenceTemplate().parse_text(e.target, e.prompt, e.image_size) for e in perfect.examples]
    evaluation = replace(perfect, predictions=rounded)
    assert evaluation.metrics["<OD>"]["mAP@[.5:.95]"] < 0.999
    assert coco_file_scores(evaluation, coco, coco.parent).values["AP"] == pytest.approx(
        evaluation.metrics["<OD>"]["mAP@[.5:.95]"], abs=1e-6
    )


def test_images_without_objects_are_asked_on_demand(coco):
    assert len(load(coco)) == 4
    with pytest.warns(UserWarning, match="1 of 4 images have no annotations"):
        assert len(load(coco, "")) == 3


def test_an_image_without_answer_counts_as_answered_by_nothing(perfect, coco):
    failed = FailedExample(perfect.examples[0], ImageError("gone"))
    part = replace(perfect, examples=perfect.examples[1:], predictions=perfect.predictions[1:], errors=[failed])
    assert coco_file_scores(part, coco, coco.parent).values["AR@100"] < 1
    without = replace(part, errors=[])
    assert coco_file_scores(without, coco, coco.parent).values["AR@100"] == pytest.approx(1)


def test_other_tasks_have_no_official_numbers(coco):
    evaluation = Evaluation("m", load(coco, "?tasks=REGION_PROPOSAL&empty=ask"), [])
    assert coco_file_scores(replace(evaluation, examples=[]), coco, coco.parent) is None


def test_the_command_writes_the_official_numbers_the_report_and_a_comparison(coco, tmp_path, capsys):
    arguments = ["eval", "--dataset", f"coco:{coco}", "--num_beams", "1"]
    assert main([*arguments, "--out", str(tmp_path / "a")]) == 0
    assert main([*arguments, "--out", str(tmp_path / "b"), "--compare", str(tmp_path / "a")]) == 0
    printed = capsys.readouterr().out
    assert "official numbers on the COCO file (pycocotools)" in printed
    assert "AP75" in printed
    assert "kinds of errors, <OD>" in printed
    assert "compared with the earlier run" in printed
    assert {"report.html", "coco.json", "metrics.json"} <= {path.name for path in (tmp_path / "b").iterdir()}
    json.loads((tmp_path / "b" / "coco.json").read_text(), parse_constant=pytest.fail)


def test_what_pycocotools_refuses_does_not_cost_the_answers(coco, small, monkeypatch, caplog):
    def fail(*_):
        raise KeyError("iscrowd")

    monkeypatch.setattr("florence_lab.cli.evaluation.coco_file_scores", fail)
    with caplog.at_level(logging.WARNING):
        result = evaluate_dataset(lambda: small, f"coco:{coco}", max_new_tokens=4)
    assert result.coco is None
    assert len(result.evaluation.predictions) == 4
    assert "pycocotools cannot evaluate" in caplog.text


# several references


@pytest.fixture
def captions(tmp_path):
    """A file of three captions of one image."""
    Image.new("RGB", (64, 48)).save(tmp_path / "1.png")
    annotations = [{"id": i, "image_id": 1, "caption": c} for i, c in enumerate(("a dog", "a brown dog", "one animal"))]
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "1.png"}], "annotations": annotations}))
    return path


def test_an_image_with_several_captions_is_asked_once_and_scored_by_the_closest(captions, small):
    evaluation = evaluate_dataset(lambda: small, f"coco:{captions}", max_new_tokens=4).evaluation
    (example,) = evaluation.examples
    assert (example.target, example.references) == ("a dog", ("a brown dog", "one animal"))
    answered = replace(evaluation, predictions=[replace(evaluation.predictions[0], text="One animal.")])
    assert answered.metrics["<CAPTION>"] == {"rouge_l": 1}
    assert answered.sample_scores.tolist() == [1]
    assert answered.ground_truths[0].text == "one animal"


def test_answers_of_a_list_are_references(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "1.png")
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"query": "What is it?", "response": ["cat", "a cat", ""], "images": ["1.png"]}))
    validator = RowValidator(FlorenceTemplate(), merge_answers=True)
    (example,) = load_examples([str(path)], validator).require_valid()
    assert (example.target, example.references) == ("cat", ("a cat", ""))
    assert len(load_examples([str(path)], replace(validator, merge_answers=False)).require_valid()) == 3


def test_a_folder_of_coco_has_official_numbers_on_all_its_images(coco, small):
    result = evaluate_dataset(lambda: small, str(coco.parent), max_new_tokens=4)
    assert result.coco is not None
    assert len(result.evaluation.predictions) == 4
