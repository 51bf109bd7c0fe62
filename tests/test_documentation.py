"""README, CONTRIBUTING and the API pages: they are complete and true, and their code runs."""

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from florence_lab.loading.registry import MODELS
from florence_lab.tasks import TASKS

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest requires tomli
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
MAX_README_LINES = 200


@cache
def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", read(page), re.DOTALL | re.MULTILINE)


def commands(page):
    """The arguments of each `florence-lab` command that a page shows."""
    lines = "\n".join(blocks(page, "shell")).splitlines() + re.findall(r"`([^`\n]+)`", read(page))
    found = (re.search(r"florence-lab (.*)", line) for line in lines)
    return [shlex.split(match[1], comments=True) for match in found if match]


@cache
def help_of(*command):
    program = f"from florence_lab.cli import main; main({[*command, '--help']})"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout


def test_the_readme_is_short():
    assert len(read("README.md").splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_the_python_code_of_a_page_runs(page, monkeypatch, capsys):
    tasks = dict(TASKS)
    namespace = {}
    try:
        for code in blocks(page, "python"):
            exec(code, namespace)
    finally:  # a block registers a task
        TASKS.clear()
        TASKS.update(tasks)
    assert namespace


@pytest.mark.parametrize("page", PAGES)
def test_each_command_on_a_page_exists_with_its_options(page):
    for command, *arguments in commands(page):
        if command.isupper() or command.startswith("--"):  # `florence-lab COMMAND --help`
            continue
        assert re.search(rf"^\s+{command}\b", help_of(), re.MULTILINE), command
        options = [argument for argument in arguments if argument.startswith("--")]
        assert [option for option in options if option not in help_of(command)] == [], command


def test_ci_runs_the_two_commands_of_the_readme_as_written():
    first, second = [line for line in blocks("README.md", "shell")[0].splitlines() if line]
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert first in script
    assert second in script


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_are_not_broken(page):
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", read(page)) if not link.startswith("https://")]
    for link in links:
        file, _, anchor = link.partition("#")
        assert (ROOT / file).exists(), link
        headings = re.findall(r"^#+ (.*)$", read(file), re.MULTILINE) if anchor else ()
        assert not anchor or anchor in [heading.lower().replace(" ", "-") for heading in headings], link


def test_the_readme_lists_all_tasks_and_models():
    assert [token for token in TASKS if f"`{token}`" not in read("README.md")] == []
    for model in MODELS.values():
        assert all(name in read("README.md") for name in (model.model_type, model.modelscope_id, model.hf_id) if name)


def test_contributing_shows_the_layers_of_the_import_contract():
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["id"] == "layers"]
    picture = re.search(r"From bottom to top:\n\n((?:    .*\n)+)", read("CONTRIBUTING.md"))[1]
    shown = [set(layer.strip().split(", ")) for layer in re.split("·|\n", picture.strip())]
    assert shown == [set(layer.split(" | ")) for layer in reversed(layers)]


def test_contributing_describes_each_room():
    rooms = re.findall(r"^\| `([^ `]+(?:/|\.py))` \|", read("CONTRIBUTING.md"), re.MULTILINE)
    folders = [f"{p.name}/" for p in (ROOT / "florence_lab").iterdir() if p.is_dir() and p.name != "__pycache__"]
    files = [p.name for p in (ROOT / "florence_lab").glob("*.py") if not p.name.startswith("__")]
    assert sorted(rooms) == sorted([*folders, *files])


@pytest.mark.slow
def test_api_pages_are_made_without_a_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pdoc", "florence_lab", "-o", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert "Predictor" in (tmp_path / "florence_lab.html").read_text(encoding="utf-8")
