"""TODO"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..tasks import Task
from .locations import _REGION_TOKENS, format_location_tokens

if TYPE_CHECKING:
    from .locations import Region

_CHINESE = re.compile(r"[\u3400-\u9fff]")


def _name(task: Task) -> str:
    return task.token or "a free question"


def _read_nothing(task: Task, given: str | Region, image_size: tuple[int, int] | None) -> str:
    if not isinstance(given, str) or given.strip():
        raise ValueError(f"{task.token} takes no input, but got {given!r}")
    return ""


def _read_phrase(task: Task, given: str | Region, image_size: tuple[int, int] | None) -> str:
    if not isinstance(given, str):
        raise ValueError(f"{_name(task)} takes a phrase, but got {given!r}")
    if not given.strip():
        example = f", as in {task.token}a sheep" if task.token else ""
        raise ValueError(f"{_name(task)} needs a phrase{example}")
    return given.strip()


def _read_region(task: Task, given: str | Region, image_size: tuple[int, int] | None) -> str:
    accepted = "a region: (x0, y0, x1, y1) in pixels, or four location tokens <loc_0> … <loc_999>"
    if isinstance(given, str):
        given = given.strip()
        if not given:
            raise ValueError(f"{task.token} needs {accepted}")
        if not _REGION_TOKENS.fullmatch(given):
            raise ValueError(f"{task.token} takes {accepted}; got {given!r}")
        x0, y0, x1, y1 = map(int, re.findall("[0-9]+", given))
        if x0 > x1 or y0 > y1:
            of = f", of a picture of {image_size[0]} x {image_size[1]}," if image_size else ""
            raise ValueError(f"the region {given}{of} is inside out: x0 <= x1 and y0 <= y1 must hold")
        return given
    try:
        region = np.asarray(given, np.float64)
    except (TypeError, ValueError, OverflowError):
        region = np.empty(0)
    if region.shape != (4,):
        raise ValueError(f"{task.token} takes {accepted}; got {given!r}")
    if image_size is None:
        raise ValueError("a region in pixels needs the image's size")
    _check_region(region, image_size)
    return format_location_tokens(region, image_size)


def _check_region(region: np.ndarray, image_size: tuple[int, int]) -> None:
    width, height = image_size
    x0, y0, x1, y1 = region.tolist()
    shown = f"the region ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    if not np.isfinite(region).all():
        raise ValueError(f"{shown} is not made of finite numbers; the picture is {width} x {height}")
    if x1 <= x0 or y1 <= y0:
        raise ValueError(
            f"{shown} has no area or is inside out: x0 < x1 and y0 < y1 must hold; the picture is {width} x {height}"
        )
    if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
        raise ValueError(f"{shown} reaches outside the picture, which is {width} x {height}")


_INPUT_READERS: dict[str, Callable[[Task, Any, Any], str]] = {
    "none": _read_nothing,
    "phrase": _read_phrase,
    "region": _read_region,
}
