"""The commands of `florence-lab`: the options of each, and the function that runs it.

Modules that import torch are imported inside the functions, so that `--help` is fast.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass

from ..finetuning.arguments import SftArguments
from ..finetuning.launch import launch_processes
from ..loading.registry import MODELS, available_models
from ..pretraining.arguments import PretrainArguments
from .arguments import (
    add_checkpoint_arguments,
    add_dataclass_arguments,
    add_model_arguments,
    generate_kwargs,
    load_predictor,
    parse_bool,
    to_dataclass,
)

_SOME_IMAGES_FAILED = 2


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


def _add_infer_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    add_checkpoint_arguments(parser)
    parser.add_argument("--query", help="prompt about --images, instead of an interactive session")
    parser.add_argument("--images", nargs="+", metavar="IMAGE", help="paths or URLs, for --query")
    parser.add_argument(
        "--val_dataset", nargs="+", help="answer all rows of these datasets instead of --images; needs --result_dir"
    )
    parser.add_argument(
        "--stream", type=parse_bool, default=False, help="print the answer while it is generated (default: false)"
    )
    parser.add_argument("--max_new_tokens", type=int, help="maximum length of an answer (default: the checkpoint's)")
    parser.add_argument("--num_beams", type=int, help="beams; 1 decodes greedily (default: the checkpoint's)")
    parser.add_argument("--do_sample", type=parse_bool, help="sample tokens (default: false)")
    parser.add_argument("--temperature", type=float, help="temperature of --do_sample (default: 1)")
    parser.add_argument("--top_p", type=float, help="probability mass to sample from (default: 1)")
    parser.add_argument("--top_k", type=int, help="number of tokens to sample from (default: 50)")
    parser.add_argument("--seed", type=int, default=42, help="seed of --do_sample (default: %(default)s)")
    parser.add_argument("--overlay", metavar="DIR", help="write each image with its result drawn on it to this folder")
    parser.add_argument("--result_dir", metavar="DIR", help="append each answer to answers.jsonl in this folder")


def _run_infer(arguments: argparse.Namespace) -> int | None:
    if (arguments.query is None) != (arguments.images is None):
        raise ValueError("--query and --images must be given together; without both, infer starts a session")
    if arguments.val_dataset and not arguments.result_dir:
        raise ValueError("--val_dataset needs --result_dir, the folder for the answers")
    if arguments.val_dataset:
        _infer_datasets(arguments)
        return None
    if arguments.query is not None:
        from ..template.prompts import build_prompt

        build_prompt(arguments.query, warn_of_language=False)  # an invalid one fails before the model is loaded
    predictor = load_predictor(arguments)
    from .session import Session

    session = Session(
        predictor,
        stream=arguments.stream,
        seed=arguments.seed,
        overlay_dir=arguments.overlay,
        result_dir=arguments.result_dir,
        generate_kwargs=generate_kwargs(arguments),
    )
    if arguments.query is None:
        session.run()
        return None
    return _SOME_IMAGES_FAILED if session.answer_images(arguments.query, arguments.images) else None


def _infer_datasets(arguments: argparse.Namespace) -> None:
    from ..data.datasets import check_datasets
    from ..evaluation.predictions import predict_dataset

    check_datasets(arguments.val_dataset, split="held_out")
    predictor = load_predictor(arguments)
    print(predict_dataset(predictor, arguments.val_dataset, arguments.result_dir, **generate_kwargs(arguments)))


def _add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument(
        "--out", default="florence-lab-demo", metavar="DIR", help="output folder (default: %(default)s)"
    )


def _run_demo(arguments: argparse.Namespace) -> None:
    from .demo import run_demo

    run_demo(load_predictor(arguments), arguments.out)


def _add_explore_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model_type",
        default="florence-2-nano",
        help=f"model selected at the start: {', '.join(available_models())}, a folder or a hub id (default: %(default)s)",
    )
    parser.add_argument("--port", type=int, default=8866, help="port of the local web page (default: %(default)s)")
    parser.add_argument("--no_browser", action="store_true", help="print the address of the page without opening it")


def _run_explore(arguments: argparse.Namespace) -> None:
    from ..explorer.page import serve

    serve(arguments.model_type, arguments.port, not arguments.no_browser)


def _add_scenes_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=1000, help="number of scenes (default: %(default)s)")
    parser.add_argument("--out", required=True, metavar="DIR", help="output folder: images, COCO JSON and JSON lines")
    parser.add_argument("--size", type=int, default=512, help="width and height in pixels (default: %(default)s)")
    parser.add_argument("--held_out", action="store_true", help="use held-out seeds, which training never uses")


def _run_scenes(arguments: argparse.Namespace) -> None:
    from ..scenes import HELD_OUT_SEEDS, TRAIN_SEEDS, write_dataset

    seeds = HELD_OUT_SEEDS if arguments.held_out else TRAIN_SEEDS
    if not 0 < arguments.count <= len(seeds):
        raise ValueError(f"--count must be 1 to {len(seeds)}, got {arguments.count}")
    if arguments.size < 1:
        raise ValueError(f"--size must be 1 or more, got {arguments.size}")
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
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="task tokens, <OD> or OD (default: all)")
    parser.add_argument("--batch_size", type=int, default=16, help="images in a batch (default: %(default)s)")
    parser.add_argument("--num_beams", type=int, help="beams; 1 decodes greedily (default: the checkpoint's)")
    parser.add_argument(
        "--out",
        default="florence-lab-eval",
        metavar="DIR",
        help="output folder for metrics, predictions and the worst examples (default: %(default)s)",
    )


def _run_eval(arguments: argparse.Namespace) -> None:
    from ..tasks import get_task
    from .evaluation import evaluate_dataset

    tasks = [get_task(name).token for name in arguments.tasks or ()] or None
    evaluation = evaluate_dataset(
        lambda: load_predictor(arguments),
        arguments.dataset,
        tasks,
        arguments.batch_size,
        **generate_kwargs(arguments, ["num_beams"]),
    )
    print(evaluation.to_dataframe().to_string(index=False, float_format="{:.3f}".format, na_rep="-"))
    print(f"\nmetrics, predictions and the worst examples: {evaluation.save(arguments.out).resolve()}")


def _add_pretrain_arguments(parser: argparse.ArgumentParser) -> None:
    add_dataclass_arguments(parser, PretrainArguments)


def _run_pretrain(arguments: argparse.Namespace) -> None:
    from ..pretraining.loop import pretrain

    print(pretrain(to_dataclass(arguments, PretrainArguments)))


def _add_sft_arguments(parser: argparse.ArgumentParser) -> None:
    add_dataclass_arguments(parser, SftArguments)


def _run_sft(arguments: argparse.Namespace) -> None:
    options = to_dataclass(arguments, SftArguments)  # before processes are started, each of which would refuse them
    if os.environ.get("NPROC_PER_NODE") and "LOCAL_RANK" not in os.environ:
        launch_processes()
    from ..finetuning.run import sft

    print(sft(options))


def _add_export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ckpt_dir", required=True, help="checkpoint of a fine-tuning run with LoRA")
    parser.add_argument(
        "--merge_lora", type=parse_bool, default=True, help="merge the adapter into the weights (default: true)"
    )
    parser.add_argument("--output_dir", metavar="DIR", help="output folder (default: CKPT_DIR-merged)")


def _run_export(arguments: argparse.Namespace) -> None:
    if not arguments.merge_lora:
        raise ValueError(
            "--merge_lora false: there is nothing to export; infer and eval read an adapter with --ckpt_dir"
        )
    from ..finetuning.lora import merge_lora

    print(merge_lora(arguments.ckpt_dir, arguments.output_dir))


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
    parser.add_argument("--repeats", type=int, default=5, help="repetitions of each measurement (default: %(default)s)")
    parser.add_argument(
        "--out", default="florence-lab-benchmark.json", metavar="FILE", help="output file (default: %(default)s)"
    )


def _run_benchmark(arguments: argparse.Namespace) -> None:
    from ..benchmark.measure import benchmark

    report = benchmark(arguments.model_type, arguments.device, arguments.repeats, arguments.against)
    print(f"{report}\n\n{report.save(arguments.out).resolve()}")


def _run_models(arguments: argparse.Namespace) -> None:
    for model in MODELS.values():
        location = "ships with florence_lab" if model.path else f"{model.modelscope_id} · {model.hf_id}"
        print(f"{model.model_type:22}{location}\n{'':22}{model.description}")


def _run_tasks(arguments: argparse.Namespace) -> None:
    from ..tasks import TASKS

    for task in TASKS.values():
        takes = "" if task.input == "none" else f" (takes a {task.input})"
        print(f"{task.token:38}{task.description}{takes}")


COMMANDS: dict[str, Command] = {
    "infer": Command("answer prompts about images, in a session or at once", _run_infer, _add_infer_arguments),
    "demo": Command("run every task on sample images and draw all results", _run_demo, _add_demo_arguments),
    "explore": Command("open the explorer as a local web page", _run_explore, _add_explore_arguments),
    "scenes": Command("write a dataset of cartoon scenes with ground truth", _run_scenes, _add_scenes_arguments),
    "eval": Command("evaluate a model on held-out scenes or a dataset", _run_eval, _add_eval_arguments),
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
