"""The published benchmarks on tiny files in their layouts, scored beside the official code."""

import contextlib
import importlib.util
import io
import json
import math
import pickle
import shutil

import numpy as np
import pytest
import suite_files
from support import boxes

from florence_lab.evaluation.official import captions, coco_scores
from florence_lab.evaluation.suites import SUITES, card_value, get_suite
from florence_lab.evaluation.suites.grounding import parse_sentence, rank_boxes
from florence_lab.evaluation.suites.referring import read_refs, true_mask
from florence_lab.exceptions import ArgumentError, DatasetError
from florence_lab.results import Polygons, Text

SIZE = suite_files.SIZE
needs_captions = pytest.mark.skipif(
    shutil.which("java") is None or importlib.util.find_spec("pycocoevalcap") is None,
    reason="needs Java and pycocoevalcap",
)


@pytest.fixture(autouse=True)
def _without_meteor(monkeypatch):
    """METEOR and SPICE start Java programs that take seconds."""
    monkeypatch.setattr(captions, "available_caption_metrics", lambda: ["CIDEr", "BLEU-4", "ROUGE-L"])


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    """Return the data of a suite."""
    cache = {}

    def read_suite(name, split=None):
        suite = SUITES[name]
        split = split or suite.splits[0]
        if (name, split) not in cache:
            root = suite_files.WRITERS[name](tmp_path_factory.mktemp("suite"))
            cache[name, split] = suite.read(root, split)
        return suite, cache[name, split]

    return read_suite


def text(content):
    return Text(raw=content, image_size=SIZE, text=content)


def outline(parts):
    polygons = (tuple(np.array(part, float).reshape(-1, 2) for part in parts),)
    return Polygons(raw="", image_size=SIZE, labels=[""], polygons=polygons)


def perfect(suite, data):
    """The right answer to each question."""
    if suite.name == "coco-detection":
        names = {category["id"]: category["name"] for category in data.content["categories"]}
        found = {question.group: [] for question in data.questions}
        for a in data.content["annotations"]:
            if not a["iscrowd"]:
                x, y, w, h = a["bbox"]
                found[a["image_id"]].append((names[a["category_id"]], x, y, x + w, y + h))
        return [boxes(*found[question.group], image_size=SIZE) for question in data.questions]
    answers = {
        "captions": lambda truth: text(truth["references"][0]),
        "phrases": lambda truth: boxes(*[(p.text, *box) for p in truth["phrases"] for box in p.boxes], image_size=SIZE),
        "box": lambda truth: boxes(("", *truth["box"]), image_size=SIZE),
        "mask": lambda truth: outline(truth["segmentation"]),
        "answers": lambda truth: text(max(truth["answers"], key=truth["answers"].count)),
    }
    kinds = {"references": "captions", "phrases": "phrases", "box": "box", "answers": "answers"}
    kind = "mask" if suite.name == "res" else kinds[next(key for key in kinds if key in data.questions[0].truth)]
    return [answers[kind](question.truth) for question in data.questions]


def shuffled(suite, data):
    """The right answers to other questions."""
    answers = perfect(suite, data)
    return answers[2:] + answers[:2]


def shifted(suite, data):
    """Boxes that are 20% too far to the right."""
    moved = []
    for answer in perfect(suite, data):
        width = answer.xyxy[:, 2] - answer.xyxy[:, 0]
        rows = answer.xyxy + 0.2 * width[:, None] * np.array([1, 0, 1, 0])
        moved.append(boxes(*[(name, *row) for name, row in zip(answer.labels, rows, strict=True)], image_size=SIZE))
    return moved


def values(suite, data, answers):
    return {name: estimate.value for name, estimate in suite.score(data, answers).metrics.items()}


CAPTION_SUITES = ["coco-caption", "nocaps", "textcaps"]
SCORED = {
    "coco-detection": 1,
    "flickr30k": 1,
    "refcoco": 1,
    "refcoco+": 1,
    "refcocog": 1,
    "res": 1,
    "textvqa": 0.9,
    "vqav2": 0.9,
    "docvqa": 1,
}


@pytest.mark.parametrize(("name", "bound"), SCORED.items())
def test_right_answers_score_high_and_those_to_other_questions_low(read, name, bound):
    suite, data = read(name)
    right, wrong = (values(suite, data, make(suite, data))[suite.main_metric] for make in (perfect, shuffled))
    assert right >= bound - 1e-9
    assert wrong <= 0.55
    assert values(suite, data, [None] * len(data.questions))[suite.main_metric] == 0


@pytest.mark.parametrize("make", [perfect, shuffled, shifted])
def test_detection_is_scored_by_pycocotools(read, make):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    suite, data = read("coco-detection")
    answers = make(suite, data)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = data.content
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(json.loads(json.dumps(suite.submission(data, answers)))), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    expected = [math.nan if value < 0 else value for value in evaluation.stats]
    assert list(values(suite, data, answers).values()) == pytest.approx(expected, nan_ok=True)


def test_detection_asks_about_images_without_objects_and_ignores_crowds(read):
    suite, data = read("coco-detection")
    assert [question.group for question in data.questions] == [96, 97, 98, 99, 100]
    answers = perfect(suite, data)
    answers[3] = boxes(("car", 5, 5, 13, 13), ("person", 10, 10, 30, 30), image_size=SIZE)  # within the crowd
    assert values(suite, data, answers)["AP"] == pytest.approx(1)
    answers[0] = boxes(("person", 10, 10, 30, 30), image_size=SIZE)  # there is nothing
    assert values(suite, data, answers)["AP"] < 1


def test_labels_outside_the_categories_are_shown(read):
    suite, data = read("coco-detection")
    answers = [boxes(("woman", 1, 1, 9, 9), ("zebra", 1, 1, 9, 9), image_size=SIZE), *perfect(suite, data)[1:]]
    table = suite.score(data, answers).tables["labels and their categories"]
    assert {("woman", "person"), ("zebra", "")} < set(zip(table.label, table.category, strict=True))


@needs_captions
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("textcaps", shuffled),
        *(
            pytest.param(name, make, marks=pytest.mark.slow)
            for name in CAPTION_SUITES
            for make in (perfect, shuffled)
            if (name, make) != ("textcaps", shuffled)
        ),
    ],
)
def test_captions_are_scored_by_pycocoevalcap(read, name, make):
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    suite, data = read(name)
    answers = make(suite, data)
    with contextlib.redirect_stdout(io.StringIO()):
        tokenizer = PTBTokenizer()
        rows = {row["image_id"]: [row] for row in suite.submission(data, answers)}
        truth = {q.group: [{"caption": caption} for caption in q.truth["references"]] for q in data.questions}
        truth, rows = tokenizer.tokenize(truth), tokenizer.tokenize(rows)
        expected = {
            "CIDEr": Cider().compute_score(truth, rows)[0],
            "BLEU-4": Bleu(4).compute_score(truth, rows)[0][3],
            "ROUGE-L": Rouge().compute_score(truth, rows)[0],
        }
    found = values(suite, data, answers)
    assert {metric: found[metric] for metric in expected} == pytest.approx(expected)


@needs_captions
@pytest.mark.slow
def test_nocaps_is_also_reported_by_domain(read):
    suite, data = read("nocaps")
    table = suite.score(data, perfect(suite, data)).tables["CIDEr by domain"]
    assert table.domain.tolist() == ["in-domain", "near-domain", "out-domain"]
    assert table.images.tolist() == [1, 2, 1]


# grounding


def test_phrases_and_boxes_of_flickr30k(read):
    _, data = read("flickr30k")
    sentences = [question.text for question in data.questions]
    assert sentences[0] == "The man with pierced ears is wearing glasses ."
    phrases = [[(p.text, len(p.boxes)) for p in question.truth["phrases"]] for question in data.questions]
    assert phrases == [[("The man", 1), ("pierced ears", 2), ("glasses", 1)], [("A man", 1)], [("Two black dogs", 2)]]


def test_flickr30k_counts_phrases_for_any_box_and_for_merged_boxes(read):
    """Of five phrases, two have two boxes each, whose merged box the best single one does not reach."""
    suite, data = read("flickr30k")
    found = values(suite, data, perfect(suite, data))
    assert found == {"R@1": 1, "R@5": 1, "R@10": 1} | dict.fromkeys(("merged R@1", "merged R@5", "merged R@10"), 0.6)
    assert values(suite, data, shifted(suite, data))["R@1"] == 1  # an IoU of 0.67


def test_a_missing_phrase_is_a_miss(read):
    suite, data = read("flickr30k")
    answers = perfect(suite, data)
    answers[0] = answers[0][answers[0].labels != "glasses"]
    assert values(suite, data, answers)["R@1"] == 0.8
    assert suite.submission(data, answers)[0]["boxes"][2] == [[0, 0, 0, 0]]  # the published scorer needs one


@pytest.mark.parametrize(
    ("labels", "scores", "first"),
    [
        (["a man", "A man"], None, 0),
        (["a man", "A man"], [0.2, 0.9], 1),
        (["a hat", "a man in a hat"], None, 1),
        (["hat", "man"], None, 1),
        (["a hat", "many"], None, None),
    ],
)
def test_the_boxes_of_a_phrase_are_those_of_its_label(labels, scores, first):
    answer = boxes(*[(label, i, 0, 10 + i, 10) for i, label in enumerate(labels)], scores=scores)
    ranked = rank_boxes(answer, "A man")
    assert len(ranked) == 0 if first is None else ranked[0].tolist() == [first, 0, 10 + first, 10]


def test_a_sentence_without_boxes_is_not_asked():
    assert parse_sentence("[/EN#1/people A man] sits .", {}) == ("A man sits .", [])


# referring expressions


def test_each_sentence_of_a_split_is_asked(read):
    _, data = read("refcoco")
    assert [question.text for question in data.questions] == [
        "the left one",
        "the nice one",
        "the right one",
        "the nice one",
    ]
    assert len(read("refcoco", "testA")[1].questions) == len(read("refcocog", "test")[1].questions) == 2


def test_the_box_with_the_highest_score_counts(read):
    suite, data = read("refcoco")
    right = [tuple(question.truth["box"]) for question in data.questions]
    answers = [boxes(("", 50, 40, 60, 47), ("", *box), scores=[0.3, 0.6], image_size=SIZE) for box in right]
    assert values(suite, data, answers)["accuracy@0.5"] == 1
    assert values(suite, data, [answer[:1] for answer in answers])["accuracy@0.5"] == 0


def test_accuracy_needs_an_iou_of_one_half(read):
    suite, data = read("refcoco")
    assert values(suite, data, shifted(suite, data)) == {"accuracy@0.5": 1, "mean IoU": pytest.approx(2 / 3)}


def test_masks_are_those_of_the_parts(read):
    suite, data = read("res")
    left, _, right, _ = data.questions
    assert (true_mask(left).sum(), true_mask(right).sum()) == (20 * 30, 2 * 30 * 16)
    half = [outline([[4, 4, 14, 4, 14, 34, 4, 34]]), *perfect(suite, data)[1:]]
    found = values(suite, data, half)
    assert found["mIoU"] == pytest.approx(3.5 / 4)
    assert found["cIoU"] == pytest.approx((300 + 600 + 960 + 960) / (600 + 600 + 960 + 960))
    assert (found["P@0.5"], found["P@0.6"]) == (1, 0.75)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return print, ("it ran",)

    path = tmp_path / "refs(unc).p"
    path.write_bytes(pickle.dumps([Harmful()]))
    with pytest.raises(DatasetError, match=r"contains builtins\.print, and may run code"):
        read_refs(path)


def test_refs_of_python_2_are_read(tmp_path):
    """Its texts are bytes: `(lp0\\n(dp1\\nS'ref_id'…`."""
    fields = "".join(f"S'{key}'\nS'caf\\xc3\\xa9'\ns" for key in ("ref_id", "ann_id", "image_id", "split", "sentences"))
    path = tmp_path / "refs(unc).p"
    path.write_bytes(f"(lp0\n(dp1\n{fields}a.".encode("latin1"))
    assert read_refs(path)[0]["sentences"] == "café"


# questions


def test_vqa_is_also_reported_by_kind(read):
    suite, data = read("vqav2")
    table = suite.score(data, perfect(suite, data)).tables["accuracy by kind of question"]
    assert table.kind.tolist() == ["number", "other", "yes/no"]


def test_the_answers_of_test_dev_are_written_for_the_server(read):
    suite, data = read("vqav2", "test-dev")
    answers = [text("2\n dogs"), text("yes"), None]
    assert suite.score(data, answers).metrics == {}
    assert suite.submission(data, answers) == [
        {"question_id": 9000, "answer": "2 dogs"},
        {"question_id": 9001, "answer": "yes"},
        {"question_id": 25000, "answer": ""},
    ]


# files


@pytest.mark.parametrize("name", SUITES)
def test_a_missing_file_is_named_with_its_address(tmp_path, name):
    with pytest.raises(DatasetError, match=r"is missing.*it is published at http"):
        SUITES[name].read(tmp_path, SUITES[name].splits[0])


@pytest.mark.parametrize("name", SUITES)
def test_each_file_of_a_layout_is_required(tmp_path, name):
    """Remove one file or folder after the other."""
    root = suite_files.WRITERS[name](tmp_path / "all")
    suite = SUITES[name]
    removable = [
        p for p in root.rglob("*") if p.is_file() and p.suffix not in (".jpg", ".png") and "test-dev" not in p.name
    ]
    removable += [
        p.parent for p in {path.parent: path for path in root.rglob("*.[jp][pn]g")}.values() if "2015" not in str(p)
    ]
    for number, path in enumerate(removable):
        copy = shutil.copytree(root, tmp_path / str(number))
        target = copy / path.relative_to(root)
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        with pytest.raises(DatasetError, match=r"published at http"):
            suite.read(copy, suite.splits[0])


@pytest.mark.parametrize("content", ["[", "{}", '{"data": 1}', '{"data": [{}]}', '{"data": [3]}'])
def test_other_content_is_refused(tmp_path, content):
    root = suite_files.textvqa(tmp_path)
    (root / "TextVQA_0.5.1_val.json").write_text(content)
    with pytest.raises(DatasetError, match=r"TextVQA_0\.5\.1_val\.json"):
        SUITES["textvqa"].read(root, "val")


def test_an_unknown_suite_is_refused():
    with pytest.raises(ArgumentError, match="did you mean 'refcoco'"):
        get_suite("refcocco")


# the model card


@pytest.mark.parametrize(
    ("model", "suite", "split", "value"),
    [
        ("florence-2-base", "coco-caption", "test", 133.0),
        ("microsoft/Florence-2-large", "coco-detection", "val2017", 37.5),
        ("/models/Florence-2-base-ft/", "refcoco", "testA", 94.8),
        ("florence-2-large-ft", "vqav2", "test-dev", 81.7),
        ("florence-2-base", "vqav2", "val", None),
        ("florence-2-nano", "coco-caption", "test", None),
        ("florence-2-base", "docvqa", "val", None),
    ],
)
def test_numbers_of_the_model_card(model, suite, split, value):
    found = card_value(model, suite, split)
    assert (found and found.value) == value


def test_the_scores_of_a_part_are_those_of_its_images(read):
    suite, data = read("coco-detection")
    answers = perfect(suite, data)
    part = type(data)(data.questions[:2], data.content)
    expected = coco_scores(data.content, suite.submission(part, answers[:2]), [96, 97]).values
    assert values(suite, part, answers[:2]) == pytest.approx(expected, nan_ok=True)
