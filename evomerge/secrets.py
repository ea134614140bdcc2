"""Passwords and tokens: never shown, and read from the environment rather than from files."""

from __future__ import annotations

import os
import re
from urllib.parse import quote

from evomerge.errors import StudyError

__all__ = ["filled_in", "holds_password", "without_secrets"]

_PASSWORDS = (
    re.compile(r"(:/{1,2}[^:/@\s]*:)(\S+)(?=@)"),
    re.compile(r"([?&](?:password|passwd|pwd|token)=)([^&\s'\"]+)", re.IGNORECASE),
)
_HUB_TOKEN = re.compile(r"\b()((?:hf|api_org)_[A-Za-z0-9]{20,})\b")
_VARIABLE = re.compile(r"\$\{(\w+)\}")


def without_secrets(text: str) -> str:
    """Replace the passwords of URLs, and the Hub's tokens, by ``***``.

    A URL that was taken for a path has one slash.
    """
    for pattern in (*_PASSWORDS, _HUB_TOKEN):
        text = pattern.sub(r"\1***", text)
    return text


def holds_password(url: str) -> bool:
    """Tell whether a URL has its password in it, not only the name of a variable that has it."""
    found = [match.group(2) for pattern in _PASSWORDS for match in pattern.finditer(url)]
    return any(not _VARIABLE.fullmatch(password) for password in found)


def filled_in(url: str) -> str:
    """Put the values of environment variables in place of ``${NAME}``.

    A password may have any characters; the rest of the URL is taken as it is.

    Raises:
        StudyError: A variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise StudyError(
                f"expected the environment variable {name}, which the storage names; set it"
            )
        before, after = url[: match.start()], url[match.end() :]
        is_password = before.endswith(":") and after.startswith("@")
        return quote(os.environ[name], safe="") if is_password else os.environ[name]

    return _VARIABLE.sub(value, url)
