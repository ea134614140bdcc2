"""A phase that fails, hangs or dies costs only itself, and what it had found is kept."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.benchmarks.gpu.findings import Finding, append, read_findings
from tests.benchmarks.gpu.phases import PHASES, Phase, failure_code
from tests.benchmarks.gpu.running import PhaseResult, load, run_phases, store
from tests.benchmarks.gpu.tables import markdown_table, phase_lines, summary
from tests.benchmarks.readme import replace_blocks

FOUND = '{"what": "a", "value": 1.0, "is_right": %s}'
SCRIPTS = {
    "well": f"echo '{FOUND % 'true'}' > FILE",
    "wrong": f"echo '{FOUND % 'false'}' > FILE",
    "hangs": f"echo '{FOUND % 'true'}' > FILE; printf cut >> FILE; sleep 600 & echo $!; wait",
    "dies": "kill -11 $$",
}
PAGE = Path(__file__).parents[3] / "docs" / "gpu.md"


def run(names: list[str], log: Path, total_s: float = 60.0) -> dict[str, PhaseResult]:
    phases = [Phase(name, "", 3.0, ("no_such_package",) * (name == "lacks")) for name in names]

    def command(name: str, found: Path, limit_s: float) -> list[str]:
        return ["sh", "-c", SCRIPTS[name].replace("FILE", str(found))]

    return {result.name: result for result in run_phases(phases, command, total_s=total_s, log=log)}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu") / "gpu.log"


@pytest.fixture(scope="module")
def results(log: Path) -> dict[str, PhaseResult]:
    return run(["hangs", "dies", "lacks", "wrong", "well"], log)


def test_each_phase_ends_in_its_own_way(results: dict[str, PhaseResult]) -> None:
    assert {name: one.state for name, one in results.items()} == {
        "hangs": "stopped after 3 s",
        "dies": "died with exit status -11",
        "lacks": "missing no_such_package",
        "wrong": "done",
        "well": "done",
    }
    failed = {name for name, one in results.items() if one.has_failed}
    assert failed == {"hangs", "dies", "wrong"}


def test_what_a_stopped_phase_had_found_is_kept(results: dict[str, PhaseResult]) -> None:
    assert results["hangs"].findings == (Finding("a", 1.0, is_right=True),)


def test_what_a_stopped_phase_had_started_is_stopped(
    log: Path, results: dict[str, PhaseResult]
) -> None:
    child = int(log.read_text().split()[0])
    for _ in range(100):
        if not is_running(child):
            return
        time.sleep(0.1)
    pytest.fail("the sleep still runs")


def is_running(pid: int) -> bool:
    """Tell whether a process is there and no zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_no_phase_is_begun_when_the_time_is_up(tmp_path: Path) -> None:
    result = run(["well"], tmp_path / "gpu.log", total_s=0.0)["well"]
    assert result.state == "not begun: no time left"
    assert not result.has_failed


def test_results_are_read_as_they_were_stored(
    results: dict[str, PhaseResult], tmp_path: Path
) -> None:
    about = {"date": "2000-01-01", "is_dry": False, "machine": {"cores": 2, "versions": {}}}
    store([*results.values()], about, tmp_path / "gpu.json")
    assert load(tmp_path / "gpu.json") == (about, [*results.values()])
    assert os.listdir(tmp_path) == ["gpu.json"]


def test_the_exit_status_has_one_bit_for_each_phase() -> None:
    names = [phase.name for phase in PHASES]
    codes = [failure_code([name]) for name in names]
    assert codes == [1 << k for k in range(len(names))]
    assert failure_code([names[0], names[2]]) == 0b101
    assert failure_code(names) < 128


def test_the_table_says_what_is_wrong_and_what_has_never_run() -> None:
    findings = (Finding("speed", 0.5, wanted="at least 0.8", is_right=False, note="slow"),)
    results = [
        PhaseResult("kernel", "done", 3.0, findings),
        PhaseResult("inside_vllm", "missing vllm", 0.0, ()),
    ]
    shown = "\n".join(phase_lines(results[0]))
    assert "NO" in shown
    assert "slow" in shown
    assert summary(results) == "failed: kernel; not run: inside_vllm (missing vllm)"
    about = {"date": "2000-01-01", "machine": {"gpu": "G", "cores": 2, "versions": {"torch": "2"}}}
    page = markdown_table(about, results)
    assert "| kernel | speed | 0.5 | at least 0.8 | NO |" in page
    assert "2000-01-01, G, 2 cores; torch 2." in page
    _, _, never = page.partition("Has never run on a GPU:")
    assert {p.name for p in PHASES if f"`{p.name}`" in never} == {
        p.name for p in PHASES if p.name != "kernel"
    }


def test_the_page_has_a_place_for_the_table_and_is_as_generated() -> None:
    page = PAGE.read_text(encoding="utf-8")
    replace_blocks(page, {"gpu": "a table"})
    if "Nothing was measured yet." in page:
        assert replace_blocks(page, {"gpu": markdown_table(None, [])}) == page


def test_a_line_that_was_cut_off_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "found"
    append(file, Finding("a", 1.0))
    file.write_text(file.read_text() + '{"what": "b", "val')
    assert read_findings(file) == [Finding("a", 1.0)]
