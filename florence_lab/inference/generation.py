"""Encoding images and prompts, generating sequences and scoring them.

All functions take a transformers model and tensors. In shapes, B is the number of prompts, N of image tokens, P of prompt
tokens, S = N + P, T of generated tokens, d is d_model, V the size of the vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import Florence2ForConditionalGeneration, PreTrainedTokenizerBase
from transformers.generation.configuration_utils import GenerationMode
from transformers.modeling_outputs import BaseModelOutput

from ..argument_validation import validate_fields
from ..exceptions import ArgumentError, GenerationInterrupted, shorten, summarize_error
from ..generation_settings import validate_generation_settings, validate_stored_settings
from ..template.confidence import TokenProbabilities
from .constraints import ConstraintProcessor, generation_arguments
from .davit import DAVIT_ATTENTION, register_davit_attention
from .decoding import (
    LANGUAGE_ATTENTION,
    TokenScoreRecorder,
    attention_weights,
    end_token_ids,
    greedy_search,
    register_language_attention,
)

DEFAULT_MAX_NEW_TOKENS = 1024

_NULLABLE = ("forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens")
"""Settings that None switches off. For others, None is the default."""

_POSITIONS_PER_CHUNK = 128  # 26 MB of float32 logits for a vocabulary of 51,290 tokens

ImageEncoder = Callable[[torch.Tensor], torch.Tensor]
"""Pixel values (B x 3 x H x W) -> image tokens (B x N x d)."""


@dataclass(frozen=True, eq=False)
class EncodedImage:
    """The image tokens of one image, from which any number of prompts can be answered.

    Attributes:
        image: upright RGB, at its original size.
        tokens: 1 x N x d, on the model's device (N = 577 for the published models).
    """

    image: Image.Image
    tokens: torch.Tensor = field(repr=False)

    def __post_init__(self) -> None:
        validate_fields(self)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image in pixels."""
        return self.image.size


@dataclass(frozen=True, eq=False)
class EncodedPrompts:
    """The output of the text encoder for B pairs of image and prompt.

    Attributes:
        hidden_states: B x S x d.
        attention_mask: B x S int64, 1 where the decoder may attend.
    """

    hidden_states: torch.Tensor
    attention_mask: torch.Tensor

    def __len__(self) -> int:
        return len(self.hidden_states)

    def __getitem__(self, rows: slice) -> EncodedPrompts:
        return EncodedPrompts(self.hidden_states[rows], self.attention_mask[rows])


@dataclass(frozen=True, eq=False)
class Generation:
    """One generated sequence.

    Attributes:
        token_ids: T int64 on the model's device, up to and including `</s>`, without the start token and padding.
        probabilities: of the T tokens, before any processing of the logits; None if they were not requested.
        is_truncated: whether the limit of length or time ended the sequence, and not the model.
    """

    token_ids: torch.Tensor
    probabilities: TokenProbabilities | None = None
    is_truncated: bool = False


def prepare_model(model: Florence2ForConditionalGeneration) -> Florence2ForConditionalGeneration:
    """Select florence_lab's attention functions in a model and return it. Idempotent."""
    register_davit_attention()
    register_language_attention()
    model.set_attn_implementation({"vision_config": DAVIT_ATTENTION, "text_config": LANGUAGE_ATTENTION})
    return model


def default_image_encoder(model: Florence2ForConditionalGeneration) -> ImageEncoder:
    """Return the image encoder of a model, uncompiled."""
    return lambda pixel_values: model.get_image_features(pixel_values).pooler_output


def max_prompt_tokens(model: Florence2ForConditionalGeneration, num_image_tokens: int) -> int:
    """Return the maximum number of prompt tokens besides the image tokens."""
    return int(text_config(model).max_position_embeddings) - num_image_tokens


@torch.inference_mode()
def encode_prompts(
    model: Florence2ForConditionalGeneration,
    tokenizer: PreTrainedTokenizerBase,
    image_tokens: torch.Tensor,
    prompts: Sequence[str],
) -> EncodedPrompts:
    """Run the text encoder on image tokens and prompts.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        image_tokens: B x N x d, one row for each prompt; an expanded view for many prompts about one image.
        prompts: B texts.
    """
    # `padding=True` would set the padding of the tokenizer, which other threads use meanwhile
    ids = [torch.tensor(row, device=model.device) for row in tokenizer(list(prompts)).input_ids]
    padding_id: Any = tokenizer.pad_token_id
    token_ids = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=padding_id)
    lengths = torch.tensor([len(row) for row in ids], device=model.device)
    is_token = torch.arange(token_ids.shape[1], device=model.device) < lengths[:, None]
    embeddings = torch.cat([image_tokens, model.get_input_embeddings()(token_ids)], dim=1)
    mask = torch.cat([is_token.new_ones(image_tokens.shape[:2]), is_token], dim=1).long()
    hidden_states = model.get_encoder()(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
    return EncodedPrompts(hidden_states, mask)


def resolve_generation_kwargs(model: Florence2ForConditionalGeneration, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Validate keyword arguments of transformers' `generate` and complete them.

    Args:
        model: the model, whose `generation_config` gives the defaults.
        overrides: the caller's arguments, such as `num_beams`.

    Raises:
        ArgumentError: for unknown arguments, values out of their range, and arguments that do not give one sequence per
            prompt; also for invalid settings in `model.generation_config`.
    """
    config, vocab_size = model.generation_config, text_config(model).vocab_size
    validate_stored_settings(config, vocab_size)
    nullable = {name: None for name in _NULLABLE if name in overrides and overrides[name] is None}
    kwargs = validate_generation_settings(overrides, vocab_size) | nullable
    if kwargs.get("do_sample") and "num_beams" not in kwargs:
        kwargs["num_beams"] = 1  # sampling draws a single sequence
    if kwargs.get("num_beams", config.num_beams) in (None, 1):
        kwargs.setdefault("early_stopping", False)  # only beams stop early; transformers warns otherwise
    if kwargs.get("max_new_tokens") is None:
        max_length = kwargs.pop("max_length", None)  # counts the start token too
        kwargs["max_new_tokens"] = max_length - 1 if max_length else config.max_new_tokens or DEFAULT_MAX_NEW_TOKENS
    limit = text_config(model).max_position_embeddings
    # transformers warns if max_length of the checkpoint's configuration is set besides max_new_tokens
    return kwargs | {"max_new_tokens": min(kwargs["max_new_tokens"], limit), "max_length": None}


@torch.inference_mode()
def generate(
    model: Florence2ForConditionalGeneration,
    encoded: EncodedPrompts,
    generate_kwargs: Mapping[str, Any],
    *,
    location_ids: range | None = None,
    score_rows: Collection[int] = (),
    constraint: ConstraintProcessor | None = None,
) -> list[Generation]:
    """Generate one sequence for each prompt.

    Args:
        model: the model.
        encoded: B encoded prompts.
        generate_kwargs: see `resolve_generation_kwargs`.
        location_ids: token ids of the location tokens; required by `score_rows`.
        score_rows: indices of the prompts whose token probabilities are wanted. They are recorded during greedy decoding, and
            cost another pass of the decoder with beams or sampling.
        constraint: restricts the answers.
    """
    settings = generation_arguments(generate_kwargs, constraint)
    recorder = None
    if _is_greedy(model, settings):
        if score_rows and location_ids is not None:
            recorder = TokenScoreRecorder(score_rows, location_ids, model.config.image_token_id)
        on_drop = constraint.keep if constraint else None
        settings["custom_generate"] = partial(greedy_search, on_step=recorder, on_drop=on_drop)
    with generation_errors(generate_kwargs):
        sequences = model.generate(
            # beam search repeats the hidden states in place, so it gets a container of its own
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded.hidden_states),
            attention_mask=encoded.attention_mask,
            **settings,
        )
    generations = []
    for row, sequence in enumerate(sequences):
        token_ids, probabilities = trim_at_eos(model, sequence[1:]), None
        if row in score_rows and location_ids is not None:
            probabilities = recorder.probabilities(row) if recorder else None
            if probabilities is None:
                probabilities = score(model, token_ids, encoded[row : row + 1], location_ids)
        answer_constraint = constraint.restart(row) if constraint else None
        truncated = is_truncated(model, token_ids, encoded[row : row + 1], generate_kwargs, answer_constraint)
        generations.append(Generation(token_ids, probabilities, truncated))
    return generations


@contextmanager
def generation_errors(generate_kwargs: Mapping[str, Any]) -> Iterator[None]:
    """Turn the errors that transformers' `generate` raises for a combination of settings into an `ArgumentError`."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        shown = {name: value for name, value in generate_kwargs.items() if value is not None}
        raise ArgumentError(f"cannot generate with {shorten(shown, 200)}: {summarize_error(error)}") from error
    except RuntimeError as error:
        if "probability tensor" not in str(error):
            raise
        raise ArgumentError("sampling failed: the model gives probabilities that are not finite") from error


@torch.inference_mode()
def is_truncated(
    model: Florence2ForConditionalGeneration,
    token_ids: torch.Tensor,
    encoded: EncodedPrompts,
    generate_kwargs: Mapping[str, Any],
    constraint: ConstraintProcessor | None = None,
) -> bool:
    """Return whether the limit of length or time ended a sequence, and not the model.

    The published checkpoints force `</s>` at the limit; the sequence is then truncated unless `</s>` is also the most probable
    token at its end.

    Args:
        model: the model.
        token_ids: T token ids without the start token, see `Generation`.
        encoded: the encoded prompt.
        generate_kwargs: see `resolve_generation_kwargs`.
        constraint: restricts this answer alone.
    """
    ends = end_token_ids(model, generate_kwargs)
    if not len(token_ids) or int(token_ids[-1]) not in ends:
        return True
    forced = generate_kwargs.get("forced_eos_token_id", model.generation_config.forced_eos_token_id)
    if forced is None or len(token_ids) < generate_kwargs["max_new_tokens"]:
        return False
    hidden_states, _ = run_decoder(model, token_ids, encoded)
    scores = next(next_token_probabilities(model, hidden_states[-1:])).log()
    if constraint:
        scores = constraint(token_ids.roll(1)[None], scores)  # the first token has no meaning for it
    return int(scores.argmax()) not in ends


def trim_at_eos(model: Florence2ForConditionalGeneration, token_ids: torch.Tensor) -> torch.Tensor:
    """Cut a generated sequence, without its start token, after its first `</s>`."""
    ends = torch.isin(token_ids, torch.tensor(end_token_ids(model), device=token_ids.device)).nonzero()
    return token_ids[: int(ends[0]) + 1] if len(ends) else token_ids


@torch.inference_mode()
def run_decoder(
    model: Florence2ForConditionalGeneration,
    token_ids: torch.Tensor,
    encoded: EncodedPrompts,
    output_attentions: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Run the decoder on a given sequence in one pass (teacher forcing).

    Args:
        model: the model.
        token_ids: T token ids without the start token.
        encoded: one encoded prompt.
        output_attentions: return the cross-attention. The attention functions of `prepare_model` or "eager" must be selected.

    Returns:
        The hidden states from which each token is predicted (T x d), and the cross-attention (layers x heads x T x S float32)
        or None.
    """
    start = token_ids.new_tensor([start_token_id(model)])
    with attention_weights() if output_attentions else nullcontext():
        output = model.model.language_model.decoder(
            input_ids=torch.cat([start, token_ids[:-1]])[None],
            encoder_hidden_states=encoded.hidden_states,
            encoder_attention_mask=encoded.attention_mask,
            use_cache=False,
            output_attentions=output_attentions,
        )
    attentions = None
    if output_attentions:
        attentions = torch.stack([layer[0].float() for layer in output.cross_attentions])
    return output.last_hidden_state[0], attentions


def next_token_probabilities(
    model: Florence2ForConditionalGeneration, hidden_states: torch.Tensor
) -> Iterator[torch.Tensor]:
    """Yield the probabilities of the next token, n x V float32, for chunks of T x d hidden states of the decoder.

    The probability of `<image>`, the placeholder of the image in a prompt, is 0.
    """
    for chunk in hidden_states.split(_POSITIONS_PER_CHUNK):
        logits = model.lm_head(chunk).float()
        logits[:, model.config.image_token_id] = -torch.inf
        yield logits.softmax(dim=-1)


@torch.inference_mode()
def score(
    model: Florence2ForConditionalGeneration,
    token_ids: torch.Tensor,
    encoded: EncodedPrompts,
    location_ids: range,
) -> TokenProbabilities:
    """Return the model's probabilities of a given sequence, in one pass of the decoder.

    They are the model's own, before any processing of the logits, so they compare across greedy decoding, sampling and beams.

    Args:
        model: the model.
        token_ids: T token ids without the start token.
        encoded: one encoded prompt.
        location_ids: token ids of the location tokens.
    """
    hidden_states, _ = run_decoder(model, token_ids, encoded)
    generated, locations = [], []
    chunks = zip(token_ids.split(_POSITIONS_PER_CHUNK), next_token_probabilities(model, hidden_states), strict=True)
    for ids, probabilities in chunks:
        generated.append(probabilities.gather(1, ids[:, None])[:, 0].cpu().numpy())
        locations.append(probabilities[:, location_ids.start : location_ids.stop].cpu().numpy())
    return TokenProbabilities(np.concatenate(generated), np.concatenate(locations))


@contextmanager
def interruptible(model: Florence2ForConditionalGeneration, should_stop: Callable[[], bool]) -> Iterator[None]:
    """Let another thread stop the model: `should_stop` is called before each layer and each token.

    Raises:
        GenerationInterrupted: before the next layer once `should_stop()` is true.
    """

    def check(*_: Any) -> None:
        if should_stop():
            raise GenerationInterrupted

    stacks = [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]
    hooks = [m.register_forward_pre_hook(check) for m in (*(m for s in stacks for m in s), model.lm_head)]
    try:
        check()
        yield
    finally:
        for hook in hooks:
            hook.remove()


def text_config(model: Florence2ForConditionalGeneration) -> Any:
    """Return the configuration of the language model, which transformers types as a union."""
    return model.config.text_config


def start_token_id(model: Florence2ForConditionalGeneration) -> int:
    """Return the id of the token that the decoder starts with, in front of the first generated token."""
    start_id = model.generation_config.decoder_start_token_id
    return int(text_config(model).decoder_start_token_id if start_id is None else start_id)


def _is_greedy(model: Florence2ForConditionalGeneration, generate_kwargs: Mapping[str, Any]) -> bool:
    config = copy.deepcopy(model.generation_config)
    config.update(**generate_kwargs)
    return bool(config.get_generation_mode() is GenerationMode.GREEDY_SEARCH)
