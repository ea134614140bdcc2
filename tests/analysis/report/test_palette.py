from __future__ import annotations

import re

from evomerge.analysis.report.palette import DARK, LIGHT


def test_recolouring_a_figure_is_unambiguous() -> None:
    # report.js replaces light colours one after the other in one text.
    assert LIGHT.keys() == DARK.keys()
    assert len(set(LIGHT.values())) == len(LIGHT)
    assert not set(LIGHT.values()) & set(DARK.values())


def luminance(color: str) -> float:
    channels = [int(c, 16) / 255 for c in re.findall("..", color.removeprefix("#"))]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_is_readable_in_both_modes() -> None:
    for palette in (LIGHT, DARK):
        for role in ("ink", "muted", "chosen"):
            pair = sorted([luminance(palette[role]), luminance(palette["page"])])
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, role
