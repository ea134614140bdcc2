from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from evomerge.study.collecting import without_collecting

ENDS = """
import sys
from pathlib import Path
from evomerge.study.collecting import end_without_collecting
from evomerge.study.storage import open_storage

class Loud:
    def __del__(self):
        print("taken apart")

open_storage(Path(sys.argv[1])).loud = Loud()
end_without_collecting()
print("said")
raise SystemExit(3)
"""


def test_an_open_journal_is_left_at_the_end_and_what_was_said_is_not_lost(tmp_path: Path) -> None:
    words = [sys.executable, "-c", ENDS, str(tmp_path / "journal")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "said\n", "")


def test_garbage_is_looked_for_again_after_a_block_that_fails() -> None:
    def fail() -> None:
        with without_collecting():
            assert not gc.isenabled()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert gc.isenabled()
