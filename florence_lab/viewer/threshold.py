"""The threshold of a viewer: results without the instances that have a lower score."""

from __future__ import annotations

from ..results import Instances, Result


def filter_result(result: Result, threshold: float) -> Result:
    """Return a result without the instances whose score is below a threshold. A result without scores is returned as it is."""
    if not num_hidden(result, threshold):
        return result
    assert isinstance(result, Instances)
    assert result.scores is not None
    return result[result.scores >= threshold]


def num_hidden(result: Result, threshold: float) -> int:
    """Return the number of instances whose score is below a threshold."""
    scores = getattr(result, "scores", None)
    return 0 if scores is None else int((scores < threshold).sum())
