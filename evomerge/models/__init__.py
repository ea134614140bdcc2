"""Checkpoints in: where models come from, their tensors, and what each tensor is.

Members:
    reference: ``zoo:``, folder and Hub references to a local folder.
    checkpoint: memory-mapped safetensors, sharded or not.
    architecture: layer and kind of each tensor.
    zoo: the embedded, really trained small models.
"""
