"""`RankedCandidates`: candidate answers with their likelihood, the best one first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, overload

import numpy as np

from ..argument_validation import Range, validate_arguments, validate_fields
from ..exceptions import ArgumentTypeError, shorten
from ..template.candidates import Candidate

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class ScoredCandidate:
    """A candidate answer with its likelihood.

    Attributes:
        candidate: the answer as it was given.
        log_likelihood: natural logarithm of the probability that the model gives this answer: the sum over its tokens.
        num_tokens: number of these tokens, the end included, a forced first token (`<s>`) not.
        probability: 0..1, relative to the other candidates; those of all candidates sum to 1.
    """

    candidate: Candidate
    log_likelihood: Annotated[float, Range(maximum=0)]
    num_tokens: Annotated[int, Range(1)]
    probability: Annotated[float, Range(0, 1)]

    def __post_init__(self) -> None:
        validate_fields(self)

    @property
    def perplexity(self) -> float:
        """exp(-log_likelihood / num_tokens): 1 for an answer that the model is sure of."""
        mean = -self.log_likelihood / self.num_tokens
        return math.exp(mean) if mean < 700 else math.inf


class RankedCandidates(Sequence[ScoredCandidate]):
    """Scored candidates in the order of their probability, the most probable first.

    Example:
        >>> ranked = predictor.score(image, "<REGION_TO_CATEGORY>", ["sheep", "dog"], (35, 237, 157, 337))
        >>> ranked[0].candidate, ranked[0].probability
    """

    @validate_arguments
    def __init__(self, candidates: Sequence[ScoredCandidate]) -> None:
        """Sort the candidates."""
        self._candidates = sorted(candidates, key=lambda item: -item.probability)

    def __len__(self) -> int:
        return len(self._candidates)

    @overload
    def __getitem__(self, index: int) -> ScoredCandidate: ...

    @overload
    def __getitem__(self, index: slice) -> list[ScoredCandidate]: ...

    def __getitem__(self, index: int | slice) -> ScoredCandidate | list[ScoredCandidate]:
        """Return the candidate of a rank, 0 for the most probable, or a list of them for a slice."""
        try:
            return self._candidates[index]
        except IndexError:
            raise IndexError(f"no candidate {shorten(index)} among {len(self)} candidates") from None
        except (TypeError, ValueError):
            raise ArgumentTypeError(f"index must be an integer or a slice, got {shorten(index)}") from None

    def __iter__(self) -> Iterator[ScoredCandidate]:
        return iter(self._candidates)

    def __repr__(self) -> str:
        rows = [
            (shorten(item.candidate, 60), f"{item.probability:.4f}", f"{item.log_likelihood:.2f}", str(item.num_tokens))
            for item in self
        ]
        rows.insert(0, ("candidate", "probability", "log-likelihood", "tokens"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
        )

    def to_dataframe(self) -> pd.DataFrame:
        """Return a data frame with a row for each candidate, and its values in columns, `perplexity` included."""
        import pandas as pd

        columns = ["candidate", "probability", "log_likelihood", "num_tokens", "perplexity"]
        rows: list[list[Any]] = [[getattr(item, name) for name in columns] for item in self]
        return pd.DataFrame(rows, columns=columns)


def rank_candidates(
    candidates: Sequence[Candidate], token_values: Sequence[np.ndarray], normalize: bool
) -> RankedCandidates:
    """Rank candidates by the log-probabilities of their tokens.

    Args:
        candidates: N candidates.
        token_values: N arrays, the log-probability of each token that counts.
        normalize: divide the log-likelihood by the number of tokens before the softmax over the candidates.
    """
    sums = np.array([values.sum() for values in token_values])
    lengths = [len(values) for values in token_values]
    logits = sums / lengths if normalize else sums
    weights = np.exp(logits - logits.max())
    probabilities = weights / weights.sum()
    rows = zip(candidates, sums.tolist(), lengths, probabilities.tolist(), strict=True)
    # rounding may give a sum above 0
    return RankedCandidates([ScoredCandidate(item, min(0.0, total), n, p) for item, total, n, p in rows])
