"""The table of published benchmarks."""

from __future__ import annotations

from collections.abc import Mapping

from ...exceptions import ArgumentError, unknown_name
from .base import Suite
from .captioning import CAPTION_SUITES
from .detection import DETECTION_SUITES
from .grounding import GROUNDING_SUITES
from .questions import ANSWER_SUITES
from .referring import REFERRING_SUITES

SUITES: Mapping[str, Suite] = {
    suite.name: suite
    for suite in (*DETECTION_SUITES, *CAPTION_SUITES, *GROUNDING_SUITES, *REFERRING_SUITES, *ANSWER_SUITES)
}
"""Name -> benchmark, as `--suite` takes it."""


def get_suite(name: str) -> Suite:
    """Return a benchmark.

    Raises:
        ArgumentError: for an unknown name.
    """
    if name not in SUITES:
        raise ArgumentError(unknown_name("suite", name, SUITES))
    return SUITES[name]


def get_split(suite: Suite, split: str | None) -> str:
    """Return a split of a benchmark, by default the first.

    Raises:
        ArgumentError: for an unknown split.
    """
    if split is not None and split not in suite.splits:
        raise ArgumentError(unknown_name(f"split of {suite.name}", split, suite.splits))
    return split or suite.splits[0]
