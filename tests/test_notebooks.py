"""The notebooks: they share one plan, cover all tasks, use names that exist, and run without a network."""

import ast
import importlib
import os
import re
import shutil
from functools import cache
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from florence_lab.loading.registry import MODELS
from florence_lab.tasks import TASKS

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = [path.stem for path in sorted(FOLDER.glob("*.ipynb"))]
MAX_MEGABYTES = 12
CELL_TIMEOUT = 600  # seconds

# Numbers of the long notebooks, and those that they are executed with here: the same code, less work.
REDUCED = {
    "09_how_good_is_it": {"HELD_OUT_SEEDS[:40]": "HELD_OUT_SEEDS[:12]"},
    "10_pretraining": {
        "scenes=100": "scenes=20",
        "steps=100": "steps=6",
        "batch_size=8": "batch_size=2",
        "new_scenes=8": "new_scenes=2",
        "warmup=20": "warmup=2",
        "measure_every=50": "measure_every=3",
    },
    "11_finetune": {
        "TRAIN_SEEDS[500_000:], 120)": "TRAIN_SEEDS[500_000:], 6)",
        "HELD_OUT_SEEDS[50_000:], 40)": "HELD_OUT_SEEDS[50_000:], 4)",
        "HELD_OUT_SEEDS[:25]": "HELD_OUT_SEEDS[:2]",
        '"scenes:240"': '"scenes:4"',
        "max_steps=250": "max_steps=6",
        "eval_steps=250": "eval_steps=6",
        "max_steps=60": "max_steps=3",
        "HELD_OUT_SEEDS[:10]": "HELD_OUT_SEEDS[:2]",
    },
}

# Runs in the kernel before the first cell: connections to other machines fail.
NO_NETWORK = """
import socket
_connect = socket.socket.connect
def _connect_locally(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"a notebook connects to {address}")
    return _connect(self, address)
socket.socket.connect = _connect_locally
"""

each_notebook = pytest.mark.parametrize("name", NOTEBOOKS)


@cache
def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(name):
    return [cell.source for cell in read(name).cells if cell.cell_type == "code"]


def markdown_cells(name):
    return [cell.source for cell in read(name).cells if cell.cell_type == "markdown"]


def answers(name):
    """The code in the hidden answers to the exercises."""
    exercises = "\n".join(text for text in markdown_cells(name) if "<details>" in text)
    return re.findall(r"```python\n(.*?)```", exercises, re.DOTALL)


def local_links(text):
    return [link for link in re.findall(r"\]\(([^)#\s]+)\)", text) if not link.startswith(("https://", "http://"))]


def reduced(name, code):
    for number, smaller in REDUCED.get(name, {}).items():
        code = code.replace(number, smaller)
    return code


# ---------------------------------------------------------------------- the plan


def test_notebooks_are_numbered_without_a_gap():
    assert [name[:3] for name in NOTEBOOKS] == [f"{i:02}_" for i in range(len(NOTEBOOKS))]


@pytest.mark.parametrize("token", TASKS)
def test_each_task_is_used_in_a_notebook_about_tasks(token):
    about_tasks = [name for name in NOTEBOOKS if "01" <= name[:2] <= "06"]
    assert any(f'"{token}"' in code for name in about_tasks for code in code_cells(name))


@each_notebook
def test_a_notebook_is_valid_and_shows_no_error(name):
    book = read(name)
    nbformat.validate(book)
    assert book.metadata.kernelspec.name == "python3"
    assert not any(output.output_type == "error" for cell in book.cells for output in cell.get("outputs", ()))


@pytest.mark.parametrize("name", [name for name in NOTEBOOKS if "training" not in name])
def test_the_first_code_cell_alone_selects_the_model(name):
    first, *others = code_cells(name)
    assert first.startswith('model_type = "florence-2-nano"\n')
    assert set(re.findall(r"florence-2-[a-z-]+", first)) == set(MODELS)
    assert [code for code in others if '"florence-2' in code and "!=" not in code] == []


@each_notebook
def test_a_notebook_has_two_or_three_exercises_with_hidden_answers(name):
    exercises = [text for text in markdown_cells(name) if "<details>" in text]
    assert 2 <= len(exercises) <= 3
    for text in exercises:
        assert text.count("<details>") == text.count("</details>") == text.count("<summary>") == 1


@each_notebook
def test_a_notebook_ends_with_links_to_the_next_ones(name):
    last = read(name).cells[-1]
    assert last.cell_type == "markdown"
    assert last.source.startswith("## Where to go next\n")
    assert len(local_links(last.source)) >= 2


@each_notebook
def test_links_to_files_are_not_broken(name):
    links = [link for text in markdown_cells(name) for link in local_links(text)]
    assert [link for link in links if not (FOLDER / link).exists()] == []


@each_notebook
def test_a_notebook_defines_no_functions(name):
    for code in [*code_cells(name), *answers(name)]:
        code = re.sub(r"^@sprite\(.*\)\ndef ", "", code, flags=re.MULTILINE)  # a drawing
        assert not re.search(r"^\s*(async def|def|class)\b|\blambda\b", code, re.MULTILINE), code


@each_notebook
def test_a_notebook_contains_no_paths_of_one_machine(name):
    text = (FOLDER / f"{name}.ipynb").read_text(encoding="utf-8")
    assert str(FOLDER.parent) not in text
    assert re.findall(r"(?:/home/|/Users/|/tmp/|/root/|/opt/|[A-Z]:\\\\)[^\s\"]*", text) == []


def test_the_folder_is_small():
    files = [p for p in FOLDER.rglob("*") if p.is_file() and ".ipynb_checkpoints" not in p.parts]
    assert sum(path.stat().st_size for path in files) <= MAX_MEGABYTES * 2**20


# ---------------------------------------------------------------------- names of the package


@each_notebook
def test_all_names_of_the_package_in_a_notebook_exist(name):
    modules = {"florence_lab": importlib.import_module("florence_lab")}
    nodes = [node for code in [*code_cells(name), *answers(name)] for node in ast.walk(ast.parse(code))]
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "florence_lab":
            module = importlib.import_module(node.module)
            for alias in node.names:
                modules[alias.asname or alias.name] = getattr(module, alias.name)
    for node in nodes:
        if isinstance(node, ast.Attribute) and ast.unparse(node).split(".")[0] in modules:
            resolve(ast.unparse(node), modules)


def resolve(dotted, modules):
    """Return the object of `florence_lab.visualization.gallery`; attributes of calls and values are not followed."""
    if not re.fullmatch(r"[\w.]+", dotted):
        return
    name, *attributes = dotted.split(".")
    value = modules[name]
    for attribute in attributes:
        value = getattr(value, attribute)


def test_the_numbers_that_are_reduced_are_in_the_notebooks():
    for name, numbers in REDUCED.items():
        code = "\n".join([*code_cells(name), *answers(name)])
        assert [number for number in numbers if number not in code] == [], name


# ---------------------------------------------------------------------- execution


@pytest.fixture
def kernel_without_network(tmp_path, monkeypatch):
    """Kernels that start from now on refuse connections to other machines."""
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "no_network.py").write_text(NO_NETWORK, encoding="utf-8")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))


@pytest.mark.slow
@pytest.mark.usefixtures("kernel_without_network")
@each_notebook
def test_a_notebook_and_its_answers_run_without_a_network(name, tmp_path, monkeypatch):
    book = read(name).copy()
    cells = [cell.copy() for cell in book.cells]
    for cell in cells:
        if cell.cell_type == "code":
            cell.source = reduced(name, cell.source)
    book.cells = [*cells, *(nbformat.v4.new_code_cell(reduced(name, code)) for code in answers(name))]
    # executed in another folder, so that the files that a notebook writes stay out of the checkout
    shutil.copytree(FOLDER / "images", tmp_path / "images")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]))
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(book, timeout=CELL_TIMEOUT, kernel_name="python3", resources=resources).execute()

    outputs = [(cell.source, output) for cell in book.cells for output in cell.get("outputs", ())]
    assert [(source, o.text) for source, o in outputs if o.get("name") == "stderr"] == []
    figures = [output for _, output in outputs if "image/png" in output.get("data", {})]
    assert len(figures) >= 3 or name == "07_explorer"  # whose output is a widget


@pytest.mark.slow
@pytest.mark.usefixtures("kernel_without_network")
def test_the_network_is_cut_off_while_notebooks_run():
    code = "import urllib.request\nurllib.request.urlopen('http://192.0.2.1/', timeout=2)"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    with pytest.raises(CellExecutionError, match="a notebook connects to"):
        NotebookClient(book, timeout=30, kernel_name="python3").execute()
