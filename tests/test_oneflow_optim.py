"""OneFlow's optimizers: its own numbers, its document's examples, torch's way with groups, and what is refused."""

import numpy as np
import paddle
import processes
import pytest
from conftest import golden
from paddle import nn
from paddle.regularizer import L2Decay

from paddle_ftstrat import optim

DATA = golden("oneflow_optim.json")
CASES = DATA["cases"]


def parameter(value, dtype="float32"):
    return paddle.create_parameter(np.shape(value), dtype, default_initializer=nn.initializer.Assign(np.array(value)))


def set_grad(param, value):
    """Give a parameter exactly this gradient, or none."""
    param.clear_gradient(False)
    if value is not None:
        (param * paddle.to_tensor(value, param.dtype)).sum().backward()


def build(case, dtype):
    constructor = {
        key: tuple(value) if isinstance(value, list) else value for key, value in case["constructor"].items()
    }
    params = [[parameter(value, dtype) for value in group] for group in case["init"]]
    groups = [{"params": members, **options} for members, options in zip(params, case["groups"])]
    return getattr(optim, case["optimizer"])(groups, **constructor), params


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['optimizer']}-{c['name']}")
def test_golden(case, dtype):
    optimizer, params = build(case, dtype)
    bound = DATA["tolerance"]["float32" if dtype == "float32" else "paddle_float64_kernels"]
    expected = case.get("after_docera", case["after"])
    for step, grads in enumerate(case["grads"]):
        for members, values in zip(params, grads):
            for param, value in zip(members, values):
                set_grad(param, value)
        if case["lr_set_before_step"] is not None:
            for group, lr in zip(optimizer.param_groups, case["lr_set_before_step"][step]):
                group["lr"] = lr
        if case["clip_grad_each_step"]:
            optimizer.clip_grad()
        optimizer.step()
        for members, values in zip(params, expected[step]):
            for param, value in zip(members, values):
                np.testing.assert_allclose(param.numpy(), value, rtol=bound["rtol"], atol=bound["atol"])
    assert optimizer.state_dict()["state"]["step"] == case["final_step"]


def layer_of(rows=3, columns=2, **fields):
    paddle.seed(3)
    return nn.Linear(rows, columns, weight_attr=paddle.ParamAttr(**fields))


def grads_of(count, shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [[rng.normal(size=shape) for shape in shapes] for _ in range(count)]


def train(optimizer, params, grads):
    for values in grads:
        for param, value in zip(params, values):
            set_grad(param, value)
        optimizer.step()
    return [param.numpy() for param in params]


ALL = {
    "SGD": lambda p: optim.SGD(p, lr=0.1),
    "SGD momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "SGD nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "Adagrad": lambda p: optim.Adagrad(p, lr=0.1, lr_decay=0.1, initial_accumulator_value=0.1),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.1, momentum=0.5, centered=True),
    "Adam": lambda p: optim.Adam(p, lr=0.1, weight_decay=0.01),
    "Adam amsgrad": lambda p: optim.Adam(p, lr=0.1, amsgrad=True),
    "AdamW": lambda p: optim.AdamW(p, lr=0.1, weight_decay=0.1),
    "AdamW amsgrad": lambda p: optim.AdamW(p, lr=0.1, weight_decay=0.1, amsgrad=True),
    "LAMB": lambda p: optim.LAMB(p, lr=0.1),
    "LAMB decay": lambda p: optim.LAMB(p, lr=0.1, weight_decay=0.1),
    "LAMB L2": lambda p: optim.LAMB(p, lr=0.1, weight_decay=0.1, adam_w_mode=False),
}
every = pytest.mark.parametrize("make", ALL.values(), ids=ALL)


class TestDocument:
    """The two examples of each optimizer's page, with `flow.optim` changed to `optim` and Paddle layers."""

    NAMES = ("SGD", "Adagrad", "RMSprop", "Adam", "AdamW", "LAMB")

    @pytest.mark.parametrize("name", NAMES)
    def test_example_1(self, name):
        net = layer_of()
        before = net.weight.numpy()
        optimizer = getattr(optim, name)(net.parameters(), lr=1e-3)
        for _ in range(2):
            loss = net(paddle.ones([4, 3])).sum()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert not np.allclose(net.weight.numpy(), before)
        np.testing.assert_array_equal(net.weight.grad.numpy(), np.zeros((3, 2)))

    @pytest.mark.parametrize("name", NAMES)
    def test_example_2(self, name):
        net, learning_rate = layer_of(), 1e-3
        optimizer = getattr(optim, name)(
            [
                {
                    "params": net.parameters(),
                    "lr": learning_rate,
                    "clip_grad_max_norm": 0.5,
                    "clip_grad_norm_type": 2.0,
                }
            ],
        )
        for _ in range(2):
            loss = net(paddle.ones([4, 3])).sum()
            loss.backward()
            optimizer.clip_grad()
            norm = np.sqrt(sum((param.grad.numpy() ** 2).sum() for param in net.parameters()))
            assert norm == pytest.approx(0.5, rel=1e-5)
            optimizer.step()
            optimizer.zero_grad()

    @pytest.mark.parametrize("name", NAMES)
    def test_defaults(self, name):
        documented = {
            "SGD": {"momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False, "maximize": False},
            "Adagrad": {"lr_decay": 0.0, "weight_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 1e-10},
            "RMSprop": {"alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.0, "centered": False},
            "LAMB": {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "adam_w_mode": True},
        }
        adams = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False, "do_bias_correction": True}
        group = getattr(optim, name)(layer_of().parameters()).param_groups[0]
        assert group["lr"] == 0.001
        for key, value in documented.get(name, adams).items():
            assert group[key] == value, key


class TestGroups:
    def test_two_groups_under_step_lr_fall_together(self):
        net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
        groups = [{"params": net[0].parameters(), "lr": 0.1}, {"params": net[2].parameters()}]
        optimizer = optim.SGD(groups, lr=0.01, momentum=0.9)
        scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
        seen = []
        for _ in range(6):
            seen.append([group["lr"] for group in optimizer.param_groups])
            net(paddle.randn([8, 4])).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
        fall = np.array([1, 1, 0.5, 0.5, 0.25, 0.25])
        np.testing.assert_allclose(seen, np.outer(fall, [0.1, 0.01]), rtol=1e-12)

    def test_param_attr_multiplies_the_groups_lr_and_its_regularizer_beats_the_groups_decay(self):
        own = layer_of(learning_rate=0.5, regularizer=L2Decay(0.3))
        plain = layer_of(regularizer=L2Decay(0.3))
        grads = grads_of(3, [(3, 2)])
        a = train(optim.SGD([{"params": [own.weight], "lr": 0.2, "weight_decay": 0.9}]), [own.weight], grads)
        b = train(optim.SGD([plain.weight], lr=0.1), [plain.weight], grads)
        np.testing.assert_allclose(a[0], b[0], rtol=1e-6)

    def test_an_l2_of_a_groups_weight_decay_is_paddles(self):
        ours, theirs = layer_of(), layer_of()
        grads = grads_of(3, [(3, 2), (2,)])
        a = train(optim.SGD(ours.parameters(), lr=0.1, weight_decay=0.3), ours.parameters(), grads)
        reference = paddle.optimizer.SGD(0.1, theirs.parameters(), weight_decay=0.3)
        for left, right in zip(a, train(reference, theirs.parameters(), grads)):
            np.testing.assert_allclose(left, right, rtol=1e-6)

    def test_frozen_parameters_rest(self):
        net = layer_of()
        optimizer = optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.1)
        net.weight.stop_gradient = True
        before = net.weight.numpy()
        net(paddle.ones([2, 3])).sum().backward()
        optimizer.step()
        np.testing.assert_array_equal(net.weight.numpy(), before)
        net.weight.stop_gradient = False
        net(paddle.ones([2, 3])).sum().backward()
        optimizer.step()
        assert not np.allclose(net.weight.numpy(), before)

    def test_add_param_group(self):
        net = layer_of()
        optimizer = optim.SGD([net.weight], lr=0.1)
        optimizer.add_param_group({"params": net.bias, "lr": 0.5})
        assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.5]
        set_grad(net.weight, np.ones((3, 2)))
        set_grad(net.bias, np.ones(2))
        before = net.bias.numpy()
        optimizer.step()
        np.testing.assert_allclose(net.bias.numpy(), before - 0.5)

    def test_options_may_change_between_updates(self):
        left, right = layer_of(), layer_of()
        grads = grads_of(4, [(3, 2), (2,)])
        a = optim.Adam(left.parameters(), lr=0.1)
        train(a, left.parameters(), grads[:2])
        a.param_groups[0]["amsgrad"] = True
        a.param_groups[0]["betas"] = (0.5, 0.9)
        after = train(a, left.parameters(), grads[2:])
        b = optim.Adam(right.parameters(), lr=0.1, amsgrad=True)
        train(b, right.parameters(), grads[:2])
        b.param_groups[0].update(betas=(0.5, 0.9))
        train(b, right.parameters(), grads[2:])
        assert set(a.state_dict()["state"][0]) == {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"}
        np.testing.assert_allclose(
            a.state_dict()["state"][0]["exp_avg"].numpy(), b.state_dict()["state"][0]["exp_avg"].numpy(), rtol=1e-6
        )
        assert all(np.isfinite(value).all() for value in after)

    def test_momentum_at_an_lr_of_zero_goes_on_as_the_formula_says(self):
        param = parameter(np.zeros(2))
        optimizer = optim.SGD([param], lr=0.1, momentum=0.5)
        velocity, value = 0.0, 0.0
        for lr, grad in ((0.0, 1.0), (0.1, 1.0), (0.0, 5.0), (0.2, 1.0)):
            optimizer.param_groups[0]["lr"] = lr
            set_grad(param, np.full(2, grad))
            optimizer.step()
            velocity = 0.5 * velocity + lr * grad
            value -= velocity
            np.testing.assert_allclose(param.numpy(), value, rtol=1e-6, atol=1e-9)

    @pytest.mark.parametrize("nesterov", [False, True])
    @pytest.mark.parametrize("maximize", [False, True])
    def test_nesterov_and_maximize_are_torchs(self, nesterov, maximize):
        param = parameter(np.ones(3), "float64")
        optimizer = optim.SGD([param], 0.1, 0.9, weight_decay=0.1, nesterov=nesterov, maximize=maximize)
        value, velocity = np.ones(3), np.zeros(3)
        for (grad,) in grads_of(4, [(3,)]):
            g = (-grad if maximize else grad) + 0.1 * value
            velocity = 0.9 * velocity + 0.1 * g
            value = value - (0.1 * g + 0.9 * velocity if nesterov else velocity)
            set_grad(param, grad)
            optimizer.step()
            np.testing.assert_allclose(param.numpy(), value, rtol=1e-6)

    def test_dampening_counts_from_the_first_update(self):
        param = parameter(np.zeros(2))
        optimizer = optim.SGD([param], 0.1, momentum=0.5, dampening=0.25)
        velocity, value = 0.0, 0.0
        for _ in range(3):
            set_grad(param, np.ones(2))
            optimizer.step()
            velocity = 0.5 * velocity + 0.75 * 0.1
            value -= velocity
        np.testing.assert_allclose(param.numpy(), value, rtol=1e-6)


class TestClip:
    @pytest.mark.parametrize("norm_type", [0, 1, 2, 3.5, "inf", float("inf"), -np.inf])
    def test_norm_types(self, norm_type):
        net = layer_of()
        grads = grads_of(1, [(3, 2), (2,)])[0]
        for param, value in zip(net.parameters(), grads):
            set_grad(param, value)
        group = {"params": net.parameters(), "clip_grad_max_norm": 0.01, "clip_grad_norm_type": norm_type}
        optim.SGD([group]).clip_grad()
        whole = np.concatenate([value.ravel() for value in grads])
        # A norm of order 0 counts the tensors that are not zero.
        norm = 2.0 if norm_type == 0 else np.linalg.norm(whole, float(norm_type))
        for param, value in zip(net.parameters(), grads):
            np.testing.assert_allclose(param.grad.numpy(), value * min(1.0, 0.01 / (norm + 1e-6)), rtol=1e-5)

    def test_small_gradients_and_need_clip_false_are_left_alone(self):
        net = layer_of(need_clip=False)
        set_grad(net.weight, np.full((3, 2), 100.0))
        set_grad(net.bias, np.full(2, 0.1))
        optimizer = optim.SGD([{"params": net.parameters(), "clip_grad_max_norm": 1.0}])
        optimizer.clip_grad()
        np.testing.assert_array_equal(net.weight.grad.numpy(), np.full((3, 2), 100.0, "float32"))
        np.testing.assert_array_equal(net.bias.grad.numpy(), np.full(2, 0.1, "float32"))

    def test_a_norm_that_is_not_finite_is_an_error(self):
        net = layer_of()
        set_grad(net.weight, np.full((3, 2), np.nan))
        with pytest.raises(RuntimeError, match="norm in ParamGroup.*is nan"):
            optim.SGD([{"params": net.parameters(), "clip_grad_max_norm": 1.0}]).clip_grad()

    def test_without_a_bound_it_warns(self):
        with pytest.warns(UserWarning, match="no parameter group has clip_grad_max_norm"):
            optim.SGD(layer_of().parameters()).clip_grad()


class TestStepAndGradients:
    def test_a_closure_may_run_backward(self):
        net = layer_of()
        optimizer = optim.SGD(net.parameters(), lr=0.1)

        def closure():
            optimizer.zero_grad()
            loss = net(paddle.ones([1, 3])).sum()
            loss.backward()
            return loss

        losses = [float(optimizer.step(closure)) for _ in range(3)]
        assert losses == sorted(losses, reverse=True)
        with paddle.no_grad():
            assert float(optimizer.step(closure)) < losses[-1]

    def test_zero_grad_keeps_or_drops(self):
        net = layer_of()
        optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        set_grad(net.weight, np.ones((3, 2)))
        optimizer.step()
        moved = net.weight.numpy()
        optimizer.zero_grad()
        optimizer.step()
        assert not np.allclose(net.weight.numpy(), moved)
        moved = net.weight.numpy()
        optimizer.zero_grad(set_to_none=True)
        assert net.weight.grad is None
        optimizer.step()
        np.testing.assert_array_equal(net.weight.numpy(), moved)

    def test_an_update_that_overflowed_counts_for_nothing(self):
        net = layer_of()
        optimizer = optim.Adam(net.parameters(), lr=0.1)
        before = net.weight.numpy()
        set_grad(net.weight, np.full((3, 2), np.inf))
        # What GradScaler does, which itself works on GPUs only.
        optimizer._set_auxiliary_var("found_inf", paddle.to_tensor(True))
        optimizer.step()
        np.testing.assert_array_equal(net.weight.numpy(), before)
        assert optimizer.state_dict()["state"]["step"] == 0

    @every
    def test_sparse_gradients_are_updated_as_dense_ones(self, make):
        values = []
        for sparse in (False, True):
            layer = nn.Embedding(5, 2, sparse=sparse)
            layer.weight.set_value(np.linspace(-1, 1, 10, dtype="float32").reshape(5, 2))
            optimizer = make(layer.parameters())
            assert optimizer.support_sparse
            for rows in ([1, 3, 1], [0, 3], [4]):
                (layer(paddle.to_tensor(rows)) * 0.5).sum().backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            values.append(layer.weight.numpy())
        np.testing.assert_allclose(values[1], values[0], rtol=2e-5, atol=2e-6)

    @every
    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision_parameters_follow_a_float32_copy(self, make, dtype):
        full = parameter(np.ones((3, 2)))
        half = paddle.create_parameter([3, 2], dtype, default_initializer=nn.initializer.Constant(1.0))
        rounded = [
            [paddle.to_tensor(grad, "float32").astype(dtype).astype("float32").numpy()]
            for (grad,) in grads_of(4, [(3, 2)])
        ]
        optimizer, reference = make([half]), make([full])
        # What paddle.amp.decorate does, which itself works on GPUs only.
        optimizer._multi_precision = True
        for (grad,) in rounded:
            half.clear_gradient(False)
            (half.astype("float32") * paddle.to_tensor(grad)).sum().backward()
            optimizer.step()
        train(reference, [full], rounded)
        master = optimizer.state_dict()["state"][0]["master_weight"]
        np.testing.assert_allclose(master.numpy(), full.numpy(), rtol=2e-5, atol=2e-6)
        np.testing.assert_array_equal(half.astype("float32").numpy(), master.astype(dtype).astype("float32").numpy())


class TestState:
    @every
    def test_it_goes_on_bit_equal_in_another_instance_after_a_trip_to_disk(self, make, tmp_path):
        grads = grads_of(6, [(3, 2), (2,)])
        first, second = layer_of(), layer_of()
        optimizer = make(first.parameters())
        train(optimizer, first.parameters(), grads[:3])
        optimizer.param_groups[0]["lr"] = 0.03
        paddle.save(optimizer.state_dict(), str(tmp_path / "state.pdopt"))
        second.set_state_dict({name: value.numpy() for name, value in first.state_dict().items()})
        other = make(second.parameters())
        other.load_state_dict(paddle.load(str(tmp_path / "state.pdopt")))
        assert other.param_groups[0]["lr"] == 0.03
        after = train(other, second.parameters(), grads[3:])
        for left, right in zip(after, train(optimizer, first.parameters(), grads[3:])):
            np.testing.assert_array_equal(left, right)

    def test_it_loads_in_another_process(self, tmp_path):
        net = layer_of()
        optimizer = optim.Adam(net.parameters(), lr=0.1)
        train(optimizer, net.parameters(), grads_of(2, [(3, 2), (2,)]))
        paddle.save(optimizer.state_dict(), str(tmp_path / "state.pdopt"))
        program = (
            "import sys, paddle; from paddle_ftstrat import optim; net = paddle.nn.Linear(3, 2);"
            "optimizer = optim.Adam(net.parameters()); optimizer.load_state_dict(paddle.load(sys.argv[1]));"
            "state = optimizer.state_dict(); print(state['state']['step'], optimizer.param_groups[0]['lr'],"
            "float(state['state'][0]['exp_avg'].sum()))"
        )
        step, lr, total = processes.run_code(tmp_path, program, tmp_path / "state.pdopt").split()[-3:]
        assert (step, lr) == ("2", "0.1")
        assert float(total) == pytest.approx(float(optimizer.state_dict()["state"][0]["exp_avg"].sum()), abs=1e-6)

    def test_state_that_was_not_saved_is_forgotten(self):
        net = layer_of()
        optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        fresh = optimizer.state_dict()
        train(optimizer, net.parameters(), grads_of(2, [(3, 2), (2,)]))
        optimizer.load_state_dict(fresh)
        assert optimizer.state_dict()["state"]["step"] == 0
        assert not optimizer.state_dict()["state"][0]["momentum_buf"].numpy().any()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda s: s.pop("state"), r"not the state of an optimizer.*\['state'\] missing"),
            (lambda s: s["param_groups"].pop(), r"groups of \[1\] parameters, this optimizer of \[1, 1\]"),
            (lambda s: s["param_groups"][0].update(momentum=0.1), r"unknown option.*'momentum'"),
            (lambda s: s["param_groups"][0].update(lr=-1.0), r"lr of parameter group 0 = -1.0 is outside"),
            (lambda s: s["param_groups"][0].pop("eps"), r"lacks \['eps'\]"),
            (lambda s: s["state"].update({7: {}}), r"entries for parameters \[7\], this optimizer has 2"),
            (lambda s: s["state"][1].pop("exp_avg"), r"parameter 1 is \['exp_avg_sq'\], but this optimizer keeps"),
            (
                lambda s: s["state"][0].update(exp_avg=paddle.zeros([2, 3])),
                r"'exp_avg' of parameter 0 .* shape \[2, 3\] .*but \[3, 2\]",
            ),
            (lambda s: s["state"].update(step=-1), r"state\['step'\] = -1"),
        ],
        ids=["no state", "groups", "option", "lr", "lacking", "number", "kind", "shape", "step"],
    )
    def test_a_state_that_does_not_fit_changes_nothing(self, change, message):
        net = layer_of()
        optimizer = optim.Adam([{"params": [net.weight]}, {"params": [net.bias], "lr": 0.5}], lr=0.1)
        train(optimizer, net.parameters(), grads_of(2, [(3, 2), (2,)]))
        saved = optimizer.state_dict()
        before = {key: value.numpy() for key, value in saved["state"][0].items()}
        saved["param_groups"][1]["lr"] = 0.25
        saved["state"][0] = {key: value * 2 for key, value in saved["state"][0].items()}
        change(saved)
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(saved)
        assert optimizer.param_groups[1]["lr"] == 0.5
        for key, value in optimizer.state_dict()["state"][0].items():
            np.testing.assert_array_equal(value.numpy(), before[key])


def two(make):
    """A call that gets two parameters of a layer."""
    return lambda: make(*layer_of().parameters())


REFUSED = {
    "in two groups": (
        two(lambda w, b: optim.SGD([{"params": [w]}, {"params": [w, b]}])),
        ValueError,
        r"of shape \[3, 2\] is in the groups twice",
    ),
    "twice in a group": (two(lambda w, b: optim.SGD([w, b, w])), ValueError, r"is in the groups twice"),
    "a set": (two(lambda w, b: optim.SGD({w, b})), TypeError, r"params is a set, which has no order"),
    "a set in a group": (
        two(lambda w, b: optim.SGD([{"params": {w, b}}])),
        TypeError,
        r"params of the parameter group is a set",
    ),
    "nothing": (lambda: optim.SGD([]), ValueError, r"params is empty"),
    "an empty group": (lambda: optim.SGD([{"params": []}]), ValueError, r"params of the parameter group is empty"),
    "an exhausted iterator": (lambda: optim.SGD(iter(())), ValueError, r"params is empty"),
    "a layer": (lambda: optim.SGD(layer_of()), TypeError, r"give its parameters, Linear.parameters\(\)"),
    "one tensor": (two(lambda w, b: optim.SGD(w)), TypeError, r"must be an iterable of parameters"),
    "numbers": (lambda: optim.SGD([1.0]), TypeError, r"holds 1.0 of type float"),
    "dicts and parameters": (two(lambda w, b: optim.SGD([{"params": [w]}, b])), TypeError, r"mixes dicts and param"),
    "no params": (two(lambda w, b: optim.SGD([{"parameters": [w]}])), ValueError, r"has no key 'params'"),
    "a computed tensor": (two(lambda w, b: optim.SGD([w * 2])), ValueError, r"only leaves can be updated"),
    "negative lr": (two(lambda w, b: optim.SGD([w], lr=-0.1)), ValueError, r"lr of .* = -0.1 is outside.*≥ 0"),
    "negative lr of a group": (
        two(lambda w, b: optim.SGD([{"params": [w]}, {"params": [b], "lr": -1}])),
        ValueError,
        r"lr of parameter group 1 = -1 is outside",
    ),
    "an lr that is a word": (two(lambda w, b: optim.SGD([w], lr="big")), TypeError, r"lr of .* must be a number"),
    "negative eps": (two(lambda w, b: optim.Adam([w], eps=-1e-8)), ValueError, r"eps of .* = -1e-08 is outside"),
    "negative decay": (two(lambda w, b: optim.AdamW([w], weight_decay=-1)), ValueError, r"weight_decay of .* = -1"),
    "beta of 1": (two(lambda w, b: optim.Adam([w], betas=(0.9, 1.0))), ValueError, r"the second, = 1.0 .*< 1"),
    "negative beta": (two(lambda w, b: optim.LAMB([w], betas=(-0.1, 0.9))), ValueError, r"the first, = -0.1"),
    "one beta": (two(lambda w, b: optim.Adam([w], betas=0.9)), TypeError, r"betas of .* must be a pair"),
    "amsgrad in LAMB": (two(lambda w, b: optim.LAMB([w], amsgrad=True)), ValueError, r"LAMB has no AMSGrad"),
    "amsgrad in SGD": (
        two(lambda w, b: optim.SGD([{"params": [w], "amsgrad": True}])),
        ValueError,
        r"unknown option of the parameter group 'amsgrad'",
    ),
    "a typo": (
        two(lambda w, b: optim.SGD([{"params": [w], "momentun": 0.9}])),
        ValueError,
        r"'momentun'. Did you mean 'momentum'",
    ),
    "nesterov alone": (two(lambda w, b: optim.SGD([w], nesterov=True)), ValueError, r"needs momentum > 0"),
    "norm type alone": (
        two(lambda w, b: optim.SGD([{"params": [w], "clip_grad_norm_type": 2.0}])),
        ValueError,
        r"clip_grad_norm_type without clip_grad_max_norm",
    ),
    "negative bound": (
        two(lambda w, b: optim.SGD([{"params": [w], "clip_grad_max_norm": -1.0}])),
        ValueError,
        r"clip_grad_max_norm of .* = -1.0",
    ),
}


@pytest.mark.parametrize(("make", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_refused_changes_leave_the_optimizer_as_it_was():
    net = layer_of()
    optimizer = optim.SGD([net.weight], lr=0.1)
    group = optimizer.param_groups[0]
    for key, value in (("lr", -1.0), ("lr", None), ("learning_rate", 0.1), ("params", [])):
        with pytest.raises((ValueError, TypeError)):
            group[key] = value
    for added in ({"params": [net.weight]}, {"params": [net.bias], "lr": -1.0}, {"params": []}, [net.bias]):
        with pytest.raises((ValueError, TypeError)):
            optimizer.add_param_group(added)
    with pytest.raises(ValueError, match="'lr' of the parameter group is needed"):
        del group["lr"]
    with pytest.raises(TypeError, match=r"optim\.lr_scheduler"):
        optimizer.set_lr_scheduler(paddle.optimizer.lr.NoamDecay(4, 1))
    assert dict(group)["lr"] == 0.1
    assert len(optimizer.param_groups) == 1
    set_grad(net.weight, np.ones((3, 2)))
    optimizer.step()


@pytest.mark.parametrize(("word", "ours"), [("learning_rate", "lr"), ("epsilon", "eps"), ("beta1", "betas")])
def test_paddles_words_for_options_are_answered_with_ours(word, ours):
    params = paddle.nn.Linear(1, 1).parameters()
    with pytest.raises(ValueError, match=f"{word!r}: it is called {ours!r} here"):
        optim.Adam([{"params": params, word: 0.1}])
    adam = optim.Adam(params)
    with pytest.raises(ValueError, match=f"called {ours!r} here"):
        adam.param_groups[0][word] = 0.1
