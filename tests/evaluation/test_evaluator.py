"""Evaluating a model on examples."""

import json
import logging
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from florence_lab.cli import main
from florence_lab.evaluation import (
    SCENE_METRIC_SUITES,
    Evaluation,
    evaluate,
    metric_names,
    read_predictions,
    scene_examples,
)
from florence_lab.scenes import HELD_OUT_SEEDS
from florence_lab.tasks import FREE_QUESTION, TASKS

SHORT = {"max_new_tokens": 4}
MIXED = ["<OD>", "<CAPTION>", "<REGION_TO_CATEGORY>"]


@pytest.fixture
def examples():
    """Three tasks about each of five scenes."""
    return list(scene_examples(HELD_OUT_SEEDS[:5], MIXED, size=64))


def test_examples_keep_their_order(small, examples):
    evaluation = evaluate(small, examples, batch_size=2, **SHORT)
    assert evaluation.examples == examples
    assert [p.task for p in evaluation.predictions] == MIXED * 5


def test_predictions_equal_those_of_predict(small, examples):
    for example, prediction in zip(examples, evaluate(small, examples, **SHORT).predictions, strict=True):
        task, text = example.prompt.task.token, example.prompt.text
        assert prediction.raw == small.predict(example.load_image(), task, text, **SHORT).raw


def test_each_image_is_encoded_once(small, examples, monkeypatch):
    encoded = []
    encode = small.encode_image
    monkeypatch.setattr(small, "encode_image", lambda image: encoded.append(image) or encode(image))
    evaluate(small, examples, batch_size=2, **SHORT)
    assert sum(isinstance(image, Image.Image) for image in encoded) == 5


def test_predictions_do_not_hold_images(small, examples):
    assert all(prediction.image is None for prediction in evaluate(small, examples, **SHORT).predictions)


def test_examples_are_read_a_batch_at_a_time(small, examples, monkeypatch):
    """A dataset of any size fits in memory."""
    pending, most_pending = set(), 0
    predict_batch = small.predict_batch

    def read():
        nonlocal most_pending
        for example in examples:
            pending.add(example.image)
            most_pending = max(most_pending, len(pending))
            yield example

    def predict(*args, **kwargs):
        pending.clear()
        return predict_batch(*args, **kwargs)

    monkeypatch.setattr(small, "predict_batch", predict)
    evaluate(small, read(), batch_size=2, **SHORT)
    assert most_pending <= 3  # the first example of the next image ends the batch


def test_examples_without_prediction_are_errors(small, make_example, caplog):
    valid = make_example("<CAPTION>")
    missing = make_example("<CAPTION>", image="missing.png", source="train.jsonl, row 2")
    too_long = make_example("<CAPTION_TO_PHRASE_GROUNDING>" + "a sheep " * 1000)
    with caplog.at_level(logging.WARNING):
        evaluation = evaluate(small, [missing, too_long, valid], **SHORT)
    assert evaluation.examples == [valid]
    assert [example for example, _ in evaluation.errors] == [missing, too_long]
    assert "missing.png does not exist" in str(evaluation.errors[0].error)
    assert "2 examples have no prediction; the first is train.jsonl, row 2" in caplog.text


def test_a_batch_size_below_one_is_refused(small):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        evaluate(small, [], batch_size=0)


def test_no_examples_give_no_metrics(small):
    assert evaluate(small, []).metrics == {}


def test_free_form_questions_are_evaluated(small, make_example, tmp_path):
    question = make_example("What is it?", "a cat")
    evaluation = evaluate(small, [question], **SHORT)
    prediction = evaluation.predictions[0]
    assert prediction.phrase == "What is it?"
    right = Evaluation("right", [question], [replace(prediction, text="a cat")])
    assert right.metrics == {"": {"accuracy": 1}}
    assert right.flat_metrics() == {"question/accuracy": 1}
    assert right.to_dataframe().task.tolist() == ["question"]
    assert json.loads((right.save(tmp_path) / "metrics.json").read_text())["metrics"] == {"": {"accuracy": 1}}


def test_a_registered_task_is_evaluated(small, make_example, sixteenth_task, tmp_path):
    example = make_example("<COUNT_BOXES>cars", "car<loc_0><loc_0><loc_500><loc_500>")
    evaluation = evaluate(small, [example], **SHORT)
    assert evaluation.predictions[0].task == sixteenth_task.token
    evaluation.save(tmp_path)
    assert read_predictions(tmp_path / "answers.jsonl")[0].query == "<COUNT_BOXES>cars"
    right = Evaluation("right", [example], [example.ground_truth])
    assert right.metrics["<COUNT_BOXES>"]["mAP@0.5"] == pytest.approx(1)


def test_metric_names_are_those_of_flat_metrics(scene_sample):
    evaluation = Evaluation("truth", scene_sample, [e.ground_truth for e in scene_sample])
    assert metric_names(TASKS.values()) == list(evaluation.flat_metrics())
    assert metric_names([FREE_QUESTION]) == ["question/accuracy"]
    assert metric_names([TASKS["<CAPTION>"]], SCENE_METRIC_SUITES) == ["CAPTION/object_accuracy"]


def test_sample_scores_find_the_wrong_prediction(scene_sample):
    predictions = [e.ground_truth for e in scene_sample]
    wrong = next(i for i, e in enumerate(scene_sample) if e.prompt.task.token == "<REGION_PROPOSAL>")
    predictions[wrong] = predictions[wrong][:0]
    evaluation = Evaluation("nearly", scene_sample, predictions, (), SCENE_METRIC_SUITES)
    assert np.flatnonzero(evaluation.sample_scores < 1).tolist() == [wrong]


def test_the_worst_predictions_come_first(make_example):
    examples = [make_example("<CAPTION>", "a dog", source=f"row {i}") for i in range(3)]
    examples += [make_example("<OD>", "dog<loc_0><loc_0><loc_500><loc_500>")]
    answers = ["a dog", "a cat", "no idea"]
    predictions = [replace(e.ground_truth, text=t) for e, t in zip(examples, answers, strict=False)]
    figure = Evaluation("m", examples, [*predictions, examples[3].ground_truth]).plot_worst(1, num_per_task=2)
    texts = " ".join(text.get_text() for ax in (figure, *figure.axes) for text in ax.texts)
    assert "<CAPTION>" in texts
    assert "<OD>" not in texts
    assert len(figure.axes) == 2


def test_an_undefined_metric_is_null_in_files_and_a_dash_in_the_table(make_example, tmp_path):
    nothing = make_example("<CAPTION>")
    evaluation = Evaluation("model", [nothing], [nothing.ground_truth])
    assert math.isnan(evaluation.metrics["<CAPTION>"]["rouge_l"])
    written = json.loads((evaluation.save(tmp_path) / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert written["metrics"]["<CAPTION>"]["rouge_l"] is None
    row = json.loads((tmp_path / "answers.jsonl").read_text(), parse_constant=pytest.fail)
    assert row["agreement"] is row["score"] is None
    assert evaluation.to_dataframe().to_string(na_rep="-").count(" -") == 1


def test_saving_replaces_what_an_earlier_evaluation_wrote(make_example, tmp_path):
    example = make_example("<CAPTION>", "a cat")
    for _ in range(2):
        Evaluation("model", [example], [example.ground_truth]).save(tmp_path)
    assert len(read_predictions(tmp_path / "answers.jsonl")) == 1
    assert (tmp_path / "worst.png").read_bytes().startswith(b"\x89PNG")


def test_the_answers_are_saved_even_if_the_picture_cannot_be_drawn(make_example, tmp_path, caplog):
    image = tmp_path / "image.png"
    Image.new("RGB", (64, 64)).save(image)
    example = make_example("<CAPTION>", "a cat", image=str(image))
    evaluation = Evaluation("model", [example], [example.ground_truth])
    image.unlink()
    evaluation.save(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["answers.jsonl", "metrics.json"]
    assert "worst.png could not be drawn: " in caplog.text


def test_an_evaluation_that_cannot_be_written_leaves_the_earlier_one(make_example, tmp_path, monkeypatch):
    example = make_example("<CAPTION>", "a cat")
    evaluation = Evaluation("model", [example], [example.ground_truth])
    evaluation.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("florence_lab.evaluation.evaluator.write_predictions", fail)
    with pytest.raises(OSError, match="No space left"):
        evaluation.save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_evaluation_records_its_settings(small, examples, tmp_path):
    evaluation = evaluate(small, examples, num_beams=1, **SHORT)
    evaluation.save(tmp_path)
    recorded = json.loads((tmp_path / "answers.settings.json").read_text())
    assert recorded == evaluation.settings
    assert (recorded["model"], recorded["generation"]["num_beams"]) == (small.name, 1)
    replace(evaluation, settings=None).save(tmp_path)
    assert not (tmp_path / "answers.settings.json").exists()


def test_failed_examples_are_saved_with_their_error(small, make_example, tmp_path):
    evaluate(small, [make_example("<CAPTION>", image="missing.png")], **SHORT).save(tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["errors"] == 1
    assert "missing.png does not exist" in read_predictions(tmp_path / "answers.jsonl")[0].error


def test_the_command_prints_metrics_and_writes_them_with_all_predictions(tmp_path, capsys):
    arguments = ["--dataset", "scenes:2", "--tasks", "OD", "<CAPTION>", "--out", str(tmp_path / "out")]
    assert main(["eval", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "mAP@0.5" in printed
    assert "object_accuracy" in printed
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (written["model"], written["questions"]) == ("florence-2-nano", 4)
    assert set(written["metrics"]) == {"<OD>", "<CAPTION>"}
    rows = [json.loads(line) for line in (tmp_path / "out" / "answers.jsonl").open()]
    assert [(row["image"], row["task"]) for row in rows] == [(s, t) for s in "01" for t in ("<OD>", "<CAPTION>")]
    assert all(row["truth"] and row["answer"] and 0 <= row["agreement"] <= 1 for row in rows)


def test_the_command_passes_on_the_number_of_beams(tmp_path, monkeypatch):
    from florence_lab.evaluation import evaluator

    num_beams = []

    def predict(predictor, examples, batch_size, **kwargs):
        num_beams.append(kwargs.get("num_beams"))
        return [example.ground_truth for example in examples]

    monkeypatch.setattr(evaluator, "predict_examples", predict)
    arguments = ["eval", "--dataset", "scenes:1", "--tasks", "CAPTION", "--out", str(tmp_path)]
    assert main([*arguments, "--num_beams", "3"]) == main(arguments) == 0
    assert num_beams == [3, None]


@pytest.mark.parametrize("dataset", ["scenes:0", "Scenes", "rows.csv", "missing.jsonl"])
def test_the_command_refuses_an_unusable_dataset_before_it_loads_a_model(dataset, capsys):
    assert main(["eval", "--dataset", dataset, "--model_type", "florence-2-large"]) == 2
    assert dataset in capsys.readouterr().err


def test_the_command_reads_a_file_whose_name_begins_with_scenes(tmp_path, capsys, monkeypatch):
    """`scenes_val.jsonl` was taken for the suite of scenes."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (32, 32)).save("image.png")
    (tmp_path / "scenes_val.jsonl").write_text(
        json.dumps({"query": "<CAPTION>", "response": "a black square", "images": ["image.png"]}) + "\n"
    )
    assert main(["eval", "--dataset", "scenes_val.jsonl", "--out", str(tmp_path / "out")]) == 0
    assert "rouge_l" in capsys.readouterr().out
