"""Methods by name: a lazy table, and the ``evomerge.methods`` entry points of other packages."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from evomerge.errors import RecipeError, did_you_mean
from evomerge.methods.base import Method

__all__ = ["method", "method_names"]

_BUILT_IN = {
    "linear": "evomerge.methods.linear:Linear",
    "task_arithmetic": "evomerge.methods.task_arithmetic:TaskArithmetic",
    "wise_ft": "evomerge.methods.wise_ft:WiseFt",
    "ties": "evomerge.methods.ties:Ties",
    "dare_linear": "evomerge.methods.dare:DareLinear",
    "dare_ties": "evomerge.methods.dare:DareTies",
    "della": "evomerge.methods.della:Della",
    "della_linear": "evomerge.methods.della:DellaLinear",
    "breadcrumbs": "evomerge.methods.breadcrumbs:Breadcrumbs",
    "breadcrumbs_ties": "evomerge.methods.breadcrumbs:BreadcrumbsTies",
    "consensus": "evomerge.methods.consensus:ConsensusMerging",
    "emr": "evomerge.methods.emr:Emr",
    "magmax": "evomerge.methods.magmax:MagMax",
    "pcb": "evomerge.methods.pcb:Pcb",
    "sce": "evomerge.methods.sce:Sce",
    "varm": "evomerge.methods.varm:Varm",
    "nearswap": "evomerge.methods.nearswap:NearSwap",
    "arcee_fusion": "evomerge.methods.arcee_fusion:ArceeFusion",
    "ram": "evomerge.methods.ram:Ram",
    "ramplus": "evomerge.methods.ram:RamPlus",
    "localize_and_stitch": "evomerge.methods.localize_and_stitch:LocalizeAndStitch",
    "tatr": "evomerge.methods.tatr:Tatr",
    "widen": "evomerge.methods.widen:Widen",
    "slerp": "evomerge.methods.slerp:Slerp",
    "nuslerp": "evomerge.methods.nuslerp:NuSlerp",
    "multislerp": "evomerge.methods.multislerp:MultiSlerp",
    "karcher": "evomerge.methods.karcher:Karcher",
    "model_stock": "evomerge.methods.model_stock:ModelStock",
    "variance_corrected": "evomerge.methods.variance_corrected:VarianceCorrected",
    "doge_lambda": "evomerge.methods.doge_lambda:DogeLambda",
    "tsv_m": "evomerge.methods.tsv_m:TsvM",
    "iso_c": "evomerge.methods.iso_c:IsoC",
    "iso_cts": "evomerge.methods.iso_cts:IsoCts",
    "wudi": "evomerge.methods.wudi:Wudi",
    "optmerge": "evomerge.methods.optmerge:OptMerge",
    "opcm": "evomerge.methods.opcm:Opcm",
    "knots": "evomerge.methods.knots:Knots",
    "rmm": "evomerge.methods.rmm:Rmm",
    "lora_lego": "evomerge.methods.lora_lego:LoraLego",
    "compeft": "evomerge.methods.compeft:Compeft",
    "fisher": "evomerge.methods.fisher:Fisher",
    "regmean": "evomerge.methods.regmean:RegMean",
    "regmean_plus_plus": "evomerge.methods.regmean_plus_plus:RegMeanPlusPlus",
    "mats": "evomerge.methods.mats:Mats",
    "cat": "evomerge.methods.cat:Cat",
}


def method_names() -> tuple[str, ...]:
    """List every method that recipes may name."""
    return tuple(_table())


def method(name: str) -> type[Method]:
    """Find a method.

    Args:
        name: Its snake_case name in the literature.

    Raises:
        RecipeError: No such method; the message names the nearest.
    """
    table = _table()
    if name not in table:
        hint = did_you_mean(name, table)
        raise RecipeError(f"expected a method out of {', '.join(table)}, got {name!r}{hint}")
    module, _, attribute = table[name].partition(":")
    found: type[Method] = getattr(import_module(module), attribute)
    return found


@cache
def _table() -> dict[str, str]:
    plugins = {entry.name: entry.value for entry in entry_points(group="evomerge.methods")}
    return {**_BUILT_IN, **plugins}
