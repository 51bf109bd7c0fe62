"""TODO"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import NamedTuple

import torch
from torch.nn import functional as F
from transformers import BartTokenizer, Florence2ForConditionalGeneration, GenerationConfig

from ..predictor import load
from .config import END, IMAGE_MEAN, IMAGE_SIZE, IMAGE_STD, MAX_TOKENS, PAD, build_config
from .dataset import Batch


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


class Output(NamedTuple):
    """What the model makes of a batch, one entry per group of questions.

    Attributes:
        hidden: N x T x width each, the decoder's output.
        tokens: N x n x width each, the encoder's output for the image tokens.
        halfway: the same, of what half of the encoder's layers make.
        maps: B x C x H x W, the tower's last but one map.
    """

    hidden: list[torch.Tensor]
    tokens: list[torch.Tensor]
    halfway: list[torch.Tensor]
    maps: torch.Tensor


def forward(model: Florence2ForConditionalGeneration, batch: Batch) -> Output:
    """The vision tower once per picture, then the language model for every group of questions."""
    mean, std = (batch.cells.new_tensor(v).view(1, 3, 1, 1) for v in (IMAGE_MEAN, IMAGE_STD))
    tower = model.get_image_features((batch.pixels / 255 - mean) / std, output_hidden_states=True)
    images = tower.pooler_output
    # the first one is what enters the first block
    output = Output([], [], [], tower.hidden_states[sum(model.config.vision_config.depths[:-1])])
    for group in batch.groups:
        words = model.get_input_embeddings()(group.prompts)
        seen = images[group.picture].to(words.dtype)
        here = torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device)
        said = model.model.language_model(
            inputs_embeds=torch.cat([seen, words], dim=1),
            attention_mask=torch.cat([here, (group.prompts != PAD).long()], dim=1),
            decoder_input_ids=torch.cat([torch.full_like(group.targets[:, :1], END), group.targets[:, :-1]], dim=1),
            use_cache=False,
            output_hidden_states=True,
        )
        output.hidden.append(said.last_hidden_state)
        # the first image token is the mean of the others
        layers = said.encoder_hidden_states  # the first one is what enters the first layer
        output.tokens.append(layers[-1][:, 1 : seen.shape[1]])
        output.halfway.append(layers[len(layers) // 2][:, 1 : seen.shape[1]])
    return output


def resize(model: Florence2ForConditionalGeneration, old: int, new: int) -> None:
    """Make a model that saw pictures of old x old pixels see new x new ones, its sense of place stretched to fit."""
    model.model.vision_tower.config.window_size = new // 16
    for module in model.model.vision_tower.modules():
        if hasattr(module, "window_size"):
            module.window_size = new // 16
    a, b = old // 16, new // 16
    if a == b:
        return
    place = model.model.multi_modal_projector.image_position_embed
    with torch.no_grad():
        for table in (place.row_embeddings.weight, place.column_embeddings.weight):
            table[:b] = F.interpolate(table[None, :a].mT, size=b, mode="linear")[0].mT
        # the encoder numbers what it reads: (2 unused), the mean of the picture, its a x a tokens, the prompt
        table = model.model.language_model.encoder.embed_positions.weight
        grid = table[3 : 3 + a * a].view(1, a, a, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(b, b), mode="bilinear")[0].flatten(1).mT
        # what is left over at the end is cut, what is missing there is filled
        table.copy_(torch.cat([table[:3], grid, table[3 + a * a :], table])[: len(table)])


def _build(tokenizer, image_size: int, seed: int) -> Florence2ForConditionalGeneration:
    model = build_nano(tokenizer, image_size, seed)
    model.set_attn_implementation("eager")  # on a CPU, torch's fused attention takes twice as long to differentiate
    return model


def _start_from(model: Florence2ForConditionalGeneration, init_from: str, image_size: int) -> None:
    """Give a model that sees pictures of image_size x image_size the weights of another one of its shape.

    One that has fewer encoder layers gets more: copies of its last that add nothing at first.
    """
    start = load(init_from, "cpu")
    weights = start.model.state_dict()
    layers = start.model.model.language_model.encoder.layers
    while (missing := len(layers)) < model.config.text_config.encoder_layers:
        layers.append(_idle(layers[-1]))
        prefix = f"model.language_model.encoder.layers.{missing}."
        weights |= {prefix + name: value for name, value in layers[-1].state_dict().items()}
    try:
        model.load_state_dict(weights)
    except RuntimeError:
        known = "florence-2-nano, or what pretrain or sft wrote for it"
        raise ValueError(
            f"--init_from {init_from}: its layers are not those of florence-2-nano; would do: {known}"
        ) from None
    resize(model, start.processor.image_processor.size["height"], image_size)


def _idle(layer: torch.nn.Module) -> torch.nn.Module:
    """A layer to put behind one of BART's: a copy whose output is nearly its input.

    What attention and the feed-forward network add is nothing; the norms behind them, which come after the sum in BART, give
    back the mean and the deviation that the output of `layer` has: its own last norm gives them to normalised values.
    """
    copy = deepcopy(layer)
    scale, shift = layer.final_layer_norm.weight, layer.final_layer_norm.bias
    with torch.no_grad():
        for linear in (copy.self_attn.out_proj, copy.fc2):
            linear.weight.zero_()
            linear.bias.zero_()
        for norm in (copy.self_attn_layer_norm, copy.final_layer_norm):
            norm.weight.fill_((scale.square().mean() + shift.var(correction=0)).sqrt())
            norm.bias.fill_(shift.mean())
    return copy
