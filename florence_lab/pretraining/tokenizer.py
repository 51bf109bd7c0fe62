"""TODO"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BartTokenizer

from ..loading.checkpoint import add_florence_tokens
from ..predictor import load
from ..scenes import TRAIN_SEEDS, draw_scene
from ..tasks import TASKS
from .config import MAX_TOKENS
from .dataset import questions

BASE_VOCABULARY = 1200
"""Tokens before the 1,024 added ones, at most: 5 special ones, 256 bytes, and the words of the world."""


def build_tokenizer(texts: Iterable[str]) -> BartTokenizer:
    """A tokenizer of the shape of Florence-2's, its words learned from texts.

    Ids: `<s> <pad> </s> <unk>` are 0 to 3, then bytes and words, `<mask>`, the 1,024 of Florence-2, `<image>`. Bytes
    catch what no word covers, so any text can be encoded.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=BASE_VOCABULARY - 1,
        min_frequency=3,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    vocabulary = bpe.get_vocab()
    vocabulary["<mask>"] = len(vocabulary)
    merges = [tuple(pair) for pair in json.loads(bpe.to_str())["model"]["merges"]]
    tokenizer = BartTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)
    add_florence_tokens(tokenizer)
    return tokenizer


def world_texts(scenes: int = 1000) -> Iterator[str]:
    """Text of the cartoon world, for the tokenizer: prompts, inputs and answers, without location tokens.

    Words on signs are left out, so that they are spelled: a model that reads letters can read a new word.
    """
    for task in TASKS.values():
        yield from [task.prompt.replace("{input}", "")] * scenes
    for seed in TRAIN_SEEDS[-scenes:]:
        scene = draw_scene(seed, 64)
        signs = {thing.text for thing in scene.objects if thing.text}
        for task in TASKS:
            if "OCR" in task:
                continue
            for prompt, target, _ in questions(scene, task, seed):
                for text in (prompt, target):
                    for mark in (*signs, "<sep>", "<and>", "<poly>", "</poly>"):
                        text = text.replace(mark, "\n")
                    yield from (part for line in text.split("\n") for part in _without_locations(line))


def _without_locations(text: str) -> list[str]:
    return [part.split(">")[-1] for part in text.split("<loc_") if part.split(">")[-1]]


def _tokenizer(out: Path, init_from: str = ""):
    """The run's tokenizer: that of its folder, or of what it starts with, or made anew."""
    folder = out / "tokenizer"
    if not folder.exists() and not init_from:
        return build_tokenizer(world_texts())
    tokenizer = BartTokenizer.from_pretrained(folder) if folder.exists() else load(init_from, "cpu").processor.tokenizer
    for note in ("is_local", "local_files_only"):  # where it was read from is no part of it
        tokenizer.init_kwargs.pop(note, None)
    return tokenizer
