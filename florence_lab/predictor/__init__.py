"""`load` and `Predictor`: the one object that users hold.

`core` has what all methods share, `batches` the methods for many prompts or images, `predictor` the others.
"""

from .loader import load as load
from .predictor import Predictor as Predictor
