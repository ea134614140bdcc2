"""What larger models take, by the functions that ``check`` asks: ``python -m tests.sizes``."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from evomerge.evaluation.batches import batch_tokens
from evomerge.evaluation.passes import Pass
from evomerge.evaluation.step_memory import pass_bytes
from evomerge.evaluation.teacher_forcing import Piece, Reading
from evomerge.merging.residency import Needs, choose_residency, common_residency
from evomerge.merging.slopes import GRADIENT_BYTES
from evomerge.merging.spread import device_numbers
from evomerge.models.outline import ModelOutline, model_outline
from evomerge.runs.memory_plan import memory_plan

__all__ = ["MODELS", "rows"]

_EXPERTS = 3
_GPUS = (79 << 30, 139 << 30)  # about what GPUs sold as 80 GB and 141 GB report
_SPREAD = (2, 4, 8)  # of the first kind
_STEP_TOKENS = 1024  # a microbatch of one sequence
_LINK, _CPU = 25e9, 30e9  # bytes per second: from host to device, of merging on CPU


@dataclass(frozen=True)
class _Shape:
    """A published model, as its config.json gives it."""

    family: str
    hidden: int
    layers: int
    inner: int
    heads: int
    key_value_heads: int
    vocabulary: int
    tied: bool = False

    def config(self) -> dict[str, object]:
        """Return the keys that sizes depend on."""
        return {
            "model_type": self.family,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "intermediate_size": self.inner,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.key_value_heads,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": self.tied,
        }


MODELS = {
    "1.5B (Qwen2.5)": _Shape("qwen2", 1536, 28, 8960, 12, 2, 151936, tied=True),
    "7B (Qwen2.5)": _Shape("qwen2", 3584, 28, 18944, 28, 4, 152064),
    "32B (Qwen2.5)": _Shape("qwen2", 5120, 64, 27648, 40, 8, 152064),
    "70B (Llama 3)": _Shape("llama", 8192, 80, 28672, 64, 8, 128256),
}


def rows() -> Iterator[str]:
    """Yield the rows of the tables in docs/sizes.md."""
    for cells in (_memory, _work, _spread):
        for name, shape in MODELS.items():
            model = model_outline(shape.config(), torch.bfloat16)
            assert model is not None
            yield f"| {' | '.join((name, *cells(model)))} |"


def _memory(model: ModelOutline) -> Iterator[str]:
    live, sources = _sizes(model)
    yield _gb(live)
    yield _gb(sources)
    for size in _GPUS:
        yield _where(model, size)


def _work(model: ModelOutline) -> Iterator[str]:
    live, sources = _sizes(model)
    yield _gb(GRADIENT_BYTES + _step(model, checkpointing=False))
    yield _gb(GRADIENT_BYTES + _step(model, checkpointing=True))
    yield f"{sources / _LINK:.2g} s"
    yield f"{(sources + live) / _CPU:.2g} s"


def _spread(model: ModelOutline) -> Iterator[str]:
    """What the fullest of several GPUs holds."""
    for n in _SPREAD:
        needed, room = _needs(model, n), _GPUS[0]
        place = common_residency("cuda", needed, [room] * n)
        stage = _stage(model)
        plans = memory_plan(
            model, needed, device_type="cuda", stage_bytes=stage, room=room, passes=[_full(model)]
        )
        left = min(plan.left for plan in plans)
        yield f"{place}, {_gb(left)} left" if left > 0 else "does not fit"


def _needs(model: ModelOutline, n: int) -> list[Needs]:
    """What ``needed_on`` says of models whose layers are all alike."""
    n_layers = model.config.num_hidden_layers
    live, _ = _sizes(model)
    ends = [p.nbytes for p in model.parameters() if p.nbytes >= _end_bytes(model)]
    layer = (live - sum(ends)) // n_layers
    numbers = device_numbers([layer] * n_layers, sum(ends), n)
    counts = [numbers.count(k) for k in range(n)]
    own = [counts[k] * layer + (sum(ends) if k == 0 else 0) for k in range(n)]
    return [Needs(c, (1 + _EXPERTS) * b, b) for c, b in zip(counts, own, strict=True)]


def _full(model: ModelOutline) -> Pass:
    n_tokens = batch_tokens(model.config.vocab_size, model.dtype.itemsize, _GPUS[0])
    return Pass(n_tokens, _STEP_TOKENS, n_tokens, n_tokens)


def _end_bytes(model: ModelOutline) -> int:
    """Bytes of the embedding, and of the head if it is not tied to it."""
    size: int = model.config.vocab_size * model.config.hidden_size * model.dtype.itemsize
    return size


def _stage(model: ModelOutline) -> int:
    return (1 + _EXPERTS) * max(parameter.nbytes for parameter in model.parameters())


def _sizes(model: ModelOutline) -> tuple[int, int]:
    """Bytes of a live model, and of base and experts together."""
    live = sum(parameter.nbytes for parameter in model.parameters())
    return live, (1 + _EXPERTS) * live


def _where(model: ModelOutline, size: int) -> str:
    """Where base and experts are on a GPU, and what that leaves."""
    live, sources = _sizes(model)
    place = choose_residency("cuda", source_bytes=sources, live_bytes=live, free_bytes=size)
    left = size - live - (sources if place == "resident" else 2 * _stage(model))
    return f"{place}, {_gb(left)} left" if left > 0 else "does not fit"


def _step(model: ModelOutline, *, checkpointing: bool) -> int:
    reading = Reading((0,) * (_STEP_TOKENS - 8), (0,) * 9)
    return pass_bytes(model, [Piece((reading,), torch.sum)], checkpointing=checkpointing)


def _gb(size: float) -> str:
    digits = max(0, 2 - math.floor(math.log10(size / 1e9)) - 1)
    return f"{size / 1e9:.{digits}f} GB"


if __name__ == "__main__":
    print("\n".join(rows()))
