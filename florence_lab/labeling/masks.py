"""Masks for labelled boxes: Florence-2's own polygons, or those of SAM 2."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..argument_validation import validate_arguments
from ..exceptions import ArgumentError, ArgumentTypeError, CheckpointError, shorten, summarize_error
from ..geometry import Polygon
from ..inference.generation import EncodedImage
from ..loading.files import read_json
from ..loading.hub import resolve_other
from ..loading.library import suppress_library_output
from ..loading.weights import MISMATCHED_SHAPES, MISSING_KEYS, check_names
from ..predictor import Predictor
from ..results import Boxes, Instances, Polygons
from ..template.locations import format_location_tokens

if TYPE_CHECKING:
    from PIL import Image
    from transformers import Sam2Model, Sam2Processor

FLORENCE = "florence"
"""The value of `masks` for the model's own polygons."""

SAM2_MODELS = {
    "sam2": "facebook/sam2.1-hiera-small",
    "sam2-tiny": "facebook/sam2.1-hiera-tiny",
    "sam2-base-plus": "facebook/sam2.1-hiera-base-plus",
    "sam2-large": "facebook/sam2.1-hiera-large",
}
"""Short name -> id on Hugging Face."""

_MODEL_TYPES = ("sam2", "sam2_video")  # the published files are of the model for videos, which contains that for images
_TOLERANCE = 0.5  # pixels between the outline of a mask and its polygon
_MIN_AREA = 4.0  # square pixels of a part of a mask; smaller ones are noise

Contours = tuple[tuple[Polygon, ...], ...]


class Refiner(Protocol):
    """Finds the outlines of objects whose boxes are known."""

    def outline(self, image: EncodedImage, boxes: np.ndarray) -> Contours:
        """Return the polygons of N boxes in pixels, N x 4; () for one without a mask."""
        ...


class Sam2:
    """SAM 2 of transformers, prompted with boxes.

    Args:
        model: a name of `SAM2_MODELS`, a hub id, or a folder. What is in no cache is downloaded from the hub of the environment
            variable `FLORENCE_LAB_HUB`, else from Hugging Face. Code in the repository or folder is never run.
        device: where it runs.

    Raises:
        HubError: if the folder does not exist, or if the model cannot be downloaded.
        ArgumentError: for a name that is neither known, nor a folder, nor a hub id.
        CheckpointError: for a folder of another model, and for files that are damaged or missing.
    """

    def __init__(self, model: str | Path = "sam2", device: Any = "cpu") -> None:
        folder = resolve_other("SAM 2", model, SAM2_MODELS, os.environ.get("FLORENCE_LAB_HUB") or "hf")
        found = read_json(folder / "config.json").get("model_type")
        if found not in _MODEL_TYPES:
            raise CheckpointError(
                f"{folder} is no SAM 2: model_type in its config.json is {shorten(found)}, not {_MODEL_TYPES[0]!r}"
            )
        with suppress_library_output():
            try:
                self.model, self.processor = _load(folder, device)
            except (CheckpointError, MemoryError):
                raise
            except Exception as error:  # invalid files make the libraries raise nearly anything
                raise CheckpointError(f"SAM 2 in {folder} cannot be loaded: {summarize_error(error)}") from error

    def outline(self, image: EncodedImage, boxes: np.ndarray) -> Contours:
        """Return the polygons of N boxes."""
        return tuple(map(mask_to_polygons, self.predict_masks(image.image, boxes)))

    def predict_masks(self, image: Image.Image, boxes: np.ndarray) -> np.ndarray:
        """Return the mask of each of N boxes, N x H x W bool.

        Args:
            image: RGB.
            boxes: N x 4, (x0, y0, x1, y1) in pixels.
        """
        import torch

        if not len(boxes):
            return np.zeros((0, image.height, image.width), bool)
        device = self.model.device
        inputs = self.processor(images=image, input_boxes=[boxes.tolist()], return_tensors="pt").to(device)
        with torch.inference_mode():
            outputs = self.model(**inputs, multimask_output=False)
        masks = self.processor.post_process_masks(outputs.pred_masks.cpu(), inputs["original_sizes"])[0]
        found: np.ndarray = masks[:, 0].numpy().astype(bool)
        return found


def _load(folder: Path, device: Any) -> tuple[Sam2Model, Sam2Processor]:
    from transformers import Sam2ImageProcessor, Sam2Model, Sam2Processor

    # the named class: a processor's own loading looks its class up by the folder's settings
    processor = Sam2Processor(Sam2ImageProcessor.from_pretrained(folder, local_files_only=True))
    loaded: Any = Sam2Model.from_pretrained(
        folder, local_files_only=True, ignore_mismatched_sizes=True, output_loading_info=True
    )
    model, report = loaded  # transformers fills what is missing with random numbers
    check_names(folder, MISSING_KEYS, report["missing_keys"])
    check_names(folder, MISMATCHED_SHAPES, [row[0] for row in report["mismatched_keys"]])
    return model.to(device).eval(), processor


class FlorenceRefiner:
    """`<REGION_TO_SEGMENTATION>` of Florence-2, for each box."""

    def __init__(self, predictor: Predictor, batch_size: int = 16, **generate_kwargs: Any) -> None:
        self.predictor, self.batch_size, self.generate_kwargs = predictor, batch_size, generate_kwargs

    def outline(self, image: EncodedImage, boxes: np.ndarray) -> Contours:
        """Return the polygons of N boxes."""
        regions = [format_location_tokens(box, image.size) for box in boxes]
        prompts = [self.predictor.build_prompt(image.size, "<REGION_TO_SEGMENTATION>", region) for region in regions]
        results = self.predictor.predict_prompts(
            [image] * len(prompts), prompts, self.batch_size, **self.generate_kwargs
        )
        return tuple(
            tuple(polygon for polygons in result.contours for polygon in polygons if len(polygon) >= 3)
            if isinstance(result, Polygons)
            else ()
            for result in results
        )


def load_refiner(
    predictor: Predictor, masks: str | None, batch_size: int = 16, **generate_kwargs: Any
) -> Refiner | None:
    """Return what finds the masks of `masks`, see `LabelSettings`; None if there are to be none."""
    if masks is None:
        return None
    if masks == FLORENCE:
        return FlorenceRefiner(predictor, batch_size, **generate_kwargs)
    return Sam2(masks, predictor.model.device)


def add_polygons(refiner: Refiner, images: Sequence[EncodedImage], found: Sequence[Boxes]) -> list[Boxes]:
    """Return the boxes of each image with polygons."""
    return [
        replace(boxes, polygons=refiner.outline(image, boxes.boxes) if len(boxes) else ())
        for image, boxes in zip(images, found, strict=True)
    ]


@validate_arguments
def refine_masks(result: Instances, model: str | Path | Any = "sam2", image: Any = None) -> Instances:
    """Return a result whose instances have the masks of SAM 2, prompted with their boxes.

    Args:
        result: boxes, quad boxes or polygons. Boxes stay as they are.
        model: a name of `labeling.masks.SAM2_MODELS`, a hub id, a folder, or a `Sam2`, which loads the model once for many
            results.
        image: the image, as `load_image` reads it; by default the one that the result keeps.

    Returns:
        `Boxes` with polygons for boxes, else `Polygons`. An instance without a mask has no polygon, or keeps those that it has.

    Raises:
        ArgumentError: without an image, for one of another size, and as `Sam2`.
        HubError, CheckpointError: as `Sam2`.

    Example:
        >>> found = predictor.detect("farm.png", ["sheep", "dog"])
        >>> florence_lab.refine_masks(found, "sam2").to_supervision().mask
    """
    from ..images import load_image

    if not isinstance(model, (str, Path, Sam2)):
        raise ArgumentTypeError(f"model must be the name or folder of a SAM 2, or a Sam2, got {shorten(model)}")
    if image is None and result.image is None:
        raise ArgumentError("the result keeps no image; pass it as image")
    picture = load_image(result.image if image is None else image)
    if picture.size != result.image_size:
        raise ArgumentError(f"the image measures {picture.size}, but the result is of one of {result.image_size}")
    sam = model if isinstance(model, Sam2) else Sam2(model)
    contours = tuple(map(mask_to_polygons, sam.predict_masks(picture, result.xyxy)))
    if isinstance(result, Boxes):
        return replace(result, polygons=contours)
    kept = tuple(new or old for new, old in zip(contours, result.contours, strict=True))
    if isinstance(result, Polygons):
        return replace(result, polygons=kept)
    shared = {name: getattr(result, name) for name in ("raw", "image_size", "task", "prompt", "phrase", "image")}
    return Polygons(**shared, labels=result.labels, scores=result.scores, truncated=result.truncated, polygons=kept)


def mask_to_polygons(mask: np.ndarray) -> tuple[Polygon, ...]:
    """Return the outlines of a mask, the largest first. Holes are filled, and parts of a few pixels are left out.

    Args:
        mask: H x W bool.

    Returns:
        Polygons of K x 2 pixels, K at least 3, on the edges of the pixels: the first pixel covers 0 to 1.
    """
    from shapely.geometry import Polygon as Shape
    from skimage.measure import approximate_polygon, find_contours

    height, width = mask.shape
    padded = np.pad(mask, 1).astype(np.float32)
    outlines: list[tuple[float, Polygon]] = []
    for contour in find_contours(padded, 0.5, positive_orientation="high"):
        xy = contour[:, ::-1] - 0.5  # centers of padded pixels -> edges of pixels
        is_outer = _signed_area(xy) < 0  # holes run the other way round
        simple = approximate_polygon(xy, _TOLERANCE)[:-1]
        if not is_outer or len(simple) < 3 or (area := Shape(simple).area) < _MIN_AREA:
            continue
        outlines.append((area, np.clip(simple, 0, (width, height))))
    return tuple(polygon for _, polygon in sorted(outlines, key=lambda item: -item[0]))


def _signed_area(xy: np.ndarray) -> float:
    x, y = xy[:-1].T
    return float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
