"""One phase, in a process of its own: ``python -m tests.benchmarks.gpu.one NAME FILE SECONDS``.

With ``--dry`` after that, packages that the phase says it does not need are hidden from it, as on a
bare machine.
"""

from __future__ import annotations

import os
import sys
import time
from importlib import import_module
from pathlib import Path

from tests.benchmarks.gpu.phases import PHASES

_MARGIN = 0.9  # of its limit, in which a phase tries to be done


def _main(name: str, file: str, seconds: str, *options: str) -> None:
    started, is_dry = time.monotonic(), "--dry" in options
    os.environ["EVOMERGE_CACHE"] = "off"  # so that all is done here and now
    if is_dry:
        os.environ["TRITON_INTERPRET"] = "1"
        (phase,) = (phase for phase in PHASES if phase.name == name)
        sys.modules.update(dict.fromkeys(phase.unneeded()))  # type: ignore[arg-type]
    from tests.benchmarks.gpu.bench import Bench

    bench = Bench(is_dry, started + _MARGIN * float(seconds), Path(file))
    with bench.part(f"the phase {name}"):
        import_module(f"tests.benchmarks.gpu.{name}").run(bench)


if __name__ == "__main__":
    _main(*sys.argv[1:])
