"""Benchmarks: each measures both sides in one run and prints a ratio; none decides a test."""
