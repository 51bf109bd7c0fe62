"""From parts to the files of a dataset."""

import json
import os
import sys
from pathlib import Path

import pytest
from stand_in import NAMES, draw_images

from florence_lab.exceptions import ArgumentError, DatasetError
from florence_lab.labeling.assembly import FileNames, assign_splits, parse_split
from florence_lab.labeling.writers import WRITERS


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("1", {"train": 1}),
        ("0.9/0.1", {"train": 0.9, "val": 0.1}),
        ("0.8/0.1/0.1", {"train": 0.8, "val": 0.1, "test": 0.1}),
    ],
)
def test_a_split_is_shares_of_train_val_and_test(text, shares):
    assert parse_split(text) == shares


@pytest.mark.parametrize("text", ["", "0.8", "0.8/0.3", "a/b", "1/0", "0.5/0.2/0.2/0.1", "nan"])
def test_other_splits_are_refused(text):
    with pytest.raises(ArgumentError, match="split"):
        parse_split(text)


def test_the_numbers_of_a_split_are_exact():
    splits = list(assign_splits([str(i) for i in range(60)], parse_split("0.8/0.1/0.1")).values())
    assert [splits.count(name) for name in ("train", "val", "test")] == [48, 6, 6]


def test_few_images_change_their_split_when_some_are_added():
    shares, keys = parse_split("0.8/0.1/0.1"), [str(i) for i in range(1000)]
    before, after = assign_splits(keys[:990], shares), assign_splits(keys, shares)
    assert sum(before[key] != after[key] for key in before) <= 10


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a/x.png", "b/x.png"], ["a__x.png", "b__x.png"]),
        (["x.png", "x.jpg", "X.gif"], ["x.png", "x-2.jpg", "X-3.gif"]),
        (["a__x.png", "a/x.png"], ["a__x.png", "a__x-2.png"]),
        (["../a/b c?.PNG"], ["a__b_c_.png"]),
        (["é日.png"], ["é日.png"]),
        ([f"{'a' * 200}.png", f"{'a' * 200}.png"], [f"{'a' * 120}.png", f"{'a' * 120}-2.png"]),
    ],
)
def test_each_image_has_a_stem_of_its_own(names, expected):
    chosen = FileNames()
    assert [chosen.choose(name, Path(name)) for name in names] == expected


@pytest.mark.parametrize("format", WRITERS)
def test_equal_names_in_different_folders_do_not_collide(tmp_path, run, format):
    images = tmp_path / "images"
    draw_images(images / "a", 3)
    draw_images(images / "b", 3, first=50)
    report = run(images, format=format, recursive=True)
    assert sum(report.num_images.values()) == 6
    rows = read_lines(tmp_path / "data" / "labels.jsonl")
    assert len({row["file"] for row in rows}) == 6
    files = [Path(row["file"]) if format == "parquet" else tmp_path / "data" / row["file"] for row in rows]
    assert [file.read_bytes() for file in files] == [(images / row["name"]).read_bytes() for row in rows]


def test_another_format_replaces_the_files_of_the_one_before_and_no_others(images, tmp_path, run):
    run(images, format="yolo")
    (tmp_path / "data" / "mine.txt").write_text("mine")
    run(images, format="voc")
    names = {path.name for path in (tmp_path / "data").iterdir()}
    assert names == {
        ".parts",
        "Annotations",
        "ImageSets",
        "JPEGImages",
        "classes.txt",
        "labels.json",
        "labels.jsonl",
        "mine.txt",
    }
    assert run.model.asked == 0


@pytest.mark.parametrize("name", ["images", "labels.jsonl", "data.yaml"])
def test_files_of_others_are_refused_before_the_model_is_loaded(images, tmp_path, run, name):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_text("mine")
    with pytest.raises(ArgumentError, match=name):
        run(images, format="yolo")
    assert run.model.asked == 0


def test_the_folder_of_the_images_is_no_folder_for_the_dataset(images, tmp_path, run):
    with pytest.raises(ArgumentError, match="images"):
        run(images, format="yolo", out=tmp_path)
    assert len(list(images.iterdir())) == 23


def test_images_are_copied_where_they_cannot_be_linked(images, tmp_path, run, monkeypatch):
    def fail(*paths):
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", fail)
    run(images, format="yolo")
    copy = next((tmp_path / "data" / "images" / "train").iterdir())
    assert copy.read_bytes() == (images / copy.name).read_bytes()
    assert copy.stat().st_ino != (images / copy.name).stat().st_ino


def test_uncertain_objects_are_marked_and_listed(images, tmp_path, run):
    report = run(images, review=(0.5, 0.8))
    rows = read_lines(tmp_path / "data" / "review.jsonl")
    assert report.num_review == len(rows) > 0
    assert {row["score"] for row in rows} == {0.75, 0.55}
    annotations = json.loads((tmp_path / "data" / "train" / "_annotations.coco.json").read_text())["annotations"]
    assert sum(a["review"] for a in annotations) == len(rows)


@pytest.mark.parametrize("format", WRITERS)
def test_broken_images_are_rows_with_their_error(images, tmp_path, run, format):
    (images / "broken.png").write_bytes(b"no image")
    (images / "empty.jpg").write_bytes(b"")
    report = run(images, format=format)
    rows = read_lines(tmp_path / "data" / "errors.jsonl")
    assert [Path(row["image"]).name for row in rows] == ["broken.png", "empty.jpg"]
    assert "empty" in rows[1]["error"]
    assert (sum(report.num_images.values()), report.num_errors) == (23, 2)


def test_without_any_image_the_first_error_is_raised(tmp_path, run):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"none of 1 images .* not an image"):
        run(tmp_path / "images")


def test_images_of_shards_are_files_of_the_dataset(tmp_path, run):
    import tarfile

    images = draw_images(tmp_path / "images", 5)
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for path in sorted(images.iterdir()):
            archive.add(path, path.name)
    run(tmp_path / "s.tar", format="yolo")
    for row in read_lines(tmp_path / "data" / "labels.jsonl"):
        assert (tmp_path / "data" / row["file"]).read_bytes() == (images / row["name"].rpartition("/")[2]).read_bytes()


def test_the_summary_tells_what_the_folder_contains(images, tmp_path, run):
    report = run(images, split={"train": 0.5, "val": 0.5})
    content = json.loads((tmp_path / "data" / "labels.json").read_text())
    assert content["classes"] == list(NAMES)
    assert content["num_objects"] == report.num_objects
    assert report.num_objects["rocket"] == 0
    assert str(report).splitlines()[0].startswith("23 images (12 train, 11 val), 23 asked in this run")


@pytest.mark.slow
def test_memory_stays_level_over_10000_images(tmp_path, ontology):
    """Written with each format; the peak grows by less than 40 MB from 1,000 images to 10,000."""
    import subprocess

    images = draw_images(tmp_path / "images", 10_000, size=(16, 12))
    script = (
        "import resource, sys; from stand_in import *; from florence_lab.labeling.labelling import label_sources;"
        "from florence_lab.labeling.assembly import DatasetLayout; from florence_lab.detection.ontology import Ontology;"
        "from florence_lab.labeling.sources import list_label_sources;"
        "count = int(sys.argv[2]); sources = list_label_sources(sys.argv[1])[:count];"
        "[label_sources(lambda: StandIn(), sources, sys.argv[3], DatasetLayout(f, Ontology.from_classes(NAMES)), 16)"
        " for f in ('yolo', 'coco', 'voc', 'jsonl', 'parquet')];"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    peaks = []
    for count in (1000, 10_000):
        command = [sys.executable, "-c", script, str(images), str(count), str(tmp_path / f"data{count}")]
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), str(Path(__file__).parents[2])])
        }
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        peaks.append(float(done.stdout.splitlines()[-1]))
    print(peaks)
    assert peaks[1] - peaks[0] < 40
