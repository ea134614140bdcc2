"""From a recipe to a model: statistics, plan, kernel, live candidate or folder.

Members:
    sources: base and experts, opened and checked, with their statistics.
    shared: adapters and deltas, computed once per machine and mapped by every process.
    measuring: the statistics pass, before any candidate.
    lowering: recipe to per-tensor plans.
    candidate: the live model of a worker.
    folder: a checkpoint on disk, resumable; cut into files by ``shards``.
"""
