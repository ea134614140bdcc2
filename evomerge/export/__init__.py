"""Exports: what a study found, as files other tools read.

Members:
    model: folder, recipe or mergekit YAML of one trial.
    findings: what is known of an exported model.
    rescored: a folder's scores beside its trial's.
    hub: upload.
    adapter: the merge of adapters as one adapter.
    card: the model card.
    made: the card of a model that is made without a search.
    mixture: a mixture of experts, or one with fewer of them, with its card.
    transplant: a model with another one's vocabulary, with its card.
    restorable: cards of merges that no search found, with masks or differences that experts come
        back from, and of these.
    lineage: what a model is made of: content and licences.
    rounding: what folding the scales of a path costs.
    rescore: a folder's scores, by plain transformers.
"""
