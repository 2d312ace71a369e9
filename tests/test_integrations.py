"""What users already have: `paddle.Model.fit`, VisualDL. Other hosts are in `hosts/`."""

import importlib.util
import sys
import types
import warnings

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.io import DataLoader, TensorDataset
from paddle.utils import unique_name

import paddle_ftstrat as hub

SAMPLES, BATCH, EPOCHS = 40, 8, 4


def net(seed=3):
    paddle.seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


def pairs():
    rng = np.random.RandomState(0)
    x = rng.randn(SAMPLES, 4).astype("float32")
    return TensorDataset([paddle.to_tensor(x), paddle.to_tensor((x.sum(-1) > 0).astype("int64"))])


STRATEGIES = {
    "ulmfit": lambda: hub.ULMFiTStrategy(0.05),
    "l2sp, decay, clip": lambda: hub.CombinedStrategy(
        "momentum",
        0.1,
        scheduler={"warmup": 0.2, "linear_decay": {"start_point": 0.2}, "gradual_unfreeze": {"blocks": 2}},
        regularization={"weight_decay": 0.1, "L2SP": 0.01},
        clip={"GlobalNorm": 0.5},
    ),
}


def bound(model, strategy, updates):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # `fit` calls `optimizer.minimize`, which has Paddle's own operations: the fused ones round differently.
        return STRATEGIES[strategy]().bind(model, num_epoch=EPOCHS, steps_per_epoch=updates, fused=False)


def raw_loop(model, run, epochs, accumulate=1, first_epoch=None, loader=None):
    """What a user would write by hand; the LR of each update."""
    loader = loader or DataLoader(pairs(), batch_size=BATCH)
    lrs = []
    for epoch in range(epochs):
        run.begin_epoch(None if first_epoch is None else first_epoch + epoch)
        for number, (x, y) in enumerate(loader, 1):
            nn.functional.cross_entropy(model(x), y).backward()
            if number % accumulate == 0 or number == len(loader):
                lrs.append(run.optimizer.get_lr())
                run.step()
    return lrs


class Watch(paddle.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.lrs, self.blocks, self.trainable = [], [], []

    def on_train_batch_end(self, step, logs=None):
        if "lr" in logs:
            self.lrs.append(logs["lr"])
            self.blocks.append([value for name, value in logs.items() if name.startswith("lr/block_")])

    def on_epoch_end(self, epoch, logs=None):
        self.trainable.append(sum(not param.stop_gradient for param in self.model.network.parameters()))


def fit(network, run, epochs=EPOCHS, callback=None, cbs=(), **options):
    model = paddle.Model(network)
    model.prepare(run.optimizer, nn.CrossEntropyLoss(), paddle.metric.Accuracy())
    callbacks = [callback or run.callback(), *cbs]
    model.fit(pairs(), batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks, **options)
    return model


def same(one, other):
    left, right = one.state_dict(), other.state_dict()
    for name, value in left.items():
        np.testing.assert_array_equal(value.numpy(), right[name].numpy(), err_msg=name)


class TestPaddleModel:
    @pytest.mark.parametrize("accumulate", [1, 2, 3])
    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_is_the_raw_loop_bit_for_bit(self, strategy, accumulate):
        updates = -(-(SAMPLES // BATCH) // accumulate)
        by_hand, by_model = net(), net()
        lrs = raw_loop(by_hand, bound(by_hand, strategy, updates), EPOCHS, accumulate)
        run, watch = bound(by_model, strategy, updates), Watch()
        fit(by_model, run, cbs=[watch], accumulate_grad_batches=accumulate, eval_data=pairs())
        same(by_model, by_hand)
        assert run.lr_scheduler.last_epoch == updates * EPOCHS == len(lrs)
        assert watch.trainable == sorted(watch.trainable)
        assert watch.trainable[0] < watch.trainable[-1] == 6
        if accumulate == 1:
            assert watch.lrs == lrs
            assert watch.blocks == [[lr * factor for factor in run.block_factors] for lr in lrs]

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_layers_thaw_by_themselves_without_the_callback(self, strategy):
        by_hand, network = net(), net()
        raw_loop(by_hand, bound(by_hand, strategy, SAMPLES // BATCH), EPOCHS)
        model = paddle.Model(network)
        model.prepare(bound(network, strategy, SAMPLES // BATCH).optimizer, nn.CrossEntropyLoss())
        model.fit(pairs(), batch_size=BATCH, epochs=EPOCHS, shuffle=False, verbose=0)
        same(network, by_hand)

    def test_epochs_of_unknown_length_are_told_of_once(self):
        network = net()
        model = paddle.Model(network)
        strategy = hub.CombinedStrategy("sgd", 0.1, scheduler={"gradual_unfreeze": {"blocks": 2}})
        model.prepare(strategy.bind(network, max_train_steps=20).optimizer, nn.CrossEntropyLoss())
        with pytest.warns(UserWarning, match="bind with steps_per_epoch=") as told:
            model.fit(pairs(), batch_size=BATCH, epochs=EPOCHS, verbose=0)
        assert sum("begin_epoch" in str(warning.message) for warning in told) == 1

    def test_the_callback_is_no_reason_for_a_reminder(self):
        network = net()
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*begin_epoch")
            fit(network, bound(network, "ulmfit", SAMPLES // BATCH))

    def test_a_gradient_that_is_not_finite_is_refused(self):
        network = net()
        run = bound(network, "l2sp, decay, clip", SAMPLES // BATCH)
        network.register_forward_post_hook(lambda layer, x, y: y.register_hook(lambda grad: grad * np.nan) and None)
        before = {name: value.numpy() for name, value in network.state_dict().items()}
        with pytest.raises(FloatingPointError, match="at update 1 "):
            fit(network, run)
        assert all((value.numpy() == before[name]).all() for name, value in network.state_dict().items())

    def test_leaves_nothing_in_the_logs(self):
        # Paddle uses one dict for the logs of all fits of a process.
        class Keep(paddle.callbacks.Callback):
            def on_train_end(self, logs=None):
                self.logs = logs

        network, keep = net(), Keep()
        fit(network, bound(network, "ulmfit", 5), cbs=[keep])
        assert keep.logs
        assert not [name for name in keep.logs if name.startswith("lr")]

    def test_goes_on_from_a_state_as_if_nothing_had_been(self):
        whole, first, second = net(), net(), net(seed=9)
        fit(whole, bound(whole, "ulmfit", 5))
        run = bound(first, "ulmfit", 5)
        fit(first, run, epochs=2)
        second.set_state_dict(first.state_dict())
        resumed = bound(second, "ulmfit", 5)
        resumed.set_state_dict(run.state_dict())
        fit(second, resumed, epochs=EPOCHS - 2)
        same(second, whole)

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_goes_on_from_paddles_own_file_saved_while_layers_were_frozen(self, strategy, tmp_path):
        whole = net()
        fit(whole, bound(whole, strategy, 5))
        # Paddle keys optimizer state by generated names, which are the same ones in a new process.
        with unique_name.guard():
            first = net()
            fit(first, bound(first, strategy, 5), epochs=1).save(str(tmp_path / "model"))
        with unique_name.guard():
            # As in the first process: L2SP pulls towards the weights at binding.
            second = net()
            run = bound(second, strategy, 5)
            model = paddle.Model(second)
            model.prepare(run.optimizer, nn.CrossEntropyLoss(), paddle.metric.Accuracy())
            model.load(str(tmp_path / "model"))
            go_on = [run.callback(initial_epoch=1)]
            model.fit(pairs(), batch_size=BATCH, epochs=3, shuffle=False, verbose=0, callbacks=go_on)
        same(second, whole)

    def test_initial_epoch(self):
        by_hand, by_model = net(), net()
        run = bound(by_hand, "ulmfit", 5)
        run.lr_scheduler.step(10)
        lrs = raw_loop(by_hand, run, 2, first_epoch=3)
        run, watch = bound(by_model, "ulmfit", 5), Watch()
        fit(by_model, run, epochs=2, callback=run.callback(initial_epoch=2), cbs=[watch])
        same(by_model, by_hand)
        assert watch.lrs == lrs
        assert run.epoch == 4

    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_attached_it_needs_no_callback_and_goes_on_from_paddles_own_file(self, strategy, tmp_path):
        whole = net()
        fit(whole, bound(whole, strategy, 5))

        def attached(network):
            run, model = bound(network, strategy, 5), paddle.Model(network)
            model.prepare(run.optimizer, nn.CrossEntropyLoss(), paddle.metric.Accuracy())
            assert run.attach(model) == (run.optimizer, run.lr_scheduler)
            return model

        with unique_name.guard():
            model = attached(net())
            model.fit(pairs(), None, BATCH, 1, shuffle=False, verbose=0)
            model.save(str(tmp_path / "model"))
        with unique_name.guard():
            second = net(seed=9)
            model = attached(second)
            model.load(str(tmp_path / "model"))
            stop = paddle.callbacks.EarlyStopping("acc", save_best_model=False, verbose=0)
            model.fit(pairs(), batch_size=BATCH, epochs=3, shuffle=False, verbose=0, callbacks=stop)
        same(second, whole)

    def test_attach_refuses_other_networks_and_unknown_hosts(self):
        run = bound(net(), "ulmfit", 5)
        with pytest.raises(ValueError, match="another network"):
            run.attach(paddle.Model(net()))
        with pytest.raises(TypeError, match=r"does not know GradScaler; it knows paddle\.Model"):
            run.attach(paddle.amp.GradScaler())

    def test_early_stopping_and_evaluation_leave_the_schedule_alone(self):
        network = net()
        run = bound(network, "ulmfit", 5)
        stop = paddle.callbacks.EarlyStopping("loss", patience=0, baseline=0.0, save_best_model=False, verbose=0)
        fit(network, run, cbs=[stop], eval_data=pairs(), eval_freq=1)
        assert run.lr_scheduler.last_epoch == 5 * run.epoch
        assert run.epoch < EPOCHS

    def test_num_iters_ends_in_the_middle_of_an_accumulation(self):
        network = net()
        run = hub.DefaultFinetuneStrategy(0.1, "sgd").bind(network)
        fit(network, run, num_iters=7, accumulate_grad_batches=3)
        # Batches 3 and 5 (the epoch's last) of the first epoch; the second has only two.
        assert run.lr_scheduler.last_epoch == 2

    def test_progress_bar_shows_the_lr(self, capsys):
        network = net()
        run = hub.DefaultFinetuneStrategy(0.25).bind(network)
        model = paddle.Model(network)
        model.prepare(run.optimizer, nn.CrossEntropyLoss())
        model.fit(pairs(), batch_size=BATCH, epochs=1, verbose=2, callbacks=[run.callback()])
        assert "lr: 0.2500" in capsys.readouterr().out

    def test_another_length_is_said(self):
        network = net()
        with pytest.warns(UserWarning, match=r"bound for 10 updates per epoch, but this epoch had 5"):
            fit(network, bound(network, "ulmfit", 10), epochs=1)

    def test_errors(self):
        network = net()
        run = hub.DefaultFinetuneStrategy(0.1).bind(network)
        with pytest.raises(ValueError, match="initial_epoch needs the number of updates per epoch"):
            run.callback(initial_epoch=1)
        with pytest.raises(ValueError, match="initial_epoch = -1"):
            run.callback(initial_epoch=-1)
        model = paddle.Model(network)
        model.prepare(paddle.optimizer.SGD(0.1, parameters=network.parameters()), nn.CrossEntropyLoss())
        with pytest.raises(ValueError, match="binding's optimizer"):
            model.fit(pairs(), verbose=0, callbacks=[run.callback()])

    def test_thawing_in_several_processes_is_refused(self, monkeypatch):
        monkeypatch.setattr(paddle.distributed, "get_world_size", lambda *args: 2)
        network = net()
        callback = bound(network, "ulmfit", 5).callback()
        callback.set_model(paddle.Model(network))
        callback.model.prepare(callback.run.optimizer, nn.CrossEntropyLoss())
        with pytest.raises(ValueError, match="gradual_unfreeze in several processes"):
            callback.on_train_begin()


class TestTrainerWithoutPaddleNLP:
    @pytest.mark.skipif(importlib.util.find_spec("paddlenlp") is not None, reason="PaddleNLP is installed")
    def test_says_what_is_missing(self):
        run = hub.DefaultFinetuneStrategy(0.1).bind(net())
        with pytest.raises(ImportError, match="needs paddlenlp"):
            run.trainer_callback()


class Written:
    """Stands in for `visualdl.LogWriter`."""

    made = None

    def __init__(self, logdir):
        self.logdir, self.points, self.closed = logdir, [], False
        Written.made = self

    def add_scalar(self, tag, value, step):
        assert type(value) is float
        self.points.append((tag, step, value))

    def close(self):
        self.closed = True

    def of(self, tag):
        return [(step, value) for name, step, value in self.points if name == tag]


class TestVisualDL:
    @pytest.fixture
    def fake(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "visualdl", types.SimpleNamespace(LogWriter=Written))

    def test_writes_what_happened(self, fake, tmp_path):
        norms, shares = [], []

        class Look(hub.Callback):
            def on_before_update(self, learner):
                grads = [param.grad for param in learner.model.parameters() if param.grad is not None]
                norms.append(np.sqrt(sum((grad.numpy().astype("float64") ** 2).sum() for grad in grads)))
                frozen = [param.size for param in learner.model.parameters() if param.stop_gradient]
                shares.append(sum(frozen) / sum(param.size for param in learner.model.parameters()))

        strategy = hub.ULMFiTStrategy(0.05, frz_blocks=3, dis_blocks=3)
        learner = hub.Learner(net(), pairs(), pairs(), metrics="acc", batch_size=BATCH, progress=False)
        cbs = [hub.VisualDLCallback(tmp_path / "log", interval=2), Look()]
        learner.fit(3, strategy=strategy, cbs=cbs)
        writer = Written.made
        assert (writer.logdir, writer.closed) == (str(tmp_path / "log"), True)
        steps = list(range(2, 16, 2))
        assert writer.of("train/loss") == [(step, learner.recorder.losses[step - 1]) for step in steps]
        assert dict(writer.of("train/gradient_norm")) == pytest.approx({s: norms[s - 1] for s in steps}, rel=1e-5)
        assert writer.of("train/frozen") == [(step, shares[step - 1]) for step in steps]
        assert shares[0] > shares[-1] == 0.0
        for block, factor in enumerate(learner.run.block_factors):
            wanted = [(step, learner.recorder.lrs[step - 1] * factor) for step in steps]
            assert writer.of(f"lr/block_{block}") == wanted
        for tag, name in (("valid/loss", "valid_loss"), ("valid/acc", "acc")):
            assert writer.of(tag) == [(5 * row["epoch"], row[name]) for row in learner.recorder.values]

    def test_closes_after_an_error(self, fake, tmp_path):
        class Break(hub.Callback):
            def on_batch_end(self, learner):
                raise RuntimeError("broken")

        learner = hub.Learner(net(), pairs(), progress=False)
        with pytest.raises(RuntimeError, match="broken"):
            learner.fit(1, 0.1, cbs=[hub.VisualDLCallback(tmp_path), Break()])
        assert Written.made.closed

    @pytest.mark.skipif(importlib.util.find_spec("visualdl") is None, reason="visualdl is not installed")
    def test_with_visualdl_itself(self, tmp_path):
        learner = hub.Learner(net(), pairs(), pairs(), batch_size=BATCH, progress=False)
        learner.fit(1, 0.1, cbs=hub.VisualDLCallback(tmp_path, interval=1))
        assert [file.stat().st_size > 0 for file in tmp_path.iterdir()] == [True]

    @pytest.mark.skipif(importlib.util.find_spec("visualdl") is not None, reason="visualdl is installed")
    def test_says_what_is_missing(self, tmp_path):
        with pytest.raises(ImportError, match=r"needs visualdl: pip install 'paddle_ftstrat\[visualdl\]'"):
            hub.VisualDLCallback(tmp_path)

    def test_errors(self, fake, tmp_path):
        with pytest.raises(ValueError, match="interval = 0"):
            hub.VisualDLCallback(tmp_path, interval=0)
