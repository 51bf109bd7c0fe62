"""The review of labels: verdicts, how they are saved, and the files that follow."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from stand_in import NAMES, StandIn, labels_of

from florence_lab.data.datasets import load_examples
from florence_lab.exceptions import ArgumentError, DatasetError, FlorenceLabWarning
from florence_lab.images import load_image
from florence_lab.labeling.corrections import ImageReview
from florence_lab.labeling.review.session import ReviewSession
from florence_lab.labeling.writers import WRITERS

BOX = (1.0, 2.0, 21.5, 22.25)
SPLIT = {"train": 0.5, "val": 0.5}


@pytest.fixture
def folder(images, tmp_path, run):
    """A labelled folder with two splits, whose objects have the scores 0.95, 0.75 and 0.55; the last two are uncertain."""
    run(images, split=SPLIT, review=(0.5, 0.8))
    return tmp_path / "data"


@pytest.fixture
def session(folder):
    return ReviewSession(folder)


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def objects_of(folder, image):
    """The objects of an image in `labels.jsonl`."""
    (row,) = [row for row in read_lines(folder / "labels.jsonl") if row["name"] == image]
    return row["objects"]


def facts(item):
    return (item.label, item.box, item.score, item.found_by, item.verdict)


# ---------------------------------------------------------------------- the list


def test_the_least_certain_objects_come_first(session):
    scores = [item.score for item in session.list_items()]
    assert scores == sorted(scores)
    assert {0.55, 0.75, 0.95} == set(scores)


@pytest.mark.parametrize(
    ("show", "scores"), [("uncertain", {0.55, 0.75}), ("undecided", {0.55, 0.75, 0.95}), ("all", {0.55, 0.75, 0.95})]
)
def test_what_is_listed_can_be_chosen(session, show, scores):
    assert {item.score for item in session.list_items(show)} == scores


def test_reviewed_objects_are_listed_apart(session):
    first, *others = session.list_items("uncertain")
    session.accept(first)
    assert session.list_items("decided") == [session.get(first)]
    assert session.list_items("uncertain") == others


def test_a_class_can_be_listed_alone(session):
    assert {item.label for item in session.list_items("all", "boat")} == {"boat"}


def test_images_with_the_fewest_objects_come_first(session):
    counts = [len(session.items_of(number)) for number in session.list_images()]
    assert counts == sorted(counts)
    assert counts[0] == 0


# ---------------------------------------------------------------------- verdicts

VERDICTS = {
    "accept": (lambda s, i: s.accept(i), lambda i: [(i.label, i.box, i.score, "regions", "accepted")]),
    "reject": (lambda s, i: s.reject(i), lambda i: []),
    "rename": (lambda s, i: s.rename(i, "rocket"), lambda i: [("rocket", i.box, 1.0, "person", "changed")]),
    "rename to its own class": (
        lambda s, i: s.rename(i, i.label),
        lambda i: [(i.label, i.box, i.score, "regions", "accepted")],
    ),
    "redraw": (lambda s, i: s.redraw(i, BOX), lambda i: [(i.label, BOX, 1.0, "person", "changed")]),
    "redraw from the other corner": (
        lambda s, i: s.redraw(i, (21.5, 22.25, 1, 2)),
        lambda i: [(i.label, BOX, 1.0, "person", "changed")],
    ),
    "redraw over the border": (
        lambda s, i: s.redraw(i, (-9, 10, 99, 99)),
        lambda i: [(i.label, (0.0, 10.0, 40.0, 30.0), 1.0, "person", "changed")],
    ),
    "rename and redraw": (
        lambda s, i: (s.rename(i, "rocket"), s.redraw(i, BOX)),
        lambda i: [("rocket", BOX, 1.0, "person", "changed")],
    ),
    "reject and accept": (
        lambda s, i: (s.reject(i), s.accept(i)),
        lambda i: [(i.label, i.box, i.score, "regions", "accepted")],
    ),
    "redraw, reject and accept": (
        lambda s, i: (s.redraw(i, BOX), s.reject(i), s.accept(i)),
        lambda i: [(i.label, i.box, i.score, "regions", "accepted")],
    ),
    "reject and undo": (lambda s, i: (s.reject(i), s.undo()), lambda i: [(i.label, i.box, i.score, "regions", "")]),
    "redraw, rename and undo": (
        lambda s, i: (s.redraw(i, BOX), s.rename(i, "rocket"), s.undo()),
        lambda i: [(i.label, BOX, 1.0, "person", "changed")],
    ),
}


@pytest.mark.parametrize(("act", "expected"), VERDICTS.values(), ids=VERDICTS)
def test_a_verdict_is_in_the_dataset_and_in_the_next_review(folder, session, act, expected):
    item = session.list_items()[0]
    others = [facts(o) for o in session.items_of(session.number_of(item)) if o.id != item.id]
    act(session, item)
    again = ReviewSession(folder)
    assert facts(again.get(item)) == facts(session.get(item))
    again.write_files()
    found = [
        (o["label"], tuple(o["box"]), o["score"], o["found_by"], o["verdict"]) for o in objects_of(folder, item.image)
    ]
    assert sorted(found) == sorted(others + expected(item))
    assert [o["score"] for o in objects_of(folder, item.image)] == sorted((f[2] for f in found), reverse=True)


def test_missed_objects_are_added_also_to_images_without_objects(folder, session):
    number = session.list_images()[0]
    added = session.add(number, "rocket", BOX)
    session.write_files()
    (found,) = objects_of(folder, added.image)
    assert (found["label"], found["class_id"], tuple(found["box"]), found["verdict"]) == ("rocket", 3, BOX, "added")


def test_an_added_object_can_be_rejected_and_taken_back(folder, session):
    added = session.add(0, "rocket", BOX)
    session.reject(added)
    again = ReviewSession(folder)
    assert facts(again.get(added))[0] == "rocket"
    again.write_files()
    assert [o["label"] for o in objects_of(folder, added.image) if o["label"] == "rocket"] == []
    assert again.accept(added).verdict == "added"
    session.undo()
    session.undo()
    assert session.items_of(0) == [item for item in session.items_of(0) if item.verdict == ""]


def test_a_verdict_ends_the_mark_of_uncertain_objects(folder, session):
    before = len(read_lines(folder / "review.jsonl"))
    session.accept(session.list_items("uncertain")[0])
    session.reject(session.list_items("uncertain")[0])
    session.write_files()
    assert len(read_lines(folder / "review.jsonl")) == before - 2
    assert json.loads((folder / "labels.json").read_text())["num_verdicts"] == {"accepted": 1}


def test_undo_takes_back_one_change_after_the_other(session):
    items = session.list_items()[:3]
    for item in items:
        session.reject(item)
    for item in reversed(items):
        assert session.undo() == item
    assert session.undo() is None
    assert session.list_items() == ReviewSession(session.folder.path).list_items()


def test_without_a_verdict_nothing_is_left_on_disk(folder, session):
    session.reject(session.list_items()[0])
    session.undo()
    session.write_files()
    assert [path.name for path in (folder / ".corrections").iterdir()] == []


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda s: s.accept("99.0"), "99.0"),
        (lambda s: s.accept("0.99"), "0.99"),
        (lambda s: s.accept("x"), "'x'"),
        (lambda s: s.rename(s.list_items()[0], "dgo"), "did you mean 'dog'"),
        (lambda s: s.redraw(s.list_items()[0], (1, 2, 3)), "box"),
        (lambda s: s.redraw(s.list_items()[0], (1, 2, float("nan"), 4)), "nan"),
        (lambda s: s.redraw(s.list_items()[0], (100, 100, 200, 200)), "40 x 30"),
        (lambda s: s.add(0, "cat", BOX), "cat"),
        (lambda s: s.add(99, "dog", BOX), "99"),
        (lambda s: s.list_items("sure"), "sure"),
        (lambda s: s.list_items("all", "cat"), "cat"),
    ],
)
def test_what_is_not_there_is_an_error_that_names_it(session, act, message):
    with pytest.raises(ArgumentError, match=message):
        act(session)
    assert session.count()["accepted"] == 0


# ---------------------------------------------------------------------- on disk


def test_a_verdict_survives_a_kill(folder):
    """The process ends without a chance to clean up right after the verdict."""
    script = (
        "import os, sys; from florence_lab.labeling.review.session import ReviewSession;"
        "s = ReviewSession(sys.argv[1]); s.reject(s.list_items()[0]); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", script, str(folder)]).returncode == 9
    again = ReviewSession(folder)
    assert again.count()["rejected"] == 1
    assert not again.is_written


def test_files_are_never_half_written(folder, session, monkeypatch):
    session.accept(session.list_items()[0])
    (path,) = (folder / ".corrections").glob("*.json")
    before = path.read_bytes()

    def fail(self, data):
        with self.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(DatasetError, match="space"):
        session.reject(session.list_items("decided")[0])
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert ReviewSession(folder).count()["accepted"] == 1


def test_another_run_of_label_keeps_the_corrections(images, folder, session, run):
    item, *_, other = session.list_items("uncertain")
    session.reject(item)
    session.rename(other, "rocket")
    report = run(images, format="yolo", split=SPLIT)
    assert run.model.asked == 0
    assert report.num_objects["rocket"] == 1
    assert ReviewSession(folder).is_written
    assert [o["verdict"] for o in objects_of(folder, other.image)].count("changed") == 1


class Shifted(StandIn):
    """A later model: each object is found a little beside, and one class is no longer found."""

    def label(self, images):
        labels = super().label(images)
        return [
            replace(each, objects=tuple(_shift(item) for item in each.objects if item.label != "boat"))
            for each in labels
        ]


def _shift(item):
    return replace(item, box=tuple(round(v + 0.5, 3) for v in item.box))


def test_corrections_outlive_a_labelling_anew(images, folder, session, run):
    """Verdicts tell of the same objects of the new labels; what a person has confirmed stays, found again or not."""
    items = session.list_items("all")
    boat = next(item for item in items if item.label == "boat")
    rejected, renamed = [item for item in items if item.label == "dog" and item.image != boat.image][:2]
    session.accept(boat)
    session.reject(rejected)
    session.rename(renamed, "rocket")
    shutil.rmtree(folder / ".parts")
    run(images, split=SPLIT, model=Shifted())
    kept = [o for o in objects_of(folder, boat.image) if o["label"] == "boat"]
    assert [tuple(o["box"]) for o in kept] == [boat.box]
    assert len(objects_of(folder, renamed.image)) == len(
        [o for o in labels_of(load_image(images / renamed.image)).objects if o.label != "boat"]
    )
    dogs = [tuple(o["box"]) for o in objects_of(folder, rejected.image) if o["label"] == "dog"]
    assert all(abs(box[0] - rejected.box[0]) > 1 for box in dogs)


def test_corrections_of_an_image_that_has_changed_do_not_apply(images, folder, session, run):
    item = session.list_items()[0]
    session.reject(item)
    path = images / item.image
    path.write_bytes((images / "00007.png").read_bytes())
    run(images, split=SPLIT)
    assert len(objects_of(folder, item.image)) == len(labels_of(load_image(path)).objects)


def test_sft_warns_of_corrections_that_are_not_in_the_files_yet(folder, session):
    from florence_lab.data.readers import open_dataset
    from florence_lab.data.spec import DatasetSpec

    session.reject(session.list_items()[0])
    with pytest.warns(FlorenceLabWarning, match=r"corrections .*apply"):
        open_dataset(DatasetSpec.parse(f"{folder}/"))
    session.write_files()
    open_dataset(DatasetSpec.parse(f"{folder}/"))


def test_images_that_are_gone_are_taken_from_the_dataset(images, folder, session):
    item = session.list_items()[0]
    shutil.rmtree(images)
    assert session.path_of(session.number_of(item)).is_relative_to(folder)
    session.reject(item)
    session.write_files()
    assert len(read_lines(folder / "labels.jsonl")) == 23


def test_images_with_errors_stay_in_their_list(images, tmp_path, run):
    (images / "broken.png").write_bytes(b"no image")
    run(images)
    session = ReviewSession(tmp_path / "data")
    session.reject(session.list_items()[0])
    session.write_files()
    assert [Path(row["image"]).name for row in read_lines(tmp_path / "data" / "errors.jsonl")] == ["broken.png"]


# ---------------------------------------------------------------------- folders that cannot be reviewed


def _damage(name, text):
    return lambda folder: (folder / name).write_text(text)


def _set(name, value):
    def change(folder):
        content = json.loads((folder / "labels.json").read_text())
        (folder / "labels.json").write_text(json.dumps(content | {name: value}))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "labels.json").unlink(), "not a labelled folder"),
        (_damage("labels.json", "{"), r"labels\.json cannot be read"),
        (_damage("labels.json", "[1]"), "not a labelled folder"),
        (_set("format", "pickle"), "unknown format 'pickle'"),
        (_set("classes", 5), r"labels\.json is damaged"),
        (_set("review", ["a"]), r"labels\.json is damaged"),
        (_damage("labels.jsonl", "x\n"), r"labels\.jsonl, line 1"),
        (lambda folder: shutil.rmtree(folder / ".parts"), r"\.parts"),
    ],
)
def test_a_folder_that_cannot_be_reviewed_says_why(folder, damage, message):
    damage(folder)
    with pytest.raises(DatasetError, match=message):
        ReviewSession(folder)


def test_a_damaged_correction_is_named(folder, session):
    session.reject(session.list_items()[0])
    (path,) = (folder / ".corrections").glob("*.json")
    path.write_text('{"key": 5')
    with pytest.raises(DatasetError, match=rf"{path.name} is damaged"):
        ReviewSession(folder)


@pytest.mark.parametrize("name", ["gone", ""])
def test_a_folder_that_does_not_exist_or_has_no_labels_is_an_error(tmp_path, name):
    with pytest.raises((ArgumentError, DatasetError), match=r"gone|not a labelled folder"):
        ReviewSession(tmp_path / name)


# ---------------------------------------------------------------------- the loop


@pytest.fixture
def validator(tiny):
    from florence_lab.data.validation import RowValidator

    return RowValidator.for_model(tiny.model, tiny.processor)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("format", WRITERS)
def test_fine_tuning_and_evaluation_read_the_corrected_splits(images, run, tmp_path, validator, format, masks):
    run(images, format=format, has_masks=masks, split=SPLIT)
    assert (
        len(load_examples(f"{tmp_path / 'data'}/", validator).require_valid()) == 12
    )  # `datasets` caches what it reads
    session = ReviewSession(tmp_path / "data")
    items = session.list_items()
    session.reject(items[0])
    session.rename(items[1], "rocket")
    session.redraw(items[2], BOX)
    session.add(session.list_images()[0], "rocket", BOX)
    session.write_files()
    expected = sorted(item.label for item in session.list_items("all") if item.verdict != "rejected")
    found, num_images = [], 0
    for split in SPLIT:
        examples = load_examples(f"{tmp_path / 'data'}/?split={split}", validator).require_valid()
        num_images += len(examples)
        found += [label for example in examples for label in example.ground_truth.labels.tolist()]
    assert num_images == 23
    assert sorted(found) == expected
    assert found.count("rocket") == 2


def test_a_review_without_verdicts_equals_the_labels(images):
    from florence_lab.labeling.corrections import correct
    from florence_lab.labeling.records import LabelledImage

    row = LabelledImage("a", "a", "a", objects=labels_of(load_image(images / "00003.png")).objects)
    assert len(row.objects) == 3
    assert correct(row, ImageReview.of(row)) == (row, ("", "", ""))
    assert {item.label for item in row.objects} <= {*NAMES}
