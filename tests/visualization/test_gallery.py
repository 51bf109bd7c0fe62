"""Galleries of results."""

import numpy as np
import pytest
from drawing import GENERATED, blank, example, largest_overlap

from florence_lab.tasks import TASKS
from florence_lab.visualization import gallery

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def figure():
    return gallery([(blank(), example(task)) for task in GENERATED], columns=3)


def test_each_panel_is_titled_with_its_task(figure):
    titles = [text.get_text() for text in figure.texts]
    assert [title for title in titles if title.startswith("<")] == list(TASKS)
    assert "a free-form question" in titles
    assert len(figure.axes) == len(GENERATED)


def test_phrases_questions_and_regions_are_written_above_their_panel(figure):
    titles = [text.get_text() for text in figure.texts]
    assert "a sheep" in titles
    assert "How many sheep are there?" in titles
    assert titles.count("region (40, 30, 200, 150)") == 4


def test_text_and_panels_stay_within_the_figure_and_do_not_overlap(figure):
    titles = [text.get_window_extent().extents for text in figure.texts]
    texts = [*titles, *(text.get_window_extent().extents for ax in figure.axes for text in ax.texts)]
    assert (np.array(texts)[:, :2] >= 0).all()
    assert (np.array(texts)[:, 2:] <= figure.bbox.size).all()
    assert largest_overlap([ax.get_window_extent().extents for ax in figure.axes] + titles) == 0


def test_a_gallery_has_at_most_one_column_for_each_panel():
    figure = gallery([(blank(), example("<OD>"))], columns=3)
    assert len(figure.axes) == 1
    assert figure.get_figwidth() == pytest.approx(4.4)


def test_a_gallery_without_panels_is_empty():
    assert gallery([]).axes == []


def test_titles_take_the_place_of_the_tasks():
    panels = [(blank(), example("<OD>"))] * 2
    assert [text.get_text() for text in gallery(panels, titles=["A", "B"]).texts] == ["A", "B"]
    with pytest.raises(ValueError, match="2 panels, but 1 titles"):
        gallery(panels, titles=["A"])
