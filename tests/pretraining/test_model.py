"""`model`: initialization, forward pass, image sizes and initial weights."""

from copy import deepcopy

import pytest
import torch
from support import TINY

from florence_lab.exceptions import CheckpointError
from florence_lab.loading.processor import build_processor
from florence_lab.pretraining.dataset import StepDataset
from florence_lab.pretraining.losses import token_losses
from florence_lab.pretraining.model import (
    build_nano,
    forward_batch,
    load_initial_weights,
    resize_position_embeddings,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tokenizer):
    return build_nano(tokenizer)


def test_nano_is_small(model, tokenizer, tmp_path):
    assert sum(p.numel() for p in model.parameters()) <= 12e6
    deepcopy(model).half().save_pretrained(tmp_path)  # as `export_checkpoint` does
    build_processor(tokenizer, 256).save_pretrained(tmp_path)
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 25e6


def test_neighboring_locations_start_with_similar_embeddings(model, tokenizer):
    first = tokenizer.convert_tokens_to_ids("<loc_0>")
    locations = torch.nn.functional.normalize(model.get_input_embeddings().weight[first : first + 1000], dim=1)
    assert locations[500] @ locations[501] > 0.9
    assert locations[500] @ locations[501] > locations[500] @ locations[510] > locations[500] @ locations[900]


def test_the_weights_depend_on_the_seed_alone(tokenizer, model):
    same, other = build_nano(tokenizer), build_nano(tokenizer, seed=1)
    for a, b in zip(model.parameters(), same.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(model.lm_head.weight, other.lm_head.weight)


def test_each_prompt_is_answered_from_its_own_image(short_run, tokenizer):
    model = build_nano(tokenizer, 64).eval()
    image_processor = build_processor(tokenizer, 64).image_processor
    batch = StepDataset(short_run("own"), tokenizer)[3]
    changed = batch._replace(pixels=batch.pixels.clone())
    changed.pixels[1] = 255 - changed.pixels[1]
    with torch.no_grad():
        before, after = (forward_batch(model, b, image_processor) for b in (batch, changed))
    for group, a, b in zip(batch.groups, before.decoder_hidden, after.decoder_hidden, strict=True):
        is_changed = (a - b).abs().amax((1, 2)) > 1e-4
        assert is_changed.tolist() == (group.image_index == 1).tolist()


def test_pixels_are_normalized_as_the_processor_does_it(short_run, tokenizer, monkeypatch):
    """Training and inference see the same pixel values."""
    model = build_nano(tokenizer, 48).eval()
    processor = build_processor(tokenizer, 48)
    batch = StepDataset(short_run("pixels"), tokenizer)[0]
    seen = []
    original = model.get_image_features
    monkeypatch.setattr(model, "get_image_features", lambda pixels, **kw: seen.append(pixels) or original(pixels, **kw))
    with torch.no_grad():
        forward_batch(model, batch, processor.image_processor)
    image = batch.pixels[0].permute(1, 2, 0).numpy()
    expected = processor.image_processor(image, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(seen[0][0], expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_the_loss_falls(tokenizer, short_run):
    model = build_nano(tokenizer, 48)
    image_processor = build_processor(tokenizer, 48).image_processor
    batch = StepDataset(short_run("falls"), tokenizer)[0]
    first = tokenizer.convert_tokens_to_ids("<loc_0>")
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for _ in range(12):
        hidden = forward_batch(model, batch, image_processor).decoder_hidden
        parts = [
            token_losses(
                states[group.target_ids != 1], group.target_ids[group.target_ids != 1], model.lm_head, first, 3.0
            )
            for states, group in zip(hidden, batch.groups, strict=True)
        ]
        loss = torch.cat(parts).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_positions_are_interpolated_to_a_larger_image(tokenizer):
    """The corners keep their embeddings, and the positions of the prompt move behind those of the image."""
    small, large = build_nano(tokenizer, 64), build_nano(tokenizer, 64)
    resize_position_embeddings(large, 64, 128)
    before, after = (m.model.language_model.encoder.embed_positions.weight for m in (small, large))
    assert torch.equal(before[:3], after[:3])
    assert torch.equal(before[3 + 16 : 100], after[3 + 64 : 148])
    assert torch.allclose(after[3], before[3], atol=1e-5)
    assert torch.allclose(after[3 + 63], before[3 + 15], atol=1e-5)


def test_the_attention_window_follows_the_image_size(tokenizer):
    model = build_nano(tokenizer, 64)
    resize_position_embeddings(model, 64, 128)
    assert model.config.vision_config.window_size == 8
    assert all(module.window_size == 8 for module in model.modules() if hasattr(module, "window_size"))


def test_missing_encoder_layers_are_nearly_the_identity(tokenizer, tmp_path):
    shallow = build_nano(tokenizer, 64)
    layers = shallow.model.language_model.encoder.layers
    del layers[2:]
    shallow.config.text_config.encoder_layers = len(layers)
    norm = layers[-1].final_layer_norm  # with values as after training, not ones and zeros
    torch.manual_seed(0)
    torch.nn.init.uniform_(norm.weight, 0.5, 2.0)
    torch.nn.init.normal_(norm.bias, 0.1, 0.5)
    shallow.save_pretrained(tmp_path)
    build_processor(tokenizer, 64).save_pretrained(tmp_path)
    deep = build_nano(tokenizer, 64, seed=1)
    load_initial_weights(deep, str(tmp_path), 64)
    assert len(deep.model.language_model.encoder.layers) > 2
    prompt = torch.tensor([tokenizer("What does the image describe?")["input_ids"]])
    after, before = (
        m.eval().model.language_model.encoder(inputs_embeds=m.get_input_embeddings()(prompt)).last_hidden_state
        for m in (deep, shallow)
    )
    # not exactly: the norms have the mean and the deviation of the average token
    assert (after - before).abs().mean() < 0.1 * before.std()


def test_initial_weights_of_another_architecture_are_rejected(tokenizer):
    with pytest.raises(CheckpointError, match="tiny-original: the layers are not those of florence-2-nano"):
        load_initial_weights(build_nano(tokenizer, 64), str(TINY), 64)
