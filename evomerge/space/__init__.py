"""Search spaces: what may vary, and how params become recipes.

Members:
    protocol: ``SearchSpace``, the seam; ``ModelSet``, what is mixed.
    spec: the YAML language of parameter spaces.
    checks: every fault of a space at once.
    parameter: coefficients, densities and methods per depth group and module.
    depth, genes, simplex: its cells of tensors, its genes, shares that sum to one.
    tensor_groups: a group of its own for every tensor of a layer.
    slopes, sloped: slopes along genes, by numbers that know how they depend on them.
    decoding, lookup: from genes to rules, and from a recipe back to genes.
    layer_swap, layer_sources: every layer from one model, or a blend of two.
    ensemble: models that answer together, nothing merged; their shares.
    importance: how much the experts moved each layer, and layers grouped by it.
    dataflow: paths through layers of several models, alone or with a parameter space (a package).
    baselines: parents, averages and other seeds, found in the space where possible.
    distributions: Optuna's distributions, as spaces use them.

A new kind of space implements ``SearchSpace`` and joins the table in ``config.spaces``.
"""
