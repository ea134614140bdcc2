"""Slopes along the parameters of every method and modifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from evomerge.errors import RecipeError
from evomerge.kernels.job import SlopeJob
from evomerge.kernels.plan import Band, TensorPlan
from evomerge.kernels.reference import merge_reference, slopes_reference
from evomerge.kernels.scalars import held
from evomerge.methods.base import Method, Parameter, ParameterValue, TensorContext
from evomerge.methods.modifiers import MODIFIERS, bind_modifiers
from evomerge.methods.registry import method, method_names
from evomerge.methods.slopes import Lowering, ParameterSlopes
from evomerge.methods.task_arithmetic import TaskArithmetic
from tests.methods.running import added, bound, context, exact_tensors, names

GRADIENT = torch.randn(exact_tensors(0, 1)[0].shape, generator=torch.Generator().manual_seed(0))
COEFFICIENT = (0.9, 0.35, 0.6)
STEP = 2.0**-16  # exact in float32, as limits are


def problem(name: str) -> tuple[torch.Tensor, list[torch.Tensor]]:
    base, experts = exact_tensors(0, 3)
    experts[2][:4] = base[:4]  # changes that only some experts make
    experts[1][2:6] = base[2:6]
    return base, experts[: method(name).n_experts[1] or 3]


def values_of(name: str, **values: ParameterValue) -> dict[str, ParameterValue]:
    """Values away from jumps and from edges."""
    kind = method(name)
    k = min(kind.n_experts[1] or 3, 3)
    general = {
        "coefficient": COEFFICIENT[:k],
        "lambda": 0.7,
        "limit": 55 / 1024 + 2**-14,
        "select_topk": 0.5,
    }
    own = {key: value for key, value in general.items() if key in kind.parameters()}
    return {**own, **values}


def found(lowering: Lowering, where: TensorContext, sources: tuple) -> ParameterSlopes:
    job = SlopeJob(lowering.plan(where), *sources, GRADIENT)
    return lowering.slopes(where, slopes_reference(job))


def differences(lowering: Lowering, where: TensorContext, sources: tuple) -> ParameterSlopes:
    """Slopes of the merged tensor itself: it is merged on either side of every number."""

    def objective(changed: Lowering) -> float:
        return float((merge_reference(changed.plan(where), *sources) * GRADIENT).sum())

    slopes = {}
    parts = [lowering.method, *lowering.modifiers]
    for at, part in enumerate(parts):
        for name, parameter in part.parameters().items():
            if not parameter.slope:
                continue
            value = part.value(name)
            numbers = value if isinstance(value, tuple) else (value,)
            each = []
            for i in range(len(numbers)):
                ends = []
                for by in (-STEP, STEP):
                    moved = (*numbers[:i], numbers[i] + by, *numbers[i + 1 :])
                    new = [*parts]
                    new[at] = part.moved(name, moved if parameter.per_expert else moved[0])
                    ends.append(objective(Lowering(new[0], new[1:])))
                each.append((ends[1] - ends[0]) / (2 * STEP))
            key = f"{part.name}:{name}" if at else name
            slopes[key] = tuple(each) if parameter.per_expert else each[0]
    return slopes


def variants(name: str) -> list[dict[str, ParameterValue]]:
    parameters = method(name).parameters()
    changes: list[dict[str, ParameterValue]] = [{}]
    for key, parameter in parameters.items():
        changes += [{key: choice} for choice in parameter.choices[1:]]
        changes += [{key: not parameter.default}] if isinstance(parameter.default, bool) else []
    return changes


@pytest.mark.parametrize("name", method_names())
def test_slopes_of_every_method_are_those_of_its_merged_tensor(name: str) -> None:
    base, experts = problem(name)
    where = context(base, experts)
    for change in variants(name):
        lowering = Lowering(bound(name, len(experts), **values_of(name, **change)))
        sources = (base, added(lowering.method, base, experts))
        ours = found(lowering, where, sources)
        theirs = differences(lowering, where, sources)
        assert ours.keys() == theirs.keys()
        for key, slope in ours.items():
            assert slope == pytest.approx(theirs[key], rel=1e-5, abs=1e-5), (key, change)


@pytest.mark.parametrize("modifier", MODIFIERS)
@pytest.mark.parametrize("name", ["task_arithmetic", "sce", "emr"])
def test_slopes_pass_through_every_modifier(name: str, modifier: str) -> None:
    base, experts = problem(name)
    where = replace(context(base, experts), layer=2, n_layers=4)
    written = {modifier: {}, "lines": {"alpha": 0.3, "beta": 0.4}}
    modifiers = bind_modifiers(written, names(3))
    lowering = Lowering(bound(name, 3, **values_of(name)), modifiers)
    ours = found(lowering, where, (base, experts))
    theirs = differences(lowering, where, (base, experts))
    assert ours.keys() >= {"coefficient", "lines:alpha", "lines:beta"}
    for key, slope in ours.items():
        assert slope == pytest.approx(theirs[key], rel=1e-5, abs=1e-5), key


Formula = Callable[[torch.Tensor, Sequence[torch.Tensor], torch.Tensor, torch.Tensor], torch.Tensor]


def angle(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.acos((a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1)))


def arc(a: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    omega = angle(a, b)
    first, second = torch.sin((1 - t) * omega), torch.sin(t * omega)
    return (first[..., None] * a + second[..., None] * b) / torch.sin(omega)[..., None]


def nuslerp(base, experts, c, scale, row_wise=False):  # type: ignore[no-untyped-def]
    one, two = (e - base if row_wise else (e - base).reshape(1, -1) for e in experts[:2])
    return base + scale * arc(one, two, c[1] / (c[0] + c[1])).reshape(base.shape)


def multislerp(base, experts, c, scale):  # type: ignore[no-untyped-def]
    tau, c = [e - base for e in experts], c / c.sum()
    norms = torch.stack([t.norm() for t in tau])
    direction = sum(p * t / n for p, t, n in zip(c, tau, norms, strict=True))
    return base + scale * (c @ norms) * direction / direction.norm()


def variance_corrected(base, experts, c, scale):  # type: ignore[no-untyped-def]
    c = c / c.sum()
    x = sum(p * e for p, e in zip(c, experts, strict=True))
    variance = sum(p * e.var(correction=0) for p, e in zip(c, experts, strict=True))
    return x.mean() + torch.sqrt(variance / x.var(correction=0)) * (x - x.mean())


def ties(base, experts, c, scale):  # type: ignore[no-untyped-def]
    tau = torch.stack([e - base for e in experts])
    keep = int(tau[0].numel() * 0.5)
    least = tau.abs().reshape(len(tau), -1).topk(keep, dim=1).values[:, -1]
    x = c[:, None, None] * torch.where(tau.abs() >= least[:, None, None], tau, 0.0)
    elected = torch.where(x.detach().sum(dim=0) >= 0, 1.0, -1.0)
    agrees = (x.detach() * elected > 0).double()
    divisor = (c[:, None, None] * agrees).sum(dim=0)
    return base + scale * (x * agrees).sum(dim=0) / torch.where(divisor == 0, 1.0, divisor)


def linear(base, experts, c, scale):  # type: ignore[no-untyped-def]
    return sum(p * e for p, e in zip(c, experts, strict=True)) / c.sum()


def varm(base, experts, c, scale):  # type: ignore[no-untyped-def]
    tau = torch.stack([e - base for e in experts])
    energy = c * (tau**2).sum(dim=(1, 2))
    return base + scale * ((energy / energy.sum())[:, None, None] * tau).sum(dim=0)


FORMULAS: dict[str, Formula] = {
    "nuslerp": nuslerp,
    "multislerp": multislerp,
    "variance_corrected": variance_corrected,
    "ties": ties,
    "linear": linear,
    "varm": varm,
}


@pytest.mark.parametrize("name", [*FORMULAS, "nuslerp row_wise"])
def test_slopes_are_those_that_torch_finds_for_the_published_formula(name: str) -> None:
    name, *flag = name.split()
    base, experts = exact_tensors(0, method(name).n_experts[1] or 3)
    experts = experts[:3]
    given = values_of(name) | dict.fromkeys(flag, True)
    lowering = Lowering(bound(name, len(experts), **given))
    ours = found(lowering, context(base, experts), (base, experts))
    c = torch.tensor(COEFFICIENT[: len(experts)], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    sources = [e.double() for e in experts]
    merged = FORMULAS[name](base.double(), sources, c, scale, *[True for _ in flag])
    (merged * GRADIENT).sum().backward()
    assert ours["coefficient"] == pytest.approx(c.grad.tolist(), rel=1e-6, abs=1e-6)
    if "lambda" in ours:
        assert ours["lambda"] == pytest.approx(float(scale.grad), rel=1e-6)


def test_slerp_has_the_slope_of_the_arc() -> None:
    base, experts = exact_tensors(0, 2)
    lowering = Lowering(bound("slerp", 2, t=0.3))
    ours = found(lowering, context(base, experts), (base, experts))
    t = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    one, two = (e.double().reshape(1, -1) for e in experts)
    (arc(one, two, t).reshape(base.shape) * GRADIENT).sum().backward()
    assert ours["t"] == pytest.approx(float(t.grad), rel=1e-6)


# What has no slope although it moves no mask: a column's score that jumps, where to give up; places
# in an order, which all experts have alike here; what counts with another choice only.
JUMPS = {("widen", "above"), ("karcher", "max_iter"), ("karcher", "tol"), ("multislerp", "eps")}
JUMPS |= {("opcm", "position"), ("wudi", "ridge")}


def numbers() -> list[tuple[str, Parameter]]:
    return [
        (name, parameter)
        for name in method_names()
        for parameter in method(name).parameters().values()
        if not isinstance(parameter.default, bool | str) and (name, parameter.name) not in JUMPS
    ]


@pytest.mark.parametrize(("name", "parameter"), numbers(), ids=lambda x: getattr(x, "name", x))
def test_what_has_no_slope_moves_masks_and_the_rest_does_not(
    name: str, parameter: Parameter
) -> None:
    base, experts = problem(name)
    where = context(base, experts)
    given = values_of(name, **({"epsilon": 0.1} if "epsilon" in method(name).parameters() else {}))
    ends = (parameter.low, parameter.high) if parameter.prepares else (0.0, 0.2)
    at_low_and_high = [
        held(bound(name, len(experts), **{**given, parameter.name: value}).lower(where))
        for value in (parameter.search or ends)
    ]
    moves_masks = at_low_and_high[0] != at_low_and_high[1]
    assert moves_masks != parameter.slope


class Wrong(TaskArithmetic):
    """Says that its coefficient has slopes, and trims by it."""

    name: ClassVar[str] = "wrong"

    def lower(self, tensor: TensorContext) -> TensorPlan:
        plan = super().lower(tensor)
        return replace(plan, sparse=tuple(Band(c) for c in self.coefficient))


def test_a_method_that_declares_a_slope_where_it_moves_a_mask_is_told() -> None:
    base, experts = exact_tensors(0, 2)
    wrong: Method = Wrong.bind({}, names(2))
    with pytest.raises(RecipeError, match=r"wrong: expected coefficient to move no mask"):
        found(Lowering(wrong), context(base, experts), (base, experts))
