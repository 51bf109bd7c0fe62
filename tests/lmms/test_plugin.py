"""lmms-eval's own evaluator with `--model florence_lab`, on tasks about the scenes that ship."""

import importlib
from pathlib import Path

import pytest

pytest.importorskip("lmms_eval")

from datasets import Dataset, Features, Image, Sequence, Value

from florence_lab.scenes import SAMPLES, sample_path, sample_scene

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest requires tomli
    import tomli as tomllib

TASKS = {
    "nocaps_scenes": """
        task: nocaps_scenes
        output_type: generate_until
        doc_to_text: Provide a one-sentence caption for the provided image.
        doc_to_target: caption
        process_results: !function scorers.exact
        metric_list: [{metric: exact, aggregation: mean, higher_is_better: true}]
        """,
    # lmms-eval's own scorer of RefCOCO
    "refcoco_scenes_bbox_rec": """
        task: refcoco_scenes_bbox_rec
        output_type: generate_until
        process_docs: !function scorers.refcoco_bbox_rec_preprocess_dataset
        doc_to_text: !function scorers.refcoco_bbox_rec_doc_to_text
        doc_to_target: bbox
        generation_kwargs: {until: ["ASSISTANT:"]}
        process_results: !function scorers.refcoco_bbox_rec_process_result
        metric_list:
          - {metric: "refcoco_ACC@0.5", aggregation: !function scorers.refcoco_bbox_rec_acc05, higher_is_better: true}
          - {metric: refcoco_IoU, aggregation: !function scorers.refcoco_bbox_rec_iou, higher_is_better: true}
        """,
}
COMMON = """
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
doc_to_visual: !function scorers.refcoco_bbox_rec_doc_to_visual
metadata: {{version: 0.0}}
"""
SCORERS = """
from lmms_eval.tasks.refcoco.utils_rec import *  # noqa: F403


def exact(doc, results):
    return {"exact": float(results[0] == doc["caption"])}
"""


def documents():
    """The scenes with an object that is the only one of its kind, and its box as COCO has it."""
    for number, name in enumerate(SAMPLES):
        scene = sample_scene(name)
        found = scene.answer("<OD>")
        labels = found.labels.tolist()
        index = next((i for i, label in enumerate(labels) if labels.count(label) == 1), None)
        if index is None:
            continue
        x0, y0, x1, y1 = found.boxes[index].tolist()
        yield {
            "image": str(sample_path(name)),
            "question_id": str(number),
            "answer": [labels[index]],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "caption": scene.answer("<CAPTION>").raw,
        }


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory):
    """Return a function that runs a task and returns its metrics."""
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.models import MODEL_REGISTRY_V2
    from lmms_eval.tasks import TaskManager

    from florence_lab.lmms.plugin import get_manifest

    folder = tmp_path_factory.mktemp("lmms_tasks")
    text, number = Value("string"), Value("float64")
    features = Features(
        image=Image(),
        question_id=text,
        answer=Sequence(text),
        bbox=Sequence(number),
        caption=text,
    )
    Dataset.from_list(list(documents()), features=features).to_parquet(folder / "scenes.parquet")
    (folder / "scorers.py").write_text(SCORERS)
    for name, content in TASKS.items():
        lines = "\n".join(line.removeprefix(" " * 8) for line in content.splitlines())
        (folder / f"{name}.yaml").write_text(lines + COMMON.format(path=folder / "scenes.parquet"))
    MODEL_REGISTRY_V2.register_manifest(get_manifest(), overwrite=True)  # also where florence_lab is not installed

    def run(task, **options):
        manager = TaskManager("ERROR", include_path=str(folder), include_defaults=False, model_name="florence_lab")
        arguments = "pretrained=florence-2-nano,device=cpu"
        results = simple_evaluate(
            "florence_lab", arguments, tasks=[task], batch_size=4, task_manager=manager, bootstrap_iters=0, **options
        )
        return {name.partition(",")[0]: value for name, value in results["results"][task].items()}

    return run


@pytest.mark.slow
def test_captions_are_answered(evaluate, nano):
    rows = list(documents())
    rights = [nano.predict(row["image"], "<CAPTION>").text == row["caption"] for row in rows]
    assert evaluate("nocaps_scenes")["exact"] == pytest.approx(sum(rights) / len(rows))


@pytest.mark.slow
def test_the_boxes_of_phrases_are_read_by_the_scorer_of_refcoco(evaluate):
    metrics = evaluate("refcoco_scenes_bbox_rec")
    assert metrics["refcoco_ACC@0.5"] == 1.0
    assert metrics["refcoco_IoU"] > 0.85


def test_the_entry_point_leads_to_the_manifest():
    settings = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    module, name = settings["project"]["entry-points"]["lmms_eval.models"]["florence_lab"].split(":")
    manifest = getattr(importlib.import_module(module), name)()
    assert manifest.model_id == "florence_lab"


@pytest.mark.parametrize(
    "pattern", ["nocaps_val", "coco2017_cap_val", "textcaps_val", "refcoco_bbox_rec_val", "docvqa_val"]
)
def test_the_named_tasks_exist_in_lmms_eval(pattern):
    import lmms_eval

    tasks = Path(lmms_eval.__file__).parent / "tasks"
    assert list(tasks.rglob(f"{pattern}.yaml"))
