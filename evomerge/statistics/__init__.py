"""Statistics that turn merge methods into one elementwise pass.

Members:
    tensor: ``TensorStatistics``, all statistics of one tensor, computed once and kept.
    collect: statistics by the names that methods ask for them by.
    cache: results on disk, by content of the tensors.
    tally: what is small enough to be sorted; buckets of magnitudes, exact or fine.
    histogram: magnitudes of a task vector, for trim thresholds.
    moments: sums and extremes.
    gram: inner products between models, for spherical methods.
    rows, columns: magnitudes by rank, divergences, column distances.
    variance, activity, scores, signs: what the experts of a set do to the same elements.
    masked: sums over what a random mask keeps.
    content: what a tensor holds in short: its hash, NaN and infinity.
    reading: base and experts in float32 tiles.
    name: a statistic with its parameters, written and read.
    kept: in memory and on disk.

To add a statistic, write a function or a frozen dataclass over tiles in a file of its own, a member
of ``TensorStatistics`` that keeps it, and a row in ``collect.STATISTICS``.
"""
