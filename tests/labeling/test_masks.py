"""Outlines of labelled boxes."""

import contextlib
import re
import shutil
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from sam2_files import write_sam2
from support import PHOTO, boxes, edit_json

from florence_lab import refine_masks
from florence_lab.exceptions import ArgumentError, CheckpointError, HubError
from florence_lab.geometry import polygons_to_mask
from florence_lab.labeling.masks import Sam2, mask_to_polygons
from florence_lab.results import Boxes, Polygons, Quads


@pytest.fixture(scope="module")
def sam2(tmp_path_factory):
    """The folder of a SAM 2 of 90,000 random weights."""
    return write_sam2(tmp_path_factory.mktemp("sam2"))


@pytest.fixture
def image():
    return Image.open(PHOTO).convert("RGB").resize((80, 50))


@pytest.fixture
def found(image):
    return boxes(("cat", 5, 5, 40, 30), ("dog", 10.5, 20, 60, 45), scores=[0.9, 0.5], image_size=image.size)


def ellipse(height, width):
    y, x = np.mgrid[:height, :width]
    return ((y - height / 2) / (height * 0.3)) ** 2 + ((x - width / 2) / (width * 0.4)) ** 2 < 1


@pytest.mark.parametrize("mask", [ellipse(60, 80), ellipse(20, 90), ellipse(30, 30) | np.eye(30, dtype=bool)])
def test_the_outline_of_a_mask_covers_its_pixels(mask):
    drawn = polygons_to_mask(mask_to_polygons(mask), mask.shape[::-1])
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.94


def test_a_rectangle_is_outlined_within_half_a_pixel_of_its_edges():
    mask = np.zeros((40, 60), bool)
    mask[5:20, 10:30] = True
    (polygon,) = mask_to_polygons(mask)
    assert [*polygon.min(0), *polygon.max(0)] == pytest.approx([10, 5, 30, 20], abs=0.5)


def test_parts_are_sorted_by_size_and_holes_and_specks_left_out():
    mask = np.zeros((40, 60), bool)
    mask[30:40, 50:60] = True  # at the border
    mask[5:20, 10:30] = True
    mask[8:12, 15:20] = False
    mask[0, 0] = True
    corners = [polygon.max(0) for polygon in mask_to_polygons(mask)]
    assert np.array(corners) == pytest.approx(np.array([[30, 20], [60, 40]]), abs=0.5)


def test_an_empty_mask_has_no_outline():
    assert mask_to_polygons(np.zeros((5, 5), bool)) == ()


def test_sam2_gives_the_masks_of_transformers_own_call(sam2, image, found):
    from transformers import Sam2Model, Sam2Processor

    model, processor = Sam2Model.from_pretrained(sam2), Sam2Processor.from_pretrained(sam2)
    inputs = processor(images=image, input_boxes=[found.boxes.tolist()], return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs, multimask_output=False)
    expected = processor.post_process_masks(outputs.pred_masks, inputs["original_sizes"])[0][:, 0].numpy()
    masks = Sam2(sam2).predict_masks(image, found.boxes)
    assert masks.shape == (2, 50, 80)
    assert (masks == expected).all()


def test_refined_boxes_keep_everything_else(sam2, image, found):
    refined = refine_masks(found, sam2, image)
    assert isinstance(refined, Boxes)
    assert refined.labels.tolist() == ["cat", "dog"]
    assert (refined.boxes == found.boxes).all()
    assert (refined.scores == found.scores).all()
    masks = Sam2(sam2).predict_masks(image, found.boxes)
    for contours, mask in zip(refined.contours, masks, strict=True):
        drawn = polygons_to_mask(contours, image.size)
        assert (drawn & mask).sum() / mask.sum() > 0.9


def test_other_results_become_polygons(sam2, image):
    quad = np.array([[[5, 5], [40, 5], [40, 30], [5, 30]]], float)
    refined = refine_masks(Quads(raw="", image_size=image.size, labels=["a"], quads=quad), Sam2(sam2), image)
    assert isinstance(refined, Polygons)
    assert len(refined) == 1


def test_an_empty_result_stays_empty(sam2, image):
    assert len(refine_masks(boxes(image_size=image.size), sam2, image)) == 0


def test_the_image_must_be_that_of_the_result(sam2, image, found):
    with pytest.raises(ArgumentError, match="keeps no image"):
        refine_masks(found, sam2)
    with pytest.raises(ArgumentError, match=r"\(40, 25\)"):
        refine_masks(found, sam2, image.resize((40, 25)))


def test_a_folder_without_sam2_is_named(tmp_path, image, found):
    with pytest.raises(CheckpointError, match=tmp_path.name):
        refine_masks(found, tmp_path, image)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").write_text('{"model_type": "florence2"}'), "'florence2', not 'sam2'"),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
        (lambda folder: edit_json(folder / "config.json", vision_config=5), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 100), "cannot be loaded"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda folder: (folder / "processor_config.json").unlink(), "cannot be loaded"),
        (lambda folder: _drop_weight(folder / "model.safetensors"), r"lacks the weights no_memory_embedding"),
    ],
    ids=["other model", "no JSON", "odd config", "no weights", "missing weights", "missing processor", "a weight"],
)
def test_a_damaged_sam2_is_named(sam2, tmp_path, damage, message):
    folder = shutil.copytree(sam2, tmp_path / "damaged")
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        Sam2(folder)
    assert "damaged" in str(caught.value)


def _drop_weight(path):
    weights = load_file(path)
    del weights["no_memory_embedding"]
    save_file(weights, path, {"format": "pt"})


def test_code_in_a_folder_is_not_run(sam2, tmp_path):
    folder = shutil.copytree(sam2, tmp_path / "code")
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Processor:\n    pass\n")
    edit_json(folder / "config.json", auto_map={"AutoModel": "code.Processor"})
    edit_json(folder / "processor_config.json", auto_map={"AutoImageProcessor": "code.Processor"})
    with contextlib.suppress(CheckpointError):
        Sam2(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("sam2", HubError, "cannot download facebook/sam2.1-hiera-small from Hugging Face: http://127.0.0.1"),
        ("someone/sam2", HubError, "cannot download someone/sam2"),
        ("./nowhere", HubError, "the model folder nowhere does not exist"),
        ("sam-2", ArgumentError, "unknown SAM 2 'sam-2'; did you mean 'sam2'?"),
        ("", ArgumentError, "unknown SAM 2 ''"),
        (5, ArgumentError, "model must be the name or folder of a SAM 2, or a Sam2, got 5"),
    ],
)
def test_a_model_that_is_not_at_hand_is_refused_within_seconds(
    unreachable_hubs, image, found, name, error, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    start = time.monotonic()
    with pytest.raises(error, match=re.escape(message)) as caught:
        refine_masks(found, name, image)
    assert time.monotonic() - start < 10
    assert "florence-2-nano" not in str(caught.value)


def test_the_hub_is_that_of_the_environment(unreachable_hubs, monkeypatch):
    monkeypatch.setenv("FLORENCE_LAB_HUB", "modelscope")
    with pytest.raises(HubError, match="from ModelScope"):
        Sam2("sam2-tiny")
    monkeypatch.setenv("FLORENCE_LAB_HUB", "hf")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        Sam2("sam2-tiny")


def test_labels_get_masks_of_sam2(sam2, small, tmp_path):
    import json

    from florence_lab import label

    options = {"strategy": "open_vocabulary", "verify": False, "max_new_tokens": 12}
    label(PHOTO, ["cat"], tmp_path / "data", "coco", small, masks=str(sam2), **options)
    content = json.loads((tmp_path / "data" / "train" / "_annotations.coco.json").read_text())
    assert all(a["segmentation"] for a in content["annotations"] if a["area"] > 100)
