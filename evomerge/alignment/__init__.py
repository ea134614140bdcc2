"""Aligners: where an expert's neurons and heads have to go to stand where the base has their like.

Members:
    matching: which unit goes where, given how much units are alike.
    weights: units compared by what they are made of.
    activations: units compared by what they answer on prompts.
    transport: mixtures of all units that are alike, instead of one of them.
    placing: tensors with their positions put elsewhere.

To add one: a file here, its name in the references of models, and what the maps of units in
the room of merging do for it.
"""
