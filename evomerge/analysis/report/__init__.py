"""The HTML report: one self-contained page that says what a study found.

Members:
    page: gathers everything and writes the file.
    scores: which scores and trials the page is about.
    words: the result in sentences.
    tables: rows of the score, failure and timing tables.
    coefficients: a recipe as a grid of layers and module kinds.
    tiles: the numbers at the top of the page.
    figures: plotly figures (the only file that imports plotly).
    layers: trials sorted by how figures show them.
    numbers: digits and units.
    palette: every colour, for light and dark.
    report.html.j2, report.css, report.js: the page itself.

Add a section as a frozen record made by one function, a field of the page's context, and a block
in the template.
"""

from evomerge.analysis.report.page import write_report

__all__ = ["write_report"]
