"""Params as a journal stores them: one string of numbers for all genes of a trial."""

from __future__ import annotations

import sys
from array import array
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    FloatDistribution,
    check_distribution_compatibility,
    distribution_to_json,
    json_to_distribution,
)

from evomerge.errors import StudyError
from evomerge.study.journal import Record
from evomerge.study.json_files import MALFORMED

__all__ = ["GeneTable"]

ParamsAndRanges = tuple[
    dict[str, Any], dict[str, BaseDistribution]
]  # values and distributions, by name


@dataclass(frozen=True)
class _Genes:
    """Some genes in their order."""

    distributions: dict[str, BaseDistribution]
    others: tuple[str, ...]  # those whose values are not stored as they are

    def params(self, text: str) -> dict[str, Any]:
        numbers = array("d")
        numbers.frombytes(b64decode(text))
        found: dict[str, Any] = dict(zip(self.distributions, _little(numbers), strict=True))
        for name in self.others:
            found[name] = self.distributions[name].to_external_repr(found[name])
        return found


@dataclass(slots=True)
class _Packed:
    """Params that are read by calling them; there is one for each trial."""

    genes: _Genes
    text: str

    def __call__(self) -> ParamsAndRanges:
        try:
            return self.genes.params(self.text), self.genes.distributions
        except MALFORMED as err:
            raise StudyError(
                f"the params {self.text!r} of a trial are damaged; restore the study's journal"
            ) from err


class GeneTable:
    """Numbers genes, a name with a distribution each, in the order in which a journal has them.

    A trial's record names its genes (``genes``), gives a number for each (``params``: float64,
    little-endian, base64), and introduces those that no earlier one has had (``new_genes``).
    """

    def __init__(self) -> None:
        self._genes: list[tuple[str, BaseDistribution]] = []
        self._numbers: dict[tuple[str, BaseDistribution], int] = {}
        self._parsed: dict[str, BaseDistribution] = {}
        self._chosen: dict[str, _Genes] = {}
        self._first: dict[str, BaseDistribution] = {}

    def distribution(self, text: str) -> BaseDistribution:
        """Read a distribution as Optuna writes it; the same text, the same object."""
        if text not in self._parsed:
            self._parsed[text] = json_to_distribution(text)
        return self._parsed[text]

    def require_fitting(self, name: str, distribution: BaseDistribution) -> None:
        """Check that a gene keeps its kind.

        Raises:
            ValueError: It had another one, or other choices, before.
        """
        first = self._first.setdefault(name, distribution)
        if first is not distribution:
            check_distribution_compatibility(first, distribution)

    def packed(self, params: Mapping[str, Any], of: Mapping[str, BaseDistribution]) -> Record:
        """Write params as the part of a trial's record that holds them.

        Args:
            params: A value for each gene.
            of: Its distribution.
        """
        new = [gene for gene in of.items() if gene not in self._numbers]
        self._add(new)
        numbers = array("d", [d.to_internal_repr(params[name]) for name, d in of.items()])
        known = [[name, distribution_to_json(d)] for name, d in new]
        return {
            **({"new_genes": known} if known else {}),
            "genes": _ranges([self._numbers[gene] for gene in of.items()]),
            "params": b64encode(_little(numbers).tobytes()).decode(),
        }

    def unpacked(self, record: Record) -> Callable[[], ParamsAndRanges]:
        """Take in the genes of a trial's record; its params are read by who calls the answer.

        Trials with the same genes share their distributions.
        """
        if "new_genes" in record:
            self._add([(n, self.distribution(t)) for n, t in record["new_genes"]])
        return _Packed(self._choose(record["genes"]), str(record["params"]))

    def _add(self, genes: list[tuple[str, BaseDistribution]]) -> None:
        for gene in genes:
            if gene not in self._numbers:
                self._numbers[gene] = len(self._genes)
                self._genes.append(gene)
                self.require_fitting(*gene)

    def _choose(self, ranges: str) -> _Genes:
        if ranges not in self._chosen:
            found = dict(self._genes[number] for number in _numbers(ranges))
            others = (n for n, d in found.items() if not isinstance(d, FloatDistribution))
            self._chosen[ranges] = _Genes(found, tuple(others))
        return self._chosen[ranges]


def _ranges(numbers: list[int]) -> str:
    """Write numbers as text: ``0-49,51``."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)


def _numbers(ranges: str) -> list[int]:
    parts = [part.split("-") for part in ranges.split(",") if part]
    return [n for part in parts for n in range(int(part[0]), int(part[-1]) + 1)]


def _little(numbers: array[float]) -> array[float]:
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers
