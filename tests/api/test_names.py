"""The names that stay as they are."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import evomerge


def test_what_type_checkers_see_is_what_is_loaded() -> None:
    tree = ast.parse(Path(evomerge.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("evomerge.")
        for alias in node.names
    }
    assert {*seen, "__version__"} == set(evomerge.__all__)
    for name, home in seen.items():
        module, _, attribute = home.partition(":")
        found = getattr(__import__(module, fromlist=[attribute]), attribute)
        assert getattr(evomerge, name) is found
        assert found.__doc__
    assert set(evomerge.__all__) <= set(dir(evomerge))


def test_other_names_are_none() -> None:
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        _ = evomerge.runn
