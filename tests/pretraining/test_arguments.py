"""`arguments`: the options of `florence-lab pretrain`."""

import dataclasses
import subprocess
import sys

from florence_lab.pretraining.arguments import PretrainArguments


def test_every_option_has_a_help_text():
    for field in dataclasses.fields(PretrainArguments):
        assert field.metadata["help"], field.name


def test_defaults_are_among_the_choices():
    for field in dataclasses.fields(PretrainArguments):
        assert field.metadata["choices"] is None or field.default in field.metadata["choices"], field.name


def test_the_options_are_imported_without_torch():
    """`florence-lab pretrain --help` is fast."""
    code = (
        "import sys; from florence_lab.pretraining.arguments import PretrainArguments; "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
