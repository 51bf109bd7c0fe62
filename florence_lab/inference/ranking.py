"""`RankedCandidates`: candidate answers with their likelihood, the best one first."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ..exceptions import shorten
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
    log_likelihood: float
    num_tokens: int
    probability: float

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

    def __init__(self, candidates: Sequence[ScoredCandidate]) -> None:
        self._candidates = sorted(candidates, key=lambda item: -item.probability)

    @classmethod
    def from_log_likelihoods(
        cls, candidates: Sequence[Candidate], token_values: Sequence[np.ndarray], normalize: bool
    ) -> RankedCandidates:
        """Rank candidates by the log-probabilities of their tokens.

        Args:
            candidates: N candidates.
            token_values: N arrays, the log-probability of each token that counts.
            normalize: divide the log-likelihood by the number of tokens before the softmax over the candidates.
        """
        sums = np.array([values.sum() for values in token_values])
        logits = sums / [len(values) for values in token_values] if normalize else sums
        weights = np.exp(logits - logits.max())
        probabilities = weights / weights.sum()
        return cls(
            [
                ScoredCandidate(candidate, float(total), len(values), float(probability))
                for candidate, total, values, probability in zip(
                    candidates, sums, token_values, probabilities, strict=True
                )
            ]
        )

    def __len__(self) -> int:
        return len(self._candidates)

    @overload
    def __getitem__(self, index: int) -> ScoredCandidate: ...

    @overload
    def __getitem__(self, index: slice) -> list[ScoredCandidate]: ...

    def __getitem__(self, index: int | slice) -> ScoredCandidate | list[ScoredCandidate]:
        """Return the candidate of a rank, 0 for the most probable, or a list of them for a slice."""
        return self._candidates[index]

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
        """Return a data frame with a row for each candidate: `candidate`, `probability`, `log_likelihood`, `num_tokens`,
        `perplexity`."""
        import pandas as pd

        columns = ["candidate", "probability", "log_likelihood", "num_tokens", "perplexity"]
        rows: list[list[Any]] = [[getattr(item, name) for name in columns] for item in self]
        return pd.DataFrame(rows, columns=columns)
