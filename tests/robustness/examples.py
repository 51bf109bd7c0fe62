"""Valid arguments for the public functions and methods, by the name of the parameter."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sam2_files import write_sam2
from suite_files import coco_detection

import florence_lab
from florence_lab import evaluation, interpret, scenes, visualization
from florence_lab.data.examples import Example, SceneReference
from florence_lab.detection.calibration import FEATURES
from florence_lab.detection.ontology import Ontology
from florence_lab.labeling.assembly import DatasetLayout, assemble
from florence_lab.labeling.parts import PARTS_FOLDER, PartStore
from florence_lab.labeling.records import LabelledImage, LabelledObject
from florence_lab.results import Boxes, Polygons, Quads, Text
from florence_lab.template.prompts import build_prompt

SIZE = (64, 48)
SQUARE = np.array([[1.0, 1.0], [20.0, 1.0], [20.0, 20.0]])


class Samples:
    """Objects that valid calls need, made once. Nothing modifies them but `predictor.compile`, which is not called."""

    def __init__(self, checkpoint: Path) -> None:
        """Take a checkpoint whose model answers fast."""
        self.checkpoint = checkpoint

    @functools.cached_property
    def predictor(self) -> florence_lab.Predictor:
        predictor = florence_lab.load(self.checkpoint, device="cpu")
        predictor.model.generation_config.update(max_new_tokens=4, max_length=None, num_beams=1, early_stopping=False)
        return predictor

    @functools.cached_property
    def template(self) -> florence_lab.FlorenceTemplate:
        tokenizer = self.predictor.processor.tokenizer
        tokenizer.processor = self.predictor.processor
        return florence_lab.FlorenceTemplate(tokenizer)

    @functools.cached_property
    def image(self) -> Image.Image:
        return Image.new("RGB", SIZE, "green")

    @functools.cached_property
    def encoded(self) -> florence_lab.EncodedImage:
        return self.predictor.encode_image(self.image)

    @functools.cached_property
    def boxes(self) -> Boxes:
        box = np.array([[1.0, 2.0, 30.0, 40.0], [3.0, 3.0, 9.0, 9.0]])
        return Boxes(
            raw="a", image_size=SIZE, task="<OD>", labels=["a", "b"], boxes=box, scores=[0.5, 0.7], image=self.image
        )

    @functools.cached_property
    def quads(self) -> Quads:
        quad = np.array([[(1, 1), (9, 1), (9, 5), (1, 5)]], float)
        return Quads(raw="a", image_size=SIZE, task="<OCR_WITH_REGION>", labels=["a"], quads=quad, image=self.image)

    @functools.cached_property
    def polygons(self) -> Polygons:
        return Polygons(
            raw="a",
            image_size=SIZE,
            task="<REFERRING_EXPRESSION_SEGMENTATION>",
            phrase="a",
            labels=["a"],
            polygons=((SQUARE,),),
            image=self.image,
        )

    @functools.cached_property
    def text(self) -> Text:
        return Text(raw="a cat", text="a cat", image_size=SIZE, task="<CAPTION>", image=self.image)

    @functools.cached_property
    def trace(self) -> florence_lab.Trace:
        """An answer with boxes, which random weights do not give."""
        nano = florence_lab.load("florence-2-nano", device="cpu")
        return interpret.trace(nano, scenes.sample_path("sheep"), "<OD>", max_new_tokens=12)

    @functools.cached_property
    def scene(self) -> scenes.Scene:
        return scenes.draw_scene(3014, 64)

    @functools.cached_property
    def example(self) -> Example:
        return Example(SceneReference(3, 64), build_prompt("<CAPTION>"), "a cat", "scene 3", (64, 64))

    @functools.cached_property
    def evaluated(self) -> florence_lab.Evaluation:
        return florence_lab.evaluate(self.predictor, [self.example])

    @functools.cached_property
    def calibration(self) -> florence_lab.Calibration:
        return florence_lab.Calibration(FEATURES, (1.0, 1.0, 0.0), 0.0)

    @functools.cached_property
    def ranked(self) -> florence_lab.RankedCandidates:
        return florence_lab.RankedCandidates([florence_lab.ScoredCandidate("a cat", -1.0, 3, 1.0)])

    @functools.cached_property
    def calibration_report(self) -> florence_lab.CalibrationReport:
        half = {"verified": 0.5}
        scores = {"verified": np.array([0.2, 0.8])}
        return florence_lab.CalibrationReport(self.calibration, scores, np.array([False, True]), half, half, 0.5, 2, 1)

    @functools.cached_property
    def absence(self) -> evaluation.AbsenceEvaluation:
        """Questions about a scene with their answers."""
        return evaluation.evaluate_absence(self.predictor, self.detections, num_questions=2)

    @functools.cached_property
    def suite_root(self) -> Path:
        """The files of a benchmark."""
        return coco_detection(self.folder / "coco")

    @functools.cached_property
    def suite(self) -> evaluation.SuiteEvaluation:
        return evaluation.evaluate_suite(
            self.predictor, "coco-detection", self.suite_root, self.folder / "suite", limit=2
        )

    @functools.cached_property
    def comparison(self) -> evaluation.TaskComparison:
        rows = evaluation.read_predictions(self.answers)
        return evaluation.compare_predictions(rows, rows)[0]

    @functools.cached_property
    def label_report(self) -> florence_lab.LabelReport:
        return florence_lab.LabelReport(Path("data"), "yolo", {"train": 1}, {"cat": 2}, 0, 0, 1, 2.0)

    @functools.cached_property
    def sam2(self) -> Path:
        """The folder of a SAM 2 with random weights."""
        return write_sam2(self.folder / "sam2")

    @functools.cached_property
    def labelled(self) -> Path:
        """A folder as `label` writes it, with one object."""
        folder = self.folder / "labelled"
        path = self.dataset.parent / "image.png"
        store = PartStore(folder / PARTS_FOLDER)
        store.open({})
        found = LabelledObject(0, "cat", (1.0, 1.0, 20.0, 20.0), 0.6, "od")
        store.write([LabelledImage(str(path), path.name, str(path), size=SIZE, objects=(found,))])
        assemble(store, DatasetLayout("yolo", Ontology.from_classes(["cat"])), folder)
        return folder

    @functools.cached_property
    def detections(self) -> list[Example]:
        return list(evaluation.scene_examples([3, 4], ["<OD>"], 64))

    @functools.cached_property
    def dataset(self) -> Path:
        """A file with one row."""
        self.image.save(self.folder / "image.png")
        path = self.folder / "rows.jsonl"
        path.write_text('{"images": ["image.png"], "query": "<CAPTION>", "response": "a cat"}\n')
        return path

    @functools.cached_property
    def answers(self) -> Path:
        """The `answers.jsonl` of an evaluation."""
        return self.evaluated.save(self.folder / "evaluation") / "answers.jsonl"

    @functools.cached_property
    def adapter(self) -> Path:
        """A LoRA adapter of the checkpoint."""
        from peft import LoraConfig, get_peft_model
        from support import edit_json

        from florence_lab.loading.checkpoint import load_checkpoint

        model, _ = load_checkpoint(self.checkpoint)
        folder = self.folder / "adapter"
        get_peft_model(model, LoraConfig(r=1, target_modules=["q_proj"])).save_pretrained(folder)
        edit_json(folder / "adapter_config.json", base_model_name_or_path=str(self.checkpoint))
        return folder

    @property
    def folder(self) -> Path:
        return self.checkpoint.parent

    def axes(self) -> Any:
        from matplotlib.figure import Figure

        return Figure().subplots()


def _new_task() -> florence_lab.Task:
    return florence_lab.Task("<NEW>", "Do something new.", "none", "text", "something new")


EXAMPLES: dict[str, Callable[[Samples], Any]] = {
    # models and images
    "predictor": lambda s: s.predictor,
    "model": lambda s: s.predictor.model,
    "processor": lambda s: s.predictor.processor,
    "tokenizer": lambda s: s.template.tokenizer,
    "template": lambda s: s.template,
    "model_type_or_path": lambda s: s.checkpoint,
    "model_type": lambda s: "florence-2-nano",
    "template_type": lambda s: "florence",
    "device": lambda s: "cpu",
    "image": lambda s: s.encoded,
    "images": lambda s: [s.encoded],
    "source": lambda s: s.image,
    "sources": lambda s: [s.dataset.parent / "image.png"],
    "image_size": lambda s: SIZE,
    "size": lambda s: (64, 64),
    # prompts
    "task": lambda s: "<CAPTION>",
    "tasks": lambda s: ["<CAPTION>", "<OD>"],
    "query": lambda s: "<CAPTION>",
    "prompt": lambda s: "<OD>",
    "token": lambda s: "<NEW>",
    "input": lambda s: "none",
    "result": lambda s: s.boxes,
    "name": lambda s: "<OD>",
    "description": lambda s: "something",
    # results
    "raw": lambda s: "a",
    "text": lambda s: "a cat",
    "labels": lambda s: ["a", "b"],
    "classes": lambda s: ["a", "b"],
    "boxes": lambda s: s.boxes.boxes,
    "quads": lambda s: s.quads.quads,
    "polygons": lambda s: ((SQUARE,),),
    "results": lambda s: [s.boxes, s.text],
    "index": lambda s: 0,
    "token_ids": lambda s: [0, 5, 2],
    # figures
    "ax": lambda s: s.axes(),
    "panels": lambda s: [(s.image, s.boxes)],
    "width": lambda s: 3,
    "height": lambda s: 2,
    # interpretation
    "trace": lambda s: s.trace,
    "span": lambda s: 0,
    "spans": lambda s: 0,
    # evaluation
    "examples": lambda s: [s.example],
    "predictions": lambda s: [s.boxes],
    "ground_truths": lambda s: [s.boxes],
    "prediction": lambda s: s.boxes,
    "ground_truth": lambda s: s.boxes,
    "model_name": lambda s: "x",
    "example": lambda s: s.example,
    "error": lambda s: florence_lab.ImageError("x"),
    "datasets": lambda s: [str(s.dataset)],
    "scores": lambda s: np.array([0.9, 0.2, 0.4]),
    "is_positive": lambda s: np.array([True, False, True]),
    "question": lambda s: s.absence.answers[0].question,
    "questions": lambda s: [answer.question for answer in s.absence.answers[:2]],
    "answers": lambda s: s.absence.answers,
    "is_present": lambda s: True,
    "strategies": lambda s: ("random",),
    "folder": lambda s: Path("new"),
    "path": lambda s: s.answers,
    "per_sample": lambda s: evaluation.METRIC_SUITES["ocr"].per_sample,
    "aggregate": lambda s: evaluation.METRIC_SUITES["ocr"].aggregate,
    "outcome": lambda s: s.text,
    "row": lambda s: {"query": "<CAPTION>"},
    "candidates": lambda s: ["a cat", "a dog"],
    "comparisons": lambda s: [s.comparison],
    "evaluation": lambda s: s.evaluated,
    "first": lambda s: evaluation.read_predictions(s.answers),
    "second": lambda s: evaluation.read_predictions(s.answers),
    "other": lambda s: s.suite,
    "root": lambda s: s.suite_root,
    "out": lambda s: Path("labelled"),
    "features": lambda s: np.array([[0.1, 0.2, 0.3], [0.9, 0.8, 0.7]]),
    "is_right": lambda s: np.array([False, True]),
    # scenes
    "scene": lambda s: s.scene,
    "seed": lambda s: 3,
    "seeds": lambda s: [3],
    "rng": lambda s: np.random.default_rng(1),
    "checkpoint": lambda s: s.adapter,
    "log": lambda s: [{"step": 1, "loss": 2.0}],
    "line": lambda s: {"step": 1, "loss": 2.0},
}
"""Name of a parameter -> a valid value. Parameters with a default need none."""

PARTICULAR_EXAMPLES: dict[str, Callable[[Samples], Any]] = {
    "InferRequest.messages": lambda s: [{"role": "user", "content": "<OD>"}],
    "PtEngine.model_id_or_path": lambda s: s.predictor,
    "PtEngine.torch_dtype": lambda s: None,
    "TransformersEngine.model": lambda s: s.predictor,
    "TransformersEngine.infer.infer_requests": lambda s: [],
    "PtEngine.infer.infer_requests": lambda s: [],
    "Task.prompt": lambda s: "Do something new.",
    "Task.result": lambda s: "text",
    "Task.text": lambda s: "x",
    "register_task.task": lambda s: _new_task(),
    "Prompt.task": lambda s: florence_lab.get_task("<OD>"),
    "is_published.task": lambda s: florence_lab.get_task("<OD>"),
    "Prompt.text": lambda s: "",
    "EncodedImage.image": lambda s: s.image,
    "EncodedImage.tokens": lambda s: s.encoded.tokens,
    "Predictor.predict.text": lambda s: None,
    "Quads.with_labels.labels": lambda s: ["c"],
    "Polygons.with_labels.labels": lambda s: ["c"],
    "Quads.labels": lambda s: ["a"],
    "Polygons.labels": lambda s: ["a"],
    "Boxes.polygons": lambda s: (),
    "FlorenceTemplate.build_prompt.text": lambda s: None,
    "Predictor.build_prompt.text": lambda s: None,
    "Predictor.predict_batch.text": lambda s: None,
    "Predictor.predict_iter.text": lambda s: None,
    "Predictor.predict_prompts.prompts": lambda s: [build_prompt("<CAPTION>")],
    "Predictor.stream.text": lambda s: None,
    "trace.text": lambda s: None,
    "Scene.answer.text": lambda s: None,
    "inference.images": lambda s: [s.image],
    "inference_stream.images": lambda s: [s.image],
    "load_image.source": lambda s: s.image,
    "sample_path.name": lambda s: "sheep",
    "sample_scene.name": lambda s: "sheep",
    "sprite.label": lambda s: "robot",
    "sprite.size": lambda s: (10, 10),
    "sprite.height": lambda s: 0.2,
    "sprite.colors": lambda s: {None: 1},
    "Text.text": lambda s: "a cat",
    "caption_counts.text": lambda s: "two cats",
    "draw_text.result": lambda s: s.text,
    "draw_quads.result": lambda s: s.quads,
    "draw_polygons.result": lambda s: s.polygons,
    "Trace.span.query": lambda s: 0,
    "Trace.result": lambda s: s.trace.result,
    "AnswerSpan.kind": lambda s: "word",
    "AnswerSpan.positions": lambda s: (0,),
    "TokenCandidate.probability": lambda s: 0.5,
    "show_location_probabilities.span": lambda s: _location_position(s.trace),
    "show.image": lambda s: s.image,
    "to_pdf.image": lambda s: s.image,
    "to_png.image": lambda s: s.image,
    "to_svg.image": lambda s: s.image,
    "view.image": lambda s: s.image,
    "extract_feature_maps.image": lambda s: s.image,
    "show_feature_maps.image": lambda s: s.image,
    "list_images.folder": lambda s: s.dataset.parent,
    "SceneObject.label": lambda s: "cat",
    "plot_run.log": lambda s: _training_log(s.folder),
    "read_training_log.path": lambda s: _training_log(s.folder),
    "Evaluation.for_task.task": lambda s: "<CAPTION>",
    "AbsenceAnswer.task": lambda s: "<OPEN_VOCABULARY_DETECTION>",
    "AbsenceQuestion.source": lambda s: "scene 3",
    "AbsenceQuestion.name": lambda s: "dog",
    "evaluate_absence.examples": lambda s: s.detections,
    "evaluate_absence.num_questions": lambda s: 2,
    "sample_absence_questions.examples": lambda s: s.detections,
    "Evaluation.predictions": lambda s: [s.text],
    "metric_names.tasks": lambda s: [florence_lab.get_task("<OD>")],
    "evaluate_scenes.seeds": lambda s: [3],
    "evaluate_scenes.tasks": lambda s: ["<CAPTION>"],
    "write_dataset.tasks": lambda s: ["<CAPTION>"],
    "Predictor.score.text": lambda s: None,
    "RankedCandidates.candidates": lambda s: list(s.ranked),
    "calibrate.dataset": lambda s: [(s.image, s.boxes)],  # a single image: refused
    "Calibration.load.path": lambda s: s.calibration.save(s.folder / "calibration.json"),
    "Calibration.save.path": lambda s: Path("new.json"),
    "CalibrationReport.save.path": lambda s: Path("new.json"),
    "compare_runs.first": lambda s: s.answers.parent,
    "compare_runs.second": lambda s: s.answers.parent,
    "evaluate_suite.name": lambda s: "coco-detection",
    "evaluate_suite.folder": lambda s: Path("suite"),
    "evaluate_suite.limit": lambda s: 1,
    "write_report.path": lambda s: Path("report.html"),
    "ReliabilityBins.edges": lambda s: np.array([0.0, 1.0]),
    "ReliabilityBins.counts": lambda s: np.array([1]),
    "ReliabilityBins.precisions": lambda s: np.array([0.5]),
    "ReliabilityBins.confidences": lambda s: np.array([0.5]),
    "label.images": lambda s: [s.dataset.parent / "image.png"],
    "label.model": lambda s: s.predictor,
    "refine_masks.model": lambda s: s.sam2,
    "review.folder": lambda s: s.labelled,
    "explore.image": lambda s: s.image,
    "sft.arguments": lambda s: florence_lab.SftArguments(),  # has no dataset: refused
}
"""`function.parameter` -> a valid value that takes precedence."""


INSTANCES: dict[str, Callable[[Samples], Any]] = {
    "InferRequest": lambda s: florence_lab.InferRequest([{"role": "user", "content": "<OD>"}], images=[s.image]),
    "PtEngine": lambda s: florence_lab.PtEngine(s.predictor),
    "RequestConfig": lambda s: florence_lab.RequestConfig(),
    "TransformersEngine": lambda s: florence_lab.TransformersEngine(s.predictor),
    "Calibration": lambda s: s.calibration,
    "CalibrationReport": lambda s: s.calibration_report,
    "RankedCandidates": lambda s: s.ranked,
    "ScoredCandidate": lambda s: s.ranked[0],
    "Boxes": lambda s: s.boxes,
    "Quads": lambda s: s.quads,
    "Polygons": lambda s: s.polygons,
    "Text": lambda s: s.text,
    "EncodedImage": lambda s: s.encoded,
    "Evaluation": lambda s: s.evaluated,
    "FlorenceTemplate": lambda s: s.template,
    "Predictor": lambda s: s.predictor,
    "Prompt": lambda s: s.example.prompt,
    "Trace": lambda s: s.trace,
    "AnswerSpan": lambda s: s.trace.spans[0],
    "Scene": lambda s: s.scene,
    "SceneObject": lambda s: s.scene.objects[0],
    "Prediction": lambda s: evaluation.read_predictions(s.answers)[0],
    "AbsenceAnswer": lambda s: s.absence.answers[0],
    "AbsenceEvaluation": lambda s: s.absence,
    "AbsenceQuestion": lambda s: s.absence.answers[0].question,
    "LabelReport": lambda s: s.label_report,
    "SuiteEvaluation": lambda s: s.suite,
    "TaskComparison": lambda s: s.comparison,
    "MetricSuite": lambda s: evaluation.METRIC_SUITES["ocr"],
    "LiveLossPlot": lambda s: visualization.LiveLossPlot(),
    "NotebookFigure": lambda s: visualization.NotebookFigure(1, 1),
    "TokenCandidate": lambda s: interpret.TokenCandidate("a", 0.5),
    "Task": lambda s: _new_task(),
}
"""Class -> an instance, whose methods are called, and whose fields are valid arguments of the class."""


def _location_position(trace: florence_lab.Trace) -> int:
    positions = [span.positions[0] for span in trace.spans if span.points is not None]
    return positions[0] if positions else 0


def _training_log(folder: Path) -> Path:
    path = folder / "log.jsonl"
    path.write_text('{"step": 1, "loss": 2.0, "lr": 0.1}\n{"step": 2, "loss": 1.0, "lr": 0.1}\n')
    return path
