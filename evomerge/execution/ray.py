"""Jobs on Ray actors: one worker per GPU, or per core with one thread each."""

from __future__ import annotations

import logging
import os
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

from evomerge.errors import EvomergeError, StudyError
from evomerge.execution.protocol import Failed, Job, Outcome, WorkerSpec

__all__ = ["RayExecutor"]

_log = logging.getLogger(__name__)

_ATTEMPTS = 3  # a job that has killed this many workers is at fault itself
_DEATHS = (RayActorError, OutOfMemoryError)  # the latter: killed by Ray to save the machine
_OBJECT_STORE_BYTES = 128 << 20  # recipes and scores are small; experts are memory-mapped files


class RayExecutor:
    """A pool of Ray actors; see ``Executor``.

    The actors start at once, and import what they need while others are at work.

    Args:
        n_workers: How many actors.
        gpus_per_worker: GPUs of each; 0 gives each one core and one thread.
        address: ``local`` starts Ray on this machine; else the address of a running cluster.
    """

    def __init__(
        self, n_workers: int, *, gpus_per_worker: float = 0, address: str = "local"
    ) -> None:
        _start_ray(address, n_workers)
        self._n_workers = n_workers
        self._actor_type: Any = ray.remote(num_cpus=1, num_gpus=gpus_per_worker)(_RemoteWorker)
        self._spec: Any = None  # what actors load, as an object of Ray: sent once per machine
        self._running: dict[Any, tuple[Any, Job, int]] = {}
        self._idle: list[Any] = [self._actor_type.remote() for _ in range(n_workers)]

    def load(self, spec: WorkerSpec) -> None:
        """See ``Executor``."""
        self._spec = ray.put(spec)
        loading = [(actor, actor.load.remote(self._spec)) for actor in self._idle]
        self._idle = [self._loaded(actor, ready, attempt=1) for actor, ready in loading]

    @property
    def n_workers(self) -> int:
        """See ``Executor``."""
        return self._n_workers

    def submit(self, job: Job) -> None:
        """See ``Executor``."""
        self._start(job, attempt=1)

    def next_outcome(self) -> Outcome:
        """See ``Executor``."""
        while True:
            finished, _ = ray.wait(list(self._running), num_returns=1)
            actor, job, attempt = self._running.pop(finished[0])
            try:
                outcome: Outcome = ray.get(finished[0])
            except _DEATHS as err:
                _log.warning("the worker of trial %d died; starting another", job.trial)
                self._idle.append(self._new_actor()[0])
                if attempt == _ATTEMPTS:
                    return Failed(job, f"its worker died {attempt} times: {_first_line(err)}")
                self._start(job, attempt=attempt + 1)
                continue
            except RayTaskError as err:  # a replacement that cannot load its models
                outcome = Failed(job, _first_line(err.cause), str(err))
            self._idle.append(actor)
            return outcome

    def close(self) -> None:
        """See ``Executor``."""
        ray.shutdown()

    def _new_actor(self) -> tuple[Any, Any]:
        """Start another actor; returns it with what tells that it has loaded."""
        actor = self._actor_type.remote()
        return actor, actor.load.remote(self._spec)

    def _start(self, job: Job, *, attempt: int) -> None:
        actor = self._idle.pop()
        self._running[actor.run.remote(job)] = (actor, job, attempt)

    def _loaded(self, actor: Any, ready: Any, *, attempt: int) -> Any:
        try:
            ray.get(ready)
        except RayTaskError as err:
            raise (err.cause if isinstance(err.cause, EvomergeError) else err) from err
        except _DEATHS as err:
            if attempt == _ATTEMPTS:
                raise StudyError(f"workers die while they load: {_first_line(err)}") from err
            _log.warning("a worker died while it loaded; starting another")
            return self._loaded(*self._new_actor(), attempt=attempt + 1)
        return actor

    def worker_pids(self) -> list[int]:
        """List the process ids of the idle workers."""
        return ray.get([actor.pid.remote() for actor in self._idle])


class _RemoteWorker:
    """Builds its worker in ``load``: an actor whose constructor raises hides the type of the error.

    An actor that stands in for a dead one loads while nobody looks; then its job raises.
    """

    def __init__(self) -> None:
        import evomerge.execution.worker  # noqa: F401  seconds that would pass later

        self._worker: Any = None
        self._error: Exception | None = None

    def load(self, spec: WorkerSpec) -> None:
        from evomerge.execution.worker import Worker

        try:
            self._worker = Worker(spec)
        except Exception as err:
            self._error = err
            raise

    def run(self, job: Job) -> Outcome:
        if self._error is not None:
            raise self._error
        outcome: Outcome = self._worker.run(job)
        return outcome

    def pid(self) -> int:
        return os.getpid()


def _start_ray(address: str, n_workers: int) -> None:
    _silence_ray()
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning
    if address == "local":
        ray.init(
            address="local",
            num_cpus=n_workers,
            object_store_memory=_OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    else:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)


def _silence_ray() -> None:
    """Let Ray not report every dead worker on stdout whatever its log settings say: we log it.

    The one part of Ray used that is not public.
    """
    ray._private.worker.print_to_stdstream = lambda *_args, **_kwargs: None


def _first_line(err: BaseException) -> str:
    return str(err).splitlines()[0] if str(err) else type(err).__name__
