"""The package as a whole: its dependencies, quick imports, what it never does, and the one way in which it flows."""

import ast
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import florence_lab

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings it along
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "florence_lab"
SOURCES = sorted(PACKAGE.rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

TOP_LEVEL = {".ci", ".gitignore", "LICENSE", "README.md", "environment.yml", "pyproject.toml"} | {
    *("florence_lab", "notebooks", "tests"),
}

# From top to bottom of the flow in the design: a room may import the rooms before it.
ROOMS = [
    *("catalog", "network", "layout", "tasks", "hub", "images", "results", "template", "vision", "decoding"),
    *("checkpoint", "compiled", "predictor", "swift", "draw", "attention", "scenes", "evaluation", "training"),
    *("benchmark", "explorer", "session", "demo", "cli"),
]


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports_of(path: Path, in_functions: bool) -> list[ast.Import | ast.ImportFrom]:
    """The imports that are ever carried out, so none under `if TYPE_CHECKING:`."""
    found, rest = [], list(tree_of(path).body)
    while rest:
        node = rest.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.append(node)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            rest += node.orelse
        elif in_functions or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            rest += ast.iter_child_nodes(node)
    return found


# ---------------------------------------------------------------------- dependencies


def test_conda_installs_what_pip_does():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, by_pip = environment["dependencies"]
    assert (environment["name"], pip) == (PROJECT["name"], "pip")
    assert python == "python" + PROJECT["requires-python"]
    assert by_pip["pip"] == [*PROJECT["dependencies"], "--editable ."]


@pytest.fixture(scope="module")
def providers():
    """Name to import -> the distributions that have it."""
    return importlib.metadata.packages_distributions()


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_what_is_imported_is_a_dependency(path, providers):
    declared = {normal(re.match(r"[\w-]+", requirement)[0]) for requirement in PROJECT["dependencies"]}
    for node in imports_of(path, in_functions=True):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
        for name in names if not getattr(node, "level", 0) else ():
            top = name.split(".")[0]
            known = top in sys.stdlib_module_names or top == "florence_lab"
            assert known or declared & set(map(normal, providers.get(top, [top]))), f"{top} is no dependency"


def normal(distribution: str) -> str:
    return distribution.lower().replace("_", "-")


# ---------------------------------------------------------------------- quick, and all there

HEAVY = ("torch", "transformers", "matplotlib", "numpy", "PIL", "pandas", "requests", "modelscope", "huggingface_hub")
COMMANDS = {"import florence_lab": ["-c", "import florence_lab"], "--help": ["-m", "florence_lab.cli", "--help"]}


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_heavy_is_imported_before_it_is_used(command):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *COMMANDS[command]], capture_output=True, text=True, check=True
    )
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "florence_lab" in imported
    assert not imported.intersection(HEAVY)


@pytest.mark.parametrize("command", COMMANDS)
def test_imports_and_help_take_half_a_second_at_most(command):
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, *COMMANDS[command]], capture_output=True, check=True)
        seconds.append(time.perf_counter() - start)
        if seconds[-1] <= 0.5:
            return
    raise AssertionError(f"{command}: {min(seconds):.2f} s at best")


@pytest.fixture
def fresh():
    """The package as it is right after its first import, for one test."""

    def take_away() -> dict:
        return {name: sys.modules.pop(name) for name in [*sys.modules] if name.split(".")[0] == "florence_lab"}

    known = take_away()
    yield importlib.import_module("florence_lab")
    take_away()
    sys.modules.update(known)


@pytest.mark.parametrize("already", [(), ("session",), ("template", "predictor")])
def test_what_is_public_is_what_its_module_holds(fresh, already):
    """Also after somebody imported modules, which leaves their names in the package."""
    for module in already:
        importlib.import_module(f"florence_lab.{module}")
    public = {name: getattr(fresh, name) for name in fresh.__all__}
    assert public.keys() <= set(dir(fresh))
    for name, value in public.items():
        module = f"florence_lab.{fresh._MODULE_OF.get(name, name)}"
        assert value is (getattr(sys.modules[module], name) if name in fresh._MODULE_OF else sys.modules[module])


@pytest.mark.usefixtures("fresh")
def test_the_imports_of_the_seed():
    """Its listing, with `florence_lab` in place of the two swift modules, and in its order."""
    names = "get_model_tokenizer get_template inference get_default_template_type inference_stream seed_everything"
    found: dict = {}
    exec(f"from florence_lab import {', '.join(names.split())}", found)
    assert [name for name in names.split() if not callable(found[name])] == []


def test_what_is_named_for_type_checkers_is_what_is_public():
    (block,) = [node for node in tree_of(PACKAGE / "__init__.py").body if isinstance(node, ast.If)]
    named = {alias.asname: node.module for node in block.body for alias in node.names}
    assert named == florence_lab._MODULE_OF


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'florence_lab' has no attribute 'lode'"):
        _ = florence_lab.lode


# ---------------------------------------------------------------------- the house


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_the_top_level_holds_what_the_design_names_and_nothing_else():
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    tracked = {name.split("/")[0] for name in done.stdout.split("\0") if name}
    assert {"florence_lab", "pyproject.toml"} <= tracked
    assert tracked <= TOP_LEVEL


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_code_of_others_is_run(path):
    """Neither a checkpoint's own modelling code, nor a pickle with more in it than weights, nor a shell."""
    assert "trust_remote_code" not in path.read_text(encoding="utf-8")
    for call in (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)):
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        called = ast.unparse(call.func)
        assert called != "torch.load" or keywords.get("weights_only") == "True", f"line {call.lineno}"
        assert called not in ("eval", "exec", "os.system", "pickle.load", "pickle.loads"), f"line {call.lineno}"
        assert keywords.get("shell", "False") == "False", f"line {call.lineno}"
        assert keywords.get("allow_pickle", "False") == "False", f"line {call.lineno}"


def rooms_imported_at_once(path: Path) -> set[str]:
    """The rooms of the package that a file imports when it is itself imported."""
    depth = len(path.relative_to(PACKAGE).parts)
    rooms: set[str] = set()
    for node in imports_of(path, in_functions=False):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            rooms |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        else:
            assert "florence_lab" not in ast.unparse(node), f"line {node.lineno}: import rooms relatively"
    return rooms


@pytest.mark.parametrize("path", [path for path in SOURCES if path != PACKAGE / "__init__.py"], ids=name_of)
def test_nothing_imports_what_is_below_it_in_the_flow(path):
    room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert room in ROOMS, f"say in ROOMS where {room} stands"
    above = ROOMS[: ROOMS.index(room)]
    assert rooms_imported_at_once(path) <= {*above, room}


# ---------------------------------------------------------------------- the wheel


def test_a_wheel_answers_from_anywhere(tmp_path):
    """Built and installed outside the checkout, with nothing of it at hand: the weights came along."""
    suppress_library_output = {"check": True, "capture_output": True, "text": True}
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(PACKAGE, source / "florence_lab", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", tmp_path, source], **suppress_library_output
    )
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "-t", site, wheel],
        **suppress_library_output,
    )

    program = """
import florence_lab
from florence_lab.scenes import sample_path
print(florence_lab.__file__)
print(florence_lab.load("florence-2-nano").predict(sample_path("sheep"), "<OD>").labels)
"""
    elsewhere = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=elsewhere, **suppress_library_output)
    where, labels = ran.stdout.splitlines()
    assert Path(where).is_relative_to(site)
    assert labels == "('sheep', 'sheep', 'sheep', 'sheep')"
