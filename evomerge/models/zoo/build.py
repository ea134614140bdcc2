"""Trains the zoo from nothing: every model, and the tasks that examine them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evomerge.models.zoo.curriculum import Phase, base_phases, expert_phases
from evomerge.models.zoo.exams import write_tasks
from evomerge.models.zoo.skills import vocabulary
from evomerge.models.zoo.tokenizer import build_tokenizer
from evomerge.models.zoo.train import new_model, train
from evomerge.seeds import seed_for

__all__ = ["build_zoo"]

_SNAPSHOTS_OF = "math"
_SNAPSHOT_EVERY = 100


def build_zoo(
    out: Path,
    *,
    seed: int = 0,
    steps_scale: float = 1.0,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Train every model into ``out/models/NAME`` and write the tasks into ``out/tasks``.

    Takes minutes on two cores; the same seed on the same machine gives the same bytes.

    Args:
        out: Folder to write; created if missing, files in it are overwritten.
        seed: Decides initial values, training items, facts and exam items.
        steps_scale: Multiplies the number of steps of every phase; small for a rehearsal.
        progress: Called with one line per model and per hundred steps.
    """
    report = progress or (lambda line: None)
    tokenizer = build_tokenizer(vocabulary())
    builder = _Builder(out / "models", tokenizer, seed, steps_scale, report)
    base = new_model(len(tokenizer), seed=seed_for(seed, "initial values"))
    builder.school("base", base, base_phases(seed=seed))
    for name, phases in expert_phases(seed=seed).items():
        builder.school(name, copy.deepcopy(base), phases)
    write_tasks(out / "tasks", seed=seed)


class _Builder:
    """Trains models one after the other and saves them."""

    def __init__(
        self,
        out: Path,
        tokenizer: PreTrainedTokenizerFast,
        seed: int,
        steps_scale: float,
        report: Callable[[str], None],
    ) -> None:
        self._out, self._tokenizer, self._seed = out, tokenizer, seed
        self._steps_scale, self._report = steps_scale, report

    def school(self, name: str, model: LlamaForCausalLM, phases: Sequence[Phase]) -> None:
        """Train ``model`` in place through ``phases`` and save it as ``name``."""
        done = 0

        def on_step(step: int, loss: float) -> None:
            if step % 100 == 0:
                self._report(f"{name}: phase {done + 1}, step {step}, loss {loss:.3f}")
            if name == _SNAPSHOTS_OF and done == 0 and step in snapshots:
                self._save(f"{name}_step{snapshots[step]}", model)

        for phase in phases:
            short = replace(phase, steps=max(1, round(phase.steps * self._steps_scale)))
            snapshots = self._snapshots(short.steps)
            seed = seed_for(self._seed, "train", name, done)
            train(model, self._tokenizer.get_vocab(), short, seed=seed, on_step=on_step)
            done += 1
        self._save(name, model)

    def _snapshots(self, steps: int) -> dict[int, int]:
        labels = [_SNAPSHOT_EVERY * (index + 1) for index in range(4)]
        return {max(1, round(label * self._steps_scale)): label for label in labels}

    def _save(self, name: str, model: LlamaForCausalLM) -> None:
        saved = copy.deepcopy(model).to(torch.bfloat16)
        saved.generation_config = GenerationConfig(do_sample=False, pad_token_id=0, eos_token_id=1)
        saved.save_pretrained(self._out / name)
        self._tokenizer.save_pretrained(self._out / name)
        self._report(f"{name}: saved")
