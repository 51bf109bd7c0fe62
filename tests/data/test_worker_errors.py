"""Errors of the processes of a `DataLoader`."""

import pytest
from torch.utils.data import DataLoader

from florence_lab.data.worker_errors import is_worker_error, summarize_data_error
from florence_lab.exceptions import ImageError


class Failing:
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise self.error


ERRORS = [
    (ImageError("a.png is missing"), "a.png is missing"),
    (OSError(28, "No space left on device", "a.npz"), "OSError: [Errno 28] No space left on device: 'a.npz'"),
    (KeyError("a"), "KeyError: 'a'"),
    (ValueError(), "ValueError"),
    (ImageError("two\nlines"), "two"),
]


@pytest.mark.parametrize(
    ("error", "summary"), [ERRORS[0], *(pytest.param(*row, marks=pytest.mark.slow) for row in ERRORS[1:])]
)
def test_an_error_of_a_process_is_one_line(error, summary):
    with pytest.raises(Exception, match="DataLoader worker process") as caught:
        next(iter(DataLoader(Failing(error), num_workers=1)))
    assert is_worker_error(caught.value)
    assert summarize_data_error(caught.value) == summary


def test_other_errors_are_summarized_as_usual():
    assert not is_worker_error(ValueError("a"))
    assert summarize_data_error(ValueError("a\nb")) == "a"
