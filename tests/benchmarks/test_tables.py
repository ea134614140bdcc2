"""The README's tables come from measured rows, and nothing else of the file is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks import preparation, results, steps
from tests.benchmarks.__main__ import TABLES
from tests.benchmarks.readme import replace_blocks, write_readme
from tests.benchmarks.real.__main__ import TABLES as REAL

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
prose = st.text(st.characters(exclude_characters="<\r", exclude_categories=["Cs"]))


@given(before=prose, between=prose, after=prose, old=prose, new=prose)
def test_only_the_named_blocks_change(
    before: str, between: str, after: str, old: str, new: str
) -> None:
    page = "{}<!-- bench:a -->\n{}\n<!-- /bench -->{}<!-- bench:b -->\nkept\n<!-- /bench -->{}"
    written = replace_blocks(page.format(before, old, between, after), {"a": new})
    assert written == page.format(before, new.strip(), between, after)
    assert replace_blocks(written, {"a": new}) == written


@pytest.mark.parametrize("page", ["", "<!-- bench:a -->\n<!-- /bench -->\n" * 2])
def test_a_block_must_be_there_once(page: str) -> None:
    with pytest.raises(ValueError, match="expected one block bench:a"):
        replace_blocks(page, {"a": "x"})


def test_the_page_about_a_real_model_has_a_place_for_every_table() -> None:
    page = (ROOT / "docs" / "real.md").read_text(encoding="utf-8")
    assert replace_blocks(page, dict.fromkeys(REAL, "| t |")).count("| t |") == len(REAL)


def test_the_readme_has_a_place_for_every_table(tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    copy.write_text(README.read_text(encoding="utf-8"), encoding="utf-8")
    write_readme(dict.fromkeys(TABLES, "| a table |"), copy)
    assert copy.read_text(encoding="utf-8").count("| a table |") == len(TABLES)


@pytest.mark.parametrize(
    ("name", "page"), [("steps", steps.DOCS), ("preparation", preparation.DOCS)]
)
def test_the_docs_have_a_place_for_what_is_measured(name: str, page: Path, tmp_path: Path) -> None:
    copy = tmp_path / page.name
    copy.write_text((ROOT / page).read_text(encoding="utf-8"), encoding="utf-8")
    write_readme({name: "| a table |"}, copy)
    assert copy.read_text(encoding="utf-8").count("| a table |") == 1


def test_the_latest_row_of_each_method_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_FOLDER", tmp_path / "runs")
    assert results.latest("peer", ["ties"]) == []
    for method, seconds in [("ties", 1.0), ("sce", 2.0), ("ties", 3.0)]:
        results.keep("peer", {"method": method, "seconds": seconds})
    rows = results.latest("peer", ["sce", "ties", "linear"])
    assert [(row["method"], row["seconds"]) for row in rows] == [("sce", 2.0), ("ties", 3.0)]
    table = results.markdown(["m", "s"], [[str(r["method"]), "x"] for r in rows], rows)
    assert table.startswith("| m | s |\n| --- | --- |\n| sce | x |\n| ties | x |\n\nMeasured on ")


def test_a_peer_that_did_not_finish_is_a_bound() -> None:
    from tests.benchmarks.peer import _cells

    row = {"method": "sce", "statistics_s": 1, "candidate_s": 0.5, "mergekit_s": 600.0}
    assert _cells({**row, "timed_out": True})[-2:] == ["> 600.0 s", "> 1200"]
    assert _cells({**row, "timed_out": False})[-2:] == ["600.0 s", "1200"]
