"""Ensembles: models that answer together, each with a forward pass of its own for every token.

No merge: what one costs n times as much as, and must be compared with.

Members:
    file: which models, and how what they say becomes one answer.
    model: the models as one live transformers model, whose predictions are mixed.
    voting: an engine whose models answer apart and then vote.
    loading: from a file to a live model and the engine that runs it, with what that costs.
"""
