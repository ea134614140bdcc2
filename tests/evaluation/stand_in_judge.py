"""A judge that is no model: an OpenAI-compatible server on this machine, ruled by a function."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

Reply = str | tuple[int, str]  # what it says, or a status and a body


@dataclass
class StandIn:
    """What the server was asked, and where it is."""

    rule: Callable[[str], Reply]
    url: str = ""
    asked: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)


@contextmanager
def judge_server(rule: Callable[[str], Reply]) -> Iterator[StandIn]:
    """Serve replies to prompts until the context ends."""
    stand_in, lock = StandIn(rule), Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            (message,) = body["messages"]
            with lock:
                stand_in.asked.append(message["content"])
                stand_in.bodies.append(body)
                stand_in.keys.append(self.headers["Authorization"])
                reply = stand_in.rule(message["content"])
            status, text = (200, _completion(reply)) if isinstance(reply, str) else reply
            self.send_response(status if self.path == "/v1/chat/completions" else 404)
            if status in (302, 307):
                self.send_header("Location", f"{stand_in.url}/elsewhere")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stand_in.url = f"http://127.0.0.1:{server.server_port}/v1"
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()


def _completion(text: str) -> str:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})
