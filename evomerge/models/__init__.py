"""Checkpoints in: where models come from, their tensors, and what each tensor is.

Members:
    reference: models, adapters, differences of models and aligned models, as files mention them.
    files: which files of a folder are the model; links and names that lead out of it.
    configs: ``config.json`` as transformers reads and writes it.
    checkpoint: memory-mapped safetensors, sharded or not; its dtype, and whether it is quantized.
    opening: full models opened, or just looked at on the Hub.
    spelling: full models opened under one spelling of their tensor names.
    loading: what transformers loads of a checkpoint, and what it ties.
    expert: full models, adapters and deltas behind one seam.
    adapter: LoRA adapters, computed in row blocks (``tiles``).
    vocabulary: which tokens a model knows. ``tokenizer_choice`` says which ones a merge has,
        ``merging_vocabularies`` brings models to them: ``rows`` finds rows by token,
        ``merged_vocabulary`` shows a model by them, ``companions`` are the files of the merge's
        tokenizer and chat template.
    writer: safetensors files written tensor by tensor.
    architecture: layer and kind of each tensor; their words in ``roles``, read by ``structure``
        from the model's modules, or guessed from tensor names; ``mixture_parts`` knows routers and
        experts among them.
    outline: settings, tokenizer and sizes, before any code of the model is imported.
    asked: what transformers' models tell, asked once per machine.
    parameters: checkpoint tensors as views into a live model.
    linear: which tensors are the matrices of linear layers.
    transformers_internals: the parts of transformers that are not public.
    depth: configs of models with other layers, and whether layers can be moved at all.
    parts: language tower, vision tower and projector of models of vision and language, by family.
    units: neurons, heads and channels that may change places, by family.
    branches: how layers read and write the residual stream, by family.
    twins: modules that share parameters.
    zoo: the embedded, really trained small models.
"""
