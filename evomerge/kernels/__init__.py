"""The one elementwise pass that makes every candidate.

Members:
    plan: ``TensorPlan``, the contract: which scalars describe a pass.
    masks: counter-based random masks.
    reference: float64, reads like the formula.
    eager: plain torch in tiles, any device.

A new kernel implements the formula of ``TensorPlan`` and joins the parity test against
``reference``.
"""
