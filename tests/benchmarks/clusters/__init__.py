"""What a search on several machines survives, and what that costs; see ``__main__``."""
