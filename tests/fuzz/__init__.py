"""Seeded fuzzers of everything that is read: ``make fuzz``, in short ``test_fuzz.py``.

- ``mutations``: how plain data, text and bytes are damaged
- ``yaml_inputs``, ``model_inputs``, ``study_inputs``: what is sound, how it is damaged and read
- ``guard``: reads many damaged inputs in processes that are watched
- ``__main__``: the long form, a table of counts
"""
