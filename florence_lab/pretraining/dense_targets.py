"""Dense targets: what each image token shows, for the auxiliary heads."""

from __future__ import annotations

import string

import numpy as np
import torch

from ..scenes import Scene
from ..scenes.paint import PALETTE, load_font

TARGET_MAP_SIZE = 192
"""Side of the instance and letter maps: a multiple of four times each number of image tokens per side."""

MAX_OBJECTS = 6
"""Largest number of objects in a scene."""

COLOR_NAMES = tuple(PALETTE)

CHARACTERS = string.digits + string.ascii_letters
"""Characters of the words on signs."""

MIN_COVERAGE = 0.25
"""An image token shows an object that covers at least this fraction of it."""

DENSE_TARGET_FIELDS = {
    "category": 1,
    "color": 1,
    "box": 4,
    "letters": 4,
    "quadrant_categories": 4,
    "coverage": 16,
    "instance_index": 1,
    "group_sizes": 3,
    "is_leftmost": 3,
    "column": 1,
    "is_center": 1,
}
"""Name -> number of values for each image token, see `build_dense_targets`."""

DENSE_TARGET_WIDTH = sum(DENSE_TARGET_FIELDS.values())


def render_letter_map(scene: Scene) -> np.ndarray:
    """Return the letters of a scene: 192 x 192 uint8, 0 for no letter, else 1 + the index in `CHARACTERS`.

    The widths of the letters relative to one another are those of one font, which is close for the others.
    """
    letters = np.zeros((TARGET_MAP_SIZE, TARGET_MAP_SIZE), np.uint8)
    centers = np.stack(np.meshgrid(*[(np.arange(TARGET_MAP_SIZE) + 0.5) / TARGET_MAP_SIZE] * 2), axis=-1)
    font = load_font("DejaVuSans", 48)
    for scene_object in scene.objects:
        if scene_object.text and scene_object.quad is not None:
            corner, right, _, below = scene_object.quad / scene.size
            # coordinates along the width and the height of the word, in 0..1 inside it
            along = (centers - corner) @ np.linalg.inv(np.stack([right - corner, below - corner]))
            ends = np.array([font.getlength(scene_object.text[: i + 1]) for i in range(len(scene_object.text))])
            letter_index = np.searchsorted(ends / ends[-1], along[..., 0].clip(0, 1))
            inside = ((along >= 0) & (along <= 1)).all(-1)
            values = 1 + np.array([CHARACTERS.index(letter) for letter in scene_object.text])
            letters[inside] = values[letter_index[inside]]
    return letters


def build_dense_targets(
    instance_map: np.ndarray, instances: np.ndarray, letter_map: np.ndarray, side: int
) -> np.ndarray:
    """Return what each of side x side image tokens shows: the object that covers most of it.

    All fields are 0 where no object covers at least `MIN_COVERAGE`, except `letters`, `quadrant_categories` and `coverage`.

    Args:
        instance_map: 192 x 192 uint8, see `SceneSample`.
        instances: n x 6 float32, see `SceneSample`.
        letter_map: 192 x 192 uint8, see `render_letter_map`.
        side: number of image tokens per side.

    Returns:
        (side * side) x 39 float32, the fields of `DENSE_TARGET_FIELDS` one after another:

        - `category`: 1 + the index in `CATEGORIES`.
        - `color`: 1 + the index in `COLOR_NAMES`, 0 for objects without a color.
        - `box`: (x0, y0, x1, y1) of the object, in fractions of the image.
        - `letters`: value of the letter map at the centers of the token's four quadrants, row by row.
        - `quadrant_categories`: 0 or 1 + the category at the centers of the four quadrants.
        - `coverage`: whether the object is visible at the centers of 4 x 4 parts of the token.
        - `instance_index`: 1 + the index of the object.
        - `group_sizes`: number of objects with the same category; with the same category and color; with both in the same
          column.
        - `is_leftmost`: whether the object is the leftmost of each of these groups.
        - `column`: 0, 1 or 2 for the left, middle and right third of the image.
        - `is_center`: whether the token is the one closest to the center of the object's tokens; one token for each object.
    """
    block = TARGET_MAP_SIZE // side
    blocks = instance_map.reshape(side, block, side, -1).swapaxes(1, 2).reshape(side * side, -1)
    covered = np.stack([(blocks == i).mean(1) for i in range(1, len(instances) + 1)], axis=1)
    largest = covered.argmax(1)
    is_object = covered.max(1, keepdims=True) >= MIN_COVERAGE
    attributes = (instances[largest] + np.array([1, 1, 0, 0, 0, 0], np.float32)) * is_object
    categories = np.concatenate([[0], instances[:, 0] + 1])[instance_map]
    coverage = _sample_grid(instance_map, side, 4) == 1 + largest[:, None]
    instance_index = (1 + largest[:, None]) * is_object
    fields = [
        attributes,
        _sample_grid(letter_map, side, 2),
        _sample_grid(categories, side, 2),
        coverage,
        instance_index,
        _group_statistics(instances)[largest] * is_object,
        _center_tokens(instance_index[:, 0], side),
    ]
    return np.concatenate(fields, axis=1).astype(np.float32)


def split_dense_targets(targets: torch.Tensor) -> dict[str, torch.Tensor]:
    """Split the last axis of dense targets (... x 39) into views by name, see `build_dense_targets`."""
    return dict(zip(DENSE_TARGET_FIELDS, targets.split(list(DENSE_TARGET_FIELDS.values()), dim=-1), strict=True))


def _group_statistics(instances: np.ndarray) -> np.ndarray:
    """Return `group_sizes`, `is_leftmost` and `column` of each object: n x 7."""
    column = np.digitize(instances[:, [2, 4]].mean(1, keepdims=True), (1 / 3, 2 / 3))
    rank = np.lexsort(instances[:, 5:1:-1].T).argsort()  # 0 for the leftmost object
    keys = [instances[:, :1], instances[:, :2], np.concatenate([instances[:, :2], column], axis=1)]
    in_group = [(key[:, None] == key).all(-1) for key in keys]
    is_leftmost = [np.where(same, rank, len(instances)).min(1) == rank for same in in_group]
    return np.concatenate([np.stack([*(same.sum(1) for same in in_group), *is_leftmost], axis=1), column], axis=1)


def _center_tokens(instance_index: np.ndarray, side: int) -> np.ndarray:
    """Return `is_center`, (side * side) x 1, from `instance_index`, side * side."""
    positions = np.stack(np.divmod(np.arange(side * side), side), axis=1)
    is_center = np.zeros((side * side, 1))
    for index in np.unique(instance_index[instance_index > 0]):
        tokens = np.flatnonzero(instance_index == index)
        distances = ((positions[tokens] - positions[tokens].mean(0)) ** 2).sum(1)
        is_center[tokens[distances.argmin()]] = 1
    return is_center


def _sample_grid(values: np.ndarray, side: int, parts: int) -> np.ndarray:
    """Sample a 192 x 192 map at the centers of parts x parts cells of each image token: (side * side) x (parts * parts)."""
    step = TARGET_MAP_SIZE // (side * parts)
    sampled = values[step // 2 :: step, step // 2 :: step]
    return sampled.reshape(side, parts, side, parts).swapaxes(1, 2).reshape(side * side, parts * parts)
