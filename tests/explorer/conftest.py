"""A predictor that yields prepared results, so that the explorer is tested without a model."""

import ast
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import florence_lab
from florence_lab.explorer import predictor_cache
from florence_lab.explorer.images import load_sample
from florence_lab.explorer.panel import Explorer
from florence_lab.explorer.questions import Question
from florence_lab.explorer.selections import select
from florence_lab.inference.generation import EncodedImage
from florence_lab.results import Instances
from florence_lab.template import FlorenceTemplate

REGION = (35, 237, 157, 337)
INPUTS = {"none": None, "phrase": "two sheep", "region": REGION}
BOX = "<loc_100><loc_200><loc_300><loc_400>"
ANSWERS = {
    "text": "two sheep",
    "boxes": f"sheep{BOX}sheep<loc_500><loc_200><loc_700><loc_400>",
    "grounding": f"sheep{BOX}<loc_500><loc_200><loc_700><loc_400>",
    "boxes_or_polygons": f"sheep{BOX}sheep<loc_500><loc_200><loc_700><loc_400>",
    "quads": f"HI{BOX}{BOX}HO{BOX}{BOX}",
    "polygons": f"{BOX}<loc_100><loc_500>",
}
SCORES = (0.9, 0.4)


class FakePredictor:
    """Answers every task with a prepared result. Instances have the scores `SCORES`.

    Attributes:
        num_encoded: number of images that were encoded.
        gate: decoding steps wait while this event is clear.
        waiting: set once a step waits or has passed.
    """

    def __init__(self, name="florence-2-nano"):
        self.name = name
        self.model = torch.nn.Module()
        self.model.lm_head = torch.nn.Identity()
        self.num_encoded = 0
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()

    def encode_image(self, image):
        self.num_encoded += 1
        return EncodedImage(image, torch.zeros(1, 1, 1))

    def predict(self, image, task, text=None, num_beams=1):
        image = image if hasattr(image, "tokens") else self.encode_image(predictor_image(image))
        template = FlorenceTemplate()
        prompt = template.build_prompt(task, text, image.size)
        result = template.parse_text(ANSWERS[prompt.task.result], prompt, image.size)
        result = replace(result, image=image.image)
        return replace(result, scores=np.array(SCORES[: len(result)])) if isinstance(result, Instances) else result

    def predict_tasks(self, image, tasks, num_beams=1):
        self._step()
        return [self.predict(image, task) for task in tasks]

    def detect(self, image, classes):
        self._step()
        return self.predict(image, "<OD>").with_labels(classes[0])

    def stream(self, image, task, text=None):
        return self._stream(self.predict(image, task, text))

    def _stream(self, result):
        for count in range(1, len(result) + 1) if isinstance(result, Instances) else [None]:
            self._step()
            yield result[:count] if count else result

    def _step(self):
        self.waiting.set()
        assert self.gate.wait(20)
        self.model.lm_head(torch.zeros(1))  # where `interruptible` stops the model


def predictor_image(source):
    from florence_lab.images import load_image

    return load_image(source)


@pytest.fixture
def fake():
    return FakePredictor()


@pytest.fixture
def sheep():
    """The sample "sheep", not encoded yet."""
    image = load_sample("sheep")
    image.encoded.clear()
    return image


@pytest.fixture
def make_question(sheep):
    """Return a question about the sample "sheep", with an input if the task takes one."""

    def make(task="<OD>", text=None, **fields):
        selection = select(task)
        fields = {"image": sheep, "model_names": ("florence-2-nano",)} | fields
        return Question(selection=selection, text=INPUTS[selection.input] if text is None else text, **fields)

    return make


@pytest.fixture
def cache(fake):
    """A cache whose every model is `fake`, or another fake predictor for other names than florence-2-nano."""
    others = {}

    def load(name, is_compiled):
        if name == "florence-2-nano" and not is_compiled:
            return fake
        return others.setdefault((name, is_compiled), FakePredictor(name))

    return predictor_cache.PredictorCache(load=load)


@pytest.fixture
def panel(cache, sheep):
    panel = Explorer("florence-2-nano", None, "<OD>", cache)
    yield panel
    panel.close()


@pytest.fixture
def run_panel():
    """Press Run in a panel after setting its controls, wait for the end, and return the result."""

    def run(panel, task=None, text=None):
        if task is not None:
            panel.task.value = task
        if isinstance(text, str):
            panel.phrase.value = text
        elif text is not None:
            panel.viewer.region = list(text)
        panel.run.click()
        wait_until(lambda: not panel.is_busy)
        return panel.result

    return run


@pytest.fixture
def run_code(monkeypatch, fake):
    """Run code as a notebook does, with `fake` in place of every model, and return the value of its last line."""
    loads = []
    monkeypatch.setattr(florence_lab, "load", lambda *a, **k: loads.append((a, k)) or fake, raising=False)

    def run(code):
        return _evaluate(code)

    run.loads = loads
    return run


@pytest.fixture
def evaluate_code():
    """Run code as a notebook does, and return the value of its last line."""
    return _evaluate


def _evaluate(code):
    *statements, last = ast.parse(code).body
    names = {}
    exec(compile(ast.Module(statements, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


@pytest.fixture(name="wait_until")
def wait_until_fixture():
    return wait_until


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition has not become true"
        time.sleep(0.005)
