"""TODO"""

from __future__ import annotations

import string

import numpy as np
import torch

from ..scenes import Scene
from ..scenes.paint import PALETTE, load_font

TARGET_MAP_SIZE = 192  # of the maps of what is where; as many times any number of image tokens a side
MOST = 6  # things in a scene

COLORS = tuple(PALETTE)

LETTERS = string.digits + string.ascii_letters


def _letters_of(scene: Scene) -> np.ndarray:
    """See `Example`; letters are as wide, compared with one another, as in one of the fonts, which is nearly so."""
    written = np.zeros((TARGET_MAP_SIZE, TARGET_MAP_SIZE), np.uint8)
    middles = np.stack(np.meshgrid(*[(np.arange(TARGET_MAP_SIZE) + 0.5) / TARGET_MAP_SIZE] * 2), axis=-1)
    font = load_font("DejaVuSans", 48)
    for thing in scene.objects:
        if thing.text:
            corner, right, _, below = thing.quad / scene.size
            # in units of the word's width and of its height
            inside = (middles - corner) @ np.linalg.inv(np.stack([right - corner, below - corner]))
            ends = np.array([font.getlength(thing.text[: i + 1]) for i in range(len(thing.text))])
            which = np.searchsorted(ends / ends[-1], inside[..., 0].clip(0, 1))
            here = ((inside >= 0) & (inside <= 1)).all(-1)
            written[here] = 1 + np.array([LETTERS.index(letter) for letter in thing.text])[which[here]]
    return written


# What is told of an image token, and in how many numbers: see `build_dense_targets`.
_CELL_PARTS = {
    "kind": 1,
    "color": 1,
    "box": 4,
    "letters": 4,
    "kinds": 4,
    "filled": 16,
    "number": 1,
    "alike": 3,
    "first": 3,
    "column": 1,
    "middle": 1,
}


def build_dense_targets(seen: np.ndarray, things: np.ndarray, letters: np.ndarray, side: int) -> np.ndarray:
    """What each of side x side image tokens shows: the thing that covers most of it, if it is a quarter or more.

    Args:
        seen, things, letters: see `Example`.

    Returns:
        side * side x 39 float32, `_CELL_PARTS`: 0 for background or 1 + the category; 0 or 1 + the colour; the thing's box; of
        the middles of the token's four quarters, row by row, the letters as in `Example.letters`, and 0 or 1 + the category
        of what shows; of the middles of its sixteen sixteenths whether that thing shows; 0 or 1 + the thing's number; how
        many things are of its category, of its category and colour, and of both in its column; whether it is the leftmost of
        each of these; its column, 0 to 2 from the left, the thirds that captions speak of; whether the token is the one in
        its middle, of which each thing that shows has one.
    """
    blocks = seen.reshape(side, TARGET_MAP_SIZE // side, side, -1).swapaxes(1, 2).reshape(side * side, -1)
    covered = np.stack([(blocks == i).mean(1) for i in range(1, len(things) + 1)], axis=1)
    most = covered.argmax(1)
    there = covered.max(1, keepdims=True) >= 0.25
    shown = (things[most] + np.array([1, 1, 0, 0, 0, 0], np.float32)) * there
    kinds = np.concatenate([[0], things[:, 0] + 1])[seen]
    own = _parts(seen, side, 4) == 1 + most[:, None]
    number = (1 + most[:, None]) * there
    among = _among(things)[most] * there
    told = [shown, _parts(letters, side, 2), _parts(kinds, side, 2), own, number, among, _middles(number[:, 0], side)]
    return np.concatenate(told, axis=1).astype(np.float32)


def split_dense_targets(cells: torch.Tensor) -> dict[str, torch.Tensor]:
    """... x 39, see `build_dense_targets` -> its parts by name, views of it."""
    return dict(zip(_CELL_PARTS, cells.split(tuple(_CELL_PARTS.values()), dim=-1), strict=True))


def _among(things: np.ndarray) -> np.ndarray:
    """n x 7: `alike`, `first` and `column` of every thing, see `build_dense_targets`."""
    column = np.digitize(things[:, [2, 4]].mean(1, keepdims=True), (1 / 3, 2 / 3))
    place = np.lexsort(things[:, 5:1:-1].T).argsort()  # 0 for the leftmost of all
    looks = [things[:, :1], things[:, :2], np.concatenate([things[:, :2], column], axis=1)]
    alike = [(look[:, None] == look).all(-1) for look in looks]
    first = [np.where(same, place, len(things)).min(1) == place for same in alike]
    return np.concatenate([np.stack([*(same.sum(1) for same in alike), *first], axis=1), column], axis=1)


def _middles(number: np.ndarray, side: int) -> np.ndarray:
    """The thing of each of side * side tokens, 0 for none -> side * side x 1, whether it is in the middle of its thing's."""
    places = np.stack(np.divmod(np.arange(side * side), side), axis=1)
    middles = np.zeros((side * side, 1))
    for thing in np.unique(number[number > 0]):
        own = np.flatnonzero(number == thing)
        middles[own[((places[own] - places[own].mean(0)) ** 2).sum(1).argmin()]] = 1
    return middles


def _parts(values: np.ndarray, side: int, parts: int) -> np.ndarray:
    """A map of what is where -> its values in the middles of parts x parts places of each of side x side image tokens."""
    step = TARGET_MAP_SIZE // (side * parts)
    middles = values[step // 2 :: step, step // 2 :: step]
    return middles.reshape(side, parts, side, parts).swapaxes(1, 2).reshape(side * side, parts * parts)
