"""Which layers a model has, in which order, and how they make blocks."""

import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.param_attr.depth import call, find_units, named_layers, only_inputs, split, split_batch, stack_of


def names(model, **options):
    return [unit.name for unit in find_units(model, **options)]


def block_layers(run):
    """The top two path parts of the parameters in each block, in short."""
    return [sorted({".".join(name.split(".")[:2]) for name in block}) for block in run.blocks]


class TextNet(nn.Layer):
    """Embedding, a stack, a head; registered in the order given."""

    def __init__(self, stack, width, order=("embedding", "stack", "head")):
        super().__init__()
        parts = {"embedding": nn.Embedding(20, width), "stack": stack, "head": nn.Linear(width, 2)}
        for name in order:
            setattr(self, name, parts[name])

    def forward(self, ids):
        out = self.stack(self.embedding(ids))
        out = out[0] if isinstance(out, tuple) else out
        return self.head(out.mean(1))


IDS = paddle.to_tensor([[1, 2, 3]])


def transformer(layers):
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5), layers)


class TestUnits:
    def test_resnet18(self):
        stages = [f"layer{i}.{j}" for i in range(1, 5) for j in range(2)]
        assert names(paddle.vision.models.resnet18()) == ["conv1", "bn1", *stages, "fc"]

    def test_resnet18_inside_another_model(self):
        class Wrapped(nn.Layer):
            def __init__(self):
                super().__init__()
                self.backbone = paddle.vision.models.resnet18(num_classes=0)
                self.head = nn.Linear(512, 3)

        found = names(Wrapped())
        assert found[:3] == ["backbone.conv1", "backbone.bn1", "backbone.layer1.0"]
        assert found[-2:] == ["backbone.layer4.1", "head"]
        assert len(found) == 11

    def test_transformer_encoder(self):
        expected = ["embedding", *(f"stack.layers.{i}" for i in range(4)), "head"]
        assert names(TextNet(transformer(4), 8)) == expected

    def test_transformer_encoder_with_a_final_norm(self):
        encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16), 2, norm=nn.LayerNorm(8))
        assert names(TextNet(encoder, 8), sample_input=IDS) == [
            "embedding",
            "stack.layers.0",
            "stack.layers.1",
            "stack.norm",
            "head",
        ]

    def test_lstm_is_one_unit_though_paddle_makes_it_a_layer_list(self):
        assert isinstance(nn.LSTM(4, 4), nn.LayerList)
        units = find_units(TextNet(nn.LSTM(8, 8, num_layers=2), 8))
        assert [unit.name for unit in units] == ["embedding", "stack", "head"]
        assert units[1].parameters == tuple(
            f"stack.{kind}_{part}_l{layer}"
            for layer in range(2)
            for kind in ("weight", "bias")
            for part in ("ih", "hh")
        )

    def test_vgg_and_mobilenet(self):
        assert names(paddle.vision.models.vgg11(num_classes=2))[-3:] == ["classifier.0", "classifier.3", "classifier.6"]
        mobile = names(paddle.vision.models.mobilenet_v2(scale=0.25, num_classes=2))
        assert mobile[:2] == ["features.0", "features.1"]
        assert mobile[-2:] == ["features.18", "classifier.1"]

    def test_sequential_of_leaves_inside_a_container_is_one_unit(self):
        block = [nn.Sequential(nn.Conv2D(1, 1, 1), nn.BatchNorm2D(1), nn.ReLU()) for _ in range(2)]
        assert names(nn.Sequential(*block, nn.Linear(1, 1))) == ["0", "1", "2"]

    def test_own_parameters_of_a_model_are_the_lowest_unit(self):
        class Tokens(nn.Layer):
            def __init__(self):
                super().__init__()
                self.body = nn.Linear(2, 2)
                self.token = self.create_parameter([2])

            def forward(self, x):
                return self.body(x + self.token)

        assert names(Tokens()) == ["(model)", "body"]
        assert names(Tokens(), sample_input=paddle.ones([1, 2])) == ["(model)", "body"]

    def test_batch_norm_statistics_are_no_parameters(self):
        units = find_units(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1D(2)))
        assert [unit.parameters for unit in units] == [("0.weight", "0.bias"), ("1.weight", "1.bias")]


class TestOrder:
    def test_execution_beats_registration(self):
        model = TextNet(transformer(2), 8, order=("head", "stack", "embedding"))
        assert names(model)[0] == "head"
        assert names(model, sample_input=IDS) == ["embedding", "stack.layers.0", "stack.layers.1", "head"]

    def test_tracing_leaves_no_trace(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1D(2), nn.Dropout(0.5), nn.Linear(2, 1))
        model[2].eval()
        before = {name: value.numpy().copy() for name, value in model.state_dict().items()}
        state, modes = paddle.get_rng_state(), [layer.training for layer in model.sublayers(include_self=True)]
        find_units(model, sample_input=paddle.randn([4, 2]))
        drawn = paddle.randn([3]).tolist()
        paddle.set_rng_state(state)
        paddle.randn([4, 2])
        assert drawn == paddle.randn([3]).tolist()
        assert modes == [layer.training for layer in model.sublayers(include_self=True)]
        assert all((value.numpy() == before[name]).all() for name, value in model.state_dict().items())
        assert not any(layer._forward_pre_hooks for layer in model.sublayers())

    def test_shared_layer_belongs_to_its_first_use(self):
        class Tied(nn.Layer):
            def __init__(self):
                super().__init__()
                shared = nn.Linear(2, 2)
                self.bottom, self.middle, self.top = shared, nn.Linear(2, 2), shared
                self.head = nn.Linear(2, 1)

            def forward(self, x):
                return self.head(self.top(self.middle(self.bottom(x))))

        run = hub.ULMFiTStrategy().bind(Tied(), max_train_steps=9, sample_input=paddle.ones([1, 2]))
        assert run.blocks == [
            ["bottom.weight", "bottom.bias"],
            ["middle.weight", "middle.bias"],
            ["head.weight", "head.bias"],
        ]

    def test_weight_shared_by_two_layers_belongs_to_the_lower(self):
        class TiedSoftmax(nn.Layer):
            def __init__(self):
                super().__init__()
                self.out = nn.Linear(4, 6, bias_attr=False)
                self.embedding = nn.Embedding(4, 6)
                self.embedding.weight = self.out.weight

            def forward(self, ids):
                return paddle.matmul(self.out(self.embedding(ids)[..., :4]), self.out.weight, transpose_y=True)

        units = find_units(TiedSoftmax(), sample_input=paddle.to_tensor([[1, 2]]))
        assert [unit.name for unit in units] == ["embedding"]

    def test_a_layer_that_is_never_called_stays_above_its_neighbour(self):
        class Functional(nn.Layer):
            def __init__(self):
                super().__init__()
                self.first, self.second, self.third = (nn.Linear(2, 2) for _ in range(3))

            def forward(self, x):
                return self.third(nn.functional.linear(self.first(x), self.second.weight, self.second.bias))

        assert names(Functional(), sample_input=paddle.ones([1, 2])) == ["first", "second", "third"]

    def test_arguments_as_tuple_and_dict(self):
        class Two(nn.Layer):
            def __init__(self):
                super().__init__()
                self.b, self.a = nn.Linear(2, 2), nn.Linear(2, 2)

            def forward(self, x, y):
                return self.b(self.a(x) + y)

        x = paddle.ones([1, 2])
        assert names(Two(), sample_input=(x, x)) == names(Two(), sample_input={"x": x, "y": x}) == ["a", "b"]

    def test_failing_forward_says_what_to_do(self):
        for layers in (3, "0"):
            with pytest.raises(TypeError, match="layers must be a list of selectors"):
                find_units(nn.Linear(1, 1), layers=layers)
        with pytest.raises(ValueError, match="(?s)sample_input.*layers= by hand"):
            find_units(nn.Linear(2, 2), sample_input=paddle.ones([1, 5]))


class TestByHand:
    def test_layers_override(self):
        model = TextNet(transformer(2), 8)
        layers = [["embedding", "stack.layers.0"], "stack.layers.1", model.head]
        run = hub.ULMFiTStrategy().bind(model, max_train_steps=9, layers=layers)
        assert block_layers(run) == [
            ["embedding.weight", "stack.layers"],
            ["stack.layers"],
            ["head.bias", "head.weight"],
        ]

    def test_overlap_and_gap(self):
        model = TextNet(nn.Linear(8, 8), 8)
        with pytest.raises(ValueError, match=r"layers\[1\] and layers\[0\] both hold \['stack.bias'\]"):
            find_units(model, layers=["stack", "*.bias"])
        with pytest.raises(ValueError, match="leaves out .*head.weight"):
            find_units(model, layers=["embedding", "stack"])


class TestSplit:
    @given(count=st.integers(1, 60), blocks=st.integers(1, 70))
    def test_contiguous_and_balanced(self, count, blocks):
        numbers = split(count, blocks)
        sizes = [numbers.count(i) for i in range(numbers[-1] + 1)]
        assert numbers == sorted(numbers)
        assert len(sizes) == min(blocks, count)
        assert max(sizes) - min(sizes) <= 1

    def test_twelve_layers_in_three_blocks_where_paddlehub_made_5_4_3(self):
        assert [split(12, 3).count(i) for i in range(3)] == [4, 4, 4]


def test_blocks_of_known_models():
    resnet = hub.ULMFiTStrategy().bind(paddle.vision.models.resnet18(), max_train_steps=9)
    assert [sorted({name.split(".")[0] for name in block}) for block in resnet.blocks] == [
        ["bn1", "conv1", "layer1"],
        ["layer2", "layer3"],
        ["fc", "layer4"],
    ]
    text = hub.ULMFiTStrategy().bind(TextNet(transformer(4), 8), max_train_steps=9, sample_input=IDS)
    assert [len({name.split(".weight")[0].split(".bias")[0] for name in block}) > 0 for block in text.blocks] == [
        True
    ] * 3
    tops = [sorted({".".join(n.split(".")[:3]) for n in b if "stack" in n}) for b in text.blocks]
    assert tops == [["stack.layers.0"], ["stack.layers.1", "stack.layers.2"], ["stack.layers.3"]]
    lstm = hub.ULMFiTStrategy().bind(TextNet(nn.LSTM(8, 8), 8), max_train_steps=9, sample_input=IDS)
    assert [block[0].split(".")[0] for block in lstm.blocks] == ["embedding", "stack", "head"]


@pytest.mark.parametrize(
    ("lr", "factors"), [([0.02, 0.0, 0.01], [2.0, 0.0, 1.0]), (slice(0.01), [0.1, 0.1, 1.0]), (0.0, [1.0] * 3)], ids=str
)
def test_lrs_by_layer_are_factors_of_the_top_ones(lr, factors):
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    assert hub.OneCycleStrategy(lr).bind(model, max_train_steps=9).block_factors == pytest.approx(factors)


@pytest.mark.parametrize(("name", "value"), [("gradual_unfreeze", 5), ("discriminative", {"blocks": 5, "factor": 2.0})])
def test_more_blocks_than_layers_are_told_once(name, value):
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    with pytest.warns(UserWarning, match="5 blocks") as told:
        hub.CombinedStrategy(scheduler={name: value}).bind(model, num_epoch=9, steps_per_epoch=2)
    assert [str(one.message) for one in told] == [
        f"{name}: 5 blocks, but the model has 3 layers; each layer is a block"
    ]


class TestStack:
    def test_the_commonest_class_below_the_head(self):
        assert [unit.name for unit in stack_of(TextNet(transformer(3), 8))] == [f"stack.layers.{i}" for i in range(3)]
        plain = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2), nn.LayerNorm(2), nn.Linear(2, 1))
        assert [unit.name for unit in stack_of(plain)] == ["0", "2"]

    def test_of_two_as_common_the_one_with_more_weights(self):
        tied = nn.Sequential(
            nn.Linear(2, 2, bias_attr=False),
            nn.LayerNorm(2),
            nn.LayerNorm(2),
            nn.Linear(2, 2, bias_attr=False),
            nn.Linear(2, 1),
        )
        assert [unit.name for unit in stack_of(tied)] == ["1", "2"]

    def test_where_no_two_are_alike_all_below_the_head(self):
        assert [unit.name for unit in stack_of(nn.Sequential(nn.Embedding(3, 2), nn.LSTM(2, 2), nn.Linear(2, 1)))] == [
            "0",
            "1",
        ]
        assert [unit.name for unit in stack_of(nn.Linear(2, 1))] == ["(model)"]


class TestHead:
    def test_auxiliary_classifiers_stand_below_the_main_head(self):
        class Auxiliary(nn.Layer):
            def __init__(self):
                super().__init__()
                self.body, self.fc, self.aux1, self.aux2 = (nn.Linear(2, 2) for _ in range(4))

            def forward(self, x):
                x = self.body(x)
                return self.fc(x), self.aux1(x), self.aux2(x)

        assert (
            names(Auxiliary()) == names(Auxiliary(), sample_input=paddle.ones([1, 2])) == ["body", "aux1", "aux2", "fc"]
        )

    def test_googlenets_stand_below_its_main_one(self):
        found = names(paddle.vision.models.GoogLeNet(num_classes=2))
        assert found[-7:] == ["_conv_o1", "_fc_o1", "_out1", "_conv_o2", "_fc_o2", "_out2", "_fc_out"]

    def test_a_model_of_auxiliary_layers_only_keeps_its_order(self):
        class Odd(nn.Layer):
            def __init__(self):
                super().__init__()
                self.aux_a, self.aux_b = nn.Linear(2, 2), nn.Linear(2, 2)

        assert names(Odd()) == ["aux_a", "aux_b"]


BATCHES = [
    (7, 7, None),
    ([7], 7, None),
    ((7,), 7, None),
    ([1, 2], 1, 2),
    ((1, 2, 3), (1, 2), 3),
    ({"a": 1, "labels": 2}, {"a": 1}, 2),
    ({"a": 1, "label": 2}, {"a": 1}, 2),
    ({"labels": 2, "label": 3}, {"label": 3}, 2),
    ({"a": 1}, {"a": 1}, None),
]


class TestBatches:
    @pytest.mark.parametrize(("batch", "inputs", "label"), BATCHES)
    def test_inputs_and_label(self, batch, inputs, label):
        assert split_batch(batch) == (inputs, label)
        assert only_inputs(batch) == inputs

    def test_texts_are_refused(self):
        with pytest.raises(TypeError, match="a batch of texts, beginning with 'good'"):
            split_batch(["good", paddle.ones([1])])

    def test_how_a_model_is_called(self):
        assert call(lambda x, y=2: (x, y), (1, 3)) == call(lambda x, y: (x, y), [1, 3]) == (1, 3)
        assert call(lambda x, y: (x, y), {"y": 3, "x": 1}) == (1, 3)
        assert call(lambda x: x, 5) == 5

    @pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (x,), lambda x: [x], lambda x: {"x": x}])
    def test_float64_inputs_are_told_where_the_forward_fails(self, wrap):
        class Net(nn.Layer):
            def __init__(self, double=False):
                super().__init__()
                self.fc = nn.Linear(2, 1)
                if double:
                    self.to(dtype="float64")

            def forward(self, x):
                return self.fc(x) if x.shape[-1] == 2 else self.missing

        double = paddle.ones([1, 2], "float64")
        with pytest.raises(TypeError, match=r"inputs are float64.*x.astype\('float32'\)"):
            call(Net(), wrap(double))
        with pytest.raises(TypeError, match="inputs are float64"):
            find_units(Net(), sample_input=wrap(double))
        assert call(Net(double=True), wrap(double)).dtype == paddle.float64
        for model, x in ((Net(), paddle.ones([1, 3])), (Net(double=True), paddle.ones([1, 3], "float64"))):
            with pytest.raises(AttributeError, match="missing"):
                call(model, wrap(x))


def test_layers_by_number_are_known_by_structured_and_by_paddles_names():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    given = {"0.weight": 0, model[1].weight.name: 3}
    assert named_layers("gradual_unfreeze", given, model) == {"0.weight": 0, "1.weight": 3}
    with pytest.raises(
        ValueError, match="gradual_unfreeze.params_layer: unknown parameter '0.wight'. Did you mean '0.weight'"
    ):
        named_layers("gradual_unfreeze", {"0.wight": 0}, model)


def test_a_unit_without_a_call_among_called_ones_and_own_parameters_of_a_part():
    class Part(nn.Layer):
        def __init__(self):
            super().__init__()
            self.scale = self.create_parameter([2])
            self.layers = nn.LayerList([nn.TransformerEncoderLayer(2, 1, 2) for _ in range(2)])

        def forward(self, x):
            for layer in self.layers:
                x = layer(x * self.scale)
            return x

    class Whole(nn.Layer):
        def __init__(self):
            super().__init__()
            self.head, self.unused, self.part, self.stem = nn.Linear(2, 1), nn.Linear(2, 2), Part(), nn.Linear(2, 2)

        def forward(self, x):
            return self.head(self.part(self.stem(x)))

    found = names(Whole(), sample_input=paddle.ones([1, 3, 2]))
    assert found == ["stem", "part", "part.layers.0", "part.layers.1", "head", "unused"]


def test_what_only_wraps_containers_is_descended_into_however_deep():
    class Wrap(nn.Layer):
        def __init__(self, *inner):
            super().__init__()
            self.inner = inner[0]
            if inner[1:]:
                self.other = inner[1]

    stack = lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))  # noqa: E731
    assert names(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))) == ["0", "1"]
    wrapped = Wrap(Wrap(Wrap(stack())), stack())
    assert names(wrapped) == [f"inner.inner.inner.{i}" for i in range(2)] + [f"other.{i}" for i in range(2)]
    mixed = Wrap(Wrap(nn.Linear(2, 2)), Wrap(stack(), nn.Linear(2, 2)))
    assert names(mixed) == ["inner", "other"]


def test_tracing_a_model_that_draws_numbers_leaves_the_generator_as_it_was():
    class Noisy(nn.Layer):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            return self.fc(x + paddle.randn([1, 2]))

    model, x = Noisy(), paddle.ones([1, 2])
    paddle.seed(4)
    expected = paddle.randn([3]).tolist()
    paddle.seed(4)
    find_units(model, sample_input=x)
    assert paddle.randn([3]).tolist() == expected


def test_own_parameters_stand_lowest_where_no_layer_is_called_as_one():
    class Functional(nn.Layer):
        def __init__(self):
            super().__init__()
            self.token, self.fc = self.create_parameter([2]), nn.Linear(2, 2)

        def forward(self, x):
            return nn.functional.linear(x + self.token, self.fc.weight, self.fc.bias)

    assert names(Functional(), sample_input=paddle.ones([1, 2])) == ["(model)", "fc"]
