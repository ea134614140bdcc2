"""docs/methods.md names parameters that methods have, and their defaults."""

from __future__ import annotations

import re

from evomerge.methods.registry import method
from tests.pages import DOCS


def test_what_the_page_says_of_parameters_is_so() -> None:
    text = (DOCS / "methods.md").read_text(encoding="utf-8")
    rows = [line.split("|")[2:5] for line in text.splitlines() if line.startswith("|")][2:]
    n_choices = 0
    for parameters, default, also in rows[:14]:
        for owner, name in re.findall(r"`(\w+)\.(\w+)`", parameters):
            found = method(owner).parameters()[name]
            if found.choices:
                named = re.findall(r"`(\w+)`", default + also)
                assert named[0] == found.default, owner
                assert set(named) <= set(found.choices), owner
                n_choices += 1
    assert n_choices == 15
