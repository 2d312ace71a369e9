"""A task's events: their order, their arguments, hooks beside and in the place of the default."""

import inspect
import logging

import numpy as np
import paddle
import pytest
from paddle import nn
from paddle.io import TensorDataset

import paddle_ftstrat as hub
from paddle_ftstrat.tasks.hooks import EVENTS, WITH_STATES


def pairs(samples=20):
    x = paddle.randn([samples, 4])
    return TensorDataset([x, (x.sum(-1) > 0).astype("int64")])


def net():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def task_in(folder, cls=hub.ClassifierTask, cbs=(), phases=("train", "dev", "test"), **given):
    given = {"num_epoch": 2, "batch_size": 5, "log_interval": 2, "eval_interval": 3, **given}
    strategy = hub.DefaultFinetuneStrategy(0.05)
    config = hub.RunConfig(checkpoint_dir=str(folder), strategy=strategy, **given)
    return cls(net(), {phase: pairs() for phase in phases}, config, verbose=False, cbs=cbs)


def listen(task, events=EVENTS):
    heard = []
    for event in events:
        if event in WITH_STATES:
            task.add_hook(event, "heard", lambda task, states, event=event: heard.append((event, task.phase, states)))
        else:
            task.add_hook(event, "heard", lambda task, event=event: heard.append((event, task.phase, None)))
    return heard


def names(heard):
    return [event if event != "run_step" else f"{event} {phase}" for event, phase, _ in heard]


EVALUATION = ["eval_start", *["run_step dev"] * 4, "eval_end"]
# The hooks of eval_interval come after its default one, which evaluates.
FIRST_EVALUATION = ["build_env_start", "build_env_end", *EVALUATION, "eval_interval"]


class TestEvents:
    def test_come_in_order(self, tmp_path):
        task = task_in(tmp_path, save_ckpt_interval=4)
        heard = listen(task)
        task.finetune_and_eval()
        train, test = "run_step train", ["eval_start", *["run_step test"] * 4, "eval_end"]
        assert names(heard) == [
            *["build_env_start", "build_env_end", "finetune_start"],
            *[train, "log_interval", train, *FIRST_EVALUATION, train],
            *["log_interval", "save_ckpt_interval", train],
            *[train, "log_interval", *EVALUATION, "eval_interval", train],
            *[train, "log_interval", "save_ckpt_interval", train, *EVALUATION, "eval_interval"],
            *["finetune_end", *test],
        ]

    def test_prediction(self, tmp_path):
        task = task_in(tmp_path)
        heard = listen(task)
        outputs = task.predict(TensorDataset([paddle.randn([7, 4])]))
        assert names(heard) == [
            *["build_env_start", "build_env_end", "predict_start", "run_step predict", "run_step predict"],
            "predict_end",
        ]
        states = heard[-1][2]
        assert [state.run_examples for state in states] == [5, 2]
        np.testing.assert_array_equal(np.concatenate([state.run_results[0] for state in states]), outputs.numpy())
        assert [state.run_length for state in states] == [1, 1]
        assert np.isnan(states[0].run_loss)
        task.predict(TensorDataset([paddle.randn([3, 4])]))
        assert "build_env_start" not in names(heard)[6:]

    def test_the_learners_own_validation_is_an_evaluation_like_any_other(self, tmp_path):
        task = task_in(tmp_path, cbs=[hub.EarlyStoppingCallback("acc", patience=9)], eval_interval=4)
        heard = listen(task, ["eval_interval", "eval_start", "run_step", "eval_end"])
        results = task.finetune()
        # Update 4 ends the first epoch: evaluated once, not twice.
        assert [event for event in names(heard) if event != "run_step train"] == EVALUATION * 2
        assert set(results[0]) == {"epoch", "train_loss", "valid_loss", "acc"}
        assert task.best_score == max(row["acc"] for row in results)

    def test_phases(self, tmp_path):
        task = task_in(tmp_path)
        seen = {}
        task.add_hook("log_interval", "a", lambda task, states: seen.update(train=task.is_train_phase))
        task.add_hook("eval_start", "a", lambda task: seen.update(dev=(task.phase, task.is_test_phase)))
        task.add_hook("predict_start", "a", lambda task: seen.update(predict=task.is_predict_phase))
        task.finetune()
        task.predict(pairs())
        assert seen == {"train": True, "dev": ("dev", True), "predict": True}
        assert task.phase == ""

    def test_an_error_in_an_evaluation_leaves_no_trace(self, tmp_path):
        task = task_in(tmp_path)

        def fail(task):
            raise RuntimeError("hook")

        task.add_hook("eval_start", "fail", fail)
        with pytest.raises(RuntimeError, match="hook"):
            task.finetune()
        assert (task.phase, task.is_evaluating) == ("", False)
        task.delete_hook("eval_start", "fail")
        assert set(task.finetune_and_eval()) == {"loss", "acc"}


class TestAfterLoss:
    """What a task's hooks see of batches, any callback can see."""

    def test_tells_of_each_batch_in_training_and_evaluations(self, tmp_path):
        heard = []

        class Listener(hub.Callback):
            def on_after_loss(self, learner, batch, output, loss):
                wanted = nn.functional.cross_entropy(output, batch[-1])
                assert loss == pytest.approx(wanted.item(), rel=1e-6)
                heard.append((learner.model.training, output.shape))

        task = task_in(tmp_path, cbs=[Listener()], num_epoch=1, eval_interval=4)
        task.finetune()
        assert heard == [(True, [5, 2])] * 4 + [(False, [5, 2])] * 4
        task.eval("test")
        assert len(heard) == 8

    def test_an_evaluation_within_another_fit_of_the_learner_is_one_of_the_task(self, tmp_path):
        task = task_in(tmp_path)
        heard = listen(task)

        class Evaluate(hub.Callback):
            def on_fit_end(self, learner):
                task.eval("dev")

        task.learner.fit(1, cbs=Evaluate())
        assert names(heard) == ["build_env_start", "build_env_end", *EVALUATION]

    def test_the_training_data_evaluated_in_training(self, tmp_path):
        task = task_in(tmp_path, num_epoch=1, log_interval=4)
        task.add_hook("log_interval", "a", lambda task, states: task.eval("train"))
        heard = listen(task, ["eval_end", "run_step"])
        task.finetune()
        # Four batches of the evaluation come before the event of the update in whose log line it was.
        assert names(heard).count("run_step train") == 8
        assert [(phase, len(states)) for event, phase, states in heard if event == "eval_end"][:2] == [
            *[("dev", 4), ("train", 4)]
        ]

    def test_models_that_return_their_loss_are_counted(self, tmp_path):
        class Model(nn.Layer):
            def __init__(self):
                super().__init__()
                self.head = nn.Linear(4, 1)

            def forward(self, x):
                return self.head(x).square().mean()

        data = {phase: [(paddle.randn([4]).numpy(),) for _ in range(6)] for phase in ("train", "dev")}
        config = hub.RunConfig(batch_size=4, checkpoint_dir=str(tmp_path), strategy=hub.DefaultStrategy(0.1))
        task = hub.RegressionTask(Model(), data, config, metrics_choices=[], verbose=False)
        heard = listen(task, ["run_step", "eval_end"])
        task.finetune()
        assert names(heard) == [*["run_step train"] * 2, *["run_step dev"] * 2, "eval_end"]
        assert [state.run_examples for state in heard[-1][2]] == [4, 2]


class TestRunStates:
    def test_hold_what_the_loop_saw(self, tmp_path):
        task, seen = task_in(tmp_path), []
        task.add_hook("run_step", "a", lambda task, state: seen.append((task.phase, state)))
        task.add_hook("finetune_end", "a", lambda task, states: None)
        task.finetune()
        train = [state for phase, state in seen if phase == "train"]
        assert [state.run_loss for state in train] == task.learner.recorder.losses
        assert {(state.run_step, state.run_examples, state.run_length) for state in train} == {(1, 5, 3)}
        assert all(state.run_time_used > 0 and state.run_speed > 0 for state in train)

    @pytest.mark.parametrize("keep", [True, False])
    def test_examples_of_an_update_of_several_batches(self, keep, tmp_path):
        task, seen = task_in(tmp_path, num_epoch=1), []
        task.learner.accumulate, task.learner.updates = 3, 2
        task.modify_hook("log_interval", "default", lambda task, states: None)
        if not keep:
            task.hears = lambda events: False
        task.add_hook("run_step", "a", lambda task, state: seen.append((task.phase, state)))
        task.finetune()
        train = [state for phase, state in seen if phase == "train"]
        assert [state.run_examples for state in train] == [15, 5]
        assert [state.run_loss for state in train] == task.learner.recorder.losses

    def test_results_are_labels_outputs_and_loss(self, tmp_path):
        task, kept = task_in(tmp_path), []
        task.add_hook("eval_end", "a", lambda task, states: kept.append([state.run_results for state in states]))
        scores = task.eval("dev")
        labels, outputs = (np.concatenate([row[i] for row in kept[0]]) for i in (0, 1))
        assert np.mean(outputs.argmax(-1) == labels.reshape(-1)) == pytest.approx(scores["acc"])
        assert np.mean([row[-1] for row in kept[0]]) == pytest.approx(scores["loss"], rel=1e-6)

    def test_log_interval_gets_the_batches_since_the_last(self, tmp_path):
        task, counted = task_in(tmp_path, num_epoch=1, log_interval=3), []
        task.add_hook("log_interval", "a", lambda task, states: counted.append((task.current_step, len(states))))
        task.add_hook("finetune_end", "b", lambda task, states: counted.append(("end", len(states))))
        task.finetune()
        assert counted == [(3, 3), ("end", 4)]

    def test_outputs_are_kept_only_for_who_asks(self, tmp_path):
        task, ends = task_in(tmp_path), []
        task.finetune()
        assert not task.hears(WITH_STATES)
        task.add_hook("log_interval", "a", lambda task, states: ends.append([s.run_length for s in states]))
        task.add_hook("eval_start", "b", lambda task: None)
        task.finetune()
        assert task.hears(["log_interval"])
        assert not task.hears(["finetune_end"])
        assert ends[0] == [3, 3]

    def test_outputs_of_the_epoch_go_with_the_log_line_unless_finetune_end_asks(self, tmp_path):
        for event, kept in (("log_interval", 1), ("finetune_end", 3)):
            task = task_in(tmp_path / event)
            task.add_hook(event, "a", lambda task, given: None)
            events = []
            task.add_hook("log_interval", "keep", lambda task, given, events=events: events.append(task._events))
            task.finetune()
            assert [state.run_length for state in events[0].epoch] == [kept] * 4


class TestHooks:
    def test_default_may_be_replaced(self, tmp_path):
        task, saved = task_in(tmp_path, save_ckpt_interval=2), []
        task.modify_hook("save_ckpt_interval", "default", lambda task: saved.append(task.current_step))
        task.finetune()
        assert saved == [2, 4, 6, 8]
        assert [file.name for file in (tmp_path / "models").iterdir()] == ["best_model.safetensors"]

    def test_default_may_be_deleted(self, tmp_path, caplog):
        logger = logging.getLogger("paddle_ftstrat")
        logger.setLevel(logging.INFO)
        logger.propagate = True
        logger.handlers.clear()
        task = task_in(tmp_path)
        task._log = logger
        for event in ("log_interval", "eval_end", "finetune_start", "finetune_end", "eval_start"):
            task.delete_hook(event, "default")
        with caplog.at_level(logging.INFO, "paddle_ftstrat"):
            task.finetune()
        assert not caplog.records
        # Without it nothing was kept, so nothing is loaded.
        assert not task.best_model_path.exists()
        assert task.best_score is None

    def test_without_eval_interval_nothing_is_evaluated(self, tmp_path):
        task = task_in(tmp_path)
        task.delete_hook("eval_interval", "default")
        heard = listen(task, ["eval_start"])
        task.finetune()
        assert heard == []

    def test_order_names_and_bound_methods(self, tmp_path):
        class Listener:
            def __init__(self):
                self.got = []

            def states(self, run_states):
                self.got.append(len(run_states))

        listener, task, order = Listener(), task_in(tmp_path, num_epoch=1), []
        task.add_hook("log_interval", "bound", listener.states)
        task.add_hook("finetune_start", "one", lambda task: order.append(1))
        task.add_hook("finetune_start", func=lambda task, extra=0: order.append(2))
        task.finetune()
        assert listener.got == [2, 2]
        assert order == [1, 2]
        assert list(task.hooks["finetune_start"])[:2] == ["default", "one"]
        assert list(task.hooks["finetune_start"])[2].startswith("hook_")
        assert task.hooks.exist("log_interval", "bound")
        task.delete_hook("log_interval", "bound")
        assert not task.hooks.exist("log_interval", "bound")

    def test_info(self, tmp_path):
        task = task_in(tmp_path)
        assert task.hooks_info() == "no hooks beside the default ones"
        task.add_hook("run_step", "mine", lambda task, state: None)
        task.modify_hook("eval_start", "default", lambda task: None)
        lines = task.hooks_info().splitlines()
        assert [line.split(" = ")[0] for line in lines] == ["eval_start: default", "run_step: mine"]
        assert all("test_hooks.py:" in line for line in lines)
        assert len(task.hooks_info(show_default=True).splitlines()) == len(EVENTS) + 1
        assert repr(task.hooks) == task.hooks_info(show_default=True)

    def test_methods_may_be_overridden(self, tmp_path):
        class Mine(hub.ClassifierTask):
            def __init__(self, *args, **kwargs):
                self.calls = []
                super().__init__(*args, **kwargs)

            def _finetune_start_event(self):
                self.calls.append("start")

            def _default_log_interval_event(self, run_states):
                self.calls.append([state.run_length for state in run_states])

        task = task_in(tmp_path, Mine, num_epoch=1)
        task.add_hook("finetune_start", "never", lambda task: task.calls.append("never"))
        task.finetune()
        assert task.calls == ["start", [3, 3], [3, 3]]

    @pytest.mark.parametrize("event", EVENTS)
    def test_every_event_has_two_methods_that_say_what_they_do(self, event):
        for name in (f"_{event}_event", f"_default_{event}_event"):
            method = getattr(hub.ClassifierTask, name)
            assert method.__name__ == name
            assert inspect.getdoc(method).endswith(".")

    def test_a_subclass_calls_what_it_overrides(self, tmp_path):
        class Mine(hub.ClassifierTask):
            calls = ()

            def _eval_end_event(self, run_states):
                super()._eval_end_event(run_states)
                self.calls += (self.best_score,)

        task = task_in(tmp_path, Mine, num_epoch=1)
        task.finetune()
        assert task.calls[-1] == task.best_score

    @pytest.mark.parametrize("event", EVENTS)
    def test_another_number_of_arguments_is_refused(self, event, tmp_path):
        task = task_in(tmp_path)
        wanted = EVENTS[event]
        functions = [lambda: 0, lambda a: 0, lambda a, b: 0, lambda a, b, c: 0]
        for number, function in enumerate(functions):
            if number == wanted:
                task.add_hook(event, "right", function)
            else:
                with pytest.raises(ValueError, match=rf"a hook of {event} takes \(task"):
                    task.add_hook(event, f"wrong {number}", function)
                with pytest.raises(ValueError, match=rf"a hook of {event} takes \(task"):
                    task.modify_hook(event, "default", function)
        task.add_hook(event, "any", lambda *args: 0)
        with pytest.raises(ValueError, match="keyword|takes"):
            task.add_hook(event, "more", lambda *args, needed: 0)

    @pytest.mark.parametrize(
        ("act", "kind", "message"),
        [
            (lambda t: t.add_hook("run_stop", "x", print), ValueError, "'run_stop'. Did you mean 'run_step'"),
            (lambda t: t.delete_hook("eval_ende", "default"), ValueError, "Did you mean 'eval_end'"),
            (lambda t: t.modify_hook("evalend", "default", print), ValueError, "Did you mean 'eval_end'"),
            (lambda t: t.add_hook("run_step", "x"), TypeError, "must be a function, not None"),
            (lambda t: t.add_hook("run_step", 3, lambda a, b: 0), TypeError, "name of a hook must be a string, not 3"),
            (lambda t: t.add_hook("eval_start", "default", lambda a: 0), ValueError, "already has a hook 'default'"),
            (lambda t: t.delete_hook("run_step", "defualt"), ValueError, "Did you mean 'default'"),
            (lambda t: t.modify_hook("run_step", "mine", lambda a, b: 0), ValueError, "unknown hook 'mine'"),
        ],
    )
    def test_errors(self, act, kind, message, tmp_path):
        with pytest.raises(kind, match=message):
            act(task_in(tmp_path))
