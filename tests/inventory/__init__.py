"""The inventory of published systems: its table, its page, and what both may name."""
