"""The one elementwise pass that makes every candidate, and its adjoint.

The adjoint reads what the pass reads and an objective's gradient along what it wrote, once, and
sums up the slopes of the objective along every scalar of the plan.

Members:
    plan: ``TensorPlan``, the contract: which numbers describe a pass.
    choice: ``merge_all`` and ``slopes_all``, with the fastest kernel there is for each plan.
    masks: counter-based random masks.
    reference: float64, reads like the formula.
    eager: plain torch in tiles, any device.
    cpu: compiled by numba.
    gpu: compiled by Triton (extra ``triton``).
    job: one tensor to merge or to find slopes for, as kernels take it.
    scalars: what of a plan has slopes, and such slopes.
    structure, numbers: a plan taken apart into what shapes the code of a compiled kernel, and the
        numbers that reach it as arguments.
    formula, generated: the source text of one element; such text as a module.
    adjoint: the derivative of the formula, made from its text.

A new kernel implements the formula of ``TensorPlan`` and joins the parity tests against ``eager``.
A new sparsifier, gate or combination is added to plan, reference, eager, and to structure,
numbers and formula (or, if rare, left out in ``structure.is_supported``).
"""
