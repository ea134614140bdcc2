"""A model gets the vocabulary of another one: token transplantation, without training.

Members:
    tokens: which rows of a model stand for the tokens of another vocabulary, by what they spell.
    mix: missing tokens as mixtures of shared ones, and rows made of them.
    pursuit: such mixtures by orthogonal matching pursuit.
    neighbours: such mixtures of the nearest tokens.
    tables: embedding and head of the two models, and what they become.
    folder: the model with its new vocabulary as a folder.

A new method is a file with a function like ``pursuit.pursued`` and a row in ``tables.METHODS``.
"""
