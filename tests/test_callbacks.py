"""What callbacks keep through a resumed fit."""

import paddle
import pytest
from paddle import nn
from paddle.io import TensorDataset

import paddle_ftstrat as hub


class Scripted(hub.Callback):
    """Puts given numbers in the place of the epochs' results."""

    def __init__(self, values):
        self.values = values

    def on_epoch_end(self, learner):
        learner.recorder.values[-1]["valid_loss"] = self.values[learner.state.epoch - 1]


def learner(folder=".", **options):
    x = paddle.randn([8, 4])
    pairs = TensorDataset([x, (x.sum(-1) > 0).astype("int64")])
    return hub.Learner(nn.Linear(4, 2), pairs, pairs, batch_size=4, progress=False, path=folder, **options)


LOSSES = [1.0, 0.5, 0.7, 0.6, 0.55, 0.4, 0.3, 0.2]


@pytest.mark.parametrize("patience", [0, 1, 2, 3])
@pytest.mark.parametrize("killed_after", [1, 2, 3, 4])
def test_early_stopping_does_not_notice_that_it_was_resumed(patience, killed_after):
    whole = hub.EarlyStoppingCallback(patience=patience)
    ends = len(learner().fit(8, 0.1, cbs=[Scripted(LOSSES), whole]))
    first = hub.EarlyStoppingCallback(patience=patience)
    done = len(learner().fit(killed_after, 0.1, cbs=[Scripted(LOSSES), first]))
    if done == ends:
        return
    resumed = hub.EarlyStoppingCallback(patience=patience)
    resumed.set_state_dict(first.state_dict())
    rest = learner().fit(8, 0.1, cbs=[Scripted(LOSSES), resumed], start_epoch=done)
    assert done + len(rest) == ends
    assert resumed.state_dict() == whole.state_dict()


def test_state_set_while_the_fit_runs():
    class Restore(hub.Callback):
        def on_epoch_begin(self, given):
            if given.state.epoch == 1:
                stop.set_state_dict({"best": 0.1, "waited": 1})

    stop = hub.EarlyStoppingCallback(patience=2)
    assert len(learner().fit(8, 0.1, cbs=[Restore(), Scripted(LOSSES), stop])) == 2


def test_a_later_fit_begins_anew():
    stop, subject = hub.EarlyStoppingCallback(patience=0), learner()
    stop.set_state_dict({"best": 0.1, "waited": 0})
    assert len(subject.fit(8, 0.1, cbs=[Scripted(LOSSES), stop])) == 1
    assert len(subject.fit(2, 0.1, cbs=[Scripted(LOSSES), stop])) == 2
    assert stop.state_dict() == {"best": 0.5, "waited": 0}


def test_nothing_yet_is_json_too():
    assert hub.EarlyStoppingCallback("acc").state_dict() == {"best": None, "waited": 0}


def test_saved_model_is_loaded_at_the_end_of_a_resumed_fit(tmp_path):
    first = hub.SaveModelCallback()
    subject = learner(tmp_path)
    subject.fit(2, 0.1, cbs=[Scripted(LOSSES), first])
    best = subject.model.weight.numpy().copy()
    assert first.state_dict() == {"best": 0.5, "saved": True}
    resumed = hub.SaveModelCallback()
    resumed.set_state_dict(first.state_dict())
    # Nothing is better than 0.5 in epochs 3 to 5.
    subject.fit(5, 0.1, cbs=[Scripted(LOSSES), resumed], start_epoch=2)
    assert (subject.model.weight.numpy() == best).all()
    assert resumed.state_dict() == {"best": 0.5, "saved": True}


def test_a_finished_fit_is_known_but_not_gone_on_with(tmp_path):
    def stopped():
        stop, subject = hub.EarlyStoppingCallback(patience=0), learner(tmp_path, checkpoints=tmp_path / "ckpt")
        subject.fit(5, 0.1, cbs=[Scripted(LOSSES), stop])
        return stop, subject

    first, _ = stopped()
    again, subject = stopped()
    assert again.state_dict() == first.state_dict() == {"best": 0.5, "waited": 1}
    assert len(subject.fit(2, 0.1, cbs=[Scripted([0.7, 0.6]), again])) == 2


def test_the_best_model_of_a_finished_fit_may_have_been_moved(tmp_path):
    def fitted():
        subject = learner(tmp_path, checkpoints=tmp_path / "ckpt")
        subject.fit(3, 0.1, cbs=[Scripted(LOSSES), hub.SaveModelCallback()])
        return subject.model.weight.numpy()

    best = fitted()
    (tmp_path / "models" / "model.safetensors").unlink()
    assert (fitted() == best).all()
