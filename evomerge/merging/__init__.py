"""From a recipe to a model: statistics, plan, kernel, live candidate or folder.

Members:
    sources: base and experts, opened and checked, with their statistics.
    aligned: models with their units where the base has its own; ``unit_maps`` says what goes where.
    shared: experts that are computed: once per machine, mapped by every process.
    prepared: task vectors of methods of matrix algebra, likewise.
    observed: what experts compute on prompts, for methods with data, likewise; ``propagated`` is
        what they compute on merged layers' outputs.
    watched: one model, loaded to be watched while it reads prompts.
    measuring: the statistics pass, before any candidate.
    lent_parts: parts of models of vision and language that one of them lends.
    lowering: recipe to per-tensor plans, and one tensor to be merged by its plan.
    candidate: the live model of a worker.
    quantized: its linear layers run as they are after quantization.
    spread: its layers on several devices.
    residency: whether experts are mapped, resident on the device, or streamed through it.
    feeding: base and experts for merges and unmerged layers, from wherever they are;
        ``streaming`` is the last way.
    slopes: gradients of the live model become slopes along the candidate's recipe.
    path_rules: which paths the models can run.
    wiring: paths in the live model: ``visits`` to its layers and those of the sources (``layers``).
    folding: paths in a checkpoint.
    size: decoder layers run and parameters of a merge.
    distance: how far a candidate is from a reference model, and the slope of that.
    folder: a checkpoint on disk, resumable; cut into files by ``shards``, made some ``batches``
        ``ahead``, into a folder of its own (``output``).
    finite: NaN and infinity that a merge makes, counted.
"""
