"""A folder of checkpoints: what is loaded was saved, whatever happened to the process, the disk or the files."""

import errno
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent import futures
from functools import partial
from pathlib import Path

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_ftstrat import load_pretrained
from paddle_ftstrat.training.checkpoint import folder as store_folder
from paddle_ftstrat.training.checkpoint.store import Store

DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64", "complex64")
BOTH = pytest.mark.parametrize("background", [False, True], ids=["waits", "background"])


def state(step, version=0, size=50):
    """Parts whose values follow from the step."""
    values = np.random.default_rng([step, version]).standard_normal(size).astype("float32")
    return {"model": {"w": values, "n": np.asarray(step)}, "optimizer": {"w::moment": values * 2}}


def fill(folder, steps=(10, 20, 30), best=(), keep=9):
    store = Store(folder, keep=keep, background=False)
    for step in steps:
        store.save(step, state(step), {"step": step}, best=step in best)
    return store


def assert_saved(found, step, version=0, size=50):
    assert (found.step, found.facts["step"]) == (step, step)
    assert found.path.name in (f"step_{step:09d}", f".step_{step:09d}.old")
    wanted = state(step, version, size)
    assert found.parts.keys() == wanted.keys()
    for part, tensors in wanted.items():
        assert found.parts[part].keys() == tensors.keys()
        for name, value in tensors.items():
            np.testing.assert_array_equal(found.parts[part][name].numpy(), value)


def which(found):
    """The version of its step's values that a checkpoint holds."""
    values = found.parts["model"]["w"].numpy()
    return [np.array_equal(values, state(found.step, version)["model"]["w"]) for version in (0, 1)].index(True)


def visible(folder):
    return sorted(int(path.name[5:]) for path in folder.iterdir() if not path.name.startswith("."))


def hidden(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def bits(tensor):
    array = np.ascontiguousarray(tensor.numpy() if isinstance(tensor, paddle.Tensor) else tensor)
    return array.reshape(-1).view(np.uint8).tobytes()


class TestRoundTrip:
    @BOTH
    @pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (7,), (3, 5)], ids=str)
    def test_every_type_and_shape(self, tmp_path, background, shape):
        values = paddle.to_tensor(np.random.standard_normal(shape) * 100)
        tensors = {dtype: values.astype(dtype) for dtype in DTYPES}
        store = Store(tmp_path, background=background)
        store.save(0, {"model": tensors, "nothing": {}})
        found = store.latest()
        assert (found.step, found.facts, found.parts["nothing"]) == (0, {}, {})
        for dtype, tensor in tensors.items():
            loaded = found.parts["model"][dtype]
            assert (loaded.dtype, list(loaded.shape)) == (tensor.dtype, list(shape))
            assert bits(loaded) == bits(tensor)

    @BOTH
    def test_every_bfloat16_there_is(self, tmp_path, background):
        every = np.arange(2**16, dtype=np.uint16)
        store = Store(tmp_path, background=background)
        store.save(1, {"model": {"w": paddle.to_tensor(every, dtype="bfloat16")}})
        assert bits(store.latest().parts["model"]["w"]) == every.tobytes()

    @BOTH
    def test_arrays_that_lie_otherwise_in_memory(self, tmp_path, background):
        array = np.random.rand(6, 4).astype("float32")
        given_ = {
            "strided": array[::2, 1:3],
            "columns": np.asfortranarray(array),
            "big-endian": array.astype(">f4"),
            "transposed": paddle.transpose(paddle.to_tensor(array), [1, 0]),
            "slice": paddle.to_tensor(array)[1:, 2:],
        }
        store = Store(tmp_path, background=background)
        store.save(1, {"model": given_})
        found = store.latest().parts["model"]
        for name, value in given_.items():
            wanted = value.numpy() if isinstance(value, paddle.Tensor) else value
            np.testing.assert_array_equal(found[name].numpy(), wanted)

    def test_facts(self, tmp_path):
        facts = {"loss": float("inf"), "名": ["é", None, True, 1.5], "deep": {"a": {"b": []}}}
        store = Store(tmp_path)
        store.save(1, {"model": {}}, facts)
        assert store.latest().facts == facts

    def test_loaded_tensors_do_not_hang_on_the_files(self, tmp_path):
        found = fill(tmp_path).latest()
        for file in found.path.iterdir():
            file.write_bytes(b"")
        assert_saved(found, 30)
        found.parts["model"]["w"].set_value(paddle.zeros([50]))

    def test_a_part_is_a_file_of_weights(self, tmp_path):
        model, other = paddle.nn.Linear(2, 3), paddle.nn.Linear(2, 3)
        store = Store(tmp_path)
        store.save(1, {"model": model.state_dict()})
        load_pretrained(other, store.latest().path / "model.safetensors", strict=True)
        np.testing.assert_array_equal(other.weight.numpy(), model.weight.numpy())

    @settings(max_examples=30)
    @given(
        sizes=st.lists(st.tuples(st.sampled_from(DTYPES), st.integers(0, 200)), max_size=8), rounds=st.integers(1, 3)
    )
    def test_copies_hold_what_was_there(self, sizes, rounds):
        """Memory of earlier copies is used again; copies of one round never overlap."""
        copies = store_folder.Copies()
        for turn in range(rounds):
            parts = {"a": {}, "b": {}}
            for index, (dtype, size) in enumerate(sizes):
                values = paddle.to_tensor(np.arange(size * (turn + 1)) + index + turn).astype(dtype)
                parts["ab"[index % 2]][str(index)] = values
            wanted = {part: {name: bits(value) for name, value in held.items()} for part, held in parts.items()}
            taken = copies.take(parts)
            for held in parts.values():
                for value in held.values():
                    value.set_value(paddle.zeros(value.shape).astype(value.dtype))
            assert {p: {n: bits(entry.read()) for n, entry in held.items()} for p, held in taken.items()} == wanted


class TestKeeping:
    @settings(max_examples=30)
    @given(
        saves=st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=9),
        keep=st.integers(1, 3),
    )
    def test_the_last_and_the_best(self, tmp_path_factory, saves, keep):
        """Steps may come again and go back: the order of saving counts."""
        folder = tmp_path_factory.mktemp("store")
        store = Store(folder, keep=keep, background=False)
        order, marked = [], []
        for step, best in saves:
            best = best or step in marked
            order = [*(known for known in order if known != step), step]
            marked = [*(known for known in marked if known != step), *([step] if best else [])]
            store.save(step, state(step), {"step": step}, best=best)
            kept = order[-keep:] + [known for known in marked[-1:] if known not in order[-keep:]]
            order = [known for known in order if known in kept]
            marked = [known for known in marked if known in kept]
            assert visible(folder) == sorted(kept)
            assert_saved(store.latest(), step)
            assert (store.latest(best=True) and store.latest(best=True).step) == (marked[-1] if marked else None)
        assert hidden(folder) == []

    def test_nothing_saved(self, tmp_path):
        for folder in (tmp_path / "none", tmp_path):
            assert Store(folder).latest() is None
            assert Store(folder).latest(best=True) is None
        (tmp_path / "notes.txt").write_text("mine")
        fill(tmp_path, keep=1)
        assert (tmp_path / "notes.txt").read_text() == "mine"

    @BOTH
    def test_the_same_step_again(self, tmp_path, background):
        fill(tmp_path, best=(20,))
        store = Store(tmp_path, keep=9, background=background)
        store.save(20, state(20, 1), {"step": 20})
        assert_saved(store.latest(), 20, 1)
        assert_saved(store.latest(best=True), 20, 1)
        assert (visible(tmp_path), hidden(tmp_path)) == ([10, 20, 30], [])

    def test_a_damaged_one_takes_no_good_ones_place(self, tmp_path):
        store = fill(tmp_path, keep=2)
        (tmp_path / "step_000000030" / "model.safetensors").write_bytes(b"")
        with pytest.warns(RuntimeWarning, match="0 bytes long"):
            assert_saved(store.latest(), 20)
        store.save(25, state(25), {"step": 25})
        assert visible(tmp_path) == [20, 25]
        (tmp_path / "step_000000025" / "manifest.json").unlink()
        Store(tmp_path, keep=2, background=False).save(27, state(27), {"step": 27})
        assert visible(tmp_path) == [20, 27]

    def test_what_killed_runs_left(self, tmp_path):
        fill(tmp_path)
        shutil.copytree(tmp_path / "step_000000030", tmp_path / ".step_000000030.0123.tmp")
        shutil.copytree(tmp_path / "step_000000010", tmp_path / ".step_000000010.old")
        os.rename(tmp_path / "step_000000030", tmp_path / ".step_000000030.old")
        store = Store(tmp_path, keep=9, background=False)
        assert_saved(store.latest(), 30)
        store.save(40, state(40), {"step": 40})
        assert (visible(tmp_path), hidden(tmp_path)) == ([10, 20, 30, 40], [])


class TestBackground:
    @pytest.fixture
    def gate(self, monkeypatch):
        """Writing waits until the gate opens."""
        opened, write = threading.Event(), store_folder.write
        monkeypatch.setattr(store_folder, "write", lambda *args: (opened.wait(20), write(*args))[1])
        yield opened
        opened.set()

    def test_what_is_given_may_change_afterwards(self, tmp_path, gate):
        store = Store(tmp_path)
        given_ = state(5)
        given_["model"]["w"] = paddle.to_tensor(given_["model"]["w"])
        facts = {"step": 5}
        store.save(5, given_, facts)
        given_["model"]["w"].set_value(paddle.zeros([50]))
        given_["model"]["n"][...] = 0
        given_["optimizer"].clear()
        facts["step"] = 6
        gate.set()
        assert_saved(store.latest(), 5)

    def test_a_second_save_waits_for_the_first(self, tmp_path, gate):
        store, saved = Store(tmp_path), []
        store.save(1, state(1), {"step": 1})

        def second():
            store.save(2, state(2), {"step": 2})
            saved.append(2)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        assert saved == []
        gate.set()
        thread.join(20)
        store.wait()
        assert visible(tmp_path) == [1, 2]

    def test_an_error_comes_out_once(self, tmp_path, monkeypatch):
        store = Store(tmp_path)
        with monkeypatch.context() as broken:
            broken.setattr(os, "fsync", full_disk)
            store.save(1, state(1))
            futures.wait(store._running)
        with pytest.raises(OSError, match="saving the checkpoint of step 1 failed: No space"):
            store.save(2, state(2))
        assert store.latest() is None
        store.save(2, state(2), {"step": 2})
        store.wait()
        assert_saved(store.latest(), 2)

    def test_exit_waits_and_says_what_failed(self, tmp_path):
        script = """
import paddle_ftstrat, numpy as np, os, sys, time
from paddle_ftstrat.training.checkpoint import folder as store_folder
from paddle_ftstrat.training.checkpoint.store import Store
write = store_folder.write
def slow(folder, *rest):
    time.sleep(0.5)
    if folder.parent.name == "bad":
        raise OSError(28, "No space left on device")
    write(folder, *rest)
store_folder.write = slow
stores = [Store(sys.argv[1] + "/" + name) for name in ("good", "bad")]
for store in stores:
    store.save(7, {"model": {"w": np.arange(1000_000), "small": np.arange(9)}})
print("end of the script")
"""
        env = {**os.environ, "PYTHONWARNINGS": "default"}
        ran = subprocess.run(
            [sys.executable, "-c", script, tmp_path], env=env, capture_output=True, text=True, timeout=120
        )
        assert (ran.returncode, ran.stdout.splitlines()[-1]) == (0, "end of the script")
        assert "bad failed: OSError: [Errno 28] saving the checkpoint of step 7 failed: No space left" in ran.stderr
        found = Store(tmp_path / "good").latest()
        np.testing.assert_array_equal(found.parts["model"]["w"].numpy(), np.arange(1000_000))
        assert hidden(tmp_path / "bad") == []


def outcome(store, step):
    """The OSError of saving version 1 of a step, if there is one."""
    try:
        store.save(step, state(step, 1), {"step": step})
        store.wait()
    except OSError as error:
        return error
    return None


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class TestDamage:
    FILES = ("manifest.json", "facts.json", "model.safetensors", "optimizer.safetensors")

    def spoil(self, file, how, other):
        content = file.read_bytes()
        if how == "removed":
            file.unlink()
        elif how == "swapped":
            shutil.copy(other, file)
        elif how == "a folder":
            file.unlink()
            file.mkdir()
        else:
            file.write_bytes({"emptied": b"", "shorter": content[:-1], "longer": content + b"\n"}[how])

    @pytest.mark.parametrize("how", ["removed", "emptied", "shorter", "longer", "swapped", "a folder"])
    @pytest.mark.parametrize("name", FILES)
    def test_every_file(self, tmp_path, name, how):
        store = fill(tmp_path, best=(10, 30))
        self.spoil(tmp_path / "step_000000030" / name, how, tmp_path / "step_000000020" / name)
        for load, step in ((store.latest, 20), (partial(store.latest, best=True), 10)):
            with pytest.warns(RuntimeWarning, match="passed over") as warned:
                assert_saved(load(), step)
            assert [f"step_000000030/{name}: " in str(warning.message) for warning in warned] == [True]
        shutil.copy(tmp_path / "step_000000010" / "facts.json", tmp_path / "step_000000020" / "facts.json")
        with pytest.warns(RuntimeWarning) as warned:
            assert_saved(store.latest(), 10)
        assert len(warned) == 2

    @settings(max_examples=60)
    @given(data=st.data())
    def test_every_bit(self, tmp_path_factory, data):
        folder = tmp_path_factory.mktemp("store")
        store = fill(folder, steps=(1, 2))
        file = folder / "step_000000002" / data.draw(st.sampled_from(self.FILES))
        content = bytearray(file.read_bytes())
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] ^= 1 << data.draw(st.integers(0, 7))
        file.write_bytes(content)
        with pytest.warns(RuntimeWarning, match=rf"{file.name}: .*checksum"):
            assert_saved(store.latest(), 1)

    def test_every_byte_and_length_of_the_manifest(self, tmp_path):
        fill(tmp_path, steps=(1,))
        folder = tmp_path / "step_000000001"
        content = (folder / "manifest.json").read_bytes()
        spoiled = [content[:length] for length in range(len(content))]
        for position in range(len(content)):
            changed = bytearray(content)
            changed[position] ^= 1 << position % 8
            spoiled.append(bytes(changed))
        for text in spoiled:
            (folder / "manifest.json").write_bytes(text)
            with pytest.raises(store_folder.Damaged, match="own checksum"):
                store_folder.read_manifest(folder, 1)

    def test_a_folder_under_another_name(self, tmp_path):
        store = fill(tmp_path)
        os.rename(tmp_path / "step_000000020", tmp_path / "step_000000040")
        with pytest.warns(
            RuntimeWarning, match="step_000000040/manifest.json: from another checkpoint: it says step 20"
        ):
            assert_saved(store.latest(), 30)

    def test_none_left(self, tmp_path):
        store = fill(tmp_path, steps=(10, 20))
        (tmp_path / "step_000000010" / "manifest.json").unlink()
        (tmp_path / "step_000000020" / "model.safetensors").write_bytes(b"\x80\x04N.")
        with pytest.raises(ValueError, match="no undamaged checkpoint.*remove the folder") as error:
            store.latest()
        for named in ("step_000000010/manifest.json: missing", "step_000000020/model.safetensors: 4 bytes long"):
            assert named in str(error.value)

    def test_the_only_best_one(self, tmp_path):
        store = fill(tmp_path, best=(10,))
        (tmp_path / "step_000000010" / "facts.json").unlink()
        with pytest.raises(ValueError, match=r"no undamaged best checkpoint.*\n.*step_000000010/facts\.json: missing"):
            store.latest(best=True)
        assert_saved(store.latest(), 30)

    def manifest(self, folder, **changes):
        file = folder / "manifest.json"
        content = {**json.loads(file.read_bytes()), **changes}
        del content["checksum"]
        file.write_bytes(store_folder.encode(content))

    def test_a_newer_format(self, tmp_path):
        store = fill(tmp_path)
        self.manifest(tmp_path / "step_000000020", format=2, files=None, novel=[])
        for act in (store.latest, partial(store.latest, best=True), lambda: store.save(40, state(40))):
            with pytest.raises(ValueError, match="step_000000020 has format 2; this version .* reads format 1"):
                act()
        assert (visible(tmp_path), hidden(tmp_path)) == ([10, 20, 30], [])

    def test_a_manifest_that_names_files_elsewhere(self, tmp_path):
        store = fill(tmp_path, steps=(10,))
        secret = tmp_path / "secret.safetensors"
        shutil.copy(tmp_path / "step_000000010" / "model.safetensors", secret)
        described = {"size": secret.stat().st_size, "sha256": hashlib.sha256(secret.read_bytes()).hexdigest()}
        self.manifest(tmp_path / "step_000000010", files={"../secret.safetensors": described})
        with pytest.raises(ValueError, match="files of other folders"):
            store.latest()


class TestErrors:
    @BOTH
    @pytest.mark.parametrize("call", ["fsync", "rename", "mkdir"])
    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES], ids=errno.errorcode.get)
    def test_a_call_that_fails_leaves_what_was_there(self, tmp_path, monkeypatch, background, call, code):
        """Each call of its kind in turn, also while a checkpoint is replaced."""
        real = getattr(os, call)
        for step in (30, 40):
            for turn in range(99):
                folder = tmp_path / f"{step}-{turn}"
                fill(folder, best=(10,))
                store, calls = Store(folder, keep=9, background=background), []

                def failing(*args, turn=turn, calls=calls, **kwargs):
                    calls.append(args)
                    if len(calls) == turn + 1:
                        raise OSError(code, os.strerror(code))
                    return real(*args, **kwargs)

                with monkeypatch.context() as broken:
                    broken.setattr(os, call, failing)
                    error = outcome(store, step)
                if error is None:
                    break
                assert error.errno == code
                assert f"step {step} failed" in str(error)
                assert str(folder) in str(error)
                found = store.latest()
                assert_saved(found, found.step, which(found))
                assert found.step in (30, step)
                assert_saved(store.latest(best=True), 10)
                assert set(visible(folder)) - {step} == {10, 20, 30} - {step}
                store.save(50, state(50), {"step": 50})
                assert_saved(store.latest(), 50)
                assert hidden(folder) == []
            assert turn >= 1
            assert_saved(store.latest(), step, 1)

    @BOTH
    def test_a_file_that_cannot_grow(self, tmp_path, background):
        """A write that fails half-way, by the system's own limit on the size of files."""
        store = fill(tmp_path)
        store = Store(tmp_path, background=background)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(OSError, match="saving the checkpoint of step 40 failed: File too large"):
                store.save(40, {"model": {"w": np.zeros(1_000_000)}})
                store.wait()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (visible(tmp_path), hidden(tmp_path)) == ([10, 20, 30], [])
        assert_saved(store.latest(), 30)

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"step": -1}, ValueError, "step = -1"),
            ({"step": 1.5}, TypeError, "step must be a whole number"),
            ({"step": True}, TypeError, "step must be a whole number"),
            ({"parts": {"../model": {}}}, ValueError, "'../model'"),
            ({"parts": {"": {}}}, ValueError, "part ''"),
            ({"parts": {3: {}}}, ValueError, "part 3"),
            ({"parts": {"model": {"w": 3.0}}}, TypeError, "'w' must be a tensor"),
            ({"parts": {"model": {"w": np.zeros(2, "uint16")}}}, ValueError, "'w' is of dtype uint16; allowed: bool"),
            ({"parts": {"model": {"w": np.zeros(2, "complex128")}}}, ValueError, "complex128"),
            ({"parts": {"model": {"w": np.zeros(2, object)}}}, ValueError, "object"),
            ({"facts": {"good": 1, "bad": np.zeros(2)}}, TypeError, r"facts\['bad'\]"),
            ({"facts": {"bad": {1, 2}}}, TypeError, r"facts\['bad'\]"),
        ],
        ids=str,
    )
    @BOTH
    def test_what_cannot_be_saved(self, tmp_path, background, arguments, error, message):
        store = Store(tmp_path / "made", background=background)
        with pytest.raises(error, match=message):
            store.save(**{"step": 1, "parts": {}, "facts": {}, **arguments})
        assert not (tmp_path / "made").exists()

    def test_what_is_no_store(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ValueError, match="file is a file"):
            Store(tmp_path / "file")
        for keep, error in ((0, ValueError), (1.5, TypeError), (None, TypeError)):
            with pytest.raises(error, match="keep"):
                Store(tmp_path, keep=keep)


def forked(act):
    """Run `act(report)` in a child; gives its process id and the end of a pipe with the steps that it reported."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if not child:
        code = 1
        try:
            act(lambda step: os.write(writing, b"%d\n" % step))
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    return child, reading


def reported(child, reading):
    """The last step that a child reported before its end, and whether it was killed."""
    with os.fdopen(reading) as pipe:
        steps = [int(line) for line in pipe.read().split()]
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return (steps or [0])[-1], os.WIFSIGNALED(status)


class TestKilled:
    def test_at_every_call(self, tmp_path):
        """Killed before the 1st, 2nd, 3rd, … thing done to a file: replacing a checkpoint, then a new best one."""

        def base(folder):
            fill(folder, best=(10,))
            (folder / ".step_000000005.0123.tmp").mkdir()
            shutil.copytree(folder / "step_000000020", folder / ".step_000000020.old")

        def act(folder, limit, report):
            left = [limit]

            def hook(event, _):
                if event in {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"}:
                    left[0] -= 1
                    if not left[0]:
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(hook)
            store = Store(folder, keep=1, background=False)
            store.save(30, state(30, 1), {"step": 30})
            report(30)
            store.save(40, state(40), {"step": 40}, best=True)
            report(40)

        seen = set()
        for limit in range(1, 500):
            folder = tmp_path / str(limit)
            base(folder)
            confirmed, killed = reported(*forked(lambda report, folder=folder, limit=limit: act(folder, limit, report)))
            store = Store(folder, keep=1, background=False)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found, best = store.latest(), store.latest(best=True)
            version = which(found)
            assert_saved(found, found.step, version)
            assert found.step >= confirmed
            assert version or confirmed != 30 or found.step == 40
            assert_saved(best, 40 if found.step == 40 else 10)
            seen.add((found.step, version))
            store.save(50, state(50), {"step": 50})
            assert (visible(folder), hidden(folder)) == ([best.step, 50], [])
            shutil.rmtree(folder)
            if not killed:
                break
        assert not killed
        assert limit > 40
        assert seen == {(30, 0), (30, 1), (40, 0)}

    def test_at_any_moment(self, tmp_path):
        """A child that saves in the background without a pause, killed 20 times; each goes on from what it finds.

        More often where a busy machine let no save get through, or no kill fall into one; later each time, too.
        """
        size, found, inside = 200_000, 0, 0
        moments = random.Random(7)

        def act(report):
            store = Store(tmp_path)
            for step in range(found + 1, found + 10_000):
                store.save(step, state(step, size=size), {"step": step}, best=step % 3 == 0)
                if step % 2:
                    store.wait()
                    report(step)

        for number in range(200):
            if number >= 20 and found and inside:
                break
            child, reading = forked(act)
            time.sleep(moments.uniform(0.02, 0.25) * (1 + number // 20))
            os.kill(child, signal.SIGKILL)
            confirmed, killed = reported(child, reading)
            assert killed
            inside += bool(hidden(tmp_path)) if tmp_path.exists() else 0
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                latest = Store(tmp_path).latest()
                best = Store(tmp_path).latest(best=True)
            if latest is None:
                assert confirmed == 0
                continue
            assert_saved(latest, latest.step, size=size)
            assert latest.step >= max(confirmed, found)
            if best is not None:
                assert_saved(best, best.step, size=size)
                assert best.step % 3 == 0
            found = latest.step
        assert found > 0
        assert inside > 0, "no kill fell into a save"


def test_the_manifest_is_what_its_description_says(tmp_path):
    fill(tmp_path, steps=(10, 20), best=(20,))
    folder = tmp_path / "step_000000020"
    content = json.loads((folder / "manifest.json").read_text())
    checksum = content.pop("checksum")
    assert checksum == hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    files = {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name != "manifest.json"}
    summed = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    assert content == {"format": 1, "step": 20, "number": 2, "best": True, "files": summed}
    assert set(files) == {"facts.json", "model.safetensors", "optimizer.safetensors"}
