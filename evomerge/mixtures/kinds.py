"""The architectures of mixtures: what each is made of, and what it calls its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from evomerge.errors import ConfigError, Fault
from evomerge.mixtures.file import MixtureFile

__all__ = ["KINDS", "PROJECTIONS", "MixtureKind", "kind_for", "mixture_config"]

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")
"""Linear layers of the feed-forward part of the dense models; the last one writes the output."""
_OUTSIDE = ("model_type", "architectures", "dtype", "torch_dtype", "transformers_version")
_FULL_HEADS = "head_dim"  # read by every one of them, and a field of only some


@dataclass(frozen=True)
class MixtureKind:
    """One architecture of stock transformers.

    Attributes:
        name: As mergekit-moe calls it.
        model_type: In its config.
        architecture: Its causal language model.
        made_of: Types of the dense models.
        block: Name of the feed-forward part within a layer, in checkpoints.
        projections: What checkpoints call an expert's ``PROJECTIONS``.
        n_shared: How many experts every token is sent to; they have a gate of their own.
        attention_bias: Whether projections of attention may have biases: of ``all``, of ``qkv``
            alone, or of ``none``.
        mixes_windows: Whether some layers may have sliding windows and others not.
        settings: Of its config, whatever the models are.
        sizes: Settings that are the width of the dense models' feed-forward part.
        n_experts: Setting that says how many there are.
    """

    name: str
    model_type: str
    architecture: str
    made_of: tuple[str, ...]
    block: str = "mlp"
    projections: tuple[str, str, str] = PROJECTIONS
    n_shared: int = 0
    attention_bias: Literal["none", "qkv", "all"] = "none"
    mixes_windows: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    sizes: tuple[str, ...] = ()
    n_experts: str = "num_experts"

    def expert(self, layer: int, expert: int, projection: str) -> str:
        """Name a matrix of an expert."""
        own = self.projections[PROJECTIONS.index(projection)]
        return f"{self._block(layer)}.experts.{expert}.{own}.weight"

    def shared(self, layer: int, projection: str) -> str:
        """Name a matrix of the shared expert."""
        return f"{self._block(layer)}.shared_expert.{projection}.weight"

    def router(self, layer: int) -> str:
        """Name the matrix whose rows score the experts: (experts, hidden)."""
        return f"{self._block(layer)}.gate.weight"

    def shared_gate(self, layer: int) -> str:
        """Name the row that scores the shared expert: (1, hidden)."""
        return f"{self._block(layer)}.shared_expert_gate.weight"

    def holds_bias(self, name: str) -> bool:
        """Tell whether it has a place for a bias of the dense models."""
        module = name.split(".")[-2]
        allowed = {"none": (), "qkv": ("q_proj", "k_proj", "v_proj")}
        return self.attention_bias == "all" or module in allowed[self.attention_bias]

    def misfit(self, file: MixtureFile, model_type: str) -> Fault | None:
        """Say why it is not for a file and a base; ``None`` if it is."""
        if model_type not in self.made_of:
            text = f"expected a model of type {' or '.join(self.made_of)} for {self.name}"
            return Fault(("base_model",), f"{text}, got {model_type!r}")
        if len(file.shared_experts) != self.n_shared:
            n = {0: "no shared expert", 1: "exactly one shared expert"}[self.n_shared]
            text = f"expected {n} for {self.name}, got {len(file.shared_experts)}"
            hint = "" if file.shared_experts else "residual_scale: 0 makes one that adds nothing"
            return Fault(("shared_experts",), text, hint)
        return None

    def _block(self, layer: int) -> str:
        return f"model.layers.{layer}.{self.block}"


_QWEN = {
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "norm_topk_prob": True,  # what is chosen adds up to 1, as in Mixtral
}
KINDS = (
    MixtureKind(
        "Mixtral",
        "mixtral",
        "MixtralForCausalLM",
        ("llama", "mistral"),
        block="block_sparse_moe",
        projections=("w1", "w3", "w2"),
        n_experts="num_local_experts",
    ),
    MixtureKind(
        "Qwen MoE",
        "qwen2_moe",
        "Qwen2MoeForCausalLM",
        ("llama", "mistral", "qwen2"),
        n_shared=1,
        attention_bias="qkv",
        mixes_windows=True,
        settings=_QWEN,
        sizes=("moe_intermediate_size", "shared_expert_intermediate_size"),
    ),
    MixtureKind(
        "Qwen3 MoE",
        "qwen3_moe",
        "Qwen3MoeForCausalLM",
        ("qwen3",),
        attention_bias="all",
        settings=_QWEN,
        sizes=("moe_intermediate_size",),
    ),
)


def kind_for(file: MixtureFile, model_type: str) -> MixtureKind:
    """Choose the architecture of a mixture: the one that is named, or the first that fits.

    Args:
        file: What is wanted.
        model_type: Of the base.

    Raises:
        ConfigError: None fits, and why not.
    """
    wanted = (file.architecture or "").lower()
    named = [kind for kind in KINDS if kind.name.lower().startswith(wanted)]
    if not named:
        names = ", ".join(kind.name for kind in KINDS)
        text = f"expected the beginning of one out of {names}, got {file.architecture!r}"
        raise ConfigError(Fault(("architecture",), text))
    misfits = [kind.misfit(file, model_type) for kind in named]
    fitting = [kind for kind, misfit in zip(named, misfits, strict=True) if misfit is None]
    if fitting:
        return fitting[0]
    near = [m for k, m in zip(named, misfits, strict=True) if model_type in k.made_of]
    raise ConfigError(*(fault for fault in near or misfits if fault is not None))


def mixture_config(
    kind: MixtureKind, file: MixtureFile, base: Mapping[str, Any], *, has_bias: bool
) -> dict[str, Any]:
    """Write the config of a mixture: what the base's says, and its experts.

    Args:
        kind: The architecture.
        file: How many experts, and how many of them for each token.
        base: The base's ``config.json``.
        has_bias: Whether its projections of attention have biases.
    """
    from transformers import AutoConfig, PretrainedConfig

    from evomerge.models.structure import full_config

    own, of_any = full_config(base).to_dict(), PretrainedConfig().to_dict()
    known = {*AutoConfig.for_model(kind.model_type).to_dict(), _FULL_HEADS} - set(_OUTSIDE)
    said = {key: value for key, value in own.items() if key not in of_any or of_any[key] != value}
    content = {key: value for key, value in said.items() if key in known}
    if own["model_type"] == "llama":
        content["sliding_window"] = None
    content |= {"attention_bias": has_bias} if kind.attention_bias == "all" else {}
    content |= {"qkv_bias": has_bias} if kind.attention_bias == "qkv" else {}
    return {
        "model_type": kind.model_type,
        "architectures": [kind.architecture],
        **content,
        **kind.settings,
        **dict.fromkeys(kind.sizes, own["intermediate_size"]),
        kind.n_experts: len(file.experts),
        "num_experts_per_tok": file.experts_per_token,
    }
