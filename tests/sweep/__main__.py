"""Sweep every decoder of the installed transformers, write docs/architectures.md: see Makefile."""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from transformers.utils import logging

from tests.sweep.configs import TYPES
from tests.sweep.page import PAGE, page_text
from tests.sweep.verdict import Verdict, verdict


@dataclass
class _Sweep:
    """Verdicts so far, and the types whose merge is wrong."""

    found: list[Verdict] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def look(self, model_type: str) -> None:
        """Sweep one type; whatever goes wrong is told, and the others follow."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                self.found.append(verdict(model_type, Path(folder)))
            except Exception as error:
                self.wrong.append(model_type)
                text = f"wrong: {type(error).__name__}: {error}".replace(folder, "")
                self.found.append(Verdict(model_type, refused=" ".join(text.split())[:300]))
        print(self.found[-1], flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sweep", description=__doc__)
    parser.add_argument("types", nargs="*", help="model types; all, and then the page is written")
    return parser.parse_args()


def main() -> None:
    """Sweep, and write the page where all types were swept and every merge is right."""
    warnings.filterwarnings("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    wanted, sweep = _options().types, _Sweep()
    for model_type in wanted or TYPES:
        sweep.look(model_type)
    if sweep.wrong:
        sys.exit(f"wrong: {', '.join(sweep.wrong)}")
    if not wanted:
        PAGE.write_text(page_text(sweep.found), encoding="utf-8")


if __name__ == "__main__":
    main()
