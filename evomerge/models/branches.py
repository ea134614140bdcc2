"""How the layers of each family read and write the residual stream, for paths with scales.

A scale multiplies the stream for all hops that follow. Divide the whole stream by the product S of
all scales so far, and they are gone: final norms and pre-norms do not see the factor (but in their
epsilon, which counts S² times as much: ``export`` measures what that does), and what a layer adds
becomes 1/S of what it was. That division is linear in a few tensors of the layer, so a
plain checkpoint can hold it. A family is added by one row below, and tested by its tiny model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Branches", "branches_of"]


@dataclass(frozen=True)
class Branches:
    """Where the branches (attention, MLP) of one family's layers leave the stream and come back.

    Attributes:
        outputs: Modules of a layer whose results are added to the stream.
        writers: Regular expression of the tensors that those results are linear in, by name.
        offset: What is added to a writer before it multiplies: 1 for gains stored as 1 + w.
        inputs: Modules of a layer that read the stream without a norm before them; they have to
            be given S times their input.
        readers: Regular expression of the matrices that are first to see that input.
    """

    outputs: tuple[str, str]
    writers: str
    offset: float = 0.0
    inputs: tuple[str, ...] = ()
    readers: str | None = None

    def fold(self, name: str, scale: float) -> tuple[float, float]:
        """Say how the checkpoint's tensor w changes: (w + offset) times a factor, minus offset.

        Args:
            name: Tensor of a decoder layer.
            scale: S, the product of the scales up to this layer's.

        Returns:
            Factor and offset.
        """
        if re.search(self.writers, name):
            return 1 / scale, self.offset
        if self.readers is not None and re.search(self.readers, name):
            return scale, 0.0
        return 1.0, 0.0


# Norm, branch, add. The last tensors of the MLP may be those of the experts of a mixture.
_PRE_NORM = Branches(
    outputs=("self_attn.o_proj", "mlp"), writers=r"\.(o_proj|down_proj|w2)\.(weight|bias)$"
)
_POST_NORMS = ("post_attention_layernorm", "post_feedforward_layernorm")
_GAINS = rf"\.({'|'.join(_POST_NORMS)})\.weight$"
# Norm, branch, norm, add: all that changes is the gain of the second norm.
_SANDWICH = Branches(outputs=_POST_NORMS, writers=_GAINS, offset=1.0)

_BRANCHES: Mapping[str, Branches] = {
    "gemma2": _SANDWICH,
    "gemma3_text": _SANDWICH,
    "gpt2": Branches(outputs=("attn.c_proj", "mlp"), writers=r"\.c_proj\.(weight|bias)$"),
    # Both branches may read the same stream (parallel residual): the sum is as linear.
    "gpt_neox": Branches(
        outputs=("attention.dense", "mlp"),
        writers=r"\.(attention\.dense|mlp\.dense_4h_to_h)\.(weight|bias)$",
    ),
    "llama": _PRE_NORM,
    "mistral": _PRE_NORM,
    "mixtral": _PRE_NORM,
    # Branch, norm, add.
    "olmo2": Branches(
        outputs=_POST_NORMS,
        writers=_GAINS,
        inputs=("self_attn", "mlp"),
        readers=r"\.(q_proj|k_proj|v_proj|gate_proj|up_proj)\.weight$",
    ),
    "phi3": _PRE_NORM,
    "qwen2": _PRE_NORM,
    "qwen3": _PRE_NORM,
    "qwen3_moe": _PRE_NORM,
}


def branches_of(model_type: object) -> Branches | None:
    """Look up a family.

    Args:
        model_type: As in ``config.json``.

    Returns:
        ``None`` for families whose layers nobody has looked at: they run paths without scales.
    """
    return _BRANCHES.get(str(model_type))
