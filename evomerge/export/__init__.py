"""Exports: what a study found, as files other tools read.

Members:
    model: folder, recipe or mergekit YAML of one trial.
    findings: what is known of an exported model.
    rescored: a folder's scores beside its trial's.
    hub: upload.
    adapter: the merge of adapters as one adapter.
    card: the model card.
    mixture: a mixture of experts with its card.
    lineage: what a model is made of: content and licences.
    rounding: what folding the scales of a path costs.
    rescore: a folder's scores, by plain transformers.
"""
