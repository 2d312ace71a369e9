"""Optimizers written in Python: the ones that come with the library against numpy, and those a user may write."""

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.regularizer import L2Decay

import paddle_ftstrat as hub
from paddle_ftstrat.optim import custom, rules, state, table
from paddle_ftstrat.optim.custom import Accumulator, CustomOptimizer, from_function

RNG = np.random.default_rng(0)
START = RNG.normal(size=(4, 3))
GRADS = RNG.normal(size=(8, 4, 3))
LRS = [0.1, 0.1, 0.05, 0.2, 0.0, 0.1, 0.01, 0.3]


class NumpyFtrl:
    def __init__(self, l1, l2, lr_power):
        self.l1, self.l2, self.k, self.s, self.z = l1, l2, -lr_power, 0.0, 0.0

    def update(self, p, g, lr):
        if lr == 0:
            return p
        n = self.s + g**2
        self.z = self.z + g - (n**self.k - self.s**self.k) / lr * p
        self.s = n
        y = n**self.k / lr + 2 * self.l2
        return np.where(np.abs(self.z) > self.l1, (self.l1 * np.sign(self.z) - self.z) / y, 0.0)


class NumpyDecayedAdagrad:
    def __init__(self, decay, epsilon):
        self.decay, self.epsilon, self.s = decay, epsilon, 0.0

    def update(self, p, g, lr):
        self.s = self.decay * self.s + (1 - self.decay) * g**2
        return p - lr * g / (np.sqrt(self.s) + self.epsilon)


class NumpyLars:
    def __init__(self, momentum, lars_coeff, lars_weight_decay, epsilon):
        self.mu, self.c, self.wd, self.eps, self.v = momentum, lars_coeff, lars_weight_decay, epsilon, 0.0

    def update(self, p, g, lr):
        size, slope = np.linalg.norm(p), np.linalg.norm(g)
        rate = lr * self.c * size / (slope + self.wd * size + self.eps)
        self.v = self.mu * self.v + rate * (g + self.wd * p)
        return p - self.v


class NumpyLion:
    def __init__(self, beta1, beta2, weight_decay):
        self.beta1, self.beta2, self.wd, self.m = beta1, beta2, weight_decay, 0.0

    def update(self, p, g, lr):
        step = np.sign(self.beta1 * self.m + (1 - self.beta1) * g) + self.wd * p
        self.m = self.beta2 * self.m + (1 - self.beta2) * g
        return p - lr * step


def parameter(dtype="float32", value=START, **fields):
    return paddle.create_parameter(
        np.shape(value), dtype, attr=paddle.ParamAttr(initializer=nn.initializer.Assign(np.array(value)), **fields)
    )


def set_grad(param, value):
    param.clear_gradient(False)
    (param.astype("float64") * paddle.to_tensor(value, "float64")).sum().backward()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("cls", "reference", "options"),
    [
        (rules.Ftrl, NumpyFtrl, {"l1": 0.0, "l2": 0.0, "lr_power": -0.5}),
        (rules.Ftrl, NumpyFtrl, {"l1": 0.3, "l2": 0.1, "lr_power": -0.5}),
        (rules.Ftrl, NumpyFtrl, {"l1": 0.3, "l2": 0.1, "lr_power": -0.75}),
        (rules.DecayedAdagrad, NumpyDecayedAdagrad, {"decay": 0.95, "epsilon": 1e-6}),
        (rules.DecayedAdagrad, NumpyDecayedAdagrad, {"decay": 0.5, "epsilon": 0.1}),
        (rules.LarsMomentum, NumpyLars, {"momentum": 0.9, "lars_coeff": 0.1, "lars_weight_decay": 0.0, "epsilon": 0.0}),
        (rules.LarsMomentum, NumpyLars, {"momentum": 0.5, "lars_coeff": 0.2, "lars_weight_decay": 0.1, "epsilon": 0.5}),
        (rules.Lion, NumpyLion, {"beta1": 0.9, "beta2": 0.99, "weight_decay": 0.0}),
        (rules.Lion, NumpyLion, {"beta1": 0.7, "beta2": 0.9, "weight_decay": 0.1}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_against_numpy(cls, reference, options, dtype):
    param = parameter(dtype)
    optimizer = cls(LRS[0], parameters=[param], **options)
    expected, rule = START, reference(**options)
    for grad, lr in zip(GRADS, LRS):
        set_grad(param, grad)
        optimizer.set_lr(lr)
        optimizer.step()
        expected = rule.update(expected, grad, lr)
        tolerance = {"rtol": 1e-9, "atol": 1e-11} if dtype == "float64" else {"rtol": 2e-5, "atol": 2e-6}
        np.testing.assert_allclose(param.numpy(), expected, **tolerance)


def test_ftrl_leaves_a_weight_alone_that_has_had_no_gradient():
    param = parameter()
    optimizer = rules.Ftrl(0.1, l1=0.5, parameters=[param])
    set_grad(param, np.zeros_like(START))
    optimizer.step()
    np.testing.assert_array_equal(param.numpy(), np.float32(START))


def test_lars_without_weights_or_gradient_uses_the_lr_itself():
    param = parameter(value=np.zeros((2, 2)))
    optimizer = rules.LarsMomentum(0.5, parameters=[param])
    set_grad(param, np.ones((2, 2)))
    optimizer.step()
    np.testing.assert_allclose(param.numpy(), -0.5 * np.ones((2, 2)))


@pytest.mark.parametrize("cls", [rules.Lion, rules.LarsMomentum], ids=lambda cls: cls.__name__)
def test_an_own_regularizer_switches_native_decay_off_without_a_strategy_too(cls):
    decay = {"lars_weight_decay": 0.5} if cls is rules.LarsMomentum else {"weight_decay": 0.5}
    results = []
    for options, fields in ((decay, {"regularizer": L2Decay(0.0)}), (dict.fromkeys(decay, 0.0), {})):
        param = parameter(**fields)
        optimizer = cls(0.1, parameters=[param], **options)
        set_grad(param, GRADS[0])
        optimizer.step()
        results.append(param.numpy())
    np.testing.assert_array_equal(*results)


class PaddleStyle(CustomOptimizer):
    """Momentum, written as Paddle's own optimizers are."""

    def __init__(self, learning_rate, mu=0.9, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.mu = mu

    def _create_accumulators(self, block, parameters):
        for param in parameters:
            self._add_accumulator("velocity", param)

    def _append_optimize_op(self, block, param_and_grad):
        param, grad = param_and_grad
        velocity = self._get_accumulator_master("velocity", param)
        velocity.scale_(self.mu).add_(grad)
        param.subtract_(velocity * self._create_param_lr(param_and_grad))


class ClassForm(CustomOptimizer):
    """The same, with the base class's help."""

    accumulators = ("velocity",)

    def __init__(self, learning_rate, mu=0.9, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.mu = mu

    def update(self, param, grad, lr, state):
        state["velocity"].scale_(self.mu).add_(grad)
        param.subtract_(state["velocity"] * lr)


def short_form(param, grad, lr, state, mu=0.9):
    """The same as a function."""
    state["velocity"].scale_(mu).add_(grad)
    param.subtract_(state["velocity"] * lr)


class PlainUsers(paddle.optimizer.Optimizer):
    """The same on Paddle's base class alone, as someone may have it already."""

    def __init__(self, learning_rate, parameters, mu=0.9, weight_decay=None, grad_clip=None):
        super().__init__(learning_rate, parameters, weight_decay, grad_clip)
        self.mu = mu

    def _create_accumulators(self, block, parameters):
        for param in parameters:
            self._add_accumulator("velocity", param)

    def _append_optimize_op(self, block, param_and_grad):
        param, grad = param_and_grad
        velocity = self._get_accumulator("velocity", param)
        velocity.scale_(self.mu).add_(grad)
        param.subtract_(velocity * self._create_param_lr(param_and_grad))


FORMS = [PaddleStyle, ClassForm, from_function(short_form, ["velocity"]), PlainUsers]


def mlp():
    paddle.seed(1)
    head = nn.Linear(8, 2, weight_attr=paddle.ParamAttr(learning_rate=2.0, regularizer=L2Decay(0.05)))
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Tanh(), head)


def strategy_with(optimizer, **options):
    return hub.CombinedStrategy(
        optimizer_name=optimizer,
        learning_rate=0.1,
        scheduler={
            "warmup": 0.2,
            "linear_decay": {"start_point": 0.0},
            "discriminative": {"blocks": 2},
            "gradual_unfreeze": 2,
        },
        regularization={"L2": 0.01, "weight_decay": 0.1},
        clip={"GlobalNorm": 0.5},
        **options,
    )


def train(run, steps, first=0):
    rng = np.random.default_rng(2)
    batches = rng.normal(size=(12, 6, 4)).astype("float32")
    for number in range(first, first + steps):
        if number % 6 == 0:
            run.begin_epoch()
        run.model(paddle.to_tensor(batches[number])).square().mean().backward()
        run.step()
    return {name: param.numpy() for name, param in run.model.named_parameters()}


@pytest.mark.parametrize("form", FORMS, ids=lambda cls: cls.__name__)
def test_every_form_in_a_strategy_equals_paddles_momentum(form):
    reference = train(strategy_with("momentum", momentum=0.8).bind(mlp(), max_train_steps=12), 12)
    own = train(strategy_with(form, mu=0.8).bind(mlp(), max_train_steps=12), 12)
    for name, value in reference.items():
        np.testing.assert_allclose(own[name], value, rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("form", FORMS, ids=lambda cls: cls.__name__)
def test_every_form_resumes_bit_equal_on_a_rebuilt_model(form):
    unbroken = strategy_with(form).bind(mlp(), max_train_steps=12)
    weights = train(unbroken, 5)
    saved = unbroken.state_dict()
    saved["optimizer"] = {
        name: {kind: value.numpy() for kind, value in kinds.items()} for name, kinds in saved["optimizer"].items()
    }
    rebuilt = mlp()
    run = strategy_with(form).bind(rebuilt, max_train_steps=12)
    for name, param in rebuilt.named_parameters():
        param.set_value(weights[name])
    run.set_state_dict(saved)
    expected = train(unbroken, 7, first=5)
    for name, value in train(run, 7, first=5).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


@pytest.fixture
def cleared_table():
    before = dict(table.ROWS)
    yield
    table.ROWS.clear()
    table.ROWS.update(before)


@pytest.mark.usefixtures("cleared_table")
class TestRegister:
    def test_a_registered_name_works_in_a_strategy(self):
        cls = table.register("My-Momentum", short_form, accumulators=["velocity"], aliases=["mm"])
        by_name = train(strategy_with("MY-momentum", mu=0.8).bind(mlp(), max_train_steps=12), 12)
        by_alias = train(strategy_with("mm", mu=0.8).bind(mlp(), max_train_steps=12), 12)
        by_class = train(strategy_with(cls, mu=0.8).bind(mlp(), max_train_steps=12), 12)
        for name, value in by_name.items():
            np.testing.assert_array_equal(value, by_class[name])
            np.testing.assert_array_equal(value, by_alias[name])
        assert table.find("mm").defaults["mu"] == 0.9
        assert "my-momentum" in table.names()

    def test_an_option_that_it_lacks_is_refused_with_the_nearest(self):
        table.register("mine", short_form, accumulators=["velocity"])
        with pytest.raises(ValueError, match=r"option of optimizer 'mine' 'mo'.*mu"):
            hub.DefaultStrategy(optimizer_name="mine", mo=0.5)

    def test_registering_again_replaces(self):
        table.register("mine", ClassForm)
        table.register("mine", PaddleStyle, sparse=False)
        assert table.find("mine").cls is PaddleStyle
        assert not table.find("mine").sparse

    def test_decoupled_decay_is_entered_as_such(self):
        table.register("mine", from_function(short_form, ["velocity"], decoupled=True))
        run = hub.DefaultStrategy(0.1, "mine", weight_decay=0.5).bind(nn.Linear(2, 2))
        assert [row.decay for row in run.describe().rows] == [0.5, 0.0]

    @pytest.mark.parametrize(
        ("name", "given", "fields", "error", "message"),
        [
            ("adam", ClassForm, {}, ValueError, r"the optimizer table has 'adam' already, for 'adam'"),
            ("mine", ClassForm, {"aliases": ["lars"]}, ValueError, r"has 'lars' already, for 'larsmomentum'"),
            ("mine", ClassForm, {"sparce": True}, ValueError, r"row 'sparce'. Did you mean 'sparse'"),
            ("mine", ClassForm, {"accumulators": ["m"]}, TypeError, r"accumulators= belongs to a function"),
            ("mine", nn.Linear, {}, TypeError, r"must be a name or a paddle.optimizer.Optimizer class"),
            ("mine", 3, {}, TypeError, r"must be a name or a paddle.optimizer.Optimizer class"),
            ("mine", lambda w, g: None, {}, TypeError, r"first arguments must be \(param, grad, lr, state\)"),
        ],
        ids=["name taken", "alias taken", "field", "accumulators", "no optimizer", "no class", "no rule"],
    )
    def test_refusals_leave_the_table_as_it_was(self, name, given, fields, error, message):
        before = dict(table.ROWS)
        with pytest.raises(error, match=message):
            table.register(name, given, **fields)
        assert before == table.ROWS


def test_an_optimizer_with_groups_of_its_own_is_no_strategys():
    from paddle_ftstrat.optim.optimizers import SGD

    with pytest.raises(ValueError, match=r"SGD has parameter groups.*name one of"):
        hub.DefaultStrategy(optimizer_name=SGD)


def test_a_class_with_other_arguments_is_refused():
    class Foreign(paddle.optimizer.Optimizer):
        def __init__(self, params, lr=0.1):
            super().__init__(lr, params)

    with pytest.raises(
        ValueError, match=r"Foreign must take learning_rate and parameters by name; it has self, params"
    ):
        hub.DefaultStrategy(optimizer_name=Foreign)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: ClassForm(-0.1, parameters=p), ValueError, r"learning_rate = -0.1 is outside"),
        (lambda p: ClassForm("0.1", parameters=p), TypeError, r"learning_rate must be a number"),
        (lambda p: rules.Lion(0.1, weight_decay=-1.0, parameters=p), ValueError, r"weight_decay = -1.0 is outside"),
        (lambda p: rules.Lion(0.1, beta1=1.5, parameters=p), ValueError, r"beta1 = 1.5 is outside"),
        (lambda p: rules.Ftrl(0.1, lr_power=0.5, parameters=p), ValueError, r"lr_power = 0.5 is outside"),
        (
            lambda p: ClassForm(0.1, parameters=p, apply_decay_param_fun=bool),
            TypeError,
            r"ClassForm has no decoupled decay",
        ),
    ],
)
def test_constructor_errors(make, error, message):
    with pytest.raises(error, match=message):
        make([parameter()])


def test_errors_of_the_short_form():
    with pytest.raises(TypeError, match=r"argument 'mu' of rule needs a default"):

        def rule(param, grad, lr, state, mu):
            pass

        from_function(rule)
    with pytest.raises(ValueError, match=r"argument 'grad_clip' of rule: every optimizer has one already"):

        def rule(param, grad, lr, state, grad_clip=1.0):
            pass

        from_function(rule)


def test_a_base_class_without_a_rule_says_so():
    param = parameter()
    set_grad(param, GRADS[0])
    with pytest.raises(NotImplementedError, match=r"needs update\(self, param, grad, lr, state\)"):
        CustomOptimizer(0.1, [param]).step()


def test_scalar_state_and_first_values():
    def counting(param, grad, lr, state):
        state["count"].add_(paddle.ones([1]))
        param.subtract_(grad * (lr / state["count"].item()))

    cls = from_function(counting, {"count": Accumulator(2.0, scalar=True), "unused": 0.5}, name="Counting")
    assert cls.__name__ == "Counting"
    param = parameter(value=np.zeros(3))
    optimizer = cls(0.9, [param])
    set_grad(param, np.ones(3))
    optimizer.step()
    np.testing.assert_allclose(param.numpy(), -0.3, rtol=1e-6)
    kinds = state.get_state(optimizer, {"w": param})["w"]
    assert kinds["count"].shape == [1]
    np.testing.assert_array_equal(kinds["unused"].numpy(), np.full(3, 0.5, "float32"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_state_moves_to_another_optimizer_bit_equal(dtype):
    constant = nn.initializer.Constant(1.0)
    params = [paddle.create_parameter([4, 3], dtype, default_initializer=constant) for _ in range(2)]
    first, second = (rules.Lion(0.1, parameters=[p], multi_precision=True) for p in params)
    for grad in GRADS[:3]:
        set_grad(params[0], grad)
        first.step()
    saved = state.get_state(first, {"w": params[0]})
    assert set(saved["w"]) == {"moment", "master_weight"}
    params[1].set_value(params[0].clone())
    state.set_state(second, {"w": params[1]}, {"w": {kind: value.numpy() for kind, value in saved["w"].items()}})
    for param, optimizer in zip(params, (first, second)):
        for grad in GRADS[3:]:
            set_grad(param, grad)
            optimizer.step()
    np.testing.assert_array_equal(params[0].astype("float32").numpy(), params[1].astype("float32").numpy())


def test_what_amp_decorate_does_makes_float32_copies():
    model = nn.Linear(4, 2)
    optimizer = rules.Lion(0.01, parameters=model.parameters())
    # paddle.amp.decorate itself does nothing without a GPU.
    model.to(dtype="bfloat16")
    optimizer._multi_precision = True
    for param in model.parameters():
        set_grad(param, np.ones(param.shape))
    optimizer.step()
    kinds = state.get_state(optimizer, dict(model.named_parameters()))
    assert model.weight.dtype == paddle.bfloat16
    assert kinds["weight"]["master_weight"].dtype == kinds["weight"]["moment"].dtype == paddle.float32


def test_an_update_that_overflowed_is_skipped():
    param = parameter()
    optimizer = rules.Lion(0.1, parameters=[param])
    set_grad(param, np.full_like(START, np.inf))
    # What GradScaler does, which itself works on GPUs only.
    optimizer._set_auxiliary_var("found_inf", paddle.to_tensor(True))
    optimizer.step()
    np.testing.assert_array_equal(param.numpy(), np.float32(START))


def test_multiplier_of_a_plain_tensor():
    tensor = paddle.ones([2])
    assert custom.multiplier(tensor) == 1.0


@pytest.mark.parametrize("own_op", [False, True])
def test_sparse_gradients_only_where_the_short_form_makes_them_dense(own_op):
    class Plain(CustomOptimizer):
        def update(self, param, grad, lr, state):
            param.subtract_(grad * lr)

    class WithOp(CustomOptimizer):
        def _append_optimize_op(self, block, param_and_grad):
            param, grad = param_and_grad
            param.subtract_(grad * self.get_lr())

    model = paddle.nn.Embedding(4, 2, sparse=True)
    if own_op:
        with pytest.raises(ValueError, match="sparse=False"):
            hub.DefaultStrategy(0.1, WithOp).bind(model)
    else:
        hub.DefaultStrategy(0.1, Plain).bind(model)
