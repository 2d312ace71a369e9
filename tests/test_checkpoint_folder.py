"""A checkpoint folder that others write to, or that has things in it which nobody saved there."""

import errno
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import numpy as np
import paddle
import processes
import pytest
import resumable
from killing import finish, start
from paddle import nn
from test_parallel import launched
from test_store import assert_saved, fill, forked, hidden, state, visible

import paddle_ftstrat as hub
from paddle_ftstrat import _files as lock
from paddle_ftstrat.training.callbacks import Callback
from paddle_ftstrat.training.checkpoint import contents
from paddle_ftstrat.training.checkpoint.store import Store

PAIRS = [(np.full(4, i, "float32"), np.int64(i % 2)) for i in range(8)]


class Do(Callback):
    """Does something after each update."""

    def __init__(self, act):
        self.on_after_update = act


def learner(folder, act=None, **options):
    cbs = [Do(act)] if act else []
    return hub.Learner(
        nn.Linear(4, 2), PAIRS, batch_size=4, cbs=cbs, progress=False, checkpoints=folder and str(folder), **options
    )


def fits(one):
    return len(one.fit(1, strategy=hub.DefaultStrategy(0.01)))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(lock, "_PATIENCE", 0.2)


@pytest.fixture(autouse=True)
def _no_waiting_for_ever():
    """What hangs fails; also in the main thread that joins another."""

    def end(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


class TestLock:
    def test_the_second_process_is_told_of_the_first_until_that_is_killed(self, tmp_path):
        folder, result = tmp_path / "ckpt", tmp_path / "first.npz"
        first = start(folder, result, every=2, pace=0.3)
        while not Path(f"{result}.progress").exists():
            assert first.is_alive(), Path(f"{result}.log").read_text()
            time.sleep(0.1)
        second = resumable.build(folder, str(tmp_path / "second"), every=2)
        wanted = rf"another fit writes to .*ckpt: process {first.pid} on host {socket.gethostname()}, since 20\d\d-"
        with pytest.raises(RuntimeError, match=wanted):
            resumable.run(second)
        assert second.recorder.losses == []
        first.kill()
        first.join()
        third = start(folder, result, every=2, pace=0)
        finish(third)

    def test_a_forked_child_does_not_hold_on_to_the_lock(self, tmp_path):
        def parent(report):
            with lock.locked(tmp_path):
                report(os.getpid())
                child = os.fork()
                if not child:
                    time.sleep(60)
                    os._exit(0)
                report(child)
                time.sleep(60)

        process, reading = forked(parent)
        with os.fdopen(reading) as pipe:
            assert int(pipe.readline()) == process
            child = int(pipe.readline())
            with pytest.raises(RuntimeError, match=f"process {process} on"), lock.locked(tmp_path):
                pass
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            try:
                os.kill(child, 0)
                with lock.locked(tmp_path):
                    pass
            finally:
                os.kill(child, signal.SIGKILL)

    def test_a_child_that_leaves_the_block_leaves_the_parents_lock(self, tmp_path):
        with lock.locked(tmp_path):
            child = os.fork()
            if not child:
                os._exit(self.leaves(tmp_path))
            assert os.waitpid(child, 0)[1] == 0
            with pytest.raises(RuntimeError, match=f"process {os.getpid()} on"), lock.locked(tmp_path):
                pass
        with lock.locked(tmp_path):
            pass

    def leaves(self, folder):
        lock._give_back(max(lock._handles, default=-1))
        return 0 if not lock._handles and json.loads((folder / ".lock").read_text()) else 1

    def test_fits_one_after_the_other(self, tmp_path):
        class Failing(Exception):
            pass

        def fail(_):
            raise Failing

        for _ in range(2):
            with pytest.raises(Failing):
                fits(learner(tmp_path, fail))
        one = learner(tmp_path)
        assert [fits(one), fits(one), fits(learner(tmp_path))] == [1, 1, 1]
        assert hidden(tmp_path) == [".lock"]
        assert (tmp_path / ".lock").read_bytes() == b""

    def test_two_learners_of_one_process_at_the_same_time(self, tmp_path):
        begun, go_on = threading.Event(), threading.Event()
        first = learner(tmp_path, lambda _: (begun.set(), go_on.wait(60)))
        thread = threading.Thread(target=fits, args=[first])
        thread.start()
        try:
            begun.wait(60)
            second = learner(tmp_path)
            with pytest.raises(RuntimeError, match=f"another fit writes to .*: process {os.getpid()} on"):
                fits(second)
            assert second.recorder.losses == []
            assert fits(learner(tmp_path / "other")) == 1
        finally:
            go_on.set()
            thread.join()
        assert len(first.recorder.losses) == 2
        assert fits(second) == 1

    def test_tasks(self, tmp_path):
        config = hub.RunConfig(checkpoint_dir=str(tmp_path), batch_size=4, strategy=hub.DefaultStrategy(0.01))
        task = hub.ClassifierTask(nn.Linear(4, 2), {"train": PAIRS}, config, verbose=False)
        with Store(tmp_path / "checkpoints").writing(), pytest.raises(RuntimeError, match="another fit writes"):
            task.finetune()
        assert task.learner.recorder.losses == []
        assert len(task.finetune()) == 1

    def test_all_ranks_are_told(self, tmp_path):
        with Store(tmp_path / "ckpt").writing():
            told = launched(tmp_path, 2, "both", fails=True, batch=4, folder=str(tmp_path / "ckpt"))
        assert f"process {os.getpid()} on" in told
        for rank in range(2):
            assert "RuntimeError: another fit writes" in (tmp_path / f"logs_both/workerlog.{rank}").read_text()

    def test_a_file_system_without_locks(self, tmp_path, monkeypatch):
        def unsupported(*_):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(lock.fcntl, "flock", unsupported)
        with pytest.warns(RuntimeWarning, match=r"cannot be locked here \(No locks available\)"):
            assert fits(learner(tmp_path)) == 1

    @pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "socket", "folder", "device"])
    def test_something_else_called_lock(self, tmp_path, kind):
        one = learner(tmp_path / "ckpt")
        place = tmp_path / "ckpt" / ".lock"
        place.parent.mkdir()
        put(place, kind, tmp_path)
        with pytest.raises(OSError, match=r"the folder cannot be locked: .*ckpt/\.lock"):
            fits(one)
        assert one.recorder.losses == []
        assert (tmp_path / "mine").read_text() == "mine"
        assert not (tmp_path / "nowhere").exists()

    def test_a_message_stays_short_whatever_the_file_says(self, tmp_path):
        with lock.locked(tmp_path):
            for text in ('{"host": "%s", "pid": [], "since": {}}' % ("x" * 900), "no JSON", "[1]", "x" * 10**6):
                (tmp_path / ".lock").write_text(text)
                with pytest.raises(RuntimeError, match="another fit writes") as error, lock.locked(tmp_path):
                    pass
                assert len(str(error.value)) < 1000


def put(place, kind, tmp_path):
    """Something that is no checkpoint's; `tmp_path/mine` is the user's own file, `tmp_path/folder` their folder."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine")
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "socket":
        here = os.getcwd()
        os.chdir(place.parent)  # the name of a socket is at most 108 bytes long
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(place.name)
        os.chdir(here)
    elif kind == "folder":
        place.mkdir()
    elif kind == "file":
        place.write_text("mine")
    else:
        target = {"link": "mine", "dangling link": "nowhere", "link to a folder": "folder", "device": "/dev/zero"}[kind]
        place.symlink_to(tmp_path / target)


class TestSameLearner:
    @pytest.mark.parametrize(
        "second",
        [
            fits,
            lambda one: one.fit(1),
            lambda one: one.fit_one_cycle(1, reset_opt=True),
            lambda one: one.fine_tune(1),
            lambda one: one.lr_find(),
        ],
        ids=["strategy", "fit", "one_cycle", "fine_tune", "lr_find"],
    )
    @pytest.mark.parametrize("elsewhere", [True, False], ids=["thread", "callback"])
    def test_a_second_fit_is_refused_and_the_first_goes_on(self, second, elsewhere):
        def weights(act):
            paddle.seed(3)
            np.random.seed(3)
            one = learner(None, act)
            assert fits(one) == 1
            return one.model.weight.numpy().tolist()

        refused = []

        def act(one):
            def attempt():
                with pytest.raises(RuntimeError, match="this Learner is in a fit already"):
                    second(one)
                refused.append(True)

            thread = threading.Thread(target=attempt)
            (thread.start(), thread.join()) if elsewhere else attempt()

        assert weights(act) == weights(lambda _: None)
        assert len(refused) == 2


class TestOddThings:
    @pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder", "dangling link", "link to a folder"])
    @pytest.mark.parametrize("name", ["manifest.json", "facts.json", "model.safetensors"])
    def test_in_the_place_of_a_file(self, tmp_path, name, kind):
        store = fill(tmp_path / "ckpt")
        place = tmp_path / "ckpt" / "step_000000030" / name
        place.unlink()
        put(place, kind, tmp_path)
        with pytest.warns(RuntimeWarning, match=f"step_000000030/{name}: (not a regular|missing|cannot be read)"):
            assert_saved(store.latest(), 20)
        store = Store(tmp_path / "ckpt", keep=2)
        store.save(40, state(40), {"step": 40})
        store.wait()
        assert_saved(store.latest(), 40)
        assert (tmp_path / "folder" / "mine").read_text() == "mine"

    @pytest.mark.parametrize("kind", ["link", "dangling link", "link to a folder", "file", "pipe", "socket"])
    @pytest.mark.parametrize("name", ["step_000000002", ".step_000000002.old", ".step_000000002.0123abcd.tmp"])
    def test_with_the_name_of_a_checkpoint(self, tmp_path, name, kind):
        """Said before the first step and by each save, and never removed."""
        folder = tmp_path / "ckpt"
        fill(folder)
        one, place = learner(folder), folder / name
        put(place, kind, tmp_path)
        inode = place.lstat().st_ino
        with pytest.raises(NotADirectoryError, match=rf"with the name of a checkpoint: move it away: .*{name}"):
            fits(one)
        assert one.recorder.losses == []
        store = Store(folder)
        store.save(2, state(2))
        wanted = rf"saving the checkpoint of step 2 failed: .* with the name of a checkpoint: move it away: .*{name}"
        with pytest.raises(NotADirectoryError, match=wanted):
            store.wait()
        assert (tmp_path / "mine").read_text() == (tmp_path / "folder" / "mine").read_text() == "mine"
        assert place.lstat().st_ino == inode
        assert set(visible(folder)) - {2} == {10, 20, 30}

    def test_what_only_looks_like_ours(self, tmp_path):
        others = ["step_by_step", ".step_notes.tmp", ".step_1.old"]
        for name in others:
            (tmp_path / name).mkdir()
        (tmp_path / "step_latest").symlink_to(tmp_path / "step_by_step")
        assert fits(learner(tmp_path)) == 1
        assert {path.name for path in tmp_path.iterdir()} >= {*others, "step_latest"}

    @pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
    def test_a_saved_model(self, tmp_path, kind):
        (tmp_path / "models").mkdir()
        put(tmp_path / "models" / "a.safetensors", kind, tmp_path)
        with pytest.raises(ValueError, match=r"a\.safetensors is not a regular file"):
            learner(None, path=tmp_path).load("a")
        with pytest.raises(FileNotFoundError, match=r"b\.safetensors"):
            contents.read(tmp_path / "b.safetensors")
        path = tmp_path / "models" / "a.safetensors"
        with pytest.raises(ValueError, match="is not a regular file"), lock.open_regular(path):
            raise AssertionError


def test_two_hundred_mutated_folders(tmp_path):
    """In a process of its own, whose memory counts."""
    script = Path(__file__).parent / "mutated_folders.py"
    outcomes = json.loads(processes.run(tmp_path, script, tmp_path).splitlines()[-1])
    assert outcomes["cases"] >= 200
    assert outcomes["megabytes"] <= 256
    assert outcomes["taken"] + outcomes["refused"] == outcomes["cases"]
    assert min(outcomes["taken"], outcomes["refused"]) >= 20
