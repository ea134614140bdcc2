"""Exports: what a study found, as files other tools read.

Members:
    model: folder, recipe or mergekit YAML of one trial; Hub push.
    card: the model card.
    rescore: a folder's scores, by plain transformers.
"""
