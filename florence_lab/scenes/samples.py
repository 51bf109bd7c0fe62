"""Sample images that ship with the package: scenes of held-out seeds as PNG files in `assets/scenes/`."""

from __future__ import annotations

from pathlib import Path

from ..argument_validation import validate_arguments
from ..exceptions import ArgumentError, unknown_name
from .rendering import save_image
from .scene import Scene, draw_scene

SAMPLES = {"sheep": 3014, "street": 92, "snow": 776, "beach": 109, "night": 53, "field": 14}
"""Name -> held-out seed: scenes on which florence-2-nano solves every whole-image task. `"sheep"` shows four sheep."""

SAMPLE_SIZE = 512
"""Side of the sample images in pixels."""

SAMPLE_FOLDER = Path(__file__).parent.parent / "assets" / "scenes"


@validate_arguments
def sample_path(name: str) -> Path:
    """Return the path of a sample image.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
    """
    if name not in SAMPLES:
        raise ArgumentError(unknown_name("sample", name, SAMPLES))
    return SAMPLE_FOLDER / f"{name}.png"


@validate_arguments
def sample_scene(name: str) -> Scene:
    """Draw the scene of a sample image, which knows its ground truth.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.
    """
    if name not in SAMPLES:
        raise ArgumentError(unknown_name("sample", name, SAMPLES))
    return draw_scene(SAMPLES[name], SAMPLE_SIZE)


def write_samples() -> None:
    """Write the sample images into the package. Needed only after a change of how scenes are drawn."""
    SAMPLE_FOLDER.mkdir(parents=True, exist_ok=True)
    for name in SAMPLES:
        save_image(sample_scene(name), sample_path(name))
