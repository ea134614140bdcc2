"""Search for merge recipes of language models.

Given fine-tuned models that share an ancestor, evomerge finds which of them to mix, per layer and
with which method, and exports any point of the resulting Pareto front as an ordinary checkpoint.

Importing this package has no side effects and imports no heavy library.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
