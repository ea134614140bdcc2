from __future__ import annotations

import pytest

from evomerge.statistics.name import StatisticName


@pytest.mark.parametrize(
    ("name", "written"),
    [
        (StatisticName("moments"), "moments"),
        (StatisticName("activity", (1e-05,)), "activity 1e-05"),
        (StatisticName("scores_within", (0.1, 0.9)), "scores_within 0.1 0.9"),
    ],
)
def test_a_name_is_read_as_it_was_written(name: StatisticName, written: str) -> None:
    assert str(name) == written
    assert StatisticName.parse(written) == name
