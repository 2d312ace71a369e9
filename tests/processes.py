"""Processes of tests' own, forked from one that has imported what takes seconds (see `preloaded.py`)."""

import contextlib
import multiprocessing
import os
import runpy
import socket
import sys
import time
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["preloaded"])


def start(log, script, *arguments, **environment):
    """`python script arguments…` with these variables, or without where None; what it prints goes to the file `log`."""
    variables = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), *sys.path])):
        forkserver.ensure_running()
    process = _CONTEXT.Process(
        target=_run, args=(str(log), str(script), [*map(str, arguments)], os.getcwd(), variables)
    )
    process.start()
    return process


def finish(process, seconds=180):
    """Its exit status; one that has had so many seconds of the processor, or next to nothing for as long, is killed."""
    had, since = 0.0, time.monotonic()
    process.join(1)
    while process.is_alive():
        now = _processor_seconds(process.pid)
        if now - had > seconds / 100:
            had, since = now, time.monotonic()
        if max(now, time.monotonic() - since) > seconds:
            process.kill()
        process.join(1)
    return process.exitcode


def run(folder, script, *arguments, **environment):
    """What a script prints that ends well."""
    log = folder / "output.txt"
    status = finish(start(log, script, *arguments, **environment))
    assert status == 0, log.read_text()
    return log.read_text()


def run_code(folder, code, *arguments, **environment):
    """The same of a script's text."""
    (folder / "script.py").write_text(code)
    return run(folder, folder / "script.py", *arguments, **environment)


def run_ranks(count, logs, script, *arguments):
    """A script in processes that know each other, as `paddle.distributed.launch` starts them: their exit status."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        ends = ["{}:{}".format(*probe.getsockname()) for probe in probes]
    logs.mkdir()
    processes = [
        start(
            logs / f"workerlog.{rank}", script, *arguments,
            PADDLE_TRAINER_ID=str(rank), PADDLE_TRAINERS_NUM=str(count), PADDLE_CURRENT_ENDPOINT=ends[rank],
            PADDLE_TRAINER_ENDPOINTS=",".join(ends), PADDLE_MASTER=ends[0], PADDLE_DISTRI_BACKEND="gloo",
            PADDLE_RANK_IN_NODE=str(rank), CUDA_VISIBLE_DEVICES="",
        )
        for rank in range(count)
    ]  # fmt: skip
    return [finish(process) for process in processes]


def _processor_seconds(pid):
    with contextlib.suppress(OSError):  # gone by now
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _run(log, script, arguments, folder, environment):
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1), os.dup2(handle, 2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [script, *arguments]
    sys.path.insert(0, os.path.dirname(script))
    runpy.run_path(script, run_name="__main__")
