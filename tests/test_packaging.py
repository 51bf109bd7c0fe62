"""The package as a whole: dependencies, imports, its public names, the rules that linters do not know, and the wheel."""

import ast
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import florence_lab

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest requires tomli
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "florence_lab"
TREES = {p.relative_to(ROOT).as_posix(): ast.parse(p.read_text(encoding="utf-8")) for p in PACKAGE.rglob("*.py")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


# ---------------------------------------------------------------------- dependencies and metadata


def test_each_imported_package_is_a_dependency():
    providers = importlib.metadata.packages_distributions()
    extras = [name for extra, names in PROJECT["optional-dependencies"].items() if extra != "test" for name in names]
    required = [*PROJECT["dependencies"], *extras]
    declared = {_normalized(re.match(r"[\w-]+", requirement)[0]) for requirement in required}
    imported = {name.split(".")[0] for tree in TREES.values() for name in _absolute_imports(tree)}
    third_party = imported - set(sys.stdlib_module_names) - {"florence_lab"}
    assert [n for n in third_party if not declared & set(map(_normalized, providers.get(n, [n])))] == []


def _absolute_imports(tree):
    """The names of the modules that a file imports, except those for type checkers only."""
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes += node.orelse
        else:
            nodes += ast.iter_child_nodes(node)


def _normalized(distribution):
    return distribution.lower().replace("_", "-")


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert citation["version"] == florence_lab.__version__
    assert re.search(r"^## \[([\d.]+)\]", changelog, re.MULTILINE)[1] == florence_lab.__version__


# ---------------------------------------------------------------------- imports


@pytest.mark.parametrize(
    "program",
    [
        pytest.param("import florence_lab", id="import"),
        pytest.param("from florence_lab.cli import main; main(['--help'])", id="help"),
    ],
)
def test_heavy_packages_are_imported_on_first_use(program):
    heavy = "torch transformers matplotlib numpy PIL pandas requests modelscope huggingface_hub".split()
    done = run(sys.executable, "-X", "importtime", "-c", program)
    imported = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "florence_lab" in imported
    assert imported.isdisjoint(heavy)


def test_the_import_contracts_are_kept():
    command = Path(sys.executable).with_name("lint-imports")
    run(command, "--no-cache", cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_private_names_stay_in_their_file():
    private = [
        f"{path}:{node.lineno} {alias.name}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.level or node.module.startswith("florence_lab"))
        for alias in node.names
        if alias.name.startswith("_")
    ]
    assert not private, "\n".join(private)


# ---------------------------------------------------------------------- public names


def test_all_public_names_can_be_imported():
    assert [name for name in florence_lab.__all__ if getattr(florence_lab, name, None) is None] == []
    assert set(florence_lab.__all__) <= set(dir(florence_lab))


def test_inference_is_the_function_of_ms_swift_also_after_the_subpackage_is_imported():
    importlib.import_module("florence_lab.inference.generation")
    from florence_lab import inference, swift

    assert inference is swift.inference


def test_type_checkers_see_the_names_that_are_public():
    (block,) = [node for node in TREES["florence_lab/__init__.py"].body if isinstance(node, ast.If)]
    modules = {alias.asname: node.module for node in block.body for alias in node.names}
    submodules = {name for name in florence_lab.__all__ if isinstance(getattr(florence_lab, name), ModuleType)}
    assert set(modules) == set(florence_lab.__all__) - submodules
    for name, module in modules.items():
        assert getattr(florence_lab, name) is getattr(importlib.import_module(f"florence_lab.{module}"), name)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'florence_lab' has no attribute 'lode'"):
        _ = florence_lab.lode


# ---------------------------------------------------------------------- safety; ruff's rules S know eval, pickle and shells


def test_no_code_of_a_checkpoint_is_executed():
    assert [path for path in TREES if "trust_remote_code" in (ROOT / path).read_text(encoding="utf-8")] == []


def test_pickled_files_are_read_as_weights_only():
    calls = [
        (f"{path}:{node.lineno}", ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords})
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]
    loads = [(place, keywords) for place, function, keywords in calls if function == "torch.load"]
    assert loads
    assert [place for place, keywords in loads if keywords.get("weights_only") != "True"] == []
    assert [place for place, _, keywords in calls if keywords.get("allow_pickle", "False") != "False"] == []


# ---------------------------------------------------------------------- the wheel


@pytest.mark.slow
def test_a_wheel_contains_weights_and_type_information_and_answers(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(PACKAGE, source / "florence_lab", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", tmp_path, source)
    (wheel,) = tmp_path.glob(f"florence_lab-{florence_lab.__version__}-*.whl")
    site = tmp_path / "site"
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "-t", site, wheel)
    assert (site / "florence_lab" / "py.typed").exists()

    program = """
import florence_lab
from florence_lab.scenes import sample_path
print(florence_lab.__file__)
print(*florence_lab.load("florence-2-nano").predict(sample_path("sheep"), "<OD>").labels)
"""
    environment = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}
    done = run(sys.executable, "-c", program, cwd=tmp_path, env=environment)
    file, labels = done.stdout.splitlines()
    assert Path(file).is_relative_to(site)
    assert labels == "sheep sheep sheep sheep"
