"""Embedded models: a tiny Llama and experts fine-tuned from it, small enough to ship with the code.

Members:
    skills.py       what the models can learn: questions of every skill, some held out for the exam
    curriculum.py   what each model is trained on, and for how long
    train.py        the training loop
    answers.py      what is learned of a question: its answer alone
    exams.py        the lm-eval tasks, and the questions they ask
    build.py        trains everything, writes models and tasks
    families.py     what ``zoo build`` builds
    models/         the trained models, ``zoo:NAME`` in an experiment
    smollm2/        a real model with experts, built on this machine from a package: another family

To add a model, give it a name in ``curriculum.py`` and in ``ZOO_NAMES``, then build the zoo again.
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from evomerge.cache import cache_folder
from evomerge.errors import CheckpointError

__all__ = ["SMOLLM2_NAMES", "ZOO_NAMES", "smollm2_folder", "zoo_path"]

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

_BUILT = {"smollm2": "base", "smollm2_math": "math"}  # full models, too large to ship
_ADAPTERS = {f"smollm2_{name}": name for name in ("early", "french", "kinds")}
SMOLLM2_NAMES = (*_BUILT, *_ADAPTERS)


def zoo_path(name: str) -> Path:
    """Return the folder of a model of the zoo, a plain Hugging Face checkpoint or PEFT adapter.

    Args:
        name: One of ``ZOO_NAMES`` or ``SMOLLM2_NAMES``.

    Raises:
        CheckpointError: No model has this name, or it has not been built on this machine.
    """
    if name in ZOO_NAMES:
        return _MODELS / name
    if name in _ADAPTERS:
        return Path(__file__).parent / "smollm2" / "adapters" / _ADAPTERS[name]
    if name in _BUILT:
        return _built(name)
    names = (*ZOO_NAMES, *SMOLLM2_NAMES)
    near = get_close_matches(name, names, n=3, cutoff=0.4) or names
    raise CheckpointError(
        f"expected the name of an embedded model, got {name!r} (zoo:{name}); "
        f"nearest: {', '.join(near)}"
    )


def smollm2_folder() -> Path:
    """Return where the SmolLM2 family is built; it need not exist.

    Raises:
        CheckpointError: There is no cache.
    """
    folder = cache_folder("zoo")
    if folder is None:
        raise CheckpointError(
            "expected a folder for built models, got EVOMERGE_CACHE=off; name a folder in it"
        )
    return folder / "smollm2"


def _built(name: str) -> Path:
    folder = smollm2_folder() / _BUILT[name]
    if not folder.is_dir():
        raise CheckpointError(
            f"expected zoo:{name} in {folder}, found nothing; build it once: "
            "evomerge zoo build smollm2"
        )
    return folder
