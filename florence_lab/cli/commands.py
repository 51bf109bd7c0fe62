"""The commands of `florence-lab`: the options of each, and the function that runs it.

Modules that import torch are imported inside the functions, so that `--help` is fast.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..argument_validation import Range
from ..exceptions import ArgumentError
from ..finetuning.arguments import SftArguments
from ..finetuning.launch import launch_processes
from ..loading.registry import MODELS, available_models
from ..output_files import prepare_output_file, prepare_output_folder
from ..pretraining.arguments import PretrainArguments
from .arguments import (
    add_checkpoint_arguments,
    add_dataclass_arguments,
    add_model_arguments,
    generate_kwargs,
    load_predictor,
    number_parser,
    parse_bool,
    parse_duration,
    to_dataclass,
)
from .infer import add_infer_arguments, run_infer
from .label import add_label_arguments, run_label

if TYPE_CHECKING:
    from ..predictor import Predictor


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        help: one line for `florence-lab --help`.
        run: runs the command. Returns the exit status; None is 0.
        add_arguments: adds the options to the parser of the command; None if it has no options.
    """

    help: str
    run: Callable[[argparse.Namespace], int | None]
    add_arguments: Callable[[argparse.ArgumentParser], None] | None = None


def _add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument(
        "--out",
        default="florence-lab-demo",
        metavar="DIR",
        help="output folder (default: %(default)s)",
    )


def _run_demo(arguments: argparse.Namespace) -> None:
    prepare_output_folder("--out", arguments.out)
    from .demo import run_demo

    run_demo(load_predictor(arguments), arguments.out)


def _add_explore_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model_type",
        default="florence-2-nano",
        help=f"model selected at the start: {', '.join(available_models())}, a folder or a hub id (default: %(default)s)",
    )
    parser.add_argument(
        "--port",
        type=number_parser("port", int),
        default=8866,
        help="port of the local web page (default: %(default)s)",
    )
    parser.add_argument(
        "--ip",
        default="127.0.0.1",
        help="address to listen at; by default only this machine can reach the page. At another address, such as 0.0.0.0, the "
        "page needs a token, and visitors can use uploads and samples but no paths and URLs (default: %(default)s)",
    )
    parser.add_argument(
        "--token",
        default="",
        help="secret of at least 8 letters and digits that the link ends with; other users of this machine can read it in the "
        "list of processes (default: a random one if --ip is given)",
    )
    parser.add_argument(
        "--max_visitors",
        type=number_parser("max_visitors", int, Range(1)),
        default=8,
        help="maximum number of open pages; each has a process of its own (default: %(default)s)",
    )
    parser.add_argument(
        "--no_browser",
        action="store_true",
        help="print the address of the page without opening it; a page with a token is never opened",
    )


def _run_explore(arguments: argparse.Namespace) -> None:
    from ..explorer.page import serve

    serve(
        arguments.model_type,
        arguments.port,
        not arguments.no_browser,
        arguments.ip,
        arguments.token,
        arguments.max_visitors,
    )


def _add_scenes_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--count", type=number_parser("count", int), default=1000, help="number of scenes (default: %(default)s)"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="output folder: images, COCO JSON and JSON lines")
    parser.add_argument(
        "--size",
        type=number_parser("size", int, Range(1)),
        default=512,
        help="width and height in pixels (default: %(default)s)",
    )
    parser.add_argument("--held_out", action="store_true", help="use held-out seeds, which training never uses")


def _run_scenes(arguments: argparse.Namespace) -> None:
    from ..scenes import HELD_OUT_SEEDS, TRAIN_SEEDS, write_dataset
    from ..scenes.scene import check_size

    seeds = HELD_OUT_SEEDS if arguments.held_out else TRAIN_SEEDS
    if arguments.count > len(seeds):
        raise ArgumentError(f"--count must be 1 to {len(seeds)}, got {arguments.count}")
    check_size(arguments.size)
    prepare_output_folder("--out", arguments.out)
    write_dataset(arguments.out, seeds[: arguments.count], arguments.size)
    print(arguments.out)


def _add_eval_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    add_checkpoint_arguments(parser)
    parser.add_argument(
        "--dataset",
        default="scenes",
        help="scenes, scenes:COUNT (held-out scenes), or a dataset as for sft (default: 500 held-out scenes)",
    )
    parser.add_argument(
        "--suite",
        metavar="NAME",
        help="a published benchmark instead of --dataset, scored by its official code and compared with the model card: "
        "coco-detection, coco-caption, nocaps, textcaps, flickr30k, refcoco, refcoco+, refcocog, res, vqav2, textvqa, docvqa",
    )
    parser.add_argument("--root", metavar="DIR", help="the published files of --suite, in their published layout")
    parser.add_argument("--split", help="split of --suite (default: the one that the model card gives first)")
    parser.add_argument(
        "--limit",
        type=number_parser("limit", int, Range(1)),
        help="maximum number of questions of --suite, a random choice (default: all)",
    )
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="task tokens, <OD> or OD (default: all)")
    parser.add_argument(
        "--batch_size",
        type=number_parser("batch_size", int),
        default=16,
        help="images in a batch (default: %(default)s)",
    )
    parser.add_argument(
        "--num_beams",
        type=number_parser("num_beams", int),
        help="beams; 1 decodes greedily (default: the checkpoint's)",
    )
    parser.add_argument(
        "--absence",
        nargs="*",
        metavar="NAME",
        help="also ask for what the images of a dataset with <OD> answers do not contain: names of the dataset, chosen as in "
        "POPE, and these names, if any",
    )
    parser.add_argument(
        "--compare",
        metavar="DIR",
        help="output folder of an earlier run, with which this one is compared answer by answer",
    )
    parser.add_argument(
        "--out",
        default="florence-lab-eval",
        metavar="DIR",
        help="output folder for metrics, predictions and the worst examples (default: %(default)s)",
    )


def _run_eval(arguments: argparse.Namespace) -> None:
    from ..tasks import get_task
    from .evaluation import evaluate_benchmark, evaluate_dataset

    def load() -> Predictor:
        prepare_output_folder("--out", arguments.out)
        return load_predictor(arguments)

    tasks = list(dict.fromkeys(get_task(name).token for name in arguments.tasks or ())) or None
    if arguments.suite is not None:
        suite = evaluate_benchmark(
            load,
            arguments.suite,
            arguments.root,
            arguments.out,
            arguments.split,
            arguments.limit,
            tasks,
            arguments.batch_size,
            **generate_kwargs(arguments, ["num_beams"]),
        )
        print(suite.to_text(), flush=True)
        print(f"\nmetrics, answers and the file for the official scorer: {suite.save().resolve()}")
        return
    for name in ("root", "split", "limit"):
        if getattr(arguments, name) is not None:
            raise ArgumentError(f"--{name} belongs to --suite")
    evaluation = evaluate_dataset(
        load,
        arguments.dataset,
        tasks,
        arguments.batch_size,
        arguments.absence,
        **generate_kwargs(arguments, ["num_beams"]),
    )
    if arguments.compare is not None:
        evaluation = evaluation.compare(arguments.compare)
    print(evaluation.to_text(), flush=True)
    print(f"\nmetrics, predictions and the worst examples: {evaluation.save(arguments.out).resolve()}")


def _add_pretrain_arguments(parser: argparse.ArgumentParser) -> None:
    add_dataclass_arguments(parser, PretrainArguments)


def _run_pretrain(arguments: argparse.Namespace) -> None:
    options = to_dataclass(arguments, PretrainArguments)
    prepare_output_folder("--out", options.out)
    from ..pretraining.loop import pretrain

    print(pretrain(options))


def _add_sft_arguments(parser: argparse.ArgumentParser) -> None:
    add_dataclass_arguments(parser, SftArguments)


def _run_sft(arguments: argparse.Namespace) -> None:
    options = to_dataclass(arguments, SftArguments)  # before processes are started, each of which would refuse them
    if os.environ.get("NPROC_PER_NODE") and "LOCAL_RANK" not in os.environ:
        launch_processes()
    options = to_dataclass(arguments, SftArguments)
    prepare_output_folder("--output_dir", options.output_dir)
    from ..finetuning.run import sft

    print(sft(options))


def _add_export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ckpt_dir", required=True, help="checkpoint of a fine-tuning run with LoRA")
    parser.add_argument(
        "--merge_lora", type=parse_bool, default=True, help="merge the adapter into the weights (default: true)"
    )
    parser.add_argument("--output_dir", metavar="DIR", help="output folder (default: CKPT_DIR-merged)")
    parser.add_argument("--model_id_or_path", help="base model of the adapter (default: the one that it names)")
    parser.add_argument("--hub", help="modelscope or hf (default: $FLORENCE_LAB_HUB, else modelscope)")


def _run_export(arguments: argparse.Namespace) -> None:
    if not arguments.merge_lora:
        raise ValueError(
            "--merge_lora false: there is nothing to export; infer and eval read an adapter with --ckpt_dir"
        )
    from ..finetuning.lora import merge_lora
    from ..loading.adapters import read_adapter_config

    checkpoint = Path(arguments.ckpt_dir)
    read_adapter_config(checkpoint)
    folder = Path(arguments.output_dir or checkpoint.with_name(f"{checkpoint.name}-merged"))
    prepare_output_folder("--output_dir", folder)
    if folder.samefile(checkpoint):
        raise ArgumentError(f"--output_dir {folder} is the folder of the adapter; give another one")
    print(merge_lora(checkpoint, folder, arguments.model_id_or_path, arguments.hub or None))


def _add_benchmark_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model_type",
        default="florence-2-base",
        help="model, folder or hub id; random weights of its size if it is not on this machine (default: %(default)s)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: %(default)s)")
    parser.add_argument(
        "--against",
        default="transformers",
        choices=("transformers", "nothing"),
        help="library to compare with (default: %(default)s)",
    )
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="ROW",
        help='rows to measure, such as "one answer" captions "LoRA step" (default: all)',
    )
    parser.add_argument(
        "--repeats",
        type=number_parser("repeats", int),
        default=5,
        help="repetitions of each row (default: %(default)s)",
    )
    parser.add_argument(
        "--time_limit",
        type=parse_duration,
        metavar="TIME",
        help="no row is started after this time, such as 5min; rows are repeated less often to keep to it (default: none)",
    )
    parser.add_argument(
        "--json",
        "--out",
        dest="json",
        default="florence-lab-benchmark.json",
        metavar="FILE",
        help="output file (default: %(default)s)",
    )


def _run_benchmark(arguments: argparse.Namespace) -> None:
    from ..benchmark.measure import ROWS, benchmark

    prepare_output_file("--json", arguments.json)
    report = benchmark(
        arguments.model_type,
        arguments.device,
        arguments.repeats,
        arguments.against,
        arguments.rows or ROWS,
        arguments.time_limit,
    )
    print(report, flush=True)  # before it is saved, which can fail
    print(f"\n{report.save(arguments.json).resolve()}")


def _run_models(arguments: argparse.Namespace) -> None:
    for model in MODELS.values():
        location = "ships with florence_lab" if model.path else f"{model.modelscope_id} · {model.hf_id}"
        print(f"{model.model_type:22}{location}\n{'':22}{model.description}")


def _run_tasks(arguments: argparse.Namespace) -> None:
    from ..tasks import TASKS

    for task in TASKS.values():
        takes = {"none": "", "any": " (takes a phrase, a region or nothing)"}.get(
            task.input, f" (takes a {task.input})"
        )
        print(f"{task.token:38}{task.description}{takes}")


COMMANDS: dict[str, Command] = {
    "infer": Command("answer prompts about images, in a session or at once", run_infer, add_infer_arguments),
    "demo": Command("run every task on sample images and draw all results", _run_demo, _add_demo_arguments),
    "explore": Command("open the explorer as a local web page", _run_explore, _add_explore_arguments),
    "scenes": Command("write a dataset of cartoon scenes with ground truth", _run_scenes, _add_scenes_arguments),
    "eval": Command("evaluate a model on held-out scenes or a dataset", _run_eval, _add_eval_arguments),
    "label": Command("label images with classes of your own, as a dataset", run_label, add_label_arguments),
    "benchmark": Command(
        "measure speed and memory, compared with transformers", _run_benchmark, _add_benchmark_arguments
    ),
    "pretrain": Command("train florence-2-nano from scratch", _run_pretrain, _add_pretrain_arguments),
    "sft": Command("fine-tune a model on a dataset", _run_sft, _add_sft_arguments),
    "export": Command("merge a LoRA adapter into its base model", _run_export, _add_export_arguments),
    "models": Command("list the models", _run_models),
    "tasks": Command("list the tasks", _run_tasks),
}
"""Command name -> command, in the order of `florence-lab --help`."""
