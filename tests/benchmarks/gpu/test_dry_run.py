"""``make gpu DRY=1``: every phase in miniature, each with no other packages than it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.gpu.phases import PHASES, Phase
from tests.benchmarks.gpu.running import PhaseResult, load

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.survival


@pytest.fixture(scope="module")
def dry_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PhaseResult]:
    out = tmp_path_factory.mktemp("dry")
    command = [sys.executable, "-m", "tests.benchmarks.gpu", "--dry", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr + (out / "gpu-dry.log").read_text()
    about, results = load(out / "gpu-dry.json")
    assert about["is_dry"]
    return {result.name: result for result in results}


@pytest.mark.timeout(1800)  # seconds of work, but machines may be busy
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.name)
def test_every_phase_runs_in_miniature(phase: Phase, dry_run: dict[str, PhaseResult]) -> None:
    result = dry_run[phase.name]
    if missing := phase.missing():
        assert result.state == f"missing {', '.join(missing)}"
        pytest.skip(result.state)
    assert result.state == "done"
    assert result.findings
    assert all(finding.is_right is not False for finding in result.findings)


@pytest.mark.parametrize("name", ["correctness", "live", "adjoint", "memory"])
def test_bytes_and_sums_are_checked_in_miniature_too(
    name: str, dry_run: dict[str, PhaseResult]
) -> None:
    if dry_run[name].was_begun:
        assert any(finding.is_right for finding in dry_run[name].findings)
