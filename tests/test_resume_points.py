"""Stopped at any point and started again, a script comes out equal in every bit.

A covering sample of the points in `stops.py`: each of its pairs of fits, and each kind of point in each epoch of each
fit of a script.
`benchmarks/soak_resume.py --every-point` goes through all of them.
"""

import itertools

import pytest
import stops
from killing import different

KINDS = [*stops.EVENTS, *stops.CALLS]
PLACES = list(itertools.product(KINDS, range(3), range(1, 1 + stops.EPOCHS)))


def is_possible(kind, fit, epoch):
    """A fit begins before its first epoch, and ends in its last."""
    return epoch == {"fit_begin": 0, "fit_end": stops.EPOCHS}.get(kind, epoch)


def check(run, folder, wanted, number):
    """One point of each wanted (kind, fit, epoch), and one event at which the process lives on."""
    expected, points = stops.recorded(run, folder, lambda *at: at in wanted)
    for at in wanted:
        there = [point for point in points if point[:3] == at]
        # The best model is written where an epoch was better.
        assert there or at[0] == "replace" or not is_possible(*at), f"nothing stops at {at}"
        for point in there[number % len(there) :][:1] if there else ():
            assert different(expected, stops.outcome(run, folder, point.files)) == [], at
    event = number * 7 % (36 * max(1 + at[1] for at in wanted))
    assert different(expected, stops.raised(run, folder, event)) == [], f"an exception at event {event}"


@pytest.mark.parametrize("pair", stops.PAIRS, ids="-".join)
def test_a_script_of_fits(pair, tmp_path):
    number = stops.PAIRS.index(pair)
    first, second = pair
    noisy = bool((list(stops.FITS).index(first) + list(stops.FITS).index(second)) % 2)
    run = stops.script([first, second, first], noisy)
    check(run, tmp_path / "f", PLACES[number :: len(stops.PAIRS)], number)


@pytest.mark.parametrize("noisy", [True, False])
def test_a_task(noisy, tmp_path):
    wanted = [(kind, 0, 1 + (KINDS.index(kind) + noisy) % stops.EPOCHS) for kind in KINDS]
    check(stops.task(noisy), tmp_path / "f", wanted, 5 + noisy)
