"""Search for merge recipes of language models.

Given fine-tuned models that share an ancestor, evomerge finds which of them to mix, per layer and
with which method, and exports any point of the resulting Pareto front as an ordinary checkpoint.

These names stay as they are; docs/python.md shows them at work:

    Experiment          what is mixed, varied, scored and traded off
    run, resume         search until the budget is met; give the Study
    Study, Trial        what was found, read from the study's folder; one trial of it
    Recipe, merge       one merged model, described; as a live model or a folder
    evaluate            score a model
    compare             how far experts moved, and how they disagree
    items               the score of every item that a study has scored
    EvomergeError       whatever is wrong with files and names, one line per fault

Importing this package has no side effects and imports no heavy library: each name is loaded when it
is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evomerge.api.comparing import compare
    from evomerge.api.evaluating import evaluate
    from evomerge.api.merging import merge
    from evomerge.api.running import resume, run
    from evomerge.api.study import Study
    from evomerge.api.tables import items
    from evomerge.config.experiment import Experiment
    from evomerge.errors import EvomergeError
    from evomerge.recipe.recipe import Recipe
    from evomerge.study.records import TrialRecord as Trial

__all__ = [
    "EvomergeError",
    "Experiment",
    "Recipe",
    "Study",
    "Trial",
    "__version__",
    "compare",
    "evaluate",
    "items",
    "merge",
    "resume",
    "run",
]

__version__ = "0.1.0"

_HOMES = {
    "EvomergeError": "errors:EvomergeError",
    "Experiment": "config.experiment:Experiment",
    "Recipe": "recipe.recipe:Recipe",
    "Study": "api.study:Study",
    "Trial": "study.records:TrialRecord",
    "compare": "api.comparing:compare",
    "evaluate": "api.evaluating:evaluate",
    "items": "api.tables:items",
    "merge": "api.merging:merge",
    "resume": "api.running:resume",
    "run": "api.running:run",
}


def __getattr__(name: str) -> object:
    """Load a name of ``__all__`` when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    globals()[name] = found = getattr(import_module(f"{__name__}.{module}"), attribute)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
