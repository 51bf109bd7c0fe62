"""Label, correct, train, measure: 60 scenes at the command line, in each format."""

import json

import pytest

import florence_lab
from florence_lab.cli import main
from florence_lab.detection.ontology import Ontology
from florence_lab.labeling.assembly import DatasetLayout
from florence_lab.labeling.labeler import Labels
from florence_lab.labeling.labelling import label_sources
from florence_lab.labeling.records import LabelledObject
from florence_lab.labeling.sources import list_label_sources
from florence_lab.labeling.writers import WRITERS
from florence_lab.scenes import HELD_OUT_SEEDS, draw_scene

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A folder of 60 scenes, and the scenes by size and pixels of their image."""
    folder = tmp_path_factory.mktemp("scenes")
    scenes = [draw_scene(seed, 128) for seed in HELD_OUT_SEEDS[:60]]
    for seed, scene in zip(HELD_OUT_SEEDS, scenes, strict=False):
        scene.image.save(folder / f"{seed}.png")
    return folder, {scene.image.tobytes(): scene for scene in scenes}


class SceneLabeler:
    """Finds the objects of scenes, and takes each third for a rocket."""

    def __init__(self, scenes, names):
        self.scenes, self.names = scenes, names

    def describe(self):
        return {"model": "scenes"}

    def label(self, images):
        return [Labels(image.size, tuple(self._find(self.scenes[image.tobytes()]))) for image in images]

    def _find(self, scene):
        found = scene.answer("<OD>")
        for i, (label, box) in enumerate(zip(found.labels, found.boxes.tolist(), strict=True)):
            wrong = i % 3 == 2
            name = "rocket" if wrong else str(label)
            box = tuple(round(value, 3) for value in box)
            yield LabelledObject(self.names.index(name), name, box, 0.4 if wrong else 0.95, "od")


@pytest.mark.parametrize("format", WRITERS)
def test_corrected_labels_are_trained_on_and_measured_on_the_held_out_split(scenes, tmp_path, format):
    images, known = scenes
    truth = {name for scene in known.values() for name in scene.answer("<OD>").labels.tolist()}
    names = [*sorted(truth), "rocket"]
    layout = DatasetLayout(format, Ontology.from_classes(names), {"train": 0.8, "val": 0.2}, (0.3, 0.9))
    data = tmp_path / "data"
    report = label_sources(lambda: SceneLabeler(known, names), list_label_sources(images), data, layout)
    assert report.num_images == {"train": 48, "val": 12}
    review = florence_lab.review(data)
    wrong = review.items("uncertain")
    assert {item.label for item in wrong} == {"rocket"}
    for item in wrong[::2]:
        review.reject(item)
    for item in wrong[1::2]:
        review.rename(item, names[0])
    counts = review.apply()
    review.close()
    assert counts.objects["rocket"] == 0

    output = tmp_path / "run"
    options = ["--model_type", "florence-2-nano", "--max_steps", "2", "--batch_size", "2", "--eval_steps", "2"]
    options += ["--dtype", "fp32", "--device", "cpu", "--output_dir", str(output), "--dataloader_num_workers", "0"]
    assert main(["sft", "--dataset", f"{data}/#4", "--val_dataset", f"{data}/?split=val#2", *options]) == 0
    (adapter,) = {path.parent for path in output.rglob("adapter_model.safetensors") if "checkpoint-2" in str(path)}

    options = ["--ckpt_dir", str(adapter), "--out", str(tmp_path / "measured")]
    assert main(["eval", "--dataset", f"{data}/?split=val#4", *options]) == 0
    rows = [json.loads(line) for line in next((tmp_path / "measured").rglob("*.jsonl")).read_text().splitlines()]
    assert len(rows) == 4
