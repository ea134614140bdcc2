"""How much memory a pass takes, forward alone and with the way back: reckoned, not run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from evomerge.evaluation.teacher_forcing import Piece

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig

    from evomerge.evaluation.passes import Pass

__all__ = ["Outline", "answers_at_once", "cache_bytes", "pass_bytes", "scoring_bytes"]

# Numbers that a layer keeps per token: hidden sizes in the model's dtype and in float32 (norms),
# and sizes of its feed-forward part; a little more than any of the families in the tests.
_HIDDEN, _NORMS, _INNER = 8, 4, 5
_PREDICTIONS = 5  # logits as they come and in float32, their logarithms, and two gradients
_DRAWN = 36  # bytes per logit while a token is drawn: in float32, sorted with indices, added up


class Outline(Protocol):
    """What is known of a model without one: its config, and sizes of its parameters."""

    @property
    def config(self) -> Any:
        """Settings, as attributes."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters."""
        ...

    def parameters(self) -> Iterator[torch.Tensor]:
        """Yield the parameters, which may be without storage."""
        ...


def scoring_bytes(model: Outline, largest: Pass, n_layers: int, *, has_head: bool = True) -> int:
    """Reckon the peak memory of scoring a batch beside the model's parameters, from above.

    Args:
        model: What is run, or an outline of it.
        largest: The batch.
        n_layers: Layers on the device in question.
        has_head: Whether the logits are on it, too.

    Returns:
        Bytes: what a layer works with, and either keys and values, one layer's twice while they
        grow, with what tokens are drawn from, or the logits as they come and their logarithms.
    """
    vocabulary = model.config.get_text_config().vocab_size
    kept = (n_layers + 1) * cache_bytes(model, largest.n_kept)
    logits = 2 * largest.n_logits * vocabulary * model.dtype.itemsize if has_head else 0
    drawn = _DRAWN * largest.n_drawn * vocabulary if has_head else 0
    return _layer_bytes(model, largest.n_tokens, largest.length) + max(kept + drawn, logits)


def cache_bytes(model: Outline, n_tokens: int) -> int:
    """Reckon the keys and values of one layer, for models that keep both for every token.

    Latent attention keeps what they are made of: one vector for all heads, the part of a key that
    is rotated, and, where an indexer chooses among tokens, its key.

    Args:
        model: What is run, or an outline of it.
        n_tokens: Of all sequences together.
    """
    config = model.config.get_text_config()
    if latent := getattr(config, "kv_lora_rank", None):
        kept = latent + config.qk_rope_head_dim + (getattr(config, "index_head_dim", None) or 0)
        return int(kept * n_tokens * model.dtype.itemsize)
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * heads * size * n_tokens * model.dtype.itemsize)


def answers_at_once(model: Outline, n_tokens: int, length: int) -> int:
    """Tell how many answers fit where one pass with all its logits does; at least one.

    Answers need the logits of their last tokens only: keys and values have the room of the others.

    Args:
        model: What is run, or an outline of it.
        n_tokens: Of the pass.
        length: Tokens of a prompt with its answer.
    """
    config = model.config.get_text_config()
    kept = config.num_hidden_layers * cache_bytes(model, 1)
    logits = config.vocab_size * model.dtype.itemsize
    return max(1, int(n_tokens * (kept + logits) // (length * kept + logits)))


def pass_bytes(model: Outline, batch: Sequence[Piece], *, checkpointing: bool) -> int:
    """Reckon the peak memory of one microbatch beside the model's parameters, from above.

    Args:
        model: What is run, or an outline of it.
        batch: The microbatch.
        checkpointing: Whether layers are run again on the way back.

    Returns:
        Bytes: what layers keep for the way back, what one of them works with, the predictions, and
        the largest parameter's gradient twice, as it is and laid out like the parameter.
    """
    config = model.config.get_text_config()
    sequences = sum(piece.n_sequences for piece in batch)
    length = max(piece.length for piece in batch)
    layer = _layer_bytes(model, sequences * length, length)
    hidden = sequences * length * config.hidden_size * max(4, model.dtype.itemsize)
    kept = config.num_hidden_layers * (hidden if checkpointing else layer)
    n_rows = sum(piece.n_rows for piece in batch)
    predictions = _PREDICTIONS * n_rows * config.vocab_size * max(4, model.dtype.itemsize)
    largest = max(parameter.nbytes for parameter in model.parameters())
    return int(kept + 2 * layer + predictions + 2 * largest)


def _layer_bytes(model: Outline, n_tokens: int, length: int) -> int:
    """What one layer keeps; eager attention keeps every score."""
    config, itemsize = model.config.get_text_config(), model.dtype.itemsize
    inside = (_HIDDEN * config.hidden_size + _INNER * _inner(config)) * itemsize
    norms = _NORMS * config.hidden_size * max(4, itemsize)
    is_eager = model.config._attn_implementation == "eager"
    scores = 3 * config.num_attention_heads * length * max(4, itemsize) if is_eager else 0
    return int(n_tokens * (inside + norms + scores))


def _inner(config: PreTrainedConfig) -> int:
    """Size of the feed-forward part that a token goes through, all of its experts together."""
    dense = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None)
    size = dense or 4 * config.hidden_size
    n_experts: int = getattr(config, "num_experts_per_tok", None) or 0
    expert: int = getattr(config, "moe_intermediate_size", None) or size
    shared: int = getattr(config, "shared_expert_intermediate_size", None) or 0
    return int(max(size, n_experts * (expert + config.hidden_size) + shared))
