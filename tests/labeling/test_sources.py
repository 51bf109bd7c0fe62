"""What is labelled."""

import io
import tarfile

import pytest
from PIL import Image
from stand_in import draw_images

from florence_lab.exceptions import ArgumentError, ImageError
from florence_lab.images import load_image
from florence_lab.labeling.sources import list_label_sources, read_source


def png(color):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), color).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def names(images, **options):
    return [source.name for source in list_label_sources(images, **options)]


def test_a_folder_gives_its_images_with_paths_relative_to_it(tmp_path):
    draw_images(tmp_path / "a", 1)
    draw_images(tmp_path / "a" / "b", 1)
    assert names(tmp_path / "a", recursive=True) == ["00000.png", "b/00000.png"]


def test_a_pattern_keeps_the_folders_behind_its_first_wildcard(tmp_path):
    draw_images(tmp_path / "a" / "x", 1)
    draw_images(tmp_path / "a" / "y", 1)
    assert names(str(tmp_path / "a" / "*" / "*.png")) == ["x/00000.png", "y/00000.png"]


def test_a_file_that_is_given_twice_occurs_once(tmp_path):
    folder = draw_images(tmp_path, 2)
    assert len(list_label_sources([folder, folder / "00000.png"])) == 2


@pytest.mark.parametrize(
    ("images", "error"),
    [
        ("/nowhere", ImageError),
        ("~no_such_user/x", ArgumentError),
        ("x" * 300, ImageError),
        ("a\0b", ImageError),
        ([], ArgumentError),
        ("", ArgumentError),
        (3, ArgumentError),
        ([3], ArgumentError),
    ],
)
def test_what_is_no_image_is_refused(images, error):
    with pytest.raises(error):
        list_label_sources(images)


def test_a_changed_file_has_another_signature(tmp_path):
    folder = draw_images(tmp_path, 1)
    before = list_label_sources(folder)[0].signature
    (folder / "00000.png").write_bytes(png("red"))
    assert list_label_sources(folder)[0].signature != before


def test_a_tar_gives_its_images_and_passes_over_the_rest(tmp_path):
    write_tar(tmp_path / "s.tar", {"a.png": png("red"), "a.txt": b"text", "d/b.png": png("blue")})
    items = list(read_source(list_label_sources(tmp_path / "s.tar")[0]))
    assert [item.name for item in items] == ["s/a.png", "s/d/b.png"]
    assert [item.key.partition("#")[2] for item in items] == ["a.png", "d/b.png"]
    assert load_image(items[1].image).getpixel((0, 0)) == (0, 0, 255)


@pytest.mark.parametrize("as_struct", [False, True])
def test_a_table_gives_the_images_of_its_rows(tmp_path, as_struct):
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [png("red"), png("blue")]
    column = [{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(images)] if as_struct else images
    pq.write_table(pa.table({"image": column, "other": [1, 2]}), tmp_path / "t.parquet")
    items = list(read_source(list_label_sources(tmp_path / "t.parquet")[0]))
    assert [load_image(item.image).getpixel((0, 0)) for item in items] == [(255, 0, 0), (0, 0, 255)]
    assert len({item.key for item in items}) == 2


@pytest.mark.parametrize("name", ["bad.tar", "bad.parquet"])
def test_a_damaged_shard_is_an_item_with_its_error(tmp_path, name):
    (tmp_path / name).write_bytes(b"no shard")
    (item,) = read_source(list_label_sources(tmp_path / name)[0])
    with pytest.raises(ImageError, match=name):
        load_image(item.image)


@pytest.mark.parametrize("recursive", [False, True])
def test_a_folder_may_contain_shards_and_images(tmp_path, recursive):
    write_tar(tmp_path / "b.tar", {"a.png": png("red")})
    write_tar(tmp_path / "A.TAR", {"a.png": png("red")})
    (tmp_path / "._b.tar").write_bytes(b"a file that macOS makes")
    assert names(tmp_path, recursive=recursive) == ["A.TAR", "b.tar"]
    draw_images(tmp_path, 1)
    assert names(tmp_path, recursive=recursive) == ["00000.png", "A.TAR", "b.tar"]


def test_what_is_in_hidden_folders_is_left_out(tmp_path):
    draw_images(tmp_path / ".parts" / "images", 1)
    with pytest.raises(ImageError, match="hidden"):
        names(tmp_path, recursive=True)
    draw_images(tmp_path / "a", 1)
    write_tar(tmp_path / ".parts" / "b.tar", {"a.png": png("red")})
    assert names(tmp_path, recursive=True) == ["a/00000.png"]
