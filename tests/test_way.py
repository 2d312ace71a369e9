"""The way of a call through the package: how many of its files are entered, each bound by what was counted."""

import sys

import numpy as np
import paddle
import pytest
from paddle import nn

import paddle_ftstrat as hub

ROOT = hub.__path__[0]
for _name in hub.__all__:
    getattr(hub, _name)  # importing is no step of the way
SAMPLES = 32


class Pairs(paddle.io.Dataset):
    """Points, and whether the sum of their coordinates is positive."""

    def __init__(self):
        self.x = np.random.RandomState(0).randn(SAMPLES, 4).astype("float32")

    def __getitem__(self, index):
        return self.x[index], np.int64(self.x[index].sum() > 0)

    def __len__(self):
        return SAMPLES


def net():
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))


def entered(call):
    """The package's files of which some function runs in a call."""
    found = set()

    def note(frame, event, argument):
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(ROOT):
            found.add(file[len(ROOT) + 1 :])

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found


def bind(folder):
    """`bind` of ULMFiT."""
    return lambda: hub.ULMFiTStrategy().bind(net(), max_train_steps=40, num_epoch=2, sample_input=paddle.ones([1, 4]))


def fused_step(folder):
    """`run.step()` with the fused update, not the first one."""
    model = net()
    run = hub.ULMFiTStrategy().bind(model, max_train_steps=40, num_epoch=2, fused=True)
    run.begin_epoch()
    for update in range(3):
        model(paddle.ones([2, 4])).mean().backward()
        if update < 2:
            run.step()
    return run.step


def fit_one_cycle(folder):
    """`learner.fit_one_cycle` with an evaluation after each epoch."""
    learner = hub.Learner(net(), Pairs(), Pairs(), batch_size=8, progress=False)
    return lambda: learner.fit_one_cycle(2, 0.1)


def finetune_and_eval(folder):
    """`task.finetune_and_eval()` under ULMFiT."""
    config = hub.RunConfig(
        num_epoch=2, batch_size=8, eval_interval=4, checkpoint_dir=folder, strategy=hub.ULMFiTStrategy()
    )
    data = {"train": Pairs(), "dev": Pairs(), "test": Pairs()}
    return hub.ClassifierTask(net(), data, config, verbose=False).finetune_and_eval


# Today's counts: a call that comes to need more files has lost its way.
@pytest.mark.parametrize(("call", "most"), [(bind, 21), (fused_step, 10), (fit_one_cycle, 36), (finetune_and_eval, 47)])
def test_a_call_runs_through_few_files(call, most, tmp_path):
    way = entered(call(str(tmp_path)))
    assert len(way) <= most, sorted(way)
