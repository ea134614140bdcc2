import numpy as np
import pytest

from evomerge.samplers.odds import are_shares, log_odds, steepness

SHARES = np.array([0.0, 0.1, 0.5, 0.99, 1.0])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_log_odds_keep_the_order_of_losses(sign: float) -> None:
    losses = np.sort(sign * SHARES)
    assert are_shares(losses)
    assert (np.diff(log_odds(losses)) > 0).all()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_steepness_is_the_slope_of_log_odds(sign: float) -> None:
    losses, step = sign * np.array([0.1, 0.5, 0.9]), 1e-6
    ahead, behind = log_odds(losses + step), log_odds(losses - step)
    np.testing.assert_allclose(steepness(losses), (ahead - behind) / (2 * step), rtol=1e-6)


def test_one_more_right_answer_from_none_counts_like_a_few_in_the_middle() -> None:
    nothing, half = (float(steepness(np.array([share]))[0]) for share in (0.0, 0.5))
    assert 2 < nothing / half < 10  # plain log odds: without end


def test_what_leaves_a_range_of_shares_is_none() -> None:
    assert not are_shares(np.array([-0.1, 0.2]))
    assert not are_shares(np.array([0.5, 1.2]))
