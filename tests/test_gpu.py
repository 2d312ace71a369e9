"""What a GPU does otherwise than a CPU: `pytest -m gpu` where there is one; on a CPU the same bodies hold there.

Parity with the CPU, updates of many tensors at once, mixed precision with real scaling, memory of frozen layers, two
GPUs.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn

import paddle_ftstrat as hub

COUNT = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
needs_gpu = (pytest.mark.gpu, pytest.mark.skipif(COUNT < 1, reason="there is no GPU"))
STRATEGIES = {
    "discriminative": {"scheduler": {"discriminative": {"blocks": 3, "factor": 4.0}}},
    "unfreezing": {"scheduler": {"gradual_unfreeze": {"blocks": 3}, "warmup": 0.5}},
    "L2SP": {"regularization": {"L2SP": 0.1}},
    "L2": {"regularization": {"L2": 0.1}},
    "decoupled decay": {"regularization": {"weight_decay": 0.1}},
    "clip": {"clip": {"GlobalNorm": 0.1}},
}
EPOCHS, UPDATES = 3, 2


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=needs_gpu)])
def device(request):
    before = paddle.device.get_device()
    paddle.device.set_device(request.param)
    yield request.param
    paddle.device.set_device(before)


def net(width=4, layers=3):
    paddle.seed(1)
    model = nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))
    for number, param in enumerate(model.parameters()):
        # Of numpy: the two devices draw other numbers.
        param.set_value(np.random.RandomState(number).randn(*param.shape).astype("float32") / width**0.5)
    return model


def steps(model, run, after=None):
    """Train; `after(run)` once per update."""
    x = np.random.RandomState(9).randn(EPOCHS * UPDATES, 8, model[0].weight.shape[0]).astype("float32")
    for epoch in range(EPOCHS):
        run.begin_epoch()
        for update in range(UPDATES):
            model(paddle.to_tensor(x[epoch * UPDATES + update])).square().mean().backward()
            if after is not None:
                after(run)
            run.step()


def trained(strategy, optimizer="momentum", layers=3, after=None, **options):
    model = net(layers=layers)
    plan = hub.CombinedStrategy(optimizer, 0.1, **strategy, **options)
    run = plan.bind(model, num_epoch=EPOCHS, steps_per_epoch=UPDATES, pretrained="*", fused=False)
    steps(model, run, after)
    return [param.numpy() for param in model.parameters()]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("optimizer", ["momentum", "adam", "adamw", "sgd"])
def test_the_weights_are_those_of_the_cpu(device, optimizer, strategy):
    found = trained(STRATEGIES[strategy], optimizer)
    paddle.device.set_device("cpu")
    for one, other in zip(found, trained(STRATEGIES[strategy], optimizer)):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_an_update_of_many_tensors_is_that_of_each(device, optimizer, strategy):
    single = trained(STRATEGIES[strategy], optimizer)
    many = trained(STRATEGIES[strategy], optimizer, use_multi_tensor=True)
    for one, other in zip(many, single):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_an_update_of_many_tensors_follows_a_state_that_is_loaded(device, optimizer):
    def reload(run):
        state = run.state_dict()
        run.set_state_dict(state)

    options = {"strategy": STRATEGIES["unfreezing"], "optimizer": optimizer}
    for one, other in zip(trained(**options, use_multi_tensor=True, after=reload), trained(**options)):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("strategy", ["discriminative", "L2", "unfreezing"])
def test_an_update_of_many_tensors_is_one_call_however_many_there_are(device, strategy, monkeypatch):
    calls = []
    kernel = paddle._C_ops.merged_momentum_
    monkeypatch.setattr(paddle._C_ops, "merged_momentum_", lambda *given: calls.append(len(given[0])) or kernel(*given))
    monkeypatch.setattr(paddle._C_ops, "momentum_", lambda *given: pytest.fail("a call for one tensor"))
    for layers in (3, 12):
        calls.clear()
        trained(STRATEGIES[strategy], layers=layers, use_multi_tensor=True)
        assert len(calls) == EPOCHS * UPDATES
        assert calls[-1] == 2 * layers


# float16 is a GPU's; bfloat16 needs no scaling, but goes through it.
HALF = {"cpu": "bfloat16", "gpu": "float16"}


@pytest.mark.parametrize("level", ["O1", "O2"])
def test_mixed_precision_trains_and_skips_what_overflows(device, level):
    model = net(width=16)
    plan = hub.CombinedStrategy("adam", 0.01, **STRATEGIES["L2SP"])
    if level == "O2":
        model = paddle.amp.decorate(model, level="O2", dtype=HALF[device])
    run = plan.bind(model, num_epoch=1, steps_per_epoch=20, pretrained="*")
    # Far beyond what float16 holds: the first updates are skipped until the scale has come down.
    scaler = paddle.amp.GradScaler(init_loss_scaling=2.0**24, decr_every_n_nan_or_inf=1)
    x, done, losses = paddle.to_tensor(np.random.RandomState(3).randn(32, 16).astype("float32")), [], []
    for _ in range(20):
        with paddle.amp.auto_cast(level=level, dtype=HALF[device]):
            loss = model(x).astype("float32").square().mean()
        scaler.scale(loss).backward()
        done.append(run.step(scaler))
        losses.append(float(loss))
    assert losses[-1] < losses[0]
    assert run.lr_scheduler.last_epoch == sum(done)
    assert all(done) == (device == "cpu")
    assert done[-1]


def test_frozen_layers_hold_no_gradients_and_no_state(device):
    model = net(width=256, layers=6)
    run = hub.ULMFiTStrategy(0.01, "adam", frz_blocks=3, dis_blocks=0).bind(model, num_epoch=3, steps_per_epoch=2)
    held = []

    def measure(run):
        if device == "gpu":
            held.append(paddle.device.cuda.memory_allocated())
            return
        grads = sum(param.grad.size for param in model.parameters() if param.grad is not None)
        state = sum(value.size for value in run.optimizer.state_dict().values() if hasattr(value, "size"))
        held.append(4 * (grads + state))

    steps(model, run, measure)
    # The second update of each epoch has the state of its layers: gradient and two moments for each weight that trains.
    third = 2 * (256 * 256 + 256) * 4 * 3
    for before, after in ((held[1], held[3]), (held[3], held[5])):
        assert third * 0.9 < after - before < third * 1.5


@pytest.mark.gpu
@pytest.mark.skipif(COUNT < 2, reason="there are not two GPUs")
def test_two_gpus_are_one_with_the_doubled_batch(tmp_path):
    script = Path(__file__).parent / "parallel_training.py"
    launch = [sys.executable, "-m", "paddle.distributed.launch", "--log_dir", str(tmp_path / "logs")]
    traces = []
    for name, gpus, batch in (("one", "0", 8), ("two", "0,1", 4)):
        command = [*launch, "--gpus", gpus, str(script), str(tmp_path / name), f'{{"batch": {batch}}}']
        subprocess.run(command, check=True, timeout=600, env={**os.environ, "PYTHONWARNINGS": "ignore"})
        traces.append([np.load(tmp_path / f"{name}.{rank}.npz")["trace"] for rank in range(len(gpus.split(",")))])
    (alone,), (first, second) = traces
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, alone, rtol=1e-4, atol=1e-5)
