"""The notebooks: each teaches by the same plan, all run from a clean kernel without a network, and no task is left out."""

import os
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import florence_lab
from florence_lab.loading.registry import MODELS
from florence_lab.tasks import TASKS

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SECONDS = 600  # for one cell, on a busy machine; whole notebooks take 10 to 20 on an idle one
MEGABYTES = 12

# what a kernel runs before the first cell: no connection leaves the machine
NO_NETWORK = """
import socket
_connect = socket.socket.connect
def _only_here(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"a notebook asked for the network: {address}")
    return _connect(self, address)
socket.socket.connect = _only_here
"""


def read(path):
    return nbformat.read(path, as_version=4)


def code_of(book):
    return [cell.source for cell in book.cells if cell.cell_type == "code"]


def words_of(book):
    return [cell.source for cell in book.cells if cell.cell_type == "markdown"]


def name_of(path):
    return path.stem


every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)


def test_they_are_numbered_without_a_gap():
    assert [path.name[:3] for path in NOTEBOOKS] == [f"{i:02}_" for i in range(len(NOTEBOOKS))]


@pytest.mark.parametrize("token", TASKS)
def test_every_task_is_used_in_code_of_a_notebook_that_is_about_tasks(token):
    about_tasks = [path for path in NOTEBOOKS if "01" <= path.name[:2] <= "06"]
    assert any(f'"{token}"' in code for path in about_tasks for code in code_of(read(path)))


@every_notebook
def test_it_is_a_valid_notebook_for_any_python(path):
    book = read(path)
    nbformat.validate(book)
    assert book.metadata.kernelspec.name == "python3"
    assert not any(output.output_type == "error" for cell in book.cells for output in cell.get("outputs", ()))


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if "training" not in p.stem], ids=name_of)
def test_its_first_code_cell_chooses_the_model(path):
    first = code_of(read(path))[0]
    assert first.startswith('model_type = "florence-2-nano"\n')
    assert set(re.findall(r"florence-2-[a-z-]+", first)) == set(MODELS)
    assert all('"florence-2' not in code for code in code_of(read(path))[1:] if "!=" not in code)


@every_notebook
def test_it_has_exercises_with_hidden_answers(path):
    exercises = [words for words in words_of(read(path)) if "<details>" in words]
    assert 2 <= len(exercises) <= 3
    for words in exercises:
        assert words.count("<details>") == words.count("</details>") == words.count("<summary>") == 1


@every_notebook
def test_it_ends_with_where_to_go_next(path):
    last = words_of(read(path))[-1]
    assert last == read(path).cells[-1].source
    assert last.startswith("## Where to go next\n")
    assert len(local_links(last)) >= 2


@every_notebook
def test_its_links_to_files_lead_somewhere(path):
    for words in words_of(read(path)):
        assert [link for link in local_links(words) if not (FOLDER / link).exists()] == []


def local_links(words):
    return [link for link in re.findall(r"\]\(([^)#\s]+)\)", words) if not link.startswith(("https://", "http://"))]


@every_notebook
def test_it_holds_no_function_of_its_own(path):
    for code in [*code_of(read(path)), *answers_of(read(path))]:
        code = re.sub(r"^@sprite\(.*\)\ndef ", "", code, flags=re.MULTILINE)  # a drawing is no helper
        assert not re.search(r"^\s*(async def|def|class)\b|\blambda\b", code, re.MULTILINE), code


@every_notebook
def test_it_names_no_place_of_one_machine(path):
    text = path.read_text(encoding="utf-8")
    assert str(FOLDER.parent) not in text
    assert re.findall(r"(?:/home/|/Users/|/tmp/|/root/|/opt/|[A-Z]:\\\\)[^\s\"]*", text) == []


def test_the_folder_is_small():
    size = sum(
        path.stat().st_size for path in FOLDER.rglob("*") if path.is_file() and ".ipynb_checkpoints" not in str(path)
    )
    assert size <= MEGABYTES * 2**20


# ---------------------------------------------------------------------- they run


def answers_of(book):
    """The code in the hidden answers."""
    return re.findall(r"```python\n(.*?)```", "\n".join(w for w in words_of(book) if "<details>" in w), re.DOTALL)


@every_notebook
def test_it_runs_and_so_do_its_answers(path, tmp_path, monkeypatch):
    if path.stem == "07_explorer" and "explore" not in florence_lab.__all__:
        pytest.skip("florence_lab.explore is not there yet")
    book = read(path)
    for code in answers_of(book):
        book.cells.append(nbformat.v4.new_code_cell(code))
    # a copy, so that whatever a notebook writes is not written here
    shutil.copytree(FOLDER / "images", tmp_path / "images")
    monkeypatch.setenv("IPYTHONDIR", str(no_network(tmp_path / "ipython")))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]))
    client = NotebookClient(
        book, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()

    pictures = [o for cell in book.cells for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
    assert len(pictures) >= 3 or path.stem == "07_explorer"
    for cell in book.cells:
        for output in cell.get("outputs", ()):
            assert output.get("name") != "stderr", f"{cell.source}\n{output.text}"


def no_network(folder):
    """A folder for IPython whose startup file cuts the kernel off."""
    startup = folder / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "no_network.py").write_text(NO_NETWORK, encoding="utf-8")
    return folder


def test_the_network_really_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(no_network(tmp_path / "ipython")))
    code = "import urllib.request\nurllib.request.urlopen('http://192.0.2.1/', timeout=2)"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    with pytest.raises(Exception, match="a notebook asked for the network"):
        NotebookClient(book, timeout=30, kernel_name="python3").execute()
