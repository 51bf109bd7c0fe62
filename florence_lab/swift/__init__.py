"""ms-swift's Python interface on top of `Predictor`, so that its listings run with another import.

The functions have the names, arguments and return values of ms-swift 2, the requests and engines those of its releases 3 and 4
(https://github.com/modelscope/ms-swift).
"""

from .engine import PtEngine, TransformersEngine
from .functions import (
    TEMPLATE_TYPE,
    History,
    Response,
    get_default_template_type,
    get_model_tokenizer,
    get_template,
    inference,
    inference_stream,
    seed_everything,
)
from .protocol import (
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    ChatCompletionResponseStreamChoice,
    ChatCompletionStreamResponse,
    ChatMessage,
    DeltaMessage,
    InferRequest,
    RequestConfig,
    UsageInfo,
)

__all__ = [
    "TEMPLATE_TYPE",
    "ChatCompletionResponse",
    "ChatCompletionResponseChoice",
    "ChatCompletionResponseStreamChoice",
    "ChatCompletionStreamResponse",
    "ChatMessage",
    "DeltaMessage",
    "History",
    "InferRequest",
    "PtEngine",
    "RequestConfig",
    "Response",
    "TransformersEngine",
    "UsageInfo",
    "get_default_template_type",
    "get_model_tokenizer",
    "get_template",
    "inference",
    "inference_stream",
    "seed_everything",
]
