"""PaddleDetection 2.6: its Trainer, made from a configuration."""

import pytest

pytest.importorskip("ppdet", reason="PaddleDetection is not installed")

import numpy as np
import paddle
import yaml
from paddle import nn
from ppdet.core import workspace
from ppdet.engine import Trainer
from raw_loops import EPOCHS, STRATEGY, bind, by_hand, moved, new_process, same, values

from paddle_ftstrat.integrations import paddledet
from paddle_ftstrat.param_attr import freeze

SAMPLES, BATCH = 12, 3
UPDATES = SAMPLES // BATCH


class Detector(nn.Layer):
    """As little of a detector as PaddleDetection's loop asks for."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2D(3, 4, 3, padding=1), nn.BatchNorm2D(4), nn.ReLU())
        self.neck = nn.Conv2D(4, 4, 1)
        self.head = nn.Linear(4, 4)

    def load_meanstd(self, transforms):
        pass

    def forward(self, data):
        x = nn.functional.relu(self.neck(self.backbone(data["image"]))).mean([2, 3])
        return {"loss": nn.functional.mse_loss(self.head(x), data["gt_bbox"])}


class Boxes(paddle.io.Dataset):
    def __init__(self):
        super().__init__()
        rng = np.random.RandomState(0)
        self.images, self.boxes = rng.randn(SAMPLES, 3, 6, 6).astype("float32"), rng.rand(SAMPLES, 4).astype("float32")

    def __call__(self):
        return self

    def set_epoch(self, epoch):
        pass

    def __getitem__(self, index):
        return {"image": self.images[index], "gt_bbox": self.boxes[index]}

    def __len__(self):
        return SAMPLES


@pytest.fixture(autouse=True)
def components(monkeypatch):
    """The registry holds a detector and a data set that need no files."""
    before = {key: value.copy() if isinstance(value, dict) else value for key, value in workspace.global_config.items()}
    made = {"Detector": Detector, "TrainDataset": Boxes, "TrainReader": lambda: reader}
    create = workspace.create
    monkeypatch.setattr("ppdet.engine.trainer.create", lambda name: made[name]() if name in made else create(name))
    yield
    workspace.global_config.clear()
    workspace.global_config.update(before)


def reader(dataset, workers):
    return paddle.io.DataLoader(dataset, batch_size=BATCH)


BLOCK = {"type": "Momentum", "strategy": STRATEGY}


def trainer(tmp_path, optimizer=BLOCK, builder=(), **options):
    paddledet.install()
    config = {
        "architecture": "Detector",
        "metric": "none",
        "epoch": EPOCHS,
        "worker_num": 0,
        "log_iter": 1000,
        "snapshot_epoch": 1,
        "save_dir": str(tmp_path),
        "use_gpu": False,
        "use_npu": False,
        "use_mlu": False,
        "TestReader": {"sample_transforms": []},
        "TrainReader": {"batch_size": BATCH},
        "LearningRate": {"base_lr": 0.05, "schedulers": [{"name": "PiecewiseDecay"}, {"name": "LinearWarmup"}]},
        "OptimizerBuilder": {"optimizer": optimizer, "regularizer": None, **dict(builder)},
        **options,
    }
    path = tmp_path / "det.yml"
    path.write_text(yaml.safe_dump(config), "utf-8")
    cfg = workspace.load_config(str(path))
    return Trainer(cfg, mode="train")


def saved(tmp_path, epoch, ending="pdparams"):
    name = "model_final" if epoch == EPOCHS else str(epoch - 1)
    return values(paddle.load(str(tmp_path / "det" / f"{name}.{ending}")))


def batches(epoch):
    return list(reader(Boxes(), 0))


def loss(model, batch):
    return model(batch)["loss"]


def wanted(seed=5, prepare=lambda model: None, **options):
    with new_process():
        paddle.seed(seed)
        model = Detector()
        prepare(model)
        return by_hand(model, batches, loss, UPDATES, **options)


def test_is_the_loop_by_hand_bit_for_bit(tmp_path):
    with new_process():
        paddle.seed(5)
        trainer(tmp_path).train()
    weights = wanted()
    for epoch in range(1, EPOCHS + 1):
        same(saved(tmp_path, epoch), weights[epoch])
    trained = [
        {name for name in moved(a, b) if "_mean" not in name and "_var" not in name}
        for a, b in zip(weights, weights[1:])
    ]
    assert trained[0] == {"head.weight", "head.bias"}
    assert trained[1] == {"head.weight", "head.bias", "neck.weight", "neck.bias"}
    assert len(trained[2]) == len(trained[3]) == 8


# Of PaddleDetection's averages this one alone is saved as it is; the others are saved corrected, and taken up so.
@pytest.mark.parametrize("average", [{}, {"use_ema": True, "ema_decay_type": "exponential"}], ids=["plain", "EMA"])
@pytest.mark.parametrize("epoch", range(1, EPOCHS))
def test_a_killed_run_resumes(tmp_path, epoch, average):
    files = ["pdema", "pdparams"] if average else ["pdparams"]
    with new_process():
        paddle.seed(5)
        trainer(tmp_path, **average).train()
    whole = [saved(tmp_path, EPOCHS, ending) for ending in files]
    same(whole[0], wanted()[-1])
    with new_process():
        paddle.seed(9)
        resumed = trainer(tmp_path, **average)
        resumed.resume_weights(str(tmp_path / "det" / str(epoch - 1)))
        assert resumed.start_epoch == epoch
        resumed.train()
    for ending, values_of_whole in zip(files, whole):
        same(saved(tmp_path, EPOCHS, ending), values_of_whole)


def test_l2sp_pulls_towards_weights_loaded_after_the_trainer_was_made(tmp_path):
    with new_process():
        paddle.seed(3)
        paddle.save(Detector().state_dict(), str(tmp_path / "pretrained.pdparams"))
    with new_process():
        paddle.seed(5)
        made = trainer(tmp_path)
        made.load_weights(str(tmp_path / "pretrained"))
        made.train()
    same(saved(tmp_path, EPOCHS), wanted(seed=3)[-1])


def test_attach_to_a_trainer_that_is_there(tmp_path):
    with new_process():
        paddle.seed(5)
        made = trainer(tmp_path, {"type": "Momentum", "momentum": 0.9})
        bind(made.model, len(made.loader)).attach(made)
        made.train()
    same(saved(tmp_path, EPOCHS), wanted()[-1])


def test_attach_refuses_another_model(tmp_path):
    with new_process(), pytest.raises(ValueError, match="another model"):
        bind(Detector(), UPDATES).attach(trainer(tmp_path, {"type": "Momentum", "momentum": 0.9}))


def test_frozen_batch_norm_stays(tmp_path):
    with new_process():
        made = trainer(tmp_path, {"type": "Momentum", "momentum": 0.9})
        freeze(made.model.backbone, batch_norm="freeze")
        before = values(made.model.backbone)
        bind(made.model, UPDATES).attach(made)
        made.train()
    same(values(made.model.backbone), before)


def test_a_regularizer_beside_the_strategy_is_told_of(tmp_path):
    with pytest.warns(UserWarning, match="OptimizerBuilder.regularizer .* is not used beside a strategy"):
        trainer(tmp_path, builder={"regularizer": {"type": "L2", "factor": 0.1}})


def test_without_a_strategy_nothing_is_changed(tmp_path):
    with new_process():
        made = trainer(tmp_path, {"type": "Momentum", "momentum": 0.9})
    assert type(made.optimizer) is paddle.optimizer.Momentum
    assert made.lr.state_dict().keys() == {"last_epoch", "last_lr"}


@pytest.mark.parametrize(
    ("optimizer", "builder", "message"),
    [
        ({"strategy": {**STRATEGY, "learning_rate": 0.1}}, {}, "two learning rates, 0.1 of the strategy and 0.05"),
        ({"strategy": STRATEGY}, {"clip_grad_by_norm": 1.0}, "clip_grad_by_norm beside a strategy"),
        ({"strategy": STRATEGY, "use_nesterov": True}, {}, "use_nesterov beside `strategy` would have no effect"),
    ],
)
def test_errors(tmp_path, optimizer, builder, message):
    with new_process(), pytest.raises(ValueError, match=message):
        trainer(tmp_path, optimizer, builder)
