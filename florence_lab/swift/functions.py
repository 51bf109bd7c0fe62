"""The functions of ms-swift 2: `get_model_tokenizer`, `get_template`, `inference`, `inference_stream` and what they need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import Florence2ForConditionalGeneration, PreTrainedTokenizerBase, set_seed

from ..argument_validation import validate_arguments
from ..exceptions import ArgumentError, ArgumentTypeError, shorten, unknown_name
from ..loading.registry import get_model_info
from ..predictor import Predictor, load
from ..results import Result
from ..template.template import FlorenceTemplate

if TYPE_CHECKING:
    from peft import PeftModel

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


@validate_arguments
def get_default_template_type(model_type: str) -> str:
    """Return the template type of a model: `"florence"` for all of them.

    Raises:
        ValueError: for an unknown model type; the message lists the known ones.
    """
    get_model_info(model_type)
    return TEMPLATE_TYPE


@validate_arguments
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
        model_kwargs: `{"device_map": device}`. None selects the device as `load` does, `{"": device}` is the same as `device`.
        model_id_or_path: a checkpoint folder or hub id, used instead of `model_type`.

    Raises:
        ValueError: for an unknown model type, and for other keys in `model_kwargs` than `device_map`.
        HubError, CheckpointError: as `load`.
    """
    model_kwargs = dict(model_kwargs or {})
    device = device_from_map(model_kwargs.pop("device_map", None))
    if model_kwargs:
        raise ArgumentError(f"model_kwargs accepts device_map only, got {', '.join(map(str, model_kwargs))}")
    if model_id_or_path is None:
        get_model_info(model_type)
    predictor = load(model_type if model_id_or_path is None else model_id_or_path, device=device, dtype=torch_dtype)
    tokenizer = predictor.processor.tokenizer
    tokenizer.processor = predictor.processor
    return predictor.model, tokenizer


@validate_arguments
def get_template(template_type: str, tokenizer: PreTrainedTokenizerBase) -> FlorenceTemplate:
    """Return the template for a tokenizer of `get_model_tokenizer`.

    Raises:
        ValueError: for another type than `"florence"`.
    """
    if template_type != TEMPLATE_TYPE:
        raise ArgumentError(unknown_name("template type", template_type, [TEMPLATE_TYPE]))
    return FlorenceTemplate(tokenizer)


@validate_arguments
def inference(
    model: Florence2ForConditionalGeneration | PeftModel,
    template: FlorenceTemplate,
    query: str,
    history: History | None = None,
    *,
    images: Any,
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
    result = predictor_from(model, template).predict(_single_image(images), query, **generate_kwargs)
    response = Response(result)
    return response, [*(history or []), [query, response]]


@validate_arguments
def inference_stream(
    model: Florence2ForConditionalGeneration | PeftModel,
    template: FlorenceTemplate,
    query: str,
    history: History | None = None,
    *,
    images: Any,
    **generate_kwargs: Any,
) -> Iterator[tuple[Response, History]]:
    """Answer one query about one image and yield growing responses, see `Predictor.stream`.

    Args, Raises: as `inference`.
    """
    for result in predictor_from(model, template).stream(_single_image(images), query, **generate_kwargs):
        response = Response(result)
        yield response, [*(history or []), [query, response]]


@validate_arguments
def seed_everything(seed: int) -> int:
    """Seed the random number generators of Python, NumPy and PyTorch on all devices, and return the seed."""
    set_seed(seed)
    return seed


def device_from_map(device_map: Any) -> str:
    """Return the device of a `device_map`: a name, a `torch.device`, None or `"auto"` for any, or `{"": device}`.

    Raises:
        ArgumentError: for a map that distributes a model over devices.
    """
    if isinstance(device_map, dict):
        if list(device_map) != [""]:
            raise ArgumentError(f"device_map must be a device, got {shorten(device_map)}; a model is on one device")
        device_map = device_map[""]
    if isinstance(device_map, int) and not isinstance(device_map, bool):
        return f"cuda:{device_map}"
    if not isinstance(device_map, (str, torch.device, type(None))):
        raise ArgumentTypeError(f"device_map must be a device such as 'cpu' or 'cuda:0', got {shorten(device_map)}")
    return "auto" if device_map is None else str(device_map)


def predictor_from(model: Any, template: FlorenceTemplate) -> Predictor:
    """Return a predictor of a model, or of the model in a `PeftModel`, with the processor of its template.

    Raises:
        ArgumentTypeError: for another model.
        ArgumentError: for a template whose tokenizer has no processor.
    """
    if hasattr(model, "get_base_model"):  # a PeftModel
        model = model.get_base_model()
    if not isinstance(model, Florence2ForConditionalGeneration):
        raise ArgumentTypeError(f"model must be a Florence2ForConditionalGeneration, got {shorten(model)}")
    processor = getattr(template.tokenizer, "processor", None)
    if processor is None:
        raise ArgumentError("the tokenizer of this template has no processor; load it with get_model_tokenizer")
    return Predictor(model, processor)


def _single_image(images: Any) -> Any:
    if not isinstance(images, (list, tuple)) or len(images) != 1:
        raise ArgumentError(f"images must be a list of one image, got {shorten(images)}")
    return images[0]
