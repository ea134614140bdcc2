"""Assembles the report: gathers what each section needs, fills the template, writes the file."""

from __future__ import annotations

import base64
import gzip
import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

import evomerge
from evomerge.analysis.forgetting import ForgettingRow, forgetting_rows
from evomerge.analysis.front import complete, front
from evomerge.analysis.gene_shares import GeneShares, gene_shares
from evomerge.analysis.held_out import HeldOutRow, held_out_rows
from evomerge.analysis.interference import Comparison
from evomerge.analysis.paired import PairedRow, paired_rows
from evomerge.analysis.report import figures
from evomerge.analysis.report.coefficients import Row
from evomerge.analysis.report.numbers import (
    format_duration,
    format_number,
    format_stderr,
    format_value,
)
from evomerge.analysis.report.palette import DARK, LIGHT
from evomerge.analysis.report.parallel import Parallel, parallel
from evomerge.analysis.report.path import draw_path
from evomerge.analysis.report.scores import (
    Split,
    final_split,
    measures,
    summary_measure,
)
from evomerge.analysis.report.setup import About, Setup, setup
from evomerge.analysis.report.tables import (
    Failure,
    GapTable,
    PhaseTime,
    ScoreRow,
    failures,
    final_rows,
    front_rows,
    gaps,
    phase_times,
)
from evomerge.analysis.report.tiles import Tile, tiles
from evomerge.analysis.report.trials import Candidate, TrialView, candidates, trial_views
from evomerge.analysis.report.words import headline, verdict
from evomerge.analysis.seeded import seeds_advice
from evomerge.origins import model_label
from evomerge.study.records import StudyRecord, has_mean

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["REPORT_MARK", "write_report"]

REPORT_MARK = ": evomerge report</title>"  # every report has it in its first lines

_ROOM = 650_000  # bytes for the cards of trials
_NOTHING = About()
_PLOTLY_FILE = "plotly.min.js"


def write_report(
    study: StudyRecord,
    out: Path,
    *,
    items: pd.DataFrame | None = None,
    comparison: Comparison | None = None,
    about: About = _NOTHING,
    n_recipes: int = 150,
    inline_js: bool = True,
    reload_s: int | None = None,
) -> Path:
    """Write the report of a study, finished or not, as one HTML file that asks no network.

    The same study gives the same bytes.

    Args:
        study: The study as it stands.
        out: The file to write; its folder is made if need be.
        items: Item scores as ``ItemStore.read`` returns them, for intervals and paired comparisons;
            without them the page has neither.
        comparison: Of the experts' task vectors, if they were compared.
        about: What is known of the run beside its trials.
        n_recipes: How many trials can be looked at one by one, if there is room for them.
        inline_js: Put plotly.js (4.8 MB) into the page; otherwise it is written once beside it, as
            ``plotly.min.js``, which several reports in one folder share.
        reload_s: Seconds after which the page loads itself again; of a run that goes on.

    Returns:
        ``out``.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    if not inline_js:
        (out.parent / _PLOTLY_FILE).write_text(figures.plotly_js(), encoding="utf-8")
    beside = _Beside(items, comparison, about, n_recipes)
    page = (
        _environment()
        .get_template("report.html.j2")
        .render(
            page=_gather(study, beside),
            mark=REPORT_MARK,
            light=LIGHT,
            dark=DARK,
            palette=json.dumps([[LIGHT[role], DARK[role]] for role in LIGHT]),
            plotly_js=figures.plotly_js() if inline_js else None,
            plotly_file=_PLOTLY_FILE,
            version=evomerge.__version__,
            reload_s=reload_s,
        )
    )
    partial = out.with_name(f".{out.name}.{os.getpid()}")  # a browser must not load half a page
    partial.write_text(page, encoding="utf-8")
    os.replace(partial, out)
    return out


@dataclass(frozen=True)
class _Beside:
    """What the page is told beside the study."""

    items: pd.DataFrame | None
    comparison: Comparison | None
    about: About
    n_recipes: int

    @property
    def has_head(self) -> bool:
        """Whether the models have a head apart from the embedding, as far as is known."""
        parts = () if self.comparison is None else self.comparison.parts
        return not parts or any(part.name == "head" for part in parts)


@dataclass(frozen=True)
class _Page:
    """Everything the template reads; empty sections are left out there."""

    title: str
    noun: str
    headline: str
    verdict: str
    tiles: tuple[Tile, ...]
    measures: tuple[str, ...]
    summary: str
    has_mean: bool
    objectives: tuple[str, ...]
    headings: tuple[str, ...]
    constraints: tuple[str, ...]
    tradeoff: str | None
    pairs: tuple[str, ...]
    progress: tuple[str, ...]
    split: Split
    finals: tuple[ScoreRow, ...]
    gaps: tuple[GapTable, ...]
    held_out: tuple[HeldOutRow, ...]
    paired: tuple[PairedRow, ...]
    forgetting: tuple[ForgettingRow, ...]
    chosen: TrialView | None
    by_validation: bool
    trials: str
    candidates: tuple[Candidate, ...]
    parallel: Parallel | None
    genes: GeneShares | None
    setup: Setup
    front: tuple[ScoreRow, ...]
    n_front: int
    failures: tuple[Failure, ...]
    phases: tuple[PhaseTime, ...]
    comparison: Comparison | None
    advice: str
    interference: tuple[tuple[str, str, int], ...]


def _gather(study: StudyRecord, beside: _Beside) -> _Page:
    any_complete, n_objectives = bool(complete(study)), len(study.objectives)
    has_finals = bool(study.finals)
    is_many = any_complete and n_objectives > 2
    items, comparison = beside.items, beside.comparison
    genes = gene_shares(study)
    chosen, cards = _cards(study, beside)
    wanted = candidates(study) if n_objectives > 1 else ()
    return _Page(
        title=study.name,
        noun=study.noun,
        headline=headline(study),
        verdict=verdict(study, items),
        tiles=tiles(study),
        measures=tuple(m.heading for m in measures(study.objectives)),
        summary=summary_measure(study.objectives).label,
        has_mean=n_objectives > 1 and has_mean(study.objectives),
        objectives=tuple(o.name for o in study.objectives),
        headings=tuple(o.heading for o in study.objectives),
        constraints=study.constraints,
        tradeoff=figures.tradeoff_figure(study) if any_complete and n_objectives == 2 else None,
        pairs=tuple(figures.pair_figures(study)) if is_many else (),
        progress=_progress(study) if any_complete else (),
        split=final_split(study),
        finals=final_rows(study) if has_finals else (),
        gaps=gaps(study),
        held_out=() if items is None else held_out_rows(study, items),
        paired=() if items is None else paired_rows(study, items),
        forgetting=() if items is None else forgetting_rows(study, items),
        chosen=chosen,
        by_validation=any(final.chosen for final in study.finals),
        trials=json.dumps({"candidates": [asdict(c) for c in wanted], "cards": cards}),
        candidates=wanted,
        parallel=parallel(study, genes),
        genes=genes,
        setup=setup(study, beside.about, beside.items),
        front=front_rows(study),
        n_front=len(front(study)) if n_objectives > 1 else len(complete(study)),
        failures=failures(study),
        phases=phase_times(study),
        comparison=comparison,
        advice=seeds_advice(study) or ("" if comparison is None else comparison.hint),
        interference=() if comparison is None else figures.interference_figures(comparison),
    )


def _cards(study: StudyRecord, beside: _Beside) -> tuple[TrialView | None, dict[int, str]]:
    """Describe the chosen trial, and pack the cards of as many as the page has room for.

    Returns:
        The first view; by trial number its card, zipped and in base 64.
    """
    first: TrialView | None = None
    cards: dict[int, str] = {}
    room = _ROOM
    card = _environment().get_template("macros.html.j2").module.trial_card  # type: ignore[attr-defined]
    views = trial_views(study, beside.items, folder=beside.about.folder, has_head=beside.has_head)
    for view in islice(views, max(1, beside.n_recipes)):
        first = first or view
        packed = gzip.compress(card(view).encode(), mtime=0)
        room -= len(packed) * 4 // 3
        if room < 0:
            break
        cards[view.number] = base64.b64encode(packed).decode()
    return first, cards


def _progress(study: StudyRecord) -> tuple[str, ...]:
    """With one objective the hypervolume is the best value again, so it is left out."""
    best = (figures.progress_figure(study),)
    return best if len(study.objectives) == 1 else (figures.hypervolume_figure(study), *best)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("evomerge.analysis.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        value=format_value,
        stderr=format_stderr,
        number=format_number,
        duration=format_duration,
        script_json=_script_json,
        short=_short,
        model=model_label,
        percent=_percent,
        drawing=draw_path,
        by_expert=_by_expert,
        unbroken=lambda text: text.replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"),
    )
    return environment


def _by_expert(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Group rows by expert in recipe order; Jinja's own filter would sort the experts."""
    return [(expert, list(group)) for expert, group in groupby(rows, key=lambda row: row.expert)]


def _script_json(text: str) -> str:
    """Make JSON safe inside ``<script>``: no text in it can close the element."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _short(number: float) -> str:
    """Two digits for a cell of a heat map: ``.62``, ``1.2``."""
    text = f"{abs(number):.2f}".removeprefix("0") if abs(number) < 1 else f"{abs(number):.1f}"
    return ("\N{MINUS SIGN}" if number < 0 else "") + text


def _percent(share: float) -> str:
    """Write a share; nothing where it is unknown."""
    return "" if math.isnan(share) else f"{share:.1%}"
