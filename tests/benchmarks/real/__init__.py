"""Everything that ``docs/real.md`` says of searches on SmolLM2-135M; see ``__main__``."""
