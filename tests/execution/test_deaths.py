"""Workers that die with their machines: on a stand-in for Ray, whose machines come and go."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayTaskError

from evomerge.errors import StudyError
from evomerge.evaluation.scores import Scores
from evomerge.execution import ray as executor_module
from evomerge.execution.deaths import death_reason, n_at_fault
from evomerge.execution.placement import Node
from evomerge.execution.protocol import Job, Scored
from evomerge.execution.ray import RayExecutor
from tests.execution.test_ray import job

BROKEN = RayTaskError("load", "OSError: broken pipe", OSError("broken pipe"))
UNREACHED = ActorUnavailableError("rpc error", None)
DIED = ActorDiedError()

CUT = """The actor died unexpectedly before finishing this task.
\tclass_name: RemoteWorker
\tpid: 93
\tip: 10.0.0.3
The actor died because its node has died. Node Id: 0123
\tthe actor's node was terminated unexpectedly: health check failed due to \
missing too many heartbeats
"""
KILLED = """The actor died unexpectedly before finishing this task.
\tpid: 93
\tip: 10.0.0.3
The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR
"""


def test_of_a_worker_whose_machine_is_lost_that_is_said() -> None:
    assert death_reason(CUT, None) == (
        "its machine, 10.0.0.3, is gone or cannot be reached any more: health check failed due to "
        "missing too many heartbeats"
    )


def test_of_a_worker_that_left_no_trace_it_is_said_where_it_was() -> None:
    assert death_reason(KILLED, None).startswith("process 93 on 10.0.0.3 ended without a word")


def test_deaths_on_machines_that_are_lost_do_not_count() -> None:
    assert n_at_fault(["a", "b", "a", "gone"], ["b", "c"]) == 1


@dataclass(eq=False)
class Answer:
    """What an actor will say, or raise."""

    said: Any = None
    is_there: bool = False


@dataclass(eq=False)
class Actor:
    """A worker on one of the machines, once there is room."""

    machine: str | None = None
    answers: dict[str, Answer] = field(default_factory=dict)

    def __getattr__(self, method: str) -> Any:
        def remote(*args: object) -> Answer:
            if method == "run":
                return self.answers.setdefault("run", Answer(scored(args[0]), is_there=True))
            return self.answers.setdefault(method, Answer())

        return SimpleNamespace(remote=remote)


def scored(job: object) -> tuple[Scored, list[str]]:
    assert isinstance(job, Job)
    return Scored(job, Scores({}, (), 0.0), {}), []


class StandIn:
    """A Ray whose machines have room for one worker each; what happens next is a script."""

    def __init__(self) -> None:
        self.machines: list[str] = []
        self.actors: list[Actor] = []
        self.script: deque[Callable[[], None]] = deque()

    def remote(self, **_: object) -> Any:
        return lambda _type: SimpleNamespace(remote=self.new)

    def new(self) -> Actor:
        self.actors.append(Actor())
        return self.actors[-1]

    def put(self, spec: object) -> object:
        return spec

    def kill(self, actor: Actor) -> None:
        if actor in self.actors:
            self.actors.remove(actor)

    def shutdown(self) -> None:
        pass

    def get(self, wanted: Any, timeout: float | None = None) -> Any:
        if isinstance(wanted, list):
            return [self.get(one) for one in wanted]
        assert wanted.is_there
        if isinstance(wanted.said, Exception):
            raise wanted.said
        return wanted.said

    def wait(self, wanted: list[Answer], **_: object) -> tuple[list[Answer], list[Answer]]:
        if not any(one.is_there for one in wanted):
            self.go_on()
        ready = [one for one in wanted if one.is_there][:1]
        return ready, [one for one in wanted if one not in ready]

    def go_on(self, _seconds: float = 0.0) -> None:
        self.script.popleft()()

    def nodes(self) -> Sequence[Node]:
        return [Node(name, name, 1, 0) for name in self.machines]

    def joins(self, machine: str) -> None:
        """A machine joins, and a worker begins there."""
        self.machines.append(machine)

    def begins(self) -> None:
        """The worker that waits for room gets it."""
        actor, machine = self.actors[-1], self.machines[-1]
        actor.machine = machine
        for method, said in (("place", (1, machine)), ("prepare", None)):
            answer = actor.answers.setdefault(method, Answer())
            answer.said, answer.is_there = said, True

    def loads(self, said: object = None) -> None:
        """It has loaded, or died of that."""
        if self.actors[-1].machine is None:
            self.begins()
        answer = self.actors[-1].answers["load"]
        answer.said, answer.is_there = said, True

    def is_lost(self, said: Exception) -> None:
        """The last machine is turned off while its worker loads."""
        self.begins()
        self.machines.pop()
        self.loads(said)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn()
    monkeypatch.setattr(executor_module, "ray", made)
    monkeypatch.setattr(executor_module, "start_ray", lambda *_: None)
    monkeypatch.setattr(executor_module, "live_nodes", made.nodes)
    monkeypatch.setattr(executor_module, "versions", dict)
    monkeypatch.setattr(time, "sleep", made.go_on)
    return made


@pytest.fixture
def executor(stand_in: StandIn) -> Iterator[RayExecutor]:
    """An executor whose one worker dies with its machine at its first job, and leaves none."""
    stand_in.joins("first")
    made = RayExecutor(None, address="somewhere:1")
    stand_in.script.extend([stand_in.begins, stand_in.loads])
    spec: Any = "what to load"
    made.load(spec)
    stand_in.actors[0].answers["run"] = Answer(ActorDiedError(), is_there=True)
    stand_in.machines.clear()
    made.submit(job(7))
    return made


@pytest.mark.parametrize("death", [BROKEN, UNREACHED])
def test_a_worker_that_died_with_its_machine_is_not_one_that_cannot_load(
    executor: RayExecutor, stand_in: StandIn, death: Exception
) -> None:
    for machine in ("second", "third", "fourth"):
        stand_in.script.append(partial(stand_in.joins, machine))
        stand_in.script.append(partial(stand_in.is_lost, death))
    stand_in.script.extend([partial(stand_in.joins, "fifth"), stand_in.loads])
    while (outcome := executor.next_outcome()) is None:
        pass
    assert isinstance(outcome, Scored)
    assert outcome.job.trial == 7
    assert stand_in.actors[-1].machine == "fifth"


def test_a_worker_that_dies_on_a_machine_that_stays_cannot_load(
    executor: RayExecutor, stand_in: StandIn
) -> None:
    stand_in.script.append(partial(stand_in.joins, "second"))
    stand_in.script.extend([partial(stand_in.loads, DIED)] * 3)
    stand_in.script.append(lambda: None)
    with pytest.raises(StudyError, match="no worker is left: The actor died unexpectedly"):
        executor.next_outcome()
