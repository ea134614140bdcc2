"""Reading without looks for garbage, which are looked for again after it."""

from __future__ import annotations

import gc

import pytest

from evomerge.study.collecting import without_collecting


def test_garbage_is_looked_for_again_after_a_block_that_fails() -> None:
    def fail() -> None:
        with without_collecting():
            assert not gc.isenabled()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert gc.isenabled()
