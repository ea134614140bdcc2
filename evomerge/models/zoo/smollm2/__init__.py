"""A real language model with experts: SmolLM2-135M-Instruct, LoRA adapters, and their tasks.

The model comes out of a package of the Python registry; what the experts add to it is small enough
to ship. Each has one skill. A task that needs two of them at once, arithmetic word problems in
French, is examined and never trained.

Members:
    items.py        one question and its answer; how words, facts and sentences are dealt to splits
    stories.py      word problems, reading and translation, from sentences in English and French
    lexicon.py      kinds of things, French names; from ``words/``
    sources.py      how ``words/`` was read out of WordNet and CLDR
    lora.py         the training loop
    exams.py        the lm-eval tasks
    base.py         the model out of its package
    build.py        writes base and experts; trains the adapters again, if asked
    adapters/       the trained adapters, PEFT folders
    words/          word lists, with the notices of where they come from
"""
