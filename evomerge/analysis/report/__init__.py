"""The HTML report: one self-contained page that says what a study found.

Members:
    page: gathers everything and writes the file.
    setup: the experiment, and what is known of the run.
    trials: one trial after the other, as a reader chooses it.
    scores: which scores and trials the page is about.
    words: the result in sentences.
    tables: rows of the score, failure and timing tables.
    coefficients: a recipe as a grid of layers and module kinds.
    tiles: the numbers at the top of the page.
    figures: plotly figures (the only file that imports plotly).
    parallel: trials as lines over objectives and genes.
    path: a data-flow path as a drawing.
    labels: where the names of points go.
    layers: trials sorted by how figures show them.
    numbers: digits and units.
    palette: every colour, for light and dark.
    report.html.j2, macros.html.j2, report.css: the page itself.
    figures.js, choose.js, live.js: what draws, what answers the reader, what loads it again.

Add a section as a frozen record made by one function, a field of the page's context, and a block
in the template.
"""

from evomerge.analysis.report.page import REPORT_MARK, write_report
from evomerge.analysis.report.setup import About

__all__ = ["REPORT_MARK", "About", "write_report"]
