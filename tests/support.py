"""Paths and helper functions of the tests."""

import json
import shutil
from pathlib import Path

import skimage

TINY = Path(__file__).parent / "assets" / "tiny-original"
"""A checkpoint of 0.6 M random weights in the published layout; `expected.json` is what the published code computes."""

PHOTO = Path(skimage.__file__).parent / "data" / "chelsea.png"
UNREACHABLE = "http://127.0.0.1:1"  # no server listens on this port


def copy_of_tiny(folder):
    """Copy the checkpoint `TINY`, without the expected outputs, and return the folder."""
    return Path(shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("expected.json")))


def edit_json(path, **changes):
    """Set fields of a JSON file; None removes a field."""
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}), encoding="utf-8")


def boxes(*rows, scores=None, image_size=(100, 100)):
    """Return `Boxes` of rows (label, x0, y0, x1, y1)."""
    import numpy as np

    from florence_lab.results import Boxes

    return Boxes(
        raw="",
        image_size=image_size,
        task="<OD>",
        labels=[row[0] for row in rows],
        boxes=np.array([row[1:] for row in rows], float).reshape(-1, 4),
        scores=None if scores is None else np.array(scores, float),
    )
