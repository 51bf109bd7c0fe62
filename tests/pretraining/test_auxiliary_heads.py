"""`auxiliary_heads`: losses of predictions that are right, and of some that are not."""

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from florence_lab.pretraining.auxiliary_heads import (
    ENCODER_OUTPUTS,
    INTERMEDIATE_OUTPUTS,
    NUM_CATEGORIES,
    NUM_COLORS,
    NUM_LETTERS,
    VISION_OUTPUTS,
    AuxiliaryHeads,
)
from florence_lab.pretraining.dataset import render_sample
from florence_lab.pretraining.dense_targets import (
    MAX_OBJECTS,
    TARGET_MAP_SIZE,
    build_dense_targets,
    split_dense_targets,
)

SCALE = 50


@pytest.fixture(scope="module")
def dense_targets():
    """1 x 256 x 39, of a sample with several objects."""
    sample = render_sample(2, 6)
    return torch.from_numpy(build_dense_targets(sample.instance_map, sample.instances, sample.letter_map, 16))[None]


def identity_head(layer):
    """Make a linear layer return its input, scaled."""
    layer.weight.data = SCALE * torch.eye(*layer.weight.shape)
    return layer


def encoder_states(dense_targets, reference, **changes):
    """States from which the head at the encoder's output predicts the targets; `changes` replaces fields."""
    target = split_dense_targets(dense_targets) | changes
    sizes = target["group_sizes"].long()

    def code(index, count):
        return one_hot(index.long(), count).float()

    fields = {
        "category": code(target["category"][..., 0], NUM_CATEGORIES),
        "color": code(target["color"][..., 0], NUM_COLORS),
        "box": target["box"] / SCALE,
        "letters": code(target["letters"], NUM_LETTERS).flatten(-2),
        "coverage": 2 * target["coverage"] - 1,
        "category_count": code(sizes[..., 0], 1 + MAX_OBJECTS),
        "appearance_count": code(sizes[..., 1], 1 + MAX_OBJECTS),
        "column_count": code(sizes[..., 2], 1 + MAX_OBJECTS),
        "is_leftmost": 2 * target["is_leftmost"] - 1,
        "column": code(target["column"][..., 0], 3),
        "is_referenced": (2 * reference - 1)[..., None],
    }
    assert list(fields) == list(ENCODER_OUTPUTS)
    return torch.cat(list(fields.values()), dim=-1)


@pytest.fixture(scope="module")
def reference(dense_targets):
    """The tokens of the first object are referred to."""
    index = split_dense_targets(dense_targets)["instance_index"][..., 0]
    return torch.where(index > 0, (index == 1).float(), torch.tensor(-1.0))


def encoder_loss(states, dense_targets, reference):
    heads = AuxiliaryHeads(states.shape[-1], 8)
    identity_head(heads.tokens)
    return heads.encoder_loss(states, dense_targets, reference).item()


def test_right_predictions_at_the_encoder_have_no_loss(dense_targets, reference):
    states = encoder_states(dense_targets, reference)
    assert encoder_loss(states, dense_targets, reference) < 1e-3


@pytest.mark.parametrize(
    "field", ["category", "color", "box", "letters", "coverage", "group_sizes", "is_leftmost", "column"]
)
def test_each_wrong_field_at_the_encoder_has_a_loss(field, dense_targets, reference):
    width = {"category": NUM_CATEGORIES, "color": NUM_COLORS, "letters": NUM_LETTERS, "group_sizes": 7, "column": 3}
    right = split_dense_targets(dense_targets)[field]
    wrong = (right + 1) % width[field] if field in width else 1 - right
    states = encoder_states(dense_targets, reference, **{field: wrong})
    assert encoder_loss(states, dense_targets, reference) > 0.5


def test_a_wrong_reference_has_a_loss(dense_targets, reference):
    states = encoder_states(dense_targets, 1 - reference)
    assert encoder_loss(states, dense_targets, reference) > 10


def test_prompts_without_an_input_have_no_reference_loss(dense_targets, reference):
    states = encoder_states(dense_targets, 1 - reference)
    assert encoder_loss(states, dense_targets, torch.full_like(reference, -1)) < 1e-3


def test_the_intermediate_loss_demands_the_center_of_each_object(dense_targets):
    target = split_dense_targets(dense_targets)
    category = one_hot(target["category"][..., 0].long(), NUM_CATEGORIES).float()
    heads = AuxiliaryHeads(sum(INTERMEDIATE_OUTPUTS.values()), 8)
    identity_head(heads.halfway)
    right = torch.cat([category, 2 * target["is_center"] - 1], dim=-1)
    beside = torch.cat([category, 2 * target["is_center"].roll(1, dims=1) - 1], dim=-1)
    assert heads.intermediate_loss(right, dense_targets) < 1e-3
    assert heads.intermediate_loss(beside, dense_targets) > 10
    assert heads.intermediate_loss(right.roll(1, dims=1), dense_targets) > 10


def test_the_vision_loss_demands_each_letter_at_its_quadrant():
    side, size = 8, TARGET_MAP_SIZE
    fine = np.arange(4 * side * side).reshape(2 * side, 2 * side) % 60
    letters = fine.repeat(size // side // 2, 0).repeat(size // side // 2, 1).astype(np.uint8)
    built = build_dense_targets(np.zeros((size, size), np.uint8), np.zeros((1, 6), np.float32), letters, side)
    heads = AuxiliaryHeads(8, NUM_LETTERS)
    identity_head(heads.fine)
    heads.fine.bias.data[VISION_OUTPUTS["letters"]] = SCALE  # no object anywhere
    vision_map = one_hot(torch.tensor(fine), NUM_LETTERS).float().permute(2, 0, 1)[None]
    targets = torch.from_numpy(built)[None]
    assert heads.vision_loss(vision_map, targets) < 1e-3
    assert heads.vision_loss(vision_map.transpose(2, 3), targets) > 10


def test_the_heads_start_at_zero():
    heads = AuxiliaryHeads(16, 8)
    assert not any(parameter.any() for parameter in heads.parameters())
    assert {name.split(".")[0] for name in heads.state_dict()} == {"tokens", "halfway", "fine"}
