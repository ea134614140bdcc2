"""The main job through the command line, on the embedded models: stopped, resumed, exported."""

from __future__ import annotations

import fcntl
import json
import math
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from evomerge.analysis.intervals import difference, mean
from evomerge.analysis.picking import pick
from evomerge.runs.reading import read_study
from evomerge.study.folder import StudyFolder
from tests.e2e.command import ENDLESS, evomerge
from tests.e2e.stopped import require_stopped_in_order, wait_for_trials

ON_A_TERMINAL = """
import fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from evomerge.cli.main import main
main()
"""


@dataclass(frozen=True)
class Interrupted:
    """A run that somebody ended with Ctrl-C."""

    folder: Path
    driver: subprocess.Popen[str]
    said: str


def read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # closed by the last that had it open
        return b""


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    """The quickstart in a terminal, on two Ray workers, until Ctrl-C."""
    folder = tmp_path_factory.mktemp("quickstart") / "run"
    terminal, inside = pty.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 400, 0, 0))
    driver = subprocess.Popen(
        [
            *(sys.executable, "-c", ON_A_TERMINAL, "run", "quickstart", "--dir", str(folder)),
            *("--workers", "2", *ENDLESS),
        ],
        stdin=inside,
        stdout=subprocess.DEVNULL,
        stderr=inside,
        start_new_session=True,
        text=True,
    )
    os.close(inside)
    drawn: list[bytes] = []
    reader = threading.Thread(target=lambda: drawn.extend(iter(lambda: read(terminal), b"")))
    reader.start()
    wait_for_trials(folder, 4, driver)
    os.write(terminal, b"\x03")
    driver.wait(timeout=200)
    reader.join()
    os.close(terminal)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", b"".join(drawn).decode())
    return Interrupted(folder, driver, plain)


@pytest.fixture(scope="module")
def quickstart(interrupted: Interrupted) -> Path:
    """The whole quickstart: the rest of its budget, or a little more than was used already."""
    used = read_study(StudyFolder(interrupted.folder)).evaluations
    budget = f"budget.trials={max(120, math.ceil(used) + 20)}"
    done = evomerge("resume", interrupted.folder, "--set", budget)
    assert "best merge" in done.stdout
    return interrupted.folder


def test_ctrl_c_in_a_terminal_stops_workers_in_order_and_nothing_is_drawn_after(
    interrupted: Interrupted,
) -> None:
    require_stopped_in_order(interrupted.folder, interrupted.driver, interrupted.said)
    assert "busy" in interrupted.said


def test_the_budget_is_met_and_everything_is_there(quickstart: Path) -> None:
    status = json.loads(evomerge("status", quickstart, "--json").stdout)
    complete = status["trials"].pop("complete")
    assert status["trials"] == {"failed": 0, "running": 0, "pruned": 0}
    assert complete + status["climbed"] > 6  # base, experts, average, and more
    assert status["budget"] - 1 < status["evaluations"] <= status["budget"]
    assert status["hypervolume"] > 0
    assert {"ask", "merge", "evaluate", "tell", "idle"} <= status["seconds"].keys()
    assert (quickstart / "report.html").stat().st_size > 100_000
    study = read_study(StudyFolder(quickstart))
    assert [t.origin for t in study.trials[:2]] == ["base", "expert:math"]
    assert {f.split for f in study.finals} == {"validation", "test"}


def test_the_front_as_json_is_one_document(quickstart: Path) -> None:
    front = json.loads(evomerge("front", quickstart, "--json").stdout)
    assert [o["name"] for o in front["objectives"]] == ["zoo_math", "zoo_list", "zoo_facts"]
    for trial in front["trials"]:
        assert len(trial["values"]) == len(trial["stderr"]) == 3
        assert trial["recipe"]["base"] == "zoo:base"


PLAIN = """
import json, sys
import transformers
transformers.utils.logging.disable_progress_bar()
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
import yaml, pathlib
import torch
torch.set_num_threads(1)
tasks = []
for file in sorted(pathlib.Path(sys.argv[2]).rglob("zoo_*.yaml")):
    config = yaml.safe_load(file.read_text())
    files = config["dataset_kwargs"]["data_files"]
    config["dataset_kwargs"]["data_files"] = {k: str(file.parent / v) for k, v in files.items()}
    config["test_split"] = "search"
    tasks.append(config)
results = lm_eval.simple_evaluate(
    model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=64, device="cpu"),
    tasks=tasks, task_manager=TaskManager(include_defaults=False), bootstrap_iters=0,
)["results"]
assert "evomerge" not in sys.modules
numbers = {t: {k: v for k, v in r.items() if isinstance(v, float)} for t, r in results.items()}
print("RESULTS" + json.dumps(numbers))
"""


def test_the_export_is_an_ordinary_model_that_scores_what_the_trial_scored(
    quickstart: Path, tmp_path: Path
) -> None:
    """Whole search items: plain transformers and lm-eval, in a process without evomerge."""
    from evomerge.config.presets import Presets

    out = evomerge("export", quickstart, "--pick", "knee", "--out", tmp_path / "model").stdout
    assert "exported" in out
    tasks = Presets().names("evaluators")["zoo"].parent / "tasks"
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(tmp_path / "model"), str(tasks)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    results = json.loads(done.stdout.split("RESULTS")[1])
    study = read_study(StudyFolder(quickstart))
    trial = pick(study, "knee")
    for objective, value in zip(study.objectives, trial.values, strict=True):
        metrics = results[objective.task]
        assert metrics[f"{objective.metric},none"] == value


def test_the_demo_beats_every_parent_by_two_standard_errors(quickstart: Path) -> None:
    """Its winner against the best expert and the uniform average."""
    finals = [f for f in read_study(StudyFolder(quickstart)).finals if f.split == "test"]
    scores = {f.origin: mean(f.values, f.stderr) for f in finals}
    winner = next(mean(f.values, f.stderr) for f in finals if f.chosen)
    experts = [s for origin, s in scores.items() if origin.startswith("expert:")]
    for rival in (max(experts, key=lambda s: s.value), scores["uniform"]):
        gap = difference(winner, rival)
        assert gap.value > 2 * gap.stderr
