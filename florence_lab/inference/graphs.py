"""CUDA graphs: a sequence of kernels is captured once and replayed by one call.

A step of the decoder is about a hundred small kernels, whose launches take several times as long as their work: 2.5 ms a
token at base size in bf16 on an H100, against 0.4 to 0.5 ms for a prototype of such a graph.

A graph contains the addresses of its inputs and weights. Inputs are therefore copied into buffers, and graphs are captured
again when weights have moved.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from threading import RLock
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import Florence2ForConditionalGeneration

from ..exceptions import GenerationInterrupted, summarize_error, warn
from .interruption import has_other_hooks
from .static_decoder import DecoderWeights, StaticSource, Step, model_fingerprint
from .static_processors import StaticProcessor
from .static_search import Search, SearchSettings, SearchState

MAX_GRAPHED_BATCH = 8
"""Inputs of an encoder that are captured together at most. Kernels for more take longer than their launches."""

_MAX_STEPS = 12  # captured for one set of buffers, with different settings
_MAX_ENCODERS = 16  # captured for different sizes
_CPU_BYTES = 1 << 30
_LIBRARIES = ("torch.nn.", "transformers.", "peft.")

Capture = Callable[[Step, Any], Step]
"""Captures a step, given the memory pool of the graphs that are replayed in its place. Returns what replays it."""


def capture_cuda_graph(step: Step, pool: Any) -> Step:
    """Capture a step as a CUDA graph and return the function that replays it.

    The step runs twice before, so that libraries initialize and allocate what they need. Random numbers that it draws then
    do not count.

    Args:
        step: launches kernels on the current device, and only those.
        pool: of `torch.cuda.graph_pool_handle`. Graphs of one pool must not run at the same time.
    """
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.random.fork_rng(devices=[torch.cuda.current_device()]):
        for _ in range(2):
            step()
        stream.synchronize()
        # not `torch.cuda.graph`, which collects garbage first: that takes longer than the capture
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            step()
        except BaseException:
            with suppress(RuntimeError):  # the capture has failed already
                graph.capture_end()
            raise
        graph.capture_end()
    torch.cuda.current_stream().wait_stream(stream)
    return graph.replay


@dataclass(frozen=True, eq=False)
class GraphedSearch:
    """A search whose steps are graphs.

    Attributes:
        state: the buffers.
        search: the search.
        step: generates one more token per row; None if the logits are processed by other code.
        forward: computes logits, if they are processed by other code.
        select: selects tokens by the scores that are processed by other code.
    """

    state: SearchState
    search: Search
    step: Step | None
    forward: Step | None
    select: Step | None


class DecoderBuffers:
    """The buffers of the decoder for a number of prompts and positions, with the graphs that work on them.

    One search at a time uses them.

    Attributes:
        source: what the prompts' rows attend to.
    """

    def __init__(self, source: StaticSource, capture: Callable[..., Step]) -> None:
        """
        Args:
            source: the buffers of the encoder's output.
            capture: see `GraphCache.capture`.
        """
        self.source = source
        self._device = source.mask.device
        self._capture = partial(capture, pool=_new_pool(self._device), device=self._device)
        self._states: dict[tuple[int, int], SearchState] = {}
        self._searches: OrderedDict[Hashable, GraphedSearch] = OrderedDict()

    def nbytes(self) -> int:
        """Return the size of the buffers in bytes. A graph needs a few times its logits besides."""
        states = self._states.values()
        graphs = max((4 * state.logits.nbytes for state in states), default=0)
        return self.source.nbytes() + sum(state.nbytes() for state in states) + graphs

    def search(
        self, num_beams: int, length: int, settings: SearchSettings, processors: Sequence[StaticProcessor] | None
    ) -> GraphedSearch:
        """Return a search for at most `length` steps. Captures it if there is none, which overwrites the state.

        Args:
            num_beams, length: shape of the state.
            settings, processors: see `Search`.
        """
        names = None if processors is None else tuple(processor.key for processor in processors)
        key = (num_beams, length, settings, names)
        if key not in self._searches:
            state = self._states.get((num_beams, length))
            if state is None:
                state = self._states[num_beams, length] = SearchState(self.source, num_beams, length)
            state.start(0, 0, settings.pad_id, length + 1)
            search = Search(state, settings, processors)
            if processors is None:
                forward, select = (self._capture(part) for part in (search.forward, search.select_scored))
                found = GraphedSearch(state, search, None, forward, select)
            else:
                found = GraphedSearch(state, search, self._capture(search.step), None, None)
            self._searches[key] = found
            if len(self._searches) > _MAX_STEPS:
                self._searches.popitem(last=False)
        self._searches.move_to_end(key)
        return self._searches[key]


class _EncoderKey(NamedTuple):
    """What a graph of an encoder depends on."""

    name: str
    inputs: Hashable
    weights: Hashable
    precision: str
    stream: Hashable


class _GraphedEncoder(NamedTuple):
    """A captured function of tensors."""

    inputs: tuple[torch.Tensor, ...]
    outputs: list[torch.Tensor]
    replay: Step
    pool: Any


class GraphCache:
    """The graphs of a model, with a bound on the memory of their buffers.

    Several threads may use a cache. Each gets buffers of its own.
    """

    def __init__(self, capture: Capture | None = None, max_bytes: int | None = None) -> None:
        """
        Args:
            capture: captures a step; by default as a CUDA graph, and nothing on other devices.
            max_bytes: bound on the buffers that are kept; by default a quarter of the device's memory.
        """
        self._capture_step, self._max_bytes = capture, max_bytes
        self._lock = RLock()
        self._has_warned = False
        self._fingerprint: Hashable = None
        self._weights: DecoderWeights | None = None
        self._buffers: OrderedDict[Hashable, DecoderBuffers] = OrderedDict()
        self._encoders: OrderedDict[_EncoderKey, _GraphedEncoder] = OrderedDict()

    def __deepcopy__(self, memo: dict[int, Any]) -> GraphCache:
        return GraphCache(self._capture_step, self._max_bytes)

    def __reduce__(self) -> tuple[Any, ...]:
        return GraphCache, (self._capture_step, self._max_bytes)

    def is_usable(self, *modules: nn.Module) -> bool:
        """Return whether graphs can take the place of modules.

        They cannot on other devices than CUDA, for training, and where code of others depends on the calls of a layer.
        """
        if any(module.training for module in modules):
            return False
        device = next(modules[0].parameters()).device
        if (self._capture_step is None and device.type != "cuda") or torch.is_autocast_enabled(device.type):
            return False
        return not torch.is_grad_enabled() and all(map(_is_capturable, modules))

    def accepts(self, batch_size: int, *modules: nn.Module) -> bool:
        """Return whether a batch of inputs is encoded by a graph, see `call`."""
        return batch_size <= MAX_GRAPHED_BATCH and self.is_usable(*modules)

    def capture(self, step: Step, pool: Any, device: torch.device) -> Step:
        """Return what replays a step. If it cannot be captured, this is the step itself, and the first time a warning says so."""
        try:
            with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
                return (self._capture_step or capture_cuda_graph)(step, pool)
        except (torch.OutOfMemoryError, GenerationInterrupted):
            raise
        except Exception as error:  # CUDA and its libraries raise many types
            with self._lock:
                is_first, self._has_warned = not self._has_warned, True
            if is_first:
                warn(f"a CUDA graph could not be captured, the model runs without it: {summarize_error(error)}")
            return step

    @contextmanager
    def borrow(
        self, model: Florence2ForConditionalGeneration, num_prompts: int, source_length: int
    ) -> Iterator[DecoderBuffers]:
        """Lend buffers of the decoder until the block ends.

        Args:
            model: the model.
            num_prompts: number of prompts in the buffers.
            source_length: number of positions of the encoder's output.

        Raises:
            torch.OutOfMemoryError: if there is no memory for them, even without all others.
        """
        key = (num_prompts, source_length, _current_stream(model.device))
        fingerprint = (model_fingerprint(*decoder_modules(model)), torch.get_float32_matmul_precision())
        with self._lock:
            if fingerprint != self._fingerprint or self._weights is None:
                if self._weights is not None:
                    self.clear()
                self._fingerprint, self._weights = fingerprint, DecoderWeights(model)
            weights = self._weights
            buffers = self._buffers.pop(key, None)
        weights.refresh()
        if buffers is None:
            try:
                source = StaticSource(weights, num_prompts, source_length)
            except torch.OutOfMemoryError:
                self.clear()
                source = StaticSource(weights, num_prompts, source_length)
            buffers = DecoderBuffers(source, self.capture)
        try:
            yield buffers
        finally:
            self._keep(key, buffers)

    def call(
        self,
        name: str,
        function: Callable[..., torch.Tensor],
        modules: Sequence[nn.Module],
        *inputs: torch.Tensor,
    ) -> torch.Tensor:
        """Return `function(*inputs)`, computed by a graph. See `accepts`.

        Args:
            name: of the function.
            function: from tensors to a tensor, by the operations of modules.
            modules: whose weights it uses.
            inputs: tensors with a first dimension of the batch.
        """
        shapes = tuple((x.shape, x.dtype) for x in inputs)
        stream, precision = _current_stream(inputs[0].device), torch.get_float32_matmul_precision()
        key = _EncoderKey(name, shapes, model_fingerprint(*modules), precision, stream)
        with self._lock:
            with torch.inference_mode():  # the buffers belong to it
                encoder = self._encoders.get(key)
                if encoder is None:
                    try:
                        encoder = self._encoders[key] = self._capture_encoder(function, inputs, stream)
                    except torch.OutOfMemoryError:
                        self.clear()
                        return function(*inputs)
                    if len(self._encoders) > _MAX_ENCODERS:
                        self._encoders.popitem(last=False)
                self._encoders.move_to_end(key)
                for buffer, values in zip(encoder.inputs, inputs, strict=True):
                    buffer.copy_(values)
                encoder.replay()
            return encoder.outputs[0].clone()

    def clear(self) -> None:
        """Free all buffers that are not in use, and all graphs."""
        with self._lock:
            self._buffers.clear()
            self._encoders.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def nbytes(self) -> int:
        """Return the size in bytes of the decoder's buffers that are kept."""
        with self._lock:
            return sum(buffers.nbytes() for buffers in self._buffers.values())

    def _keep(self, key: Hashable, buffers: DecoderBuffers) -> None:
        """Take buffers back, and drop those that were used the longest time ago while there are too many."""
        with self._lock:
            if buffers.source.weights is not self._weights:
                return  # of a model whose weights have moved meanwhile
            self._buffers[key] = buffers
            self._buffers.move_to_end(key)
            limit = _default_bytes(buffers.source.mask.device) if self._max_bytes is None else self._max_bytes
            while self._buffers and self.nbytes() > limit:
                self._buffers.popitem(last=False)

    def _capture_encoder(
        self, function: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], stream: Hashable
    ) -> _GraphedEncoder:
        buffers = tuple(x.clone(memory_format=torch.contiguous_format) for x in inputs)
        outputs: list[torch.Tensor] = []

        def step() -> None:
            result = function(*buffers)
            if outputs:
                outputs[0].copy_(result)
            else:
                outputs.append(result.clone())

        device = inputs[0].device
        # encoders of one stream run one after the other, so they can use the same memory
        pools = (encoder.pool for key, encoder in self._encoders.items() if key.stream == stream)
        pool = next(pools, None) or _new_pool(device)
        step()  # makes the buffer of the result
        return _GraphedEncoder(buffers, outputs, self.capture(step, pool, device), pool)


def decoder_modules(model: Florence2ForConditionalGeneration) -> tuple[nn.Module, nn.Module]:
    """Return the modules that a step of the decoder consists of."""
    language_model: Any = model.model.language_model
    return language_model.decoder, model.lm_head


def bucket(number: int, smallest: int = 1) -> int:
    """Return the size of a buffer for a number of entries: the next power of two that is at least `smallest`."""
    return max(smallest, 1 << max(0, number - 1).bit_length())


def _is_capturable(module: nn.Module) -> bool:
    return not any(
        has_other_hooks(layer) or "forward" in vars(layer) or not type(layer).__module__.startswith(_LIBRARIES)
        for layer in module.modules()
    )


def _new_pool(device: torch.device) -> Any:
    return torch.cuda.graph_pool_handle() if device.type == "cuda" else None


def _current_stream(device: torch.device) -> Hashable:
    """Identify the stream on which this thread works. Two streams must not use the same buffers."""
    return device, torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


def _default_bytes(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).total_memory // 4 if device.type == "cuda" else _CPU_BYTES
