"""YOLO datasets."""

import pytest
from PIL import Image

from florence_lab.exceptions import DatasetError, FlorenceLabWarning

TOKENS = "<loc_100><loc_100><loc_600><loc_600>"  # (20, 10, 120, 60) in an image of 200 x 100
LINE = "0 0.35 0.35 0.5 0.5"
POLYGON_LINE = "1 0.1 0.1 0.6 0.1 0.6 0.6 0.1 0.6"


@pytest.fixture
def yolo(tmp_path):
    """Write a dataset as ultralytics documents it and return its folder. Labels: stem -> lines, None for no file."""

    def write(config="train: images/train\nval: images/val\nnames: [cat, dog]\n", folder="train", **labels):
        for part in ("images", "labels"):
            for split in ("train", "val"):
                (tmp_path / part / split).mkdir(parents=True, exist_ok=True)
        if config is not None:
            (tmp_path / "data.yaml").write_text(config)
        for stem, lines in (labels or {"a": LINE}).items():
            Image.new("RGB", (200, 100)).save(tmp_path / "images" / folder / f"{stem}.png")
            if lines is not None:
                (tmp_path / "labels" / folder / f"{stem}.txt").write_text(lines)
        return tmp_path

    return write


@pytest.mark.parametrize("name", ["yolo:{}", "yolo:{}/data.yaml", "{}/data.yaml", "{}"])
def test_a_folder_or_its_configuration_is_read(yolo, read, name):
    (example,), errors = read(name.format(yolo(a=LINE + "\n")))
    assert errors == []
    assert (example.prompt.query, example.target) == ("<OD>", "cat" + TOKENS)


@pytest.mark.parametrize(
    "config",
    [
        "train: images/train\nnames:\n  0: cat\n  1: dog\n",
        "path: .\ntrain: images/train\nnames: {'0': cat}\n",
        "path: /nowhere\ntrain: images/train\nnames: [cat]\n",
        "train: ../images/train\nnames: [cat]\nnc: 1\n",  # as Roboflow writes it
        "train: [images/train]\nnames: [cat]\n",
        "train: train.txt\nnames: [cat]\n",
        "path: {tmp}\ntrain: images/train\nnames: [cat]\n",
    ],
)
def test_each_form_of_the_configuration_is_read(yolo, tmp_path, read, config):
    folder = yolo(config.replace("{tmp}", str(tmp_path)))
    (folder / "train.txt").write_text("./images/train/a.png\n")
    (example,), errors = read(f"yolo:{folder}")
    assert (example.target, errors) == ("cat" + TOKENS, [])


def test_one_of_several_configurations_must_be_named(yolo, read):
    folder = yolo(None)
    for name in ("coco8.yaml", "mine.yaml"):
        (folder / name).write_text("train: images/train\nnames: [cat]\n")
    with pytest.raises(DatasetError, match=r"several: coco8\.yaml, mine\.yaml; name one"):
        read(f"yolo:{folder}")
    assert len(read(f"yolo:{folder / 'mine.yaml'}").examples) == 1
    (folder / "coco8.yaml").write_text("a: 1")
    assert len(read(f"yolo:{folder}").examples) == 1


def test_the_split_is_an_option(yolo, read):
    yolo(a=LINE)
    folder = yolo(folder="val", b="1 0.35 0.35 0.5 0.5")
    assert [example.target for example in read(f"yolo:{folder}?split=val").examples] == ["dog" + TOKENS]
    with pytest.raises(DatasetError, match="no split 'test'; it has train, val"):
        read(f"yolo:{folder}?split=test")


def test_labels_may_stand_beside_the_images(tmp_path, read):
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text(LINE)
    (tmp_path / "data.yaml").write_text("train: .\nnames: [cat]\n")
    (example,), errors = read(f"yolo:{tmp_path}")
    assert (example.target, errors) == ("cat" + TOKENS, [])


@pytest.mark.parametrize("lines", [None, "", "\n"])
def test_an_image_without_labels_has_an_empty_answer(yolo, read, lines):
    examples, errors = read(f"yolo:{yolo(a=LINE, b=lines)}")
    assert ([example.target for example in examples], errors) == (["cat" + TOKENS, ""], [])


@pytest.mark.parametrize(
    ("task", "targets"),
    [
        ("OD", ["dog" + TOKENS]),
        ("REGION_TO_SEGMENTATION", ["<loc_100><loc_100><loc_600><loc_100><loc_600><loc_600><loc_100><loc_600>"]),
        ("OPEN_VOCABULARY_DETECTION", ["dog" + TOKENS]),
        ("REGION_TO_CATEGORY", ["dog" + TOKENS]),
    ],
)
def test_outlines_answer_segmentation_and_detection(yolo, read, task, targets):
    examples, errors = read(f"yolo:{yolo(a=POLYGON_LINE)}?tasks={task}")
    assert ([example.target for example in examples], errors) == (targets, [])


@pytest.mark.parametrize(
    ("line", "kind", "detail"),
    [
        ("2 0.5 0.5 0.1 0.1", "unknown class number", "2; the classes are {0: 'cat', 1: 'dog'}"),
        ("0.5 0.5 0.5 0.1 0.1", "unknown class number", "0.5"),
        ("cat 0.5 0.5 0.1 0.1", "not a number", "'cat'"),
        ("0 0.5 0.5 0.1", "wrong number of columns", "4; expected class, x, y, width, height"),
        ("0 0.5 0.5 0.1 0.1 0.9", "wrong number of columns", "6"),
        ("0", "wrong number of columns", "1"),
        ("0 1.5 0.5 0.1 0.1", "coordinate out of 0..1", "1.5"),
        ("0 -0.1 0.5 0.1 0.1", "coordinate out of 0..1", "-0.1"),
        ("0 nan 0.5 0.1 0.1", "coordinate out of 0..1", "nan"),
        ("0 100 50 20 20", "coordinate out of 0..1", "100"),
        ("0 0.5 0.5 0 0.1", "box without area", "200 x 100"),
        ("0 0.9 0.5 0.5 0.1", "box outside the image", "200 x 100"),
        ("0 0.5 0.5 0.1 1e400", "coordinate out of 0..1", "inf"),
    ],
)
def test_a_bad_line_is_reported_and_leaves_the_others(yolo, read, line, kind, detail):
    folder = yolo(a=f"{LINE}\n\n{line}\n")
    (example,), (error,) = read(f"yolo:{folder}")
    assert example.target == "cat" + TOKENS
    assert (error.source, error.kind) == (f"{folder / 'labels/train/a.txt'}, line 3", kind)
    assert detail in error.details


def test_an_image_with_bad_lines_only_is_not_taken_for_empty(yolo, read):
    examples, (error,) = read(f"yolo:{yolo(a='9 0.5 0.5 0.1 0.1')}")
    assert (examples, error.kind) == ([], "unknown class number")


def test_a_line_of_another_encoding_is_reported(yolo, read):
    folder = yolo(a=LINE)
    (folder / "labels/train/a.txt").write_bytes(LINE.encode() + b"\n\xff\n")
    (_,), (error,) = read(f"yolo:{folder}")
    assert (error.kind, error.source.endswith("line 2")) == ("not UTF-8", True)


def test_a_folder_in_place_of_labels_is_reported(yolo, read):
    folder = yolo(a=None, b=LINE)
    (folder / "labels/train/a.txt").mkdir()
    (_,), (error,) = read(f"yolo:{folder}")
    assert error.kind == "unreadable labels"
    assert "a.txt is a folder" in error.details


def test_a_link_to_nothing_is_not_taken_for_an_image_without_labels(yolo, read):
    folder = yolo(a=None, b=LINE)
    (folder / "labels/train/a.txt").symlink_to(folder / "gone.txt")
    (_,), (error,) = read(f"yolo:{folder}")
    assert (error.kind, "link to nothing" in error.details) == ("unreadable labels", True)


def test_labels_without_an_image_are_counted(yolo, read):
    folder = yolo(a=LINE)
    (folder / "labels/train/gone.txt").write_text(LINE)
    with pytest.warns(FlorenceLabWarning, match=r"1 label files have no image: gone\.txt"):
        read(f"yolo:{folder}")


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("images/train/gone.png", "unreadable image"),
        ("images/gone/a.png", "unreadable image"),
        ("x" * 5000, "unreadable image"),
        ("a\0.png", "unreadable image"),
        ("/", "unreadable labels"),
    ],
)
def test_an_image_that_a_list_names_may_be_missing(yolo, read, line, kind):
    folder = yolo("train: train.txt\nnames: [cat]\n")
    (folder / "labels" / "gone").mkdir()
    (folder / "train.txt").write_text(f"images/train/a.png\n{line}\n")
    (_,), (error,) = read(f"yolo:{folder}")
    assert error.kind == kind


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "must contain a data.yaml"),
        ("train: images/train\n", "lacks the `names`"),
        ("names: [cat]\n", "no split 'train'; it has none"),
        ("train: images/gone\nnames: [cat]\n", "there is no .*images/gone"),
        ("train: images/val\nnames: [cat]\n", "the split contains no images"),
        ("path: ~nobody-here\ntrain: a\nnames: [cat]\n", "~nobody-here"),
        ("train: 5\nnames: [cat]\n", "must be a folder.*5"),
        ("train: images/train\nnames: 5\n", "names must be a list"),
        ("train: images/train\nnames: []\n", "names must be a list"),
        ("train: images/train\nnames: {a: cat}\n", "the class 'a' has the name 'cat'"),
        ("train: images/train\nnames: [null]\n", "the class 0 has the name None"),
        ("a: [", "is not YAML"),
        ("[" * 1_500, "is not YAML: nested too deeply"),
        ("[1, 2]", "not a YOLO configuration"),
        ("train: images/train\nnames: !!python/object:os.system [cat]\n", "is not YAML"),
    ],
)
def test_another_configuration_is_an_error(yolo, read, config, message):
    with pytest.raises(DatasetError, match=message):
        read(f"yolo:{yolo(config)}")
