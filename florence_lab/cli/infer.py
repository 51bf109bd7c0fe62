"""The options of `florence-lab infer`, and the checks before its model is loaded."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..exceptions import ArgumentError, ImageError, shorten
from ..output_files import prepare_output_file, prepare_output_folder
from .arguments import (
    add_checkpoint_arguments,
    add_model_arguments,
    generate_kwargs,
    load_predictor,
    number_parser,
    parse_bool,
    parse_duration,
    parse_query,
)

if TYPE_CHECKING:
    from ..template.prompts import Prompt

REGION_FORMATS = ("xyxy", "xywh", "norm_1", "norm_1000")
"""Those of `template.locations`, which imports NumPy."""

_SOME_IMAGES_FAILED = 2
_FOR_IMAGES_ONLY = ("query", "images", "recursive", "region", "stream", "overlay", "caption_files")


def add_infer_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `florence-lab infer`."""
    add_model_arguments(parser)
    add_checkpoint_arguments(parser)
    parser.add_argument("--query", type=parse_query, help="prompt about --images, instead of an interactive session")
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="IMAGE",
        help="files, folders, patterns ('scans/*.png'), URLs and video files, for --query",
    )
    _add_flag(parser, "--recursive", "also take the images in the folders of a folder")
    parser.add_argument(
        "--every",
        type=parse_duration,
        default=1.0,
        metavar="TIME",
        help="time between the frames of a video (default: 1s)",
    )
    parser.add_argument(
        "--region",
        nargs=4,
        type=float,
        metavar=("X0", "Y0", "X1", "Y1"),
        help="region of a --query that takes one, such as <REGION_TO_CATEGORY>",
    )
    parser.add_argument(
        "--region_format",
        choices=REGION_FORMATS,
        default="xyxy",
        help="corners in pixels (xyxy), corner, width and height in pixels (xywh), or corners as shares of the image from 0 "
        "to 1 (norm_1) or 0 to 1000 (norm_1000) (default: %(default)s)",
    )
    parser.add_argument(
        "--val_dataset",
        nargs="+",
        help="answer all rows of these datasets instead of --images; needs --result_dir or --result_path",
    )
    parser.add_argument(
        "--batch_size",
        type=number_parser("batch_size", int),
        help="images or rows answered together (default: as many images as pay, 16 rows)",
    )
    parser.add_argument(
        "--stream", type=parse_bool, default=False, help="print the answer while it is generated (default: false)"
    )
    _add_generation_arguments(parser)
    parser.add_argument("--overlay", metavar="DIR", help="write each image with its result drawn on it to this folder")
    parser.add_argument("--result_dir", metavar="DIR", help="append each answer to answers.jsonl in this folder")
    parser.add_argument("--result_path", metavar="FILE", help="append each answer to this .jsonl file instead")
    _add_flag(parser, "--caption_files", "write the text of each answer beside its image, cat.txt for cat.jpg")


def _add_generation_arguments(parser: argparse.ArgumentParser) -> None:
    for name, number_type, text in (
        ("max_new_tokens", int, "maximum length of an answer (default: the checkpoint's)"),
        ("num_beams", int, "beams; 1 decodes greedily (default: the checkpoint's)"),
        ("temperature", float, "temperature of --do_sample (default: 1)"),
        ("top_p", float, "probability mass to sample from (default: 1)"),
        ("top_k", int, "number of tokens to sample from (default: 50)"),
    ):
        parser.add_argument(f"--{name}", type=number_parser(name, number_type), help=text)
    parser.add_argument("--do_sample", type=parse_bool, help="sample tokens (default: false)")
    parser.add_argument(
        "--seed", type=number_parser("seed", int), default=42, help="seed of --do_sample (default: %(default)s)"
    )
    parser.add_argument(
        "--constrain",
        nargs="?",
        const=True,
        type=parse_bool,
        metavar="BOOL",
        help="generate only what is a whole answer to the task (default: false)",
    )
    parser.add_argument(
        "--allowed_labels",
        type=lambda text: text.split(","),
        metavar="LABEL,LABEL",
        help="labels of the instances of an answer, or its whole text; others are not generated",
    )
    parser.add_argument("--allowed_characters", help="characters of words that are read, as in 0123456789-")


def _add_flag(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    """Add an option that is given alone or with `true` or `false`."""
    parser.add_argument(
        name, nargs="?", const=True, default=False, type=parse_bool, metavar="BOOL", help=f"{text} (default: false)"
    )


def run_infer(arguments: argparse.Namespace) -> int | None:
    """Answer a query about images, the rows of datasets, or the queries of a session.

    Returns:
        2 if images have no answer, else None.
    """
    arguments.result_dir, arguments.result_name = _answers_file(arguments)
    if arguments.val_dataset is not None:
        _infer_datasets(arguments)
        return None
    if (arguments.query is None) != (arguments.images is None):
        raise ArgumentError("--query and --images must be given together; without both, infer starts a session")
    for name in ("region", "caption_files"):
        if getattr(arguments, name) and arguments.query is None:
            raise ArgumentError(f"--{name} needs --query and --images")
    if arguments.stream and (arguments.num_beams or 1) > 1:
        raise ArgumentError(f"--stream supports num_beams=1 only, got {arguments.num_beams}")
    sources = _check_query(arguments) if arguments.query is not None else ()
    _prepare_folders(arguments)
    predictor = load_predictor(arguments)
    from ..inference.generation import resolve_generation_kwargs
    from .answers import AnswerWriter
    from .session import Session

    kwargs = generate_kwargs(arguments)
    limit = resolve_generation_kwargs(predictor.model, kwargs)["max_new_tokens"]
    session = Session(
        predictor,
        AnswerWriter(arguments.result_dir, arguments.overlay, arguments.caption_files, limit, arguments.result_name),
        stream=arguments.stream,
        seed=arguments.seed,
        batch_size=arguments.batch_size or "auto",
        generate_kwargs=kwargs,
    )
    if arguments.query is None:
        session.run()
        return None
    num_failed = session.answer_images(arguments.query, sources, arguments.region, arguments.region_format)
    return _SOME_IMAGES_FAILED if num_failed else None


def _answers_file(arguments: argparse.Namespace) -> tuple[str | None, str]:
    """The folder and the name of the file of answers."""
    if arguments.result_path is None:
        return arguments.result_dir, "answers.jsonl"
    if arguments.result_dir is not None:
        raise ArgumentError("--result_dir and --result_path both say where answers are written; give one of them")
    path = Path(arguments.result_path).expanduser()
    if path.suffix != ".jsonl" or path.is_dir():
        raise ArgumentError(
            f"--result_path {shorten(arguments.result_path)}: must be a .jsonl file; --result_dir is a folder"
        )
    return str(path.parent), path.name


def _check_query(arguments: argparse.Namespace) -> Iterable[Any]:
    """The images of the query. What is invalid fails before the model is loaded."""
    from ..sources import expand_sources
    from ..template.prompts import build_prompt

    prompt = build_prompt(
        arguments.query, arguments.region, warn_of_language=False, region_format=arguments.region_format
    )
    _check_constraint(arguments, prompt)
    if arguments.caption_files and prompt.task.result != "text":
        raise ArgumentError(f"--caption_files needs a query that is answered by a text; {prompt.task.name} is not")
    words = map(_to_source, arguments.images)
    sources = _list_files(expand_sources(list(words), arguments.recursive, arguments.every))
    if arguments.caption_files:
        no_files = (source.name for source in sources if not isinstance(source.image, (os.PathLike, ImageError)))
        if (name := next(no_files, None)) is not None:
            raise ArgumentError(f"--caption_files writes beside image files; {name} is a URL or a frame of a video")
    return sources


def _check_constraint(arguments: argparse.Namespace, prompt: Prompt) -> None:
    kwargs = generate_kwargs(arguments, ("constrain", "allowed_labels", "allowed_characters"))
    if kwargs:
        from ..inference.constraints import check_constraint

        check_constraint(kwargs, [prompt])


def _to_source(word: str) -> str | Path:
    """A path, a pattern or a URL. The name of a file may consist of bytes that are not UTF-8, unlike other texts."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return Path(word)
    return word


def _list_files(sources: Iterable[Any]) -> Iterable[Any]:
    """The sources as a list, which has a length for progress bars; an iterator if there are frames, which take memory."""
    from PIL import Image

    files = []
    iterator = iter(sources)
    for source in iterator:
        files.append(source)
        if isinstance(source.image, Image.Image):
            return chain(files, iterator)
    return files


def _prepare_folders(arguments: argparse.Namespace) -> None:
    """Verify that answers can be written before a model is loaded."""
    if arguments.overlay:
        prepare_output_folder("--overlay", arguments.overlay)
    if arguments.result_dir:
        folder = prepare_output_folder("--result_dir", arguments.result_dir)
        answers = prepare_output_file("--result_dir", folder / arguments.result_name)
        if arguments.val_dataset is None and answers.with_suffix(".settings.json").exists():
            raise ArgumentError(
                f"--result_dir {folder} has the answers to a dataset, of --val_dataset or eval; choose another folder"
            )


def _infer_datasets(arguments: argparse.Namespace) -> None:
    given = [name for name in _FOR_IMAGES_ONLY if getattr(arguments, name) not in (None, False)]
    if given:
        raise ArgumentError(f"--val_dataset cannot be combined with --{given[0]}")
    if not arguments.result_dir:
        raise ArgumentError("--val_dataset needs --result_dir, the folder for the answers, or --result_path")
    from ..data.datasets import check_datasets
    from ..evaluation.prediction_files import read_predictions
    from ..evaluation.prediction_runs import predict_dataset
    from ..swift import seed_everything

    check_datasets(arguments.val_dataset, split="held_out")
    _prepare_folders(arguments)
    if (path := Path(arguments.result_dir) / arguments.result_name).exists():
        read_predictions(path)  # fails for other content
    predictor = load_predictor(arguments)
    seed_everything(arguments.seed)
    print(
        predict_dataset(
            predictor,
            arguments.val_dataset,
            Path(arguments.result_dir),
            arguments.batch_size or 16,
            file_name=arguments.result_name,
            **generate_kwargs(arguments),
        )
    )
