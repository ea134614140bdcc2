"""From a recipe to a model: statistics, plan, kernel, live candidate or folder.

Members:
    sources: base and experts, opened and checked, with their statistics.
    shared: adapters and deltas, computed once per machine and mapped by every process.
    lowering: recipe to per-tensor plans.
    size: decoder layers run and parameters of a merge.
    distance: how far a candidate is from a reference model.
    candidate: the live model of a worker.
    folder: a checkpoint on disk, resumable; cut into files by ``shards``.
"""
