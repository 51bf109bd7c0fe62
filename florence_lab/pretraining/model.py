"""The model: florence-2-nano with its initialization, its forward pass in training, and changes of the image size."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F
from transformers import BartTokenizer, Florence2ForConditionalGeneration, GenerationConfig

from ..exceptions import CheckpointError
from ..predictor import load
from ..template.locations import NUM_BINS
from .config import BOS_ID, EOS_ID, IMAGE_SIZE, MAX_TOKENS, PAD_ID, PATCH_SIZE, SPECIAL_TOKEN_IDS, build_config
from .dataset import TrainingBatch

FIRST_GRID_POSITION = 3
"""Index in the encoder's table of positions of the first image token of the grid. Before it stand two rows that BART never uses
and the position of the first image token, which is the mean of the others."""


def build_nano(
    tokenizer: BartTokenizer, image_size: int = IMAGE_SIZE, seed: int = 0
) -> Florence2ForConditionalGeneration:
    """Return florence-2-nano with random weights.

    Its initialization differs from that of transformers in two points, without which localization is not learned in reasonable
    time. The standard deviation is 0.06. The row and column embeddings of the projector, the location tokens, and the encoder's
    positions of the image tokens are sinusoids, so that neighboring positions start with similar embeddings. The encoder's
    positions matter most: the vision tower's output grows to a hundred times the projector's embeddings within a thousand
    steps, but it is normalized before the encoder adds its own.

    Args:
        tokenizer: its vocabulary determines the size of the embeddings.
        image_size: side of the images in pixels, a multiple of 16.
        seed: seed of the weights.
    """
    torch.manual_seed(seed)
    vocabulary = tokenizer.get_vocab()
    config = build_config(len(tokenizer), vocabulary["<image>"], image_size)
    model = Florence2ForConditionalGeneration(config)
    grid_embedding: Any = model.model.multi_modal_projector.image_position_embed
    positions: torch.Tensor = model.model.language_model.encoder.embed_positions.weight
    token_embeddings: Any = model.get_input_embeddings().weight
    first_location, side = vocabulary["<loc_0>"], image_size // PATCH_SIZE
    with torch.no_grad():
        for table in (grid_embedding.row_embeddings.weight, grid_embedding.column_embeddings.weight):
            table.copy_(sinusoids(len(table), table.shape[1], shortest=4, longest=100))
        grid = grid_sinusoids(side, positions.shape[1]).flatten(0, 1)
        positions[FIRST_GRID_POSITION : FIRST_GRID_POSITION + side * side] = grid
        # the variance of a sinusoid is 1/2; the standard deviation of the other tokens' embeddings is 0.06
        waves = sinusoids(NUM_BINS, token_embeddings.shape[1], shortest=16, longest=2000) * 0.06 * math.sqrt(2)
        token_embeddings[first_location : first_location + NUM_BINS] = waves
    model.generation_config = GenerationConfig(
        num_beams=1,
        do_sample=False,
        no_repeat_ngram_size=0,  # location tokens may repeat, as in <loc_12><loc_34><loc_12>
        max_length=MAX_TOKENS,
        forced_bos_token_id=BOS_ID,
        forced_eos_token_id=EOS_ID,
        **SPECIAL_TOKEN_IDS,
    )
    return model


def build_for_training(tokenizer: BartTokenizer, image_size: int, seed: int) -> Florence2ForConditionalGeneration:
    """Return `build_nano` with eager attention: the backward pass of the fused one takes twice as long on a CPU."""
    model = build_nano(tokenizer, image_size, seed)
    model.set_attn_implementation("eager")
    return model


def sinusoids(count: int, width: int, shortest: float, longest: float) -> torch.Tensor:
    """Return sines and cosines of an index as count x width float32, with amplitude 1.

    Args:
        count: number of indices.
        width: number of values for each; even.
        shortest, longest: range of the wavelengths, which form a geometric series.
    """
    half = width // 2
    wavelengths = shortest * (longest / shortest) ** (torch.arange(half) / max(1, half - 1))
    angles = 2 * math.pi * torch.arange(count)[:, None] / wavelengths
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def grid_sinusoids(side: int, width: int) -> torch.Tensor:
    """Return side x side x width float32: the sinusoids of the column followed by those of the row."""
    waves = sinusoids(side, width // 2, shortest=4, longest=4 * side)
    return torch.cat([waves[None].expand(side, -1, -1), waves[:, None].expand(-1, side, -1)], dim=-1)


class ForwardOutput(NamedTuple):
    """Activations of a batch; the lists have one entry per group of prompts.

    Attributes:
        decoder_hidden: N x T x d_model each, the decoder's output.
        image_states: N x n x d_model each, the encoder's output for the image tokens of the grid.
        intermediate_image_states: the same after half of the encoder's layers.
        vision_map: B x C x H x W, the output of the vision tower's second to last stage.
    """

    decoder_hidden: list[torch.Tensor]
    image_states: list[torch.Tensor]
    intermediate_image_states: list[torch.Tensor]
    vision_map: torch.Tensor


def forward_batch(
    model: Florence2ForConditionalGeneration, batch: TrainingBatch, image_processor: Any
) -> ForwardOutput:
    """Run the vision tower once for each image, and the language model for each group of prompts.

    Args:
        model: the model.
        batch: the data of a step.
        image_processor: its `image_mean` and `image_std` normalize the pixels.
    """
    mean = batch.dense_targets.new_tensor(image_processor.image_mean).view(1, 3, 1, 1)
    std = batch.dense_targets.new_tensor(image_processor.image_std).view(1, 3, 1, 1)
    vision = model.get_image_features((batch.pixels / 255 - mean) / std, output_hidden_states=True)
    image_tokens = vision.pooler_output
    # the first hidden state is the input of the first block
    config: Any = model.config
    vision_map = vision.hidden_states[sum(config.vision_config.depths[:-1])]
    output = ForwardOutput([], [], [], vision_map)
    for group in batch.groups:
        prompt_embeddings = model.get_input_embeddings()(group.prompt_ids)
        images = image_tokens[group.image_index].to(prompt_embeddings.dtype)
        image_mask = torch.ones(images.shape[:2], dtype=torch.long, device=images.device)
        start = torch.full_like(group.target_ids[:, :1], EOS_ID)
        result = model.model.language_model(
            inputs_embeds=torch.cat([images, prompt_embeddings], dim=1),
            attention_mask=torch.cat([image_mask, (group.prompt_ids != PAD_ID).long()], dim=1),
            decoder_input_ids=torch.cat([start, group.target_ids[:, :-1]], dim=1),
            use_cache=False,
            output_hidden_states=True,
        )
        layers = result.encoder_hidden_states  # the first is the input of the first layer
        grid = slice(1, images.shape[1])  # the first image token is the mean of the others
        output.decoder_hidden.append(result.last_hidden_state)
        output.image_states.append(layers[-1][:, grid])
        output.intermediate_image_states.append(layers[len(layers) // 2][:, grid])
    return output


def resize_position_embeddings(model: Florence2ForConditionalGeneration, old_size: int, new_size: int) -> None:
    """Adapt a model in place from images of old_size x old_size pixels to new_size x new_size.

    The embeddings of positions are interpolated, and the attention window follows the map of the last stage.
    """
    old, new = old_size // PATCH_SIZE, new_size // PATCH_SIZE
    model.model.vision_tower.config.window_size = new
    for module in model.model.vision_tower.modules():
        if hasattr(module, "window_size"):
            module.window_size = new
    if old == new:
        return
    grid_embedding = model.model.multi_modal_projector.image_position_embed
    with torch.no_grad():
        for table in (grid_embedding.row_embeddings.weight, grid_embedding.column_embeddings.weight):
            table[:new] = F.interpolate(table[None, :old].mT, size=new, mode="linear")[0].mT
        table = model.model.language_model.encoder.embed_positions.weight
        end = FIRST_GRID_POSITION + old * old
        grid = table[FIRST_GRID_POSITION:end].view(1, old, old, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(new, new), mode="bilinear")[0].flatten(1).mT
        # the positions of the prompt follow; excess rows at the end are cut, missing ones are filled from the old table
        table.copy_(torch.cat([table[:FIRST_GRID_POSITION], grid, table[end:], table])[: len(table)])


def load_initial_weights(model: Florence2ForConditionalGeneration, init_from: str, image_size: int) -> None:
    """Load the weights of another checkpoint of florence-2-nano into a model.

    If the checkpoint has fewer encoder layers, the missing ones are near-identity copies of its last one.

    Args:
        model: the model, modified in place.
        init_from: model name or checkpoint folder.
        image_size: side in pixels of the images of `model`.

    Raises:
        CheckpointError: if the layers of the checkpoint do not fit.
    """
    source = load(init_from, "cpu")
    weights = source.model.state_dict()
    config: Any = model.config
    layers = source.model.model.language_model.encoder.layers
    while (index := len(layers)) < config.text_config.encoder_layers:
        layers.append(_near_identity_layer(layers[-1]))
        prefix = f"model.language_model.encoder.layers.{index}."
        weights |= {prefix + name: value for name, value in layers[-1].state_dict().items()}
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"--init_from {init_from}: the layers are not those of florence-2-nano; give florence-2-nano, or a checkpoint "
            "that pretrain or sft wrote for it"
        ) from error
    resize_position_embeddings(model, source.processor.image_processor.size["height"], image_size)


def _near_identity_layer(layer: Any) -> Any:
    """Return a copy of a BART encoder layer whose output is nearly its input, to be placed behind `layer`.

    Attention and feed-forward network add nothing. The norms behind them, which follow the sums in BART, restore the mean and
    the standard deviation that the final norm of `layer` gives to normalized values.
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
