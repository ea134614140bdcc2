"""Mixtures of experts: models of one architecture as the experts of one, side by side.

The feed-forward part of every layer is there once per model, and a router that picks some of them
for each token; everything else is the base's. No training takes place.

Members:
    file: mergekit-moe's own YAML, and what is wrong with it.
    kinds: the architectures of mixtures, and which dense ones each is made of.
    sources: base and experts, opened, and which stored tensor of a mixture is which of theirs.
    routers: rows of routers from hidden states or embeddings of prompts, or drawn at random.
    folder: a mixture as a checkpoint that stock transformers loads.

The other way round, a mixture gets fewer experts: some of them are merged.

    routed: where the experts and routers of a mixture's checkpoint are.
    groups: which experts become one, by how routers use them.
    fewer: the mixture with one expert for each group, as a checkpoint.
"""
