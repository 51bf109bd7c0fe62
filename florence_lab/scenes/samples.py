"""The sample pictures that ship: scenes from held-out seeds, as PNG files in `assets/scenes/`."""

from __future__ import annotations

from pathlib import Path

from ..exceptions import unknown_name
from .rendering import save_picture
from .scene import Scene, draw_scene

SAMPLES = {"sheep": 3014, "street": 92, "snow": 776, "beach": 109, "night": 53, "field": 14}
"""Name -> the held-out seed it was drawn from: scenes whose things florence-2-nano counts, finds, grounds and reads rightly. `"sheep"` is four."""

SAMPLE_SIZE = 512
FOLDER = Path(__file__).parent.parent / "assets" / "scenes"


def sample_path(name: str) -> Path:
    """The PNG file of a sample picture.

    Raises:
        ValueError: for an unknown name, with the known ones and the nearest.
    """
    if name not in SAMPLES:
        raise ValueError(unknown_name("sample", name, SAMPLES))
    return FOLDER / f"{name}.png"


def sample_scene(name: str) -> Scene:
    """The scene of a sample picture, for everything that is true about it."""
    sample_path(name)
    return draw_scene(SAMPLES[name], SAMPLE_SIZE)


def write_samples() -> None:
    """Draws the sample pictures into the package; for whoever changes how scenes are drawn."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in SAMPLES:
        save_picture(sample_scene(name), sample_path(name))
