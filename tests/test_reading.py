"""What a Dataset raises ends the fit with its own exception; loaders give as many batches as they say."""

import subprocess
import sys
import textwrap
import threading
import traceback

import numpy as np
import pytest
from paddle import nn
from paddle.io import BatchSampler, DataLoader, Dataset

import paddle_ftstrat as hub
from paddle_ftstrat.training.data import read


class Samples(Dataset):
    """40 samples, of which one cannot be read."""

    def __init__(self, broken=None, error=KeyError):
        super().__init__()
        self.broken, self.error = broken, error

    def __len__(self):
        return 40

    def __getitem__(self, index):
        if index == self.broken:
            raise self.error(f"row {index}")
        return np.full(4, index, "float32"), np.int64(index % 2)


class Sampler(BatchSampler):
    """Says one number of batches and gives another, or an error after them."""

    def __init__(self, says, gives, error=None):
        self.says, self.gives, self.error = says, gives, error

    def __len__(self):
        return self.says

    def __iter__(self):
        yield from [[i % 40, (i + 1) % 40] for i in range(self.gives)]
        if self.error is not None:
            raise self.error


def in_time(function):
    """What a function raises; not to come back within a minute is a failure, not a test run without an end."""
    raised = []

    def run():
        try:
            function()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert not thread.is_alive(), "it hangs"
    return raised[0] if raised else None


def learner(train, **options):
    return hub.Learner(nn.Linear(4, 2), train, batch_size=8, progress=False, **options)


def refuse(samples):
    raise OSError("cannot collate")


RUNS = {
    "fit": lambda data: learner(data).fit(2),
    "strategy": lambda data: learner(data).fit(2, strategy=hub.DefaultStrategy()),
    "one_cycle": lambda data: learner(data).fit_one_cycle(1, 1e-3),
    "lr_find": lambda data: learner(data).lr_find(num_it=10),
    "validate": lambda data: learner(Samples(), valid=data).validate(),
    "predict": lambda data: learner(Samples()).predict(data),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("broken", [0, 17, 39])
@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: DataLoader(data, batch_size=8)], ids=["own", "users"])
def test_a_dataset_that_raises_ends_it_with_its_own_exception(run, broken, wrap):
    error = in_time(lambda: run(wrap(Samples(broken))))
    assert isinstance(error, KeyError)
    assert str(error) == f"'row {broken}'"
    last = traceback.extract_tb(error.__traceback__)[-1]
    assert (last.filename, last.name) == (__file__, "__getitem__")


def test_a_task_that_predicts(tmp_path):
    config = hub.RunConfig(batch_size=8, checkpoint_dir=str(tmp_path), strategy=hub.DefaultStrategy())
    task = hub.ClassifierTask(nn.Linear(4, 2), {"train": Samples()}, config, verbose=False)
    assert isinstance(in_time(lambda: task.predict(Samples(20))), KeyError)


@pytest.mark.parametrize(
    ("loader", "kind", "batches"),
    [
        (lambda: DataLoader(Samples(17), batch_size=8), KeyError, 2),
        (lambda: DataLoader(Samples(17), batch_size=8, use_buffer_reader=False), KeyError, 2),
        (lambda: DataLoader(Samples(17), batch_size=None), KeyError, 17),
        (lambda: DataLoader(Samples(17, SystemExit), batch_size=8), SystemExit, 2),
        (lambda: DataLoader(Samples(17, StopIteration), batch_size=8), RuntimeError, 2),
        (lambda: DataLoader(Samples(), batch_size=8, collate_fn=refuse), OSError, 0),
        (lambda: DataLoader(Samples(), batch_sampler=Sampler(9, 3, MemoryError())), MemoryError, 3),
    ],
    ids=["dataset", "unbuffered", "unbatched", "exit", "stop", "collate", "sampler"],
)
def test_whatever_raises_is_heard_after_the_batches_before_it(loader, kind, batches):
    got = []

    def run():
        for batch in read(loader()):
            got.append(batch)

    assert isinstance(in_time(run), kind)
    assert len(got) == batches


def test_batches_are_those_of_the_loader_which_stays_as_it_is():
    loader = DataLoader(Samples(), batch_size=7)
    before = dict(vars(loader))
    for ours, theirs in zip(read(loader), loader):
        for a, b in zip(ours, theirs):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert vars(loader) == before


def test_workers_read_as_ever():
    # In a process of its own: a worker is forked, and after training Paddle's threads hold locks that it waits for.
    script = """
    import numpy as np, paddle
    from paddle_ftstrat.training.data import read

    class Numbers(paddle.io.Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, index):
            return np.float32(index)

    if __name__ == "__main__":
        print(len(list(read(paddle.io.DataLoader(Numbers(), batch_size=7, num_workers=1)))))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == ["6"]


def test_a_fit_after_one_that_failed_goes_on():
    data = Samples(17)
    it = learner(data)
    assert isinstance(in_time(lambda: it.fit(1)), KeyError)
    data.broken = None
    assert len(it.fit(2)) == 2


class TestLengths:
    @pytest.mark.parametrize("accumulate", [1, 3])
    @pytest.mark.parametrize(
        ("says", "gives", "message", "batches"),
        [(4, 2, "length of 4 batches.*gave only 2", 2), (4, 6, "length of 4 batches.*gave more", 4)],
    )
    def test_other_than_promised(self, says, gives, message, batches, accumulate):
        it = learner(DataLoader(Samples(), batch_sampler=Sampler(says, gives)), accumulate=accumulate)
        with pytest.raises(ValueError, match=message):
            it.fit(2)
        whole = -(-batches // accumulate) if gives > says else batches // accumulate
        assert len(it.recorder.losses) == whole
        assert all(param.grad is None for param in it.model.parameters())

    @pytest.mark.parametrize("run", ["fit", "strategy", "one_cycle", "lr_find"])
    def test_none_at_all(self, run):
        with pytest.raises(ValueError, match="gives no batch, although its length is 4"):
            RUNS[run](DataLoader(Samples(), batch_sampler=Sampler(4, 0)))

    def test_none_at_all_where_the_layers_are_known(self):
        it = learner(DataLoader(Samples(), batch_sampler=Sampler(4, 0)), layer_groups=["*"])
        with pytest.raises(ValueError, match="gave only 0"):
            it.fit(1)
        with pytest.raises(ValueError, match="no batch to evaluate"):
            it.validate(it.train)

    def test_a_stop_within_an_update_leaves_no_gradients(self):
        class Stop(hub.Callback):
            def on_batch_end(self, learner):
                raise hub.StopTraining

        it = learner(Samples(), accumulate=2)
        it.fit(1, cbs=Stop())
        assert all(param.grad is None for param in it.model.parameters())
