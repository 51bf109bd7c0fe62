"""florence-2-nano: the architecture of Florence-2, small enough to learn the cartoon world on a laptop.

The model is transformers' own `Florence2ForConditionalGeneration` with a small config; the tokenizer has the shape of the
published one (BART's special tokens, a byte-level BPE, then the 1,024 added tokens), with a vocabulary of some hundred
words. Saved, both are an ordinary checkpoint in transformers' layout.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BartTokenizer,
    CLIPImageProcessorPil,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GenerationConfig,
)

from ..checkpoint import add_florence_tokens
from ..layout import POST_PROCESSOR_CONFIG

IMAGE_SIZE = 256
"""Pixels a side. The tower shrinks them 16 times: 16 x 16 image tokens, and one more for the mean of all."""

MAX_TOKENS = 512
"""The longest prompt (image tokens included) and the longest answer."""

PAD, END = 1, 2
"""BART's `<pad>` and `</s>`."""

BASE_VOCABULARY = 1200
"""Tokens before the 1,024 added ones, at most: 5 special ones, 256 bytes, and the words of the world."""


# ---------------------------------------------------------------------- the tokenizer


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


# ---------------------------------------------------------------------- the model


def build_config(vocabulary: int, image_token_id: int, image_size: int = IMAGE_SIZE) -> Florence2Config:
    """The small config: a DaViT of three stages (window as wide as the last one, so no window is padded), BART 4 + 3."""
    width, vision = 192, [48, 96, 192]
    special = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    return Florence2Config(
        vision_config={
            "model_type": "florence_vision",
            "embed_dim": vision,
            "depths": [1, 1, 2],
            "num_heads": [2, 4, 6],
            "num_groups": [2, 4, 6],
            "patch_size": [7, 3, 3],
            "patch_stride": [4, 2, 2],
            "patch_padding": [3, 1, 1],
            "patch_prenorm": [False, True, True],
            "window_size": math.ceil(image_size / 16),
            "projection_dim": width,
            "drop_path_rate": 0.0,
            "initializer_range": 0.06,
        },
        text_config={
            "model_type": "bart",
            "vocab_size": vocabulary,
            "d_model": width,
            "encoder_layers": 4,
            "decoder_layers": 3,
            "encoder_ffn_dim": 4 * width,
            "decoder_ffn_dim": 4 * width,
            "encoder_attention_heads": 6,
            "decoder_attention_heads": 6,
            "max_position_embeddings": MAX_TOKENS,
            "dropout": 0.0,
            "init_std": 0.06,
            "forced_eos_token_id": None,
            **special,
        },
        image_token_id=image_token_id,
        initializer_range=0.06,
        **special,
    )


def build_nano(
    tokenizer: BartTokenizer, image_size: int = IMAGE_SIZE, seed: int = 0
) -> Florence2ForConditionalGeneration:
    """florence-2-nano, untrained, for pictures of image_size x image_size pixels.

    Initial values differ from transformers' in two ways, without which it doesn't find places in any reasonable time:
    normal with std 0.06, and waves (`sinusoids`) wherever a table stands for places, so that neighbours are alike from
    the start. That is so in the projector's row and column embeddings, in the location tokens, and in the encoder's
    positions of the image tokens. The last are what counts: the tower's output grows to a hundred times the
    projector's embeddings within a thousand steps and drowns them, but is normalised before the encoder adds its own.
    """
    torch.manual_seed(seed)
    config = build_config(len(tokenizer), tokenizer.convert_tokens_to_ids("<image>"), image_size)
    model = Florence2ForConditionalGeneration(config)
    place = model.model.multi_modal_projector.image_position_embed
    numbers = model.model.language_model.encoder.embed_positions.weight
    words = model.get_input_embeddings().weight
    first, side = tokenizer.convert_tokens_to_ids("<loc_0>"), image_size // 16
    with torch.no_grad():
        for table in (place.row_embeddings.weight, place.column_embeddings.weight):
            table.copy_(sinusoids(*table.shape, shortest=4, longest=100))
        # two rows that BART never uses, the mean of the picture, then the tokens of its grid
        numbers[3 : 3 + side * side] = grid_sinusoids(side, numbers.shape[1]).flatten(0, 1)
        # a sinusoid's entries have variance 1/2; the other tokens' embeddings have std 0.06
        words[first : first + 1000] = sinusoids(1000, words.shape[1], shortest=16, longest=2000) * 0.06 * math.sqrt(2)
    model.generation_config = GenerationConfig(
        num_beams=1,
        do_sample=False,
        no_repeat_ngram_size=0,  # <loc_12><loc_34><loc_12> is no stutter
        max_length=MAX_TOKENS,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=2,
        forced_bos_token_id=0,
        forced_eos_token_id=2,
    )
    return model


def sinusoids(count: int, width: int, shortest: float, longest: float) -> torch.Tensor:
    """count x width float32: sines and cosines of the index, of wavelengths from `shortest` to `longest`, amplitude 1."""
    half = width // 2
    wavelengths = shortest * (longest / shortest) ** (torch.arange(half) / max(1, half - 1))
    angles = 2 * math.pi * torch.arange(count)[:, None] / wavelengths
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def grid_sinusoids(side: int, width: int) -> torch.Tensor:
    """side x side x width float32: a column's waves and a row's behind one another."""
    waves = sinusoids(side, width // 2, shortest=4, longest=4 * side)
    return torch.cat([waves[None].expand(side, -1, -1), waves[:, None].expand(-1, side, -1)], dim=-1)


def build_processor(tokenizer: BartTokenizer, image_size: int = IMAGE_SIZE) -> Florence2Processor:
    """transformers' own processor, with Pillow's bicubic resize and the published mean and deviation of the pixels."""
    side = {"height": image_size, "width": image_size}
    images = CLIPImageProcessorPil(
        size=side,
        crop_size=side,
        do_center_crop=False,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    images.image_seq_length = (image_size // 16) ** 2 + 1
    return Florence2Processor(
        images, tokenizer, num_additional_image_tokens=0, post_processor_config=POST_PROCESSOR_CONFIG
    )
