"""`NameTable`: free-text labels of a model -> categories of a data set, by an explicit table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...argument_validation import validate_arguments
from ..labels import normalize_label

if TYPE_CHECKING:
    import pandas as pd

COCO_SYNONYMS: Mapping[str, Sequence[str]] = {
    "person": ("people", "man", "woman", "boy", "girl", "child", "human", "baby", "men", "women", "children"),
    "bicycle": ("bike",),
    "motorcycle": ("motorbike",),
    "airplane": ("aeroplane", "plane"),
    "couch": ("sofa", "studio couch"),
    "potted plant": ("houseplant", "plant in pot", "flowerpot"),
    "dining table": ("table", "kitchen & dining room table", "desk"),
    "tv": ("television", "tv monitor", "tvmonitor", "monitor", "computer monitor"),
    "laptop": ("notebook computer", "laptop computer"),
    "mouse": ("computer mouse",),
    "remote": ("remote control",),
    "keyboard": ("computer keyboard",),
    "cell phone": ("mobile phone", "phone", "smartphone", "cellphone", "telephone"),
    "microwave": ("microwave oven",),
    "refrigerator": ("fridge",),
    "teddy bear": ("teddy",),
    "hair drier": ("hair dryer",),
    "donut": ("doughnut",),
    "hot dog": ("hotdog",),
    "wine glass": ("wineglass",),
    "cup": ("mug", "coffee cup"),
    "skis": ("ski",),
    "sports ball": ("ball", "football", "tennis ball", "soccer ball", "baseball", "basketball", "volleyball"),
    "frisbee": ("flying disc",),
    "traffic light": ("traffic signal",),
    "fire hydrant": ("hydrant",),
    "handbag": ("hand bag", "purse"),
    "backpack": ("rucksack",),
    "cow": ("cattle", "bull"),
    "sink": ("bathroom sink", "kitchen sink"),
    "knife": ("kitchen knife",),
    "clock": ("wall clock", "alarm clock"),
    "book": ("books",),
}
"""Category of COCO -> further names that count as it: those of Objects365, Open Images, VOC and everyday speech.

No table is published for Florence-2. This one is a choice, and the names that it does not know are counted and shown.
"""


class NameTable:
    """Maps the labels that a model writes to the categories of a data set, and counts what it was asked for.

    A label matches a category by its name or a synonym. Case, punctuation at the ends and white space do not matter.

    Attributes:
        categories: normalized name or synonym -> category id.
        counts: label as the model wrote it, normalized -> how often it was looked up.
    """

    @validate_arguments
    def __init__(
        self, categories: Sequence[Mapping[str, Any]], synonyms: Mapping[str, Sequence[str]] = COCO_SYNONYMS
    ) -> None:
        """Build the table.

        Args:
            categories: entries with `id` and `name`, as in a COCO file.
            synonyms: category name -> further names. Those of categories that the data set lacks are ignored, and so is a synonym
                that is the name of a category itself.
        """
        self._names = {category["id"]: str(category["name"]) for category in categories}
        own = {normalize_label(name): id_ for id_, name in self._names.items()}
        further = {
            normalize_label(synonym): own[normalize_label(name)]
            for name, others in synonyms.items()
            if normalize_label(name) in own
            for synonym in others
        }
        self.categories: dict[str, Any] = further | own
        self.counts: Counter[str] = Counter()

    def lookup(self, label: str) -> Any | None:
        """Return the id of the category of a label; None if it is of no category. The label is counted."""
        name = normalize_label(label)
        self.counts[name] += 1
        return self.categories.get(name)

    @property
    def num_unmapped(self) -> int:
        """How many of the labels that were looked up are of no category."""
        return sum(count for name, count in self.counts.items() if name not in self.categories)

    def to_dataframe(self) -> pd.DataFrame:
        """Return a data frame with a row for each label that was looked up: `label`, `category` ("" for none), `count`."""
        import pandas as pd

        rows = [
            {"label": name, "category": self._names.get(self.categories.get(name), ""), "count": count}
            for name, count in sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        ]
        return pd.DataFrame(rows, columns=["label", "category", "count"])
