"""Embedded models: a tiny Llama and experts fine-tuned from it, small enough to ship with the code.

Members:
    skills.py       what the models can learn: questions of every skill, some held out for the exam
    tokenizer.py    one token per word
    curriculum.py   what each model is trained on, and for how long
    train.py        the training loop
    exams.py        the lm-eval tasks, and the questions they ask
    build.py        trains everything, writes models and tasks
    models/         the trained models, ``zoo:NAME`` in an experiment

To add a model, give it a name in ``curriculum.py`` and in ``ZOO_NAMES``, then build the zoo again.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from evomerge.errors import CheckpointError

__all__ = ["ZOO_NAMES", "zoo_path"]

ZOO_NAMES = (
    "base",
    "math",
    "list",
    "facts",
    "math_step100",
    "math_step200",
    "math_step300",
    "math_step400",
)
_MODELS = Path(__file__).parent / "models"


def zoo_path(name: str) -> Path:
    """Return the folder of an embedded model, a plain Hugging Face checkpoint.

    Args:
        name: One of ``ZOO_NAMES``.

    Raises:
        CheckpointError: No model has this name.
    """
    if name not in ZOO_NAMES:
        near = get_close_matches(name, ZOO_NAMES, n=3, cutoff=0.4) or ZOO_NAMES
        raise CheckpointError(
            f"expected the name of an embedded model, got {name!r} (zoo:{name}); "
            f"nearest: {', '.join(near)}"
        )
    return _MODELS / name
