"""Asking a language model behind an OpenAI-compatible endpoint, patiently."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from evomerge.errors import EvaluationError, brief
from evomerge.secrets import filled_in, without_secrets

__all__ = ["Endpoint"]

_WAITS_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)  # between tries
_FEWER_WAITS = 2  # where somebody looks on
_LONGEST_WAIT_S = 60.0  # that an endpoint may ask for
_PASSING = (408, 409, 425, 429)  # and all above 500
_PATH = "/chat/completions"
_LONGEST = 200  # characters of what an endpoint says of an error
_MOST_BYTES = 1 << 26  # of a reply
_NO_REPLY = (HTTPError, URLError, HTTPException, OSError, ValueError, RecursionError)


class _NoRedirect(HTTPRedirectHandler):
    """The key is for one host, so that no other one gets it."""

    def redirect_request(self, *_: object, **__: object) -> None:
        return None


_opener = build_opener(_NoRedirect)


@dataclass(frozen=True)
class Endpoint:
    """Where a model is asked.

    Attributes:
        url: As far as ``/v1``; ``${NAME}`` stands for environment variables.
        model: Its name there.
        api_key_env: Environment variable with the key; ``None``: no key is sent.
        timeout_s: For one reply.
        options: More keys of the request, such as ``temperature``.
    """

    url: str
    model: str
    api_key_env: str | None
    timeout_s: float
    options: Mapping[str, object]

    def ask(self, prompt: str, *, is_patient: bool = True) -> str:
        """Ask again and again, at growing intervals, until there is a reply.

        Args:
            prompt: The only message.
            is_patient: Whether an endpoint that is down is waited for: for two minutes.

        Raises:
            EvaluationError: There is none, after all tries, or at once where another try would not
                help. The message has neither key nor password.
        """
        url, key = self._address(), self._key()
        for wait in (*_WAITS_S[: None if is_patient else _FEWER_WAITS], None):
            try:
                return self._reply(url, key, prompt)
            except _NO_REPLY as err:
                if wait is None or not _may_pass(err):
                    reason = _reason(err) if key is None else _reason(err).replace(key, "***")
                    place = without_secrets(self.url)
                    text = f"the judge {self.model} at {place} gave no reply: {reason}"
                    raise EvaluationError(text) from None  # a chain could show the key
                time.sleep(max(wait, _asked_to_wait(err)))
        raise AssertionError("the last try returns or raises")

    def _reply(self, url: str, key: str | None, prompt: str) -> str:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            **self.options,
        }
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        request = Request(url, json.dumps(body).encode(), headers)
        with _opener.open(request, timeout=self.timeout_s) as response:
            return _content(json.loads(_body(response, self.timeout_s)))

    def _address(self) -> str:
        url = filled_in(self.url).rstrip("/")
        return url if url.endswith(_PATH) else url + _PATH

    def _key(self) -> str | None:
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise EvaluationError(
                f"expected the judge's key in the environment variable {self.api_key_env}, which "
                "is not set here"
            )
        return key


def _body(response: HTTPResponse, seconds: float) -> bytes:
    """Read a reply piece by piece: the socket's own timeout is for each of them."""
    until, found = time.monotonic() + seconds, bytearray()
    while piece := response.read1(1 << 16):
        found += piece
        if time.monotonic() > until:
            raise TimeoutError
        if len(found) > _MOST_BYTES:
            raise ValueError(f"expected a reply of at most {_MOST_BYTES} bytes, got more")
    return bytes(found)


def _content(answer: object) -> str:
    """Read the text of a reply."""
    try:
        text = answer["choices"][0]["message"]["content"]  # type: ignore[index]
    except (KeyError, IndexError, TypeError):
        raise ValueError(f"expected a chat completion, got {brief(answer)}") from None
    if not isinstance(text, str):
        raise ValueError(f"expected a reply in words, got {brief(text)}")
    return text


def _may_pass(err: Exception) -> bool:
    return not isinstance(err, HTTPError) or err.code in _PASSING or err.code >= 500


def _asked_to_wait(err: Exception) -> float:
    asked = err.headers.get("Retry-After", "") if isinstance(err, HTTPError) else ""
    return min(float(asked), _LONGEST_WAIT_S) if asked.isdigit() else 0.0


def _reason(err: Exception) -> str:
    if isinstance(err, HTTPError):
        said = err.read(10 * _LONGEST).decode(errors="replace")
        return f"HTTP {err.code} {' '.join(said.split())[:_LONGEST]}".rstrip()
    cause = err.reason if isinstance(err, URLError) else err
    if isinstance(cause, socket.timeout | TimeoutError):
        return "it took too long"
    return without_secrets(f"{type(cause).__name__}: {' '.join(str(cause).split())[:_LONGEST]}")
