"""A callback of the Hugging Face Trainer that keeps an average of what is trained."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from evomerge.errors import ConfigError

__all__ = ["AveragingCallback"]

Tensors = dict[str, torch.Tensor]


class AveragingCallback(TrainerCallback):
    """Average the trained parameters in the CPU's memory, and write the average at the end.

    ``ema`` keeps one float32 copy of the parameters, ``last`` as many as it says, in their own
    dtype. Of an adapter only the adapter is kept and written. Frozen parameters and buffers are
    written as they are at the end. The trained model itself is left as it is. A run that is resumed
    starts its average anew: ``evomerge average`` takes the checkpoints instead.

    The moving average starts at the first step it sees, so that with ``every`` equal to
    ``save_steps`` it is what ``evomerge average --ema`` makes of the checkpoints.

    Args:
        ema: Decay of a moving average, in [0, 1).
        last: How many of the latest are averaged; either this or ``ema``.
        every: Steps of the optimiser from one to the next that is averaged.
        out: Folder to write; absent: ``average`` in the Trainer's ``output_dir``.

    Raises:
        ConfigError: Not exactly one of the two, or numbers out of range.
    """

    def __init__(
        self,
        *,
        ema: float | None = None,
        last: int | None = None,
        every: int = 1,
        out: str | Path | None = None,
    ) -> None:
        if (ema is None) == (last is None):
            raise ConfigError(f"expected either ema or last, got ema={ema} and last={last}")
        if ema is not None and not 0 <= ema < 1:
            raise ConfigError(f"expected ema in [0, 1), got {ema:g}")
        if every < 1 or (last is not None and last < 1):
            raise ConfigError(f"expected every and last of at least 1, got {every} and {last}")
        self._ema, self._every, self._out = ema, every, out
        self._kept: deque[Tensors] = deque(maxlen=last or 1)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Forget an earlier run."""
        del args, state, control, kwargs
        self._kept.clear()

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Take the parameters in.

        Raises:
            ConfigError: They are cut over several processes.
        """
        del args, control
        if not state.is_world_process_zero or state.global_step % self._every:
            return
        trained = _trained(kwargs["model"])
        if self._ema is None:
            self._kept.append({name: _copied(p, p.dtype) for name, p in trained.items()})
        elif not self._kept:
            self._kept.append({name: _copied(p, torch.float32) for name, p in trained.items()})
        else:
            for name, mean in self._kept[0].items():
                mean.lerp_(trained[name].detach().to("cpu", torch.float32), 1 - self._ema)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the average, with the tokenizer that the Trainer has."""
        del control
        if not state.is_world_process_zero or not self._kept:
            return
        out = Path(self._out or Path(str(args.output_dir)) / "average")
        model = kwargs["model"]
        with _holding(model, self.average):
            model.save_pretrained(out)
        if (tokenizer := kwargs.get("processing_class")) is not None:
            tokenizer.save_pretrained(out)

    @property
    def average(self) -> Mapping[str, torch.Tensor]:
        """The average so far, float32, by parameter name; empty before the first step."""
        if not self._kept:
            return {}
        return {
            name: torch.stack([copy[name].float() for copy in self._kept]).mean(0)
            for name in self._kept[0]
        }


def _trained(model: nn.Module) -> Mapping[str, nn.Parameter]:
    found = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if any(hasattr(p, "ds_id") or type(p).__name__ == "DTensor" for p in found.values()):
        raise ConfigError(
            "expected whole parameters in one process, got parameters that are cut over several "
            "(FSDP, ZeRO 3); average their checkpoints with 'evomerge average'"
        )
    return found


def _copied(parameter: nn.Parameter, dtype: torch.dtype) -> torch.Tensor:
    return parameter.detach().to("cpu", dtype, copy=True)


@contextmanager
def _holding(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Let a model hold other values for a while."""
    parameters = dict(model.named_parameters())
    own = {name: _copied(parameters[name], parameters[name].dtype) for name in tensors}
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, tensor in own.items():
                parameters[name].copy_(tensor)
