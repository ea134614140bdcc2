"""The promises of the folder tree: one-way imports, light start-up, public names."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

import evomerge

PACKAGE = Path(evomerge.__file__).parent

# A room may import from itself and from the rooms named here.
WORDS = {"arrays"}  # every room may use them
MAY_IMPORT = {
    "arrays": set(),
    "errors": set(),
    "cache": {"errors"},
    "secrets": {"errors"},
    "fingerprint": {"cache"},
    "seeds": set(),
    "pareto": set(),
    "origins": set(),
    "optuna_internals": set(),
    "plain_yaml": {"errors"},
    "schema_keys": set(),
    "console": {"secrets"},
    "progress": {"console", "origins", "study", "analysis", "runs"},
    "schema": {"errors", "plain_yaml", "schema_keys"},
    "models": {"errors", "cache", "fingerprint", "seeds"},
    "kernels": {"errors", "cache"},
    "statistics": {"errors", "cache", "kernels"},
    "methods": {"errors", "seeds", "kernels", "statistics"},
    "recipe": {"errors", "fingerprint", "plain_yaml", "schema", "models", "methods"},
    "averaging": {"errors", "models", "recipe"},
    "observation": {"errors", "seeds", "models", "evaluation"},
    "alignment": {"seeds", "models", "observation"},
    "merging": {
        *("errors", "cache", "fingerprint", "models", "kernels", "statistics", "methods"),
        *("recipe", "observation", "alignment"),
    },
    "ensembles": {"errors", "schema", "plain_yaml", "models", "merging", "evaluation"},
    "concrete": {
        *("errors", "fingerprint", "seeds", "schema", "models", "recipe", "merging"),
        "evaluation",
    },
    "mixtures": {
        *("errors", "fingerprint", "seeds", "plain_yaml", "schema", "models", "recipe", "merging"),
        *("observation", "evaluation", "alignment"),
    },
    "evaluation": {"errors", "cache", "fingerprint", "pareto", "plain_yaml", "secrets", "seeds"},
    "masked": {"errors", "fingerprint", "plain_yaml", "schema", "models", "recipe", "merging"},
    "twins": {
        *("errors", "fingerprint", "plain_yaml", "schema", "models", "methods", "recipe"),
        *("merging", "observation", "evaluation", "ensembles", "masked"),
    },
    "transplants": {"errors", "fingerprint", "schema", "models", "merging"},
    "execution": {
        *("errors", "cache", "fingerprint", "pareto", "secrets", "seeds", "models", "recipe"),
        *("merging", "evaluation", "space", "ensembles"),
    },
    "space": {"errors", "origins", "optuna_internals", "models", "methods", "recipe"},
    "samplers": {"errors", "optuna_internals", "pareto", "seeds", "schema"},
    "study": {
        *("errors", "secrets", "seeds", "schema", "models", "recipe", "evaluation", "execution"),
        *("origins", "optuna_internals", "pareto", "space"),
        "samplers",
    },
    "analysis": {
        *("errors", "origins", "pareto", "schema", "models", "statistics", "methods", "recipe"),
        "study",
    },
    "export": {
        *("errors", "fingerprint", "seeds", "models", "kernels", "recipe", "merging"),
        "evaluation",
        *("execution", "study", "origins", "analysis", "mixtures", "transplants", "masked"),
        *("schema", "twins", "observation"),
    },
    "config": {
        *("errors", "plain_yaml", "schema", "secrets", "models", "recipe", "evaluation"),
        *("execution", "study", "analysis"),
    },
}
# runs puts the parts of an experiment together; api calls runs, cli calls both.
ON_TOP = {"runs": {"api", "cli"}, "api": {"cli"}, "cli": set()}  # what each must not import
HEAVY = ("torch", "ray", "lm_eval", "transformers", "plotly", "numba")
ONE_IMPORTER = {
    "ray": "execution/cluster.py execution/ray.py execution/starting.py",
    "lm_eval": "evaluation/harness.py evaluation/image_model.py evaluation/language_model.py",
    "PIL": "evaluation/images.py",
    "scipy": "alignment/matching.py",
    "cma": "samplers/evolution.py",
    "cmaes": "samplers/cmaes_internals.py",
    "plotly": "analysis/report/figures.py",
    "moocore": "pareto.py",
    "msgspec": "study/journal.py",
    "optuna_dashboard": "runs/optuna_study.py",
    "vllm": "evaluation/vllm_engine.py",
    "mlflow": "api/loggers/mlflow.py",
    "wandb": "api/loggers/wandb.py",
}


OPTIONAL = {  # modules that cannot be imported without a library that need not be there
    "evomerge.kernels.gpu": "triton",
    **{f"evomerge.api.loggers.{name}": name for name in ("mlflow", "wandb", "tensorboard")},
}


@cache
def imports(file: Path) -> tuple[str, ...]:
    return tuple(_imports(file))


def _imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: str(f.relative_to(PACKAGE))
)
def test_imports_point_one_way(file: Path) -> None:
    room = room_of(file)
    if room == "__init__":
        return
    used = {name.split(".")[1] for name in imports(file) if name.startswith("evomerge.")}
    if room in ON_TOP:
        assert not used & ON_TOP[room]
        return
    assert used & (MAY_IMPORT.keys() | ON_TOP.keys()) - {room} <= MAY_IMPORT[room] | WORDS


@pytest.mark.parametrize("library", ONE_IMPORTER)
def test_optional_and_heavy_libraries_have_one_importing_file(library: str) -> None:
    importers = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        if any(name.split(".")[0] == library for name in imports(file))
    }
    assert importers == set(ONE_IMPORTER[library].split())


@pytest.mark.parametrize(
    ("code", "heavy"),
    [
        ("import evomerge", ("optuna", "pandas", *HEAVY)),
        ("import evomerge.cli.main", ("optuna", "pandas", *HEAVY)),
        ("from evomerge import run, resume, Study, Experiment", HEAVY),
        ("import evomerge.runs.stages", HEAVY),  # what reads an experiment's keys, locks and picks
    ],
)
def test_starting_up_imports_nothing_heavy(code: str, heavy: tuple[str, ...]) -> None:
    check = f"{code}; import sys; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_module_imports_and_its_public_names_exist_and_are_documented() -> None:
    for info in pkgutil.walk_packages([str(PACKAGE)], "evomerge."):
        if any(info.name.startswith(name) and not find_spec(it) for name, it in OPTIONAL.items()):
            continue
        module = importlib.import_module(info.name)
        assert module.__doc__, f"{info.name} has no docstring"
        for name in getattr(module, "__all__", ()):
            found = getattr(module, name)
            if callable(found) and str(getattr(found, "__module__", "")).startswith("evomerge"):
                documented = getattr(found, "fn", found)  # a Triton function wraps its own
                assert documented.__doc__, f"{info.name}.{name} has no docstring"


@pytest.mark.parametrize(
    "room",
    sorted(file.parent for file in PACKAGE.rglob("__init__.py") if file.parent != PACKAGE),
    ids=lambda room: str(room.relative_to(PACKAGE)),
)
def test_a_room_says_what_is_in_it(room: Path) -> None:
    """Every member stands at the start of a line of the docstring, or as code inside one."""
    text = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""
    starts = re.findall(r"^ {4}([\w./]+(?:, [\w./]+)*)(?::| {2,})", text, re.MULTILINE)
    named = [name.removesuffix(".py").strip("/") for line in starts for name in line.split(", ")]
    inside = {name.removesuffix(".py") for name in re.findall(r"``([\w.]+)``", text)}
    members = {file.stem for file in room.glob("*.py")} - {"__init__"}
    members |= {file.parent.name for file in room.glob("*/__init__.py")}
    assert members <= {*named, *inside}
    assert all(name in members or (room / name).exists() for name in named)


def type_names(statement: ast.stmt) -> Iterator[str]:
    """Name the class or the alias of types that a statement of a module defines."""
    match statement:
        case ast.ClassDef(name=name) if not name.startswith("_"):
            yield name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            if re.fullmatch(r"[A-Z]\w*[a-z]\w*", name):  # unlike a constant
                yield name


def test_a_name_of_types_means_one_thing() -> None:
    homes: dict[str, list[str]] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        for statement in ast.parse(file.read_text(encoding="utf-8")).body:
            for name in type_names(statement):
                homes.setdefault(name, []).append(str(file.relative_to(PACKAGE)))
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


def public_names(module: str) -> set[str]:
    """What ``__all__`` lists; of a room its members, too."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    names = {member.stem for member in path.iterdir()} if path.is_dir() else set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names |= set(ast.literal_eval(node.value))
    return names


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda f: str(f.relative_to(PACKAGE))
)
def test_what_another_file_uses_is_public(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("evomerge."):
            assert {alias.name for alias in node.names} <= public_names(str(node.module))
