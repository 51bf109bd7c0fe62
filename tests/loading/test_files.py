"""The files of a checkpoint folder."""

import json

import pytest

from florence_lab.exceptions import CheckpointError
from florence_lab.loading.files import cache_dir, find_weight_files, is_complete, read_json


def test_the_cache_directory_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir("compiled") == tmp_path / "florence_lab" / "compiled"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir("features") == tmp_path / ".cache" / "florence_lab" / "features"


def write_index(folder, name, shards):
    (folder / f"{name}.index.json").write_text(json.dumps({"weight_map": {str(i): s for i, s in enumerate(shards)}}))


def test_safetensors_are_preferred(tmp_path):
    for name in ("pytorch_model.bin", "model.safetensors"):
        (tmp_path / name).write_text("")
    assert find_weight_files(tmp_path) == [tmp_path / "model.safetensors"]


def test_all_shards_are_found_once(tmp_path):
    write_index(tmp_path, "model.safetensors", ["b", "a", "b"])
    for name in ("a", "b"):
        (tmp_path / name).write_text("")
    assert find_weight_files(tmp_path) == [tmp_path / "a", tmp_path / "b"]


def test_incomplete_shards_are_skipped_if_there_are_other_weights(tmp_path):
    write_index(tmp_path, "model.safetensors", ["a"])
    with pytest.raises(CheckpointError, match=r"lacks a, which model.safetensors.index.json lists"):
        find_weight_files(tmp_path)
    (tmp_path / "pytorch_model.bin").write_text("")
    assert find_weight_files(tmp_path) == [tmp_path / "pytorch_model.bin"]


def test_a_folder_is_complete_with_a_config_and_all_weights(tmp_path):
    assert not is_complete(tmp_path)
    (tmp_path / "model.safetensors").write_text("")
    assert not is_complete(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    assert is_complete(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not valid JSON"), ("[]", "must contain a JSON object, got list")]
)
def test_a_file_without_a_json_object_is_refused(tmp_path, text, message):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=f"config.json {message}"):
        read_json(path)
