"""The phases of ``make gpu``, in order of worth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec

__all__ = ["PHASES", "TOTAL_S", "Phase", "failure_code"]

TOTAL_S = 470.0  # of all phases together; what is left then is not begun

_MERGING = ("torch", "numba", "numpy", "xxhash", "safetensors")
_KERNELS = (*_MERGING, "triton")
_MODELS = (*_MERGING, "transformers", "pydantic", "yaml")
_HARNESS = (
    *(*_MODELS, "lm_eval", "jinja2", "datasets", "evaluate", "accelerate", "pandas", "pyarrow"),
    *("scipy", "sklearn"),
)
_OTHERS = ("cma", "cmaes", "moocore", "optuna", "plotly", "ray")


@dataclass(frozen=True)
class Phase:
    """One process.

    Attributes:
        name: Of its module in this package.
        title: What it shows.
        limit_s: Seconds after which it is stopped.
        needs: Packages that it cannot do without.
    """

    name: str
    title: str
    limit_s: float
    needs: tuple[str, ...]

    def missing(self) -> tuple[str, ...]:
        """Name the packages that are not installed here."""
        return tuple(name for name in self.needs if find_spec(name) is None)

    def unneeded(self) -> tuple[str, ...]:
        """Name packages of ours that the phase has to do without on a bare machine."""
        return tuple(name for name in (*_KERNELS, *_HARNESS, *_OTHERS) if name not in self.needs)


PHASES = (
    Phase("correctness", "every method and modifier gives the bytes of the CPU", 110, _KERNELS),
    Phase("kernel", "bytes per second of the merge kernel on a 7B-shaped set", 90, _KERNELS),
    Phase("live", "a candidate of 1.5B parameters inside transformers", 90, _MODELS),
    Phase("evaluation", "tokens per second against bare forward passes and lm-eval", 110, _HARNESS),
    Phase("inside_vllm", "a candidate inside vLLM", 120, (*_HARNESS, "vllm")),
    Phase("adjoint", "slopes: sums and bytes per second", 60, _KERNELS),
    Phase("memory", "peak memory against what check predicts", 50, _HARNESS),
)


def failure_code(failed: Iterable[str]) -> int:
    """Write failed phases as an exit status: one bit each, the first phase's is 1."""
    names = [phase.name for phase in PHASES]
    return sum(1 << names.index(name) for name in set(failed))
