"""Merge methods, one file each.

A method is a frozen dataclass: its fields are its parameters (declared with ranges through
``base.per_expert`` and ``base.shared``), ``lower`` turns them and the tensor's statistics into one
elementwise pass. To add one, write such a class and list it in ``registry`` (or, from another
package, under the entry point group ``evomerge.methods``).

Members:
    base: ``Method``, ``Parameter`` and what a lowering may use.
    parameters: parameters that several methods share.
    registry: names to classes.
    linear, task_arithmetic, ties, dare, slerp: the methods.
"""
