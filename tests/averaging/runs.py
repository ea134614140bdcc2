"""A short training of a tiny model by stock transformers, which the tests average."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import (
    AutoTokenizer,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    trainer_utils,
)

from tests.tiny import save_tiny_llama

__all__ = ["START", "Arrays", "arrays", "train"]

Arrays = dict[str, np.ndarray]
START = "start"
STEPS = 6


def train(folder: Path, *callbacks: TrainerCallback, wrap: Any = None, **options: Any) -> Path:
    """Train for six steps, with a checkpoint and an evaluation after every second.

    Args:
        folder: The model is written to ``start`` in it, the run to ``run``.
        callbacks: Of the Trainer.
        wrap: Makes another model, such as one with an adapter, of the loaded one.
        options: Of ``TrainingArguments``.

    Returns:
        Folder of the run.
    """
    if not (folder / START).exists():
        save_tiny_llama(folder / START, seed=0, dtype=torch.float32, n_layers=2)
    model = LlamaForCausalLM.from_pretrained(folder / START, dtype=torch.float32)
    trainer_utils.set_seed(0)
    rows = [{"input_ids": [3 + (7 * i + j) % 29 for j in range(8)]} for i in range(12)]
    rows = [{**row, "labels": row["input_ids"]} for row in rows]
    arguments = TrainingArguments(
        str(folder / "run"),
        max_steps=STEPS,
        per_device_train_batch_size=2,
        learning_rate=3e-3,
        save_steps=2,
        eval_strategy="steps",
        eval_steps=2,
        logging_steps=2,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    Trainer(
        model if wrap is None else wrap(model),
        arguments,
        train_dataset=rows,  # type: ignore[arg-type]
        eval_dataset=rows[:2],  # type: ignore[arg-type]
        processing_class=AutoTokenizer.from_pretrained(folder / START),
        callbacks=list(callbacks),
    ).train()
    return folder / "run"


def arrays(folder: Path) -> Arrays:
    """Read the tensors of a folder in float64."""
    (file,) = folder.glob("*.safetensors")
    return {name: tensor.astype(np.float64) for name, tensor in load_file(file).items()}
