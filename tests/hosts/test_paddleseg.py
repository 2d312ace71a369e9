"""PaddleSeg 2.8: its own loop, and its builder that reads the configuration."""

import time

import pytest

pytest.importorskip("paddleseg", reason="PaddleSeg is not installed")

import numpy as np
import paddle
import yaml
from paddle import nn
from paddleseg.core import train as train_of_paddleseg
from paddleseg.core.train import loss_computation
from paddleseg.cvlibs import Config, SegBuilder, manager
from raw_loops import EPOCHS, STRATEGY, by_hand, moved, new_process, same, values

from paddle_ftstrat.integrations import paddleseg
from paddle_ftstrat.param_attr import freeze

SAMPLES, BATCH = 8, 2
UPDATES = SAMPLES // BATCH
ITERS = UPDATES * EPOCHS


class Segmenter(nn.Layer):
    def __init__(self, num_classes=2, in_channels=3):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2D(3, 4, 3, padding=1), nn.BatchNorm2D(4), nn.ReLU())
        self.decoder = nn.Conv2D(4, 4, 1)
        self.head = nn.Conv2D(4, num_classes, 1)

    def forward(self, x):
        return [self.head(nn.functional.relu(self.decoder(self.backbone(x))))]


class Squares(paddle.io.Dataset):
    NUM_CLASSES, IGNORE_INDEX, IMG_CHANNELS = 2, 255, 3

    def __init__(self, transforms=(), mode="train", **kwargs):
        super().__init__()
        rng = np.random.RandomState(0)
        self.images = rng.randn(SAMPLES, 3, 6, 6).astype("float32")
        self.labels = (self.images.sum(1) > 0).astype("int64")
        self.read = []

    def __getitem__(self, index):
        self.read.append(index)
        return {"img": self.images[index], "label": self.labels[index], "trans_info": []}

    def __len__(self):
        return SAMPLES


@pytest.fixture(autouse=True)
def components(monkeypatch):
    for registry, component in ((manager.MODELS, Segmenter), (manager.DATASETS, Squares)):
        monkeypatch.setitem(registry.components_dict, component.__name__, component)
    # It only lets workers finish, and counts operations of a model that is thrown away.
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    monkeypatch.setattr(paddle, "flops", lambda *args, **kwargs: 0)


def builder(tmp_path, optimizer=None, **schedule):
    config = {
        "batch_size": BATCH,
        "iters": ITERS,
        "train_dataset": {"type": "Squares", "transforms": [], "mode": "train"},
        "model": {"type": "Segmenter", "num_classes": 2},
        "optimizer": optimizer or {"type": "Strategy", "strategy": STRATEGY, "steps_per_epoch": UPDATES},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.05, **schedule},
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1]},
    }
    path = tmp_path / "seg.yml"
    path.write_text(yaml.safe_dump(config), "utf-8")
    paddleseg.install()
    return SegBuilder(Config(str(path)))


def train(made, tmp_path, dataset=None, **options):
    np.random.seed(0)
    paddle.seed(1)
    train_of_paddleseg(
        made.model,
        dataset or Squares(),
        optimizer=made.optimizer,
        save_dir=str(tmp_path / "out"),
        batch_size=BATCH,
        losses=made.loss,
        log_iters=1000,
        keep_checkpoint_max=-1,
        **{"iters": ITERS, "save_interval": UPDATES, **options},
    )


def saved(tmp_path, iters):
    return values(paddle.load(str(tmp_path / "out" / f"iter_{iters}" / "model.pdparams")))


def seeded(make):
    paddle.seed(5)
    return make()


def test_is_the_loop_by_hand_bit_for_bit(tmp_path):
    dataset = Squares()
    with new_process():
        made = builder(tmp_path)
        seeded(lambda: made.model)
        start = values(made.model)
        train(made, tmp_path, dataset)
    order = np.reshape(dataset.read[: ITERS * BATCH], [EPOCHS, UPDATES, BATCH])

    def loss(model, indices):
        images = paddle.to_tensor(dataset.images[indices])
        labels = paddle.to_tensor(dataset.labels[indices])
        return sum(loss_computation(model(images), labels, None, made.loss))

    with new_process():
        model = seeded(Segmenter)
        model.train()
        weights = by_hand(model, lambda epoch: order[epoch - 1], loss, UPDATES)
    same(weights[0], start)
    for epoch in range(1, EPOCHS + 1):
        same(weights[epoch], saved(tmp_path, epoch * UPDATES))
    trained = [
        {name for name in moved(a, b) if "_mean" not in name and "_var" not in name}
        for a, b in zip(weights, weights[1:])
    ]
    assert trained[0] == {"head.weight", "head.bias"}
    assert trained[1] == {"head.weight", "head.bias", "decoder.weight", "decoder.bias"}
    assert len(trained[2]) == len(trained[3]) == 8


@pytest.mark.parametrize("epoch", range(1, EPOCHS))
def test_a_killed_run_resumes(tmp_path, epoch):
    """In PaddleSeg's own way, which shuffles anew: so each batch is all samples."""

    def whole_set(made, **options):
        loop_options = {"iters": EPOCHS, "save_interval": 1, **options}
        np.random.seed(0)
        train_of_paddleseg(
            made.model,
            OneBatch(),
            optimizer=made.optimizer,
            save_dir=str(tmp_path / "out"),
            batch_size=1,
            losses=made.loss,
            log_iters=1000,
            **loop_options,
        )

    class OneBatch(Squares):
        def __init__(self):
            super().__init__()
            self.images, self.labels = self.images[:1], self.labels[:1]

        def __len__(self):
            return 1

    optimizer = {"type": "Strategy", "strategy": STRATEGY, "steps_per_epoch": 1}
    with new_process():
        made = builder(tmp_path, optimizer, decay_steps=EPOCHS)
        seeded(lambda: made.model)
        whole_set(made)
    wanted = saved(tmp_path, EPOCHS)
    with new_process():
        made = builder(tmp_path, optimizer, decay_steps=EPOCHS)
        paddle.seed(9)
        assert made.model is not None
        whole_set(made, resume_model=str(tmp_path / "out" / f"iter_{epoch}"))
    same(saved(tmp_path, EPOCHS), wanted)


def test_frozen_batch_norm_stays(tmp_path):
    with new_process():
        made = builder(tmp_path)
        freeze(made.model.backbone, batch_norm="freeze")
        before = values(made.model.backbone)
        train(made, tmp_path)
    same(values(made.model.backbone), before)


def test_ema_of_paddleseg(tmp_path):
    with new_process():
        train(builder(tmp_path), tmp_path, use_ema=True)
    averaged = paddle.load(str(tmp_path / "out" / f"iter_{ITERS}" / "ema_model.pdparams"))
    assert moved(saved(tmp_path, ITERS), values(averaged))


@pytest.mark.parametrize(
    ("optimizer", "schedule", "message"),
    [
        ({"strategy": STRATEGY}, {"learning_rate": 0.1}, "two learning rates, 0.05 of the strategy and 0.1"),
        ({"strategy": STRATEGY}, {"warmup_iters": 2, "warmup_start_lr": 0.0}, "lr_scheduler LinearWarmup"),
        ({"strategy": STRATEGY, "momentum": 0.9}, {}, "momentum beside `strategy` would have no effect"),
        ({}, {}, "type Strategy needs `strategy"),
    ],
)
def test_errors(tmp_path, optimizer, schedule, message):
    made = builder(tmp_path, {"type": "Strategy", "steps_per_epoch": UPDATES, **optimizer}, **schedule)
    with new_process(), pytest.raises((ValueError, RuntimeError), match=message):
        assert made.optimizer
