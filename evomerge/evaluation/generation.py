"""How a suite wants answers generated, where it does not leave that to its tasks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

from pydantic import ConfigDict, Field

__all__ = ["Generation"]

_MOST_TOKENS = 10**7


@dataclass(frozen=True)
class Generation:
    """Settings that take the place of those of tasks, by lm-eval's names; absent: the task's own.

    Attributes:
        max_gen_toks: Most tokens of an answer, reasoning included.
        until: Strings that end an answer.
        do_sample: Whether tokens are drawn rather than the likeliest taken.
        temperature: What logits are divided by before a draw.
        top_p: Draw among the likeliest tokens that have this probability together.
        top_k: Draw among so many of the likeliest tokens; 0 means all.
        min_p: Draw among tokens with this share of the likeliest one's probability.
        seed: Of the draws.
    """

    max_gen_toks: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] | None = None
    until: tuple[str, ...] | None = None
    do_sample: bool | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0)] | None = None
    min_p: Annotated[float, Field(ge=0, lt=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None

    __pydantic_config__ = ConfigDict(extra="forbid")

    @property
    def written(self) -> dict[str, object]:
        """What is said, as lm-eval's ``generation_kwargs`` have it."""
        said = {key: value for key, value in asdict(self).items() if value is not None}
        return said if self.until is None else {**said, "until": list(self.until)}
