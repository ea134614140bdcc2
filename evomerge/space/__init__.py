"""Search spaces: what may vary, and how params become recipes.

Members:
    protocol: ``SearchSpace``, the seam; ``ModelSet``, what is mixed.
    spec: the YAML language of parameter spaces.
    checks: every fault of a space at once.
    parameter: coefficients, densities and methods per depth group and module.
    dataflow: paths through layers of several models, alone or with a parameter space (a package).
    drawing: single genes: drawing, checking and writing them.
    baselines: base, experts and uniform average, found in the space where possible.

A new kind of space implements ``SearchSpace`` and joins the table in ``config.spaces``.
"""
