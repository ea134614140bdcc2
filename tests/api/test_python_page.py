"""Every block of docs/python.md runs, in order, as it stands there."""

from __future__ import annotations

from pathlib import Path

import pytest

import evomerge
from evomerge.config.presets import Presets, copy_preset
from tests.pages import DOCS, run_page

PAGE = DOCS / "python.md"


def test_the_page_runs_and_names_every_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    copy_preset(Presets().names("evaluators")["zoo"], tmp_path)
    run_page(PAGE, tmp_path)
    printed = capsys.readouterr().out
    assert "the callback enough raised RuntimeError(that is enough for now)" in printed
    assert {line.split()[0] for line in printed.splitlines() if "(" in line} >= {"5", "6", "7"}
    table = PAGE.read_text(encoding="utf-8").split("##")[0]
    assert all(f"`{name}" in table for name in evomerge.__all__ if name != "__version__")
