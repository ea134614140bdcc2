"""Data-flow spaces: which layers of which models a token passes through, in what order.

Members:
    spec: the YAML language of paths.
    encoding: ``Encoding``, the seam between genes and the steps of a path.
    threshold, slots, permutation, slices: the encodings.
    scales: the guard on the product of scales.
    genes: ``PathGenes``, genes to hops and back.
    checks: every fault of a path spec at once.
    dataflow: ``DataflowSpace``, a path through unchanged models.
    hybrid: ``HybridSpace``, a path that may also pass through merged layers.

A new encoding is a file with its options and its class here; it joins the union in ``spec`` and
the table at the end of ``genes``.
"""
