"""Fleet's sharding stage 1 over gloo against one process: L2SP, decay, norm, learning rates per layer, unfreezing."""

import os
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn
from processes import run_ranks

import paddle_ftstrat as hub
from paddle_ftstrat.integrations.sharding import refuse_splitting

SCRIPT = Path(__file__).parent / "sharded_training.py"


def train(tmp_path, count, name, updates=6, begun=None):
    out = tmp_path / name
    more = () if begun is None else (tmp_path / begun,)
    logs = tmp_path / f"logs_{name}"
    assert run_ranks(count, logs, SCRIPT, out, updates, *more) == [0] * count, (logs / "workerlog.0").read_text()
    return [np.load(f"{out}.{rank}.npy") for rank in range(count)]


CONFIGURABLE = hasattr(paddle.distributed.fleet.DistributedStrategy(), "hybrid_configs")


@pytest.mark.skipif(not CONFIGURABLE, reason="this Paddle cannot read fleet's settings with protobuf 7")
def test_two_processes_are_one_and_a_killed_run_resumes_in_either_number(tmp_path):
    (alone,) = train(tmp_path, 1, "alone")
    first, second = train(tmp_path, 2, "two")
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, alone, atol=1e-6, rtol=0)
    moved = (np.diff(first, axis=0) != 0).any(0)
    early = first[0] != first[1]
    assert moved.all()
    assert early.sum() == 20
    train(tmp_path, 2, "cut", updates=3)
    resumed, _ = train(tmp_path, 2, "again", begun="cut")
    np.testing.assert_array_equal(resumed, first[3:])
    (by_one,) = train(tmp_path, 1, "by one", begun="cut")
    np.testing.assert_allclose(by_one, alone[3:], atol=1e-6, rtol=0)
    train(tmp_path, 1, "cut alone", updates=3)
    by_two, _ = train(tmp_path, 2, "by two", begun="cut alone")
    np.testing.assert_allclose(by_two, alone[3:], atol=1e-6, rtol=0)


@pytest.mark.skipif(not CONFIGURABLE, reason="this Paddle cannot read fleet's settings with protobuf 7")
@pytest.mark.skipif((os.cpu_count() or 1) < 4, reason="gloo gives up connecting where four processes wait for cores")
def test_four_processes_are_one_and_go_on_as_two(tmp_path):
    (alone,) = train(tmp_path, 1, "alone")
    ranks = train(tmp_path, 4, "four")
    for other in ranks[1:]:
        np.testing.assert_array_equal(other, ranks[0])
    np.testing.assert_allclose(ranks[0], alone, atol=1e-6, rtol=0)
    train(tmp_path, 4, "cut", updates=3)
    resumed, _ = train(tmp_path, 2, "as two", begun="cut")
    np.testing.assert_allclose(resumed, alone[3:], atol=1e-6, rtol=0)


def test_errors():
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    run = hub.ULMFiTStrategy(0.1, "sgd").bind(model, num_epoch=3, steps_per_epoch=1)
    other = paddle.optimizer.SGD(parameters=model.parameters())
    with pytest.raises(ValueError, match="wraps another optimizer"):
        run.attach(paddle.distributed.fleet.utils.mix_precision_utils.MixPrecisionOptimizer(other))
    with pytest.raises(ValueError, match="makes an update in order to have a state"):
        run.attach(paddle.distributed.shard_optimizer(run.optimizer))
    with pytest.raises(ValueError, match="every parameter trains"):
        refuse_splitting(run)
    with pytest.raises(ValueError, match=r"0\.weight, 0\.bias, 1\.weight, .* have a regularizer"):
        refuse_splitting(hub.L2SPFinetuneStrategy(0.1).bind(model, pretrained="*"))
