"""Batches for training, in the convention of the published training."""

import dataclasses

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from florence_lab.data.examples import Example
from florence_lab.finetuning.collator import Florence2DataCollator, TrainingRow
from florence_lab.finetuning.linear_cross_entropy import IGNORE_INDEX
from florence_lab.inference.generation import encode_prompts, run_decoder
from florence_lab.inference.preprocessing import look_up_on_device
from florence_lab.template.prompts import Prompt


@pytest.fixture
def examples():
    """Two examples whose targets differ in length."""
    return [
        Example(Image.new("RGB", (64, 48), color), Prompt.from_task("<CAPTION>"), target, "", (64, 48))
        for color, target in (("red", "a dog"), ("blue", "a much longer answer than that<loc_1><loc_2>"))
    ]


def test_a_batch_has_image_tokens_before_the_prompt(small, examples):
    batch = Florence2DataCollator(small.processor)([TrainingRow(example) for example in examples])
    ids = batch["input_ids"][0]
    assert (ids[:37] == small.processor.image_token_id).all()
    assert small.processor.tokenizer.decode(ids[37:]) == "<s>What does the image describe?</s>"
    assert batch["attention_mask"].shape == batch["input_ids"].shape
    assert batch["pixel_values"].shape == (2, 3, 192, 192)


def test_padding_of_targets_is_ignored(small, examples):
    labels = Florence2DataCollator(small.processor)([TrainingRow(example) for example in examples])["labels"]
    tokenizer = small.processor.tokenizer
    for row, example in zip(labels, examples, strict=True):
        assert tokenizer.decode(row[row != IGNORE_INDEX]) == f"<s>{example.target}</s>"
    assert (labels[0] == IGNORE_INDEX).any()


def test_the_loss_is_the_cross_entropy_of_the_target(small, examples):
    """Decoder inputs are the labels shifted once behind the start token; padding does not count."""
    model, tokenizer = small.model, small.processor.tokenizer
    batch = Florence2DataCollator(small.processor)([TrainingRow(example) for example in examples])
    with torch.no_grad():
        loss = model(**batch).loss
        expected = []
        for example in examples:
            target = tokenizer(example.target, return_tensors="pt")["input_ids"][0]
            tokens = small.encode_image(example.image).tokens
            encoded = encode_prompts(model, tokenizer, tokens, [example.prompt.prompt])
            hidden, _ = run_decoder(model, target, encoded)
            logits = model.lm_head(hidden)[: len(target)]
            expected.append(F.cross_entropy(logits, target, reduction="none"))
    assert torch.allclose(loss, torch.cat(expected).mean(), atol=1e-5)


@pytest.mark.parametrize("task", ["<OPEN_VOCABULARY_DETECTION>", "<CAPTION_TO_PHRASE_GROUNDING>", "<OD>", "<CAPTION>"])
def test_an_empty_target_teaches_the_end_of_the_answer(small, examples, task):
    """`<s></s>`: the answer begins and ends. The loss is finite and falls on these two tokens only."""
    empty = Example(Image.new("RGB", (64, 48)), Prompt.from_task(task, "a cat"), "", "", (64, 48))
    batch = Florence2DataCollator(small.processor)([TrainingRow(empty), TrainingRow(examples[0])])
    labels = batch["labels"][0]
    assert small.processor.tokenizer.decode(labels[labels != IGNORE_INDEX]) == "<s></s>"
    alone = Florence2DataCollator(small.processor)([TrainingRow(empty)])
    with torch.no_grad():
        assert torch.isfinite(small.model(**alone).loss)


def test_an_empty_target_is_trained_as_the_end_of_the_answer(small, examples):
    """It teaches that there is nothing of the kind in the image."""
    empty = dataclasses.replace(examples[0], target="")
    for rows in ([empty], [empty, examples[1]]):
        batch = Florence2DataCollator(small.processor)([TrainingRow(example) for example in rows])
        labels = batch["labels"][0]
        assert small.processor.tokenizer.decode(labels[labels != IGNORE_INDEX]) == "<s></s>"
        with torch.no_grad():
            assert torch.isfinite(small.model(**batch).loss)


def test_levels_give_the_same_pixel_values(small, examples):
    """A GPU looks the levels up, which takes a quarter of the memory on the way to it."""
    rows = [TrainingRow(example) for example in examples]
    pixels = Florence2DataCollator(small.processor)(rows)["pixel_values"]
    batch = Florence2DataCollator(small.processor, keeps_levels=True)(rows)
    assert "pixel_values" not in batch
    assert batch["levels"].dtype == torch.uint8
    assert torch.equal(look_up_on_device(batch["level_table"], batch["levels"]), pixels)
