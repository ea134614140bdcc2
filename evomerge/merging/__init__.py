"""From a recipe to a model: statistics, plan, kernel, live candidate or folder.

Members:
    sources: base and experts, opened and checked, with their statistics.
    lowering: recipe to per-tensor plans.
    candidate: the live model of a worker.
    folder: a checkpoint on disk.
"""
