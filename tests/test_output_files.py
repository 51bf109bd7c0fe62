"""Folders and files for output."""

import os
from pathlib import Path

import pytest

from florence_lab.exceptions import ArgumentError
from florence_lab.output_files import prepare_output_file, prepare_output_folder, replace_file, write_bytes, write_text


def test_a_folder_is_created_and_left_empty(tmp_path):
    folder = prepare_output_folder("--out", tmp_path / "a" / "b")
    assert folder.is_dir()
    assert list(folder.iterdir()) == []
    assert prepare_output_folder("--out", str(folder)) == folder


@pytest.mark.parametrize("name", ["file", "file/below", "/proc/new", "a\0b", "x" * 300, "/dev/null"])
def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match=r"--out '.* is not a folder that can be written to: "):
        prepare_output_folder("--out", os.path.join(tmp_path, name))


def test_the_folder_of_a_file_is_prepared(tmp_path):
    path = prepare_output_file("--out", tmp_path / "new" / "report.json")
    assert path.parent.is_dir()
    assert not path.exists()
    with pytest.raises(ArgumentError, match="is a folder"):
        prepare_output_file("--out", tmp_path)
    assert prepare_output_file("--out", "/dev/null") == Path("/dev/null")


def test_a_file_is_replaced_when_it_is_complete(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")
    with replace_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("old")

    def fail():
        with replace_file(path) as temporary:
            temporary.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_links_and_devices_stay_what_they_are(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_bytes(tmp_path / "link", b"a")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"a"
    write_text(os.devnull, "a")
    assert not Path(os.devnull).is_file()


def test_a_name_that_is_not_utf8_is_escaped(tmp_path):
    write_text(tmp_path / "a.txt", "é \udcff")
    assert (tmp_path / "a.txt").read_bytes() == "é \\udcff".encode()
