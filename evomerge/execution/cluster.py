"""A Ray cluster as a driver sees it: joined, its machines counted, the same software on each."""

from __future__ import annotations

import functools
import logging
import os
import platform
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import ray

import evomerge
from evomerge.errors import StudyError, brief
from evomerge.execution.placement import Node
from evomerge.fingerprint import digest_of

__all__ = [
    "cluster_nodes",
    "join",
    "live_nodes",
    "node_id",
    "node_name",
    "require_device",
    "require_packages",
    "require_versions",
    "versions",
]

_AUTO = "auto"  # Ray finds the cluster of this machine itself
_ANSWER_S = 5.0  # in which a host takes a connection
_LIBRARIES = ("torch", "transformers", "lm_eval")  # what scores depend on beside evomerge itself


def join(address: str) -> None:
    """Connect this process to a running cluster.

    Raises:
        StudyError: In one line: nobody is there, or this driver is not let in.
    """
    if address != _AUTO:
        _require_listener(address)
    try:
        with _quiet():
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as err:
        reason = brief(" ".join(str(err.__cause__ or err).split())).strip("'\"")
        raise StudyError(
            f"expected a Ray cluster to join at {address}, got: {reason}; {_what_to_do(reason)}"
        ) from err


def live_nodes() -> tuple[Node, ...]:
    """List the machines of the cluster that this process has joined."""
    return tuple(
        Node(
            id=node["NodeID"],
            name=_name(node["NodeManagerAddress"], node["NodeManagerHostname"]),
            n_cores=node["Resources"].get("CPU", 0.0),
            n_gpus=node["Resources"].get("GPU", 0.0),
        )
        for node in ray.nodes()
        if node["Alive"]
    )


def cluster_nodes(address: str) -> tuple[Node, ...]:
    """List the machines of a cluster, joined or not; asked anew by each process only.

    Raises:
        StudyError: See ``join``.
    """
    return live_nodes() if ray.is_initialized() else _asked_nodes(address)


@functools.cache
def _asked_nodes(address: str) -> tuple[Node, ...]:
    join(address)
    try:
        return live_nodes()
    finally:
        ray.shutdown()


def node_id() -> str:
    """Return Ray's id of the machine that this process runs on."""
    found: str = ray.get_runtime_context().get_node_id()
    return found


def node_name() -> str:
    """Name the machine that this process of a cluster runs on, for people."""
    return _name(ray.util.get_node_ip_address(), platform.node())


def versions() -> dict[str, str]:
    """Name what this process runs, as far as scores depend on it.

    A release is named by its version, and evomerge by its code as well, which may be a checkout.
    What a version adds after ``+``, e.g. the CUDA that torch was built for, does not count.
    """
    found = {name: metadata.version(name).partition("+")[0] for name in _LIBRARIES}
    python = ".".join(platform.python_version_tuple()[:2])
    return {"evomerge": f"{evomerge.__version__} ({_code()})", "python": python, **found}


def require_versions(wanted: Mapping[str, str]) -> None:
    """Refuse to work for a driver that runs other versions than this machine.

    Args:
        wanted: The driver's ``versions``.

    Raises:
        StudyError: Naming all that differ.
    """
    found = versions()
    others = [name for name, version in wanted.items() if found[name] != version]
    if others:
        raise StudyError(
            f"expected {', '.join(f'{name} {wanted[name]}' for name in others)} as the driver has, "
            f"got {', '.join(f'{name} {found[name]}' for name in others)}; install the same on all "
            "machines"
        )


def require_device(device: str) -> None:
    """Refuse to stand in for a GPU with a core: scores would not be the same.

    Raises:
        StudyError: This process was given a GPU that torch does not see.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise StudyError(
            "expected torch to see the GPU that Ray counts, got none; install torch for GPUs "
            "there, or set execution.gpus_per_worker: 0"
        )


def require_packages(err: BaseException) -> None:
    """Name the package that a machine lacks, if that is why no actor can start there.

    Raises:
        StudyError: It is.
    """
    lines = [line.strip() for line in str(err).splitlines() if "No module named" in line]
    if lines:
        raise StudyError(
            f"expected the driver's packages on all machines of the cluster, got: {lines[-1]}"
        ) from err


def _code() -> str:
    """Name the source files of evomerge by what they hold."""
    folder = Path(evomerge.__file__).parent
    files = {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*.py"))}
    held = {name: file.read_text(encoding="utf-8") for name, file in files.items()}
    return f"code {digest_of(held)[:8]}"


def _name(address: str, host: str) -> str:
    return address if host in ("", address) else f"{address} ({host})"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Ray's own code prints from the terminal: each attempt to join, a line a second."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _require_listener(address: str) -> None:
    host, _, port = address.rpartition(":")
    if "/" in host or not (host and port.isdigit()):
        raise StudyError(
            f"expected local, auto or HOST:PORT as execution.ray_address, got {address!r}; the "
            "driver runs on a machine of the cluster (ray start --address=HOST:PORT --num-cpus=0)"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWER_S).close()
    except OSError as err:
        raise StudyError(
            f"expected a Ray cluster at {address}, got: {err.strerror or err}; start one there "
            f"(ray start --head --port={port}), or say where it is (execution.ray_address)"
        ) from err


def _what_to_do(reason: str) -> str:
    if "ersion mismatch" in reason:
        return "install the same versions of Ray and Python here and there"
    has_token = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    if os.environ.get("RAY_AUTH_MODE") == "token" and has_token:
        return "RAY_AUTH_TOKEN is set here: is it the token that the cluster was started with?"
    return (
        "a cluster that asks for a token lets nobody in without: set RAY_AUTH_MODE=token and the "
        "cluster's RAY_AUTH_TOKEN"
    )
