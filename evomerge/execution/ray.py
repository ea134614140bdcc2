"""Jobs on Ray actors: one worker per GPU, or per core with one thread each."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayTaskError

from evomerge.errors import EvomergeError, StudyError
from evomerge.execution.deaths import death_reason
from evomerge.execution.happenings import Hear, ignore, warnings_collected
from evomerge.execution.interrupts import termination_kept
from evomerge.execution.orphans import end_with_driver
from evomerge.execution.patience import Patience
from evomerge.execution.protocol import Failed, Job, Outcome, WorkerSpec
from evomerge.execution.watching import Watch

__all__ = ["RayExecutor"]

_ATTEMPTS = 3  # a job that has killed this many workers is at fault itself
_TIMEOUTS = 2  # a job that has taken too long so often will not come back
_LOOK_S = 1.0  # between looks at how long jobs take
_DEATHS = (RayActorError, OutOfMemoryError)  # the latter: killed by Ray to save the machine
_OBJECT_STORE_BYTES = 128 << 20  # recipes and scores are small; experts are memory-mapped files


class RayExecutor:
    """A pool of Ray actors; see ``Executor``.

    The actors start at once, and import what they need while others are at work.

    Args:
        n_workers: How many actors.
        gpus_per_worker: GPUs of each; 0 gives each one core and one thread.
        address: ``local`` starts Ray on this machine; else the address of a running cluster.
        patience: How long jobs may take; absent: twenty times what others took.
        hear: Hears what happens to workers.
    """

    def __init__(
        self,
        n_workers: int,
        *,
        gpus_per_worker: float = 0,
        address: str = "local",
        patience: Patience | None = None,
        hear: Hear = ignore,
    ) -> None:
        with termination_kept():
            _start_ray(address, n_workers)
        self._session = _session() if address == "local" else None
        self._reaper = None if self._session is None else end_with_driver(str(self._session))
        self._n_workers = n_workers
        self._actor_type: Any = ray.remote(num_cpus=1, num_gpus=gpus_per_worker)(_RemoteWorker)
        self._spec: Any = None  # what actors load, as an object of Ray: sent once per machine
        self._watch = Watch(patience or Patience(), hear)
        self._running: dict[Any, tuple[Any, Job, int]] = {}
        self._overdue: dict[Any, str] = {}  # runs whose workers were killed, and why
        self._n_timeouts: dict[int, int] = {}  # by trial
        self._loading: dict[Any, Any] = {}  # by actor, what tells that it has loaded
        self._pids: dict[Any, int] = {}
        self._n_unloaded = 0  # workers that died while they loaded since the last outcome
        self._idle: list[Any] = [self._actor_type.remote() for _ in range(n_workers)]

    def load(self, spec: WorkerSpec) -> None:
        """See ``Executor``."""
        self._spec = ray.put(spec)
        for actor in self._idle:
            self._load(actor)
        for attempt in range(1, _ATTEMPTS + 1):
            dead = self._dead_while_loading()
            if not dead:
                return
            reason = next(iter(dead.values()))
            if len(dead) == self._n_workers or attempt == _ATTEMPTS:
                raise StudyError(f"workers die while they load: {reason}")
            self._replace_loading(dead, reason)

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
            self._give_up_overdue()
            finished, _ = ray.wait(list(self._running), num_returns=1, timeout=_LOOK_S)
            if finished and (outcome := self._finished(finished[0])) is not None:
                return outcome

    def close(self) -> None:
        """See ``Executor``."""
        ray.shutdown()
        if self._reaper is not None:
            self._reaper.kill()
            self._reaper.wait()

    def worker_pids(self) -> list[int]:
        """List the process ids of the idle workers."""
        return ray.get([actor.pid.remote() for actor in self._idle])

    def _load(self, actor: Any) -> None:
        self._loading[actor] = actor.load.remote(self._spec)
        self._watch.number(actor)

    def _new_actor(self) -> Any:
        """Start another actor, which loads while nobody waits for it."""
        actor = self._actor_type.remote()
        self._load(actor)
        return actor

    def _dead_while_loading(self) -> dict[Any, str]:
        """Wait for the idle actors to load; returns why those died that did."""
        dead = {}
        for actor in self._idle:
            try:
                self._pids[actor] = ray.get(self._loading[actor])
            except RayTaskError as err:
                raise (err.cause if isinstance(err.cause, EvomergeError) else err) from err
            except _DEATHS as err:
                dead[actor] = self._why(err)
        for actor in self._loading.keys() & self._pids.keys():
            self._watch.loaded(actor)
            del self._loading[actor]
        return dead

    def _replace_loading(self, dead: dict[Any, str], reason: str) -> None:
        """Start others for actors that died, and say so once."""
        text = f"{len(dead)} of {self._n_workers} workers died while they loaded, others start: "
        for actor in dead:
            self._watch.replaced(actor, text + reason)
            text, reason = "", ""
            self._idle.remove(actor)
            self._idle.append(self._new_actor())

    def _is_loaded(self, actor: Any) -> bool:
        ready = self._loading.get(actor)
        if ready is None:
            return True
        if not ray.wait([ready], timeout=0)[0]:
            return False
        with suppress(RayTaskError, *_DEATHS):  # which the job on it reports
            self._pids[actor] = ray.get(ready)
            self._watch.loaded(actor)
            del self._loading[actor]
        return actor not in self._loading

    def _start(self, job: Job, *, attempt: int) -> None:
        actor = self._idle.pop()
        run = actor.run.remote(job)
        self._running[run] = (actor, job, attempt)
        self._watch.started(run, actor, job, attempt=attempt)

    def _give_up_overdue(self) -> None:
        """Kill the workers of jobs that take too long; that they died is seen like any death."""
        for run, (actor, _, _) in self._running.items():
            if self._is_loaded(actor):
                self._watch.began(run)
        for run, why in self._watch.overdue():
            if run not in self._overdue and not ray.wait([run], timeout=0)[0]:
                self._overdue[run] = why
                self._kill(self._running[run][0])

    def _kill(self, actor: Any) -> None:
        """Kill a worker, even one that is stopped or hangs in the system, where it is here."""
        ray.kill(actor)
        if self._session is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pids[actor], signal.SIGKILL)

    def _finished(self, run: Any) -> Outcome | None:
        """Take what a worker returns; ``None`` if it died and its job runs again."""
        actor, job, attempt = self._running.pop(run)
        try:
            outcome, said = ray.get(run)
        except _DEATHS as err:
            return self._lost(run, actor, job, attempt, self._overdue.pop(run, None), err)
        except RayTaskError as err:  # a replacement that cannot load its models
            outcome, said = Failed(job, _first_line(err.cause), str(err)), []
        self._watch.warned(actor, job.trial, said)
        self._watch.finished(run, outcome)
        self._overdue.pop(run, None)
        self._n_unloaded = 0
        self._idle.append(actor)
        return outcome

    def _lost(
        self, run: Any, actor: Any, job: Job, attempt: int, overdue: str | None, err: Exception
    ) -> Outcome | None:
        """Replace a worker; its job runs again, or has failed."""
        why = overdue or self._why(err)
        self._require_some_load(actor, why)
        self._watch.replaced(actor, why, run)
        self._idle.append(self._new_actor())
        n_timeouts = self._n_timeouts.get(job.trial, 0) + (overdue is not None)
        self._n_timeouts[job.trial] = n_timeouts
        if n_timeouts == _TIMEOUTS and overdue is not None:
            return Failed(job, f"given up {n_timeouts} times: {why} (execution.trial_timeout)")
        if attempt == _ATTEMPTS:
            return Failed(job, f"its worker died {attempt} times: {why}")
        self._start(job, attempt=attempt + 1)
        return None

    def _require_some_load(self, actor: Any, why: str) -> None:
        """End the run where one worker after another dies before it is ready."""
        self._n_unloaded = 0 if self._is_loaded(actor) else self._n_unloaded + 1
        if self._n_unloaded >= max(_ATTEMPTS, self._n_workers):
            raise StudyError(f"workers die while they load: {why}")

    def _why(self, err: Exception) -> str:
        if isinstance(err, OutOfMemoryError):
            return _first_line(err)
        return death_reason(str(err), None if self._session is None else self._session / "logs")


class _RemoteWorker:
    """Builds its worker in ``load``: an actor whose constructor raises hides the type of the error.

    An actor that stands in for a dead one loads while nobody looks; then its job raises.
    """

    def __init__(self) -> None:
        import evomerge.execution.worker  # noqa: F401  seconds that would pass later

        self._worker: Any = None
        self._error: Exception | None = None

    def load(self, spec: WorkerSpec) -> int:
        """Load models and tasks; returns the process id."""
        from evomerge.execution.worker import Worker

        try:
            self._worker = Worker(spec)
        except Exception as err:
            self._error = err
            raise
        return os.getpid()

    def run(self, job: Job) -> tuple[Outcome, list[str]]:
        """Run a job; returns its outcome, and what was logged as a warning on the way."""
        if self._error is not None:
            raise self._error
        with warnings_collected() as said:
            return self._worker.run(job), said

    def pid(self) -> int:
        return os.getpid()


def _start_ray(address: str, n_workers: int) -> None:
    _silence_ray()
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # silences a warning
    if address == "local":
        os.environ.setdefault(
            "RAY_worker_niceness", "0"
        )  # by Ray's 15 any other process goes first
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


def _session() -> Path:
    """Find the folder of this Ray's logs: one of two parts of Ray used that are not public."""
    return Path(ray._private.worker._global_node.get_session_dir_path())


def _silence_ray() -> None:
    """Let Ray not report every dead worker on stdout whatever its log settings say: we log it.

    The other part of Ray used that is not public.
    """
    ray._private.worker.print_to_stdstream = lambda *_args, **_kwargs: None


def _first_line(err: BaseException) -> str:
    return str(err).splitlines()[0] if str(err) else type(err).__name__
