"""A study goes on only with the models, tokenizer and items that its trials were scored with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from evomerge import fingerprint
from evomerge.config.presets import Presets
from evomerge.errors import StudyError
from evomerge.models.zoo import zoo_path
from evomerge.runs.events import Events
from evomerge.runs.reading import read_study
from evomerge.runs.stages import change_run, continue_run
from evomerge.runs.stored import read_experiment
from evomerge.study.folder import StudyFolder
from tests.runs.creating import create_run
from tests.studies.make import EXPERIMENT, write_task

METRIC = "def margin(doc, answers, target):\n    return answers[target][0]\n"
CODE = "def keep(dataset):\n    return dataset\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Five trials over models and a task in folders of their own: where, and a copy of all."""
    root = tmp_path_factory.mktemp("inputs") / "root"
    started(root)
    return root, Path(shutil.copytree(root, root.with_name("copy")))


@pytest.fixture
def root(made: tuple[Path, Path]) -> Path:
    """The folder of models, task and study, as it was made."""
    root, copy = made
    shutil.rmtree(root)
    return Path(shutil.copytree(copy, root))


@pytest.fixture
def run(root: Path) -> StudyFolder:
    return StudyFolder(root / "run")


def started(root: Path, **changes: object) -> StudyFolder:
    for name in ("base", "math", "list"):
        shutil.copytree(zoo_path(name), root / name)
    write_task(root / "tasks")
    (root / "tasks" / "code.py").write_text(CODE)
    with (root / "tasks" / "sums.yaml").open("a") as file:
        file.write("process_docs: !function code.keep\n")
    (root / "metrics.py").write_text(METRIC)
    own = {"margin": {"file": "metrics.py"}}
    evaluator = EXPERIMENT["evaluators"][0] | {"allow_code": True, "metrics": own}
    content = EXPERIMENT | {
        "models": {"base": "base", "experts": {"math": "math", "list": "list"}},
        "evaluators": [evaluator],
        "budget": {"trials": 5},
        **changes,
    }
    (root / "e.yaml").write_text(yaml.safe_dump(content))
    folder = StudyFolder(root / "run")
    create_run(root / "e.yaml", Presets(), [], folder)
    continue_run(folder, Events())
    return folder


def go_on(run: StudyFolder, *overrides: str, trials: int = 6, **options: bool) -> int:
    change_run(run, [f"budget.trials={trials}", *overrides], **options)
    return len(continue_run(run, Events(), **options).trials)


def change_weight(file: Path) -> None:
    """One element, in a file of the same size and times."""
    before, tensors = file.stat(), load_file(file)
    tensors[min(tensors)].view(-1)[0] += 1.0
    save_file(tensors, file, metadata={"format": "pt"})
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def edit(old: str, new: str, *files: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for file in files:
            text = (root / file).read_text()
            assert old in text
            (root / file).write_text(text.replace(old, new, 1))

    return change


CHANGES = {
    "weights of math": lambda root: change_weight(root / "math" / "model.safetensors"),
    "config of list": edit('"rms_norm_eps": ', '"rms_norm_eps": 1', "list/config.json"),
    "tokenizer of base": edit('"unk', '"UNK', "base/tokenizer_config.json"),
    "items of sums (search)": edit("one plus one", "one plus two", "tasks/items.jsonl"),
    "metric margin": edit("[0]", "[0] + 0", "metrics.py"),
    "prompts": edit("{{text}}", "{{text}} .", "tasks/sums.yaml"),
    "code": edit("return dataset", "return dataset  # new", "tasks/code.py"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changed_is_named_and_refused(what: str, run: StudyFolder, root: Path) -> None:
    CHANGES[what](root)
    named = what if " " in what else "items of sums (search)"
    with pytest.raises(StudyError) as error:
        go_on(run)
    (line,) = str(error.value).splitlines()
    assert f"scored with, got other {named}; restore the files" in line
    assert [t.state for t in read_study(run).trials] == ["complete"] * 5


def test_who_insists_goes_on_and_what_was_accepted_is_compared_with(
    run: StudyFolder, root: Path
) -> None:
    CHANGES["weights of math"](root)
    assert go_on(run, accept_changes=True) == 6
    assert go_on(run, trials=7) == 7


def test_all_that_changed_is_named_at_once(run: StudyFolder, root: Path) -> None:
    for what in ("weights of math", "items of sums (search)"):
        CHANGES[what](root)
    with pytest.raises(StudyError, match=r"other weights of math, items of sums \(search\);"):
        go_on(run)


def test_equal_files_of_another_age_are_the_same(run: StudyFolder, root: Path) -> None:
    for name in ("math", "tasks"):
        shutil.copytree(root / name, root / "copy" / name)
        shutil.rmtree(root / name)
        (root / "copy" / name).rename(root / name)
    for file in root.rglob("*.*"):
        os.utime(file, (1, 1))
    assert go_on(run) == 6


def test_a_finished_study_is_read_whatever_became_of_its_models(
    run: StudyFolder, root: Path
) -> None:
    change_weight(root / "math" / "model.safetensors")
    assert len(continue_run(run, Events()).trials) == 5


def test_a_study_without_trials_has_nothing_to_compare(run: StudyFolder, root: Path) -> None:
    (run.root / "study.journal").unlink()
    shutil.rmtree(run.items)
    change_weight(root / "math" / "model.safetensors")
    assert len(continue_run(run, Events()).trials) == 5


def test_a_moved_model_is_the_same(run: StudyFolder, root: Path, monkeypatch) -> None:
    before = read_study(run).trials
    for name in ("base", "math"):
        (root / name).rename(root / f"{name}_there")
    monkeypatch.chdir(root)  # relative places start where the command is given
    there = {name: f"{name}_there" for name in ("base", "math")}
    assert go_on(run, f"models.base={there['base']}", f"models.experts.math={there['math']}") == 6
    after = read_study(run).trials
    assert [t.values for t in after[:5]] == [t.values for t in before]
    for trial in after:
        places = {trial.recipe["base"], *trial.recipe["experts"].values()}
        assert places == {str(root / p) for p in ("base_there", "math_there", "list")}


def test_another_model_at_another_place_is_refused_and_not_written_down(
    run: StudyFolder, root: Path
) -> None:
    before = read_experiment(run)
    with pytest.raises(StudyError, match="got other weights of math;"):
        go_on(run, f"models.experts.math={root / 'list'}")
    assert read_experiment(run) == before
    assert go_on(run, f"models.experts.math={root / 'list'}", accept_changes=True) == 6


@pytest.mark.parametrize("override", ["models.dtype=float32", "models.experts.new=zoo:facts"])
def test_no_more_than_the_place_of_a_model_may_change(override: str, run: StudyFolder) -> None:
    with pytest.raises(StudyError, match="start a new study for another experiment"):
        change_run(run, [override])


def test_recipes_that_a_search_starts_from_move_with_its_models(tmp_path: Path) -> None:
    rules = [{"method": "linear", "parameters": {"coefficient": 0.5}}]
    experts = {"a": str(tmp_path / "math"), "b": str(tmp_path / "list")}
    recipe = {"base": str(tmp_path / "base"), "experts": experts, "rules": rules}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    run = started(tmp_path, seeds={"recipes": ["r.yaml"]})
    (tmp_path / "math").rename(tmp_path / "there")
    assert go_on(run, f"models.experts.math={tmp_path / 'there'}") == 6


def test_models_may_not_change_between_stages(tmp_path: Path) -> None:
    stages = [{"search_space": EXPERIMENT["search_space"]}] * 2
    content = {"stages": stages, "search_space": None, "budget": {"trials": 5}}
    run = started(tmp_path, **content)
    shutil.rmtree(run.stage(2).root)
    change_weight(tmp_path / "list" / "model.safetensors")
    with pytest.raises(StudyError, match="got other weights of list;"):
        continue_run(run, Events())


def test_files_that_were_looked_at_before_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprint, "_SETTLED_S", -1.0)
    run = started(tmp_path)
    read: list[Path] = []
    monkeypatch.setattr(fingerprint, "_hashed", read.append)
    assert go_on(run) == 6
    assert read == []
