"""What one evaluator file says: which lm-eval tasks, on which items, prompted how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Final, Literal

from evomerge.errors import Fault, KeyPath
from evomerge.evaluation.generation import Generation
from evomerge.evaluation.own_metrics import OwnMetric
from evomerge.evaluation.reasoning import ReasoningChoice

__all__ = ["DEFAULT_SPLITS", "REPORT_ONLY", "SPLITS", "BatchSize", "Suite"]

BatchSize = int | Literal["auto"]

SPLITS = ("search", "validation", "test")
REPORT_ONLY: Final = (
    "report_only"  # beside the splits: the test items of tasks that are only reported
)

DEFAULT_SPLITS: Mapping[str, str | float] = {"search": 0.6, "validation": 0.2, "test": 0.2}


@dataclass(frozen=True)
class Suite:
    """Tasks that are scored together, and how.

    Attributes:
        name: What messages call this suite.
        tasks: lm-eval task, group or tag names.
        include_path: Folder of task YAML. When every name is found there, lm-eval's own index of
            some 15000 tasks (6-9 s) is not built.
        splits: For each of ``SPLITS`` in use, either the name of a dataset split, or a fraction of
            the task's own evaluation split; fractions are disjoint parts of one seeded permutation.
        limit: Keep the first so many items of a seeded permutation, per task and split; a smaller
            limit selects a subset of a larger one. ``None`` keeps all.
        num_fewshot: Examples in the prompt; ``None`` leaves it to each task.
        batch_size: Sequences per forward pass. ``auto`` does the least work; a number makes the
            batches of lm-eval, so that log-likelihoods equal its own to the last bit.
        apply_chat_template: Whether prompts go through the tokenizer's chat template.
        chat_template_args: What else the template is told, such as ``enable_thinking``.
        reasoning: Which tags enclose reasoning before answers; it is left out before they are
            scored.
        generation_kwargs: How answers are generated, where tasks that generate are not to say.
        repeats: How many answers are asked for each item; ``None`` leaves it to each task.
        fewshot_as_multiturn: Whether examples become turns of the chat.
        system_instruction: System message before every prompt.
        seed: Of the partition and the permutation of the items.
        allow_code: Whether task YAML in ``include_path`` may run Python: ``!function``, metrics
            downloaded from Hugging Face ``evaluate``, pickled datasets.
        smooth: Tasks whose smooth metrics are wanted among their metrics.
        allow_test_split: Whether items by which a public benchmark is reported may be searched.
        report_only: Whether the search never sees the tasks: they tell what a merge has forgotten,
            and have test items only.
        metrics: Metrics of one's own by name, beside those of the tasks.
    """

    name: str
    tasks: tuple[str, ...]
    include_path: Path | None = None
    splits: Mapping[str, str | float] = field(default_factory=lambda: dict(DEFAULT_SPLITS))
    limit: int | None = None
    num_fewshot: int | None = None
    batch_size: BatchSize = "auto"
    apply_chat_template: bool = False
    chat_template_args: Mapping[str, object] = field(default_factory=dict)
    reasoning: ReasoningChoice = "auto"
    generation_kwargs: Generation = field(default_factory=Generation)
    repeats: int | None = None
    fewshot_as_multiturn: bool = False
    system_instruction: str | None = None
    seed: int = 0
    allow_code: bool = False
    smooth: frozenset[str] = frozenset()
    allow_test_split: bool = False
    report_only: bool = False
    metrics: Mapping[str, OwnMetric] = field(default_factory=dict)

    def faults(self) -> list[Fault]:
        """List what is wrong with the settings themselves, without reading files."""
        found = [
            Fault((key,), f"expected {expected}, got {value!r}")
            for key, value, expected, valid in (
                ("tasks", self.tasks, "a list of at least one name", bool(self.tasks)),
                ("limit", self.limit, "at least 1", self.limit is None or self.limit >= 1),
                ("batch_size", self.batch_size, "auto or at least 1", self._is_batch_size()),
                ("num_fewshot", self.num_fewshot, "at least 0", (self.num_fewshot or 0) >= 0),
                ("splits", dict(self.splits), f"some of {', '.join(SPLITS)}", self._known_splits()),
            )
            if not valid
        ]
        if self.include_path is not None and not self.include_path.is_dir():
            found.append(Fault(("include_path",), f"expected a folder, got {self.include_path}"))
        if self.chat_template_args and not self.apply_chat_template:
            text = (
                f"expected none without a chat template, got {', '.join(self.chat_template_args)}"
            )
            found.append(Fault(("chat_template_args",), text, "set apply_chat_template: true"))
        return [*found, *self._split_faults()]

    def path_of(self, task: str) -> KeyPath:
        """Say where a task is named, as far as it is: members of groups and tags are not."""
        return ("tasks", self.tasks.index(task)) if task in self.tasks else ("tasks",)

    def _is_batch_size(self) -> bool:
        return self.batch_size == "auto" or self.batch_size >= 1

    def _known_splits(self) -> bool:
        return bool(self.splits) and set(self.splits) <= set(SPLITS)

    def _split_faults(self) -> Iterator[Fault]:
        """Fractions out of range, and splits that would hold what is to be held out."""
        fractions = {k: v for k, v in self.splits.items() if not isinstance(v, str)}
        named = {k: v for k, v in self.splits.items() if isinstance(v, str)}
        for split, value in fractions.items():
            if not 0 < value <= 1:
                text = f"expected a dataset split or a fraction in (0, 1], got {value!r}"
                yield Fault(("splits", split), text)
        if sum(fractions.values()) > 1 + 1e-9:
            text = " + ".join(f"{value:g}" for value in fractions.values())
            yield Fault(("splits",), f"expected fractions that sum to at most 1, got {text}")
        if self.report_only and set(self.splits) != {"test"}:
            text = (
                "expected test alone in a report_only evaluator, because nothing of it is "
                f"searched, got {', '.join(self.splits)}"
            )
            yield Fault(("splits",), text, "write splits: {test: …}")
        for a, b in combinations(named, 2):
            if named[a] == named[b]:
                text = (
                    f"expected different splits, got {named[a]!r} for {a} and {b}, so held-out "
                    "items would be searched"
                )
                yield Fault(("splits", b), text, "name different ones, or give fractions")
