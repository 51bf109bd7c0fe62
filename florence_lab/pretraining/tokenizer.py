"""The tokenizer of florence-2-nano: Florence-2's structure with a small vocabulary, learned from the text of scenes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BartTokenizer

from ..exceptions import TrainingError, summarize_error
from ..loading.processor import add_florence_tokens
from ..predictor import load
from ..scenes import TRAIN_SEEDS, draw_scene
from ..tasks import TASKS
from .config import MAX_TOKENS
from .dataset import sample_qa_pairs

BASE_VOCABULARY_SIZE = 1200
"""Largest number of tokens before the 1,024 of Florence-2: special tokens, 256 bytes, and words."""

_FOLDER = "tokenizer"


def build_tokenizer(texts: Iterable[str]) -> BartTokenizer:
    """Train a byte-level BPE tokenizer with the structure of Florence-2's.

    The ids are `<s> <pad> </s> <unk>` (0 to 3), bytes and words, `<mask>`, the 1,024 tokens of Florence-2, `<image>`. Bytes
    cover everything that is not in the vocabulary, so any text can be encoded.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=BASE_VOCABULARY_SIZE - 1,
        min_frequency=3,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    vocabulary = bpe.get_vocab()
    vocabulary["<mask>"] = len(vocabulary)
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    # annotated as list[str], but pairs are what tokenizers' BPE takes
    tokenizer = BartTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)  # type: ignore[arg-type]
    add_florence_tokens(tokenizer)
    return tokenizer


def tokenizer_corpus(scenes: int = 1000) -> Iterator[str]:
    """Yield the text of scenes for `build_tokenizer`: prompts, inputs and answers without location tokens.

    The words on signs are left out, so that they are spelled from letters: a model that reads letters can read new words.
    """
    for task in TASKS.values():
        yield from [task.prompt.replace("{input}", "")] * scenes
    for seed in TRAIN_SEEDS[-scenes:]:
        scene = draw_scene(seed, 64)
        separators = (*{o.text for o in scene.objects if o.text}, "<sep>", "<and>", "<poly>", "</poly>")
        for task_token in TASKS:
            if "OCR" in task_token:
                continue
            for pair in sample_qa_pairs(scene, task_token, seed):
                for text in (pair.prompt, pair.target):
                    for separator in separators:
                        text = text.replace(separator, "\n")
                    yield from (part for line in text.split("\n") for part in _split_at_locations(line))


def _split_at_locations(text: str) -> list[str]:
    return [part.split(">")[-1] for part in text.split("<loc_") if part.split(">")[-1]]


def load_or_build_tokenizer(run_folder: Path, init_from: str = "") -> BartTokenizer:
    """Return the tokenizer of a run: the one in its folder, else that of its initial weights, else a new one.

    Raises:
        TrainingError: if the tokenizer in the folder is damaged.
    """
    folder = run_folder / _FOLDER
    if folder.exists():
        tokenizer = _load_tokenizer(folder)
    elif init_from:
        tokenizer = load(init_from, "cpu").processor.tokenizer
    else:
        return build_tokenizer(tokenizer_corpus())
    for name in ("is_local", "local_files_only"):  # how it was loaded is not a setting of the tokenizer
        tokenizer.init_kwargs.pop(name, None)
    return tokenizer


def save_tokenizer(tokenizer: BartTokenizer, run_folder: Path) -> None:
    """Write the tokenizer of a run, unless it is there. The folder appears only when it is complete."""
    folder = run_folder / _FOLDER
    if not folder.exists():
        temporary = folder.with_name(f"{_FOLDER}.{os.getpid()}.tmp")
        tokenizer.save_pretrained(temporary)
        os.replace(temporary, folder)


def _load_tokenizer(folder: Path) -> BartTokenizer:
    try:
        tokenizer = BartTokenizer.from_pretrained(folder, local_files_only=True)
        if "<loc_999>" not in tokenizer.get_vocab():
            raise ValueError("it has no location tokens")
    except Exception as error:  # transformers and tokenizers raise types of their own
        raise TrainingError(f"{folder} is damaged: {summarize_error(error)}") from error
    return tokenizer
