"""Pascal VOC datasets."""

import pytest
from PIL import Image

from florence_lab.exceptions import DatasetError

TOKENS = "<loc_100><loc_100><loc_600><loc_600>"  # (20, 10, 120, 60) in an image of 200 x 100
BOX = "<xmin>21</xmin><ymin>11</ymin><xmax>120</xmax><ymax>60</ymax>"  # pixels are counted from 1


def voc_object(name="cat", box=BOX):
    extras = "<pose>Left</pose><truncated>0</truncated><difficult>0</difficult>"
    return f"<object><name>{name}</name>{extras}<bndbox>{box}</bndbox></object>"


def voc_xml(*objects, filename="a.jpg", size="<width>200</width><height>100</height><depth>3</depth>"):
    head = f"<folder>VOC2007</folder><filename>{filename}</filename><size>{size}</size>"
    return f"<annotation>{head}{''.join(objects)}</annotation>"


@pytest.fixture
def voc(tmp_path):
    """Write a dataset as the PASCAL challenge publishes it and return its folder. Annotations: stem -> XML."""

    def write(**annotations):
        for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (tmp_path / part).mkdir(parents=True, exist_ok=True)
        for stem, xml in annotations.items():
            Image.new("RGB", (200, 100)).save(tmp_path / "JPEGImages" / f"{stem}.jpg")
            (tmp_path / "Annotations" / f"{stem}.xml").write_text(xml)
        return tmp_path

    return write


@pytest.mark.parametrize("name", ["voc:{}", "{}", "{}/"])
def test_annotations_and_images_are_read(voc, read, name):
    (example,), errors = read(name.format(voc(a=voc_xml(voc_object()))))
    assert errors == []
    assert (example.prompt.query, example.target) == ("<OD>", "cat" + TOKENS)


def test_a_box_may_cover_the_whole_image(voc, read):
    box = "<xmin>1</xmin><ymin>1</ymin><xmax>200</xmax><ymax>100</ymax>"
    (example,), errors = read(f"voc:{voc(a=voc_xml(voc_object(box=box)))}")
    assert (example.target, errors) == ("cat<loc_0><loc_0><loc_999><loc_999>", [])


def test_the_split_is_a_list_or_a_subfolder(voc, read):
    folder = voc(a=voc_xml(voc_object("cat")), b=voc_xml(voc_object("dog"), filename="b.jpg"))
    (folder / "ImageSets/Main/val.txt").write_text("b\n")
    (folder / "ImageSets/Main/dog_val.txt").write_text("a -1\nb  1\n")
    assert len(read(f"voc:{folder}").examples) == 2
    assert [example.target for example in read(f"voc:{folder}?split=val").examples] == ["dog" + TOKENS]
    assert len(read(f"voc:{folder}?split=dog_val").examples) == 2
    with pytest.raises(DatasetError, match=r"neither a list .*test\.txt nor a folder .*test; lists: dog_val, val"):
        read(f"voc:{folder}?split=test")


def test_a_list_may_name_a_missing_file(voc, read):
    folder = voc(a=voc_xml(voc_object()))
    (folder / "ImageSets/Main/train.txt").write_text("a\ngone\n")
    (_,), (error,) = read(f"voc:{folder}?split=train")
    assert (error.source, error.kind) == (str(folder / "Annotations/gone.xml"), "unreadable annotations")


@pytest.mark.parametrize("filename", ["a.png", "C:\\data\\a.png", "/home/me/a.png", "", "gone.jpg"])
def test_the_image_is_found_beside_the_file(tmp_path, read, filename):
    Image.new("RGB", (200, 100)).save(tmp_path / "a.png")
    (tmp_path / "a.xml").write_text(voc_xml(voc_object(), filename=filename))
    (example,), errors = read(f"voc:{tmp_path}")
    assert (example.target, errors) == ("cat" + TOKENS, [])


def test_the_folder_of_the_images_is_an_option(voc, tmp_path, read):
    folder = voc(a=voc_xml(voc_object()))
    (folder / "JPEGImages").rename(tmp_path / "photos")
    assert len(read(f"voc:{folder}?images={tmp_path / 'photos'}").examples) == 1


def test_an_image_without_objects_has_an_empty_answer(voc, read):
    (example,), errors = read(f"voc:{voc(a=voc_xml())}")
    assert (example.target, errors) == ("", [])


@pytest.mark.parametrize("size", ["", "<width>0</width><height>0</height>"])
def test_the_size_may_be_missing(voc, read, size):
    assert len(read(f"voc:{voc(a=voc_xml(voc_object(), size=size))}").examples) == 1


@pytest.mark.parametrize(
    ("bad", "kind", "detail"),
    [
        ("<object></object>", "missing or invalid fields", "name"),
        ("<object><name> </name></object>", "missing or invalid fields", "name"),
        ("<object><name>dog</name></object>", "missing or invalid fields", "bndbox"),
        (voc_object("dog", ""), "invalid box", "xmin, ymin, xmax, ymax"),
        (voc_object("dog", BOX.replace("21", "left")), "invalid box", "left"),
        (voc_object("dog", BOX.replace("21", "nan")), "invalid box", "nan"),
        (voc_object("dog", BOX.replace("21", "121")), "box without area", "(120, 10, 120, 60)"),
        (voc_object("dog", BOX.replace("120", "300")), "box outside the image", "200 x 100"),
    ],
)
def test_a_bad_object_is_reported_and_leaves_the_others(voc, read, bad, kind, detail):
    folder = voc(a=voc_xml(voc_object(), bad))
    (example,), (error,) = read(f"voc:{folder}")
    assert example.target == "cat" + TOKENS
    assert (error.source, error.kind) == (f"{folder / 'Annotations/a.xml'}, object 2", kind)
    assert detail in error.details


BOMB = '<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]><annotation><filename>&d;</filename></annotation>'
FILE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation><filename>&b;</filename></annotation>'


@pytest.mark.parametrize(
    ("xml", "kind", "detail"),
    [
        ("<annotation>", "invalid XML", "line 1, column 12"),
        ("", "invalid XML", "no element found"),
        ("not XML", "invalid XML", "line 1"),
        ("<annotations></annotations>", "invalid XML", "<annotations>"),
        ("<a>" * 100_000, "invalid XML", ""),
        ('<?xml version="1.0" encoding="odd"?><annotation/>', "invalid XML", "encoding"),
        (BOMB, "invalid XML", "entities"),
        (FILE, "invalid XML", "entities"),
        (voc_xml(voc_object(), size="<width>a</width>"), "invalid image size", "a"),
        (voc_xml(voc_object(), size="<width>300</width><height>100</height>"), "wrong image size", "300 x 100"),
    ],
)
def test_a_bad_file_is_reported_and_leaves_the_others(voc, read, xml, kind, detail):
    folder = voc(a=xml, b=voc_xml(voc_object(), filename="b.jpg"))
    (_,), (error,) = read(f"voc:{folder}")
    assert (error.source, error.kind) == (str(folder / "Annotations/a.xml"), kind)
    assert detail in error.details


@pytest.mark.parametrize(("name", "message"), [("gone", "there is no folder"), ("", "contains no XML files")])
def test_another_folder_is_an_error(tmp_path, read, name, message):
    with pytest.raises(DatasetError, match=message):
        read(f"voc:{tmp_path / name}")
