"""Results under a cell."""

import base64
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import florence_lab
from florence_lab import ArgumentError, ImageError, view
from florence_lab.results import Boxes, Text
from florence_lab.viewer import result_view
from florence_lab.visualization import to_png

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))
BOXES = Boxes(
    raw="",
    image_size=IMAGE.size,
    task="<OD>",
    labels=["a", "b", "c"],
    boxes=[[1, 2, 30, 40], [2, 2, 20, 20], [5, 5, 9, 9]],
    scores=[0.5, 0.9, 0.2],
    image=IMAGE,
)
TEXT = Text(raw="two", text="two", image_size=IMAGE.size, task="<CAPTION>", image=IMAGE)
WIDGET, PNG = "application/vnd.jupyter.widget-view+json", "image/png"


@pytest.mark.parametrize(
    ("arguments", "arrangement", "models"),
    [
        ((BOXES,), "single", [""]),
        (([BOXES],), "single", [""]),
        ((TEXT,), "single", [""]),
        ((BOXES, BOXES), "compare", ["A", "B"]),
        (([TEXT, BOXES],), "tasks", ["", ""]),
        (((TEXT, BOXES, BOXES),), "tasks", ["", "", ""]),
    ],
)
def test_one_result_two_that_are_compared_and_several_tasks(arguments, arrangement, models):
    viewer = view(*arguments).viewer
    assert viewer.arrangement == arrangement
    assert [answer["model"] for answer in viewer.answers] == models
    assert viewer.phase == "done"
    assert (viewer.picture["width"], viewer.picture["height"]) == IMAGE.size
    assert not viewer.has_tools


def test_names_are_those_of_the_models_and_two_results_share_their_styles():
    compared = view(BOXES, BOXES[[1]], names=["prediction", "ground truth"])
    first, second = compared.viewer.answers
    assert (first["model"], second["model"]) == ("prediction", "ground truth")
    assert second["instances"][0]["style"] == first["instances"][1]["style"]


@pytest.mark.parametrize(
    ("arguments", "settings", "word"),
    [
        (([],), {}, "empty"),
        ((replace(BOXES, image=None),), {}, "no image"),
        ((BOXES, replace(BOXES, image_size=(100, 100))), {}, "64 x 48 and 100 x 100"),
        (([BOXES], TEXT), {}, "is a list"),
        ((BOXES,), {"names": ["a", "b"]}, "1 results, but 2 names"),
        ((BOXES, TEXT), {"names": ["a"]}, "2 results, but 1 names"),
        ((BOXES,), {"image": Image.new("RGB", (50, 50))}, "50 x 50"),
        ((BOXES,), {"image": Image.new("RGB", (48, 64))}, "48 x 64"),
        (("x",), {}, "'x'"),
        (([BOXES, 3],), {}, "3"),
        ((BOXES, "x"), {}, "'x'"),
        ((None,), {}, "None"),
    ],
)
def test_what_cannot_be_viewed_is_refused(arguments, settings, word):
    with pytest.raises(ArgumentError, match=word):
        view(*arguments, **settings)


def test_an_image_that_cannot_be_read_is_refused():
    with pytest.raises(ImageError):
        view(BOXES, image="missing.png")


@pytest.mark.parametrize("size", [(64, 48), (640, 480), (32, 24), (21, 16)])
def test_the_image_may_be_given_at_another_size(size):
    viewer = view(replace(BOXES, image=None), image=IMAGE.resize(size)).viewer
    assert (viewer.picture["width"], viewer.picture["height"]) == BOXES.image_size


def test_an_image_given_by_its_path_names_the_answer_and_the_files(tmp_path):
    IMAGE.save(tmp_path / "sheep.png")
    seen = view(BOXES, image=str(tmp_path / "sheep.png"))
    assert seen.viewer.picture["name"] == "sheep.png"
    assert seen.viewer.answers[0]["image"] == "sheep.png"
    assert seen.viewer.make_file("json").name == "sheep-OD.json"
    assert view(BOXES).viewer.make_file("json").name == "image-OD.json"


def test_the_result_is_filtered_by_the_threshold():
    seen = view(BOXES)
    assert seen.result.labels.tolist() == ["a", "b", "c"]
    seen.viewer.threshold = 0.4  # as the front end sets it
    assert seen.threshold == 0.4
    assert seen.result.labels.tolist() == ["a", "b"]
    seen.threshold = 0.9
    assert seen.viewer.threshold == 0.9
    assert seen.result.labels.tolist() == ["b"]
    with pytest.raises(ArgumentError, match=r"1\.5"):
        seen.threshold = 1.5


@pytest.mark.parametrize(("selected", "labels"), [([], []), ([2, 0], ["a", "c"]), ([1, 1, 7, -1], ["b"])])
def test_the_instances_that_were_clicked_are_a_result(selected, labels):
    seen = view(BOXES)
    seen.viewer.selected = selected
    assert seen.selected.labels.tolist() == labels


def test_the_active_answer_is_the_one_that_is_used():
    seen = view([TEXT, BOXES])
    assert seen.result.text == seen.selected.text == "two"
    seen.viewer.active, seen.viewer.selected = 1, [1]
    assert seen.result.labels.tolist() == ["a", "b", "c"]
    assert seen.selected.labels.tolist() == ["b"]
    seen.viewer.active = 9
    assert seen.result.labels.tolist() == ["a", "b", "c"]


def test_a_result_without_scores_is_not_filtered():
    seen = view(replace(BOXES, scores=None))
    seen.threshold = 0.5
    assert len(seen.result) == 3


def test_a_cell_has_the_widget_and_the_picture(monkeypatch):
    drawn = []
    monkeypatch.setattr(result_view, "draw_results", lambda *a: drawn.append(a) or _draw(*a))
    _draw = florence_lab.viewer.files.draw_results
    data, _ = view(BOXES)._repr_mimebundle_()
    assert set(data) == {"text/plain", WIDGET, PNG}
    assert base64.b64decode(data[PNG]) == to_png(IMAGE, BOXES)
    assert len(drawn) == 1
    assert data["text/plain"] == "<view of <OD>>"


def test_a_notebook_displays_both_and_a_terminal_draws_nothing():
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    try:
        shell.display_formatter.active_types = [*shell.display_formatter.format_types]
        data, _ = shell.display_formatter.format(view(BOXES))
        assert {WIDGET, PNG} <= set(data)
        shell.display_formatter.active_types = ["text/plain"]
        assert PNG not in view(BOXES)._repr_mimebundle_()[0]
    finally:
        InteractiveShell.clear_instance()


def test_plain_python_can_make_a_view_and_import_is_fast():
    code = (
        "import sys, florence_lab\n"
        "assert 'anywidget' not in sys.modules\n"
        "from florence_lab.results import Boxes\n"
        "result = Boxes(raw='', image_size=(9, 9), labels=['a'], boxes=[[1, 1, 5, 5]])\n"
        "from PIL import Image\n"
        "seen = florence_lab.view(result, image=Image.new('RGB', (9, 9)))\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)\n"
        "print(seen, len(seen.result), len(seen.to_png()) > 500)\n"
        "seen.close()"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "<view of a free-form question> 1 True\n"
    assert answer.stderr == ""
