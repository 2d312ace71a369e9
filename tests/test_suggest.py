"""Suggestions of the LR finder: fastai's own numbers, the definitions in plain Python, and errors."""

from functools import partial

import numpy as np
import pytest
from conftest import golden
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_ftstrat.schedules.suggest import minimum, slide, steep, suggest, usable, valley

CASES = golden("fastai.json")["suggestions"]
FUNCTIONS = (valley, slide, minimum, steep)
sweeps = st.lists(st.floats(0.01, 10), min_size=16, max_size=60)
quick = settings(deadline=None, max_examples=60)


def lrs_of(losses):
    return np.logspace(-6, 1, len(losses))


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_fastai(case, function):
    lr, (x, y) = function(case["lrs"], case["losses"], case["num_it"])
    np.testing.assert_allclose([lr, x, y], case[function.__name__], rtol=1e-6, atol=0)
    assert all(type(value) is float for value in (lr, x, y))


@quick
@given(sweeps)
def test_valley_is_the_longest_falling_subsequence(losses):
    best = [1] * len(losses)
    for i in range(len(losses)):
        best[i] = 1 + max((best[j] for j in range(i) if losses[j] > losses[i]), default=0)
    length, end = max(best), best.index(max(best))
    start = end - length if length > 1 else 0
    index = max(start + int((end - start) / 3) + int((end - start) / 6), 0)
    assert valley(lrs_of(losses), losses, 100) == (lrs_of(losses)[index], (lrs_of(losses)[index], losses[index]))


@quick
@given(sweeps, st.sampled_from(FUNCTIONS))
def test_points_lie_on_the_curve(losses, function):
    lr, (x, y) = function(lrs_of(losses), losses, 100)
    assert lrs_of(losses)[0] / 10 <= lr <= lrs_of(losses)[-1]
    assert y == pytest.approx(np.interp(np.log(x), np.log(lrs_of(losses)), losses))


@quick
@given(sweeps)
def test_minimum_and_steep(losses):
    lrs, losses = lrs_of(losses), np.array(losses)
    lr, (at_lowest, lowest) = minimum(lrs, losses, 100)
    assert lowest == losses.min()
    assert lr == at_lowest / 10
    index = int(np.flatnonzero(lrs == steep(lrs, losses, 100)[0])[0])
    slopes = np.diff(losses) / np.diff(np.log(lrs))
    assert slopes[index] == slopes.min()


def test_slide_options():
    case = CASES[0]
    lr, (x, _) = slide(case["lrs"], case["losses"], 100, adjust_value=0.5)
    assert lr == x == pytest.approx(case["slide"][0] / 2)
    everything_is_flat = slide(case["lrs"], case["losses"], 100, thresh=100.0)
    assert everything_is_flat[0] == case["lrs"][-16]
    nothing_is_flat = slide(case["lrs"], case["losses"], 100, thresh=0.0)
    assert nothing_is_flat[0] <= case["slide"][0]


@pytest.mark.parametrize(("thresh", "index"), [(0.0, 0), (0.99, 0), (1.0, 3), (1.99, 3)])
def test_slide_goes_on_while_the_slopes_differ_by_more_than_thresh(thresh, index):
    losses = [0, 1, 4, 9, 16]  # slopes 1, 2, 4, 6, 7
    assert slide(lrs_of(losses), losses, 5, lr_diff=1, thresh=thresh)[0] == lrs_of(losses)[index]


def test_usable_drops_the_beginning_the_end_and_what_follows_a_nan():
    losses = np.ones(100)
    losses[60] = np.nan
    losses[70] = np.inf
    lrs, left = usable(lrs_of(losses), losses, 100)
    np.testing.assert_array_equal(lrs, lrs_of(losses)[10:60])
    assert len(usable(lrs_of(left), left, 100)[0]) == 50 - 10 - 5
    assert len(usable(np.ones(7), np.ones(7), 9)[0]) == 2


def test_suggest_names_and_partials():
    case = CASES[0]
    lrs, losses = np.r_[[1e-9] * 10, case["lrs"], [20] * 5], np.r_[[3] * 10, case["losses"], [9] * 5]

    def half(lrs, losses, num_it):
        assert num_it == 100
        return float(lrs[-1]) / 2, (float(lrs[-1]), float(losses[-1]))

    functions = [
        valley,
        minimum,
        steep,
        half,
        partial(slide),
        partial(slide, lr_diff=10),
        lambda *sweep: valley(*sweep),
    ]
    found, points = suggest(lrs, losses, 100, functions)
    assert found._fields == ("valley", "minimum", "steep", "half", "slide", "slide_2", "custom")
    for name in ("valley", "minimum", "steep", "slide"):
        assert getattr(found, name) == pytest.approx(case[name][0], rel=1e-6)
        assert points[name] == pytest.approx(tuple(case[name][1:]), rel=1e-6)
    assert found.half == case["lrs"][-1] / 2
    assert found.custom == found.valley


BAD = [
    (lambda: valley([1.0], [1.0], 10), ValueError, "valley needs more than 1 points of the LR sweep, got 1"),
    (lambda: slide(np.ones(15), np.ones(15), 15), ValueError, "slide needs more than 15 points .* got 15"),
    (lambda: slide(np.ones(20), np.ones(20), 15, lr_diff=0), ValueError, "slide lr_diff = 0 .* ≥ 1"),
    (lambda: slide(np.ones(20), np.ones(20), 15, adjust_value=0), ValueError, "slide adjust_value = 0 .* > 0"),
    (lambda: minimum([1, 2], [1, 2, 3], 3), ValueError, r"minimum needs one loss per LR.*\(2,\) and \(3,\)"),
    (lambda: steep([0.0, 1.0], [1, 2], 3), ValueError, r"steep got lrs\[0\] = 0: allowed are LRs > 0"),
    (lambda: steep([0.5, 1.0], [1, np.nan], 3), ValueError, "steep got a loss that is not finite at point 1"),
    (lambda: usable([1, 2], [1, 2, 3], 3), ValueError, r"usable needs one loss per LR.*\(2,\) and \(3,\)"),
    (lambda: usable(np.ones(9), np.ones(9), -1), ValueError, "num_it = -1 is outside"),
    (lambda: usable(np.ones(9), np.ones(9), 40), ValueError, "left 0 usable updates"),
    (lambda: usable(np.ones(3), np.ones(3), 6), ValueError, "raise num_it"),
    (lambda: suggest(np.ones(50), np.ones(50), 50, ["valley"]), TypeError, "must be a function .* not 'valley'"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
