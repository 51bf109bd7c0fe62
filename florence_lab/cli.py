"""The command line: arguments to calls. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, get_type_hints

from .catalog import MODELS, available_models
from .training.arguments import PretrainArguments

GENERATION = ("max_new_tokens", "num_beams", "do_sample", "temperature", "top_p", "top_k")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0, or 2 with one line on standard error if it was asked for something that can't be."""
    arguments = _parser().parse_args(argv)
    warnings.showwarning = _show_warning
    try:
        arguments.run(arguments)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        print(f"florence-lab: {' '.join(str(error).split()) or type(error).__name__}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _show_warning(message: Warning | str, category: type[Warning], *_: Any) -> None:
    if issubclass(category, UserWarning):  # what libraries deprecate is nothing to people at a prompt
        print(f"florence-lab: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="florence-lab", description="A research toolkit for Florence-2.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, (description, run, add_arguments) in COMMANDS.items():
        command = commands.add_parser(name, help=description, description=description)
        add_arguments(command)
        command.set_defaults(run=run)
    return parser


def _boolean(text: str) -> bool:
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return values[text.lower()]


def _add_model_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model_type",
        default="florence-2-nano",
        help=f"one of {', '.join(available_models())} (default: %(default)s)",
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: %(default)s)")
    command.add_argument("--dtype", default="fp32", help="fp32, fp16, bf16 or auto (default: %(default)s)")
    command.add_argument("--hub", help="modelscope or hf (default: $FLORENCE_LAB_HUB, else modelscope)")


def _add_infer_arguments(command: argparse.ArgumentParser) -> None:
    _add_model_arguments(command)
    which = command.add_mutually_exclusive_group()
    which.add_argument("--model_id_or_path", help="a checkpoint folder or the id of a model on a hub")
    which.add_argument("--ckpt_dir", help="a checkpoint folder that fine-tuning wrote")
    command.add_argument("--query", help="one question, without a session; needs --images")
    command.add_argument("--images", nargs="+", metavar="IMAGE", help="paths or URLs for --query")
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
    from .session import Session

    Session(
        arguments.ckpt_dir or arguments.model_id_or_path or arguments.model_type,
        device=arguments.device,
        dtype=arguments.dtype,
        hub=arguments.hub,
        stream=arguments.stream,
        seed=arguments.seed,
        overlay_dir=arguments.overlay,
        result_dir=arguments.result_dir,
        generation={name: v for name in GENERATION if (v := getattr(arguments, name)) is not None},
    ).run(arguments.query, arguments.images)


def _add_demo_arguments(command: argparse.ArgumentParser) -> None:
    _add_model_arguments(command)
    command.add_argument(
        "--out", default="florence-lab-demo", metavar="DIR", help="where the gallery goes (default: %(default)s)"
    )


def _run_demo(arguments: argparse.Namespace) -> None:
    from .demo import run_demo
    from .predictor import load

    run_demo(load(arguments.model_type, arguments.device, arguments.dtype, arguments.hub), arguments.out)


def _add_explore_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model_type",
        default="florence-2-nano",
        help=f"{', '.join(available_models())}, a folder or a hub id; another can be chosen there (default: %(default)s)",
    )
    command.add_argument("--port", type=int, default=8866, help="of the page on this machine (default: %(default)s)")
    command.add_argument("--no_browser", action="store_true", help="open no browser, only say where the page is")


def _run_explore(arguments: argparse.Namespace) -> None:
    from .explorer.page import serve

    serve(arguments.model_type, arguments.port, not arguments.no_browser)


def _add_scenes_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--count", type=int, default=1000, help="how many scenes (default: %(default)s)")
    command.add_argument("--out", required=True, metavar="DIR", help="a folder for pictures, COCO JSON and JSON lines")
    command.add_argument("--size", type=int, default=512, help="pixels a side (default: %(default)s)")
    command.add_argument("--held_out", action="store_true", help="from the seeds that no training sees")


def _run_scenes(arguments: argparse.Namespace) -> None:
    from .scenes import HELD_OUT_SEEDS, TRAIN_SEEDS, write_dataset

    seeds = HELD_OUT_SEEDS if arguments.held_out else TRAIN_SEEDS
    if not 0 < arguments.count <= len(seeds):
        raise ValueError(f"--count {arguments.count}: give 1 to {len(seeds)}")
    write_dataset(arguments.out, seeds[: arguments.count], arguments.size)
    print(arguments.out)


def _add_eval_arguments(command: argparse.ArgumentParser) -> None:
    _add_model_arguments(command)
    command.add_argument("--model_id_or_path", help="a checkpoint folder or the id of a model on a hub")
    command.add_argument("--dataset", default="scenes", help="scenes, or scenes:COUNT (default: 500 held-out scenes)")
    command.add_argument("--tasks", nargs="+", metavar="TASK", help="task tokens, as <OD> or OD (default: all)")
    command.add_argument("--batch_size", type=int, default=16, help="pictures asked together (default: %(default)s)")
    command.add_argument(
        "--out", default="florence-lab-eval", metavar="DIR", help="for the figures, the answers and the worst of them"
    )


def _run_eval(arguments: argparse.Namespace) -> None:
    from .evaluation import evaluate, held_out, scene_questions
    from .predictor import load
    from .tasks import get_task

    seeds = held_out(arguments.dataset)
    tasks = [get_task(name).token for name in arguments.tasks or ()] or None
    model = arguments.model_id_or_path or arguments.model_type
    predictor = load(model, arguments.device, arguments.dtype, arguments.hub)
    evaluation = evaluate(predictor, scene_questions(seeds, tasks), arguments.batch_size)
    print(evaluation.to_dataframe().to_string(index=False, float_format="{:.3f}".format))
    print(f"\nfigures, answers, the worst of them: {evaluation.save(arguments.out).resolve()}")


def _add_pretrain_arguments(command: argparse.ArgumentParser) -> None:
    _add_fields(command, PretrainArguments)


def _run_pretrain(arguments: argparse.Namespace) -> None:
    from .training.pretrain import pretrain

    print(pretrain(PretrainArguments(**_fields_of(arguments, PretrainArguments))))


def _add_fields(command: argparse.ArgumentParser, arguments: type) -> None:
    """An option for every field of a dataclass of arguments."""
    types = get_type_hints(arguments)
    for field in dataclasses.fields(arguments):
        help = f"{field.metadata['help']} (default: %(default)s)"
        command.add_argument(f"--{field.name}", type=types[field.name], default=field.default, help=help)


def _fields_of(arguments: argparse.Namespace, kind: type) -> dict[str, Any]:
    return {field.name: getattr(arguments, field.name) for field in dataclasses.fields(kind)}


def _run_models(arguments: argparse.Namespace) -> None:
    for model in MODELS.values():
        where = "ships with florence_lab" if model.path else f"{model.modelscope_id} · {model.hf_id}"
        print(f"{model.model_type:22}{where}\n{'':22}{model.description}")


def _run_tasks(arguments: argparse.Namespace) -> None:
    from .tasks import TASKS

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
    "pretrain": ("train florence-2-nano from nothing", _run_pretrain, _add_pretrain_arguments),
    "models": ("the models there are", _run_models, _no_arguments),
    "tasks": ("the tasks of Florence-2", _run_tasks, _no_arguments),
}


if __name__ == "__main__":
    sys.exit(main())
