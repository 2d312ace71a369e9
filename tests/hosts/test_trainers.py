"""The Trainers of PaddleNLP 2.8.1 and of PaddleFormers 1.2, whichever is installed: a small model, random weights."""

import importlib
import importlib.util
from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.io import DataLoader
from processes import run_ranks
from raw_loops import EPOCHS, STRATEGY, bind, by_hand, moved, new_process, same, values

from paddle_ftstrat.integrations.trainers import StrategyArguments
from paddle_ftstrat.strategies import strategy_from_dict

INSTALLED = [name for name in ("paddlenlp", "paddleformers") if importlib.util.find_spec(name)]
if not INSTALLED:
    pytest.skip("neither PaddleNLP nor PaddleFormers is installed", allow_module_level=True)

CONFIGURABLE = hasattr(paddle.distributed.fleet.DistributedStrategy(), "hybrid_configs")
SAMPLES, BATCH = 24, 4
UPDATES = SAMPLES // BATCH
KINDS = {
    "momentum": STRATEGY,
    "adam": {"strategy": "ULMFiTStrategy", "learning_rate": 0.01},
}


@pytest.fixture(params=INSTALLED)
def host(request):
    return importlib.import_module(f"{request.param}.trainer")


class Net(nn.Layer):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(40, 8)
        self.encoder = nn.LayerList([nn.Linear(8, 8), nn.Linear(8, 8)])
        self.head = nn.Linear(8, 2)

    def forward(self, input_ids, labels=None):
        x = self.embedding(input_ids).mean(1)
        for layer in self.encoder:
            x = paddle.tanh(layer(x))
        return self.head(x)


def net(seed=5):
    paddle.seed(seed)
    return Net()


def sentences():
    words = np.random.RandomState(1).randint(1, 40, [SAMPLES, 7]).astype("int64")
    return [{"input_ids": row, "labels": int(row.sum() % 2)} for row in words]


def batches(epoch):
    return [sentences()[first : first + BATCH] for first in range(0, SAMPLES, BATCH)]


def loss(model, batch):
    ids = paddle.to_tensor(np.stack([sample["input_ids"] for sample in batch]))
    labels = paddle.to_tensor([sample["labels"] for sample in batch])
    return nn.functional.cross_entropy(model(ids), labels)


class PowerCut(Exception):
    pass


def trainer(host, model, folder, cut=None, **options):
    count = paddle.distributed.ParallelEnv().world_size

    class InOrder(host.Trainer):
        def get_train_dataloader(self):
            share = self.train_dataset[paddle.distributed.get_rank() :: count]
            return DataLoader(share, batch_size=BATCH // count, collate_fn=self.data_collator)

    class Watch(host.TrainerCallback):
        weights = [values(model)]  # noqa: RUF012

        def on_epoch_end(self, args, state, control, **kwargs):
            self.weights.append(values(model))

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == cut:
                raise PowerCut

    given = {"num_train_epochs": EPOCHS, "save_strategy": "steps", "save_steps": 3, "disable_tqdm": True}
    given = {**given, "amp_master_grad": False, **options}
    if "save_checkpoint_format" in host.TrainingArguments.__dataclass_fields__:
        # Its default, flex_checkpoint, calls optimizer.sharded_state_dict, which no optimizer of Paddle 3.3.1 has.
        given = {"save_checkpoint_format": None, "load_checkpoint_format": None, **given}
    arguments = host.TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=BATCH // count, logging_steps=1, report_to=[], **given
    )
    made = InOrder(
        model=model,
        args=arguments,
        criterion=nn.CrossEntropyLoss(),
        train_dataset=sentences(),
        data_collator=host_collator(host),
        callbacks=[Watch()],
    )
    made.weights = Watch.weights
    return made


def host_collator(host):
    def collate(samples):
        ids = paddle.to_tensor(np.stack([sample["input_ids"] for sample in samples]))
        return {"input_ids": ids, "labels": paddle.to_tensor([sample["labels"] for sample in samples])}

    return collate


@pytest.mark.parametrize("kind", KINDS)
def test_is_the_loop_by_hand_bit_for_bit(host, tmp_path, kind):
    with new_process():
        wanted = by_hand(net(), batches, loss, UPDATES, KINDS[kind])
        model = net()
        made = trainer(host, model, tmp_path)
        run = bind(model, UPDATES, KINDS[kind])
        run.attach(made)
        made.train()
    assert len(made.weights) == len(wanted)
    for one, other in zip(made.weights, wanted):
        same(one, other)
    assert run.epoch == EPOCHS
    layers = [sorted({name.rpartition(".")[0] for name in moved(a, b)}) for a, b in zip(wanted, wanted[1:])]
    assert layers[0] == ["head"]
    assert "embedding" not in layers[1]
    assert layers[2] == layers[3] == ["embedding", "encoder.0", "encoder.1", "head"]


class Ones(Net):
    """Its gradient is 1 everywhere, so that an update moves a weight by its learning rate."""

    def forward(self, input_ids):
        return paddle.add_n([param.sum() for param in self.parameters()])


def test_learning_rates_per_layer_are_read_off_the_weights(host, tmp_path):
    strategy = {"optimizer_name": "sgd", "regularization": {}, "clip": {}}
    with new_process():
        model = Ones()
        made = trainer(host, model, tmp_path, save_strategy="no")
        made.criterion = lambda loss, labels: loss
        weights = [values(model)]
        made.callback_handler.callbacks[-1].on_step_end = lambda *args, **kwargs: weights.append(values(model))
        run = bind(model, UPDATES, {**STRATEGY, **strategy})
        run.attach(made)
        made.train()
    layers, updates = ["embedding", "encoder.0", "encoder.1", "head"], UPDATES * EPOCHS
    warm = int(0.2 * updates)
    assert len(weights) == updates + 1
    for t, (before, after) in enumerate(zip(weights, weights[1:])):
        lr = 0.05 * (t / warm if t < warm else 1 - t / updates)
        trained = layers[-min(len(layers) * (t // UPDATES + 1) // 3, len(layers)) :]
        for block, names in enumerate(run.blocks):
            for name in names:
                moves = lr * 2.0 ** (block - 2) if name.rpartition(".")[0] in trained else 0.0
                np.testing.assert_allclose(before[name] - after[name], moves, rtol=1e-3, atol=2e-7 if moves else 0)


@pytest.mark.parametrize("cut", [4, 8, 13, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_run_resumes(host, tmp_path, kind, cut):
    with new_process():
        wanted = by_hand(net(), batches, loss, UPDATES, KINDS[kind])[-1]
    with new_process():
        model = net()
        made = trainer(host, model, tmp_path, cut=cut)
        bind(model, UPDATES, KINDS[kind]).attach(made)
        with pytest.raises(PowerCut):
            made.train()
    with new_process():
        # Other weights than those that L2SP pulls towards: these come from the checkpoint.
        model = net(seed=8)
        made = trainer(host, model, tmp_path)
        run = bind(model, UPDATES, KINDS[kind])
        run.attach(made)
        made.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{cut - cut % 3}"))
    assert run.epoch == EPOCHS
    assert run.lr_scheduler.last_epoch == UPDATES * EPOCHS
    same(values(model), wanted)


@pytest.mark.skipif(not CONFIGURABLE, reason="this Paddle cannot read fleet's settings with protobuf 7")
def test_sharding_over_two_processes_is_one_and_a_killed_run_resumes(host, tmp_path):
    with new_process():
        wanted = by_hand(net(), batches, loss, UPDATES)
    package, logs = host.__name__.partition(".")[0], tmp_path / "logs"
    script = Path(__file__).with_name("sharded_trainer.py")
    assert run_ranks(2, logs, script, package, tmp_path) == [0, 0], (logs / "workerlog.0").read_text()
    first, second = ([np.load(tmp_path / f"{name}.{rank}.npz") for name in ("whole", "resumed")] for rank in range(2))
    for name, value in wanted[-1].items():
        np.testing.assert_allclose(first[0][name], value, atol=1e-6, rtol=0, err_msg=name)
        for other in (second[0], first[1], second[1]):
            np.testing.assert_array_equal(other[name], first[0][name], err_msg=name)


def test_accumulation_counts_updates(host, tmp_path):
    if "paddleformers" in host.__name__:
        pytest.skip("PaddleFormers 1.2.0 cannot accumulate on a CPU: it calls paddle.device.synchronize()")
    with new_process():
        model = net()
        made = trainer(host, model, tmp_path, gradient_accumulation_steps=2, save_strategy="no")
        run = bind(model, UPDATES // 2)
        run.attach(made)
        made.train()
    assert run.lr_scheduler.last_epoch == UPDATES // 2 * EPOCHS
    assert run.epoch == EPOCHS


def test_half_precision_has_the_same_weights_with_and_without_main_grad(host, tmp_path):
    found = []
    for main_grad in (False, True):
        options = {"bf16": True, "fp16_opt_level": "O2", "amp_master_grad": main_grad, "save_strategy": "no"}
        with new_process():
            model = net()
            before = values(model)
            made = trainer(host, model, tmp_path, **options)
            run = bind(model, UPDATES)
            run.attach(made)
            made.train()
        assert run.epoch == EPOCHS
        assert moved(before, values(model)) == set(before)
        found.append([np.asarray(param.astype("float32").numpy()) for param in model.parameters()])
    for one, other in zip(*found):
        # bfloat16 has 8 bits: a difference of the last one.
        np.testing.assert_allclose(one, other, rtol=2.0**-7, atol=2.0**-9)


def test_option_strategy(host, tmp_path):
    path = tmp_path / "strategy.yaml"
    strategy_from_dict(STRATEGY).to_yaml(path)
    with new_process():
        wanted = by_hand(net(), batches, loss, UPDATES)
    with new_process():
        parser = host.PdArgumentParser((host.TrainingArguments, StrategyArguments))
        given = parser.parse_args_into_dataclasses(
            ["--output_dir", str(tmp_path), "--amp_master_grad", "False", "--strategy", str(path)]
        )[1]
        model = net()
        made = trainer(host, model, tmp_path, save_strategy="no")
        run = given.attach(made)
        made.train()
    assert run.steps_per_epoch == UPDATES
    same(values(model), wanted[-1])


class TestRefused:
    def test_another_model(self, host, tmp_path):
        with new_process(), pytest.raises(ValueError, match="another model"):
            bind(net(), UPDATES).attach(trainer(host, net(), tmp_path))

    def test_an_optimizer_that_is_there(self, host, tmp_path):
        model = net()
        made = trainer(host, model, tmp_path)
        made.optimizer = paddle.optimizer.SGD(parameters=model.parameters())
        with new_process(), pytest.raises(ValueError, match="has another optimizer"):
            bind(model, UPDATES).attach(made)

    def test_an_optimizer_that_came_later(self, host, tmp_path):
        with new_process():
            model = net()
            made = trainer(host, model, tmp_path)
            bind(model, UPDATES).attach(made)
            made.optimizer = paddle.optimizer.SGD(parameters=model.parameters())
            with pytest.raises(ValueError, match=r"run\.attach\(trainer\)"):
                made.train()

    @pytest.mark.parametrize(
        ("argument", "value", "message"),
        [
            ("split_param", True, "every parameter trains"),
            ("sharding", ["stage2"], "stage2: it replaces parameters or gradients"),
            ("sharding", ["stage3"], "stage3: it replaces parameters or gradients"),
            ("tensor", 2, "tensor parallelism"),
            ("pipeline", 2, "pipeline parallelism"),
        ],
    )
    def test_what_splits_the_model(self, host, tmp_path, argument, value, message):
        with new_process():
            model = net()
            made = trainer(host, model, tmp_path)
            names = {"tensor": "tensor_model_parallel_size", "pipeline": "pipeline_model_parallel_size"}
            old = {"tensor": "tensor_parallel_degree", "pipeline": "pipeline_parallel_degree"}
            if argument == "split_param":
                made.args.sharding = ["stage1"]
                made.args.sharding_parallel_config = "split_param"
            for name in (argument, names.get(argument), old.get(argument)):
                if name and hasattr(made.args, name):
                    setattr(made.args, name, value)
            with pytest.raises(ValueError, match=message):
                bind(model, UPDATES).attach(made)


def test_evaluates_the_average_and_trains_on(host, tmp_path):
    seen, trail, model = [], [], net()
    weight = model.head.weight
    run = strategy_from_dict(
        {"strategy": "DefaultStrategy", "learning_rate": 0.1, "optimizer_name": "sgd", "averaging": {"EMA": 0.8}}
    ).bind(model, num_epoch=EPOCHS, steps_per_epoch=UPDATES)
    trail.append(weight.numpy().copy())

    def look(layer, inputs):
        if not layer.training:
            seen.append(weight.numpy().copy())

    class Watch(host.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            trail.append(weight.numpy().copy())

    model.register_forward_pre_hook(look)
    made = trainer(host, model, tmp_path, evaluation_strategy="epoch", save_strategy="no")
    run.attach(made)
    made.eval_dataset = sentences()[:BATCH]
    made.callback_handler.callbacks.insert(0, Watch())
    made.train()
    average = trail[0]
    for w in trail[1:]:
        average = 0.8 * average + 0.2 * w
    np.testing.assert_allclose(seen[-1], average, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(weight.numpy(), trail[-1])
    assert len(trail) == UPDATES * EPOCHS + 1


def test_refuses_a_perturbation(host, tmp_path):
    model = net()
    given = {"strategy": "DefaultStrategy", "learning_rate": 0.1, "optimizer_name": "sgd", "perturbation": {"FGM": 1.0}}
    run = strategy_from_dict(given).bind(model)
    with pytest.raises(ValueError, match=r"perturbation FGM.*the Trainer"):
        made = trainer(host, model, tmp_path, save_strategy="no")
        run.attach(made)
        made.train()
