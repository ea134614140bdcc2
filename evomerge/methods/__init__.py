"""Merge methods, one file each.

A method is a frozen dataclass: its fields are its parameters (declared with ranges through
``per_expert``, ``shared`` and ``choice``), ``lower`` turns them and the tensor's statistics into
one elementwise pass. A parameter that a merge depends on smoothly says ``slope=True``; nobody
writes a derivative (``slopes``). To add a method, write such a class and list it in ``registry``
(or, from another package, under the entry point group ``evomerge.methods``).

A method that is no such pass, because it decomposes, projects or solves, is a ``PreparedMethod``:
it prepares one task vector per expert, tensor by tensor, and its pass adds these up. That is one
more function, from the task vectors of a tensor to as many others; what is kept of them on disk,
who computes them when, and how they reach kernels, slopes and exports is alike for all
(``prepared``). One that needs data, too, is an ``ObservedMethod``: it names what experts must be
observed on prompts for, and finds that beside the task vectors (``observed``).

Members:
    base: ``Method`` and what a lowering may use.
    declared: ``Parameter``, and how parameter values are checked and bound.
    parameters: parameters that several methods share.
    sparsify: trims and random drops that several methods share.
    modifiers: layer scaling and sparsifiers that compose with methods.
    registry: names to classes.
    slopes: slopes along the parameters of a rule.
    linear, task_arithmetic, wise_ft: weighted sums.
    ties, dare, della, breadcrumbs, consensus, localize_and_stitch, tatr: sums of what is kept.
    emr, magmax, pcb, sce, varm, ram, widen: other ways to combine task vectors.
    nearswap, arcee_fusion: the base and one expert.
    slerp, nuslerp, multislerp, karcher, model_stock, variance_corrected, doge_lambda: coefficients
        from norms and angles.
    prepared: ``PreparedMethod``, task vectors that are computed before the pass.
    algebra: decompositions and orthogonalisation of task vectors.
    factors, trimming: low-rank factors of task vectors; which elements of whole tensors are kept.
    interference: the loss of WUDI and OptMerge, descended or solved.
    tsv_m, iso_c, iso_cts, knots: singular directions, made orthogonal, equally strong, or common.
    wudi, optmerge, opcm: task vectors fitted or projected so that they interfere little.
    rmm, lora_lego, compeft: adapters compressed, put together from units, or reduced to signs.
    observed: ``ObservedMethod``, which prepares them with what the experts compute on prompts.
    regression: least squares over several experts.
    fisher, regmean, regmean_plus_plus, mats, cat: methods with data.
"""
