from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from evomerge.analysis.report import write_report
from evomerge.analysis.report.words import headline
from evomerge.analysis.winners import finalists
from evomerge.evaluation.scores import ItemScore
from evomerge.evaluation.store import ItemStore
from evomerge.execution.costs import COST
from evomerge.study.records import FinalRecord, Objective, StudyRecord, TrialRecord

from ..synthetic import failed, make_study, objectives, study_of, trial

EVIL = "<script>alert(1)</script>"
VOID = {"meta", "link", "br", "col", "img", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags nest, and collects what a browser would fetch, run and show."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif self.open and self.open[-1] != "style":
            self.text += data

    @property
    def figures(self) -> list[dict[str, object]]:
        found = [json.loads(s) for s in self.scripts if s.startswith("{")]
        return [figure for figure in found if "data" in figure]


def page_of(study: StudyRecord, folder: Path, items: pd.DataFrame | None = None) -> Page:
    # plotly.js stays out: parsing 5 MB of it in every test would only cost time, as recipes do.
    out = write_report(study, folder / "r.html", items=items, n_recipes=5, inline_js=False)
    return Page(out.read_text("utf-8"))


@pytest.mark.parametrize(("k", "figures"), [(1, 1), (2, 3), (3, 5), (4, 8)])
def test_every_section_for_any_number_of_objectives(tmp_path: Path, k: int, figures: int) -> None:
    study = make_study(k)
    page = page_of(study, tmp_path)
    assert len(page.figures) == figures
    assert headline(study) in page.text.replace("\N{NO-BREAK SPACE}", " ")
    for number in ["0.735", "± 0.020", "MemoryError: 14 GB asked, 12 GB free", "zoo:base"]:
        assert number in page.text.replace("\N{NO-BREAK SPACE}", " ")


def test_report_is_one_file_that_fetches_nothing(tmp_path: Path) -> None:
    out = write_report(make_study(2), tmp_path / "new" / "report.html")
    page = Page(out.read_text("utf-8"))
    assert [file.name for file in out.parent.iterdir()] == ["report.html"]
    assert page.fetched == ["data:,"]
    assert sum(len(script) > 1_000_000 for script in page.scripts) == 1
    assert "default-src 'none'" in out.read_text("utf-8")
    assert out.stat().st_size < 6_000_000


def test_plotly_can_stand_beside_the_page(tmp_path: Path) -> None:
    out = write_report(make_study(2), tmp_path / "report.html", n_recipes=5, inline_js=False)
    assert out.stat().st_size < 300_000
    assert (tmp_path / "plotly.min.js").stat().st_size > 1_000_000
    assert Page(out.read_text("utf-8")).fetched == ["data:,", "plotly.min.js"]


def test_same_study_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = (
        write_report(make_study(3), tmp_path / name, n_recipes=9, inline_js=False).read_bytes()
        for name in ("a.html", "b.html")
    )
    assert first == second


def test_names_and_errors_are_text_and_not_markup(tmp_path: Path) -> None:
    of = [dataclasses.replace(o, name=EVIL + o.name) for o in objectives(2)]
    recipe: dict[str, object] = {
        "experts": {EVIL: EVIL},
        "rules": [{"method": EVIL, "parameters": {"coefficient": {EVIL: 0.5}, EVIL: EVIL}}],
    }
    trials = [
        trial(0, (0.1, 0.2), origin=f"expert:{EVIL}"),
        trial(1, (0.5, 0.6), recipe=recipe),
        failed(2, f"{EVIL}\n{EVIL} x"),
    ]
    page = page_of(study_of(trials, of, name=EVIL), tmp_path)
    assert not any("alert" in s for s in page.scripts if not s.startswith("{"))
    assert "<script" not in json.dumps(page.figures)
    assert page.text.count(EVIL) >= 8


def test_study_without_a_complete_trial(tmp_path: Path) -> None:
    page = page_of(make_study(2, n_trials=0), tmp_path)
    assert page.figures == []
    assert "No trial has finished yet." in page.text
    assert "logits are not finite" in page.text


def test_empty_study(tmp_path: Path) -> None:
    assert "No trial has finished yet." in page_of(study_of([], objectives(2)), tmp_path).text


def test_unknown_standard_errors_leave_no_nan_on_the_page(tmp_path: Path) -> None:
    trials = [
        trial(0, (0.2, 0.3), origin="base", stderr=math.nan),
        trial(1, (0.5, 0.625), stderr=math.nan),
    ]
    page = page_of(study_of(trials, objectives(2)), tmp_path)
    assert "0.625" in page.text
    assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)


def test_minimized_objectives_have_reversed_axes(tmp_path: Path) -> None:
    mixed = (objectives(2)[0], objectives(2, "minimize")[1])
    trials = [trial(0, (0.2, 9.0), origin="base"), trial(1, (0.5, 4.0)), trial(2, (0.6, 5.0))]
    layout = page_of(study_of(trials, mixed), tmp_path).figures[0]["layout"]
    assert isinstance(layout, dict)
    assert layout["yaxis"]["autorange"] == "reversed"
    assert layout["xaxis"]["autorange"] is True


@pytest.mark.parametrize(("direction", "corner"), [("maximize", "vh"), ("minimize", "hv")])
def test_front_line_turns_on_the_dominated_side(
    tmp_path: Path, direction: str, corner: str
) -> None:
    of = objectives(2, direction)  # type: ignore[arg-type]
    study = study_of([trial(0, (0.2, 0.8)), trial(1, (0.8, 0.2))], of)
    line = page_of(study, tmp_path).figures[0]["data"]
    assert isinstance(line, list)
    assert line[0]["x"] == [0.2, 0.8]
    assert line[0]["line"]["shape"] == corner


def test_running_study_says_that_search_scores_are_biased(tmp_path: Path) -> None:
    page = page_of(make_study(2, finals=False), tmp_path)
    assert "biased upward" in page.text
    assert "On items the search never saw" not in page.text
    assert "The knee of the front so far" in page.text


def test_report_needs_no_torch() -> None:
    code = "import sys, evomerge.analysis.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_item_scores_add_intervals_and_paired_comparisons(tmp_path: Path) -> None:
    study = make_study(2)
    store = ItemStore(tmp_path / "items")
    for final in (f for f in study.finals if f.split == "test"):
        right = round(100 * final.values[0])
        scored = [ItemScore("zoo_math", i, "exact_match", float(i < right)) for i in range(100)]
        store.write(final.number, "test", scored)
    page = page_of(study, tmp_path, store.read())
    assert "With 95 % intervals" in page.text
    assert "What the best merge gained and broke" in page.text
    assert "expert math" in page.text
    assert "95 % intervals" not in page_of(study, tmp_path).text


def cells(html: str, title: str) -> list[list[str]]:
    """Read the first table under a heading, row by row."""
    table = html.partition(title)[2].partition("</table>")[0]
    return [
        [re.sub("<[^>]*>", "", cell).strip() for cell in re.findall("<t[hd].*?</t[hd]>", row)]
        for row in re.findall("<tr.*?</tr>", table, re.DOTALL)
    ]


def columns(html: str, title: str) -> dict[str, dict[str, str]]:
    """Read a table: of each row the cell under each column's name."""
    head, *rows = cells(html, title)
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def blocks(html: str, title: str) -> dict[str, list[dict[str, str]]]:
    """Read a table whose rows stand under headings of their own."""
    head, *rows = cells(html, title)
    found: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if len(row) == 1:
            found[row[0]] = block = []
        else:
            block.append(dict(zip(head, row, strict=True)))
    return found


@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_column_bears_the_name_of_what_is_in_it(tmp_path: Path, place: int) -> None:
    scores = [Objective(name, "exact_match", "maximize", name) for name in ("h_math", "h_fact")]
    cost = Objective(COST, "distance", "minimize", "distance")
    of = [*scores[:place], cost, *scores[place:]]
    found = {"h_math": 0.25, "h_fact": 0.75, "distance": 3.5}
    values = tuple(found[objective.name] for objective in of)
    final = FinalRecord(0, "search", "test", values, (0.02,) * 3, chosen=True)
    study = study_of([trial(0, values)], of, finals=[final])
    items = pd.DataFrame(columns=["split", "task", "metric", "trial", "item", "score"])

    write_report(study, tmp_path / "r.html", items=items, inline_js=False)
    html = (tmp_path / "r.html").read_text("utf-8")
    for title in ("On items the search never saw", "With 95 % intervals", "The front, trial"):
        row = next(iter(columns(html, title).values()))
        named = {name.removesuffix(" ↓"): value for name, value in row.items()}
        assert {name: float(named[name].split()[0][:5]) for name in found} == found, title
        assert [name for name in row if name.endswith("↓")] == ["distance ↓"], title
    flattered = blocks(html, "How much the search flattered them")
    for name, value in found.items():
        (row,) = flattered[name]
        assert {key: float(row[key].split()[0][:5]) for key in ("search", "test", "gap")} == {
            "search": value,
            "test": value,
            "gap": 0.0,
        }
    # Accuracies and a cost have no mean: the first that is a score stands for them.
    assert "best h_math first" in html
    assert "h_math ± 2 standard errors" in html


def test_an_objective_may_be_called_mean(tmp_path: Path) -> None:
    study = study_of([trial(0, (0.5,))], [Objective("mean", "exact_match", "maximize", "mean")])
    assert "The plain average" not in page_of(study, tmp_path).text


def test_no_trial_is_compared_with_every_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records are told apart by number: to compare all with all takes hours for 100,000."""
    study = dataclasses.replace(make_study(2, n_trials=60, layers=2), finals=())
    compared: list[object] = []
    monkeypatch.setattr(TrialRecord, "__eq__", lambda one, other: compared.append(other))
    write_report(study, tmp_path / "report.html")
    finalists(study, 8)
    assert compared == []
