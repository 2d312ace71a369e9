"""Several processes over gloo against one process; two of the tests start them as users do, which takes long."""

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import run_ranks

from paddle_ftstrat.training.data import EpochSampler
from paddle_ftstrat.training.distributed import Ranks

SCRIPT = Path(__file__).parent / "parallel_training.py"


def launched(tmp_path, processes, name, fails=False, by_paddle=False, **options):
    """Run the training; what each rank saved, or what was printed where it is to fail."""
    logs, arguments = tmp_path / f"logs_{name}", [SCRIPT, tmp_path / name, json.dumps(options)]
    if by_paddle:
        command = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", processes, "--log_dir", logs]
        env = {**os.environ, "PYTHONWARNINGS": "ignore"}
        done = subprocess.run([*map(str, command + arguments)], env=env, capture_output=True, text=True, timeout=180)
        failed, told = [done.returncode != 0], done.stdout + done.stderr
    else:
        failed, told = [status != 0 for status in run_ranks(processes, logs, *arguments)], ""
    told += "".join(path.read_text() for path in sorted(logs.iterdir()))
    assert all(failed) if fails else not any(failed), told
    return told if fails else [dict(np.load(tmp_path / f"{name}.{rank}.npz")) for rank in range(processes)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process with the batch of two."""
    return launched(tmp_path_factory.mktemp("alone"), 1, "alone", batch=8)[0]


def test_two_processes_are_one_with_the_doubled_batch(tmp_path, alone):
    # 25 samples in batches of 2 × 4: of the last one, the second process has none.
    first, second = launched(tmp_path, 2, "two", by_paddle=True, batch=4)
    for key in ("trace", "losses", "results"):
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)
        np.testing.assert_allclose(first[key], alone[key], atol=1e-5, rtol=0, err_msg=key)
    assert len(first["trace"]) == 3 * 4


@pytest.mark.parametrize(("phases", "planned", "stop"), [("LPFT", 3, 0), ("Plateau", 4, 9), ("inside an epoch", 3, 0)])
def test_phases_in_two_processes(tmp_path, phases, planned, stop):
    options = {"phases": phases, "epochs": planned}
    alone = launched(tmp_path, 1, "one", batch=8, **options)[0]
    if stop:
        options["folder"] = str(tmp_path / "ckpt")
        launched(tmp_path, 2, "cut", batch=4, stop=stop, **options)
    first, second = launched(tmp_path, 2, "two", batch=4, **options)
    for key in ("losses", "results"):
        np.testing.assert_array_equal(first[key], second[key], err_msg=key)
        np.testing.assert_allclose(first[key], alone[key], atol=1e-5, rtol=0, err_msg=key)
    np.testing.assert_array_equal(first["trace"], second["trace"])
    np.testing.assert_allclose(first["trace"], alone["trace"][stop:], atol=1e-5, rtol=0)
    # Of the four epochs that are planned with the Plateau, one is left out.
    assert len(first["losses"]) == 3 * 4
    moved = (np.diff(alone["trace"], axis=0) != 0).any(0)
    early = (np.diff(alone["trace"][:4], axis=0) != 0).any(0)
    assert moved.all()
    assert 0 < early.sum() < early.size


def test_two_processes_that_accumulate_are_one_with_the_large_batch(tmp_path, alone):
    first, second = launched(tmp_path, 2, "both", batch=2, accumulate=2)
    np.testing.assert_array_equal(first["trace"], second["trace"])
    np.testing.assert_allclose(first["trace"], alone["trace"], atol=1e-5, rtol=0)


def test_resumed_with_one_and_again_with_two_processes(tmp_path, alone):
    folder = str(tmp_path / "ckpt")
    launched(tmp_path, 2, "a", batch=4, folder=folder, stop=5)
    launched(tmp_path, 1, "b", batch=4, accumulate=2, folder=folder, stop=9)
    first, second = launched(tmp_path, 2, "c", batch=4, folder=folder)
    np.testing.assert_array_equal(first["trace"], second["trace"])
    np.testing.assert_allclose(first["trace"][-1], alone["trace"][-1], atol=1e-5, rtol=0)
    np.testing.assert_allclose(first["losses"], alone["losses"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(first["results"], alone["results"], atol=1e-5, rtol=0)


def test_frozen_rows_and_measured_factors_in_two_processes(tmp_path):
    first, second = launched(tmp_path, 2, "rows", batch=4, rows=True)
    np.testing.assert_array_equal(first["trace"], second["trace"])
    head = first["trace"][:, -51:].reshape(-1, 17, 3)  # weight and bias
    assert (head[1:] != head[:-1]).any((0, 1)).tolist() == [False, True, False]


def test_running_statistics_stay_equal(tmp_path):
    first, second = launched(tmp_path, 2, "norm", batch=4, norm="BatchNorm1D")
    np.testing.assert_array_equal(first["trace"], second["trace"])


def test_a_task_in_two_processes(tmp_path):
    first, second = launched(tmp_path, 2, "task", batch=4, task=str(tmp_path / "two"))
    alone = launched(tmp_path, 1, "task_alone", batch=8, task=str(tmp_path / "one"))[0]
    np.testing.assert_array_equal(first["found"], second["found"])
    np.testing.assert_allclose(first["found"], alone["found"], atol=1e-5, rtol=0)
    told = (tmp_path / "logs_task" / "workerlog.1").read_text()
    assert "[TRAIN]" not in told
    assert "[TRAIN] step 12 / 12" in (tmp_path / "logs_task" / "workerlog.0").read_text()


def test_a_rank_that_dies_ends_the_run(tmp_path):
    told = launched(tmp_path, 2, "dead", fails=True, by_paddle=True, batch=4, die=3)
    assert "update 3 was the last" in told


def test_ranks_that_want_different_things_are_told(tmp_path):
    told = launched(tmp_path, 2, "differ", fails=True, batch=4, differ=True)
    assert "ValueError: the processes differ" in told
    assert "momentum" in told


@pytest.mark.parametrize("what", ["train", "valid"])
def test_loaders_of_different_lengths_are_refused_by_every_rank(tmp_path, what):
    told = launched(tmp_path, 2, "lengths", fails=True, lengths=[3, 5], what=what)
    assert told.count(f"ValueError: {what}: the processes' DataLoaders have [3, 5] batches, by rank") >= 1
    for rank in range(2):
        log = (tmp_path / "logs_lengths" / f"workerlog.{rank}").read_text()
        assert "[3, 5] batches" in log
        assert "Timeout" not in log


@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 5), st.booleans(), st.integers(1, 3))
def test_shares_are_all_samples_once(length, batch, world, shuffle, epoch):
    samplers = [EpochSampler(length, batch, shuffle, 7, Ranks(rank, world)) for rank in range(world)]
    for sampler in samplers:
        sampler.begin(epoch)
    shares = [list(sampler) for sampler in samplers]
    assert len({len(share) for share in shares}) == 1
    counted = [
        share[number][: samplers[rank].count(number)]
        for number in range(len(shares[0]))
        for rank, share in enumerate(shares)
    ]
    assert sorted(index for part in counted for index in part) == list(range(length))
    # Put together, the shares of a batch are the batch that one process would have.
    one = EpochSampler(length, batch * world, shuffle, 7)
    one.begin(epoch)
    together = [[*chain(*counted[i * world : (i + 1) * world])] for i in range(len(shares[0]))]
    assert together == list(one)
    assert [sum(s.count(n) for s in samplers) for n in range(len(one))] == [one.total(n) for n in range(len(one))]


@given(st.integers(2, 60), st.integers(1, 7), st.integers(0, 20))
def test_skipping_is_the_rest_of_the_epoch(length, batch, skip):
    sampler = EpochSampler(length, batch, True, 3)
    sampler.begin(2)
    whole = list(sampler)
    sampler.begin(2, skip)
    assert list(sampler) == whole[skip:]
    sampler.begin(3)
    assert sorted(chain(*sampler)) == list(range(length))
