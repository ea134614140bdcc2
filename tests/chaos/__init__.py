"""Drivers and workers killed at any moment, and studies that go on: ``make chaos``.

- ``points``: ends a process right before, in the middle of, or after one of its writes
- ``drivers``: runs of the command line in processes of their own, which may be killed
- ``studies``: one small study that is killed and resumed, and what must hold in the end
- ``__main__``: the long form, a table of counts
"""
