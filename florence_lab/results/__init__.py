"""The results of Florence-2: text, boxes, quad boxes and polygons in pixels, and their conversions to other formats."""

from .base import Result, Text, to_coco
from .instances import Index, Instances
from .kinds import Boxes, Polygons, Quads

__all__ = ["Boxes", "Index", "Instances", "Polygons", "Quads", "Result", "Text", "to_coco"]
