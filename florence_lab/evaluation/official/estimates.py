"""`Estimate`: the value of a metric, with what is needed to resample it; bootstrap intervals and paired comparisons."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ...exceptions import ArgumentError

NUM_RESAMPLES = 1000
CONFIDENCE = 0.95


class Interval(NamedTuple):
    """The bounds of a confidence interval."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Estimate:
    """The value of a metric over N samples.

    Attributes:
        value: the metric; nan if it is undefined.
        resample: N weights -> the value if sample i occurs `weights[i]` times; None for a metric without an interval.
    """

    value: float
    resample: Callable[[np.ndarray], float] | None = None


def mean_estimate(values: Sequence[float] | np.ndarray) -> Estimate:
    """Return the mean of N values. Those that are nan are left out."""
    values = np.asarray(values, float)
    known = ~np.isnan(values)
    return ratio_estimate(np.where(known, values, 0), known)


def ratio_estimate(numerators: Sequence[float] | np.ndarray, denominators: Sequence[float] | np.ndarray) -> Estimate:
    """Return the sum of N numerators divided by the sum of N denominators; nan if the latter is 0."""
    above, below = np.asarray(numerators, float), np.asarray(denominators, float)

    def resample(weights: np.ndarray) -> float:
        total = float(below @ weights)
        return float(above @ weights) / total if total else float("nan")

    return Estimate(resample(np.ones(len(above))), resample)


def bootstrap_interval(
    estimate: Estimate, groups: Sequence[Hashable], num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Interval | None:
    """Return the 95% percentile interval of a metric, shifted by the bias of the resamples.

    Average precision of a resample is higher than that of the sample by several thousandths, since repeated images repeat their
    ranks: without the shift the interval may not contain the value. Means have no such bias.

    Args:
        estimate: the metric over N samples.
        groups: N keys. Samples with the same key, such as questions about one image, are drawn together.
        num_resamples: number of bootstrap samples.
        seed: of the random draws.

    Returns:
        The interval; None for a metric that cannot be resampled, and for fewer than two groups.
    """
    if estimate.resample is None or len(set(groups)) < 2:
        return None
    values = [estimate.resample(weights) for weights in _draw_weights(groups, num_resamples, seed)]
    return _percentiles(np.array(values), estimate.value)


class Difference(NamedTuple):
    """The difference of two runs on the same samples.

    Attributes:
        value: second minus first.
        interval: its 95% interval by the paired bootstrap; None if it cannot be computed.
        p_value: two-sided, by the paired bootstrap; nan without an interval.
    """

    value: float
    interval: Interval | None
    p_value: float


def paired_difference(
    first: Estimate,
    second: Estimate,
    groups: Sequence[Hashable],
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Return the difference of a metric between two runs on the same N samples, by the paired bootstrap.

    Both runs are resampled with the same draws, so that what is common to them, such as hard images, cancels.

    Args:
        first, second: the metric of each run. Their samples must be the same, in the same order.
        groups, num_resamples, seed: as for `bootstrap_interval`.
    """
    value = second.value - first.value
    if first.resample is None or second.resample is None or len(set(groups)) < 2:
        return Difference(value, None, float("nan"))
    draws = _draw_weights(groups, num_resamples, seed)
    values = np.array([second.resample(weights) - first.resample(weights) for weights in draws])
    interval = _percentiles(values, value)
    values = values[~np.isnan(values)]
    if interval is None:
        return Difference(value, None, float("nan"))
    # the share of draws on the other side of 0, with the add-one correction of a resampling test
    tail = min((values <= 0).sum(), (values >= 0).sum())
    return Difference(value, interval, min(1.0, 2 * (int(tail) + 1) / (len(values) + 1)))


def _draw_weights(groups: Sequence[Hashable], num_resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each sample occurs in a bootstrap sample of the groups, one sample at a time."""
    if num_resamples < 1:
        raise ArgumentError(f"num_resamples must be at least 1, got {num_resamples}")
    numbers = {group: i for i, group in enumerate(dict.fromkeys(groups))}
    index = np.array([numbers[group] for group in groups])
    rng = np.random.default_rng(seed)
    uniform = np.full(len(numbers), 1 / len(numbers))
    for _ in range(num_resamples):
        yield rng.multinomial(len(numbers), uniform)[index].astype(float)


def _percentiles(values: np.ndarray, value: float) -> Interval | None:
    values = values[~np.isnan(values)]
    if not len(values) or np.isnan(value):
        return None
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) - (values.mean() - value)
    return Interval(float(low), float(high))
