"""Generation with graphs: the loops around the steps of `static_search`, for transformers' `generate(custom_generate=…)`.

The device is asked every few steps only whether sequences are finished. It has done a few steps too many then, which are cut
off. Sequences that are finished leave the batch when the others fit into smaller buffers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import torch
from transformers import (
    Florence2ForConditionalGeneration,
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
)

from .decoding import DropCallback, StepCallback, TokenScoreRecorder
from .graphs import DecoderBuffers, GraphCache, GraphedSearch, bucket
from .interruption import check_interrupts
from .static_processors import static_processors
from .static_search import SearchSettings

_STEPS_PER_CHECK = 4
"""Steps after which the device is asked whether sequences are finished."""

_FIRST_LENGTH = 64
"""Positions of the first cache. It is doubled when it is full."""

_SOURCE_MULTIPLE = 64
"""The encoder's output is padded to a multiple of so many positions."""


def static_search(
    model: Florence2ForConditionalGeneration,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    graphs: GraphCache,
    recorder: TokenScoreRecorder | None = None,
    on_drop: DropCallback | None = None,
    **inputs: Any,
) -> torch.Tensor:
    """Greedy decoding, sampling or beam search, with the same output as transformers' own.

    Args:
        model: the model.
        input_ids: R x 1 start tokens, for R = B * b rows: the beams of a prompt are consecutive.
        logits_processor, generation_config: as `generate` prepares them.
        stopping_criteria: unused; the same settings are in `generation_config`.
        graphs: keeps buffers and graphs.
        recorder: of token probabilities, which greedy decoding fills.
        on_drop: called when sequences are finished, for a logits processor that has a state for each sequence.
        inputs: of which `encoder_outputs.last_hidden_state` (R x S x d_model) and `attention_mask` (R x S) are used.

    Returns:
        B x T token ids, padded after the end of each sequence.
    """
    with ExitStack() as stack:
        run = _Run(model, input_ids, logits_processor, generation_config, graphs, stack, inputs, recorder, on_drop)
        while run.slots:
            run.advance()
            if run.is_check_due:
                run.drop_finished()
    return torch.nn.utils.rnn.pad_sequence(run.sequences, batch_first=True, padding_value=float(run.settings.pad_id))


def static_stream(
    model: Florence2ForConditionalGeneration,
    input_ids: torch.Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: GenerationConfig,
    graphs: GraphCache,
    on_step: StepCallback | None = None,
    **inputs: Any,
) -> Iterator[tuple[int, bool]]:
    """Greedy decoding or sampling of one sequence, which yields each token with a flag for the last one.

    See `static_search` for the arguments.
    """
    row = torch.zeros(1, dtype=torch.long, device=input_ids.device)
    with ExitStack() as stack:
        with torch.inference_mode():
            run = _Run(model, input_ids, logits_processor, generation_config, graphs, stack, inputs)
        is_finished = False
        while not is_finished:
            with torch.inference_mode():  # the mode of `generate` has ended when its caller advances the generator
                run.advance()
                token, is_finished = run.last_token()
                if on_step:
                    on_step(row, run.logits, torch.tensor([token], device=row.device))
            yield token, is_finished


class _Run:
    """One call of `generate`.

    Attributes:
        settings: of the search.
        slots: the index of the prompt that each entry of the buffers holds, without the padding.
        sequences: prompt -> its tokens, once they are final.
    """

    def __init__(
        self,
        model: Florence2ForConditionalGeneration,
        input_ids: torch.Tensor,
        logits_processor: LogitsProcessorList,
        config: GenerationConfig,
        graphs: GraphCache,
        stack: ExitStack,
        inputs: dict[str, Any],
        recorder: TokenScoreRecorder | None = None,
        on_drop: DropCallback | None = None,
    ) -> None:
        self._model, self._graphs, self._stack = model, graphs, stack
        self._logits_processor, self._recorder, self._on_drop = logits_processor, recorder, on_drop
        self._beams = config.num_beams or 1
        self.settings = _search_settings(config, recorder)
        self._processors = static_processors(logits_processor, input_ids.device)
        self._max_length: int = config.max_length  # with the start token; `generate` sets it
        self._deadline = None if config.max_time is None else time.monotonic() + config.max_time
        # beams are in order of their prompts; sampling draws for as many rows as transformers does
        hidden_states = inputs["encoder_outputs"].last_hidden_state[:: self._beams]
        mask = inputs["attention_mask"][:: self._beams]
        self.slots = list(range(len(mask)))
        self.sequences: list[torch.Tensor] = [input_ids[0]] * len(mask)
        size = len(mask) if self.settings.do_sample else bucket(len(mask))
        self._source_length = -(-mask.shape[1] // _SOURCE_MULTIPLE) * _SOURCE_MULTIPLE
        self._buffers = self._borrow(size)
        self._buffers.source.fill(hidden_states, mask)
        self._length = min(_FIRST_LENGTH, self._longest)
        self._search = self._find_search()
        self._search.state.start(len(mask), int(input_ids[0, 0]), self.settings.pad_id, self._max_length)
        self._step, self._is_last = 0, False

    @property
    def is_check_due(self) -> bool:
        """Whether the device is to be asked for finished sequences."""
        often = self.settings.do_sample or self._processors is None
        return often or self._is_last or self._step % _STEPS_PER_CHECK == 0

    @property
    def logits(self) -> torch.Tensor:
        """The logits of the last step, n x V float32, before any processing."""
        return self._search.state.logits[: len(self.slots) * self._beams]

    def advance(self) -> None:
        """Generate one more token per row."""
        if self._step == self._length:
            self._grow()
        check_interrupts(self._model.lm_head)
        state = self._search.state
        self._is_last = self._step + 2 >= self._max_length
        if not self._is_last and self._deadline is not None and time.monotonic() >= self._deadline:
            self._is_last = True
            state.limit.fill_(self._step + 2)
        if self._search.step:
            self._search.step()
        else:
            self._advance_with_processors()
        self._step += 1

    def last_token(self) -> tuple[int, bool]:
        """Return the last token of the only row, and whether its sequence is finished."""
        state = self._search.state
        self._check_probabilities()
        token, is_finished = torch.stack([state.tokens[0, self._step], state.finished[0].long()]).tolist()
        return token, bool(is_finished)

    def drop_finished(self) -> None:
        """Collect finished sequences, and go on with the others in smaller buffers where they fit."""
        self._check_probabilities()
        is_finished = self._search.state.finished[: len(self.slots)].tolist()
        going = [slot for slot, finished in enumerate(is_finished) if not finished]
        if not going:
            self._collect(range(len(self.slots)))
            self.slots = []
        elif self._can_shrink and bucket(len(going)) < self._buffers.source.num_prompts:
            self._collect([slot for slot, finished in enumerate(is_finished) if finished])
            self._shrink(going)

    @property
    def _longest(self) -> int:
        """The number of steps at most, for which there are positions."""
        limit = self._model.model.language_model.decoder.config.max_position_embeddings
        return min(bucket(self._max_length - 1, _FIRST_LENGTH), limit)

    @property
    def _can_shrink(self) -> bool:
        if self.settings.do_sample:
            return False  # the same numbers are drawn as by transformers
        return self._processors is not None or self._beams == 1  # other processors may have a state for each beam

    def _borrow(self, num_prompts: int) -> DecoderBuffers:
        return self._stack.enter_context(self._graphs.borrow(self._model, num_prompts, self._source_length))

    def _find_search(self) -> GraphedSearch:
        arguments = (self._beams, self._length, self.settings, self._processors)
        try:
            return self._buffers.search(*arguments)
        except torch.OutOfMemoryError:
            self._graphs.clear()  # all that is not in use
            return self._buffers.search(*arguments)

    def _grow(self) -> None:
        before = self._search.state
        self._length = min(2 * self._length, self._longest)
        self._search = self._find_search()
        prompts = torch.arange(len(self.slots), device=before.tokens.device)
        self._search.state.load(before, prompts, self.settings.pad_id)

    def _shrink(self, going: list[int]) -> None:
        """Move the prompts in some slots to smaller buffers."""
        before, source = self._search.state, self._buffers.source
        prompts = torch.tensor(going, device=before.tokens.device)
        self._buffers = self._borrow(bucket(len(going)))
        self._search = self._find_search()
        self._buffers.source.load(source, prompts)
        self._search.state.load(before, prompts, self.settings.pad_id)
        self.slots = [self.slots[slot] for slot in going]
        if self._on_drop:
            self._on_drop(prompts)

    def _advance_with_processors(self) -> None:
        """Generate one more token per row, with transformers' own processors between two graphs."""
        search, state = self._search, self._search.state
        assert search.forward is not None
        assert search.select is not None
        search.forward()
        num_rows = len(self.slots) * self._beams
        ids: Any = state.tokens[:num_rows, : self._step + 1].clone()  # a processor may keep it
        scores: Any = search.search.unprocessed_scores()[:num_rows].clone()  # processors may modify their input
        state.scores[:num_rows] = self._logits_processor(ids, scores)
        search.select()

    def _collect(self, slots: range | list[int]) -> None:
        """Copy the final sequences of slots out of the buffers."""
        state = self._search.state
        first = torch.tensor([slot * self._beams for slot in slots], device=state.tokens.device)
        tokens = state.tokens if self._beams == 1 else state.done_tokens.flatten(0, 1)
        tokens, lengths = tokens.index_select(0, first), state.lengths.index_select(0, first).tolist()
        names = ("generated", "locations") if self._recorder and self.settings.location_ids else ()
        recorded = [state[name].index_select(0, first) for name in names]
        for index, (slot, length) in enumerate(zip(slots, lengths, strict=True)):
            prompt = self.slots[slot]
            self.sequences[prompt] = tokens[index, : length + 1]
            if self._recorder and recorded:
                self._recorder.store(prompt, *(part[index, :length] for part in recorded))

    def _check_probabilities(self) -> None:
        if self.settings.do_sample and bool(self._search.state.invalid):
            # as torch.multinomial says it
            raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")


def _search_settings(config: GenerationConfig, recorder: TokenScoreRecorder | None) -> SearchSettings:
    eos: Any = config.eos_token_id
    eos_ids = () if eos is None else tuple(eos) if isinstance(eos, (list, tuple)) else (int(eos),)
    is_beam_search = (config.num_beams or 1) > 1
    return SearchSettings(
        eos_ids=eos_ids,
        pad_id=int(config.pad_token_id if config.pad_token_id is not None else eos_ids[0] if eos_ids else 0),
        do_sample=bool(config.do_sample),
        length_penalty=float(config.length_penalty or 0) if is_beam_search else 1.0,
        early_stopping=config.early_stopping if is_beam_search else False,
        location_ids=None if recorder is None else (recorder.location_ids.start, recorder.location_ids.stop),
        image_token_id=0 if recorder is None else recorder.image_token_id,
    )
