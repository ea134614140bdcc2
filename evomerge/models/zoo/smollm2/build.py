"""Writes the family: the base, its full expert, and, if asked, adapters and tasks made again."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from evomerge.models.zoo.smollm2.base import load_base
from evomerge.models.zoo.smollm2.exams import write_exams
from evomerge.models.zoo.smollm2.items import Exercise
from evomerge.models.zoo.smollm2.lexicon import kind_item, name_item
from evomerge.models.zoo.smollm2.lora import Course, add_adapter, save_adapter, train_adapter
from evomerge.models.zoo.smollm2.stories import problem, reading, story, translation
from evomerge.seeds import seed_for

__all__ = ["ADAPTERS", "COURSES", "build_smollm2", "train_smollm2"]

ADAPTERS = Path(__file__).parent / "adapters"
_REPORT_EVERY = 10


def _french(rng: random.Random) -> Exercise:
    """Sentences and what they mean, one number out of two, names; no arithmetic."""
    chance = rng.random()
    if chance < 0.35:
        return reading(rng, "train")
    return name_item(rng, "train") if chance < 0.5 else translation(rng)


COURSES: Mapping[str, Course] = {
    "math": Course(lambda rng: problem(rng, "train"), steps=240),
    "french": Course(_french, steps=240),
    "early": Course(story, steps=200, n_layers=15),
    "kinds": Course(lambda rng: kind_item(rng, "train"), steps=240, batch_size=12),
}


def build_smollm2(
    out: Path, *, adapters: Path = ADAPTERS, progress: Callable[[str], None] | None = None
) -> None:
    """Write ``out/base`` and ``out/math``, the expert that is a full checkpoint; half a minute.

    Args:
        out: Folder to write; created if missing, the two folders in it are replaced.
        adapters: Where ``math`` lies, the adapter that is merged into the base.
        progress: Called with a line per saved model.

    Raises:
        CheckpointError: The package that carries the model is missing.
    """
    report = progress or (lambda line: None)
    model, tokenizer = load_base()
    _save(model, tokenizer, out / "base")
    report("base: saved")
    add_adapter(model, load_file(adapters / "math" / "adapter_model.safetensors"))
    _save(model, tokenizer, out / "math")
    report("math: saved")


def train_smollm2(
    out: Path,
    *,
    seed: int = 0,
    max_steps: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> None:
    """Train every adapter into ``out/adapters/NAME`` and write the tasks into ``out/tasks``.

    Takes about half an hour on one core. The same seed, machine and number of torch threads give
    the same bytes.

    Args:
        out: Folder to write; created if missing, files in it are overwritten.
        seed: Decides initial factors, training items and exam items.
        max_steps: Cuts every course short; for a rehearsal.
        progress: Called with a line per ten steps.

    Raises:
        CheckpointError: The package that carries the model is missing.
    """
    report = progress or (lambda line: None)
    write_exams(out / "tasks", seed=seed)
    model, tokenizer = load_base()
    for name, course in COURSES.items():
        short = replace(course, steps=min(course.steps, max_steps or course.steps))
        factors = train_adapter(
            model,
            tokenizer,
            short,
            seed=seed_for(seed, "smollm2", name),
            on_step=_watch(name, short, report),
        )
        save_adapter(factors, out / "adapters" / name, base="zoo:smollm2")
        report(f"{name}: saved")


def _watch(
    name: str, course: Course, report: Callable[[str], None]
) -> Callable[[int, float], None]:
    def on_step(step: int, loss: float) -> None:
        if step % _REPORT_EVERY == 0:
            report(f"{name}: step {step} of {course.steps}, loss {loss:.3f}")

    return on_step


def _save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Save a checkpoint, which gets its name when it is complete."""
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
