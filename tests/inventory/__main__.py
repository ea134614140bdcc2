"""Write docs/inventory.md: ``python -m tests.inventory``."""

from tests.inventory.page import PAGE, page_text

PAGE.write_text(page_text(), encoding="utf-8")
