"""LiNeS: scale the merged task vector by depth."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from evomerge.kernels.plan import TensorPlan
from evomerge.methods.base import TensorContext
from evomerge.methods.declared import shared
from evomerge.methods.modifiers.base import Modifier, check_adds_task_vectors

__all__ = ["Lines"]


@dataclass(frozen=True, kw_only=True)
class Lines(Modifier):
    """Scale the merged task vector by ``alpha`` in the first layer, ``alpha + beta`` in the last.

    Tensors outside the layers take ``alpha``. The paper's rule for several tasks finds ``alpha``
    from norms of the merged task vector; here it is a parameter, to be searched. For one task the
    paper takes ``beta = 1 − alpha``, which the defaults follow.
    """

    name: ClassVar[str] = "lines"
    summary: ClassVar[str] = "scale the merged task vector linearly with depth"
    source: ClassVar[str] = (
        "Wang et al. 2024, LiNeS: Post-training Layer Scaling Prevents Forgetting and Enhances "
        "Model Merging, arXiv:2410.17146"
    )

    alpha: float = shared(
        0.5,
        "scale in the first layer and outside layers",
        low=-10.0,
        high=10.0,
        search=(0.1, 1.0),
        slope=True,
    )
    beta: float = shared(
        0.5,
        "what the last layer's scale has more",
        low=-10.0,
        high=10.0,
        search=(0.0, 1.0),
        slope=True,
    )

    def apply(self, plan: TensorPlan, tensor: TensorContext) -> TensorPlan:
        """See ``Modifier.apply``."""
        check_adds_task_vectors(self.name, plan, tensor)
        depth = (tensor.layer or 0) / max(tensor.n_layers - 1, 1)
        return dataclasses.replace(plan, scale=plan.scale * (self.alpha + self.beta * depth))
