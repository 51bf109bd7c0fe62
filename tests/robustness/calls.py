"""Odd calls, generated from the signatures of the public names: one odd value for one parameter, valid values for the others."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import io
import linecache
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

from robustness.examples import EXAMPLES, INSTANCES, PARTICULAR_EXAMPLES, Samples
from robustness.odd_values import ODD_VALUES

import florence_lab
from florence_lab import tasks
from florence_lab.exceptions import FlorenceLabError
from florence_lab.scenes import sprites

PACKAGE = Path(florence_lab.__file__).parent
ROOMS = ("evaluation", "images", "interpret", "scenes", "tasks", "visualization")
"""Modules whose public functions are called besides the names of the package."""

PLAIN_ERRORS = (ValueError, TypeError, IndexError, KeyError, FileNotFoundError, FileExistsError)
"""Exceptions of Python that a `raise` line of the package may use."""

TIME_LIMIT = 30.0
"""Seconds of computation that a call may take. On an idle machine a call is at most this long."""

_WAITING_FACTOR = 5  # a call that computes nothing may take this much longer: the machine may be busy otherwise

MAX_ITEMS = 3
"""Items that are taken from an iterator."""

SKIPPED_VALUES = {
    "load.compile": ("True",),  # compiles for a minute, as does `compile` with each valid folder
    "Predictor.compile.cache_dir": ("None", "''", "'x'", "'<x>'", "missing path", "unknown home"),
}
"""`function.parameter` -> odd values that are valid, and whose calls take a minute."""

WITH_ALL_SETTINGS = ("Predictor.predict", "Predictor.stream")
"""Functions whose calls try all of `GENERATION_SETTINGS`. The others validate them with the same function."""


@dataclass(frozen=True)
class Target:
    """A public function, method or class.

    Attributes:
        name: `"load"`, `"Predictor.predict"`.
        function: what is called.
        owner: the name of the class of a method, whose sample is the first argument; "" for others.
    """

    name: str
    function: Callable[..., Any]
    owner: str = ""

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """Name -> parameter, without `self`."""
        found = inspect.signature(self.function).parameters
        return {name: item for name, item in found.items() if not (self.owner and name == "self")}

    def valid_arguments(self, samples: Samples) -> dict[str, Any]:
        """Return valid values for the parameters that need one.

        Raises:
            LookupError: for a parameter without default and without entry in `EXAMPLES`.
        """
        arguments = {}
        for name, parameter in self.parameters.items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            example = self._example(name)
            if example is not None:
                arguments[name] = example(samples)
            elif parameter.default is parameter.empty:
                raise LookupError(f"no valid example for {self.name}({name})")
        return arguments

    def _example(self, name: str) -> Callable[[Samples], Any] | None:
        particular = PARTICULAR_EXAMPLES.get(f"{self.name}.{name}")
        if particular is not None:
            return particular
        if is_dataclass(self.function) and self.name in INSTANCES:
            instance = INSTANCES[self.name]
            return lambda samples: getattr(instance(samples), name)
        is_required = self.parameters[name].default is inspect.Parameter.empty
        return EXAMPLES.get(name) if is_required else None


@dataclass(frozen=True)
class OddCall:
    """A call with one odd value.

    Attributes:
        target: what is called.
        parameter: the parameter with the odd value; `"generate_kwargs"` of a setting is followed by its name.
        value: description of the value, a key of `ODD_VALUES`.
        setting: the name of a keyword argument of `**kwargs`.
    """

    target: Target
    parameter: str
    value: str
    setting: str = ""

    def __str__(self) -> str:
        return f"{self.target.name}({self.setting or self.parameter}={self.value})"

    def run(self, samples: Samples) -> Any:
        """Call the target, and use what it returns as a caller would."""
        return self.call(samples, self.target.valid_arguments(samples))

    def call(self, samples: Samples, arguments: dict[str, Any]) -> Any:
        """Call the target with these arguments and the odd value."""
        value = ODD_VALUES[self.value]()
        parameter = self.target.parameters[self.parameter]
        positional: list[Any] = [INSTANCES[self.target.owner](samples)] if self.target.owner else []
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional += [*arguments.values(), value]
            arguments = {}
        else:
            arguments = arguments | {self.setting or self.parameter: value}
        return use(self.target.function(*positional, **arguments), samples)


@functools.cache
def public_targets() -> tuple[Target, ...]:
    """Return all public functions, classes and methods, sorted by name."""
    found: dict[str, Target] = {}
    for module, names in _public_names():
        for name in names:
            item = getattr(module, name)
            if inspect.isclass(item):
                found |= {target.name: target for target in _class_targets(name, item)}
            elif inspect.isfunction(item):
                found[name] = Target(name, item)
    return tuple(found[name] for name in sorted(found))


def odd_calls(target: Target) -> Iterator[OddCall]:
    """Yield the odd calls of a target: each parameter with each odd value."""
    for name, parameter in target.parameters.items():
        skipped = SKIPPED_VALUES.get(f"{target.name}.{name}", ())
        if parameter.kind is parameter.VAR_KEYWORD:
            step = 1 if target.name in WITH_ALL_SETTINGS else 12
            for setting in GENERATION_SETTINGS[::step] if name == "generate_kwargs" else ():
                yield from (OddCall(target, name, value, setting) for value in SETTING_VALUES)
            continue
        yield from (OddCall(target, name, value) for value in ODD_VALUES if value not in skipped)


GENERATION_SETTINGS = (
    *("max_new_tokens", "max_length", "min_length", "min_new_tokens", "num_beams", "num_beam_groups", "early_stopping"),
    *("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"),
    *("repetition_penalty", "encoder_repetition_penalty", "length_penalty", "no_repeat_ngram_size", "bad_words_ids"),
    *("suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id", "sequence_bias"),
    *("eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id", "max_time", "stop_strings"),
    *("use_cache", "cache_implementation", "num_return_sequences", "return_dict_in_generate", "output_scores"),
    *("watermarking_config", "penalty_alpha", "dola_layers", "guidance_scale", "constraints", "force_words_ids"),
    *("renormalize_logits", "remove_invalid_values", "exponential_decay_length_penalty", "token_healing"),
    *("constrain", "allowed_labels", "allowed_characters"),
    *("prompt_lookup_num_tokens", "is_assistant", "num_assistant_tokens", "compile_config", "max_newtokens"),
)
"""Keyword arguments of predictions: those of transformers' `generate`, some that it has not, and the package's own."""

SETTING_VALUES = ("None", "0", "-1", "1.5", "nan", "inf", "10**9", "True", "'x'", "[]", "[5]", "{}", "object()", "int")
"""Odd values of generation settings."""


class CallTimeout(BaseException):
    """A call took longer than `TIME_LIMIT`. Not an `Exception`, so that no handler in between swallows it."""


def outcome(call: Callable[[], Any], time_limit: float = TIME_LIMIT) -> str:
    """Run a call and return "" if it passes, else one line that describes the foreign exception.

    A call passes if it returns, if it raises an exception of the package, or if a `raise` line of the package raises one of
    `PLAIN_ERRORS`.
    """
    try:
        with _time_limit(time_limit), _restored_registries(), _quiet():
            call()
    except FlorenceLabError:
        return ""
    except (Exception, CallTimeout, SystemExit) as error:
        return "" if _is_own(error) else describe(error)
    return ""


def describe(error: BaseException) -> str:
    """Return type, message and place of an exception: the last line of the package, and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if PACKAGE in Path(frame.filename).parents]
    places = [f"{Path(frame.filename).relative_to(PACKAGE)}:{frame.lineno}" for frame in own[-1:]]
    if frames and (not own or frames[-1] is not own[-1]):
        places.append(f"{Path(frames[-1].filename).name}:{frames[-1].lineno}")
    message = " ".join(str(error).encode("utf-8", "backslashreplace").decode().split())
    return f"{type(error).__name__}: {message[:120]} at {' > '.join(places)}"


def use(value: Any, samples: Samples) -> Any:
    """Use a returned value as a caller would: iterate, convert a result, draw a figure, ask about an encoded image."""
    if isinstance(value, (str, bytes)) or value is None:
        return value
    if hasattr(value, "__next__"):
        return [item for item, _ in zip(value, range(MAX_ITEMS), strict=False)]
    if isinstance(value, florence_lab.Result):
        for conversion in (value.to_dict, value.to_coco, value.to_dataframe, value.to_supervision, value._repr_png_):
            conversion()
    if isinstance(value, florence_lab.EncodedImage):
        samples.predictor.predict(value, "<CAPTION>")
    if isinstance(value, florence_lab.Prompt):
        samples.template.parse_text("a", value, (64, 48))
    return value


def _public_names() -> Iterator[tuple[Any, tuple[str, ...]]]:
    yield florence_lab, tuple(florence_lab.__all__)
    for room in ROOMS:
        module = importlib.import_module(f"florence_lab.{room}")
        defined = [name for name, item in vars(module).items() if getattr(item, "__module__", "") == module.__name__]
        yield module, tuple(getattr(module, "__all__", [name for name in defined if not name.startswith("_")]))


def _class_targets(name: str, cls: type) -> Iterator[Target]:
    if issubclass(cls, (BaseException, Warning)) or inspect.isabstract(cls):
        return
    yield Target(name, cls)
    for attribute in dir(cls):
        found = inspect.getattr_static(cls, attribute)
        is_class_method = isinstance(found, classmethod)
        function = found.__func__ if is_class_method else found
        is_public = not attribute.startswith("_") or attribute in ("__getitem__", "__call__")
        if inspect.isfunction(function) and is_public and function.__module__.startswith("florence_lab"):
            bound = getattr(cls, attribute) if is_class_method else function
            yield Target(f"{name}.{attribute}", bound, "" if is_class_method else name)


def _is_own(error: BaseException) -> bool:
    """Whether a `raise` line of the package raised it, or Python names the path that could not be opened."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, OSError) and error.filename is not None:
        return True
    if not frames or PACKAGE not in Path(frames[-1].filename).parents:
        return False
    line = linecache.getline(frames[-1].filename, frames[-1].lineno or 0).strip()
    return isinstance(error, PLAIN_ERRORS) and line.startswith("raise ")


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise CallTimeout(f"took over {seconds:g} s")

    timers = {
        signal.SIGPROF: (signal.ITIMER_PROF, seconds),
        signal.SIGALRM: (signal.ITIMER_REAL, _WAITING_FACTOR * seconds),
    }
    previous = {number: signal.signal(number, stop) for number in timers}
    for timer, limit in timers.values():
        signal.setitimer(timer, limit, 1)  # again each second, if a C function discards the exception
    try:
        yield
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, previous[number])


@contextlib.contextmanager
def _restored_registries() -> Iterator[None]:
    """Undo what a call registers."""
    registries: tuple[dict[Any, Any], ...] = (tasks.TASKS, sprites.SPRITES)
    before = [dict(registry) for registry in registries]
    try:
        yield
    finally:
        for registry, content in zip(registries, before, strict=True):
            registry.clear()
            registry.update(content)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    from matplotlib import pyplot

    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            pyplot.close("all")
