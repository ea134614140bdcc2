"""Machines of a cluster: network namespaces with addresses, hosts and disks of their own.

Needs root and Linux. What a machine runs dies with it, as when its power goes.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

__all__ = ["OWN", "PORT", "Lan", "Machine"]

OWN = Path(tempfile.gettempdir())
"""Where every machine has a disk of its own, under the same path."""
PORT = 6379
_NET = "10.77.0"
_NO_DASHBOARD = "--include-dashboard=false"
_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
_RAY = [sys.executable, "-m", "ray.scripts.scripts"]
_AGAIN = ["sh", "-c", 'until "$@"; do sleep 1; done', "sh"]  # Ray gives up after half a minute


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


class Lan:
    """A network of machines on a bridge; gone after the block."""

    def __init__(self) -> None:
        self._bridge = f"em{secrets.token_hex(3)}"  # that of an earlier one may go late
        self._machines: list[Machine] = []
        self.root = Path(tempfile.mkdtemp(prefix="em"))  # sockets need a short path

    def __enter__(self) -> Lan:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("link", "set", self._bridge, "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None
    ) -> None:
        for machine in self._machines:
            machine.lose()
        _ip("link", "del", self._bridge)

    def machine(self, environ: Mapping[str, str] = {}) -> Machine:
        """Plug another machine in."""
        number = len(self._machines) + 1
        made = Machine(self._bridge, number, self.root / f"m{number}", environ)
        self._machines.append(made)
        return made


class Machine:
    """One machine; its processes live until it is lost, and has ``disk`` at ``OWN``.

    Args:
        bridge: What it is plugged into.
        number: Its last byte of the address.
        disk: What it has at ``OWN``.
        environ: Beside that of this process.
    """

    def __init__(self, bridge: str, number: int, disk: Path, environ: Mapping[str, str]) -> None:
        self.address, self.host = f"{_NET}.{number}", f"machine{number}"
        self._space, self._cable = f"{bridge}n{number}", f"{bridge}v{number}"
        self.disk = disk
        self._running = list[subprocess.Popen[bytes]]()
        self._environ = {
            **os.environ,
            **_TOKEN,
            "EVOMERGE_CACHE": str(OWN / self.host),
            **environ,
        }
        disk.mkdir()
        _ip("netns", "add", self._space)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "e0", "netns", self._space)
        _ip("link", "set", self._cable, "master", bridge, "up")
        # By its default route a process knows its own address; nobody is behind it.
        route = f"route add default via {_NET}.254"
        for words in (
            f"addr add {self.address}/24 dev e0",
            "link set e0 up",
            "link set lo up",
            route,
        ):
            _ip("-n", self._space, *words.split())

    def start(self, *command: str, log: Path) -> subprocess.Popen[bytes]:
        """Run a command here, with a process tree that dies as a whole."""
        first = next((child for child in self._running if child.poll() is None), None)
        words = self._apart() if first is None else self._beside(first)
        with log.open("ab") as out:
            child = subprocess.Popen(
                [*words, *command],
                env=self._environ,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._running.append(child)
        return child

    def _apart(self) -> list[str]:
        """Start the first process, which all others end with."""
        inside = f'hostname {self.host}; mount --bind {self.disk} {OWN}; exec "$@"'
        apart = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        return ["ip", "netns", "exec", self._space, *apart, "sh", "-c", inside, "sh"]

    def _beside(self, first: subprocess.Popen[bytes]) -> list[str]:
        """Start another one beside the first."""
        inner = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()[0]
        return ["nsenter", "--target", inner, "--mount", "--uts", "--pid", "--net"]

    def head(self, log: Path) -> None:
        """Start a cluster here, without room for workers."""
        own = f"--node-ip-address={self.address}"
        self._ray("--head", own, f"--port={PORT}", "--num-cpus=0", _NO_DASHBOARD, log=log)

    def join(self, head: Machine, n_workers: int, log: Path) -> None:
        """Join a cluster."""
        own = f"--node-ip-address={self.address}"
        self._ray(f"--address={head.address}:{PORT}", own, f"--num-cpus={n_workers}", log=log)

    def _ray(self, *arguments: str, log: Path) -> None:
        flags = ("--block", "--disable-usage-stats")
        self.start(*_AGAIN, *_RAY, "start", *arguments, *flags, log=log)

    def unplug(self) -> None:
        """Cut it off; what it runs goes on."""
        _ip("link", "set", self._cable, "down")

    def lose(self) -> None:
        """Turn it off."""
        for child in self._running:
            kill(child)
        self._running = []
        subprocess.run(["ip", "netns", "del", self._space], check=False, capture_output=True)


def kill(child: subprocess.Popen[bytes]) -> None:
    """Kill a command and all that it started, at once."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
