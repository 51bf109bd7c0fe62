"""TODO"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from ..finetuning.arguments import SftArguments
from ..finetuning.launch import launch_processes
from ..loading.registry import MODELS, available_models
from ..pretraining.arguments import PretrainArguments
from .arguments import GENERATION, _add_fields, _add_model_arguments, _add_which_model, _boolean, _fields_of, _load


def _add_infer_arguments(command: argparse.ArgumentParser) -> None:
    _add_model_arguments(command)
    _add_which_model(command)
    command.add_argument("--query", help="one question, without a session; needs --images")
    command.add_argument("--images", nargs="+", metavar="IMAGE", help="paths or URLs for --query")
    command.add_argument(
        "--val_dataset", nargs="+", help="answers all rows of these datasets instead; needs --result_dir"
    )
    command.add_argument("--stream", type=_boolean, default=False, help="show the answer as it grows (default: false)")
    command.add_argument("--max_new_tokens", type=int, help="the longest answer, in tokens (default: 1024)")
    command.add_argument("--num_beams", type=int, help="1 is greedy (default: the checkpoint's)")
    command.add_argument("--do_sample", type=_boolean, help="draw tokens at random (default: false)")
    command.add_argument("--temperature", type=float)
    command.add_argument("--top_p", type=float)
    command.add_argument("--top_k", type=int)
    command.add_argument("--seed", type=int, default=42, help="for --do_sample (default: %(default)s)")
    command.add_argument("--overlay", metavar="DIR", help="save each picture with its overlay there")
    command.add_argument("--result_dir", metavar="DIR", help="append each answer to answers.jsonl there")


def _run_infer(arguments: argparse.Namespace) -> None:
    if (arguments.query is None) != (arguments.images is None):
        raise ValueError("--query and --images go together; without both, infer opens a session")
    if arguments.val_dataset and not arguments.result_dir:
        raise ValueError("--val_dataset needs --result_dir, a folder for the answers")
    generation = {name: v for name in GENERATION if (v := getattr(arguments, name)) is not None}
    predictor = _load(arguments)
    if arguments.val_dataset:
        from ..evaluation.predictions import predict_dataset

        print(predict_dataset(predictor, arguments.val_dataset, arguments.result_dir, **generation))
        return
    from .session import Session

    Session(
        predictor,
        stream=arguments.stream,
        seed=arguments.seed,
        overlay_dir=arguments.overlay,
        result_dir=arguments.result_dir,
        generation=generation,
    ).run(arguments.query, arguments.images)


def _add_demo_arguments(command: argparse.ArgumentParser) -> None:
    _add_model_arguments(command)
    command.add_argument(
        "--out", default="florence-lab-demo", metavar="DIR", help="where the gallery goes (default: %(default)s)"
    )


def _run_demo(arguments: argparse.Namespace) -> None:
    from .demo import run_demo

    run_demo(_load(arguments), arguments.out)


def _add_explore_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model_type",
        default="florence-2-nano",
        help=f"{', '.join(available_models())}, a folder or a hub id; another can be chosen there (default: %(default)s)",
    )
    command.add_argument("--port", type=int, default=8866, help="of the page on this machine (default: %(default)s)")
    command.add_argument("--no_browser", action="store_true", help="open no browser, only say where the page is")


def _run_explore(arguments: argparse.Namespace) -> None:
    from ..explorer.page import serve

    serve(arguments.model_type, arguments.port, not arguments.no_browser)


def _add_scenes_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--count", type=int, default=1000, help="how many scenes (default: %(default)s)")
    command.add_argument("--out", required=True, metavar="DIR", help="a folder for pictures, COCO JSON and JSON lines")
    command.add_argument("--size", type=int, default=512, help="pixels a side (default: %(default)s)")
    command.add_argument("--held_out", action="store_true", help="from the seeds that no training sees")


def _run_scenes(arguments: argparse.Namespace) -> None:
    from ..scenes import HELD_OUT_SEEDS, TRAIN_SEEDS, write_dataset

    seeds = HELD_OUT_SEEDS if arguments.held_out else TRAIN_SEEDS
    if not 0 < arguments.count <= len(seeds):
        raise ValueError(f"--count {arguments.count}: give 1 to {len(seeds)}")
    write_dataset(arguments.out, seeds[: arguments.count], arguments.size)
    print(arguments.out)


def _add_eval_arguments(command: argparse.ArgumentParser) -> None:
    _add_model_arguments(command)
    _add_which_model(command)
    command.add_argument(
        "--dataset",
        default="scenes",
        help="scenes, scenes:COUNT, or a dataset as for sft (default: 500 held-out scenes)",
    )
    command.add_argument("--tasks", nargs="+", metavar="TASK", help="task tokens, as <OD> or OD (default: all)")
    command.add_argument("--batch_size", type=int, default=16, help="pictures asked together (default: %(default)s)")
    command.add_argument("--num_beams", type=int, help="1 is greedy (default: the checkpoint's)")
    command.add_argument(
        "--out", default="florence-lab-eval", metavar="DIR", help="for the figures, the answers and the worst of them"
    )


def _run_eval(arguments: argparse.Namespace) -> None:
    from ..data.datasets import check_datasets, load_examples, parse_datasets
    from ..data.readers.scenes import ScenesReader
    from ..data.validation import RowValidator
    from ..evaluation import evaluate, evaluate_scenes
    from ..exceptions import DatasetError
    from ..tasks import get_task

    tasks = [get_task(name).token for name in arguments.tasks or ()] or None
    check_datasets([arguments.dataset], split="held_out")
    (spec,) = parse_datasets([arguments.dataset], split="held_out")
    predictor = _load(arguments)
    generation = {"num_beams": arguments.num_beams} if arguments.num_beams is not None else {}
    if spec.kind == "scenes":
        seeds = ScenesReader(spec).seeds
        evaluation = evaluate_scenes(predictor, seeds, tasks, arguments.batch_size, **generation)
    else:
        loaded = load_examples([spec], RowValidator(predictor.template))
        examples = [e for e in loaded.require_valid() if not tasks or e.prompt.task.token in tasks]
        if not examples:
            raise DatasetError(f"{arguments.dataset} has no examples of {', '.join(tasks or ['any task'])}")
        evaluation = evaluate(predictor, examples, arguments.batch_size, **generation)
    print(evaluation.to_dataframe().to_string(index=False, float_format="{:.3f}".format, na_rep="-"))
    if evaluation.errors:
        print(f"\n{len(evaluation.errors)} examples have no prediction, see answers.jsonl")
    print(f"\nmetrics, answers, the worst of them: {evaluation.save(arguments.out).resolve()}")


def _add_pretrain_arguments(command: argparse.ArgumentParser) -> None:
    _add_fields(command, PretrainArguments)


def _run_pretrain(arguments: argparse.Namespace) -> None:
    from ..pretraining.loop import pretrain

    print(pretrain(PretrainArguments(**_fields_of(arguments, PretrainArguments))))


def _add_sft_arguments(command: argparse.ArgumentParser) -> None:
    _add_fields(command, SftArguments)


def _run_sft(arguments: argparse.Namespace) -> None:
    if os.environ.get("NPROC_PER_NODE") and "LOCAL_RANK" not in os.environ:
        launch_processes()
    from ..finetuning.run import sft

    print(sft(SftArguments(**_fields_of(arguments, SftArguments))))


def _add_export_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--ckpt_dir", required=True, help="a checkpoint that fine-tuning with LoRA wrote")
    command.add_argument(
        "--merge_lora", type=_boolean, default=True, help="add the adapter to the weights (default: true)"
    )
    command.add_argument("--output_dir", metavar="DIR", help="the new folder (default: CKPT_DIR-merged)")


def _run_export(arguments: argparse.Namespace) -> None:
    if not arguments.merge_lora:
        raise ValueError(
            "--merge_lora false: there is nothing else to export; an adapter is used as it is, with --ckpt_dir"
        )
    from ..finetuning.lora import merge_lora

    print(merge_lora(arguments.ckpt_dir, arguments.output_dir))


def _add_benchmark_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model_type",
        default="florence-2-base",
        help="a model, a folder or a hub id; random weights of its size, if it is not at hand (default: %(default)s)",
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: %(default)s)")
    command.add_argument(
        "--against", default="transformers", choices=("transformers", "nothing"), help="what it is compared with"
    )
    command.add_argument("--repeats", type=int, default=5, help="measurements of each (default: %(default)s)")
    command.add_argument(
        "--out", default="florence-lab-benchmark.json", metavar="FILE", help="for the figures (default: %(default)s)"
    )


def _run_benchmark(arguments: argparse.Namespace) -> None:
    from ..benchmark.measure import benchmark

    measured = benchmark(arguments.model_type, arguments.device, arguments.repeats, arguments.against)
    print(f"{measured}\n\n{measured.save(arguments.out).resolve()}")


def _run_models(arguments: argparse.Namespace) -> None:
    for model in MODELS.values():
        where = "ships with florence_lab" if model.path else f"{model.modelscope_id} · {model.hf_id}"
        print(f"{model.model_type:22}{where}\n{'':22}{model.description}")


def _run_tasks(arguments: argparse.Namespace) -> None:
    from ..tasks import TASKS

    for task in TASKS.values():
        takes = "" if task.input == "none" else f" (takes a {task.input})"
        print(f"{task.token:38}{task.description}{takes}")


def _no_arguments(command: argparse.ArgumentParser) -> None:
    """For commands that take none."""


COMMANDS: dict[str, tuple[str, Callable[..., None], Callable[..., None]]] = {
    "infer": ("ask a model about pictures: a session, or one answer", _run_infer, _add_infer_arguments),
    "demo": ("every task on a sample picture, with a gallery of overlays", _run_demo, _add_demo_arguments),
    "explore": ("a page to ask a model about pictures, in the browser", _run_explore, _add_explore_arguments),
    "scenes": ("a dataset of cartoon scenes with the right answers", _run_scenes, _add_scenes_arguments),
    "eval": ("how good a model is: every task on held-out scenes", _run_eval, _add_eval_arguments),
    "benchmark": ("how fast a model answers here, beside transformers", _run_benchmark, _add_benchmark_arguments),
    "pretrain": ("train florence-2-nano from nothing", _run_pretrain, _add_pretrain_arguments),
    "sft": ("fine-tune a model on your own data", _run_sft, _add_sft_arguments),
    "export": ("make a whole model of an adapter", _run_export, _add_export_arguments),
    "models": ("the models there are", _run_models, _no_arguments),
    "tasks": ("the tasks of Florence-2", _run_tasks, _no_arguments),
}
