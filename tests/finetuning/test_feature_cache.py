"""Cached image features."""

import copy
import errno
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from florence_lab.data.examples import Example, SceneReference
from florence_lab.exceptions import TrainingError
from florence_lab.finetuning import feature_cache
from florence_lab.finetuning.arguments import SftArguments
from florence_lab.finetuning.collator import Florence2DataCollator, TrainingRow
from florence_lab.finetuning.feature_cache import FeatureCache, load_image_features
from florence_lab.finetuning.run import to_training_arguments
from florence_lab.finetuning.run_directory import RunDirectory
from florence_lab.finetuning.trainer import Florence2Trainer
from florence_lab.scenes import draw_scene
from florence_lab.template.prompts import Prompt


@pytest.fixture
def cache(small, tmp_path):
    return FeatureCache(small.model, small.processor, root=tmp_path / "cache")


def test_equal_pixels_share_one_entry(cache, small, tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        draw_scene(seed, 64).image.save(tmp_path / f"{name}.png")
    a, b, c = cache.encode_images([tmp_path / f"{name}.png" for name in "abc"])
    assert a == b != c
    assert torch.allclose(load_image_features([a]), small.encode_image(tmp_path / "a.png").tokens, atol=1e-5)


def test_cached_images_are_not_encoded_again(cache, small, tmp_path, monkeypatch):
    paths = cache.encode_images([SceneReference(5, 64)])
    monkeypatch.setattr(small.model, "get_image_features", None)
    assert (
        FeatureCache(small.model, small.processor, root=tmp_path / "cache").encode_images([draw_scene(5, 64).image])
        == paths
    )


def test_weights_preprocessing_and_dtype_have_their_own_directories(small, tmp_path):
    model, processor = copy.deepcopy(small.model), copy.deepcopy(small.processor)
    directories = {FeatureCache(model, processor, root=tmp_path).directory}
    directories.add(FeatureCache(model, processor, torch.bfloat16, tmp_path).directory)
    processor.image_processor.image_mean = [0.5, 0.5, 0.5]
    directories.add(FeatureCache(model, processor, root=tmp_path).directory)
    model.model.multi_modal_projector.image_projection.weight.data[0, 0] += 1e-6
    directories.add(FeatureCache(model, processor, root=tmp_path).directory)
    assert len(directories) == 4


def test_features_give_the_same_loss_as_images(cache, small, tmp_path):
    examples = []
    for seed in (1, 2):
        target = draw_scene(seed, 64).answer("<OD>").raw
        examples.append(Example(SceneReference(seed, 64), Prompt.from_task("<OD>"), target, "", (64, 64)))
    paths = cache.encode_images(example.image for example in examples)
    collate = Florence2DataCollator(small.processor)
    batches = (
        collate([TrainingRow(example) for example in examples]),
        collate([TrainingRow(example, path) for example, path in zip(examples, paths, strict=True)]),
    )
    assert "pixel_values" not in batches[1]
    options = to_training_arguments(SftArguments(device="cpu"), tmp_path)
    model = copy.deepcopy(small.model)
    trainer = Florence2Trainer(model=model, args=options, processor=small.processor, run=RunDirectory(tmp_path))
    with torch.no_grad():
        a, b = (trainer.compute_loss(model, batch) for batch in batches)
    assert torch.allclose(a, b, atol=1e-5)


DAMAGES = {
    "cut off": lambda path: os.truncate(path, 100),
    "empty": lambda path: path.write_bytes(b""),
    "other bytes": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "another tensor": lambda path: save_file({"weight": torch.ones(37, 32)}, path),
    "another shape": lambda path: save_file({"tokens": torch.ones(5, 32)}, path),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_computed_again(cache, damage):
    image = draw_scene(5, 64).image
    (path,) = cache.encode_images([image])
    features = load_file(path)["tokens"].clone()  # the file is mapped into memory
    damage(path)
    assert cache.encode_images([image]) == [path]
    assert torch.equal(load_file(path)["tokens"], features)


@pytest.mark.parametrize("damage", [os.unlink, *list(DAMAGES.values())[:4]], ids=["removed", *list(DAMAGES)[:4]])
def test_a_file_that_was_damaged_during_training_is_named(cache, damage):
    (path,) = cache.encode_images([draw_scene(5, 64).image])
    damage(path)
    with pytest.raises(TrainingError, match=f"{path.name} were removed or damaged"):
        load_image_features([path])


def test_a_full_disk_names_the_option(cache, monkeypatch):
    def fail(tensors, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(feature_cache, "save_file", fail)
    with pytest.raises(TrainingError, match=r"No space left.*MB.*--feature_dir"):
        cache.encode_images([draw_scene(5, 64).image])
    assert not list(cache.directory.iterdir())


def test_the_folder_of_the_features_must_be_a_folder(small, tmp_path):
    (tmp_path / "file").touch()
    cache = FeatureCache(small.model, small.processor, root=tmp_path / "file")
    with pytest.raises(TrainingError, match="--feature_dir"):
        cache.encode_images([draw_scene(5, 64).image])
