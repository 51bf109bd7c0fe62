"""TODO"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Florence2ForConditionalGeneration, PreTrainedTokenizerBase

from .exceptions import unknown_name
from .loading.registry import get_model_info
from .predictor import Predictor, load
from .results import Result
from .template.template import FlorenceTemplate

TEMPLATE_TYPE = "florence"

History = list[list[Any]]


class Response(dict):
    """`{the prompt the model saw: the text it gave}`, location tokens and all.

    Attributes:
        result: the same, parsed.
    """

    def __init__(self, result: Result) -> None:
        super().__init__({result.prompt: result.raw})
        self.result = result


def get_default_template_type(model_type: str) -> str:
    """The template of a model of the catalogue: `"florence"` for all of them.

    Raises:
        ValueError: for an unknown model, with the known ones and the nearest.
    """
    get_model_info(model_type)
    return TEMPLATE_TYPE


def get_model_tokenizer(
    model_type: str,
    torch_dtype: torch.dtype | str = torch.float32,
    model_kwargs: dict[str, Any] | None = None,
    model_id_or_path: str | Path | None = None,
) -> tuple[Florence2ForConditionalGeneration, PreTrainedTokenizerBase]:
    """The model, and its tokenizer with the whole processor as `tokenizer.processor`.

    Args:
        model_type: as in `available_models()`.
        torch_dtype: as `dtype` of `load`.
        model_kwargs: `device_map`, a device such as `"cuda:0"`; None or nothing picks the best there is.
        model_id_or_path: a folder or the id of a model on a hub, in place of the catalogue's.

    Raises:
        ValueError: for an unknown model, or keywords other than `device_map`.
        HubError, CheckpointError: as `load`.
    """
    model_kwargs = dict(model_kwargs or {})
    device = model_kwargs.pop("device_map", None) or "auto"
    if model_kwargs:
        raise ValueError(f"model_kwargs takes device_map only, but got {', '.join(model_kwargs)}")
    if model_id_or_path is None:
        get_model_info(model_type)
    predictor = load(model_id_or_path or model_type, device=str(device), dtype=torch_dtype)
    tokenizer = predictor.processor.tokenizer
    tokenizer.processor = predictor.processor
    return predictor.model, tokenizer


def get_template(template_type: str, tokenizer: PreTrainedTokenizerBase) -> FlorenceTemplate:
    """The template for a tokenizer of `get_model_tokenizer`.

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
    **generation: Any,
) -> tuple[Response, History]:
    """The answer to one query about one image, and the history with it appended.

    Florence-2 sees no history: every question stands for itself, as in the listing this comes from.

    Args:
        model, template: from `get_model_tokenizer` and `get_template`; `model.generation_config` is obeyed.
        query: a task token, with its phrase or region behind it, or a question in your own words.
        images: one path, URL or picture, in a list.
        generation: settings for this call alone.

    Raises:
        ValueError, ImageError: as `Predictor.predict`.
    """
    response = Response(_predictor(model, template).predict(_only(images), query, **generation))
    return response, [*(history or []), [query, response]]


def inference_stream(
    model: Florence2ForConditionalGeneration,
    template: FlorenceTemplate,
    query: str,
    history: History | None = None,
    *,
    images: list[Any],
    **generation: Any,
) -> Iterator[tuple[Response, History]]:
    """The same, growing; see `Predictor.stream`."""
    for result in _predictor(model, template).stream(_only(images), query, **generation):
        response = Response(result)
        yield response, [*(history or []), [query, response]]


def seed_everything(seed: int) -> int:
    """Seeds Python's, NumPy's and PyTorch's random numbers, on all devices; returns the seed."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - whoever draws from NumPy's global state is meant
    torch.manual_seed(seed)
    return seed


def _predictor(model: Florence2ForConditionalGeneration, template: FlorenceTemplate) -> Predictor:
    processor = getattr(template.tokenizer, "processor", None)
    if processor is None:
        raise ValueError("this template's tokenizer has no processor: get it from get_model_tokenizer")
    return Predictor(model, processor)


def _only(images: list[Any]) -> Any:
    if not isinstance(images, (list, tuple)) or len(images) != 1:
        raise ValueError(f"Florence-2 looks at one image: give a list of one, not {images!r}")
    return images[0]
