"""An average over the checkpoints of one run, as an ordinary recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evomerge.averaging.checkpoints import SavedStep, saved_steps
from evomerge.averaging.shares import Penalty, ema_shares, measured_shares, normalised
from evomerge.errors import CheckpointError, ConfigError
from evomerge.models.reference import AdapterRef, absolute_reference
from evomerge.recipe.recipe import Recipe, Rule
from evomerge.recipe.rules import sum_rule

__all__ = ["Averaging"]


@dataclass(frozen=True, kw_only=True)
class Averaging:
    """Which checkpoints are averaged, and how much each counts.

    The plain mean of all is SWA, of the last few LaWA or Free-Lunch averaging.

    Attributes:
        last: How many, from the end; ``None``: all.
        every: Take each so many, counted from the last.
        ema: Decay of a moving average over them.
        weights: One per checkpoint taken, earliest first; divided by their sum.
        by: Weigh by ``metric`` (``shares.measured_shares``).
        alpha: Exponent of ``by``.
        metric: A name in ``trainer_state.json``, or ``step``. Smaller is better where it ends in
            ``loss``.
        base: The model that adapters were trained on; ``None``: as they say.
    """

    last: int | None = None
    every: int = 1
    ema: float | None = None
    weights: Sequence[float] | None = None
    by: Penalty | None = None
    alpha: float = 1.0
    metric: str = "eval_loss"
    base: str | None = None

    def recipe(self, run: Path) -> Recipe:
        """Write the average as a recipe.

        Args:
            run: ``output_dir`` of a Hugging Face Trainer.

        Returns:
            ``linear`` over full models; over LoRA adapters their base plus the mean of what they
            add to it, which the mean of their factors is not.

        Raises:
            ConfigError: Options that do not go together, or weights that fit no average.
            CheckpointError: No checkpoints, or not all of one kind.
        """
        taken = self.taken(saved_steps(run))
        mix = {
            f"step{saved.step}": share
            for saved, share in zip(taken, self.shares(taken), strict=True)
        }
        base = self._base(taken)
        if base is None:
            models = {f"step{s.step}": str(s.folder.resolve()) for s in taken}
            return Recipe(models, (Rule("linear", {"coefficient": mix, "normalize": True}),))
        adapters = {f"step{s.step}": AdapterRef(str(s.folder.resolve()), base) for s in taken}
        return Recipe(adapters, (sum_rule(mix),), base=base)

    def taken(self, steps: Sequence[SavedStep]) -> tuple[SavedStep, ...]:
        """Choose the checkpoints, earliest first.

        Raises:
            ConfigError: More are wanted than there are.
        """
        spaced = tuple(steps[::-1][:: self.every])
        if self.last is not None and self.last > len(spaced):
            there = ", ".join(str(saved.step) for saved in reversed(spaced))
            raise ConfigError(f"expected {self.last} checkpoints, got {len(spaced)}: {there}")
        return spaced[: self.last][::-1]

    def shares(self, taken: Sequence[SavedStep]) -> tuple[float, ...]:
        """Say how much of the average each checkpoint is.

        Raises:
            ConfigError: More than one rule is given, or it does not fit the checkpoints.
            CheckpointError: What to weigh by was not logged.
        """
        if sum(rule is not None for rule in (self.ema, self.weights, self.by)) > 1:
            raise ConfigError("expected one of --ema, --weights and --by, got more")
        if self.ema is not None:
            return ema_shares(len(taken), self.ema)
        if self.by is not None:
            values = [saved.measured(self.metric) for saved in taken]
            is_loss = self.metric.endswith("loss")
            return measured_shares(values, self.by, self.alpha, smaller_is_better=is_loss)
        weights = (1.0,) * len(taken) if self.weights is None else self.weights
        if len(weights) != len(taken):
            there = ", ".join(str(saved.step) for saved in taken)
            raise ConfigError(
                f"expected a weight for each of the checkpoints {there}, got {len(weights)} weights"
            )
        return normalised(weights)

    def _base(self, taken: Sequence[SavedStep]) -> str | None:
        """Name what all checkpoints are adapters on; ``None`` where all are full models."""
        bases = {saved.folder.name: saved.base for saved in taken}
        if len(set(bases.values())) > 1:
            kinds = ", ".join(f"{name} ({base or 'a full model'})" for name, base in bases.items())
            raise CheckpointError(
                f"expected full models only, or adapters on one base, got {kinds}"
            )
        (base,) = set(bases.values())
        if base is None:
            return None
        if not (self.base or base):
            raise CheckpointError("the adapters do not say what they were trained on; give --base")
        return absolute_reference(self.base or base, Path.cwd())
