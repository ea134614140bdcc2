"""Merge landscapes fitted to real evaluations: a test bed for samplers that runs in seconds."""
