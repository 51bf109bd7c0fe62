"""`ScoringMixin`: the method `Predictor.score`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..argument_validation import validate_value
from ..exceptions import ArgumentError, ArgumentTypeError, shorten
from ..images import load_image
from ..inference.decoding import end_token_ids
from ..inference.generation import EncodedImage, encode_prompts
from ..inference.ranking import RankedCandidates, rank_candidates
from ..inference.scoring import answer_log_likelihoods
from ..template.candidates import Candidate, ends_with_region, format_candidate
from ..template.locations import Region, RegionFormat
from .asker import Asker


class ScoringMixin:
    """Scores given answers instead of generating one. `Predictor` inherits it."""

    def score(
        self: Asker,
        image: Any,
        task: str,
        candidates: Sequence[Candidate],
        text: str | Region | None = None,
        normalize: bool = False,
        region_format: RegionFormat = "xyxy",
    ) -> RankedCandidates:
        """Rank given answers to a prompt by their likelihood.

        The image and the prompt are encoded once, and all candidates run through the decoder together. With texts, this is
        zero-shot classification of an image or a region, or a multiple-choice question; with boxes, it tells which one the
        phrase refers to. `perplexity` of a candidate tells how well the model predicts a reference.

        The probabilities are the model's own, as in `predict`: the first token that generation forces does not count, the
        end of the answer does. The answer of a task about a region may repeat the region behind the text or not; the
        likelihood is that of the text, whatever follows.

        Args:
            image: as in `predict`.
            task: a task token, or a question.
            candidates: at least one answer. For a task that answers with text, a string; "" is the answer that there is
                nothing. For a task that answers with boxes for a phrase, one box of four numbers, or a list of boxes, whose
                likelihood is that of their exact location tokens. For all tasks that answer with instances, a result such as `Boxes`, or a string in the answer grammar
                (`"sheep<loc_10><loc_20><loc_300><loc_400>"`).
            text: as in `predict`.
            normalize: rank by the log-likelihood divided by the number of tokens. Without it longer candidates are less
                likely, as they are in generation.
            region_format: the units of regions and boxes, as in `predict`.

        Returns:
            The candidates, the most probable first, each with its log-likelihood, and its probability relative to the other
            candidates: the softmax of the log-likelihoods.

        Raises:
            PromptError, ImageError: as `predict`; the former also for a box that is not in the image.
            ArgumentError: for no candidates, and for one that the task cannot give as its answer.

        Example:
            >>> predictor.score(image, "<REGION_TO_CATEGORY>", ["sheep", "dog", "cow"], (35, 237, 157, 337))
            >>> predictor.score(image, "What is the weather like?", ["sunny", "rainy"], normalize=True)
            >>> predictor.score(image, "<CAPTION>", ["four sheep in a field"])[0].perplexity
        """
        items = _list_candidates(candidates)
        normalize = validate_value("normalize", normalize, bool)
        source = image if isinstance(image, EncodedImage) else load_image(image)
        prompt = self.build_prompt(source.size, task, text, region_format)
        answers = [format_candidate(item, prompt, source.size, region_format) for item in items]
        encoded = self.encode_image(source)
        tokenizer = self.processor.tokenizer
        states = encode_prompts(self.model, tokenizer, encoded.tokens, [prompt.prompt])
        ends = end_token_ids(self.model)
        if ends_with_region(prompt.task):
            ends = [*ends, *self.template.location_ids]
        values = answer_log_likelihoods(self.model, tokenizer, states, [0] * len(answers), answers, ends)
        num_forced = self.model.generation_config.forced_bos_token_id is not None
        return rank_candidates(items, [v[num_forced:] for v in values], normalize)


def _list_candidates(candidates: Any) -> list[Candidate]:
    is_array = hasattr(candidates, "__array__") and getattr(candidates, "ndim", 0) > 0
    if isinstance(candidates, str) or not (isinstance(candidates, Sequence) or is_array):
        raise ArgumentTypeError(f"candidates must be a list of answers, got {shorten(candidates)}")
    items = list(candidates)
    if not items:
        raise ArgumentError("candidates must contain at least one answer, got []")
    return items
