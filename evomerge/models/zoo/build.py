"""Trains the zoo from nothing: every model, and the tasks that examine them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from evomerge.models.zoo.curriculum import Phase, base_phases, expert_phases
from evomerge.models.zoo.exams import write_tasks
from evomerge.models.zoo.skills import vocabulary
from evomerge.models.zoo.train import new_model, train
from evomerge.seeds import seed_for

__all__ = ["build_zoo"]

_REPORT_EVERY = 100
_SPECIAL = ("<pad>", "<eos>", "<unk>")


def build_zoo(
    out: Path,
    *,
    seed: int = 0,
    max_steps: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Train every model into ``out/models/NAME`` and write the tasks into ``out/tasks``.

    Takes about four minutes on one core. The same seed, machine and number of torch threads give
    the same bytes; one thread is the fastest where other work is running.

    Args:
        out: Folder to write; created if missing, files in it are overwritten.
        seed: Decides initial values, training questions, facts and exam questions.
        max_steps: Cuts every phase short; for a rehearsal.
        progress: Called with a line per saved model and per hundred steps.
    """
    builder = _Builder(out / "models", seed, max_steps, progress or (lambda line: None))
    base = new_model(len(builder.tokenizer), seed=seed_for(seed, "initial values"))
    builder.school("base", base, base_phases(seed=seed))
    for name, phases in expert_phases(seed=seed).items():
        builder.school(name, copy.deepcopy(base), phases)
    write_tasks(out / "tasks", seed=seed)


class _Builder:
    """Trains and saves one model after the other."""

    def __init__(
        self, out: Path, seed: int, max_steps: int | None, report: Callable[[str], None]
    ) -> None:
        self._out, self._seed, self._max_steps, self._report = out, seed, max_steps, report
        self.tokenizer: PreTrainedTokenizerFast = _build_tokenizer(vocabulary())

    def school(self, name: str, model: LlamaForCausalLM, phases: tuple[Phase, ...]) -> None:
        """Train ``model`` in place through ``phases`` and save it as ``name``."""
        ids = self.tokenizer.get_vocab()
        for number, phase in enumerate(phases):
            steps = min(phase.steps, self._max_steps or phase.steps)
            seed = seed_for(self._seed, "train", name, number)
            on_step = self._watch(name, model, replace(phase, steps=steps))
            train(model, ids, replace(phase, steps=steps), seed=seed, on_step=on_step)
        self._save(name, model)

    def _watch(
        self, name: str, model: LlamaForCausalLM, phase: Phase
    ) -> Callable[[int, float], None]:
        def on_step(step: int, loss: float) -> None:
            if step % _REPORT_EVERY == 0:
                self._report(f"{name}: step {step} of {phase.steps}, loss {loss:.3f}")
            for snapshot in phase.snapshots:
                if step == min(snapshot, phase.steps):
                    self._save(f"{name}_step{snapshot}", model)

        return on_step

    def _save(self, name: str, model: LlamaForCausalLM) -> None:
        saved = copy.deepcopy(model).to(torch.bfloat16)  # type: ignore[arg-type]
        saved.generation_config = GenerationConfig(do_sample=False, pad_token_id=0, eos_token_id=1)
        saved.save_pretrained(self._out / name)
        self.tokenizer.save_pretrained(self._out / name)
        self._report(f"{name}: saved")


def _build_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """Build a tokenizer of one token per word; ids 0, 1, 2 are padding, end of text and unknown.

    Args:
        words: The vocabulary; the order decides the ids.
    """
    ids = {word: index for index, word in enumerate([*_SPECIAL, *words])}
    tokenizer = Tokenizer(WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        model_max_length=32,
        clean_up_tokenization_spaces=False,
    )
