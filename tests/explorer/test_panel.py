"""The panel, driven as a browser would: fields set, buttons clicked, and what is then shown; with florence-2-nano."""

import ast
import base64
import copy
import io
import json
import os
import re
import sys
import threading
import time
import warnings
from dataclasses import replace
from datetime import datetime, timezone
from html import unescape

import numpy as np
import pytest
import torch
from support import UNREACHABLE, PHOTO, copy_of_tiny, edit_json
from matplotlib.backend_bases import MouseButton, MouseEvent
from PIL import Image

import florence_lab
from florence_lab.cli import main
from florence_lab.explorer import panel as panel_module
from florence_lab.explorer import session as work_module
from florence_lab.explorer.images import opened_picture, sample_picture
from florence_lab.explorer.listening import listening
from florence_lab.explorer.markup import all_raw, all_said, coloured
from florence_lab.explorer.messages import what_it_knows
from florence_lab.explorer.page import write_notebook
from florence_lab.explorer.predictor_cache import SHELF, Shelf
from florence_lab.explorer.questions import ALL_TASKS
from florence_lab.explorer.region import RegionPicker
from florence_lab.explorer.session import _COMPUTING
from florence_lab.loading.registry import MODELS, available_models
from florence_lab.results import Text
from florence_lab.scenes import SAMPLES, draw_scene, sample_path
from florence_lab.tasks import TASKS

SHEEP = (35, 237, 157, 337)
INPUTS = {"none": None, "phrase": "four sheep in a field", "region": SHEEP}
ALONE = [token for token, task in TASKS.items() if task.input == "none"]


@pytest.fixture(scope="module")
def nano():
    return SHELF.get("florence-2-nano")


@pytest.fixture
def panel(nano):
    sample_picture("sheep").encoded.clear()
    return florence_lab.explore()


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A folder with another model, of random weights and few words."""
    folder = copy_of_tiny(tmp_path_factory.mktemp("other") / "tuned")
    edit_json(folder / "preprocessor_config.json", size={"height": 192, "width": 192}, image_seq_length=37)
    edit_json(folder / "generation_config.json", max_new_tokens=12)
    return str(folder)


@pytest.fixture
def looks(nano):
    """A list that grows with each run of nano's vision tower."""
    runs = []
    hook = nano.model.model.vision_tower.register_forward_pre_hook(lambda *_: runs.append(1))
    yield runs
    hook.remove()


@pytest.fixture
def slow(nano):
    """Has nano take its time for each token; a list of them."""
    tokens = []
    hook = nano.model.lm_head.register_forward_hook(lambda *_: (tokens.append(1), time.sleep(0.03))[:0] or None)
    yield tokens
    hook.remove()


def until(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def ask(panel, task=None, text=None):
    """Sets the question, presses Run and waits; the first answer on show."""
    if task is not None:
        panel.task.value = task
    if isinstance(text, str):
        panel.phrase.value = text
    elif text is not None:
        panel.region.region = text
    panel.run.click()
    until(lambda: not panel.busy)
    return panel.views[0].answer


def words(html):
    """HTML as a person reads it."""
    return unescape(re.sub("<[^>]+>", " ", html)).strip()


def error(panel):
    assert not panel.busy
    assert not panel.run.disabled
    assert "fl-error" in panel.status.value, panel.status.value
    assert "\n" not in words(panel.status.value)
    return words(panel.status.value)


def run_code(view):
    """The value of the last line of the code on show."""
    code = unescape(re.search("<pre[^>]*>(.*)</pre>", view.pages["Code"].value, re.DOTALL)[1])
    assert len(code.splitlines()) == 3
    *lines, last = ast.parse(code).body
    names = {}
    exec(compile(ast.Module(lines, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def downloads(view):
    links = re.findall('<a download="([^"]+)" href="data:([^;]+);base64,([^"]+)"', view.pages["Download"].value)
    return {unescape(name): (mime, base64.b64decode(data, validate=True)) for name, mime, data in links}


def assert_same(result, other):
    assert type(result) is type(other)
    assert (result.raw, result.prompt, result.image_size) == (other.raw, other.prompt, other.image_size)
    assert json.dumps(unscored(result)) == json.dumps(unscored(other))
    # what is streamed or decoded together adds up its numbers in another order
    assert getattr(result, "scores", None) == pytest.approx(getattr(other, "scores", None), abs=1e-4)


def unscored(result):
    return (replace(result, scores=None) if hasattr(result, "scores") else result).to_dict()


def visible(widget):
    return widget.layout.display != "none"


# ---------------------------------------------------------------------- questions


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_task_is_answered_as_predict_does(panel, nano, task):
    answer = ask(panel, task.token, INPUTS[task.input])
    expected = nano.predict(sample_path("sheep"), task.token, INPUTS[task.input], num_beams=1)
    assert answer.whole
    assert_same(answer.result, expected)
    view = panel.views[0]
    assert panel.answers.children == (view,)
    assert Image.open(io.BytesIO(view.shown)).size[0] >= 600
    assert words(view.pages["Raw text"].value).count("loc_") == (expected.prompt + expected.raw).count("<loc_")
    assert "fl-done" in panel.status.value
    assert_same(run_code(view), expected)


def test_a_question_in_ones_own_words(panel, nano):
    answer = ask(panel, "", "What does the image describe?")
    assert_same(answer.result, nano.predict(sample_path("sheep"), "What does the image describe?", num_beams=1))
    assert_same(run_code(panel.views[0]), answer.result)


@pytest.mark.parametrize("kind", ["none", "phrase", "region"])
def test_only_the_input_that_a_task_needs_is_shown(panel, kind):
    for task in TASKS.values():
        if task.input == kind:
            panel.task.value = task.token
            assert visible(panel.phrase) == (kind == "phrase")
            assert (panel.region in panel.stage.children) == (kind == "region")
            assert task.description in words(panel.task_line.value)


def test_tasks_stand_under_headings_that_lead_to_the_first_of_them(panel):
    headings = [value for _, value in panel.task.options if value.startswith("heading")]
    assert len(headings) == 3
    assert {value for _, value in panel.task.options} == {*headings, *TASKS, "", ALL_TASKS.token}
    panel.task.value = headings[2]
    assert panel.task.value == "<REGION_TO_SEGMENTATION>"


def test_the_table_shows_instances_with_their_confidence(panel):
    answer = ask(panel, "<OD>")
    rows = re.findall("<tr><td>.*?</tr>", panel.views[0].pages["Answer"].value)
    assert len(rows) == len(answer.result) == 4
    for row, label, score, box in zip(
        rows, answer.result.labels, answer.result.scores, answer.result.boxes, strict=True
    ):
        assert words(row).split()[1:] == [label, f"{score:.2f}", *(f"{side:.0f}" for side in box)]


def test_boxes_appear_one_by_one(panel):
    seen, overlays = [], set()
    view = panel.views[0]
    view.pages["Answer"].observe(lambda change: seen.append(change["new"].count("<tr><td>")), "value")
    view.overlay.observe(lambda change: overlays.add(change["new"]), "value")
    ask(panel, "<OD>")
    growing = seen[seen.index(1) :] if 1 in seen else seen
    assert [*dict.fromkeys(growing)] == [1, 2, 3, 4]
    assert len(overlays) >= 5  # the bare picture, then one more box each


def test_a_second_question_does_not_encode_the_picture_again(panel, looks):
    ask(panel, "<OD>")
    assert len(looks) == 1
    assert re.search(r"picture: \d+\.\d\d s", panel.views[0].title.value)
    ask(panel, "<CAPTION>")
    assert len(looks) == 1
    assert "picture: encoded before, 0.00 s" in panel.views[0].title.value
    panel.samples["street"].click()
    ask(panel, "<CAPTION>")
    panel.samples["sheep"].click()
    ask(panel, "<CAPTION>")
    assert len(looks) == 2


def test_the_raw_text_is_coloured_and_escaped():
    html = coloured("<b>a&b<loc_1><loc_22><poly><loc_333>")
    assert unescape(re.sub("</?span[^>]*>", "", html)) == "<b>a&b<loc_1><loc_22><poly><loc_333>"
    assert re.findall('class="([^"]+)"', html) == ["x", "y", "mark", "x"]
    assert "<b>" not in html


def test_what_a_person_or_a_model_says_is_no_html(panel):
    evil = "<img src=x onerror=alert(1)>"
    ask(panel, "<OPEN_VOCABULARY_DETECTION>", evil)
    panel.model.name = evil
    ask(panel, "<OD>")
    view = panel.views[0]
    for html in (panel.status, panel.note, panel.about, view.title, *view.pages.values()):
        assert "<img" not in html.value


# ---------------------------------------------------------------------- confidence, downloads, comparisons, history


def test_the_slider_hides_instances(panel):
    answer = ask(panel, "<OD>")
    view = panel.views[0]
    assert visible(view.threshold)
    before = view.shown
    view.threshold.value = float(np.sort(answer.result.scores)[1]) + 1e-6
    assert view.pages["Answer"].value.count("<tr><td>") == 2
    assert "2 of 4" in words(view.count.value)
    assert view.shown != before
    kept = run_code(view)
    assert_same(kept, answer.result.above(view.threshold.value))
    assert len(kept) == 2
    coco = json.loads(downloads(view)["sheep-OD-coco.json"][1])
    assert len(coco["annotations"]) == 2
    view.threshold.value = 0
    assert view.shown == before
    ask(panel, "<CAPTION>")
    assert not visible(view.threshold)


def test_downloads_hold_the_overlay_the_result_and_coco(panel):
    answer = ask(panel, "<OD>")
    files = downloads(panel.views[0])
    assert {name: mime for name, (mime, _) in files.items()} == {
        "sheep-OD.png": "image/png",
        "sheep-OD.json": "application/json",
        "sheep-OD-coco.json": "application/json",
    }
    assert files["sheep-OD.png"][1] == panel.views[0].shown
    result = json.loads(files["sheep-OD.json"][1])
    assert result["result"] == answer.result.to_dict()
    assert (result["model"], result["prompt"], result["raw"]) == (
        "florence-2-nano",
        TASKS["<OD>"].prompt,
        answer.result.raw,
    )
    assert json.loads(files["sheep-OD-coco.json"][1]) == answer.result.to_coco(file_name="sheep")


def test_two_models_are_asked_the_same(panel, other):
    assert not visible(panel.other)
    panel.compare.value = True
    assert visible(panel.other)
    panel.other.name = other
    ask(panel, "<CAPTION>")
    assert panel.answers.children == tuple(panel.views)
    assert [view.answer.model for view in panel.views] == ["florence-2-nano", other]
    assert panel.views[0].answer.result.raw != panel.views[1].answer.result.raw
    for view in panel.views:
        assert view.answer.model in unescape(view.title.value)
        assert_same(run_code(view), view.answer.result)


def test_what_one_model_answered_stays_where_the_other_cannot_be_had(panel, tmp_path):
    panel.compare.value = True
    panel.other.name = str(tmp_path / "nowhere")
    ask(panel, "<OD>")
    assert "nowhere does not exist" in error(panel)
    assert panel.answers.children == (panel.views[0],)
    assert len(panel.history) == 1


def test_history_returns_to_answers_and_to_their_questions(panel, other, looks):
    first = ask(panel, "<REGION_TO_CATEGORY>", SHEEP)
    panel.samples["street"].click()
    panel.compare.value = True
    panel.other.name = other
    ask(panel, "<OPEN_VOCABULARY_DETECTION>", "a car")
    shown = [view.shown for view in panel.views]
    runs = len(looks)

    assert ["REGION_TO_CATEGORY" in button.description for button in panel.past.children] == [False, True]
    panel.past.children[1].click()
    assert panel.views[0].answer is first
    assert (panel.task.value, panel.region.region, panel.compare.value) == ("<REGION_TO_CATEGORY>", SHEEP, False)
    assert panel.picture is first.question.picture
    assert panel.answers.children == (panel.views[0],)

    panel.past.children[0].click()
    assert (panel.task.value, panel.phrase.value) == ("<OPEN_VOCABULARY_DETECTION>", "a car")
    assert (panel.compare.value, panel.other.name) == (True, other)
    assert [view.shown for view in panel.views] == shown
    assert len(looks) == runs


def test_history_forgets_the_oldest(panel, monkeypatch):
    monkeypatch.setattr(panel_module, "HISTORY", 2)
    for task in ("<OD>", "<CAPTION>", "<REGION_PROPOSAL>"):
        ask(panel, task)
    assert [button.description.split()[0] for button in panel.past.children] == ["REGION_PROPOSAL", "CAPTION"]


# ---------------------------------------------------------------------- all tasks at once


def assert_all_the_same(results, others):
    for result, other in zip(results, others, strict=True):
        assert_same(result, other)


def test_all_tasks_are_answered_together_after_one_look(panel, nano, looks, monkeypatch):
    asked, predict_tasks = [], nano.predict_tasks
    monkeypatch.setattr(nano, "predict_tasks", lambda *a, **k: asked.append(1) or predict_tasks(*a, **k))
    monkeypatch.setattr(nano, "stream", None)
    answer = ask(panel, ALL_TASKS.token)
    assert (len(looks), len(asked)) == (1, 1)
    assert [result.task for result in answer.results] == ALONE
    encoded = nano.encode_image(sample_path("sheep"))
    assert_all_the_same(answer.results, [nano.predict(encoded, task, num_beams=1) for task in ALONE])
    view = panel.views[0]
    assert panel.answers.children == (view,)
    assert not visible(view.threshold)
    assert not visible(panel.phrase)
    assert panel.region not in panel.stage.children
    assert re.search(r"picture: \d+\.\d\d s · text: \d+\.\d\d s", view.title.value)
    assert "fl-done" in panel.status.value
    assert_all_the_same(run_code(view), answer.results)


def test_the_pages_of_all_tasks(panel):
    panel.samples["snow"].click()
    results = ask(panel, ALL_TASKS.token).results
    view = panel.views[0]
    rows = re.findall("<tr><td.*?</tr>", view.pages["Answer"].value)
    for row, result in zip(rows, results, strict=True):
        scores = [] if isinstance(result, Text) else result.scores
        said = result.text if isinstance(result, Text) else words_of(zip(result.labels, scores, strict=True))
        assert words(row).split() == [result.task, *(said or "–").split()]
    raw = words(view.pages["Raw text"].value)
    for result in results:
        assert result.task in raw
        assert result.prompt in raw
        assert view.pages["Raw text"].value.count(coloured(result.raw)) >= 1
    assert 'class="y"' in view.pages["Raw text"].value
    width, height = Image.open(io.BytesIO(view.shown)).size
    assert width > 4 * 400
    assert height > 2 * 400


def words_of(instances):
    return " ".join(f"{label or '–'} {score:.2f}" for label, score in instances)


def test_downloads_of_all_tasks(panel):
    answer = ask(panel, ALL_TASKS.token)
    files = downloads(panel.views[0])
    assert {name: mime for name, (mime, _) in files.items()} == {
        "sheep-all-tasks.png": "image/png",
        "sheep-all-tasks.json": "application/json",
    }
    assert files["sheep-all-tasks.png"][1] == panel.views[0].shown
    told = json.loads(files["sheep-all-tasks.json"][1])
    assert (told["model"], told["image"]) == ("florence-2-nano", {"name": "sheep", "size": [512, 512]})
    assert [one["task"] for one in told["answers"]] == ALONE
    for one, result in zip(told["answers"], answer.results, strict=True):
        assert (one["prompt"], one["raw"], one["result"]) == (result.prompt, result.raw, result.to_dict())


def test_all_tasks_hide_nothing(panel):
    ask(panel, "<OD>")
    panel.views[0].threshold.value = 1
    answer = ask(panel, ALL_TASKS.token)
    assert panel.views[0].pages["Answer"].value.count("sheep <i>") >= 4
    assert_all_the_same(run_code(panel.views[0]), answer.results)
    assert not panel.views[0].count.value


def test_two_models_are_asked_all_tasks_and_history_returns_to_them(panel, other, looks):
    panel.compare.value, panel.other.name = True, other
    ask(panel, ALL_TASKS.token)
    answers, shown = [view.answer for view in panel.views], [view.shown for view in panel.views]
    assert [answer.model for answer in answers] == ["florence-2-nano", other]
    assert shown[0] != shown[1]
    for view in panel.views:
        assert_all_the_same(run_code(view), view.answer.results)

    panel.compare.value = False
    ask(panel, "<CAPTION>")
    assert panel.views[0].overlay.layout.max_height is None
    runs = len(looks)
    panel.past.children[1].click()
    assert [view.answer for view in panel.views] == answers
    assert [view.shown for view in panel.views] == shown
    assert panel.answers.children == tuple(panel.views)
    assert panel.views[0].overlay.layout.max_height == "none"
    assert (panel.task.value, panel.compare.value, panel.other.name) == (ALL_TASKS.token, True, other)
    assert "all-tasks · sheep" in panel.past.children[1].description
    assert len(looks) == runs


def test_stop_ends_all_tasks(panel, slow):
    panel.task.value = ALL_TASKS.token
    panel.run.click()
    until(lambda: len(slow) >= 2)
    assert "answers" in panel.status.value
    assert words(panel.views[0].pages["Answer"].value) == "All answers come at once."
    panel.stop.click()
    so_far = len(slow)
    assert not panel.busy
    with _COMPUTING:  # the thread has left the model
        assert len(slow) <= so_far + 2
    assert not panel.history
    assert not panel.views[0].answer.whole
    assert ask(panel).whole


def test_what_a_model_says_to_all_tasks_is_no_html():
    evil = Text(raw="<img>", image_size=(8, 8), task="<OCR>", text="<img>")
    boxes = florence_lab.Boxes(raw="<img>", image_size=(8, 8), task="<OD>", labels=("<img>",), boxes=np.ones((1, 4)))
    for html in (all_said([evil, boxes]), all_raw([evil, boxes])):
        assert "<img" not in html
        assert html.count("&lt;img&gt;") == 2


# ---------------------------------------------------------------------- compiled models


@pytest.fixture
def loads(nano, monkeypatch):
    """An empty shelf whose predictors are copies of nano; a list of (name, whether compiled)."""
    calls = []

    def load(name, compile=False):
        calls.append((name, compile))
        if compile:
            warnings.warn_explicit("a tensor of no account", UserWarning, torch.__file__, 1)
            warnings.warn("there is no compiler, so it works uncompiled", stacklevel=2)
        return copy.copy(nano)

    shelf = Shelf()
    monkeypatch.setattr(panel_module, "SHELF", shelf)
    monkeypatch.setattr(work_module, "load", load)
    monkeypatch.setattr(florence_lab, "load", load, raising=False)
    return calls


@pytest.mark.filterwarnings("ignore:there is no compiler", "ignore:a tensor of no account")
def test_a_compiled_model_is_another_one(panel, loads):
    lines = []
    panel.status.observe(lambda change: lines.append(words(change["new"])), "value")
    assert not panel.compiled.value
    ask(panel, "<CAPTION>")
    assert loads == [("florence-2-nano", False)]
    assert not any("compiling" in line for line in lines)
    panel.compiled.value = True
    ask(panel)
    assert loads[1:] == [("florence-2-nano", True)]
    assert any("compiling takes a minute" in line for line in lines)
    assert len(panel.picture.encoded) == 2  # each by its own tower
    ask(panel, ALL_TASKS.token)
    assert len(loads) == 2
    assert [button.description.endswith(", compiled") for button in panel.past.children] == [True, True, False]

    for past, compiled in ((0, True), (1, True), (2, False)):
        panel.past.children[past].click()
        assert panel.compiled.value == compiled
        run_code(panel.views[0])
        assert loads[-1] == ("florence-2-nano", compiled)
    assert len(loads) == 5


@pytest.mark.usefixtures("loads")
def test_what_loading_warned_of_is_a_note_to_all_who_ask(panel, capfd):
    for asking in (panel, florence_lab.explore()):
        asking.compiled.value = True
        for _ in range(2):
            assert ask(asking, "<OD>").whole
            assert words(asking.note.value) == "florence-2-nano: there is no compiler, so it works uncompiled"
        assert "fl-done" in asking.status.value
        asking.compiled.value = False
        ask(asking)
        assert not asking.note.value
    assert "Warning" not in capfd.readouterr().err


def test_a_note_keeps_what_was_said_before(panel, loads):
    panel.compiled.value = True
    upload(panel, "cat.png", PHOTO.read_bytes())
    ask(panel, "<OPEN_VOCABULARY_DETECTION>", "一只猫")
    for part in ("does not know such pictures", "Chinese", "there is no compiler"):
        assert words(panel.note.value).count(part) == 1


def test_threads_that_listen_at_once_leave_the_settings_as_they_were():
    def warn(text):
        warnings.warn_explicit(text, UserWarning, work_module.__file__, 1)

    def work():
        with listening() as heard:
            inside.set()
            go.wait(20)
            warn("there")
        others.extend(heard)

    before, others, inside, go = (
        (list(warnings.filters), warnings.showwarning),
        [],
        threading.Event(),
        threading.Event(),
    )
    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(20)
    with listening() as heard:  # begins before the thread has ended, and ends after it
        go.set()
        thread.join()
        warn("here")
        warn("here")
    assert (others, heard) == (["there"], ["here", "here"])
    assert (list(warnings.filters), warnings.showwarning) == before


# ---------------------------------------------------------------------- pictures


@pytest.mark.parametrize("name", SAMPLES)
def test_samples(panel, name):
    panel.samples[name].click()
    assert panel.picture.image.tobytes() == Image.open(sample_path(name)).convert("RGB").tobytes()
    assert name in words(panel.about.value)
    assert [n for n, button in panel.samples.items() if "fl-chosen" in button._dom_classes] == [name]
    assert not panel.note.value


def test_scenes(panel):
    panel.sources.value = "Scene"
    assert panel.picture.name == "scene-0"
    panel.seed.value = 4711
    assert panel.picture.image.tobytes() == draw_scene(4711).image.tobytes()
    answer = ask(panel, "<OD>")
    assert_same(run_code(panel.views[0]), answer.result)
    panel.dice.click()
    assert panel.picture.name == f"scene-{panel.seed.value}"
    assert not panel.note.value


def test_a_path_and_its_code(panel, nano):
    panel.source.value = f'"{PHOTO}"'
    panel.open.click()
    until(lambda: not panel.busy)
    assert panel.picture.image.size == Image.open(PHOTO).size
    answer = ask(panel, "<CAPTION>")
    assert_same(answer.result, nano.predict(PHOTO, "<CAPTION>", num_beams=1))
    assert_same(run_code(panel.views[0]), answer.result)


def test_the_enter_key_opens_and_runs(panel):
    panel.source.value = str(PHOTO)
    panel.source._handle_custom_msg({"event": "submit"}, [])
    until(lambda: not panel.busy)
    assert panel.picture.name == PHOTO.stem
    panel.task.value, panel.phrase.value = "<OPEN_VOCABULARY_DETECTION>", "a cat"
    panel.phrase._handle_custom_msg({"event": "submit"}, [])
    until(lambda: not panel.busy)
    assert panel.views[0].answer.result.phrase == "a cat"


def upload(panel, name, content):
    file = {
        "name": name,
        "type": "",
        "size": len(content),
        "last_modified": datetime.now(timezone.utc),
        "content": memoryview(content),
    }
    panel.upload.value = (file,)


def test_an_upload_and_its_code(panel):
    upload(panel, "my <cat>.png", PHOTO.read_bytes())
    assert panel.picture.image.tobytes() == Image.open(PHOTO).convert("RGB").tobytes()
    assert panel.upload.value == ()
    answer = ask(panel, "<OD>")
    assert_same(run_code(panel.views[0]), answer.result)


@pytest.mark.parametrize("source", ["path", "pil", "array"])
def test_explore_takes_whatever_is_an_image(nano, source):
    image = Image.open(PHOTO).convert("RGB")
    panel = florence_lab.explore("florence-2-nano", {"path": PHOTO, "pil": image, "array": np.asarray(image)}[source])
    until(lambda: not panel.busy)
    assert panel.picture.image.tobytes() == image.tobytes()
    answer = ask(panel, "<CAPTION>")
    assert_same(run_code(panel.views[0]), answer.result)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": "nowhere.png"}, "nowhere.png does not exist"),
        ({"image": 3}, "cannot read an image from int"),
        ({"task": "<ODD>"}, "did you mean '<OD>'"),
        ({"task": 3}, "task"),
    ],
)
def test_explore_with_a_mistake_gives_a_panel_that_says_so(nano, arguments, message):
    panel = florence_lab.explore(**arguments)
    until(lambda: not panel.busy)
    assert message in error(panel)
    assert ask(panel, "<OD>").whole


def test_what_the_model_that_ships_does_not_know_is_said(panel):
    assert not panel.note.value
    upload(panel, "cat.png", PHOTO.read_bytes())
    assert MODELS["florence-2-nano"].description in words(panel.note.value)
    panel.model.name = "florence-2-base"
    assert not panel.note.value
    panel.compare.value = True
    panel.other.name = "florence-2-nano"
    assert panel.note.value
    panel.samples["sheep"].click()
    assert not panel.note.value
    assert what_it_knows(("florence-2-nano",), opened_picture(str(sample_path("snow")))) == ""


# ---------------------------------------------------------------------- regions


def drag(picker, start, end):
    """As the mouse does it, from one point of the picture to another, in its pixels."""
    axes = picker.selector.ax
    canvas = axes.figure.canvas
    canvas.draw()
    for name, point in (("button_press", start), ("motion_notify", end), ("button_release", end)):
        x, y = axes.transData.transform(point)
        event = MouseEvent(f"{name}_event", canvas, x, y, MouseButton.LEFT)
        canvas.callbacks.process(event.name, event)


def test_a_region_is_dragged_or_typed(panel):
    panel.task.value = "<REGION_TO_CATEGORY>"
    assert panel.region.region is None
    drag(panel.region, SHEEP[2:], SHEEP[:2])  # from the lower right
    assert np.abs(np.subtract(panel.region.region, SHEEP)).max() <= 2
    panel.region.numbers["x1"].value = 300
    assert panel.region.selector.extents[1] == pytest.approx(300)
    assert ask(panel).question.text == panel.region.region


def test_a_region_stays_within_its_picture(panel):
    picker = RegionPicker()
    picker.show(Image.new("RGB", (200, 80)))
    for field in picker.numbers.values():
        field.value = 1000
    assert picker.region == (200, 80, 200, 80)
    picker.show(Image.new("RGB", (50, 4000)))
    assert picker.region is None
    drag(picker, (10, 10), (49, 3900))
    assert np.abs(np.subtract(picker.region, (10, 10, 49, 3900))).max() <= 25


def test_another_picture_has_no_region_yet(panel):
    panel.task.value = "<REGION_TO_CATEGORY>"
    panel.region.region = SHEEP
    panel.task.value = "<OD>"
    panel.task.value = "<REGION_TO_DESCRIPTION>"
    assert panel.region.region == SHEEP  # the same picture
    panel.samples["snow"].click()
    assert panel.region.region is None


# ---------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("<CAPTION_TO_PHRASE_GROUNDING>", "  ", "<CAPTION_TO_PHRASE_GROUNDING> needs a phrase"),
        ("", "", "needs a phrase"),
        ("<REGION_TO_CATEGORY>", None, "needs a region: drag one"),
        ("<REGION_TO_CATEGORY>", (10, 10, 10, 50), "(10, 10, 10, 50) has no area"),
        ("<REGION_TO_OCR>", (90, 10, 20, 50), "inside out"),
        ("<OPEN_VOCABULARY_DETECTION>", "sheep " * 3000, "tokens"),
    ],
)
def test_questions_that_cannot_be_asked(panel, task, text, message):
    ask(panel, task, text)
    assert message in error(panel)
    assert ask(panel, "<OD>").whole  # the panel lives


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "no path or URL"),
        (f"{UNREACHABLE}/a.png", "cannot be fetched"),
        ("ftp://example.com/a.png", "only http and https"),
        ("nowhere.png", "nowhere.png does not exist"),
        (__file__, "not an image"),
    ],
)
def test_pictures_that_cannot_be_had(panel, source, message):
    before = panel.picture
    panel.source.value = source
    panel.open.click()
    until(lambda: not panel.busy)
    assert message in error(panel)
    assert "choose a sample" in error(panel)
    assert panel.picture is before


def test_an_upload_that_is_no_picture(panel):
    upload(panel, "notes.txt", b"hello")
    assert "notes.txt" in error(panel)
    assert "not an image" in error(panel)
    upload(panel, "empty.png", b"")
    assert "empty.png" in error(panel)


@pytest.mark.usefixtures("unreachable_hubs")
def test_a_hub_without_network(panel, tmp_path):
    panel.model.name = "florence-2-base"
    ask(panel, "<OD>")
    assert "cannot be reached" in error(panel)
    assert "florence-2-nano" in error(panel)  # what would do
    panel.model.name = "florence-2-nano"
    assert ask(panel).whole


def test_models_that_are_none(panel, tmp_path):
    panel.model.name = ""
    ask(panel)
    assert "No model is named" in error(panel)
    for name, message in {
        "florence-2-nanu": "did you mean 'florence-2-nano'",
        str(tmp_path): "config.json",
        str(tmp_path / "none"): "does not exist",
    }.items():
        panel.model.name = name
        assert panel.model.name == name
        ask(panel)
        assert message in error(panel)
    assert {*available_models()} < {*panel.model.choice.options}


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB.\nmore"), "not enough memory"),
        (MemoryError(), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory"),
        (TypeError("of all things"), "TypeError: of all things"),
        (SystemExit(1), "SystemExit"),
    ],
)
def test_whatever_a_load_ends_in(panel, monkeypatch, raised, message):
    def fail(name, compile):
        raise raised

    monkeypatch.setattr(panel_module, "SHELF", Shelf())
    monkeypatch.setattr(work_module, "load", fail)
    ask(panel)
    assert message in error(panel)


def test_a_warning_about_a_question_is_a_note(panel):
    ask(panel, "<OPEN_VOCABULARY_DETECTION>", "一只羊")
    assert "Chinese" in words(panel.note.value)
    assert panel.views[0].answer.whole


# ---------------------------------------------------------------------- Stop, and one thing at a time


def test_stop_ends_an_answer(panel, slow):
    panel.run.click()
    assert panel.busy
    assert panel.run.disabled
    assert "fl-busy" in panel.status.value
    until(lambda: panel.views[0].answer is not None and len(panel.views[0].answer.result) >= 1)
    panel.stop.click()
    assert not panel.busy
    assert not panel.run.disabled
    assert "Stopped" in panel.status.value
    with _COMPUTING:  # the thread has left the model
        tokens = len(slow)
    shown = len(panel.views[0].answer.result)
    assert 1 <= shown < 4
    time.sleep(0.1)
    assert len(slow) == tokens
    assert len(panel.views[0].answer.result) == shown
    assert not panel.history
    assert "<pre" not in panel.views[0].pages["Code"].value


def test_stop_ends_a_look_at_the_picture(panel, nano):
    inside, go = threading.Event(), threading.Event()
    hook = nano.model.model.vision_tower.register_forward_pre_hook(lambda *_: (inside.set(), go.wait(20))[:0] or None)
    try:
        panel.run.click()
        assert inside.wait(20)
        panel.stop.click()
        assert not panel.busy
        go.set()
    finally:
        go.set()
        hook.remove()
    with _COMPUTING:
        assert nano not in panel.picture.encoded
    assert not any(layer._forward_pre_hooks for layer in nano.model.model.language_model.decoder.layers)
    assert ask(panel).whole


def test_stop_while_loading(panel, nano, monkeypatch):
    loading, go, loads = threading.Event(), threading.Event(), []

    def load(name, compile):
        loads.append(name)
        loading.set()
        go.wait(20)
        return nano

    shelf = Shelf()
    monkeypatch.setattr(panel_module, "SHELF", shelf)
    monkeypatch.setattr(work_module, "load", load)
    panel.run.click()
    assert loading.wait(20)
    panel.stop.click()
    assert not panel.busy
    panel.run.click()  # waits for the same load
    panel.stop.click()
    go.set()
    until(lambda: shelf.holds("florence-2-nano"))
    time.sleep(0.1)
    assert panel.views[0].answer is None
    assert "Stopped" in panel.status.value
    assert ask(panel).whole
    assert loads == ["florence-2-nano"]


def test_stop_without_anything_to_stop(panel):
    assert panel.stop.disabled
    panel.stop.click()
    assert not panel.busy


@pytest.mark.usefixtures("slow")
def test_one_thing_at_a_time(panel):
    panel.run.click()
    panel.run.click()
    assert "Still busy" in panel.status.value
    panel.open.click()
    assert "Still busy" in panel.status.value
    until(lambda: not panel.busy)
    assert len(panel.history) == 1
    panel.run.click()
    panel.past.children[0].click()  # also when its click was on the way
    assert panel.busy
    panel.stop.click()


def test_a_run_right_after_stop_is_answered(panel, slow):
    for _ in range(3):
        panel.run.click()
        panel.stop.click()
    panel.task.value = "<CAPTION>"
    answer = ask(panel)
    assert isinstance(answer.result, Text)
    assert len(panel.history) == 1


# ---------------------------------------------------------------------- the shelf


def test_the_shelf_keeps_the_predictors_used_last(monkeypatch, tmp_path):
    loads = []
    monkeypatch.setattr(work_module, "resolve", lambda name: name)
    monkeypatch.setattr(work_module, "load", lambda name, compile: loads.append(name) or name.upper())
    shelf = Shelf(room=2)
    for name in "a/a b/b a/a c/c a/a b/b".split():
        assert shelf.get(name) == name.upper()
    assert loads == "a/a b/b c/c b/b".split()


def test_the_shelf_loads_a_folder_again_that_was_written_to(monkeypatch, tmp_path):
    folder = copy_of_tiny(tmp_path / "tuned")
    shelf = Shelf()
    first = shelf.get(str(folder))
    assert shelf.get(str(folder)) is first
    os.utime(folder / "config.json", (time.time() + 5, time.time() + 5))
    assert not shelf.holds(str(folder))
    assert shelf.get(str(folder)) is not first


def test_the_shelf_tries_again_after_a_failure(monkeypatch):
    outcomes = [OSError("no"), "yes"]

    def load(name, compile):
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(work_module, "resolve", lambda name: name)
    monkeypatch.setattr(work_module, "load", load)
    shelf = Shelf()
    with pytest.raises(OSError, match="no"):
        shelf.get("a/a")
    assert shelf.get("a/a") == "yes"


# ---------------------------------------------------------------------- a page of its own


def test_the_notebook_of_the_page(tmp_path):
    cell = json.loads(write_notebook(tmp_path / "page.ipynb", "florence-2-nano").read_text())["cells"][0]
    assert cell["source"].splitlines()[-1] == "florence_lab.explore('florence-2-nano')"
    ast.parse(cell["source"])


def test_explore_without_voila_says_so_in_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "voila.app", None)
    assert main(["explore", "--no_browser"]) == 2
    err = capsys.readouterr().err
    assert "pip install voila" in err
    assert err.count("\n") == 1


def test_a_port_that_is_none(capsys):
    assert main(["explore", "--port", "70000"]) == 2
    assert "give 0 to 65535" in capsys.readouterr().err
