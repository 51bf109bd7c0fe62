"""Fixtures of labelling: images whose labels are known, and a run with a model that knows them."""

import pytest
from stand_in import NAMES, StandIn, draw_images


@pytest.fixture(autouse=True)
def datasets_cache(tmp_path, monkeypatch):
    """`datasets` keeps the tables that it reads."""
    from datasets import config

    monkeypatch.setattr(config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def ontology():
    from florence_lab.detection.ontology import Ontology

    return Ontology.from_classes(NAMES)


@pytest.fixture
def images(tmp_path):
    """A folder of 23 images of 40 x 30."""
    return draw_images(tmp_path / "images", 23)


@pytest.fixture
def run(tmp_path, ontology):
    """Label images with the stand-in, and return the report. `run.model` is the stand-in of the last call."""
    from florence_lab.labeling.assembly import DatasetLayout
    from florence_lab.labeling.labelling import label_sources
    from florence_lab.labeling.sources import list_label_sources

    def start(images, out=tmp_path / "data", format="coco", recursive=False, batch_size=4, model=None, **layout):
        start.model = model or StandIn(masks=layout.get("has_masks", False))
        sources = list_label_sources(images, recursive)
        return label_sources(lambda: start.model, sources, out, DatasetLayout(format, ontology, **layout), batch_size)

    return start
