"""What happens inside the model: cross-attention, token probabilities and feature maps, and their plots."""

from .features import extract_feature_maps, show_feature_maps
from .plots import (
    plot_attention,
    show_attention,
    show_attention_heads,
    show_location_probabilities,
    show_top_tokens,
)
from .spans import AnswerSpan
from .tracing import TokenCandidate, Trace, trace

__all__ = [
    "AnswerSpan",
    "TokenCandidate",
    "Trace",
    "extract_feature_maps",
    "plot_attention",
    "show_attention",
    "show_attention_heads",
    "show_feature_maps",
    "show_location_probabilities",
    "show_top_tokens",
    "trace",
]
