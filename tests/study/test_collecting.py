from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from evomerge.study.collecting import without_collecting

ENDS = """
from evomerge.study.collecting import end_without_collecting

class Loud:
    def __del__(self):
        print("taken apart")

kept = [Loud()]
{call}
print("said")
raise SystemExit(3)
"""


@pytest.mark.parametrize(
    ("call", "said"), [("", ["said", "taken apart"]), ("end_without_collecting()", ["said"])]
)
def test_what_is_there_at_the_end_is_left_and_what_was_said_is_not_lost(
    call: str, said: list[str]
) -> None:
    code = ENDS.format(call=call)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split("\n")[:-1], done.stderr) == (3, said, "")


def test_garbage_is_looked_for_again_after_a_block_that_fails() -> None:
    def fail() -> None:
        with without_collecting():
            assert not gc.isenabled()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert gc.isenabled()
