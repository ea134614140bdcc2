"""The model card of an exported merge."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from evomerge import __version__
from evomerge.analysis.forgetting import Change, ForgettingRow
from evomerge.export.lineage import Ancestor, common_license, license_note, parents
from evomerge.export.rounding import FoldError
from evomerge.merging.finite import NonFinite
from evomerge.models.reference import mentioned_models, public_reference
from evomerge.origins import SEARCH, is_single_model, model_label
from evomerge.recipe.files import dump_recipe, public_recipe
from evomerge.recipe.recipe import Recipe

__all__ = ["CardRow", "Findings", "card_templates", "hub_ids", "model_card"]

# Underscores within words, as tasks have, are no markup.
_MARKUP = re.compile(r"([\\`*\[\]<>|~&$#@!]|:(?=//)|(?<![^\W_])_|_(?![^\W_]))")


@dataclass(frozen=True)
class CardRow:
    """One row of the card's table of scores.

    Attributes:
        model: What was scored, e.g. ``this merge``, ``expert math``, ``merge 57 (not this model)``.
        split: Which items.
        values: Text per objective, error bars included.
    """

    model: str
    split: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Findings:
    """What a study found out about the model of a card.

    Attributes:
        objectives: Column headings of the table of scores.
        scores: Its rows; may be empty.
        results: The model's scores on the test items, for the widgets of the Hub.
        forgetting: How it does on tasks that the search never saw, one per metric.
        no_gain: That no merge is better than what was there before, if so.
        searched: Public benchmarks that were searched by the split that they are reported by.
        scored_in: How the scored models were quantized, in words; ``None``: they were not.
    """

    objectives: Sequence[str] = ()
    scores: Sequence[CardRow] = ()
    results: Sequence[EvalResult] = ()
    forgetting: Sequence[ForgettingRow] = ()
    no_gain: str | None = None
    searched: Mapping[str, str] = field(default_factory=dict)
    scored_in: str | None = None


def model_card(
    name: str,
    recipe: Recipe,
    findings: Findings,
    *,
    origin: str = SEARCH,
    descent: Sequence[Ancestor] = (),
    folding: FoldError | None = None,
    non_finite: NonFinite | None = None,
    parts: Sequence[str] = (),
    beside: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Write a model card.

    Args:
        name: Title.
        recipe: What was merged.
        findings: Of its study.
        origin: Of its trial; the base or an expert as it is is called no merge.
        descent: The models that it is made of.
        folding: How exactly the folder holds the scales of the recipe's path, if it has any.
        non_finite: NaN and infinity in the folder, if there are any.
        parts: Where the parts of a model of vision and language are from.
        beside: What is beside the merge for experts to come back, and their names.

    Returns:
        Markdown with the YAML header that the Hub reads.
    """
    mentioned = [model for part in parents(recipe, origin) for model in mentioned_models(part)]
    header = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-text-to-text" if parts else "text-generation",
        tags=["evomerge"] if is_single_model(origin) else ["merge", "evomerge"],
        model_name=name if findings.results else None,
        license=common_license(descent),
        base_model=hub_ids(mentioned) or None,
        base_model_relation=None if is_single_model(origin) else "merge",
        eval_results=list(findings.results) or None,
    )
    shown = public_recipe(recipe)
    return (
        card_templates()
        .get_template("card.md.j2")
        .render(
            header=header.to_yaml(),
            name=name,
            recipe=shown,
            single=model_label(origin, 0) if is_single_model(origin) else None,
            descent=[replace(a, reference=public_reference(a.reference)) for a in descent],
            license_note=license_note(descent),
            digest=recipe.digest,
            recipe_yaml=dump_recipe(shown),
            methods=sorted({rule.method for rule in recipe.rules}),
            **vars(findings),
            hops=Counter(hop.source for hop in recipe.path),
            folding=folding,
            non_finite=non_finite,
            parts=parts,
            beside=beside or {},
            version=__version__,
        )
    )


def card_templates() -> Environment:
    """Open the templates of model cards, with what keeps names from being markup."""
    environment = Environment(
        loader=PackageLoader("evomerge.export"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        change=_change_text, share=_share_text, text=_text, code=_code, fence=_fence
    )
    return environment


def hub_ids(references: Iterable[str]) -> list[str]:
    """List the repositories on the Hub among references, each once."""
    return [_hub_id(m) for m in dict.fromkeys(references) if _is_hub_id(m)]


def _text(name: object) -> str:
    """Write a name, of a task or a model, so that none of it is markup, in tables neither."""
    return _MARKUP.sub(r"\\\1", " ".join(str(name).split()))


def _code(text: object) -> str:
    """Write a name as code, which holds no markup."""
    line = " ".join(str(text).split())
    fence = "`" * (_longest_run(line) + 1)
    inside = f" {line} " if line.startswith("`") or line.endswith("`") else line
    return f"{fence}{inside}{fence}"


def _fence(text: str) -> str:
    """Choose the fence of a block of code that no line inside it can end."""
    return "`" * max(3, _longest_run(text) + 1)


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def _change_text(change: Change | None) -> str:
    if change is None:
        return "–"
    bounds = "" if math.isnan(change.low) else f" ({change.low:+.3f} to {change.high:+.3f})"
    return f"{change.value:+.3f}{bounds}"


def _share_text(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.0%}"


def _is_hub_id(reference: str) -> bool:
    return not reference.startswith(("zoo:", "/", ".")) and reference.count("/") == 1


def _hub_id(reference: str) -> str:
    return reference.partition("@")[0]
