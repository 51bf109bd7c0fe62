"""The panel, driven as a browser does: controls are set, buttons are clicked, and the widgets hold what is shown."""

import re
import warnings
from datetime import datetime, timezone
from html import unescape

import numpy as np
import pytest
from PIL import Image
from support import PHOTO, UNREACHABLE

import florence_lab
from florence_lab.explorer import explore
from florence_lab.explorer import panel as panel_module
from florence_lab.explorer.panel import Explorer
from florence_lab.explorer.predictor_cache import PredictorCache
from florence_lab.explorer.questions import ALL_TASKS
from florence_lab.explorer.session import compute_lock
from florence_lab.loading.registry import available_models
from florence_lab.scenes import SAMPLES, draw_scene, sample_path
from florence_lab.tasks import TASKS, Task

REGION = (35, 237, 157, 337)


def strip_tags(html):
    return unescape(re.sub("<[^>]+>", " ", html)).strip()


def error_of(panel):
    assert not panel.is_busy
    assert not panel.run.disabled
    assert "fl-error" in panel.status.value, panel.status.value
    return strip_tags(panel.status.value)


def is_visible(widget):
    return widget.layout.display != "none"


def upload(panel, name, content):
    file = {
        "name": name,
        "type": "",
        "size": len(content),
        "last_modified": datetime.now(timezone.utc),
        "content": memoryview(content),
    }
    panel.image_chooser.upload.value = (file,)


# ---------------------------------------------------------------------- with florence-2-nano


@pytest.fixture
def nano_panel(nano, sheep):
    return Explorer("florence-2-nano", None, "<OD>", PredictorCache(load=lambda name, is_compiled: nano))


@pytest.mark.parametrize(
    ("task", "text"), [("<OD>", None), ("<OPEN_VOCABULARY_DETECTION>", "a sheep"), ("<REGION_TO_CATEGORY>", REGION)]
)
def test_the_panel_shows_the_answer_of_predict(nano_panel, nano, run_panel, task, text):
    (result,) = run_panel(nano_panel, task, text).results
    expected = nano.predict(sample_path("sheep"), task, text, num_beams=1)
    assert (result.raw, result.prompt) == (expected.raw, expected.prompt)
    assert getattr(result, "scores", None) == pytest.approx(getattr(expected, "scores", None), abs=1e-4)


# ---------------------------------------------------------------------- tasks


def test_only_the_control_of_the_input_that_a_task_takes_is_shown(panel):
    for task in TASKS.values():
        panel.task.value = task.token
        assert is_visible(panel.phrase) == (task.input == "phrase")
        assert (panel.image_chooser.region_picker in panel.image_chooser.stage.children) == (task.input == "region")
        assert strip_tags(panel.task_description.value) == task.description


def test_a_heading_of_the_menu_leads_to_the_first_task_below_it(panel):
    headings = [value for _, value in panel.task.options if value.startswith("heading")]
    assert len(headings) == 3
    panel.task.value = headings[2]
    assert panel.task.value == "<REGION_TO_SEGMENTATION>"


def test_a_registered_task_is_in_the_menu_with_its_example(monkeypatch, cache, run_panel):
    monkeypatch.setitem(
        TASKS, "<COUNT>", Task("<COUNT>", "Count {input}", "phrase", "text", "a number", example="owls")
    )
    panel = Explorer("florence-2-nano", None, "<COUNT>", cache)
    assert panel.phrase.placeholder == "owls"
    assert run_panel(panel, "<COUNT>", "sheep").is_complete


def test_a_free_form_question_may_begin_with_an_own_token(panel, run_panel):
    query = "<DocVQA>What is the date?"
    answer = run_panel(panel, "", query)
    assert (answer.results[0].task, answer.results[0].prompt) == ("<DocVQA>", query)
    assert f"predictor.predict(florence_lab.scenes.sample_path('sheep'), {query!r}, num_beams=1)" in answer.code()
    run_panel(panel, "<OD>")
    panel.history_buttons.children[1].click()
    assert (panel.task.value, panel.phrase.value) == ("", query)


def test_a_misspelled_token_in_a_free_form_question_is_an_error(panel):
    panel.task.value, panel.phrase.value = "", "<CAPTOIN>"
    panel.run.click()
    assert "did you mean '<CAPTION>'" in error_of(panel)


def test_the_explorer_is_opened_with_an_own_token(cache):
    panel = Explorer("florence-2-nano", None, "<DocVQA>", cache)
    assert (panel.task.value, panel.phrase.value, panel.status.value) == ("", "<DocVQA>", "")


def test_the_phrase_of_a_registered_own_token_is_optional(monkeypatch, cache, run_panel):
    monkeypatch.setitem(TASKS, "<DocVQA>", Task("<DocVQA>"))
    panel = Explorer("florence-2-nano", None, "<DocVQA>", cache)
    assert is_visible(panel.phrase)
    prompts = [run_panel(panel, "<DocVQA>", text).results[0].prompt for text in ("", "How many?")]
    assert prompts == ["<DocVQA>", "<DocVQA>How many?"]
    panel.history_buttons.children[1].click()
    assert (panel.task.value, panel.phrase.value) == ("<DocVQA>", "")


def test_the_pages_of_an_answer_are_filled(panel, run_panel):
    run_panel(panel, "<OD>")
    view = panel.views[0]
    assert "sheep" in strip_tags(view.pages["Answer"].value)
    assert "Locate the objects" in strip_tags(view.pages["Raw text"].value)
    assert "florence_lab.load" in strip_tags(view.pages["Code"].value)
    assert "sheep-OD-coco.json" in view.pages["Download"].value
    assert panel.answers.children == (view,)
    assert strip_tags(panel.status.value) == "Done."


def test_all_tasks_are_shown_as_a_gallery_without_threshold(panel, run_panel):
    answer = run_panel(panel, ALL_TASKS)
    view = panel.views[0]
    assert len(answer.results) == sum(task.input == "none" for task in TASKS.values())
    assert view.overlay.layout.max_height == "none"
    assert not is_visible(view.threshold)


def test_the_image_is_encoded_once_for_two_tasks(panel, run_panel, fake):
    run_panel(panel, "<OD>")
    run_panel(panel, "<CAPTION>")
    assert fake.num_encoded == 1
    assert "image encoder: cached" in strip_tags(panel.views[0].title.value)


def test_the_slider_hides_instances_in_all_pages(panel, run_panel):
    run_panel(panel, "<OD>")
    view = panel.views[0]
    before = view.overlay.value
    view.threshold.value = 0.5
    assert view.pages["Answer"].value.count("<tr><td>") == 1
    assert strip_tags(view.hidden.value) == "1 of 2 hidden"
    assert "result.scores >= 0.5" in strip_tags(view.pages["Code"].value)
    assert view.overlay.value != before
    view.threshold.value = 0
    assert view.overlay.value == before


def test_text_of_the_user_is_escaped(panel, run_panel):
    evil = "<img src=x onerror=alert(1)>"
    run_panel(panel, "<OPEN_VOCABULARY_DETECTION>", evil)
    panel.model.model_name = evil
    run_panel(panel, "<OD>")
    view = panel.views[0]
    for html in (panel.status, panel.note, panel.image_chooser.description, view.title, *view.pages.values()):
        assert "<img" not in html.value


# ---------------------------------------------------------------------- models and history


def test_two_models_answer_the_same_question(panel, run_panel):
    assert not is_visible(panel.other_model)
    panel.compare.value = True
    assert is_visible(panel.other_model)
    panel.other_model.model_name = "some/other"
    run_panel(panel, "<CAPTION>")
    assert panel.answers.children == tuple(panel.views)
    assert [view.answer.model_name for view in panel.views] == ["florence-2-nano", "some/other"]


def test_the_answer_of_one_model_stays_if_the_other_one_cannot_be_loaded(sheep, fake, run_panel):
    def load(name, is_compiled):
        if name != "florence-2-nano":
            raise ValueError(f"{name} does not exist")
        return fake

    panel = Explorer("florence-2-nano", None, "<OD>", PredictorCache(load=load))
    panel.compare.value = True
    panel.other_model.model_name = "no/where"
    run_panel(panel)
    assert error_of(panel) == "no/where does not exist"
    assert panel.answers.children == (panel.views[0],)
    assert len(panel.history) == 1


def test_history_restores_the_answers_and_the_controls(panel, run_panel):
    first = run_panel(panel, "<REGION_TO_CATEGORY>", REGION)
    panel.image_chooser.sample_buttons["street"].click()
    panel.compare.value = panel.compiled.value = True
    panel.other_model.model_name = "some/other"
    run_panel(panel, "<OPEN_VOCABULARY_DETECTION>", "a car")
    overlays = [view.overlay.value for view in panel.views]

    panel.history_buttons.children[1].click()
    assert panel.views[0].answer is first
    assert (panel.task.value, panel.image_chooser.region_picker.region) == ("<REGION_TO_CATEGORY>", REGION)
    assert (panel.compare.value, panel.compiled.value) == (False, False)
    assert panel.image_chooser.image is first.question.image

    panel.history_buttons.children[0].click()
    assert (panel.task.value, panel.phrase.value) == ("<OPEN_VOCABULARY_DETECTION>", "a car")
    assert (panel.compare.value, panel.compiled.value, panel.other_model.model_name) == (True, True, "some/other")
    assert [view.overlay.value for view in panel.views] == overlays


def test_history_keeps_the_last_answers(panel, run_panel, monkeypatch):
    monkeypatch.setattr(panel_module, "HISTORY_SIZE", 2)
    for task in ("<OCR>", "<CAPTION>", "<DETAILED_CAPTION>"):
        run_panel(panel, task)
    labels = [button.description.split()[0] for button in panel.history_buttons.children]
    assert labels == ["DETAILED_CAPTION", "CAPTION"]


def test_a_warning_of_loading_is_a_note(sheep, fake, run_panel):
    def load(name, is_compiled):
        florence_lab.exceptions.warn("there is no compiler")
        return fake

    panel = Explorer("florence-2-nano", None, "<OD>", PredictorCache(load=load))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_panel(panel, "<OPEN_VOCABULARY_DETECTION>", "一只羊")
    note = strip_tags(panel.note.value)
    assert "Chinese" in note
    assert "florence-2-nano: there is no compiler" in note


# ---------------------------------------------------------------------- images


def test_a_sample_button_selects_its_image(panel):
    for name, button in panel.image_chooser.sample_buttons.items():
        button.click()
        assert panel.image_chooser.image.name == name
        assert [n for n, b in panel.image_chooser.sample_buttons.items() if "fl-chosen" in b._dom_classes] == [name]
    assert list(panel.image_chooser.sample_buttons) == list(SAMPLES)


def test_a_seed_selects_its_scene(panel):
    panel.image_chooser.source_menu.value = "Scene"
    assert panel.image_chooser.image.name == "scene-0"
    panel.image_chooser.seed.value = 4711
    assert panel.image_chooser.image.image.tobytes() == draw_scene(4711).image.tobytes()


def test_enter_opens_a_path_and_runs_a_phrase(panel, wait_until):
    panel.image_chooser.path.value = f'"{PHOTO}"'
    panel.image_chooser.path._handle_custom_msg({"event": "submit"}, [])
    wait_until(lambda: not panel.is_busy)
    assert panel.image_chooser.image.name == PHOTO.stem
    panel.task.value, panel.phrase.value = "<OPEN_VOCABULARY_DETECTION>", "a cat"
    panel.phrase._handle_custom_msg({"event": "submit"}, [])
    wait_until(lambda: not panel.is_busy)
    assert panel.views[0].answer.results[0].phrase == "a cat"


def test_an_uploaded_photograph_has_a_notice_for_nano(panel):
    assert not panel.note.value
    upload(panel, "cat.png", PHOTO.read_bytes())
    assert panel.image_chooser.image.name == "cat"
    assert panel.image_chooser.upload.value == ()
    assert "cartoon scenes only" in panel.note.value
    panel.model.model_name = "florence-2-base"
    assert not panel.note.value


@pytest.mark.parametrize("kind", ["path", "image", "array"])
def test_explore_takes_any_image(kind, wait_until):
    image = Image.open(PHOTO).convert("RGB")
    panel = florence_lab.explore(image={"path": PHOTO, "image": image, "array": np.asarray(image)}[kind])
    wait_until(lambda: not panel.is_busy)
    assert panel.image_chooser.image.image.tobytes() == image.tobytes()


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": "nowhere.png"}, "nowhere.png does not exist"),
        ({"image": 3}, "int"),
        ({"task": "<ODD>"}, "did you mean '<OD>'"),
        ({"task": 3}, "name must be a string, got 3"),
    ],
)
def test_explore_shows_an_error_in_its_arguments(arguments, message, wait_until):
    panel = florence_lab.explore(**arguments)
    wait_until(lambda: not panel.is_busy)
    assert message in error_of(panel)


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("<CAPTION_TO_PHRASE_GROUNDING>", "  ", "<CAPTION_TO_PHRASE_GROUNDING> needs a phrase"),
        ("", "", "needs a phrase"),
        ("<REGION_TO_CATEGORY>", None, "needs a region: drag one"),
        ("<REGION_TO_OCR>", (90, 10, 20, 50), "inverted"),
    ],
)
def test_an_invalid_input_is_an_error_and_the_panel_stays_usable(panel, run_panel, task, text, message):
    run_panel(panel, task, text)
    assert message in error_of(panel)
    assert run_panel(panel, "<OD>").is_complete


@pytest.mark.parametrize("source", ["", "nowhere.png", __file__, f"{UNREACHABLE}/a.png"])
def test_a_path_that_is_not_an_image_is_an_error_and_the_image_stays(panel, wait_until, source):
    before = panel.image_chooser.image
    panel.image_chooser.path.value = source
    panel.image_chooser.open_button.click()
    wait_until(lambda: not panel.is_busy)
    assert "select a sample" in error_of(panel)
    assert panel.image_chooser.image is before


def test_an_upload_that_is_not_an_image_is_an_error(panel):
    upload(panel, "notes.txt", b"hello")
    assert "notes.txt" in error_of(panel)


def test_a_missing_model_name_is_an_error(panel, run_panel):
    panel.model.model_name = ""
    run_panel(panel)
    assert "No model is selected" in error_of(panel)
    assert {*available_models()} < {*panel.model.menu.options}


def test_an_exception_of_loading_is_an_error(sheep, run_panel):
    def load(name, is_compiled):
        raise TypeError("of a library")

    panel = Explorer("florence-2-nano", None, "<OD>", PredictorCache(load=load))
    run_panel(panel)
    assert "TypeError: of a library" in error_of(panel)


# ---------------------------------------------------------------------- stopping


def test_stop_ends_a_run_and_keeps_what_was_shown(panel, fake, wait_until, run_panel):
    fake.gate.clear()
    panel.run.click()
    assert panel.run.disabled
    assert fake.waiting.wait(20)
    panel.stop.click()
    assert not panel.is_busy
    assert strip_tags(panel.status.value) == "Stopped."
    fake.gate.set()
    with compute_lock:  # the thread has left the model
        assert not panel.history
    assert strip_tags(panel.status.value) == "Stopped."
    assert run_panel(panel, "<CAPTION>").is_complete
    assert len(panel.history) == 1


def test_a_second_run_is_refused_while_one_is_in_progress(panel, fake, wait_until):
    fake.gate.clear()
    panel.run.click()
    panel.run.click()
    assert "in progress" in panel.status.value
    panel.image_chooser.open_button.click()
    assert "in progress" in panel.status.value
    fake.gate.set()
    wait_until(lambda: not panel.is_busy)
    assert len(panel.history) == 1


def test_stop_without_a_run_does_nothing(panel):
    assert panel.stop.disabled
    panel.stop.click()
    assert not panel.status.value


@pytest.mark.parametrize("model_type", [5, None, b"x", ["florence-2-nano"]])
def test_a_model_that_is_no_name_is_an_error_in_the_panel(model_type):
    assert "model_type must be a string or a path" in explore(model_type).status.value
