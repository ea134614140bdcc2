"""The router: which differences a prompt needs, told by its hidden states in the merge.

A linear classifier with softmax over experts, fitted to prompts that say which expert they are for.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from evomerge.evaluation.hygiene import clean_harness
from evomerge.evaluation.language_model import LanguageModel
from evomerge.merging.candidate import load_model
from evomerge.merging.spread import to_gpu
from evomerge.merging.watched import N_PROMPTS
from evomerge.models.checkpoint import open_safetensors
from evomerge.models.outline import load_tokenizer
from evomerge.models.writer import TensorForm, write_safetensors
from evomerge.observation.examples import Example, read_examples
from evomerge.twins.file import Twins

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Router", "fit", "fitted_router", "prompt_states", "router_prompts"]

_STEPS = 200  # of L-BFGS, at most


@dataclass(frozen=True, eq=False)
class Router:
    """Softmax over experts of a linear function of hidden states.

    Attributes:
        rows: (experts, hidden) float32.
        bias: (experts,) float32.
    """

    rows: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def read(cls, file: Path) -> Router:
        """Read what ``write`` has written."""
        found = open_safetensors(file)
        return cls(found.get_tensor("rows"), found.get_tensor("bias"))

    def write(self, file: Path) -> None:
        """Write it as safetensors."""
        tensors = {"rows": self.rows, "bias": self.bias}
        forms = {name: TensorForm(t.dtype, tuple(t.shape)) for name, t in tensors.items()}
        write_safetensors(file, forms, tensors.__getitem__)

    @property
    def n_elements(self) -> int:
        """How many numbers it holds."""
        return self.rows.numel() + self.bias.numel()

    def weights(self, states: torch.Tensor) -> torch.Tensor:
        """Weigh the experts for prompts: (prompts, hidden) to (prompts, experts), each row of 1."""
        return (states @ self.rows.T + self.bias).softmax(-1)


def fit(states: torch.Tensor, labels: torch.Tensor, n_experts: int) -> Router:
    """Fit a router: least cross-entropy with an L2 penalty, which has one minimum.

    Features are brought to mean 0 and standard deviation 1 first; the penalty is half the squared
    norm of the rows over the number of prompts.

    Args:
        states: (prompts, hidden).
        labels: (prompts,) position of the expert that each is for.
        n_experts: How many there are.
    """
    wide = states.double()
    mean, spread = wide.mean(0), wide.std(0, correction=0)
    spread = torch.where(spread > 0, spread, 1.0)
    features, n = (wide - mean) / spread, len(wide)
    rows = torch.zeros(n_experts, wide.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(n_experts, dtype=torch.float64, requires_grad=True)
    steps = torch.optim.LBFGS(
        [rows, bias],
        max_iter=_STEPS,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> float:
        steps.zero_grad()
        found = cross_entropy(features @ rows.T + bias, labels) + (rows**2).sum() / (2 * n)
        found.backward()
        return float(found.detach())

    with torch.enable_grad():
        steps.step(loss)
    scaled = rows.detach() / spread
    return Router(scaled.float(), (bias.detach() - scaled @ mean).float())


def router_prompts(file: Path) -> tuple[Example, ...]:
    """Read what a router is fitted to: the first ``N_PROMPTS`` of every expert, in any order.

    Raises:
        ConfigError: See ``read_examples``.
    """
    found: dict[str | None, list[Example]] = defaultdict(list)
    for one in read_examples(file, sys.maxsize):
        found[one.expert].append(one)
    return tuple(one for own in found.values() for one in own[:N_PROMPTS])


def fitted_router(twins: Twins, prompts: Sequence[Example]) -> tuple[Router, float]:
    """Run the merge over prompts and fit a router.

    Args:
        twins: The merge; differences are not looked at.
        prompts: Each says which expert it is for.

    Returns:
        The router, and the share of these prompts for whose expert it has the largest weight.
    """
    model = load_model(str(twins.folder), "auto")
    to_gpu(model)
    with clean_harness():
        lm = LanguageModel(model, load_tokenizer(twins.folder), 1)
        states = prompt_states(model, lm, [one.prompt for one in prompts])
    names = list(twins.file.experts)
    labels = torch.tensor([names.index(str(one.expert)) for one in prompts])
    router = fit(states, labels, len(names))
    right = router.weights(states).argmax(-1) == labels
    return router, float(right.double().mean())


@torch.no_grad()
def prompt_states(
    model: PreTrainedModel, lm: LanguageModel, prompts: Iterable[str]
) -> torch.Tensor:
    """Average over the tokens of each prompt what the last layer makes of them.

    Args:
        model: Live, as it is now.
        lm: Tokenises; of a prompt without tokens, the one that texts begin with is read.
        prompts: Longer ones than the model takes lose tokens on the left.

    Returns:
        (prompts, hidden) float32, on the CPU.
    """
    found = []
    for prompt in prompts:
        tokens = (lm.tokens(prompt) or [lm.lm.prefix_token_id])[-lm.lm.max_length :]
        ids = torch.tensor([tokens], device=model.device)
        states = model(ids, output_hidden_states=True, use_cache=False).hidden_states[-1]
        found.append(states[0].float().mean(0).cpu())
    return torch.stack(found)
