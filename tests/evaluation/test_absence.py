"""Whether a model answers nothing where nothing is, with answers whose scores are known."""

import functools
import json
import math

import numpy as np
import pytest
from support import boxes

from florence_lab.data.examples import Example
from florence_lab.evaluation import (
    AbsenceAnswer,
    AbsenceEvaluation,
    AbsenceQuestion,
    ask_absence,
    evaluate_absence,
    evaluator,
)
from florence_lab.evaluation.absence import absence_metrics
from florence_lab.exceptions import ArgumentError, ArgumentTypeError, DatasetError, ImageError
from florence_lab.scenes import sample_path
from florence_lab.template.prompts import build_prompt

OVD = "<OPEN_VOCABULARY_DETECTION>"
NAMES = {"a": ["dog", "ball"], "b": ["cat", "sun"], "c": ["tree"]}
SCORES = {"dog": 0.9, "ball": 0.6, "cat": 0.8, "sun": 0.0, "tree": 0.7}
"""Name -> the score with which a stub finds it in any image; it never finds the sun."""


def question(name, is_present, strategies=("random",), image="a.png", task=""):
    return AbsenceQuestion(image, (100, 100), "row 1", name, is_present, strategies, task)


def find(name, score):
    """A box with a score; none for a score of 0."""
    return boxes((name, 0, 0, 10, 10), scores=[score]) if score else boxes(scores=[])


def answer(is_present, score, **options):
    return AbsenceAnswer(question("dog", is_present, **options), OVD, find("dog", score))


@pytest.fixture
def examples():
    def labels(names):
        return "".join(f"{name}<loc_0><loc_0><loc_500><loc_500>" for name in names)

    return [
        Example(f"{i}.png", build_prompt("<OD>"), labels(names), f"row {i}", (100, 100)) for i, names in NAMES.items()
    ]


@pytest.fixture
def asked(monkeypatch):
    """Answer by `SCORES`, without a model, and record the queries."""
    queries = []

    def predict(predictor, examples, batch_size, **kwargs):
        queries.extend((example.image, example.prompt.query) for example in examples)
        return [find(example.prompt.text, SCORES.get(example.prompt.text, 0)) for example in examples]

    monkeypatch.setattr(evaluator, "predict_examples", predict)
    return queries


# metrics


@pytest.mark.parametrize(
    ("present", "absent", "expected"),
    [
        ((0.9, 0.8), (0, 0), {"accuracy": 1, "AUROC": 1, "no_target_accuracy": 1, "yes_ratio": 0.5, "F1": 1}),
        ((0.9, 0.8), (0.7, 0.1), {"accuracy": 0.5, "AUROC": 1, "precision": 0.5, "recall": 1, "yes_ratio": 1}),
        ((0.9, 0.3), (0.5, 0), {"accuracy": 0.75, "AUROC": 0.75, "precision": 2 / 3, "recall": 1, "F1": 0.8}),
        ((0.9, 0), (0.5, 0), {"accuracy": 0.5, "AUROC": 0.625, "precision": 0.5, "recall": 0.5, "F1": 0.5}),
        ((0.5, 0.5), (0.5, 0.5), {"AUROC": 0.5, "no_target_accuracy": 0}),
        ((0, 0), (0, 0), {"accuracy": 0.5, "AUROC": 0.5, "precision": math.nan, "recall": 0, "F1": 0}),
        ((0.9,), (), {"recall": 1, "AUROC": math.nan, "no_target_accuracy": math.nan, "absent": 0}),
        ((), (0.9, 0), {"recall": math.nan, "AUROC": math.nan, "no_target_accuracy": 0.5, "present": 0}),
        ((), (), {"accuracy": math.nan, "F1": math.nan, "yes_ratio": math.nan}),
    ],
)
def test_metrics_are_those_of_pope(present, absent, expected):
    metrics = absence_metrics([*(answer(True, s) for s in present), *(answer(False, s) for s in absent)])
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, nan_ok=True)


def test_the_area_under_the_curve_counts_ordered_pairs():
    rng = np.random.default_rng(0)
    scores, is_present = rng.random(40).round(1), rng.random(40) < 0.4
    pairs = [(p > a) + 0.5 * (p == a) for p in scores[is_present] for a in scores[~is_present]]
    metrics = absence_metrics([answer(bool(p), s) for p, s in zip(is_present, scores, strict=True)])
    assert metrics["AUROC"] == pytest.approx(np.mean(pairs), abs=1e-6)


@pytest.mark.parametrize(
    ("result", "score"),
    [
        (boxes(), 0),
        (boxes(scores=[]), 0),
        (boxes(("dog", 0, 0, 9, 9), ("dog", 1, 1, 9, 9), scores=[0.2, 0.7]), 0.7),
        (boxes(("dog", 0, 0, 9, 9)), 1),  # without scores
    ],
)
def test_the_score_of_an_answer_is_the_highest_one(result, score):
    assert AbsenceAnswer(question("dog", True), OVD, result).score == score


# asking


def test_a_question_of_several_strategies_is_asked_once_and_counts_in_each(small, asked):
    questions = [
        question("dog", True, ("random", "popular")),
        question("sun", False, ("random",)),
        question("cat", False, ("popular",)),
        question("dog", True, ("dataset",), task=OVD),
    ]
    evaluation = ask_absence(small, questions, [OVD])
    assert asked == [("a.png", f"{OVD}{name}") for name in ("dog", "sun", "cat")]
    table = evaluation.to_dataframe()
    assert table.strategy.tolist() == ["random", "popular", "dataset"]
    assert table.accuracy.tolist() == [1, 0.5, 1]


def test_all_tasks_are_asked(small, asked, examples):
    evaluation = evaluate_absence(small, examples, names=["rocket"])
    table = evaluation.to_dataframe()
    assert len(table) == 3 * 4
    assert set(table.task) == {"<CAPTION_TO_PHRASE_GROUNDING>", OVD, "<REFERRING_EXPRESSION_SEGMENTATION>"}
    given = table[table.strategy == "names"]
    assert given.no_target_accuracy.tolist() == [1, 1, 1]
    assert given.recall.max() <= 1
    assert evaluation.settings["model"] == small.name


def test_questions_of_one_task_are_asked_with_it_only(small, asked):
    ask_absence(small, [question("dog", False, ("dataset",), task="<CAPTION_TO_PHRASE_GROUNDING>")])
    assert asked == [("a.png", "<CAPTION_TO_PHRASE_GROUNDING>dog")]


def test_images_that_cannot_be_read_are_errors(small):
    evaluation = ask_absence(small, [question("dog", True, image="missing.png")])
    assert (len(evaluation.answers), len(evaluation.errors)) == (0, 3)
    assert "missing.png" in str(evaluation.errors[0].error)


def test_a_model_answers(small):
    """Without a stub, all three tasks."""
    questions = [question("dog", present, image=str(sample_path("sheep"))) for present in (True, False)]
    evaluation = ask_absence(small, questions, max_new_tokens=6)
    assert len(evaluation.answers) == 6
    assert all(0 <= answer.score <= 1 for answer in evaluation.answers)


# other methods


def test_methods_are_measured_beside_the_tasks(small, examples, asked, monkeypatch):
    monkeypatch.setattr("florence_lab.evaluation.absence.load_image_source", lambda source: source)

    def detect(image, names, known):
        found = [name for name in names if name in known]
        return boxes(*[(name, 0, 0, 10, 10) for name in found], scores=[0.5] * len(found))

    methods = {"everything": functools.partial(detect, known=SCORES), "nothing": functools.partial(detect, known=())}
    evaluation = evaluate_absence(small, examples, [OVD], ["random"], methods=methods)
    table = evaluation.to_dataframe().set_index("task")
    assert table.index.tolist() == [OVD, "everything", "nothing"]
    assert table.yes_ratio[["everything", "nothing"]].tolist() == [1, 0]
    alone = evaluate_absence(small, examples, (), ["random"], methods=methods).to_dataframe()
    assert alone.task.tolist() == ["everything", "nothing"]


def test_all_names_of_an_image_are_passed_to_a_method_together(small):
    calls = []

    def ask(image, names):
        calls.append((image.size, names))
        return boxes()

    image = str(sample_path("sheep"))
    questions = [question(name, False, image=image) for name in ("dog", "cat", "dog")]
    questions += [question("sun", False, image=image, task="<CAPTION_TO_PHRASE_GROUNDING>")]
    assert len(ask_absence(small, questions, (), {"ask": ask}).answers) == 3
    assert [names for _, names in calls] == [["dog", "cat"]]


def test_a_method_that_fails_for_an_image_is_an_error_of_its_questions(small):
    evaluation = ask_absence(small, [question("dog", True)], (), {"ask": lambda image, names: boxes()})
    assert [type(failed.error) for failed in evaluation.errors] == [ImageError]


def test_a_method_without_instances_is_refused(small):
    questions = [question("dog", True, image=str(sample_path("sheep")))]
    with pytest.raises(ArgumentTypeError, match=r"the method 'ask' must return instances.*'a dog'"):
        ask_absence(small, questions, (), {"ask": lambda image, names: "a dog"})


# results


def evaluation_of(*scores):
    answers = [answer(i % 2 == 0, score) for i, score in enumerate(scores)]
    answers += [answer(i % 2 == 0, score, strategies=("dataset",)) for i, score in enumerate(reversed(scores))]
    return AbsenceEvaluation("model", answers)


def test_the_roc_plot_has_a_curve_for_each_strategy_and_a_point_for_the_model_as_it_comes():
    figure = evaluation_of(0.9, 0.5, 0.3, 0).plot_roc()
    (ax,) = figure.axes
    curve, point = ax.lines[0], ax.lines[1]
    assert curve.get_xydata().tolist() == [[0, 0], [0, 0.5], [0.5, 0.5], [0.5, 1], [1, 1]]
    assert point.get_xydata().tolist() == [[0.5, 1]]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["random, AUROC 0.750", "dataset, AUROC 0.250"]
    assert ax.get_title() == OVD
    assert figure.to_png().startswith(b"\x89PNG")


@pytest.mark.parametrize("scores", [(), (0.5,)])
def test_the_roc_plot_without_present_or_absent_things_is_empty(scores):
    answers = [answer(True, score) for score in scores]
    assert AbsenceEvaluation("model", answers).plot_roc().to_png().startswith(b"\x89PNG")


def test_saving_writes_metrics_answers_and_the_plot(tmp_path):
    evaluation = evaluation_of(0.9, 0.5, 0.3, 0)
    for _ in range(2):
        evaluation.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["absence.json", "absence.jsonl", "roc.png"]
    written = json.loads((tmp_path / "absence.json").read_text())
    assert [row["strategy"] for row in written["metrics"]] == ["random", "dataset"]
    assert written["metrics"][0]["AUROC"] == 0.75
    rows = [json.loads(line) for line in (tmp_path / "absence.jsonl").open()]
    assert len(rows) == 8
    assert rows[0]["name"] == "dog"
    assert rows[0]["score"] == 0.9
    assert rows[0]["is_present"] is True


def test_an_undefined_metric_is_null_in_the_file(tmp_path):
    AbsenceEvaluation("model", [answer(True, 0.5)]).save(tmp_path)
    (row,) = json.loads((tmp_path / "absence.json").read_text(), parse_constant=pytest.fail)["metrics"]
    assert row["AUROC"] is None


# refused


def test_a_dataset_without_boxes_is_refused_before_the_model_runs(small, make_example, asked):
    with pytest.raises(DatasetError, match="no boxes with labels"):
        evaluate_absence(small, [make_example("<CAPTION>", "a dog")])
    assert asked == []


@pytest.mark.parametrize(
    "arguments", [{"names": [""]}, {"tasks": ["<CAPTION>"]}, {"methods": {"x": 3}}, {"batch_size": 0}]
)
def test_invalid_arguments_are_refused(small, examples, asked, arguments):
    with pytest.raises(ArgumentError):
        evaluate_absence(small, examples, **arguments)
    assert asked == []
