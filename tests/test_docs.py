"""README and docs/ are true: commands parse, examples are read or run, links lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

import evomerge
from evomerge.cli.main import app
from evomerge.config import experiment as module
from evomerge.config.experiment import Experiment
from evomerge.config.load import draft_of
from evomerge.config.overrides import apply_overrides
from evomerge.config.presets import Presets
from evomerge.ensembles.file import read_ensemble
from evomerge.errors import ConfigError
from evomerge.evaluation import TaskCatalogue
from evomerge.evaluation.engine_choice import EngineChoice
from evomerge.evaluation.gates import Gates
from evomerge.mixtures.file import MixtureFile
from evomerge.recipe.files import recipe_from_data
from evomerge.recipe.foreign import is_mixture
from evomerge.runs.parts import load_suites
from evomerge.runs.stages import load_draft
from evomerge.schema import parse, parse_yaml
from evomerge.space.spec import ParameterSpec
from tests.pages import DOCS, ROOT, blocks, run_page

PAGE = DOCS / "experiments.md"
WRITTEN_BY_US = {"winners", "origin", "recipe", "digest"}  # into resolved experiments only


def example() -> dict[str, Any]:
    """All blocks of the page as one experiment; lists that go on later are one."""
    found: dict[str, Any] = {}
    for text in (block.text for block in blocks(PAGE) if block.language == "yaml"):
        for key, value in parse_yaml(text).items():
            goes_on = isinstance(value, list) and isinstance(found.get(key), list)
            found[key] = [*found[key], *value] if goes_on else value
    return found


@pytest.mark.parametrize("one_of", ["search_space", "stages"])
def test_the_example_is_an_experiment(one_of: str) -> None:
    other = {"search_space": "stages", "stages": "search_space"}[one_of]
    content = {key: value for key, value in example().items() if key != other}
    if one_of == "stages":
        del content["storage"]
    parse(Experiment, content)


def test_every_key_is_there() -> None:
    text = PAGE.read_text()
    keys = set(Gates.__dataclass_fields__)
    for name in module.__all__:
        section = getattr(module, name)
        assert issubclass(section, BaseModel)
        keys |= set(section.model_fields)
    missing = {key for key in keys - WRITTEN_BY_US if not re.search(rf"\b{key}:", text)}
    assert not missing


def test_what_is_shown_as_a_default_is_one() -> None:
    """Of the keys without the word example in their comment, or in that of their section."""
    shown = example()
    assert shown["seeds"]["parents"] is Experiment.model_fields["seeds"].default.parents
    for key in ("gates", "execution"):
        default = Experiment.model_fields[key].default
        for name, value in shown[key].items():
            assert value == getattr(default, name), f"{key}.{name}"
    assert EngineChoice(name=shown["engine"]) == Experiment.model_fields["engine"].default
    for key in ("allow_test_split", "finalists", "seed"):
        assert shown[key] == Experiment.model_fields[key].default, key
    assert shown["budget"]["trials"] == Experiment.model_fields["budget"].default.trials


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
SMALLEST: dict[str, Any] = {
    "models": {"base": "zoo:base", "experts": {"math": "zoo:math"}},
    "search_space": "global_linear",
    "evaluators": ["zoo"],
    "objectives": [{"task": "zoo_math", "metric": "exact_match"}],
}
PICK = re.compile(
    r"knee|chosen|front|[A-Z]+|best:\w+|trial:(\d+|N)|prefer:\w+=[\d.]+(,\w+=[\d.]+)*"
)
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


@by_page
def test_every_command_line_is_one(page: Path) -> None:
    """Whole lines of blocks are parsed as they would be; in prose, names are looked up."""
    faults = [fault for line in _lines(page) if (fault := command_fault(line, whole=True))]
    faults += [fault for line in _in_prose(page) if (fault := command_fault(line, whole=False))]
    assert not faults


def test_commands_of_the_makefile_and_of_presets_are_some() -> None:
    lines = re.findall(r"\$\(BIN\)/(evomerge .*)", (ROOT / "Makefile").read_text())
    kinds = ("experiments", "search_spaces")
    texts = [f.read_text(encoding="utf-8") for kind in kinds for f in (ROOT / kind).glob("*.yaml")]
    lines += re.findall(r"Run it: (evomerge run \w+(?: --set \S+)*)", "\n".join(texts))
    assert len(lines) > 20
    assert not [fault for line in lines if (fault := command_fault(line, whole=True))]


def test_what_is_no_command_line_is_found() -> None:
    assert command_fault("evomerge front runs/my --jsn", whole=False)
    assert command_fault("evomerge frnt runs/my", whole=False)
    assert command_fault("evomerge export runs/my", whole=True)
    assert command_fault("evomerge export runs/my --out x --format gguf", whole=True)
    assert not command_fault("evomerge export runs/my", whole=False)
    assert not command_fault("A=1 evomerge presets copy ties . # to edit", whole=True)


@by_page
def test_what_command_lines_name_exists(page: Path) -> None:
    """Presets, the keys and values of --set, splits of --pick, extras of pip, options of make."""
    lines = [*_lines(page), *_in_prose(page)]
    assert not [fault for line in lines for fault in faults_of_names(line)]
    text = page.read_text(encoding="utf-8")
    extras = set(re.findall(r"pip install (?:-e )?'?(?:\.|evomerge)\[([\w,]+)\]", text))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert {name for names in extras for name in names.split(",")} <= {
        *re.findall(r"^(\w+) = \[", project, flags=re.M)
    }
    for target, options in re.findall(r'^make ([\w-]+) ARGS="([^"]*)"', text, flags=re.M):
        module = re.search(rf"^{target}:.*\n\t.*-m ([\w.]+) \$\(ARGS\)", MAKEFILE, flags=re.M)
        assert module, target
        parser = vars(import_module(f"{module[1]}.__main__"))["_options"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [module[1], *options.split()])
            parser()


def test_what_no_command_line_may_name_is_found() -> None:
    assert list(faults_of_names("evomerge run quikstart"))
    assert list(faults_of_names("evomerge run quickstart --set budget.trails=3"))
    assert list(faults_of_names("evomerge export runs/my --pick best --out x"))
    assert not list(faults_of_names("evomerge run my.yaml --set budget.trials=3 --executor inline"))


def faults_of_names(line: str) -> Iterator[str]:
    """List what the files and studies that a line is about could not be asked for."""
    words = shlex.split(line, comments=True)
    words = words[words.index("evomerge") + 1 :]
    if words[:1] and words[0] in ("run", "check", "compare", "calibrate") and len(words) > 1:
        name = words[1]
        known = Presets().names("experiments")
        if not (name.endswith(".yaml") or name.isupper() or name.startswith("-") or name in known):
            yield f"{line}: no experiment {name!r}"
    for option, value in pairwise(words):
        if option == "--set" and "=" in value and "…" not in value:
            try:
                parse(Experiment, apply_overrides(SMALLEST, [value]))
            except ConfigError as error:
                yield f"{line}: {error}"
        is_pick = re.fullmatch(
            r"knee|chosen|front|[A-Z]+|best:\w+|trial:(\d+|N)|prefer:\w+=[\d.]+(,\w+=[\d.]+)*",
            value,
        )
        if option == "--pick" and not is_pick:
            yield f"{line}: no way to pick {value!r}"


def _lines(page: Path) -> list[str]:
    shells = [block.text for block in blocks(page) if block.language in ("sh", "bash", "")]
    lines = "\n".join(shells).replace("\\\n", " ").splitlines()
    return [line for line in lines if re.match(r"\s*(\w+=\S+ )*(srun )?evomerge ", line)]


@by_page
def test_every_line_of_a_shell_is_of_a_program_that_is_looked_at(page: Path) -> None:
    """Ours and make are parsed; of the others only what they are is known."""
    shells = [b.text for b in blocks(page) if b.language in ("sh", "bash", "")]
    lines = "\n".join(shells).replace("\\\n", " ").splitlines()
    programs = {
        next(word for word in shlex.split(line, comments=True) if "=" not in word)
        for line in lines
        if line.strip() and not line.startswith(("#", "export "))
    }
    others = {"pip", ".", "python", "llama.cpp/build/bin/llama-quantize"}
    assert programs <= {"evomerge", "make", *others}


def _in_prose(page: Path) -> list[str]:
    return re.findall(r"`(evomerge [^`…|]+)`", page.read_text(encoding="utf-8"))


def command_fault(line: str, *, whole: bool) -> str | None:
    """Say what the command line would, without running anything."""
    words = shlex.split(line, comments=True)
    words = words[words.index("evomerge") + 1 :]
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        if words[0] in {option for p in command.params for option in p.opts}:
            words.pop(0)
        elif words[0] in command.commands:
            command = command.commands[words.pop(0)]
        else:
            return f"{line}: no command {words[0]!r}"
    try:
        command.make_context("evomerge", [word for word in words if word != "--help"])
    except Exception as error:  # typer's, wherever it lies in this version
        said: str = error.format_message()  # type: ignore[attr-defined]
        is_cut = re.search(r"^Missing|requires an argument", said)
        return None if is_cut and not whole else f"{line}: {said}"
    return None


@by_page
def test_targets_modules_and_files_that_pages_name_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    assert set(re.findall(r"(?:`|^)make ([a-z][\w-]*)", text, flags=re.M)) <= targets
    modules = re.findall(r"python3? -m (tests[\w.]*)", text)
    paths = [ROOT / name.replace(".", "/") for name in modules]
    assert [p for p in paths if not (p.is_dir() or p.with_suffix(".py").is_file())] == []
    links = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


@by_page
def test_every_anchor_is_a_heading(page: Path) -> None:
    for file, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text("utf-8")):
        target = page if not file else page.parent / file
        titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), flags=re.M)
        assert anchor in {
            re.sub(r"[^\w -]", "", t).strip().lower().replace(" ", "-") for t in titles
        }


@by_page
def test_blocks_of_yaml_are_what_they_look_like(page: Path) -> None:
    """Experiments, recipes, spaces, suites; a fragment is read as a part of a small experiment."""
    for block in blocks(page):
        if block.language != "yaml" or block.file in RUN_ELSEWHERE:
            continue
        content = parse_yaml(block.text)
        if {"models", "objectives"} <= content.keys():
            parse(Experiment, content)
            assert not list(names_without_preset(content)), block.text
        elif is_mixture(content):
            assert not list(parse(MixtureFile, content).faults())
        elif "ensemble" in content:
            read_ensemble(content, ROOT)
        elif {"experts", "rules"} <= content.keys():
            recipe_from_data(content)
        elif content.keys() & {"method", "kind"}:
            parse(ParameterSpec, content)
        elif "tasks" in content:
            parse(module.EvaluatorConfig, content)
        else:
            whole = {**SMALLEST, **content}
            if "stages" in content:
                del whole["search_space"]
            parse(Experiment, whole)
            assert not list(names_without_preset(content)), block.text


RUN_ELSEWHERE = {
    "tasks/zoo_math/zoo_words.yaml",  # tests/api/test_extending_page.py
    *("tasks/capitals.yaml", "tasks/seas.yaml", "tasks/functions.yaml"),  # below
    "tasks/charts.yaml",  # tests/runs/test_images.py
}


def names_without_preset(content: dict[str, Any]) -> Iterator[str]:
    """List what an experiment calls by a name that neither ships nor is a file."""
    spaces = [content.get("search_space"), *(s["search_space"] for s in content.get("stages", []))]
    presets = Presets()
    known = {*presets.names("search_spaces"), *presets.names("evaluators")}
    for name in (*spaces, *content.get("evaluators", [])):
        if isinstance(name, str) and not name.endswith(".yaml") and name not in known:
            yield name


RUN = {"python.md", "extending.md", "tasks.md", "averaging.md"}  # tests/api, averaging; below


@by_page
def test_python_that_is_not_run_is_there(page: Path) -> None:
    """It needs an experiment of one's own; docs/python.md shows the same, and runs."""
    shown = [b.text for b in blocks(page) if b.language == "python"]
    if page.name in RUN:
        assert shown
        return
    owners = {"evomerge": evomerge, "study": evomerge.Study}
    for text in shown:
        used = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Attribute)]
        names = [(n.value.id, n.attr) for n in used if isinstance(n.value, ast.Name)]
        assert names
        assert [name for owner, name in names if not hasattr(owners[owner], name)] == []


def test_the_page_on_tasks_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its task files are lm-eval's, its evaluator and its experiment load."""
    monkeypatch.chdir(tmp_path)
    page = DOCS / "tasks.md"
    names = run_page(page, tmp_path)
    scores, own = names["scores"], names["own"]
    assert {"near", "margin"} <= set(own["metric"])
    assert set(scores["task"]) == {"capitals", "seas"}
    assert set(scores["n"]) == {5}
    (suite,) = load_suites(["functions_that_run.yaml"], Presets(), tmp_path)
    if not list(suite.metrics["passes"].faults("passes", allow_code=True)):  # else no Linux
        catalogue = TaskCatalogue.of([suite])
        assert "passes" in catalogue.metrics["functions"]
    (whole,) = (b.text for b in blocks(page) if b.language == "yaml" and "objectives:" in b.text)
    (tmp_path / "my.yaml").write_text(whole)
    (loaded,) = load_draft(draft_of("my.yaml", [], Presets()))
    assert [o.name for o in loaded.objectives] == ["capitals", "seas"]


def test_every_page_is_in_the_site_and_it_builds(tmp_path: Path) -> None:
    """Unknown links and anchors are errors; pages that no menu names are, too."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert set(re.findall(r": (\w+\.md)$", text, flags=re.M)) == {p.name for p in DOCS.glob("*.md")}
    for name in ("mkdocs", "material", "mkdocstrings"):
        pytest.importorskip(name, reason="the extra docs is not installed: make docs")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    pages = [file.read_text(encoding="utf-8") for file in tmp_path.glob("*.html")]
    assert not [p for p in pages if re.search(r'(?:src|<link[^>]*href)="https?:', p)], "no network"
