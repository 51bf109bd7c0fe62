"""The panel, driven as a browser does: controls are set, buttons are clicked, and the widgets hold what is shown."""

import gc
import re
import threading
import time
import warnings
import weakref
from html import unescape

import ipywidgets
import numpy as np
import pytest
from ipywidgets.widgets.widget import _instances
from PIL import Image
from support import PHOTO, UNREACHABLE

import florence_lab
from florence_lab.exceptions import ImageError
from florence_lab.explorer import explore
from florence_lab.explorer.access import PUBLIC_PAGE
from florence_lab.explorer.image_menu import PATH, SCENE
from florence_lab.explorer.panel import Explorer
from florence_lab.explorer.predictor_cache import PredictorCache
from florence_lab.explorer.selections import ALL_TASKS, DETECT_CLASSES, GROUNDING, select, task_menu
from florence_lab.explorer.session import compute_lock
from florence_lab.loading.registry import available_models
from florence_lab.scenes import SAMPLES, draw_scene, sample_path
from florence_lab.tasks import TASKS, Task

REGION = (35, 237, 157, 337)
PHRASE = "<OPEN_VOCABULARY_DETECTION>"


def strip_tags(html):
    return " ".join(unescape(re.sub("<[^>]+>", " ", html)).split())


def status_of(panel):
    return strip_tags(panel.status.value)


def error_of(panel):
    assert not panel.is_busy
    assert panel.run.description == "Run"
    assert "fl-error" in panel.status.value, panel.status.value
    return status_of(panel)


def is_visible(widget):
    return widget.layout.display != "none"


def press_enter(field):
    field._handle_custom_msg({"event": "submit"}, [])


@pytest.fixture
def idle(panel, wait_until):
    """Wait until the panel does nothing."""
    return lambda: wait_until(lambda: not panel.is_busy)


@pytest.fixture
def running(panel, fake):
    """Start a run that waits within the model; `fake.gate.set()` lets it go on."""

    def start(task="<OD>"):
        panel.task.value = task
        fake.gate.clear()
        fake.waiting.clear()
        panel.run.click()
        assert fake.waiting.wait(20)

    yield start
    fake.gate.set()


# ---------------------------------------------------------------------- what can be asked


@pytest.mark.parametrize("selection", task_menu(), ids=lambda selection: selection.value)
def test_only_the_input_that_a_task_takes_is_offered(panel, selection):
    panel.task.value = selection.value
    assert is_visible(panel.phrase) == (selection.input in ("phrase", "any"))
    assert panel.viewer.takes_region == (selection.input in ("region", "any"))
    assert panel.task.tooltip == selection.description


@pytest.mark.parametrize(
    ("task", "text", "arrangement", "shown"),
    [
        ("<CAPTION>", None, "single", {"<CAPTION>": "Caption"}),
        ("<REGION_TO_CATEGORY>", REGION, "single", {"<REGION_TO_CATEGORY>": "Category of a region"}),
        ("", "<DocVQA>What is the date?", "single", {"<DocVQA>": "Question"}),
        ("grounded <CAPTION>", None, "tasks", {"<CAPTION>": "Caption", GROUNDING: "Phrase grounding"}),
        (DETECT_CLASSES, "sheep, dog", "single", {"": "Detect classes"}),
        (ALL_TASKS, None, "tasks", {task.token: task.title for task in TASKS.values() if task.input == "none"}),
    ],
)
def test_an_answer_is_shown_with_its_question(panel, run_panel, task, text, arrangement, shown):
    result = run_panel(panel, task, text)
    viewer = panel.viewer
    assert (viewer.phase, viewer.arrangement, status_of(panel)) == ("done", arrangement, "Done.")
    assert [(answer["task"], answer["task_name"]) for answer in viewer.answers] == list(shown.items())
    assert all(answer["image"] == "sheep" and answer["complete"] for answer in viewer.answers)
    assert len({answer["id"] for answer in viewer.answers}) == len(shown)
    assert isinstance(result, list) == (arrangement == "tasks")
    assert "florence_lab.load('florence-2-nano')" in viewer.code
    assert {"id": "png", "label": "PNG"} in viewer.files


def test_the_region_that_was_asked_about_is_shown_with_the_answer(panel, run_panel):
    run_panel(panel, "<REGION_TO_CATEGORY>", REGION)
    (answer,) = panel.viewer.answers
    assert (answer["text"], answer["regions"]) == (f"region {REGION}", [list(REGION)])


def test_a_caption_that_is_grounded_shows_the_grounding(panel, run_panel):
    caption, grounding = run_panel(panel, "grounded <CAPTION>")
    assert panel.viewer.active == 1
    assert panel.viewer.answers[1]["text"] == caption.text == grounding.phrase


def test_a_registered_task_is_in_the_menu_with_its_example(monkeypatch, cache, run_panel):
    task = Task("<COUNT>", "Count {input}", "phrase", "text", "a number", example="owls")
    monkeypatch.setitem(TASKS, "<COUNT>", task)
    panel = Explorer("florence-2-nano", None, "<COUNT>", cache)
    assert panel.phrase.placeholder == "owls"
    assert run_panel(panel, "<COUNT>", "sheep").prompt == "Count sheep"


def test_a_task_that_a_checkpoint_brings_is_in_the_menu_once_it_is_loaded(monkeypatch, fake, run_panel):
    def load(name, is_compiled):
        monkeypatch.setitem(TASKS, "<COUNT>", Task("<COUNT>"))
        return fake

    panel = Explorer("florence-2-nano", None, "<CAPTION>", PredictorCache(load=load))
    assert "<COUNT>" not in [value for _, value in panel.task.options]
    run_panel(panel)
    assert "<COUNT>" in [value for _, value in panel.task.options]
    assert panel.task.value == "<CAPTION>"
    assert not panel.viewer.is_stale


@pytest.mark.parametrize("text", ["", "How many?"])
def test_the_phrase_of_a_registered_own_token_is_optional(monkeypatch, panel, run_panel, text):
    monkeypatch.setitem(TASKS, "<DocVQA>", Task("<DocVQA>"))
    panel._bar.refresh_tasks()
    assert run_panel(panel, "<DocVQA>", text).prompt == f"<DocVQA>{text}"


@pytest.mark.parametrize(
    ("given", "task", "phrase"), [("<DocVQA>", "", "<DocVQA>"), ("od", "<OD>", ""), (ALL_TASKS, ALL_TASKS, "")]
)
def test_the_explorer_is_opened_with_any_task(cache, given, task, phrase):
    panel = Explorer("florence-2-nano", None, given, cache)
    assert (panel.task.value, panel.phrase.value, status_of(panel)) == (task, phrase, "")


# ---------------------------------------------------------------------- what is shown


def test_answers_that_grow_are_sent_twenty_times_a_second_at_most(panel, run_panel, monkeypatch, fake):
    words = "a sheep in a field beside a house under the sun".split()
    whole = fake.predict

    def stream(image, task, text=None):
        result = whole(image, task, text)
        for count in range(1, 200):
            time.sleep(0.001)
            yield florence_lab.Text(raw="", image_size=result.image_size, text=" ".join(words * count)[:count])

    monkeypatch.setattr(fake, "stream", stream)
    sent = []
    panel.viewer.observe(lambda change: sent.append(time.monotonic()), "answers")
    start = time.monotonic()
    run_panel(panel, "<CAPTION>")
    assert len(sent) <= 20 * (time.monotonic() - start) + 3
    assert len(panel.viewer.answers[0]["answer"]) == 199


@pytest.mark.parametrize(
    "change",
    [
        lambda panel: setattr(panel.task, "value", "<OCR>"),
        lambda panel: setattr(panel.model, "value", "some/other"),
        lambda panel: setattr(panel.compare, "value", True),
        lambda panel: setattr(panel.compiled, "value", True),
    ],
)
def test_an_answer_is_stale_once_the_controls_ask_something_else(panel, run_panel, change):
    run_panel(panel)
    assert not panel.viewer.is_stale
    change(panel)
    assert panel.viewer.is_stale
    run_panel(panel)
    assert not panel.viewer.is_stale


def test_a_region_is_a_part_of_the_question(panel, run_panel):
    run_panel(panel, "<REGION_TO_CATEGORY>", REGION)
    panel.viewer.region = [1, 2, 30, 40]
    assert panel.viewer.is_stale
    panel.viewer.region = list(REGION)
    assert not panel.viewer.is_stale


def test_another_image_removes_answers_region_and_threshold(panel, run_panel):
    run_panel(panel, "<REGION_TO_CATEGORY>", REGION)
    panel.viewer.threshold = 0.5
    panel.image.value = "street"
    viewer = panel.viewer
    assert (viewer.picture["name"], viewer.phase, viewer.region, viewer.threshold) == ("street", "empty", [], 0)
    assert (viewer.answers, viewer.code, viewer.files, panel.result) == ([], "", [], None)


def test_the_threshold_filters_result_and_code(panel, run_panel, run_code):
    assert len(run_panel(panel, "<OD>")) == 2
    panel.viewer.threshold = 0.5
    assert len(panel.result) == 1
    assert run_code(panel.viewer.code).to_dict() == panel.result.to_dict()


@pytest.mark.parametrize(
    ("task", "active", "clicked", "labels"),
    [
        ("<OD>", 0, [1], ["sheep"]),
        ("<OD>", 0, [7], None),
        ("<OD>", 0, [], None),
        ("<OD>", 5, [0], None),
        ("<CAPTION>", 0, [0], None),
        ("grounded <CAPTION>", 1, [0, 1], ["sheep", "sheep"]),
    ],
)
def test_the_instances_that_were_clicked_are_selected(panel, run_panel, task, active, clicked, labels):
    run_panel(panel, task)
    panel.viewer.active, panel.viewer.selected = active, clicked
    selected = panel.selected
    assert (None if selected is None else selected.labels.tolist()) == labels


def test_the_code_says_that_an_upload_is_deleted(panel, run_panel, idle):
    panel.viewer.on_upload("cat.png", Image.open(PHOTO))
    idle()
    run_panel(panel)
    assert "deleted" in panel.viewer.code_note


def test_text_of_the_user_is_escaped(panel, run_panel):
    evil = "<img src=x onerror=alert(1)>"
    panel.model.value = evil
    run_panel(panel, PHRASE, evil)
    for html in (panel.status, panel.note):
        assert "<img" not in html.value


# ---------------------------------------------------------------------- models and history


@pytest.mark.parametrize(("task", "arrangement"), [("<CAPTION>", "compare"), ("grounded <CAPTION>", "tasks")])
def test_two_models_answer_the_same_question(panel, run_panel, task, arrangement):
    assert not is_visible(panel.other_model)
    panel.compare.value = True
    assert is_visible(panel.other_model)
    panel.other_model.value = "some/other"
    results = run_panel(panel, task)
    models = [answer["model"] for answer in panel.viewer.answers]
    assert models == sorted(models)
    assert {*models} == {"florence-2-nano", "some/other"}
    assert panel.viewer.arrangement == arrangement
    assert len(results) == len(models)


def test_the_answer_of_one_model_stays_if_the_other_one_cannot_be_loaded(sheep, fake, run_panel):
    def load(name, is_compiled):
        if name != "florence-2-nano":
            raise ValueError(f"{name} does not exist")
        return fake

    panel = Explorer("florence-2-nano", None, "<OD>", PredictorCache(load=load))
    panel.compare.value = True
    panel.other_model.value = "no/where"
    assert len(run_panel(panel)) == 2  # instances of one result
    assert error_of(panel) == "no/where does not exist"
    assert (panel.viewer.phase, panel.viewer.arrangement) == ("error", "single")
    (entry,) = panel.viewer.history
    panel.viewer.on_open(entry["id"])
    assert (panel.compare.value, panel.viewer.is_stale) == (False, False)


def test_history_restores_answers_and_controls(panel, run_panel):
    run_panel(panel, "<REGION_TO_CATEGORY>", REGION)
    first = panel.viewer.answers
    panel.image.value = "street"
    panel.compare.value = panel.compiled.value = True
    panel.other_model.value = "some/other"
    run_panel(panel, PHRASE, "a car")
    newest, oldest = (entry["id"] for entry in panel.viewer.history)

    panel.viewer.on_open(oldest)
    assert [answer["answer"] for answer in panel.viewer.answers] == [answer["answer"] for answer in first]
    assert (panel.task.value, panel.viewer.region) == ("<REGION_TO_CATEGORY>", list(REGION))
    assert (panel.compare.value, panel.compiled.value, panel.image.value) == (False, False, "sheep")
    assert (panel.viewer.picture["name"], panel.viewer.is_stale, panel.viewer.phase) == ("sheep", False, "done")

    panel.viewer.on_open(newest)
    assert (panel.task.value, panel.phrase.value, panel.image.value) == (PHRASE, "a car", "street")
    assert (panel.compare.value, panel.compiled.value, panel.other_model.value) == (True, True, "some/other")
    assert (panel.viewer.is_stale, panel.viewer.arrangement) == (False, "compare")

    panel.viewer.on_open(10**9)  # an entry that is gone
    assert panel.image.value == "street"


def test_a_warning_of_loading_and_one_of_the_question_are_notes(sheep, fake, run_panel):
    def load(name, is_compiled):
        florence_lab.exceptions.warn("there is no compiler")
        return fake

    panel = Explorer("florence-2-nano", None, "<OD>", PredictorCache(load=load))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_panel(panel, PHRASE, "一只羊")
    note = strip_tags(panel.note.value)
    assert "Chinese" in note
    assert "florence-2-nano: there is no compiler" in note


# ---------------------------------------------------------------------- images


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_selected_by_its_name(panel, name):
    panel.image.value = name
    assert (panel.shown_image.name, panel.viewer.picture["name"]) == (name, name)


def test_only_the_field_that_an_entry_needs_is_shown(panel):
    fields = {PATH: panel.image.path, SCENE: panel.image.seed}
    for entry in ("sheep", *fields):
        panel.image.menu.value = entry
        assert [key for key, field in fields.items() if is_visible(field)] == [entry] * (entry in fields)


def test_a_number_selects_its_scene(panel):
    panel.image.menu.value = SCENE
    panel.image.seed.value = 4711
    assert panel.shown_image.image.tobytes() == draw_scene(4711).image.tobytes()
    panel.image.value = "sheep"
    panel.image.seed.value = 7  # is not on show
    assert panel.shown_image.name == "sheep"


def test_enter_opens_a_path_and_the_menu_shows_its_name(panel, idle):
    panel.image.menu.value = PATH
    panel.image.path.value = f'"{PHOTO}"'
    press_enter(panel.image.path)
    idle()
    assert panel.image.value == panel.viewer.picture["name"] == PHOTO.stem
    panel.image.value = "sheep"
    panel.image.value = PHOTO.stem  # stays in the menu
    assert panel.shown_image.name == PHOTO.stem


def test_an_image_that_is_known_by_its_pixels_is_taken(panel, idle, fake, run_panel):
    run_panel(panel, "<CAPTION>")
    panel.viewer.on_upload("copy.png", Image.open(sample_path("sheep")))
    idle()
    assert status_of(panel) == "copy.png is the same image as sheep."
    assert panel.image.value == "sheep"
    run_panel(panel, "<CAPTION>")
    assert fake.num_encoded == 1
    for name in ("one.png", "two.png"):
        panel.viewer.on_upload(name, Image.open(PHOTO))
        idle()
    assert status_of(panel) == "two.png is the same image as one."


def test_images_of_one_name_have_entries_of_their_own(panel, idle):
    for color in ("red", "blue"):
        panel.viewer.on_upload("a.png", Image.new("RGB", (8, 8), color))
        idle()
    assert panel.image.menu.options[len(SAMPLES) : -2] == ("a (2)", "a")
    panel.image.value = "a"
    assert panel.shown_image.image.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("image", "has_notice"),
    [(PHOTO, True), (sample_path("snow"), False), (draw_scene(5).image, False), (np.zeros((9, 9, 3), "uint8"), True)],
    ids=["photograph", "sample", "scene", "array"],
)
def test_a_notice_says_what_florence_2_nano_was_not_trained_on(panel, image, has_notice):
    panel.image.value = image
    assert ("expect wrong answers" in panel.note.value) == has_notice
    panel.model.value = "florence-2-base"
    assert not panel.note.value


@pytest.mark.parametrize("kind", ["path", "image", "array"])
def test_explore_takes_any_image(kind):
    image = Image.open(PHOTO).convert("RGB")
    panel = explore(image={"path": PHOTO, "image": image, "array": np.asarray(image)}[kind])
    assert panel.shown_image.image.tobytes() == image.tobytes()


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": "nowhere.png"}, "nowhere.png does not exist"),
        ({"image": f"{UNREACHABLE}/a.png"}, "a.png"),
        ({"image": 3}, "int"),
        ({"task": "<ODD>"}, "did you mean '<OD>'"),
        ({"task": 3}, "name must be a string, got 3"),
        *(({"model_type": value}, "model_type must be a string or a path") for value in (5, None, b"x", ["x"])),
    ],
)
def test_explore_shows_an_error_in_its_arguments_and_stays_usable(cache, run_panel, wait_until, arguments, message):
    given = {"model_type": "florence-2-nano", "image": None, "task": "<OD>"} | arguments
    panel = Explorer(*given.values(), cache)
    wait_until(lambda: not panel.is_busy)
    assert message in error_of(panel)
    panel.model.value = "florence-2-nano"
    assert len(run_panel(panel, "<OD>")) == 2


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("<CAPTION_TO_PHRASE_GROUNDING>", "  ", "Phrase grounding needs a text, such as 'a sheep'"),
        ("", "", "Question needs a text"),
        (DETECT_CLASSES, "", "Detect classes needs a text, such as 'sheep, dog, house'"),
        (DETECT_CLASSES, "sheep,,", "names of classes"),
        ("<REGION_TO_CATEGORY>", None, "needs a region: drag one"),
        ("<REGION_TO_OCR>", (90, 10, 20, 50), "inverted"),
        ("", "<CAPTOIN>", "did you mean '<CAPTION>'"),
    ],
)
def test_an_invalid_input_is_an_error_and_the_panel_stays_usable(panel, run_panel, task, text, message):
    run_panel(panel, task, text)
    assert message in error_of(panel)
    assert len(run_panel(panel, "<OD>")) == 2


@pytest.mark.parametrize("source", ["", "nowhere.png", __file__, f"{UNREACHABLE}/a.png"])
def test_a_path_that_is_not_an_image_is_an_error_and_the_image_stays(panel, idle, source):
    panel.image.menu.value = PATH
    panel.image.path.value = source
    panel.image.open_button.click()
    idle()
    assert "select a sample" in error_of(panel)
    assert panel.shown_image.name == "sheep"
    assert panel.image.path.value == source


def test_a_cell_that_sets_what_is_not_an_image_has_the_error(panel):
    with pytest.raises(ImageError, match="nowhere"):
        panel.image.value = "nowhere.png"


def test_a_missing_model_name_is_an_error(panel, run_panel):
    panel.model.value = ""
    run_panel(panel)
    assert "No model is selected" in error_of(panel)
    assert {*available_models()} < {*panel.model.menu.options}


def test_a_public_page_opens_no_paths_and_loads_no_other_models(monkeypatch, cache, run_panel):
    monkeypatch.setenv(PUBLIC_PAGE, "my/model")
    panel = Explorer("my/model", str(PHOTO), "<OD>", cache)
    assert "served to other machines" in error_of(panel)
    assert PATH not in panel.image.menu.options
    assert [*panel.model.menu.options] == [*available_models(), "my/model"]
    assert len(run_panel(panel)) == 2
    monkeypatch.setenv(PUBLIC_PAGE, "another/model")
    run_panel(panel)
    assert "my/model" in error_of(panel)


def test_an_exception_of_loading_is_an_error(sheep, run_panel):
    def load(name, is_compiled):
        raise TypeError("of a library")

    panel = Explorer("florence-2-nano", None, "<OD>", PredictorCache(load=load))
    run_panel(panel)
    assert "TypeError: of a library" in error_of(panel)
    assert panel.viewer.phase == "error"


# ---------------------------------------------------------------------- busy


def test_stop_keeps_the_partial_answer_and_its_code(panel, fake, running, run_panel, monkeypatch):
    whole = fake.stream
    monkeypatch.setattr(fake, "stream", lambda *arguments: stop_after_one(whole(*arguments)))

    def stop_after_one(results):
        fake.gate.set()
        yield next(results)
        fake.gate.clear()
        fake.waiting.clear()
        yield from results

    panel.task.value = "<OD>"
    fake.waiting.clear()
    panel.run.click()
    deadline = time.monotonic() + 20
    while not panel.viewer.answers and time.monotonic() < deadline:
        time.sleep(0.005)
    assert panel.run.description == "Stop"
    panel.run.click()
    assert not panel.is_busy
    assert (panel.viewer.phase, status_of(panel), panel.run.description) == ("stopped", "Stopped.", "Run")
    assert len(panel.result) == 1
    assert panel.viewer.history[0]["title"].endswith("stopped")
    assert "predictor.predict" in panel.viewer.code
    assert "stopped" in panel.viewer.code_note
    fake.gate.set()
    with compute_lock:  # the thread has left the model
        assert len(panel.result) == 1
    assert status_of(panel) == "Stopped."


def test_stop_before_anything_is_answered_leaves_no_answer(panel, fake, running):
    running(ALL_TASKS)
    panel.run.click()
    assert (panel.viewer.phase, panel.viewer.answers, panel.viewer.history) == ("empty", [], [])


def test_the_last_request_made_while_busy_runs_next(panel, fake, running, idle):
    running("<OD>")
    panel.task.value = "<CAPTION>"
    press_enter(panel.phrase)
    assert "Queued: Caption · sheep." in status_of(panel)
    panel.task.value = "<OCR>"
    press_enter(panel.phrase)
    assert "Queued: Text recognition · sheep." in status_of(panel)
    fake.gate.set()
    idle()
    assert [entry["title"].split(" ·")[0] for entry in panel.viewer.history] == ["Text recognition", "Object detection"]
    assert status_of(panel) == "Done."


def test_stop_drops_what_is_queued_and_says_so(panel, fake, running):
    running("<OD>")
    panel.image.value = "street"
    assert panel.viewer.is_stale
    panel.run.click()
    assert status_of(panel) == "Stopped. Not done: the image street."
    assert (panel.image.value, panel.viewer.picture["name"]) == ("sheep", "sheep")


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (lambda panel: setattr(panel.image, "value", "street"), "street"),
        (lambda panel: panel.viewer.on_upload("cat.png", Image.open(PHOTO)), "cat"),
        (lambda panel: panel.viewer.on_open(panel.viewer.history[0]["id"]), "sheep"),
        (lambda panel: (setattr(panel.image, "value", "snow"), press_enter(panel.phrase)), "snow"),
    ],
    ids=["sample", "upload", "history", "run on another image"],
)
def test_an_image_chosen_while_busy_is_shown_afterwards(panel, fake, running, run_panel, idle, request_, name):
    run_panel(panel, "<CAPTION>")
    running("<OD>")
    request_(panel)
    assert panel.viewer.picture["name"] == "sheep"
    assert "Queued" in status_of(panel)
    fake.gate.set()
    idle()
    assert panel.viewer.picture["name"] == panel.image.value == name
    assert "Queued" not in status_of(panel)


def test_changes_during_a_run_do_not_disturb_it(panel, fake, running, idle):
    running("<OD>")
    panel.viewer.region, panel.viewer.threshold = [1, 2, 3, 4], 0.1
    panel.model.value, panel.task.value = "some/other", "<CAPTION>"
    assert panel.viewer.is_stale
    fake.gate.set()
    idle()
    assert panel.viewer.answers[0]["model"] == "florence-2-nano"
    assert len(panel.result) == 2


# ---------------------------------------------------------------------- life


def test_runs_leave_no_widgets_and_only_the_last_results(panel, run_panel):
    values = ["<OD>", "<CAPTION>", ALL_TASKS, "grounded <CAPTION>", "<REGION_TO_CATEGORY>"]
    run_panel(panel)
    before = len(_instances)
    for i in range(60):
        panel.image.value = list(SAMPLES)[i % 3]
        run_panel(panel, values[i % 5], REGION if "REGION_TO" in values[i % 5] else None)
    assert len(_instances) <= before + 5
    assert len(panel.viewer.history) == len(panel.history.entries) == 20


def test_images_and_answers_that_are_not_kept_are_freed(panel, run_panel):
    images, results = [], []
    for i in range(30):
        panel.image.value = Image.new("RGB", (8, 8), (i, 0, 0))
        results.append(weakref.ref(run_panel(panel, "<OD>")))
        images.append(weakref.ref(panel.shown_image))
    gc.collect()
    assert [sum(ref() is not None for ref in refs) for refs in (images, results)] == [20, 20]


def test_a_run_draws_nothing_with_matplotlib(panel, run_panel, monkeypatch):
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "__init__", lambda *a, **k: pytest.fail("a figure was made"))
    run_panel(panel, "<OD>")
    assert panel.viewer.phase == "done"


def test_a_closed_panel_leaves_no_widgets_threads_and_files(cache, run_panel, wait_until):
    before, threads = len(_instances), threading.active_count()
    panel = Explorer("florence-2-nano", np.zeros((9, 9, 3), "uint8"), "<OD>", cache)
    run_panel(panel)
    path = eval(panel.shown_image.code)
    panel.close()
    panel.close()
    assert len(_instances) == before
    wait_until(lambda: threading.active_count() <= threads)
    with pytest.raises(ImageError):
        florence_lab.load_image(path)


def test_two_panels_do_not_disturb_each_other(cache, panel, run_panel):
    other = Explorer("florence-2-nano", sample_path("street"), "<CAPTION>", cache)
    run_panel(panel, "<OD>")
    run_panel(other)
    assert (panel.viewer.answers[0]["image"], other.viewer.answers[0]["image"]) == ("sheep", "street")


def test_every_control_has_a_name(panel):
    def controls(box):
        for child in box.children:
            yield from controls(child) if isinstance(child, ipywidgets.Box) else [child]

    named = [widget for widget in controls(panel._bar) if not isinstance(widget, ipywidgets.HTML)]
    assert all(widget.description for widget in named)
    assert len({widget.description for widget in named}) >= len(named) - 1  # two fields for a folder


# ---------------------------------------------------------------------- with florence-2-nano


@pytest.fixture
def nano_panel(nano, sheep):
    return Explorer("florence-2-nano", None, "<OD>", PredictorCache(load=lambda name, is_compiled: nano))


@pytest.mark.slow
@pytest.mark.parametrize("value", [selection.value for selection in task_menu()])
def test_the_code_of_every_choice_gives_the_answer_of_florence_2_nano(
    nano_panel, nano, run_panel, evaluate_code, monkeypatch, value
):
    selection = select(value)
    text = {"phrase": selection.example or "How many sheep?", "region": REGION}.get(selection.input)
    shown = run_panel(nano_panel, value, text)
    monkeypatch.setattr(florence_lab, "load", lambda name: nano, raising=False)
    given = evaluate_code(nano_panel.viewer.code)
    shown, given = ([results] if not isinstance(results, list) else results for results in (shown, given))
    assert [(result.raw, result.prompt) for result in given] == [(result.raw, result.prompt) for result in shown]
    for one, other in zip(shown, given, strict=True):
        assert getattr(one, "scores", None) == pytest.approx(getattr(other, "scores", None), abs=1e-4)
