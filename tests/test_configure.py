"""ParamAttr fields on a model that is already built: equal to one that was built with them."""

import re

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.regularizer import L1Decay, L2Decay

import paddle_ftstrat as hub
from paddle_ftstrat.param_attr import settings
from paddle_ftstrat.param_attr.configure import configure
from paddle_ftstrat.param_attr.select import named_weights


def net():
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1D(4), nn.Linear(4, 2))


def fields(model, field):
    return {name: getattr(settings.own(param), field) for name, param in named_weights(model).items()}


def everything(model):
    """All that configure could change, comparable."""
    return {
        name: (settings.in_force(param), settings.owner_of(param), param.numpy().tobytes())
        for name, param in named_weights(model).items()
    }


class TestSelectors:
    @pytest.mark.parametrize(
        "selector",
        [
            "0.*",
            "0",
            re.compile(r"0\.(weight|bias)"),
            lambda name, param: name[0] == "0" and param.ndim > 0,
            lambda name, param: param.shape in ([4, 4], [4]) and not name.startswith("1"),
        ],
    )
    def test_all_kinds(self, selector):
        model = net()
        configure(model, [(selector, {"learning_rate": 0.5})])
        assert {name for name, lr in fields(model, "learning_rate").items() if lr == 0.5} == {"0.weight", "0.bias"}

    def test_layer(self):
        model = net()
        configure(model, [(model[2], {"need_clip": False})])
        assert [name for name, clip in fields(model, "need_clip").items() if not clip] == ["2.weight", "2.bias"]

    def test_others_give_way_field_by_field(self):
        model = net()
        rules = [(..., {"learning_rate": 0.1, "need_clip": False}), ("2", {"learning_rate": 2.0})]
        configure(model, rules)
        assert fields(model, "learning_rate") == {
            "0.weight": 0.1,
            "0.bias": 0.1,
            "1.weight": 0.1,
            "1.bias": 0.1,
            "2.weight": 2.0,
            "2.bias": 2.0,
        }
        assert set(fields(model, "need_clip").values()) == {False}

    def test_statistics_are_no_parameters(self):
        model = net()
        configure(model, [("*", {"trainable": True, "learning_rate": 3.0})])
        assert model[1]._mean.stop_gradient
        assert model[1]._variance.stop_gradient
        assert settings.in_force(model[1]._mean).learning_rate == 1.0


class TestFields:
    def test_biases_without_decay_in_one_line(self):
        model = net()
        configure(model, [("*.bias", 0.0), (..., 0.01)])
        coefficients = {name: value._coeff for name, value in fields(model, "regularizer").items()}
        assert coefficients == {name: 0.0 if name.endswith("bias") else 0.01 for name in coefficients}

    def test_only_the_given_keys_of_a_dict_are_set(self):
        model = nn.Linear(2, 2, weight_attr=paddle.ParamAttr(learning_rate=0.3, regularizer=L1Decay(0.1)))
        configure(model, [("weight", {"need_clip": False})])
        mine = settings.own(model.weight)
        assert (mine.learning_rate, mine.need_clip, mine.trainable) == (0.3, False, True)
        assert isinstance(mine.regularizer, L1Decay)

    def test_a_dict_goes_back_to_defaults(self):
        attr = paddle.ParamAttr(learning_rate=0.3, regularizer=L1Decay(0.1), trainable=False, need_clip=False)
        model = nn.Linear(2, 2, weight_attr=attr)
        back = {"learning_rate": 1, "regularizer": None, "trainable": True, "need_clip": True}
        configure(model, [("weight", back)])
        assert settings.own(model.weight) == settings.own(nn.Linear(2, 2).weight)

    def test_the_differing_fields_of_a_param_attr_are_set(self):
        model = nn.Linear(2, 2, weight_attr=paddle.ParamAttr(learning_rate=0.3, need_clip=False))
        decay = L2Decay(0.1)
        configure(model, [("weight", paddle.ParamAttr(regularizer=decay, trainable=False))])
        assert settings.own(model.weight) == settings.ParamSettings(0.3, decay, trainable=False, need_clip=False)

    def test_regularizer_alone(self):
        model = nn.Linear(2, 2)
        decay = L1Decay(0.1)
        configure(model, [("weight", decay)])
        assert model.weight.regularizer is decay

    def test_equals_a_model_built_with_the_attributes(self):
        attr = {"learning_rate": 0.5, "regularizer": L2Decay(0.2), "need_clip": False}
        built = nn.Linear(3, 2, weight_attr=paddle.ParamAttr(**attr))
        later = nn.Linear(3, 2)
        later.set_state_dict(built.state_dict())
        configure(later, [("weight", attr)])
        x = paddle.randn([5, 3])
        for model in (built, later):
            clip = nn.ClipGradByGlobalNorm(0.01)
            optimizer = paddle.optimizer.Momentum(0.1, parameters=model.parameters(), weight_decay=0.4, grad_clip=clip)
            for _ in range(3):
                model(x).square().mean().backward()
                optimizer.step()
                optimizer.clear_grad()
        for one, other in zip(built.parameters(), later.parameters()):
            np.testing.assert_array_equal(one.numpy(), other.numpy())

    def test_same_value_twice_is_no_contradiction(self):
        model = net()
        configure(model, [("0.*", 0.1), ("*.weight", L2Decay(0.1)), ("0", {"trainable": False}), ("0", L2Decay(0.1))])
        assert model[0].weight.regularizer._coeff == 0.1

    def test_frozen_parameters_lose_their_gradient(self):
        model = nn.Linear(2, 2)
        model(paddle.ones([1, 2])).sum().backward()
        configure(model, [("bias", {"trainable": False})])
        assert model.bias.grad is None
        assert model.weight.grad is not None

    def test_reaches_a_compiled_model(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        configure(model, [("0", {"trainable": False})])
        compiled = paddle.jit.to_static(model)
        compiled(paddle.ones([1, 2])).sum().backward()
        assert model[0].weight.grad is None
        configure(model, [("0", {"trainable": True})])
        compiled(paddle.ones([1, 2])).sum().backward()
        assert float(model[0].weight.grad.abs().sum()) > 0


class TestInitializer:
    def test_overwrites_only_what_it_is_for(self):
        model = net()
        before = model[2].weight.numpy()
        configure(model, [("0.weight", {"initializer": nn.initializer.Constant(7.0)})], reinitialize=True)
        assert (model[0].weight.numpy() == 7.0).all()
        np.testing.assert_array_equal(model[2].weight.numpy(), before)

    def test_equals_a_model_built_with_it(self):
        attr = paddle.ParamAttr(initializer=nn.initializer.XavierNormal())
        paddle.seed(5)
        built = nn.Linear(5, 3, weight_attr=attr)
        later = nn.Linear(5, 3)
        paddle.seed(5)
        configure(later, [("weight", attr)], reinitialize=True)
        np.testing.assert_array_equal(later.weight.numpy(), built.weight.numpy())

    def test_leaves_generated_names_alone(self):
        model = net()
        first = nn.Linear(2, 2).weight.name
        configure(model, [("*.weight", {"initializer": nn.initializer.Constant(7.0)})], reinitialize=True)
        second = nn.Linear(2, 2).weight.name
        number = [int(re.search(r"\d+", name).group()) for name in (first, second)]
        assert number[1] == number[0] + 1

    def test_keeps_the_dtype(self):
        model = nn.Linear(2, 2).to(dtype="float64")
        configure(model, [("*", {"initializer": nn.initializer.Constant(0.1)})], reinitialize=True)
        assert model.weight.dtype == paddle.float64
        assert (model.weight.numpy() == 0.1).all()


BAD = [
    ([("1.*", {"learning_rate": 0.1}), ("backbone.*", 0.1)], ValueError, r"rules\[1\] matches no parameter.*backbone"),
    ([("0.wieght", 0.1)], ValueError, "Did you mean '0.weight'"),
    ([("0", 0.1), ("*.weight", 0.2)], ValueError, r"regularizer of '0.weight' \(rules\[0\] and rules\[1\]\)"),
    ([(..., 0.1), (..., 0.2)], ValueError, "regularizer of '0.weight'.*2.bias"),
    ([("0", {"learning_rate": 0.1}), ("0", {"learning_rate": 0.2})], ValueError, "learning_rate of '0.weight'"),
    ([("0", L1Decay(0.1)), ("0", L2Decay(0.1))], ValueError, "regularizer of '0.weight'"),
    ([("0", {"lerning_rate": 0.1})], ValueError, "Did you mean 'learning_rate'"),
    ([("0", {"learning_rate": -0.1})], ValueError, r"rules\[0\]: learning_rate = -0.1"),
    ([("0", {"learning_rate": "0.1"})], TypeError, "learning_rate must be a number"),
    ([("0", -0.1)], ValueError, r"rules\[0\]: regularizer = -0.1"),
    ([("0", {"regularizer": "L2"})], TypeError, "regularizer must be"),
    ([("0", {"trainable": 1})], TypeError, "trainable must be True or False"),
    ([("0", {"initializer": nn.initializer.Constant(0.0)})], ValueError, "reinitialize=True"),
    ([("0", {})], ValueError, "sets no field"),
    ([("0", paddle.ParamAttr())], ValueError, "sets no field.*a dict does"),
    ([("0", paddle.ParamAttr(name="other"))], ValueError, "keeps its name"),
    ([("0", paddle.ParamAttr(do_model_average=False))], ValueError, "do_model_average"),
    ([("0", None)], TypeError, "fields must be"),
    ([("0", True)], TypeError, "fields must be"),
    ([(3, 0.1)], TypeError, r"rules\[0\] must be a glob"),
    ([("0",)], TypeError, "must be a pair"),
    (["0."], TypeError, "must be a pair"),
    ({"0": 0.1}, TypeError, "list of pairs"),
    (7, TypeError, "list of pairs"),
]


class TestErrors:
    @pytest.mark.parametrize(("rules", "error", "message"), BAD)
    def test_bad_rules_change_nothing(self, rules, error, message):
        model = net()
        before = everything(model)
        with pytest.raises(error, match=message):
            configure(model, rules)
        assert everything(model) == before

    def test_a_bad_rule_after_a_good_one_changes_nothing(self):
        model = net()
        before = everything(model)
        with pytest.raises(ValueError, match="matches no parameter"):
            configure(model, [("0", {"learning_rate": 0.1, "trainable": False}), ("9.*", 0.1)])
        assert everything(model) == before

    def test_an_initializer_of_another_shape_changes_nothing(self):
        model = net()
        before = everything(model)
        wrong = nn.initializer.Assign(np.zeros((4, 3), "float32"))
        rules = [("0.weight", {"initializer": nn.initializer.Constant(1.0)}), ("2.weight", {"initializer": wrong})]
        with pytest.raises(ValueError, match=r"\[4, 3\].*'2.weight' has \[4, 2\]"):
            configure(model, rules, reinitialize=True)
        assert everything(model) == before

    def test_not_a_model(self):
        with pytest.raises(TypeError, match="model must be a"):
            configure([paddle.ones([1])], [("*", 0.1)])


class TestWithStrategies:
    def test_refused_while_bound(self):
        model = net()
        run = hub.DefaultStrategy(0.1, "sgd").bind(model)
        with pytest.raises(RuntimeError, match=r"bound to 0.weight.*release\(\)"):
            configure(model, [("*", 0.1)])
        run.release()
        configure(model, [("*", 0.1)])
        assert model[0].weight.regularizer._coeff == 0.1

    def test_binding_and_releasing_keeps_what_was_configured(self):
        model = net()
        configure(model, [("0", {"learning_rate": 0.5, "trainable": False, "need_clip": False}), ("*.bias", 0.0)])
        mine = {name: settings.own(param) for name, param in named_weights(model).items()}
        run = hub.ULMFiTStrategy(0.1, "sgd").bind(model, max_train_steps=10)
        assert run.describe()[0].own_learning_rate == 0.5
        for epoch in range(1, 5):
            run.begin_epoch(epoch)
            assert model[0].weight.stop_gradient
        run.release()
        assert {name: settings.in_force(param) for name, param in named_weights(model).items()} == mine
