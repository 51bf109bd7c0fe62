"""The options of `florence-lab label`."""

from __future__ import annotations

import argparse
import os

from ..argument_validation import Range
from .arguments import (
    GENERATE_OPTIONS,
    add_checkpoint_arguments,
    add_model_arguments,
    generate_kwargs,
    number_parser,
    parse_bool,
)

FORMATS = ("yolo", "coco", "voc", "jsonl", "parquet")
"""Those of `labeling.writers.WRITERS`, which imports NumPy."""

_CLASS_FILES = (".yaml", ".yml", ".json", ".txt")
_SOME_IMAGES_FAILED = 2  # exit status
_GENERATE_OPTIONS = tuple(name for name in GENERATE_OPTIONS if name in ("max_new_tokens", "num_beams"))


def add_label_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `florence-lab label`."""
    _add_dataset_arguments(parser)
    _add_answer_arguments(parser)
    _add_detection_arguments(parser)
    _add_engine_arguments(parser)
    add_model_arguments(parser)
    add_checkpoint_arguments(parser)
    for name in _GENERATE_OPTIONS:
        parser.add_argument(f"--{name}", type=number_parser(name, int), help="as for infer (default: the checkpoint's)")


def _add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """The images, the classes and the files that are written."""
    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="folders, patterns ('scans/*.png'), files, videos, URLs, WebDataset shards (.tar) and Parquet files",
    )
    parser.add_argument("--recursive", action="store_true", help="also take the images in the folders of a folder")
    parser.add_argument(
        "--classes",
        required=True,
        nargs="+",
        metavar="CLASS",
        help="a .yaml file with class: phrase or phrases, or a list of classes; or the names of classes",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="output folder of the dataset")
    parser.add_argument("--format", choices=FORMATS, default="yolo", help="(default: %(default)s)")
    parser.add_argument(
        "--split", metavar="SHARES", help="train, val and test, as in 0.8/0.1/0.1 (default: all in train)"
    )


def _add_answer_arguments(parser: argparse.ArgumentParser) -> None:
    """What is asked besides boxes."""
    parser.add_argument(
        "--masks",
        nargs="?",
        const=True,
        default=False,
        metavar="SAM2",
        help="also outline objects: with Florence-2's polygons, or with SAM 2 (sam2, sam2-tiny, sam2-large, a hub id, a folder)",
    )
    parser.add_argument(
        "--captions",
        nargs="*",
        metavar="TASK",
        help="also describe each image: <CAPTION>, or these tasks without input (default: no captions)",
    )
    parser.add_argument("--ocr", action="store_true", help="also read the text in each image")
    parser.add_argument(
        "--attributes",
        nargs="*",
        metavar="TASK",
        help="also describe each object: <REGION_TO_DESCRIPTION>, or these tasks about a region (default: no attributes)",
    )


def _add_detection_arguments(parser: argparse.ArgumentParser) -> None:
    """Which boxes are kept."""
    parser.add_argument(
        "--review",
        nargs=2,
        type=number_parser("threshold", float),
        metavar=("LOW", "HIGH"),
        help="mark the objects with scores from LOW to HIGH; LOW is then the least score that is kept",
    )
    parser.add_argument(
        "--threshold",
        type=number_parser("threshold", float),
        help="least score of an object (default: 0.5 of the verified score)",
    )
    parser.add_argument(
        "--strategy", nargs="+", default=["auto"], help="what is asked, see Predictor.detect (default: auto)"
    )
    parser.add_argument(
        "--verify",
        type=parse_bool,
        default=True,
        help="ask the model what it calls each region; without it absent classes get boxes, too (default: true)",
    )


def _add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """How the work is distributed."""
    parser.add_argument(
        "--batch_size",
        type=number_parser("batch_size", int),
        default=8,
        help="images labelled together, which an interruption loses at most (default: %(default)s)",
    )
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray uses several processes or machines (default: local)",
    )
    parser.add_argument("--address", help="of a running Ray cluster, or auto (default: start Ray on this machine)")
    parser.add_argument(
        "--num_actors",
        type=number_parser("num_actors", int, Range(1)),
        help="Ray processes with a model (default: one for each GPU, or one for each CPU but one)",
    )
    parser.add_argument(
        "--gpus_per_actor",
        type=number_parser("gpus_per_actor", float, Range(0, 1)),
        help="share of a GPU for each Ray process (default: 1 where there are GPUs)",
    )


def run_label(arguments: argparse.Namespace) -> int | None:
    """Label images and print a summary.

    Returns:
        2 if images could not be read, as `infer`; else None. The dataset is written in both cases.
    """
    from ..labeling.labelling import label

    options = {
        "device": arguments.device,
        "dtype": arguments.dtype,
        "hub": arguments.hub or None,
        "compile": arguments.compile,
        "quantize": arguments.quantize,
        "base": arguments.model_id_or_path if arguments.ckpt_dir else None,
        "processor": arguments.processor,
    }
    report = label(
        arguments.images,
        _parse_classes(arguments.classes),
        arguments.out,
        arguments.format,
        arguments.ckpt_dir or arguments.model_id_or_path or arguments.model_type,
        split=arguments.split,
        masks=arguments.masks,
        captions=_parse_tasks(arguments.captions),
        ocr=arguments.ocr,
        attributes=_parse_tasks(arguments.attributes),
        review=arguments.review,
        recursive=arguments.recursive,
        threshold=arguments.threshold,
        strategy=arguments.strategy[0] if len(arguments.strategy) == 1 else arguments.strategy,
        verify=arguments.verify,
        batch_size=arguments.batch_size,
        engine=arguments.engine,
        address=arguments.address,
        num_actors=arguments.num_actors,
        gpus_per_actor=arguments.gpus_per_actor,
        load_kwargs=options,
        **generate_kwargs(arguments, _GENERATE_OPTIONS),
    )
    print(report)
    return _SOME_IMAGES_FAILED if report.num_errors else None


def _parse_tasks(words: list[str] | None) -> bool | list[str]:
    """Task tokens; True for an option without any, False for none."""
    return words is not None and (words or True)


def _parse_classes(words: list[str]) -> str | list[str]:
    """The path of a file, or names. A single word is a path if it ends as one, or if there is such a file."""
    is_file = len(words) == 1 and (words[0].lower().endswith(_CLASS_FILES) or os.path.isfile(words[0]))
    return words[0] if is_file else words
