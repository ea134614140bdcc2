"""Rows of routers: one per expert and layer, from what prompts look like inside the base.

Of Arcee's mergekit-moe: a token goes to the experts whose rows its hidden state is most like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch

from evomerge.errors import CheckpointError
from evomerge.evaluation.teacher_forcing import Reading
from evomerge.merging.candidate import load_model
from evomerge.merging.spread import to_gpu
from evomerge.mixtures.file import MixtureExpert
from evomerge.mixtures.sources import MixtureSources
from evomerge.models.checkpoint import model_dtype
from evomerge.models.outline import load_tokenizer, plain_config
from evomerge.observation.observer import Observer
from evomerge.seeds import seed_for

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["alike_layers", "router_rows"]

_SMALLEST = 1e-8  # norm that a row is divided by at least
_ALIKE = 5.0  # condition number of a router's rows above which some experts see few tokens

_Look = Callable[[Sequence[str]], torch.Tensor]


@torch.no_grad()
def router_rows(sources: MixtureSources) -> torch.Tensor:
    """Make the rows of all routers.

    Rows from prompts are the mean over positive prompts minus that over negative ones, divided by
    their L2 norm. Hidden states are those that go into each layer of the base, run once per prompt;
    prompts begin with the tokenizer's first token, where it has one.

    Args:
        sources: Base, experts and their prompts.

    Returns:
        (layers, experts, hidden) float32, the shared experts' last.

    Raises:
        CheckpointError: The base cannot be run, or has no tokenizer.
    """
    file = sources.file
    if file.is_drawn:
        return _drawn(sources)
    look = _embeddings(sources) if file.gate_mode == "cheap_embed" else _hidden_states(sources)
    return torch.stack([_row(expert, look) for expert in file.everyone], dim=1)


def alike_layers(rows: torch.Tensor) -> list[int]:
    """List the layers whose rows are so alike that some experts will see few tokens.

    Args:
        rows: As ``router_rows`` returns them.
    """
    return [i for i, own in enumerate(rows) if float(torch.linalg.cond(own)) > _ALIKE]


def _drawn(sources: MixtureSources) -> torch.Tensor:
    file, hidden = sources.file, sources.hidden_size
    generator = torch.Generator().manual_seed(seed_for(file.seed, "routers"))
    shape = (sources.n_layers, len(file.everyone), hidden)
    if file.gate_mode == "random":
        return torch.randn(shape, generator=generator)
    bound = hidden**-0.5  # that of a fresh nn.Linear
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def _row(expert: MixtureExpert, look: _Look) -> torch.Tensor:
    """(layers, hidden): one expert's row in every layer."""
    found = look(expert.positive_prompts)
    if expert.negative_prompts:
        found = found - look(expert.negative_prompts)
    return _unit(found)


def _unit(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows, dim=-1, eps=_SMALLEST)


def _tokens(sources: MixtureSources) -> Callable[[str], tuple[int, ...]]:
    folder = sources.base.folder
    tokenizer = load_tokenizer(folder)
    first = tokenizer.bos_token or ""

    def tokens(text: str) -> tuple[int, ...]:
        found = tuple(tokenizer(first + text, add_special_tokens=False)["input_ids"])
        if not found:
            raise CheckpointError(f"expected tokens in the prompt {text!r}, got none by {folder}")
        return found

    return tokens


def _embeddings(sources: MixtureSources) -> _Look:
    """Sum embeddings over the tokens of all prompts, as a unit vector; alike in all layers."""
    tokens = _tokens(sources)
    table = sources.base.tensor(sources.live["model.embed_tokens.weight"])

    def look(prompts: Sequence[str]) -> torch.Tensor:
        ids = [token for prompt in prompts for token in tokens(prompt)]
        total = table[torch.tensor(ids)].float().sum(0)
        return _unit(total).repeat(sources.n_layers, 1)

    return look


def _hidden_states(sources: MixtureSources) -> _Look:
    """Average over prompts what goes into each layer, at the last token or over all tokens."""
    tokens, is_mean = _tokens(sources), sources.file.gate_mode == "hidden_avg"
    model, max_length = _loaded(sources)

    def look(prompts: Sequence[str]) -> torch.Tensor:
        readings = tuple(Reading(tokens(prompt), (0,)) for prompt in prompts)
        observer = Observer(model, sources.base.names, readings, max_length)
        return _mean_state(observer.read_forward(output_hidden_states=True), is_mean=is_mean)

    return cache(look)


def _mean_state(outputs: Iterable[object], *, is_mean: bool) -> torch.Tensor:
    found = []
    for output in outputs:
        states: tuple[torch.Tensor, ...] = output.hidden_states  # type: ignore[attr-defined]
        inputs = torch.cat(states[:-1]).float()  # (layers, tokens, hidden)
        found.append((inputs.mean(1) if is_mean else inputs[:, -1]).cpu())
    return torch.stack(found).mean(0)


def _loaded(sources: MixtureSources) -> tuple[PreTrainedModel, int]:
    base = sources.base
    model = load_model(str(base.folder), model_dtype(base, sources.live.values()))
    to_gpu(model)
    config = plain_config(base.config)
    return model, int(getattr(config, "max_position_embeddings", 2048))
