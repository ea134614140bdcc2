"""The model card of an exported merge."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from huggingface_hub import ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from evomerge import __version__
from evomerge.analysis.forgetting import Change, ForgettingRow
from evomerge.export.rounding import FoldError
from evomerge.merging.finite import NonFinite
from evomerge.models.reference import ModelRef, mentioned_models
from evomerge.origins import BASE, SEARCH, is_single_model, kind_and_name, model_label
from evomerge.recipe.files import dump_recipe, public_recipe
from evomerge.recipe.recipe import Recipe

__all__ = ["CardRow", "model_card"]

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


def model_card(  # noqa: PLR0913  each is a part of the card
    name: str,
    recipe: Recipe,
    *,
    origin: str = SEARCH,
    objectives: Sequence[str],
    scores: Sequence[CardRow],
    forgetting: Sequence[ForgettingRow] = (),
    no_gain: str | None = None,
    searched: Mapping[str, str] | None = None,
    folding: FoldError | None = None,
    non_finite: NonFinite | None = None,
) -> str:
    """Write a model card.

    Args:
        name: Title.
        recipe: What was merged.
        origin: Of its trial; the base or an expert as it is is called no merge.
        objectives: Column headings of the table.
        scores: Its rows; may be empty.
        forgetting: How the merge does on tasks that the search never saw, one per metric.
        no_gain: That no merge is better than what was there before, if so.
        searched: Public benchmarks that were searched by the split that they are reported by.
        folding: How exactly the folder holds the scales of the recipe's path, if it has any.
        non_finite: NaN and infinity in the folder, if there are any.

    Returns:
        Markdown with the YAML header that the Hub reads.
    """
    references = [ref for ref in _parents(recipe, origin) if ref is not None]
    sources = dict.fromkeys(model for ref in references for model in mentioned_models(ref))
    header = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["evomerge"] if is_single_model(origin) else ["merge", "evomerge"],
        base_model=[_hub_id(ref) for ref in sources if _is_hub_id(ref)] or None,
        base_model_relation=None if is_single_model(origin) else "merge",
    )
    shown = public_recipe(recipe)
    environment = Environment(
        loader=PackageLoader("evomerge.export"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.filters.update(
        change=_change_text, share=_share_text, text=_text, code=_code, fence=_fence
    )
    return environment.get_template("card.md.j2").render(
        header=header.to_yaml(),
        name=name,
        recipe=shown,
        single=model_label(origin, 0) if is_single_model(origin) else None,
        digest=recipe.digest,
        recipe_yaml=dump_recipe(shown),
        methods=sorted({rule.method for rule in recipe.rules}),
        objectives=objectives,
        scores=scores,
        forgetting=forgetting,
        no_gain=no_gain,
        hops=Counter(hop.source for hop in recipe.path),
        folding=folding,
        non_finite=non_finite,
        searched=searched or {},
        version=__version__,
    )


def _parents(recipe: Recipe, origin: str) -> tuple[ModelRef | None, ...]:
    """List what the model is made of: all that was merged, or the one model that it is."""
    if origin == BASE:
        return (recipe.base,)
    if is_single_model(origin):
        return (recipe.experts[kind_and_name(origin)[1]],)
    return (recipe.base, *recipe.experts.values())


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
