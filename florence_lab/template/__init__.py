"""Prompts for Florence-2, and typed results from what it generates."""

from .prompts import Prompt
from .template import FlorenceTemplate

__all__ = ["FlorenceTemplate", "Prompt"]
