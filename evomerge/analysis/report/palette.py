"""Every colour of the report, once: CSS variables and figures both read it."""

from __future__ import annotations

__all__ = ["DARK", "LIGHT"]

# Figures are drawn in LIGHT; for dark screens report.js replaces each light colour by its dark
# partner, so no two roles may share a light colour.
LIGHT: dict[str, str] = {
    "page": "#fcfcfa",
    "surface": "#f4f4f0",
    "ink": "#1d2126",
    "muted": "#626973",
    "rule": "#e2e2dc",
    "cloud": "#b4bac2",
    "faint": "#dadde1",
    "accent": "#17708c",
    "chosen": "#b5461a",
    "positive": "#1b7f9c",
    "negative": "#c0633a",
}
DARK: dict[str, str] = {
    "page": "#15171b",
    "surface": "#1d2026",
    "ink": "#e4e7eb",
    "muted": "#98a0ab",
    "rule": "#2d3139",
    "cloud": "#59616c",
    "faint": "#343940",
    "accent": "#62b8d4",
    "chosen": "#f2905f",
    "positive": "#4aa9c7",
    "negative": "#de8a5d",
}
