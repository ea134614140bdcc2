"""Several live models as one: run one after another, their predictions mixed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import nn
from transformers import (
    DynamicCache,
    GenerationConfig,
    GenerationMixin,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from evomerge.errors import CheckpointError
from evomerge.evaluation.decoding import has_plain_cache

__all__ = ["Ensemble"]


def _more_probability(total: torch.Tensor | None, said: torch.Tensor, share: float) -> torch.Tensor:
    part = said + (math.log(share) if share else -math.inf)
    return part if total is None else torch.logaddexp(total, part)


def _more_logits(total: torch.Tensor | None, said: torch.Tensor, share: float) -> torch.Tensor:
    return said * share if total is None else total.add_(said, alpha=share)


_Rule = Callable[[torch.Tensor | None, torch.Tensor, float], torch.Tensor]
_RULES: Mapping[str, _Rule] = {
    "probabilities": _more_probability,
    "logits": _more_logits,
    "proxy": _more_logits,
}


class Ensemble(PreTrainedModel, GenerationMixin):
    """A causal language model whose layers are those of its members, side by side.

    Keys and values of all members stand in one cache, member after member, so that whatever runs
    and decodes a model runs and decodes this one.

    Args:
        members: Live models of one vocabulary; entries that only some have are left out.
        shares: What the predictions of each are multiplied by.
        by: ``probabilities``, ``logits`` or ``proxy`` (``EnsembleFile.by``).

    Raises:
        CheckpointError: What a member remembers of a prompt is more than keys and values per token,
            or they look back over windows of different lengths.
    """

    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = True

    def __init__(
        self, members: Sequence[PreTrainedModel], shares: Sequence[float], by: str
    ) -> None:
        super().__init__(_joint_config(members))
        self.generation_config: GenerationConfig = copy.deepcopy(members[0].generation_config)
        self.hold(members, shares, by)

    def hold(self, members: Sequence[PreTrainedModel], shares: Sequence[float], by: str) -> None:
        """Let these models answer from now on; see the class. A lone one answers as it does."""
        self.config = _joint_config(members)
        self.members = nn.ModuleList(members)
        self._shares, self._add = tuple(shares), _RULES[by]
        ends = [0, *accumulate(_n_layers(member) for member in members)]
        self._layers = [slice(start, end) for start, end in pairwise(ends)]

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **settings: Any,
    ) -> CausalLMOutputWithPast:
        """Run every member and mix their log-probabilities, in float32.

        Args:
            input_ids: (sequences, length) int64.
            attention_mask: See transformers; likewise the rest.
            position_ids: Of the tokens.
            past_key_values: Of all members, in their order.
            use_cache: Whether keys and values are kept.
            logits_to_keep: How many of the last positions are predicted; 0 means all.
            settings: Passed on to every member.

        Returns:
            With ``logits`` that are log-probabilities: (sequences, kept, vocabulary) float32; of a
            lone model with its own.
        """
        total = None
        for member, layers, share in zip(self.members, self._layers, self._shares, strict=True):
            logits = member(
                input_ids,
                attention_mask=attention_mask,
                position_ids=position_ids,
                past_key_values=_part(past_key_values, layers),
                use_cache=use_cache,
                logits_to_keep=logits_to_keep,
                **settings,
            ).logits[..., : self.config.vocab_size]
            if len(self.members) == 1:
                return CausalLMOutputWithPast(logits=logits, past_key_values=past_key_values)
            total = self._add(total, logits.float().log_softmax(-1), share)
        assert total is not None, "there are members"
        return CausalLMOutputWithPast(
            logits=total.log_softmax(-1),
            past_key_values=past_key_values,
        )


def _part(cache: Cache | None, layers: slice) -> Cache | None:
    """One member's layers of a cache; what it adds to them is there in the whole cache."""
    if cache is None:
        return None
    part = copy.copy(cache)
    part.layers = cache.layers[layers]
    return part


def _n_layers(member: PreTrainedModel) -> int:
    return int(member.config.get_text_config().num_hidden_layers)


def _joint_config(members: Sequence[PreTrainedModel]) -> PretrainedConfig:
    """The first member's settings, with the layers of all."""
    configs = [member.config.get_text_config() for member in members]
    joint = copy.deepcopy(configs[0])
    joint.num_hidden_layers = sum(map(_n_layers, members))
    if any(getattr(config, "layer_types", None) for config in configs):
        of_each = [
            getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
            for config in configs
        ]
        joint.layer_types = [kind for kinds in of_each for kind in kinds]
        joint.sliding_window = next(filter(None, map(_window, configs)), None)
    joint.vocab_size = min(config.vocab_size for config in configs)
    lengths = [getattr(config, "max_position_embeddings", None) or math.inf for config in configs]
    if math.isfinite(min(lengths)):
        joint.max_position_embeddings = min(lengths)
    own = [_remembered(member.config) for member in members]
    is_plain = all(map(has_plain_cache, members))
    if not is_plain or _remembered(joint) != [layer for layers in own for layer in layers]:
        raise CheckpointError(
            "expected models that remember keys and values alike, so that they can be run side by "
            "side, got others; choose models of one architecture, or by: vote"
        )
    return joint


def _window(config: PretrainedConfig) -> int | None:
    found: int | None = getattr(config, "sliding_window", None)
    return found


def _remembered(config: PretrainedConfig) -> list[tuple[type, object]]:
    layers = DynamicCache(config=config).layers
    return [(type(layer), getattr(layer, "sliding_window", None)) for layer in layers]
