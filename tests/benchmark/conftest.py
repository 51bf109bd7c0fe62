"""Fixtures of the tests of the benchmark."""

import pytest
import torch
from support import copy_of_tiny, edit_json

from florence_lab.benchmark import runners, training, workloads
from florence_lab.benchmark.runners import FlorenceLabRunner, TransformersRunner
from florence_lab.predictor import Predictor


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """The folder of a checkpoint of 0.6 M random weights at 192 x 192 pixels."""
    folder = copy_of_tiny(tmp_path_factory.mktemp("benchmark") / "checkpoint")
    edit_json(folder / "preprocessor_config.json", size={"height": 192, "width": 192}, image_seq_length=37)
    return str(folder)


@pytest.fixture(scope="module")
def short():
    """Short answers about few small images, and image encoders that are not compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Predictor, "compile", lambda self, cache_dir=None: self)
        patch.setattr(runners, "TOKENS_PER_ANSWER", 6)
        patch.setattr(workloads, "SCALES", {"cpu": workloads.Scale(3, (1, 2), 2)})
        patch.setattr(workloads, "IMAGE_SIZE", 64)
        patch.setattr(training, "IMAGE_SIZE", 64)
        patch.setattr(training, "_WARM_UP_STEPS", 1)
        yield


@pytest.fixture(scope="module")
def both(short, checkpoint):
    """A runner of each library, in fp32 on the CPU, with the same pixel values."""
    pair = [kind(checkpoint, torch.float32, torch.device("cpu")) for kind in (FlorenceLabRunner, TransformersRunner)]
    pair[1].processor.image_processor = pair[0].processor.image_processor
    return pair
