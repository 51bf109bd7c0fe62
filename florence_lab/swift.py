"""ms-swift's Python interface on top of `Predictor`, so that its listings run with another import.

`Response`, `get_model_tokenizer`, `get_template`, `inference` and `inference_stream` have the names, arguments and return values
of ms-swift 2 (https://github.com/modelscope/ms-swift).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import Florence2ForConditionalGeneration, PreTrainedTokenizerBase, set_seed

from .exceptions import unknown_name
from .loading.registry import get_model_info
from .predictor import Predictor, load
from .results import Result
from .template.template import FlorenceTemplate

TEMPLATE_TYPE = "florence"

History = list[list[Any]]
"""A list of `[query, response]`, oldest first."""


class Response(dict):
    """`{prompt that the model read: generated text}`, with location tokens.

    Attributes:
        result: the parsed answer.
    """

    def __init__(self, result: Result) -> None:
        super().__init__({result.prompt: result.raw})
        self.result = result


def get_default_template_type(model_type: str) -> str:
    """Return the template type of a model: `"florence"` for all of them.

    Raises:
        ValueError: for an unknown model type; the message lists the known ones.
    """
    get_model_info(model_type)
    return TEMPLATE_TYPE


def get_model_tokenizer(
    model_type: str,
    torch_dtype: torch.dtype | str = torch.float32,
    model_kwargs: dict[str, Any] | None = None,
    model_id_or_path: str | Path | None = None,
) -> tuple[Florence2ForConditionalGeneration, PreTrainedTokenizerBase]:
    """Load a model and its tokenizer. The tokenizer has the processor as `tokenizer.processor`.

    Args:
        model_type: one of `available_models()`.
        torch_dtype: as `dtype` of `load`.
        model_kwargs: `{"device_map": device}`. None selects the device as `load` does.
        model_id_or_path: a checkpoint folder or hub id, used instead of `model_type`.

    Raises:
        ValueError: for an unknown model type, and for other keys in `model_kwargs` than `device_map`.
        HubError, CheckpointError: as `load`.
    """
    model_kwargs = dict(model_kwargs or {})
    device = model_kwargs.pop("device_map", None) or "auto"
    if model_kwargs:
        raise ValueError(f"model_kwargs accepts device_map only, got {', '.join(model_kwargs)}")
    if model_id_or_path is None:
        get_model_info(model_type)
    predictor = load(model_id_or_path or model_type, device=str(device), dtype=torch_dtype)
    tokenizer = predictor.processor.tokenizer
    tokenizer.processor = predictor.processor
    return predictor.model, tokenizer


def get_template(template_type: str, tokenizer: PreTrainedTokenizerBase) -> FlorenceTemplate:
    """Return the template for a tokenizer of `get_model_tokenizer`.

    Raises:
        ValueError: for another type than `"florence"`.
    """
    if template_type != TEMPLATE_TYPE:
        raise ValueError(unknown_name("template type", template_type, [TEMPLATE_TYPE]))
    return FlorenceTemplate(tokenizer)


def inference(
    model: Florence2ForConditionalGeneration,
    template: FlorenceTemplate,
    query: str,
    history: History | None = None,
    *,
    images: list[Any],
    **generate_kwargs: Any,
) -> tuple[Response, History]:
    """Answer one query about one image.

    Args:
        model, template: from `get_model_tokenizer` and `get_template`. `model.generation_config` has the defaults of
            `generate_kwargs`.
        query: a task token, with its phrase or region behind it if it takes one, or a free-form question.
        history: earlier queries with their responses. Florence-2 does not read them.
        images: a list of one path, URL or image.
        generate_kwargs: arguments of transformers' `generate`.

    Returns:
        The response, and a copy of the history with `[query, response]` appended.

    Raises:
        ValueError: if `images` is not a list of one image.
        PromptError, ImageError, ValueError: as `Predictor.predict`.
    """
    result = _predictor_from(model, template).predict(_single_image(images), query, **generate_kwargs)
    response = Response(result)
    return response, [*(history or []), [query, response]]


def inference_stream(
    model: Florence2ForConditionalGeneration,
    template: FlorenceTemplate,
    query: str,
    history: History | None = None,
    *,
    images: list[Any],
    **generate_kwargs: Any,
) -> Iterator[tuple[Response, History]]:
    """Answer one query about one image and yield growing responses, see `Predictor.stream`.

    Args, Raises: as `inference`.
    """
    for result in _predictor_from(model, template).stream(_single_image(images), query, **generate_kwargs):
        response = Response(result)
        yield response, [*(history or []), [query, response]]


def seed_everything(seed: int) -> int:
    """Seed the random number generators of Python, NumPy and PyTorch on all devices, and return the seed."""
    set_seed(seed)
    return seed


def _predictor_from(model: Florence2ForConditionalGeneration, template: FlorenceTemplate) -> Predictor:
    processor = getattr(template.tokenizer, "processor", None)
    if processor is None:
        raise ValueError("the tokenizer of this template has no processor; load it with get_model_tokenizer")
    return Predictor(model, processor)


def _single_image(images: Any) -> Any:
    if not isinstance(images, (list, tuple)) or len(images) != 1:
        raise ValueError(f"images must be a list of one image, got {images!r}")
    return images[0]
