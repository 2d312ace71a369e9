"""PaddleOCR's loop, in a stand-in with its order of calls (`ocr/`), started as its tools/train.py is."""

import runpy
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from raw_loops import EPOCHS, STRATEGY, by_hand, moved, new_process, same, values

from paddle_ftstrat.integrations import paddleocr
from paddle_ftstrat.integrations.__main__ import main

OCR = Path(__file__).parent / "ocr"
SAMPLES, BATCH = 24, 6


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start tools/train.py, with options, as in a new process."""
    pretrained = str(tmp_path / "pretrained")
    config = {
        "Global": {"epoch_num": EPOCHS, "save_model_dir": str(tmp_path / "out"), "pretrained_model": pretrained},
        "Architecture": {"characters": 5},
        "Optimizer": {"strategy": STRATEGY, "fused": False},
        "Train": {"samples": SAMPLES, "batch_size": BATCH},
    }

    def run(*options, optimizer=None):
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(sys, "argv", [])
        for name in [name for name in sys.modules if name.partition(".")[0] in ("ppocr", "program")]:
            monkeypatch.delitem(sys.modules, name)
        path = tmp_path / "rec.yml"
        path.write_text(yaml.safe_dump({**config, **({"Optimizer": optimizer} if optimizer else {})}), "utf-8")
        with new_process():
            paddle.seed(7)
            main(
                ["paddleocr", str(OCR / "tools" / "train.py"), "-c", str(path), *(["-o", *options] if options else [])]
            )

    with new_process():
        sys.path.insert(0, str(OCR / "tools"))
        paddle.seed(3)
        model = recognizer(9)
        paddle.save(model.state_dict(), pretrained + ".pdparams")
    return run


def recognizer(characters):
    return runpy.run_path(str(OCR / "tools" / "train.py"))["Recognizer"](characters)


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.syspath_prepend(str(OCR))
    monkeypatch.syspath_prepend(str(OCR / "tools"))


def saved(tmp_path, epoch):
    return values(paddle.load(str(tmp_path / "out" / f"iter_epoch_{epoch}.pdparams")))


def wanted(tmp_path):
    """The weights after each epoch of the loop by hand: pretrained weights first, then the binding."""

    def batches(epoch):
        import program

        return program.build_dataloader({"Train": {"samples": SAMPLES, "batch_size": BATCH}}, seed=epoch)

    with new_process():
        paddle.seed(7)
        model = recognizer(5)
        given = paddle.load(str(tmp_path / "pretrained.pdparams"))
        own = model.state_dict()
        model.set_state_dict({name: value for name, value in given.items() if own[name].shape == value.shape})
        loss = lambda model, batch: paddle.nn.functional.cross_entropy(model(batch[0]), batch[1])  # noqa: E731
        return by_hand(model, batches, loss, SAMPLES // BATCH, fused=False)


def test_is_the_loop_by_hand_bit_for_bit(start, tmp_path):
    start()
    weights = wanted(tmp_path)
    for epoch in range(1, EPOCHS + 1):
        same(saved(tmp_path, epoch), weights[epoch])
    layers = ["backbone.0", "backbone.2", "neck.0", "head"]
    trained = [sorted({name.rpartition(".")[0] for name in moved(a, b)}) for a, b in zip(weights, weights[1:])]
    assert trained == [["head"], ["head", "neck.0"], sorted(layers), sorted(layers)]


@pytest.mark.parametrize("epoch", range(1, EPOCHS))
def test_a_killed_run_resumes(start, tmp_path, epoch):
    with pytest.raises(KeyboardInterrupt):
        start(f"Global.power_cut={epoch}")
    start(f"Global.checkpoints={tmp_path / 'out' / 'latest'}")
    same(saved(tmp_path, EPOCHS), wanted(tmp_path)[EPOCHS])


def test_without_a_strategy_nothing_is_changed(start, tmp_path):
    start(optimizer={"name": "Momentum", "momentum": 0.9, "lr": {"learning_rate": 0.1}})
    assert set(paddle.load(str(tmp_path / "out" / "latest.pdopt"))["LR_Scheduler"]) == {"last_epoch", "last_lr"}
    assert moved(saved(tmp_path, 1), saved(tmp_path, 2)) == set(saved(tmp_path, 1))


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        ({"strategy": STRATEGY, "name": "Adam", "lr": {}}, "lr, name beside `strategy` would have no effect"),
        ({"strategy": {**STRATEGY, "learning_rte": 1}}, "learning_rte"),
        ({"strategy": STRATEGY, "pretrained": ["backbon.*"]}, "backbon"),
    ],
)
def test_errors(start, optimizer, message):
    with pytest.raises(ValueError, match=message):
        start(optimizer=optimizer)


def test_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "ocr" not in path])
    for name in [name for name in sys.modules if name.partition(".")[0] == "ppocr"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match="start in PaddleOCR's folder"):
        paddleocr.install()


def test_several_processes_are_refused_where_layers_thaw(start, monkeypatch):
    monkeypatch.setattr(paddle.distributed, "get_world_size", lambda *args: 2)
    with pytest.raises(ValueError, match="PaddleOCR wraps the model in paddle.DataParallel"):
        start()


def test_unknown_host():
    with pytest.raises(SystemExit, match="paddleocr"):
        main(["paddleocrr", "tools/train.py"])


def test_l2sp_pulls_towards_the_weights_that_were_loaded(start, tmp_path):
    start()
    anchors = paddle.load(str(tmp_path / "out" / "latest.pdopt"))["LR_Scheduler"]["ftstrat"]["anchors"]
    pretrained = values(paddle.load(str(tmp_path / "pretrained.pdparams")))
    np.testing.assert_array_equal(anchors["backbone.0.weight"], pretrained["backbone.0.weight"])
