"""Tokens that fine-tuning adds to the vocabulary: rows of the embedding table, and the tokenizer of an adapter that has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import Florence2ForConditionalGeneration, Florence2Processor, PreTrainedTokenizerBase

from ..exceptions import CheckpointError, shorten
from .adapter_names import Naming
from .checks import check_tokenizer_settings
from .files import read_settings
from .library import suppress_library_output
from .processor import check_tokenizer, has_tokenizer, load_tokenizer
from .published import POST_PROCESSOR_CONFIG, VOCABULARY_MODULES

_TOKEN_ROWS = "token_adapter.trainable_tokens_delta"
"""What PEFT appends to the name of a module for the rows of `trainable_token_indices`. They replace rows, they are not added."""


def add_tokens(
    model: Florence2ForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, tokens: Iterable[str]
) -> list[int]:
    """Add tokens to a tokenizer and to the embedding table of a model, in place, and return their ids.

    The embedding of a new token starts as the mean of those of the pieces into which it was split before, so that the prompts of
    different tokens differ from the beginning, and a model that was trained on the pieces keeps some of what it knows. Tokens of
    the vocabulary stay as they are.

    Args:
        model: the model. Encoder, decoder and output layer share the table, and go on to.
        tokenizer: its tokenizer.
        tokens: N tokens.

    Returns:
        Their N ids, without those of repeated tokens.
    """
    tokens = list(dict.fromkeys(tokens))
    known = tokenizer.get_vocab()
    new = [token for token in tokens if token not in known]
    pieces = [tokenizer(token, add_special_tokens=False).input_ids for token in new]
    tokenizer.add_tokens(new, special_tokens=True)
    resize_vocabulary(model, len(tokenizer))
    weight = embedding_table(model)
    with torch.no_grad():
        for token, parts in zip(new, pieces, strict=True):
            weight[tokenizer.convert_tokens_to_ids(token)] = weight[parts].mean(dim=0)
    return [tokenizer.get_vocab()[token] for token in tokens]


def embedding_table(model: Florence2ForConditionalGeneration) -> torch.Tensor:
    """Return the embeddings of all tokens, V x d_model, which encoder, decoder and output layer share."""
    embeddings: Any = model.get_input_embeddings()
    weight: torch.Tensor = embeddings.weight
    return weight


def resize_vocabulary(model: Florence2ForConditionalGeneration, num_tokens: int) -> None:
    """Give the embedding table at least so many rows, in place. The new ones are arbitrary; tables may be padded."""
    if len(embedding_table(model)) < num_tokens:
        with suppress_library_output():
            # not the mean of all rows, which takes seconds and is overwritten
            model.resize_token_embeddings(num_tokens, mean_resizing=False)


def has_added_tokens(
    model: Florence2ForConditionalGeneration, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> bool:
    """Return whether an adapter was trained with tokens that its base model may lack.

    Args:
        model: the base model.
        config: the `adapter_config.json`.
        tensors: the weights of the adapter, by their stored names.
    """
    num_rows = len(embedding_table(model))
    tables = (
        tensor
        for name, tensor in tensors.items()
        if name.removesuffix(".weight").rpartition(".")[2]
        in {module.rpartition(".")[2] for module in VOCABULARY_MODULES}
    )
    return bool(config.get("trainable_token_indices")) or any(
        tensor.ndim == 2 and tensor.shape[0] > num_rows for tensor in tables
    )


def adopt_tokenizer(
    folder: Path, model: Florence2ForConditionalGeneration, processor: Florence2Processor
) -> Florence2Processor:
    """Return the processor of a base model with the tokenizer of an adapter, if it has one, and extend the model in place.

    Args:
        folder: the adapter.
        model: the base model, whose embedding table gets a row for each token of the adapter.
        processor: of the base model.

    Raises:
        CheckpointError: if the tokenizer is not that of the base model with further tokens.
    """
    if not has_tokenizer(folder):
        return processor
    check_tokenizer_settings(folder, read_settings(folder))
    with suppress_library_output():
        tokenizer = load_tokenizer(folder)
    added = tokenizer.get_vocab()
    different = [token for token, id_ in processor.tokenizer.get_vocab().items() if added.get(token) != id_]
    if different:
        raise CheckpointError(
            f"the tokenizer in {folder} does not have the token {shorten(different[0])} of the base model with the same id; name the "
            "base model that the adapter was trained from with base="
        )
    resize_vocabulary(model, len(tokenizer))
    check_tokenizer(folder, tokenizer, len(embedding_table(model)), model.generation_config.eos_token_id)
    return Florence2Processor(
        image_processor=processor.image_processor, tokenizer=tokenizer, post_processor_config=POST_PROCESSOR_CONFIG
    )


def write_token_rows(
    model: Florence2ForConditionalGeneration,
    folder: Path,
    indices: Mapping[str, Sequence[int]] | Sequence[int],
    naming: Naming,
    tensors: dict[str, torch.Tensor],
) -> None:
    """Write the rows of `trainable_token_indices` into the embedding table, in place, and remove them from the adapter.

    Encoder, decoder and output layer share the table, so that all of them have the rows. PEFT would keep the rows apart, and copy
    the table in each step.

    Args:
        model: the base model.
        folder: the adapter, for messages.
        indices: `trainable_token_indices`: ids, or ids by the name of the module.
        naming: the names in the adapter; those of rows are removed.
        tensors: the weights of the adapter by their stored names; those of rows are removed.

    Raises:
        CheckpointError: if the rows do not fit the ids or the table, or if two modules that share a table have different rows.
    """
    written: dict[int, dict[int, torch.Tensor]] = {}
    old_names = {new: old for old, new in naming.modules.items()}
    for name, key in list(naming.keys.items()):
        if not key.part.startswith(_TOKEN_ROWS):
            continue
        rows = tensors.pop(name)
        del naming.keys[name]
        ids = _find_ids(indices, key.module, old_names[key.module])
        weight: Any = model.get_submodule(key.module).weight
        is_valid = all(0 <= i < len(weight) for i in ids)
        if not is_valid or tuple(rows.shape) != (len(ids), weight.shape[1]):
            raise CheckpointError(
                f"{folder} contains {name} of shape {list(rows.shape)}, which does not fit the tokens {shorten(list(ids))} in "
                f"trainable_token_indices and a table of {len(weight):,} x {weight.shape[1]}; are tokenizer files missing?"
            )
        known = written.setdefault(id(weight), {})
        for token_id, row in zip(ids, rows, strict=True):
            if not torch.equal(known.setdefault(token_id, row), row):
                raise CheckpointError(
                    f"{folder} changes the token {token_id} in several ways, but encoder, decoder and output layer share its row"
                )
        with torch.no_grad():
            weight[list(ids)] = rows.to(weight)
    if indices and not written:
        raise CheckpointError(f"{folder} has trainable_token_indices in its configuration, but no {_TOKEN_ROWS}")


def _find_ids(indices: Mapping[str, Sequence[int]] | Sequence[int], *names: str) -> Sequence[int]:
    """The ids of a module, which has a name in transformers and one in the adapter."""
    if not isinstance(indices, Mapping):
        return indices
    found = [ids for module, ids in indices.items() if any(name.endswith(module) for name in names)]
    return found[0] if found else ()
