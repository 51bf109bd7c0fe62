"""The loss in chunks, compared with torch's cross-entropy and with transformers' Florence-2."""

import copy
import inspect

import pytest
import torch
from torch.nn import functional as F
from transformers import Florence2ForConditionalGeneration

from florence_lab.finetuning import linear_cross_entropy as module
from florence_lab.finetuning.linear_cross_entropy import IGNORE_INDEX, linear_cross_entropy, use_chunked_loss

N, D, V = 23, 16, 50


@pytest.fixture(params=[1, 7 * 4 * V, 2**26], ids=["a token at a time", "7 tokens", "all at once"])
def _chunk(request, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_BYTES", request.param)


def make_inputs(dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(N, D, generator=generator, dtype=torch.float64)
    weight = torch.randn(V, D, generator=generator, dtype=torch.float64)
    labels = torch.randint(V, (N,), generator=generator)
    labels[::4] = IGNORE_INDEX
    return hidden.to(device, dtype).requires_grad_(), weight.to(device, dtype).requires_grad_(), labels.to(device)


def compute_reference(hidden, weight, labels, num_items=None, label_smoothing=0.0):
    logits = (hidden @ weight.T).float()
    reduction = "mean" if num_items is None else "sum"
    loss = F.cross_entropy(logits, labels, reduction=reduction, label_smoothing=label_smoothing)
    return loss if num_items is None else loss / num_items


def gradients_of(loss, *tensors):
    return [loss.detach(), *torch.autograd.grad(loss, tensors)]


@pytest.mark.usefixtures("_chunk")
@pytest.mark.parametrize("num_items", [None, 5, torch.tensor(40)])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_loss_and_gradients_are_those_of_torch(num_items, label_smoothing):
    hidden, weight, labels = make_inputs()
    expected = gradients_of(compute_reference(hidden, weight, labels, num_items, label_smoothing), hidden, weight)
    found = gradients_of(linear_cross_entropy(hidden, weight, labels, num_items, label_smoothing), hidden, weight)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("_chunk")
def test_ignored_labels_do_not_count_where_all_rows_are_computed(monkeypatch):
    """As on a GPU, where the rows of padding are masked instead of removed."""
    hidden, weight, labels = make_inputs()
    is_counted = labels != IGNORE_INDEX
    total = module._SumOfLosses.apply(hidden, weight, labels, is_counted, 0.1)
    expected = F.cross_entropy(hidden @ weight.T, labels, reduction="sum", label_smoothing=0.1)
    for a, b in zip(gradients_of(total, hidden, weight), gradients_of(expected, hidden, weight), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("trained", ["hidden", "weight"])
def test_only_what_is_trained_gets_a_gradient(trained):
    hidden, weight, labels = make_inputs()
    tensors = {"hidden": hidden, "weight": weight}
    for name, tensor in tensors.items():
        tensor.requires_grad_(name == trained)
    linear_cross_entropy(hidden, weight, labels).backward()
    assert {name for name, tensor in tensors.items() if tensor.grad is not None} == {trained}


def test_a_further_ignored_label_can_be_chosen():
    hidden, weight, labels = make_inputs()
    labels = labels.masked_fill(labels == IGNORE_INDEX, 3)
    expected = F.cross_entropy(hidden @ weight.T, labels, ignore_index=3)
    assert torch.allclose(linear_cross_entropy(hidden, weight, labels, ignore_index=3), expected)


def test_a_batch_of_padding_alone_has_no_loss():
    hidden, weight, labels = make_inputs()
    labels[:] = IGNORE_INDEX
    loss = linear_cross_entropy(hidden, weight, labels, 4)
    loss.backward()
    assert loss.item() == 0
    assert not hidden.grad.any()
    assert not weight.grad.any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_is_as_exact_as_torch(dtype):
    """Against float64: no further from it than the plain computation."""
    errors = {}
    exact = make_inputs(torch.float64)
    expected = gradients_of(F.cross_entropy(exact[0] @ exact[1].T, exact[2]), *exact[:2])
    for name, function in (("chunks", linear_cross_entropy), ("plain", compute_reference)):
        hidden, weight, labels = make_inputs(dtype)
        found = gradients_of(function(hidden, weight, labels), hidden, weight)
        errors[name] = [(a.double() - b).abs().max().item() for a, b in zip(found, expected, strict=True)]
    for ours, plain in zip(errors["chunks"], errors["plain"], strict=True):
        assert ours <= 2 * plain + 1e-3


def test_autocast_computes_the_products_in_its_format():
    hidden, weight, labels = make_inputs()
    with torch.autocast("cpu", torch.bfloat16):
        ours = gradients_of(linear_cross_entropy(hidden, weight, labels), hidden, weight)
        plain = gradients_of(F.cross_entropy(F.linear(hidden, weight).float(), labels), hidden, weight)
    assert [tensor.dtype for tensor in ours] == [tensor.dtype for tensor in plain]
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-3)
    assert not torch.equal(ours[0], linear_cross_entropy(hidden, weight, labels).detach())


@pytest.mark.gpu
def test_a_gpu_gives_the_loss_of_the_cpu():
    results = []
    for device in ("cpu", "cuda"):
        hidden, weight, labels = make_inputs(device=device)
        results.append(gradients_of(linear_cross_entropy(hidden, weight, labels, 5), hidden, weight))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b.cpu(), rtol=1e-3, atol=1e-4)


# ---------------------------------------------------------------------- the model


@pytest.fixture
def batch(small):
    ids = torch.full((2, 37), small.processor.image_token_id)
    prompt = small.processor.tokenizer(["What?", "What?"], return_tensors="pt")["input_ids"]
    labels = torch.tensor([[0, 5, 9, 2], [0, 7, 2, IGNORE_INDEX]])
    pixels = torch.randn(2, 3, 192, 192, generator=torch.Generator().manual_seed(0))
    return {"input_ids": torch.cat([ids, prompt], dim=1), "pixel_values": pixels, "labels": labels}


@pytest.mark.parametrize("num_items", [None, 11])
def test_the_model_has_the_loss_and_gradients_of_transformers(small, batch, num_items):
    results = []
    for is_chunked in (False, True):
        model = copy.deepcopy(small.model)
        if is_chunked:
            use_chunked_loss(model)
        outputs = model(**batch, num_items_in_batch=num_items)
        outputs.loss.backward()
        results.append((outputs.loss.detach(), {name: p.grad for name, p in model.named_parameters()}))
        assert (outputs.logits is None) == is_chunked
    (expected, gradients), (found, chunked) = results
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert gradients.keys() == chunked.keys()
    for name, gradient in gradients.items():
        tolerance = 1e-4 * gradient.abs().max().item() + 1e-6  # biases of keys have rounding noise only
        torch.testing.assert_close(chunked[name], gradient, rtol=0, atol=tolerance)


def test_generation_and_logits_stay(small, batch):
    model = copy.deepcopy(small.model)
    use_chunked_loss(model)
    inputs = {name: batch[name] for name in ("input_ids", "pixel_values")}
    decoder_ids = torch.tensor([[2, 0], [2, 0]])
    assert isinstance(model, Florence2ForConditionalGeneration)
    with torch.no_grad():
        a, b = (m(**inputs, decoder_input_ids=decoder_ids).logits for m in (model, small.model))
        assert torch.equal(a, b)
        a, b = (m.generate(**inputs, max_new_tokens=5, num_beams=2) for m in (model, small.model))
    assert torch.equal(a, b)


def test_a_copy_of_the_model_computes_the_loss_of_its_own_weights(small, batch):
    """torch copies a model for each GPU of a process."""
    model = copy.deepcopy(small.model)
    use_chunked_loss(model)
    with torch.no_grad():
        before = model(**batch).loss
        copied, replica = copy.deepcopy(model), model._replicate_for_data_parallel()
        assert replica.forward.__self__ is replica
        for parameter in copied.parameters():
            parameter.zero_()
        assert model(**batch).loss == before
        assert copied(**batch).loss != before


def test_the_model_keeps_the_name_of_its_class(small):
    model = copy.deepcopy(small.model)
    use_chunked_loss(model)
    assert f"{type(model).__module__}.{type(model).__qualname__}" == (
        f"{Florence2ForConditionalGeneration.__module__}.{Florence2ForConditionalGeneration.__qualname__}"
    )
    assert inspect.signature(model.forward) == inspect.signature(small.model.forward)
