"""florence_lab as a model of lmms-eval (https://github.com/EvolvingLMMs-Lab/lmms-eval), release 0.7 or later.

Where both packages are installed, lmms-eval finds the model by the entry point in `pyproject.toml`:

    python -m lmms_eval --model florence_lab --model_args "pretrained=florence-2-base-ft,num_beams=3" \\
        --tasks nocaps_val --batch_size 8

`LmmsModel` lists the arguments, `TASK_RULES` tells which task of Florence-2 answers which task of lmms-eval.
"""

from .model import LmmsModel
from .questions import TASK_RULES, AnswerForm, TaskRule, find_rule

__all__ = ["TASK_RULES", "AnswerForm", "LmmsModel", "TaskRule", "find_rule"]
