"""Statistics that turn merge methods into one elementwise pass.

Members:
    histogram: magnitudes of a task vector, for trim thresholds.
    gram: inner products between models, for spherical methods.
    tensor: all statistics of one tensor, computed once and kept.
"""
