"""How many threads Paddle's kernels use: asked for, allowed, put back."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat._paddle import threads


@pytest.fixture(autouse=True)
def _as_before():
    before = threads.get_threads()
    yield
    assert threads.get_threads() == before, "a test left another number of threads behind"


def test_the_runtime_itself_is_asked():
    before = threads.current()
    paddle.base.core.set_num_threads(before + 2)
    try:
        assert threads.current() == before + 2
    finally:
        paddle.base.core.set_num_threads(before)
    assert threads.current() == before


def test_another_thread_has_its_own_number():
    seen = []
    number = threads.current() + 2
    with hub.cpu_threads(number):
        other = threading.Thread(target=lambda: seen.append(threads.current()))
        other.start()
        other.join()
        assert threads.current() == number
    assert seen == [threads.written_threads()]


@given(st.lists(st.integers(1, 8), min_size=1, max_size=6))
def test_nests_and_comes_back(numbers):
    start = threads.current()

    def enter(rest):
        if not rest:
            return
        before = threads.current()
        with hub.cpu_threads(rest[0]) as used:
            assert used == threads.current() == rest[0]
            enter(rest[1:])
            assert threads.current() == rest[0]
        assert threads.current() == before

    enter(numbers)
    assert threads.current() == start


def test_comes_back_after_an_error():
    with hub.cpu_threads(2):
        with pytest.raises(KeyError), hub.cpu_threads(5):
            raise KeyError
        assert threads.current() == 2
        with pytest.raises(KeyError), threads.one_thread():
            raise KeyError
        assert threads.current() == threads.get_threads() == 2


@pytest.mark.parametrize(
    ("n", "error", "word"),
    [(0, ValueError, "n = 0"), (-2, ValueError, "n = -2"), (1.5, TypeError, "1.5"), (True, TypeError, "True")],
)
def test_refuses_what_is_no_number_of_threads(n, error, word):
    before = threads.current()
    with pytest.raises(error, match=word), hub.cpu_threads(n):
        pytest.fail("it entered")
    assert threads.current() == before


def test_one_thread_tells_the_number_outside():
    with hub.cpu_threads(4), threads.one_thread():
        assert threads.get_threads() == 1
        assert threads.current() == 4
        with threads.one_thread():
            assert threads.current() == 4
        assert (threads.get_threads(), threads.current()) == (1, 4)


def test_a_step_runs_paddles_optimizer_on_one_thread():
    model = nn.Linear(3, 2)
    run = hub.DefaultStrategy(optimizer_name="adamw").bind(model)
    seen, step = [], run.optimizer.step
    run.optimizer.step = lambda: (seen.append((threads.get_threads(), threads.current())), step())
    with hub.cpu_threads(3):
        model(paddle.ones([1, 3])).sum().backward()
        run.step()
        assert threads.get_threads() == 3
        run.optimizer.step = lambda: 1 / 0
        with pytest.raises(ZeroDivisionError):
            run.step()
        assert threads.get_threads() == 3
    assert seen == [(1, 3)]


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw", "lamb"])
def test_the_update_is_the_same_with_any_number(name):
    def weights(count):
        paddle.seed(1)
        model = nn.Linear(300, 200)
        run = hub.CombinedStrategy(name, 0.01, regularization={"L2": 0.01}, clip={"GlobalNorm": 1.0}).bind(model)
        gradients = np.random.RandomState(0).standard_normal((3, 300, 200)).astype("float32")
        with hub.cpu_threads(count):
            for gradient in gradients:
                (model.weight * paddle.to_tensor(gradient)).sum().backward()
                run.step()
        return model.weight.numpy()

    np.testing.assert_array_equal(weights(1), weights(2))


def test_the_matrix_product_is_that_of_one_thread():
    a, b = paddle.randn([2, 300, 300])
    alone = (a @ b).numpy()
    with hub.cpu_threads(2):
        np.testing.assert_allclose((a @ b).numpy(), alone, rtol=0, atol=1e-4)


# What the system says about the cores.


def make_root(tmp_path, files):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture
def eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for name in ("PADDLE_LOCAL_SIZE", "PADDLE_TRAINERS_NUM", "PADDLE_TRAINER_ENDPOINTS", "PADDLE_CURRENT_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


V1, V2 = "5:cpuset:/\n4:cpu,cpuacct:/a/b\n0::/\n", "0::/a/b\n"
GROUPS = "sys/fs/cgroup"


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"proc/self/cgroup": V2}, 8),
        ({"proc/self/cgroup": V2, f"{GROUPS}/a/b/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": V2, f"{GROUPS}/a/b/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": V2, f"{GROUPS}/a/b/cpu.max": "250000 100000\n"}, 2),
        ({"proc/self/cgroup": V2, f"{GROUPS}/a/b/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": V2, f"{GROUPS}/a/b/cpu.max": "9900000 100000\n"}, 8),
        (
            {
                "proc/self/cgroup": V2,
                f"{GROUPS}/a/b/cpu.max": "600000 100000\n",
                f"{GROUPS}/a/cpu.max": "200000 100000\n",
            },
            2,
        ),
        ({"proc/self/cgroup": V2, f"{GROUPS}/cpu.max": "400000 100000\n"}, 4),
        ({"proc/self/cgroup": V2, f"{GROUPS}/cpu.max": "garbage\n"}, 8),
        (
            {
                "proc/self/cgroup": V1,
                f"{GROUPS}/cpu/a/b/cpu.cfs_quota_us": "150000\n",
                f"{GROUPS}/cpu/a/b/cpu.cfs_period_us": "50000\n",
            },
            3,
        ),
        (
            {
                "proc/self/cgroup": V1,
                f"{GROUPS}/cpu,cpuacct/cpu.cfs_quota_us": "500000\n",
                f"{GROUPS}/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            5,
        ),
        (
            {
                "proc/self/cgroup": V1,
                f"{GROUPS}/cpu/a/b/cpu.cfs_quota_us": "-1\n",
                f"{GROUPS}/cpu/a/b/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
    ],
)
@pytest.mark.usefixtures("eight_cores")
def test_the_tightest_quota_counts(tmp_path, files, cores):
    assert threads.allowed(make_root(tmp_path, files)) == cores


@pytest.mark.parametrize(
    ("environment", "cores"),
    [
        ({"PADDLE_LOCAL_SIZE": "4", "PADDLE_TRAINERS_NUM": "16"}, 2),
        ({"PADDLE_LOCAL_SIZE": "3"}, 2),
        ({"PADDLE_LOCAL_SIZE": "20"}, 1),
        ({"PADDLE_TRAINERS_NUM": "2"}, 4),
        ({"PADDLE_TRAINERS_NUM": ""}, 8),
        (
            {
                "PADDLE_TRAINERS_NUM": "4",
                "PADDLE_TRAINER_ENDPOINTS": "10.0.0.1:70,10.0.0.1:71,10.0.0.2:70,10.0.0.2:71",
                "PADDLE_CURRENT_ENDPOINT": "10.0.0.2:70",
            },
            4,
        ),
    ],
)
@pytest.mark.usefixtures("eight_cores")
def test_processes_of_a_run_share_the_node(tmp_path, monkeypatch, environment, cores):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert threads.allowed(tmp_path) == cores


# Who set OMP_NUM_THREADS.


@pytest.mark.parametrize(
    ("environ", "by_user"),
    [(None, False), ("", False), ("OMP_NUM_THREADS=1\0", True), ("OMP_NUM_THREADS=4\0", True)],
)
@pytest.mark.parametrize("launched", [False, True])
def test_paddles_own_setting_is_told_from_the_users(tmp_path, monkeypatch, environ, by_user, launched):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("PADDLE_TRAINER_ID", raising=False)
    if launched:
        monkeypatch.setenv("PADDLE_TRAINER_ID", "0")
        by_user = by_user and "=1" not in environ  # the launcher's own import of Paddle wrote it
    if environ is not None:
        (tmp_path / "environ").write_text(f"A=1\0{environ}B=2\0")
    assert threads.set_by_user(tmp_path / "environ") is by_user


def test_any_other_number_is_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads.set_by_user(tmp_path) is True


@pytest.mark.parametrize(
    ("by_user", "used"), [(True, threads.current()), (False, 8)], ids=["OMP_NUM_THREADS was set", "nobody set anything"]
)
@pytest.mark.usefixtures("eight_cores")
def test_none_means_all_cores_unless_the_user_said_so(monkeypatch, by_user, used):
    monkeypatch.setattr(threads, "set_by_user", lambda: by_user)
    monkeypatch.setattr(threads, "_quota", lambda root: 8.0)
    with hub.cpu_threads() as count:
        assert count == threads.current() == used


IN_ANOTHER_PROCESS = """
import json, sys
if sys.argv[1] == "python":
    import os
    os.environ["OMP_NUM_THREADS"] = "3"
import paddle_ftstrat as hub
from paddle_ftstrat._paddle import threads
with hub.cpu_threads() as inside:
    print(json.dumps({"by_user": threads.set_by_user(), "inside": inside, "allowed": threads.allowed()}))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="only /proc tells what a process began with")
@pytest.mark.parametrize(
    ("how", "variable", "by_user"),
    [("shell", None, False), ("shell", "1", True), ("python", None, True)],
)
def test_in_processes_of_their_own(tmp_path, how, variable, by_user):
    script = tmp_path / "script.py"
    script.write_text(IN_ANOTHER_PROCESS)
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    if variable:
        environment["OMP_NUM_THREADS"] = variable
    command = [sys.executable, str(script), how]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["by_user"] is by_user
    assert found["inside"] == (3 if how == "python" else int(variable) if variable else found["allowed"])


class Images(paddle.io.Dataset):
    """Samples of numpy arrays, with a matrix product in the worker."""

    def __len__(self):
        return 16

    def __getitem__(self, index):
        square = np.random.RandomState(index).standard_normal((64, 64)).astype("float32")
        return (square @ square)[:8], np.int64(index % 2)


def test_workers_fork_from_a_process_that_used_threads():
    model = nn.Sequential(nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 2))
    run = hub.DefaultStrategy(optimizer_name="adamw").bind(model)
    with hub.cpu_threads(2):
        _ = (paddle.randn([256, 256]) @ paddle.randn([256, 256])).numpy()
        for _ in range(2):
            for x, y in paddle.io.DataLoader(Images(), batch_size=4, num_workers=2, timeout=60):
                nn.functional.cross_entropy(model(x), y).backward()
                run.step()
    assert run.lr_scheduler.last_epoch == 8
