"""A template that takes too much memory is a fault like any other."""

from __future__ import annotations

import resource

import pytest

from evomerge.errors import EvaluationError
from evomerge.evaluation import Suite
from evomerge.evaluation.bounded import ROOM_BYTES, bounded

from .tiny_tasks import NAMED, metrics_of, write_task

GREEDY = {
    "a constant": "{{ 'x' * 9000000000 }}",
    "by the item": "{{ a * 9000000000 }}",
    "a list": "{{ ([a] * 9000000000) | length }}",
    "a width": "{{ a.center(9000000000) }}",
    "a format": "{{ '%9000000000d' % 1 }}",
    "by doubling": "{% set x = a %}" + "{% set x = x ~ x %}" * 40 + "{{ x }}",
}


@pytest.mark.parametrize("template", GREEDY.values(), ids=GREEDY)
def test_a_template_that_grows_without_end_is_explained(folder, template):
    write_task(folder, "greedy", doc_to_text=template)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    suite = Suite("mine", ("greedy",), include_path=folder, splits=NAMED)
    with pytest.raises(EvaluationError, match=r"the template .* takes more than 256 MiB") as caught:
        metrics_of([suite])
    assert len(str(caught.value).splitlines()) == 1
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (after - before) * 1024 < 3 * ROOM_BYTES


def test_the_limits_of_the_process_are_as_before():
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(EvaluationError, match="it takes more than"):
        bounded(lambda: bytes(2 * ROOM_BYTES), "it")
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert len(bytes(2 * ROOM_BYTES)) == 2 * ROOM_BYTES


def test_a_process_that_has_grown_since_has_its_room_again():
    bounded(lambda: None, "it")
    kept = bytes(2 * ROOM_BYTES)
    assert len(bounded(lambda: bytes(ROOM_BYTES // 4), "it")) < len(kept)
