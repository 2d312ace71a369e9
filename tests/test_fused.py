"""The fused update is the update: the same numbers as Paddle's own operations, on whichever path a step goes."""

import dataclasses
import math
import multiprocessing
import os
import subprocess
import sys
import textwrap

import numba
import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat import _paddle
from paddle_ftstrat._paddle import pointers
from paddle_ftstrat.optim import table
from paddle_ftstrat.optim.fused import kernels, members
from paddle_ftstrat.optim.fused import step as fused_step

OPTIMIZERS = {
    "sgd": [{}, {"weight_decay": 0.05}],
    "momentum": [{}, {"use_nesterov": True}, {"weight_decay": 0.05}],
    "adam": [{}, {"weight_decay": 0.05}, {"beta1": 0.5, "epsilon": 1e-3}],
    "adamw": [{}, {"weight_decay": 0.2}],
    "schedule_free_sgd": [{}, {"weight_decay": 0.05}, {"r": 1.0, "weight_lr_power": 1.0}],
    "schedule_free_adamw": [{}, {"weight_decay": 0.2}, {"beta": 0.5, "beta2": 0.9, "epsilon": 1e-3}],
}
REGULARIZATION = [{}, {"L2": 0.1}, {"L2SP": 0.1}, {"L2SP": 0.1, "weight_decay": 0.1}, {"weight_decay": 0.1}]
CLIPS = [{}, {"GlobalNorm": 0.05}, {"GlobalNorm": 1e3}, {"Norm": 0.02}, {"Value": 0.01}]


class Net(nn.Layer):
    """Layers of odd sizes, a shared weight, one that is left out of every second forward, one that never moves."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(7, 13)
        self.norm = nn.LayerNorm(13)
        self.still = nn.Linear(13, 13, weight_attr=paddle.ParamAttr(learning_rate=0.0))
        self.sometimes = nn.Linear(13, 13)
        self.own = nn.Linear(13, 7, weight_attr=paddle.ParamAttr(regularizer=paddle.regularizer.L1Decay(0.01)))
        self.free = nn.Linear(7, 7, weight_attr=paddle.ParamAttr(need_clip=False, learning_rate=2.0))
        self.unused = nn.Linear(3, 3)

    def forward(self, x, detour):
        x = self.still(self.norm(self.first(x)).tanh())
        x = self.sometimes(x) if detour else x
        x = self.free(self.own(x).tanh())
        return x @ self.first.weight


def net():
    paddle.seed(5)
    return Net()


def backward(model, t):
    paddle.seed(100 + t)
    model(paddle.randn([4, 7]), t % 2 == 0).square().mean().backward()


def bound(optimizer, options, regularization, clip, fused):
    model = net()
    strategy = hub.CombinedStrategy(
        optimizer,
        0.01,
        scheduler={"warmup": 0.1, "linear_decay": {"start_point": 0.0}, "discriminative": {"blocks": 3, "factor": 2.0}},
        regularization=regularization,
        clip=clip,
        **options,
    )
    return strategy.bind(model, max_train_steps=250, pretrained="*" if "L2SP" in regularization else None, fused=fused)


def updates(run, first, last):
    for t in range(first, last):
        backward(run.model, t)
        run.step()
    return run


def values(run):
    state = run.state_dict()["optimizer"]
    found = {name: param.numpy() for name, param in run.model.named_parameters()}
    found.update({f"{name}/{kind}": tensor.numpy() for name, kinds in state.items() for kind, tensor in kinds.items()})
    return found


def assert_equal(run, other, tolerance):
    here, there = values(run), values(other)
    assert here.keys() == there.keys()
    for name, value in here.items():
        scale = np.abs(there[name]).max()
        assert np.abs(value - there[name]).max() <= tolerance * scale, name


def distance(run, other):
    """‖here − there‖/‖there‖ over all weights, and over all accumulators of a kind; the largest."""
    here, there, found = values(run), values(other), {}
    for name in here:
        found.setdefault(name.partition("/")[2], []).append(name)
    flat = {
        kind: [np.concatenate([v[n].ravel() for n in names]) for v in (here, there)] for kind, names in found.items()
    }
    return max(np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in flat.values())


def was_fused(run):
    return run.optimizer.step.path().startswith("fused updates")


@st.composite
def asked(draw):
    optimizer = draw(st.sampled_from(sorted(OPTIMIZERS)))
    options = draw(st.sampled_from(OPTIMIZERS[optimizer]))
    regularization = draw(st.sampled_from(REGULARIZATION))
    if "weight_decay" in options and "weight_decay" in regularization:
        options = {}
    return optimizer, options, regularization, draw(st.sampled_from(CLIPS))


class TestTheSameUpdate:
    @settings(max_examples=40)
    @given(asked())
    def test_after_one_step_to_1e_6(self, case):
        run, plain = bound(*case, fused=True), bound(*case, fused=False)
        updates(run, 0, 2), updates(plain, 0, 2)  # the LR of the first update is 0
        assert was_fused(run)
        assert_equal(run, plain, 1e-6)

    @settings(max_examples=8)
    @given(asked())
    def test_after_200_steps_to_1e_4(self, case):
        run, plain = bound(*case, fused=True), bound(*case, fused=False)
        updates(run, 0, 200), updates(plain, 0, 200)
        assert was_fused(run)
        assert distance(run, plain) <= 1e-4

    @settings(max_examples=15)
    @given(asked(), st.lists(st.booleans(), min_size=8, max_size=8))
    def test_whichever_path_each_step_takes(self, case, paths):
        run, plain = bound(*case, fused=None), bound(*case, fused=False)
        fused = run.optimizer.step
        for t, take in enumerate(paths):
            run.optimizer.step = fused if take else plain.optimizer.step.__func__.__get__(run.optimizer)
            updates(run, t, t + 1), updates(plain, t, t + 1)
        assert_equal(run, plain, 1e-5)

    @settings(max_examples=10)
    @given(asked(), st.booleans())
    def test_a_run_resumes_on_the_other_path(self, case, fused_first):
        run = updates(bound(*case, fused=fused_first), 0, 4)
        resumed = bound(*case, fused=not fused_first)
        resumed.model.set_state_dict(run.model.state_dict())
        resumed.set_state_dict(run.state_dict())
        updates(run, 4, 7), updates(resumed, 4, 7)
        assert_equal(resumed, run, 1e-5)

    def test_adam_and_momentum_to_the_bit(self):
        for optimizer, options in (("adam", {}), ("adamw", {}), ("momentum", {"use_nesterov": True})):
            run, plain = (bound(optimizer, options, {"L2SP": 0.1}, {"Value": 0.01}, fused=way) for way in (True, False))
            assert_equal(updates(run, 0, 20), updates(plain, 0, 20), 0.0)

    def test_numbers_that_change_between_steps(self):
        runs = [bound("adam", {}, {"weight_decay": 0.1}, {"GlobalNorm": 0.05}, fused=way) for way in (True, False)]
        for run in runs:
            updates(run, 0, 3)
            blocks = len(run.blocks)
            run.follow(dataclasses.replace(run.plan, depth=dataclasses.replace(run.plan.depth, factor=3.0)))
            run.set_hyper("mom", [0.5 + 0.1 * i for i in range(blocks)])
            run.set_hyper("wd", [0.1 * i for i in range(blocks)])
            updates(run, 3, 6)
            frozen = {"norm.weight", "norm.bias"}
            rest = [name for block in run.blocks for name in block if name not in frozen]
            run.follow(dataclasses.replace(run.plan, phases=(hub.Phase(rest),)))
            run.set_hyper("sqr_mom", 0.9)
            run.set_hyper("eps", 1e-4)
            updates(run, 6, 9)
            run.follow(dataclasses.replace(run.plan, phases=(hub.Phase(),)))
            run.model.own.weight.optimize_attr["learning_rate"] = 3.0
            run.model.own.weight.regularizer._coeff = 0.2
            run.model.free.weight.need_clip = True
            updates(run, 9, 12)
        assert was_fused(runs[0])
        assert_equal(*runs, 1e-5)

    def test_adamw_with_a_decay_of_its_own_per_block(self):
        runs = [bound("adamw", {}, {}, {}, fused=way) for way in (True, False)]
        for run in runs:
            run.set_hyper("wd", [0.3 * i for i in range(len(run.blocks))])
            updates(run, 0, 5)
        assert_equal(*runs, 1e-6)

    @pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
    def test_the_tables_are_made_anew_only_for_what_is_new(self, optimizer, monkeypatch):
        made = []
        take = members.FusedParams._take_settings
        monkeypatch.setattr(members.FusedParams, "_take_settings", lambda *given: (made.append(1), take(*given)))
        run = bound(optimizer, OPTIMIZERS[optimizer][-1], {"L2SP": 0.1} if optimizer == "sgd" else {}, {}, fused=True)
        for _ in range(5):
            backward(run.model, 0)
            run.step()
        assert len(made) == 1
        run.model.own.weight.regularizer._coeff = 0.2
        run.model.free.weight.need_clip = True
        backward(run.model, 0)
        run.step()
        assert len(made) == 2

    def test_layers_thaw(self):
        strategy = hub.ULMFiTStrategy(0.01, optimizer_name="momentum")
        runs = [strategy.bind(net(), num_epoch=3, steps_per_epoch=4, fused=way) for way in (True, False)]
        for run in runs:
            for epoch in range(3):
                run.begin_epoch()
                updates(run, 4 * epoch, 4 * epoch + 4)
        assert was_fused(runs[0])
        assert_equal(*runs, 1e-5)

    def test_large_parameters_in_every_number_of_threads(self, monkeypatch):
        monkeypatch.setattr(kernels, "GRAIN", 1000)
        found = {}
        for threads in (1, 2, 3, 7):
            monkeypatch.setattr(fused_step.threads, "for_updates", lambda threads=threads: threads)
            paddle.seed(0)
            model = nn.Sequential(nn.Linear(300, 700), nn.Linear(700, 3))
            run = hub.L2SPFinetuneStrategy(0.01).bind(model, pretrained="*")
            for _ in range(3):
                paddle.seed(1)
                model(paddle.randn([2, 300])).sum().backward()
                run.step()
            found[threads] = values(run)
        for threads in (2, 3, 7):
            assert all((found[threads][name] == value).all() for name, value in found[1].items())


class TestMemory:
    """What could make an address wrong."""

    def pair(self, change):
        runs = [bound("adam", {}, {"L2SP": 0.1}, {"GlobalNorm": 0.05}, fused=way) for way in (True, False)]
        for run in runs:
            updates(run, 0, 3)
            change(run)
            updates(run, 3, 6)
        return runs

    def test_values_that_are_set(self):
        def change(run):
            run.model.first.weight.set_value(np.full([7, 13], 0.1, np.float32))
            run.model.set_state_dict({name: value * 0.9 for name, value in run.model.state_dict().items()})

        runs = self.pair(change)
        assert was_fused(runs[0])
        assert_equal(*runs, 1e-5)

    def test_state_that_is_set(self):
        def change(run):
            run.set_state_dict({**run.state_dict(), "epoch": 0})
            kept = run.optimizer.state_dict()
            run.optimizer.set_state_dict({name: v * 0.5 if "moment" in name else v for name, v in kept.items()})

        assert_equal(*self.pair(change), 1e-5)

    def test_another_dtype_and_back(self):
        runs = self.pair(lambda run: run.model.to(dtype="float64").to(dtype="float32"))
        assert_equal(*runs, 1e-5)

    def test_half_precision_takes_the_other_path(self):
        model = nn.Linear(3, 3)
        run = hub.DefaultStrategy(0.1).bind(model)
        model.to(dtype="bfloat16")
        for param in model.parameters():
            param.grad = paddle.ones(param.shape, "bfloat16")
        run.step()
        assert "bfloat16" in str(run.describe())

    @pytest.mark.parametrize(
        ("gradient", "reason"),
        [
            (lambda p: paddle.randn([3, 5]).t(), "not contiguous"),
            (lambda p: p.detach(), "shares memory"),
            (lambda p: paddle.zeros([5, 3], "float64"), "float64"),
        ],
    )
    def test_gradients_that_do_not_fit_are_seen(self, gradient, reason):
        layer = nn.Linear(5, 3)
        run = hub.DefaultStrategy(0.1).bind(layer)
        prepare = fused_step.FusedStep._prepare
        layer(paddle.ones([1, 5])).sum().backward()
        grad = gradient(layer.weight)

        def glance(params, note):
            return pointers.Seen([layer.weight], [grad], [layer.weight.data_ptr()], [1.0], [True], [None], [None])

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pointers, "glance", glance)
            with pytest.raises(members.NotFusable, match=reason):
                prepare(run.optimizer.step)

    def test_a_gradient_through_a_transposed_weight(self):
        runs = []
        for way in (True, False):
            paddle.seed(0)
            weight = nn.Linear(5, 3)
            run = hub.DefaultStrategy(0.1, "sgd").bind(weight, fused=way)
            for _ in range(3):
                (paddle.arange(6, dtype="float32").reshape([2, 3]) @ weight.weight.t()).square().mean().backward()
                run.step()
            runs.append(run)
        assert_equal(*runs, 1e-6)

    def test_a_sparse_gradient(self):
        runs = []
        for way in (None, False):
            paddle.seed(0)
            table = nn.Embedding(9, 4, sparse=True)
            run = hub.DefaultStrategy(0.1, "sgd").bind(table, fused=way)
            for _ in range(3):
                table(paddle.to_tensor([1, 2])).square().mean().backward()
                run.step()
            runs.append(run)
        assert "sparse" in str(runs[0].describe())
        assert_equal(*runs, 0.0)

    def test_weights_that_share_memory_without_being_one(self):
        first, second = nn.Linear(3, 3, bias_attr=False), nn.Linear(3, 3, bias_attr=False)
        second.weight.get_tensor()._share_data_with(first.weight.get_tensor())
        model = nn.Sequential(first, second)
        run = hub.DefaultStrategy(0.1, "sgd").bind(model)
        model(paddle.ones([1, 3])).sum().backward()
        run.step()
        assert "share memory" in str(run.describe())

    def test_a_graph_from_before_the_step_is_an_error(self):
        layer = nn.Linear(3, 3)
        run = hub.DefaultStrategy(0.1, "sgd").bind(layer)
        loss = layer(layer(paddle.ones([1, 3]))).sum()
        layer(paddle.ones([1, 3])).sum().backward()
        run.optimizer.step()
        with pytest.raises(RuntimeError, match="version"):
            loss.backward()

    def test_no_gradient_at_all_changes_nothing(self):
        run = bound("adam", {}, {}, {"GlobalNorm": 1.0}, fused=True)
        before = values(run)
        run.step()
        assert all((before[name] == value).all() for name, value in values(run).items())


class TestNorms:
    def run(self, clip, gradient):
        layer = nn.Linear(2, 2)
        run = hub.CombinedStrategy("sgd", 1.0, clip=clip).bind(layer)
        before = layer.weight.numpy()
        layer.weight.grad = paddle.to_tensor(gradient, dtype="float32")
        return layer, run, before

    @pytest.mark.parametrize("size", [1e-30, 1.0, 1e30, 3e38])
    @pytest.mark.parametrize("kind", ["GlobalNorm", "Norm"])
    def test_no_overflow(self, kind, size):
        layer, run, before = self.run({kind: 0.5}, np.full([2, 2], size))
        run.step()
        expected = before - min(1.0, 0.5 / (2 * size)) * size
        np.testing.assert_allclose(layer.weight.numpy(), expected, rtol=1e-6, atol=1e-7)

    @pytest.mark.parametrize("bad", [math.nan, math.inf])
    @pytest.mark.parametrize("kind", ["GlobalNorm", "Norm"])
    def test_a_norm_that_is_not_finite_is_an_error(self, kind, bad):
        layer, run, before = self.run({kind: 0.5}, [[1.0, bad], [0.0, 0.0]])
        with pytest.raises(FloatingPointError, match="gradient of .weight. is not finite at update 1 "):
            run.step()
        assert (layer.weight.numpy() == before).all()

    def test_a_norm_of_zero(self):
        layer, run, before = self.run({"GlobalNorm": 0.5}, np.zeros([2, 2]))
        run.step()
        assert (layer.weight.numpy() == before).all()

    def test_a_scaler_skips(self):
        layer = nn.Linear(2, 2)
        run = hub.CombinedStrategy("adam", 1.0, clip={"GlobalNorm": 1.0}).bind(layer)
        before = layer.weight.numpy()
        scaler = paddle.amp.GradScaler(init_loss_scaling=4.0)
        for bad, moves in ((math.inf, False), (1.0, True)):
            scaler.scale(layer(paddle.full([1, 2], bad)).sum()).backward()
            run.optimizer._set_auxiliary_var("found_inf", paddle.to_tensor([not moves]))
            run.optimizer.step()
            assert run.optimizer._get_auxiliary_var("found_inf") is (not moves)
            run.optimizer.clear_grad(set_to_zero=False)
            assert (layer.weight.numpy() != before).any() == moves


class TestWhichPath:
    def text(self, optimizer="adam", change=None, **bind):
        run = hub.DefaultStrategy(0.1, optimizer).bind(nn.Linear(2, 2), **bind)
        if change is not None:
            change(run.optimizer)
            run.model(paddle.ones([1, 2])).sum().backward()
            run.step()
        return str(run.describe())

    def test_describe_tells(self):
        assert "fused updates (numba" in self.text()
        assert "Paddle's own operations: fused=False" in self.text(fused=False)
        assert "the optimizer is RMSProp" in self.text("rmsprop")

    def test_subclasses_may_have_another_rule(self):
        class Mine(paddle.optimizer.Adam):
            pass

        assert "the optimizer is Mine" in self.text(Mine)

    def test_a_replaced_stage_is_respected(self):
        calls = []

        def change(optimizer):
            update = optimizer._append_optimize_op
            optimizer._append_optimize_op = lambda *given: (calls.append(1), update(*given))

        assert "a stage of the optimizer was replaced" in self.text(change=change)
        assert len(calls) == 2

    def test_a_tensor_as_hyper_parameter(self):
        assert "is a tensor" in self.text(change=lambda o: setattr(o, "_beta1", paddle.to_tensor([0.9])))

    def test_clips_of_ones_own(self):
        class Own(nn.ClipGradByValue):
            pass

        model = nn.Linear(2, 2)
        run = hub.DefaultStrategy(0.1, "adam", grad_clip=Own(1.0)).bind(model)
        assert "the gradient clip is Own" in str(run.describe())

    def test_regularizers_of_ones_own(self):
        class Own(paddle.regularizer.L2Decay):
            pass

        model = nn.Linear(2, 2, weight_attr=paddle.ParamAttr(regularizer=Own(0.1)))
        run = hub.DefaultStrategy(0.1, "adam").bind(model)
        model(paddle.ones([1, 2])).sum().backward()
        run.step()
        assert "the regularizer of 'weight' is Own" in str(run.describe())

    def test_asking_for_what_cannot_be(self):
        with pytest.raises(ValueError, match="fused=True, but there is no fused update: the optimizer is RMSProp"):
            self.text("rmsprop", fused=True)
        with pytest.raises(TypeError, match="fused must be None, True or False, not 'yes'"):
            self.text(fused="yes")

    def test_it_is_still_paddles_optimizer(self):
        run = bound("adam", {}, {}, {}, fused=True)
        plain = paddle.optimizer.Adam(parameters=net().parameters())
        assert type(run.optimizer) is type(plain)
        updates(run, 0, 1)
        assert {name.rpartition("_moment")[2] for name in run.optimizer.state_dict() if "moment" in name} == {
            "1_0",
            "2_0",
        }

    def test_listeners_hear_of_the_update(self):
        run = bound("adam", {}, {"weight_decay": 0.1}, {}, fused=True)
        heard = []
        _paddle.after_update(run.optimizer, lambda pairs: heard.append(len(pairs)))
        updates(run, 0, 1)
        assert was_fused(run)
        assert heard == [len(run.model.parameters()) - 2]


class TestANewOptimizer:
    """What CONTRIBUTING tells: a rule in the optimizer's row, and its body in the kernels."""

    def test_rows_and_bodies_belong_together(self):
        named = {row.fused.name for row in table.ROWS.values() if row.fused}
        assert named == set(kernels.UPDATES)
        assert {row.cls for row in table.ROWS.values() if row.fused} == set(fused_step.RULES)

    def test_nothing_else_is_needed(self, monkeypatch):
        def adagrad(p, x, m, v, c):
            m += x * x
            return p - c.lr * x / (math.sqrt(m) + c.eps), m, v

        monkeypatch.setattr(kernels, "_pass", lambda: numba.njit(nogil=True, error_model="numpy"))  # not on disk
        monkeypatch.setattr(kernels, "UPDATES", dict(kernels.UPDATES))
        kernels.fused_rule(adagrad)
        monkeypatch.setitem(fused_step.RULES, paddle.optimizer.Adagrad, table.FusedRule("adagrad", ("moment",)))
        runs = [bound("adagrad", {}, {"L2SP": 0.1}, {"GlobalNorm": 0.05}, fused=way) for way in (True, False)]
        for run in runs:
            updates(run, 0, 5)
        assert was_fused(runs[0])
        assert_equal(*runs, 1e-5)


def _child(queue):
    run = updates(bound("adam", {}, {}, {"GlobalNorm": 0.05}, fused=True), 0, 3)
    queue.put(values(run)["first.weight"])


class Ones(paddle.io.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return np.ones(7, np.float32)


class TestProcesses:
    def test_a_forked_child_updates_too(self, monkeypatch):
        monkeypatch.setattr(kernels, "GRAIN", 1)
        monkeypatch.setattr(fused_step.threads, "for_updates", lambda: 2)
        run = updates(bound("adam", {}, {}, {"GlobalNorm": 0.05}, fused=True), 0, 3)
        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        child = context.Process(target=_child, args=(queue,))
        child.start()
        found = queue.get(timeout=60)
        child.join(timeout=60)
        assert child.exitcode == 0
        assert (found == values(run)["first.weight"]).all()

    def test_workers_of_a_data_loader(self, monkeypatch):
        monkeypatch.setattr(kernels, "GRAIN", 1)
        monkeypatch.setattr(fused_step.threads, "for_updates", lambda: 2)
        run = updates(bound("adam", {}, {}, {"GlobalNorm": 0.05}, fused=True), 0, 2)
        seen = 0
        for x in paddle.io.DataLoader(Ones(), batch_size=2, num_workers=1):
            run.model(x, True).sum().backward()
            run.step()
            seen += len(x)
        assert seen == 6

    def run_script(self, script, **environment):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def test_importing_and_binding_leave_numba_alone_and_a_missing_numba_is_no_error(self):
        out = self.run_script(
            """
            import sys
            import paddle_ftstrat as hub, paddle
            layer = paddle.nn.Linear(80, 80)
            run = hub.DefaultStrategy(0.1).bind(layer, fused=True)
            assert "numba" not in sys.modules
            sys.modules["numba"] = None
            layer(paddle.ones([1, 80])).sum().backward()
            run.step()
            print(run.optimizer.step.path())
            """
        )
        assert "last update by Paddle's own operations: numba is not installed" in out

    def test_a_numba_that_fails_is_told_of(self):
        out = self.run_script(
            """
            import importlib.machinery, types, sys, warnings
            import paddle_ftstrat as hub, paddle
            broken = types.ModuleType("numba")
            broken.__spec__ = importlib.machinery.ModuleSpec("numba", None)
            broken.__getattr__ = lambda name: (_ for _ in ()).throw(SystemError("initialization failed"))
            sys.modules["numba"] = broken
            layer = paddle.nn.Linear(80, 200, bias_attr=False)
            run = hub.DefaultStrategy(0.1).bind(layer)
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                for _ in range(2):
                    layer(paddle.ones([1, 80])).sum().backward()
                    run.step()
            print(len([w for w in told if "numba fails" in str(w.message)]), run.optimizer.step.path())
            """
        )
        assert out.startswith("1 last update by Paddle's own operations: numba fails")
        assert "initialization failed" in out

    def test_without_numba_paddle_updates_and_says_so(self):
        out = self.run_script(
            """
            import sys
            sys.modules["numba"] = None
            import paddle_ftstrat as hub, paddle
            from paddle_ftstrat.optim import fused
            layer = paddle.nn.Linear(8, 8)
            run = hub.DefaultStrategy(0.1).bind(layer)
            layer(paddle.ones([1, 8])).sum().backward()
            print(run.step(), fused.describe(run.optimizer), "by", fused.maker(run.optimizer))
            try:
                hub.DefaultStrategy(0.1).bind(layer, fused=True)
            except ValueError as error:
                print(error)
            """
        )
        assert "True updates by Paddle's own operations: numba is not installed by Paddle" in out
        assert "fused=True, but there is no fused update: numba is not installed" in out

    def test_where_no_cache_can_be_written(self, tmp_path):
        out = self.run_script(
            """
            import numba
            from numba.core import caching
            getattr(caching, "CacheImpl", getattr(caching, "_CacheImpl", None))._locator_classes = []
            import paddle_ftstrat as hub, paddle
            layer = paddle.nn.Linear(8, 8)
            run = hub.DefaultStrategy(0.1, "sgd").bind(layer)
            layer(paddle.ones([1, 8])).sum().backward()
            run.step()
            print(run.optimizer.step.path())
            """
        )
        assert "fused updates (numba" in out


@given(st.lists(st.integers(1, 3 * members.CHUNK), min_size=1, max_size=20), st.integers(1, 9))
def test_shares_cover_every_value_once(sizes, count):
    chunks = members.chunks_of(np.array(sizes, np.int64))
    index, _, length = chunks.table
    covered = np.zeros(len(sizes), np.int64)
    np.add.at(covered, index, length)
    assert covered.tolist() == sizes
    ranges = chunks.shares(count)
    assert len(ranges) <= count
    assert [a for a, _ in ranges] == [0, *(b for _, b in ranges[:-1])]
    assert ranges[-1][1] == len(chunks.ends)


@given(
    st.lists(st.tuples(st.integers(0, 200), st.integers(1, 30)), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 200), st.integers(1, 30)), min_size=1, max_size=8),
)
def test_memory_that_is_shared_is_found(written, read):
    def bytes_of(ranges):
        return [set(range(start, start + length)) for start, length in ranges]

    starts, lengths = (np.array(column, np.int64) for column in zip(*written))
    ends = starts + lengths
    apart = sum(map(len, bytes_of(written))) == len(set.union(*bytes_of(written)))
    assert members.overlap(starts, ends) == (not apart)
    if apart:
        order = np.argsort(starts)
        begin, size = (np.array(column, np.int64) for column in zip(*read))
        meets = bool(set.union(*bytes_of(written)) & set.union(*bytes_of(read)))
        assert members.touches(begin, begin + size, starts[order], ends[order]) == meets


KINDS = ["plain", "frozen", "without gradient"]
GRADIENTS = {
    "plain": lambda: paddle.ones([3, 2]),
    "transposed": lambda: paddle.ones([2, 3]).t(),
    "of another shape": lambda: paddle.ones([3, 1]),
    "double": lambda: paddle.ones([3, 2], "float64"),
}


@given(st.lists(st.sampled_from(KINDS), max_size=12), st.integers(1, 5))
def test_blocks_of_parameters_are_seen_as_one_by_one(kinds, block):
    params = []
    for kind in kinds:
        param = nn.Linear(3, 2, bias_attr=False).weight
        param.optimize_attr = {"learning_rate": len(params) + 0.5}
        if kind != "without gradient":
            param.grad = paddle.ones([3, 2])
        param.stop_gradient = kind == "frozen"
        params.append(param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pointers, "BLOCK", block)
        seen = pointers.glance(params, "note")
    training = [i for i, kind in enumerate(kinds) if kind == "plain"]
    assert pointers.same(seen.params, [params[i] for i in training])
    assert seen.rates == [i + 0.5 for i in training]
    assert seen.places == [params[i].data_ptr() for i in training]
    assert [grad.data_ptr() for grad in seen.grads] == [params[i].grad.data_ptr() for i in training]


@given(st.lists(st.sampled_from(sorted(GRADIENTS)), max_size=12), st.integers(1, 5))
def test_blocks_of_gradients_are_checked_as_one_by_one(kinds, block):
    grads = [GRADIENTS[kind]() for kind in kinds]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pointers, "BLOCK", block)
        starts = pointers.gradient_addresses(grads, [[3, 2]] * len(grads))
    assert starts == [grad.data_ptr() if kind == "plain" else 0 for kind, grad in zip(kinds, grads)]


def test_paddle_imported_first_takes_no_process_down():
    """On 2.6 that may break the process's zlib, which numba unpacks with."""
    script = """
import paddle
import paddle_ftstrat as hub
model = paddle.nn.Linear(300, 300)
run = hub.DefaultStrategy(0.1, "adam").bind(model)
model(paddle.ones([2, 300])).sum().backward()
print("updated:", run.step())
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=120)
    assert "updated: True" in done.stdout, done.stderr
