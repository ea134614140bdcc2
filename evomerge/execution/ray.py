"""Jobs on Ray actors: one worker per GPU, or per core with one thread each."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from evomerge.errors import EvomergeError, StudyError
from evomerge.execution.cluster import live_nodes, require_packages, versions
from evomerge.execution.deaths import death_reason, is_machine_lost, n_at_fault
from evomerge.execution.happenings import Hear, ignore
from evomerge.execution.interrupts import termination_kept
from evomerge.execution.orphans import end_with_driver
from evomerge.execution.patience import Patience
from evomerge.execution.placement import n_slots
from evomerge.execution.protocol import Failed, Job, Outcome, WorkerSpec
from evomerge.execution.remote import RemoteWorker
from evomerge.execution.starting import session_folder, start_ray
from evomerge.execution.watching import Watch

__all__ = ["RayExecutor"]

_log = logging.getLogger(__name__)

_ATTEMPTS = 3  # a job that has killed this many workers is at fault itself
_TIMEOUTS = 2  # a job that has taken too long so often will not come back
_DEATHS = (RayActorError, OutOfMemoryError)  # the latter: killed by Ray to save the machine
_LOOK_S = 1.0  # between looks at how long jobs take, and at which machines a cluster has
_PLACING_S = 60.0  # until a cluster with room has started a worker there
_SOMEWHERE, _GONE = "somewhere", "gone"  # machines by no id of Ray's: one not known, one lost


@dataclass(frozen=True)
class _Loading:
    """An actor that loads: where it is, once it says so, and where those before it have died."""

    actor: Any
    place: Any
    died_on: list[str] = field(default_factory=list)


class RayExecutor:
    """A pool of Ray actors; see ``Executor``.

    The actors start at once, and import what they need while others are at work. One that dies is
    replaced, and its job runs again on whichever is free. On a cluster machines may join and leave.

    Args:
        n_workers: How many actors; ``None``: as many as a cluster has room for at any time. Where
            it has room for fewer, the others start when there is.
        gpus_per_worker: GPUs of each; 0 gives each one core and one thread.
        address: ``local`` starts Ray on this machine; else the address of a running cluster.
        patience: How long jobs may take; absent: twenty times what others took.
        hear: Hears what happens to workers.

    Raises:
        StudyError: The cluster cannot be joined, or has no room for any worker.
    """

    def __init__(
        self,
        n_workers: int | None,
        *,
        gpus_per_worker: float = 0,
        address: str = "local",
        patience: Patience | None = None,
        hear: Hear = ignore,
    ) -> None:
        self._is_cluster, self._n_wanted = address != "local", n_workers
        self._is_empty = False  # a cluster without room for any worker
        self._gpus = gpus_per_worker
        with termination_kept():
            start_ray(address, n_workers)
        self._session = None if self._is_cluster else session_folder()
        self._reaper = None if self._session is None else end_with_driver(str(self._session))
        self._watch = Watch(patience or Patience(), hear)
        self._actor_type: Any = ray.remote(num_cpus=1, num_gpus=gpus_per_worker)(RemoteWorker)
        self._driver = versions() if self._is_cluster else None
        self._spec: Any = None  # what actors load, as an object of Ray: sent once per machine
        self._waiting: deque[Job] = deque()
        self._running: dict[Any, tuple[Any, Job]] = {}
        self._deaths: defaultdict[tuple[int, str], list[str]] = defaultdict(list)  # where, by job
        self._overdue: dict[Any, str] = {}  # runs whose workers were killed, and why
        self._n_timeouts: defaultdict[tuple[int, str], int] = defaultdict(int)  # by job
        self._pids: dict[Any, int] = {}  # of the actors that have loaded
        self._loading: dict[Any, _Loading] = {}
        self._refused: dict[Any, tuple[str, str]] = {}  # cannot load: why, and on which machine
        self._machines: dict[Any, str] = {}  # of the actors that have loaded, by Ray's id
        self._idle: list[Any] = [self._actor_type.remote() for _ in range(self._n_target())]

    def load(self, spec: WorkerSpec) -> None:
        """See ``Executor``."""
        self._spec = ray.put(spec)
        new, self._idle = self._idle, []
        if self._is_cluster:
            with _users_fault():
                self._measure_once(new)
        for actor in new:
            self._load(actor)
        while len(self._idle) < self._n_placeable():
            self._fill()  # machines may have joined
            self._settle_loading(is_start=True)

    @property
    def n_workers(self) -> int:
        """See ``Executor``."""
        return max(1, len(self._idle) + len(self._running))

    def submit(self, job: Job) -> None:
        """See ``Executor``."""
        self._waiting.append(job)
        self._dispatch()

    def next_outcome(self) -> Outcome | None:
        """See ``Executor``."""
        while True:
            self._look_for_machines()
            self._fill()
            self._dispatch()
            self._give_up_overdue()
            pending = [*self._running, *self._loading]
            if not pending:
                time.sleep(_LOOK_S)  # Ray may not know yet which machines are lost
                self._require_hope()
                continue
            finished, _ = ray.wait(pending, num_returns=1, timeout=_LOOK_S)
            if finished and finished[0] in self._running:
                if (outcome := self._finished(finished[0])) is not None:
                    return outcome
            elif finished:
                self._settle_loading()
                if self._idle and not self._waiting:
                    return None

    def close(self) -> None:
        """See ``Executor``."""
        ray.shutdown()
        if self._reaper is not None:
            self._reaper.kill()
            self._reaper.wait()

    def worker_pids(self) -> list[int]:
        """List the process ids of the idle workers."""
        return [pid for pid, _ in ray.get([actor.place.remote() for actor in self._idle])]

    def _n_target(self) -> int:
        """How many actors there should be now."""
        if self._n_wanted is not None:
            return self._n_wanted
        n = n_slots(live_nodes(), self._gpus)
        if n == 0 and self._spec is None:
            needs = f"a core and {self._gpus:g} GPUs" if self._gpus else "a core"
            raise StudyError(
                f"expected a machine of the cluster with {needs} for a worker, got none of "
                f"{len(live_nodes())}; set execution.workers to wait for one to join"
            )
        return n

    def _n_placeable(self) -> int:
        """How many actors there is room for, of those that there should be; at least one."""
        if not self._is_cluster:
            return self._n_target()
        return max(1, min(self._n_target(), n_slots(live_nodes(), self._gpus)))

    def _fill(self) -> None:
        """Replace actors that died, and use machines that joined."""
        there = len(self._idle) + len(self._running) + len(self._loading) + len(self._refused)
        for _ in range(self._n_target() - there):
            self._load(self._actor_type.remote())

    def _look_for_machines(self) -> None:
        """Say so when a cluster has no machine left with room for a worker.

        Who could not load keeps a place that none could use, as long as its machine is there.
        """
        is_empty = self._is_cluster and not n_slots(live_nodes(), self._gpus)
        if is_empty and not self._is_empty:
            _log.warning("no machine of the cluster has room for a worker; waiting for one")
        self._is_empty = is_empty
        there = self._alive() if self._refused else ()
        self._refused = {actor: no for actor, no in self._refused.items() if no[1] in there}

    def _require_hope(self) -> None:
        """End a search whose workers are all such as cannot load."""
        self._look_for_machines()
        if self._refused:
            reasons = {why for why, _ in self._refused.values()}
            raise StudyError(f"no worker is left: {'; '.join(reasons)}")

    def _load(self, actor: Any, died_on: Sequence[str] = ()) -> None:
        place = actor.place.remote()  # known even if it dies while it loads
        loaded = actor.load.remote(self._spec, self._driver)
        self._loading[loaded] = _Loading(actor, place, [*died_on])
        self._watch.number(actor)

    def _dispatch(self) -> None:
        while self._idle and self._waiting:
            actor, job = self._idle.pop(), self._waiting.popleft()
            run = actor.run.remote(job)
            self._running[run] = (actor, job)
            self._watch.started(run, actor, job, attempt=1 + len(self._deaths[_key(job)]))

    def _give_up_overdue(self) -> None:
        """Kill the workers of jobs that take too long; that they died is seen like any death."""
        for run, why in self._watch.overdue():
            if run not in self._overdue and not ray.wait([run], timeout=0)[0]:
                self._overdue[run] = why
                self._kill(self._running[run][0])

    def _kill(self, actor: Any) -> None:
        """Kill a worker, even one that is stopped, hangs in the system, or cannot be reached."""
        ray.kill(actor)
        if self._session is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pids[actor], signal.SIGKILL)

    def _finished(self, run: Any) -> Outcome | None:
        """Take what a worker returns; ``None`` if it died and its job runs again."""
        outcome: Outcome
        actor, job = self._running.pop(run)
        overdue = self._overdue.pop(run, None)
        try:
            outcome, said = ray.get(run)
        except _DEATHS as err:
            return self._lost(run, actor, job, overdue, err)
        except RayTaskError as err:
            outcome, said = Failed(job, _first_line(err.cause), str(err)), []
        self._watch.warned(actor, job.trial, said)
        self._watch.finished(run, outcome)
        self._idle.append(actor)
        return outcome

    def _lost(
        self, run: Any, actor: Any, job: Job, overdue: str | None, err: Exception
    ) -> Failed | None:
        """Let the job of a dead worker run again, unless it has killed too many or hangs.

        Workers that died with their machines do not count. Of one that went without a word it takes
        Ray a while to know; until then it does.
        """
        ray.kill(actor)  # one that cannot be reached any more may be alive
        why = overdue or self._why(err)
        self._watch.replaced(actor, why, run)
        if overdue is not None:
            self._n_timeouts[_key(job)] += 1
            if (n := self._n_timeouts[_key(job)]) >= _TIMEOUTS:
                return Failed(job, f"given up {n} times: {why} (execution.trial_timeout)")
        where = self._deaths[_key(job)]
        where.append(self._machines[actor])
        if n_at_fault(where, self._alive()) >= _ATTEMPTS:
            return Failed(job, f"its worker died {len(where)} times: {why}")
        self._waiting.appendleft(job)
        return None

    def _alive(self) -> list[str]:
        """List the machines where a death counts, by Ray's id."""
        return [_SOMEWHERE, *(node.id for node in live_nodes())]

    def _why(self, err: Exception) -> str:
        if isinstance(err, OutOfMemoryError):
            return _first_line(err)
        return death_reason(str(err), None if self._session is None else self._session / "logs")

    def _settle_loading(self, *, is_start: bool = False) -> None:
        """Wait for the next actor to have loaded; at the start all must."""
        if not self._loading:
            self._look_for_machines()
            time.sleep(_LOOK_S)
            return
        ready, _ = ray.wait(list(self._loading), num_returns=1, timeout=_PLACING_S)
        if not ready:
            why = "the cluster has no free place, or is busy" if self._is_cluster else "busy"
            _log.warning("no worker has loaded for a minute (%s); waiting for one", why)
            return
        loading = self._loading.pop(ready[0])
        try:
            with _users_fault():
                ray.get(ready[0])
                self._pids[loading.actor], self._machines[loading.actor] = ray.get(loading.place)
            self._watch.loaded(loading.actor)
            self._idle.append(loading.actor)
            if not is_start:
                _log.info("%d workers are at work", self.n_workers)
        except _DEATHS as err:
            self._died_loading(loading, err, is_start=is_start)
        except (EvomergeError, RayTaskError) as err:
            if is_start:
                raise
            self._refuse(loading.actor, _first_line(err), _machine(loading.place))

    def _died_loading(self, loading: _Loading, err: Exception, *, is_start: bool) -> None:
        """Let another one load, unless too many died of it; with their machines does not count."""
        require_packages(err)
        ray.kill(loading.actor)  # one that cannot be reached any more may be alive
        why, machine = self._why(err), _GONE
        if not is_machine_lost(str(err)):
            machine = _machine(loading.place)
        died_on = [*loading.died_on, machine]
        if n_at_fault(died_on, self._alive()) < _ATTEMPTS:
            said = f"a worker died while it loaded, another starts: {why}"
            self._watch.replaced(loading.actor, said)
            self._load(self._actor_type.remote(), died_on)
        elif is_start:
            raise StudyError(f"workers die while they load: {why}") from err
        else:
            self._refuse(loading.actor, why, machine)

    def _refuse(self, actor: Any, why: str, machine: str) -> None:
        self._refused[actor] = why, machine
        self._watch.replaced(actor, f"a worker cannot load, and is left out: {why}")

    def _measure_once(self, actors: list[Any]) -> None:
        """Let one actor per cache measure the models; the others find it there when they load."""
        caches = {actor.prepare.remote(self._driver): actor for actor in actors}
        n = min(len(actors), self._n_placeable())
        ready, _ = ray.wait(list(caches), num_returns=n, timeout=_PLACING_S)
        try:
            first = {ray.get(ref): caches[ref] for ref in ready}
            first.pop(None, None)  # caches that are off
            ray.get([actor.measure.remote(self._spec) for actor in first.values()])
        except _DEATHS as err:  # what is not measured now is measured when it is needed
            require_packages(err)


@contextmanager
def _users_fault() -> Iterator[None]:
    """Raise what a user can mend as itself, not as an error of Ray's."""
    try:
        yield
    except RayTaskError as err:
        raise (err.cause if isinstance(err.cause, EvomergeError) else err) from err


def _machine(place: Any) -> str:
    """Tell where an actor is or was, as far as it came to say so."""
    try:
        machine: str = ray.get(place, timeout=0)[1]
    except RayError:
        return _SOMEWHERE
    return machine


def _first_line(err: BaseException) -> str:
    return str(err).splitlines()[0] if str(err) else type(err).__name__


def _key(job: Job) -> tuple[int, str]:
    return job.trial, job.split
