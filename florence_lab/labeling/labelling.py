"""`label`: from a folder of images and the names of classes to a dataset."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from ..argument_validation import Range, validate_arguments
from ..exceptions import ArgumentError, DatasetError, ImageError, shorten
from ..output_files import prepare_output_folder
from ..predictor import Predictor, load
from ..tasks import Task, get_task
from .assembly import DatasetLayout, assemble, check_folder, list_earlier_files, parse_split
from .labeler import Labeler, LabelSettings
from .local_engine import run_locally
from .masks import FLORENCE
from .ontology_file import Classes, resolve_ontology
from .parts import PARTS_FOLDER, PartStore
from .ray_engine import LoadLabeler, RaySettings, import_ray, run_with_ray
from .records import asks_about_objects
from .sources import Source, expand_user, list_label_sources


@dataclass(frozen=True)
class LabelReport:
    """What `label` has done.

    Attributes:
        folder: the dataset.
        format: its format.
        num_images: split -> number of images.
        num_objects: class -> number of objects, for all classes.
        num_errors: images that could not be read, see `errors.jsonl`.
        num_review: objects to be looked at, see `review.jsonl`.
        num_asked: images that this run has asked the model about; the others had labels.
        seconds: the duration of asking, without loading the model and writing the dataset.
    """

    folder: Path
    format: str
    num_images: dict[str, int]
    num_objects: dict[str, int]
    num_errors: int
    num_review: int
    num_asked: int
    seconds: float

    def __str__(self) -> str:
        images = ", ".join(f"{count} {split}" for split, count in self.num_images.items())
        rate = f" at {self.num_asked / self.seconds:.1f} images/s" if self.num_asked and self.seconds else ""
        lines = [
            f"{sum(self.num_images.values())} images ({images}), {self.num_asked} asked in this run{rate}",
            "objects: " + ", ".join(f"{name} {count}" for name, count in self.num_objects.items()),
        ]
        if self.num_review:
            lines.append(
                f"objects to review: {self.num_review}; florence_lab.review({str(self.folder)!r}) shows them in a notebook"
            )
        if self.num_errors:
            lines.append(f"unreadable images: {self.num_errors}, see {self.folder / 'errors.jsonl'}")
        return "\n".join([*lines, f"{self.format}: {self.folder.resolve()}"])


@validate_arguments
def label(
    images: str | Path | Iterable[str | Path],
    classes: Classes,
    out: str | Path,
    format: Literal["yolo", "coco", "voc", "jsonl", "parquet"] = "yolo",
    model: str | Path | Predictor = "florence-2-nano",
    *,
    split: str | None = None,
    masks: bool | str = False,
    captions: bool | str | Sequence[str] = False,
    ocr: bool = False,
    attributes: bool | str | Sequence[str] = False,
    review: Sequence[Annotated[float, Range(0, 1)]] | None = None,
    recursive: bool = False,
    threshold: float | None = None,
    strategy: str | Sequence[str] = "auto",
    verify: bool = True,
    batch_size: int = 8,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    num_actors: Annotated[int, Range(1)] | None = None,
    gpus_per_actor: Annotated[float, Range(0, 1)] | None = None,
    load_kwargs: Mapping[str, Any] | None = None,
    **generate_kwargs: Any,
) -> LabelReport:
    """Label images with the classes of your own, and write them as a dataset.

    Detection is `Predictor.detect`, verified by default. Finished batches are kept in `out/.parts`: a run that was interrupted
    loses at most one batch, and the next run asks about images only that have no labels yet, or that have changed. Another
    format, split or review then takes seconds. Images that cannot be read are listed in `errors.jsonl` and tried again by the
    next run. `labels.jsonl` has everything that is known of each image, in all formats: scores, how each box was found, and
    the answers to further questions.

    Args:
        images: folders, patterns such as `scans/*.png`, paths, videos (a frame each second), URLs, WebDataset shards (`.tar`) and
            Parquet files with a column of images.
        classes: the path of `classes.yaml` (see `labeling.ontology_file.read_ontology`), names, or a mapping from name to
            phrases. Their order gives the class ids.
        out: the folder of the dataset.
        format: `"yolo"`, `"coco"`, `"voc"`, `"jsonl"` (datasets' `imagefolder`) or `"parquet"`. Fine-tuning and evaluation read
            each of them.
        model: a predictor, or what `load` takes. With Ray it must be the latter.
        split: shares of train, val and test, as in `"0.8/0.1/0.1"`; by default all images are in train.
        masks: also outline the objects: True with Florence-2's polygons, or the name (see `labeling.masks.SAM2_MODELS`), hub id
            or folder of a SAM 2.
        captions: also describe each image: True is `<CAPTION>`; or one or several task tokens that need no input.
        ocr: also read the text in each image, with `<OCR_WITH_REGION>`.
        attributes: also describe each object: True is `<REGION_TO_DESCRIPTION>`; or one or several task tokens that take a region
            and answer with text. The formats JSON lines, Parquet and COCO have a column for each, as for captions and text.
        review: two scores: objects from the first to below the second are marked, and listed in `review.jsonl`. The first
            becomes the threshold unless that is given.
        recursive: also take the images in the folders of a folder.
        threshold, strategy, verify: as in `Predictor.detect`.
        batch_size: images that are labelled together, and that an interruption loses at most.
        engine: `"local"`, or `"ray"` for several processes or machines, which share a file system. Needs `florence_lab[ray]`.
        address, num_actors, gpus_per_actor: see `labeling.ray_engine.RaySettings`.
        load_kwargs: arguments of `load` for a model that is not loaded yet: `{"device": "cuda", "dtype": "fp16"}`.
        generate_kwargs: as in `Predictor.predict`.

    Raises:
        ArgumentError: for invalid arguments, a folder with files of others, and a folder that was labelled with other settings;
            the message names them.
        ImageError: for paths without images.
        DatasetError: if no image could be labelled.

    Example:
        >>> florence_lab.label("farm", {"sheep": "a white sheep", "dog": "dog"}, "data", split="0.8/0.2")
        >>> florence_lab.sft(florence_lab.SftArguments(dataset=("data",)))
    """
    plan = _make_plan(
        LabelSettings(
            resolve_ontology(classes),
            _list_tasks(captions, ocr, attributes),
            _resolve_masks(masks),
            threshold,
            strategy if isinstance(strategy, str) else tuple(strategy),
            verify,
            batch_size=batch_size,
            generate_kwargs=generate_kwargs,
        ),
        format,
        split,
        _check_review(review),
    )
    if engine == "ray":
        _check_ray(model)
    return label_sources(
        partial(_load_labeler, model, plan.settings, dict(load_kwargs or {})),
        list_label_sources(images, recursive),
        out,
        plan.layout,
        batch_size,
        RaySettings(address, num_actors, gpus_per_actor) if engine == "ray" else None,
    )


def label_sources(
    load_labeler: LoadLabeler,
    sources: Sequence[Source],
    out: str | Path,
    layout: DatasetLayout,
    batch_size: int = 8,
    ray_settings: RaySettings | None = None,
) -> LabelReport:
    """Label images with any model, and write them as a dataset; see `label`.

    Args:
        load_labeler: loads the model. With Ray it is called in each actor, too, and must be picklable.
        sources: what is labelled.
        out: the folder of the dataset.
        layout: how labels become a dataset.
        batch_size: images that are labelled together.
        ray_settings: how Ray distributes the work; None labels in this process.

    Raises:
        ArgumentError, DatasetError: as `label`.
    """
    folder = prepare_output_folder("out", expand_user(out))
    check_folder(folder, layout)
    sources = _without_earlier_files(sources, folder)
    store = PartStore(folder / PARTS_FOLDER)
    signatures = {source.path: source.signature for source in sources}
    labeler = load_labeler()  # with Ray, too: its settings tell whether the labels that exist can be kept
    store.open(labeler.describe())
    done = {place.key for place in store.index(signatures) if not place.has_error}
    start = time.perf_counter()
    if ray_settings is None:
        asked = run_locally(labeler, sources, done, store, batch_size)
    else:
        del labeler
        asked = run_with_ray(load_labeler, sources, done, store, batch_size, ray_settings)
    seconds = time.perf_counter() - start
    counts = assemble(store, layout, folder, signatures)
    if not sum(counts.images.values()):
        raise DatasetError(f"none of {counts.errors} images could be labelled; the first: {counts.first_error}")
    return LabelReport(
        folder,
        layout.format,
        dict(counts.images),
        dict(counts.objects),
        counts.errors,
        counts.review,
        asked.images,
        seconds,
    )


def _load_labeler(model: str | Path | Predictor, settings: LabelSettings, load_kwargs: Mapping[str, Any]) -> Labeler:
    predictor = model if isinstance(model, Predictor) else load(model, **load_kwargs)
    return Labeler(predictor, settings)


@dataclass(frozen=True)
class _Plan:
    """What is asked, and how the answers become a dataset."""

    settings: LabelSettings
    layout: DatasetLayout


def _make_plan(settings: LabelSettings, format: str, split: str | None, review: tuple[float, float] | None) -> _Plan:
    """The lower score of review is the threshold unless another one is given."""
    if review is not None and settings.threshold is None:
        settings = replace(settings, threshold=review[0])
    has_masks = settings.masks is not None
    layout = DatasetLayout(format, settings.ontology, parse_split(split or "1"), review, has_masks, settings.tasks)
    return _Plan(settings, layout)


def _check_ray(model: str | Path | Predictor) -> None:
    import_ray()
    if isinstance(model, Predictor):
        raise ArgumentError("with engine='ray' each actor loads the model: pass its name or folder, not a predictor")


def _without_earlier_files(sources: Sequence[Source], folder: Path) -> list[Source]:
    """The sources without the copies of an earlier run, which are below the images if the dataset is."""
    written = [path.resolve() for path in list_earlier_files(folder)]
    kept = [source for source in sources if not any(Path(source.path).is_relative_to(path) for path in written)]
    if not kept:
        raise ImageError(f"all images are those that an earlier run has written to {folder}; choose another folder")
    return kept


def _list_tasks(
    captions: bool | str | Sequence[str], ocr: bool, attributes: bool | str | Sequence[str]
) -> tuple[str, ...]:
    """The tokens of further tasks: first those about an image, which need no input, then those about a region."""
    about_images = _to_tasks(captions, "<CAPTION>") + ([get_task("<OCR_WITH_REGION>")] if ocr else [])
    for task in about_images:
        if task.needs_input:
            raise ArgumentError(f"captions must be tasks that need no input; {task.token} takes a {task.input}")
    about_objects = _to_tasks(attributes, "<REGION_TO_DESCRIPTION>")
    for task in about_objects:
        if not asks_about_objects(task.token) or task.result != "text":
            raise ArgumentError(
                f"attributes must be tasks that take a region and answer with text, such as <REGION_TO_DESCRIPTION>, "
                f"got {task.token}"
            )
    return tuple(dict.fromkeys(task.token for task in [*about_images, *about_objects]))


def _to_tasks(names: bool | str | Sequence[str], default: str) -> list[Task]:
    if isinstance(names, (bool, str)):
        names = [default] if names is True else [names] if names else []
    return [get_task(name) for name in names]


def _resolve_masks(masks: bool | str) -> str | None:
    if isinstance(masks, str):
        return masks
    return FLORENCE if masks else None


def _check_review(review: Sequence[float] | None) -> tuple[float, float] | None:
    if review is None:
        return None
    if len(review) != 2 or not review[0] < review[1]:
        raise ArgumentError(f"review must be two scores, the lower one first, got {shorten(list(review))}")
    return review[0], review[1]
