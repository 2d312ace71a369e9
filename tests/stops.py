"""Every point at which a training can be stopped: what lies on the disk there, and what comes out when it goes on.

A point is a callback event or a file-system call of the store. `recorded` runs a script through once and keeps the
files as they are just before each of them, which is what a kill there leaves; `outcome` runs it again on such files.
"""

import hashlib
import io
import itertools
import os
import pickle
import random
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

import paddle_ftstrat as hub  # isort: skip - before Paddle
import paddle
from paddle import nn

from paddle_ftstrat.optim.state import TENSORS
from paddle_ftstrat.training import rng
from paddle_ftstrat.training.callbacks import EVENTS, Callback

CALLS = ("mkdir", "open", "fsync", "rename", "replace", "unlink", "rmdir")
EPOCHS = 3
FITS = {
    "strategy": lambda learner: learner.fit(
        EPOCHS,
        strategy=hub.CombinedStrategy(
            "momentum", 0.05, clip={"GlobalNorm": 1.0},
            scheduler={
                "slanted_triangle": {"cut_fraction": 0.3}, "gradual_unfreeze": 2, "discriminative": {"blocks": 2}
            },
        ),
    ),
    "L2SP": lambda learner: learner.fit(EPOCHS, strategy=hub.L2SPFinetuneStrategy(0.02, regularization_coeff=0.1)),
    "one_cycle": lambda learner: learner.fit_one_cycle(EPOCHS, 0.02),
    "flat_cos": lambda learner: learner.fit_flat_cos(EPOCHS, 0.01),
    "fine_tune": lambda learner: learner.fine_tune(EPOCHS - 1, 0.01),
    "sgdr": lambda learner: learner.fit_sgdr(2, 1, 0.01, cycle_mult=2),
}  # fmt: skip
# The second evaluation is no improvement on the first by so much: the phase ends there.
SOON = hub.Plateau("valid_loss", patience=1, min_delta=1e9)
PHASED = {
    "OneCycleStrategy": (EPOCHS, hub.OneCycleStrategy(0.02)),
    "FineTuneStrategy": (EPOCHS, hub.FineTuneStrategy(0.01)),
    "SGDRStrategy": (EPOCHS, hub.SGDRStrategy(0.01, 2, 1)),
    "LPFTStrategy": (EPOCHS, hub.LPFTStrategy(0.05, 0.01, scheduler={"slanted_triangle": {"cut_fraction": 0.3}})),
    # 3 epochs at most, of which 2 are trained.
    "first phase ends early": (
        EPOCHS + 1,
        hub.PhasedStrategy(
            [
                hub.Phase("head", until=replace(SOON, max_epochs=3), restore="best", learning_rate=0.05),
                hub.Phase("all", reset_optimizer=True),
            ],
            learning_rate=0.01,
            scheduler={"cosine_decay": {}},
        ),
    ),
    # 1 epoch, then 4 at most, of which 2 are trained.
    "last phase ends early": (
        EPOCHS + 2,
        hub.PhasedStrategy(
            [hub.Phase(2, epochs=1), hub.Phase("all", until=replace(SOON, max_epochs=4), restore="best")], "momentum"
        ),
    ),
    "phase ends inside an epoch": (
        EPOCHS,
        hub.PhasedStrategy([hub.Phase("head", updates=3, learning_rate=0.05), hub.Phase(reset_optimizer=True)]),
    ),
}
MEMBERS = {
    "EMA and FGM": (
        EPOCHS,
        hub.CombinedStrategy(
            "momentum", 0.05, scheduler={"gradual_unfreeze": 2}, averaging={"EMA": 0.8},
            perturbation={"FGM": {"epsilon": 0.1, "where": "6.*"}},
        ),
    ),
    "SWA and SAM": (EPOCHS, hub.CombinedStrategy("adam", 0.02, averaging={"SWA": 0.4}, perturbation={"SAM": 0.1})),
}  # fmt: skip
PAIRS = list(itertools.product(FITS, FITS))
# Each strategy of these in front of a fit on the Learner's optimizer or another strategy, and behind it.
PAIRS += [pair for a, b in zip(PHASED, ["L2SP", "fine_tune", "one_cycle", *PHASED]) for pair in ((a, b), (b, a))]
PAIRS += [("EMA and FGM", "SWA and SAM"), ("SWA and SAM", "fine_tune")]
PHASED.update(MEMBERS)
FITS.update({name: lambda learner, fit=fit: learner.fit(fit[0], strategy=fit[1]) for name, fit in PHASED.items()})


class Stopped(BaseException):
    pass


class Point(NamedTuple):
    """Where a training was: what came next, in which fit of the script, in its how manieth epoch, and the files."""

    kind: str
    fit: int
    epoch: int
    files: tuple


class Data(paddle.io.Dataset):
    """Four samples, with random augmentation or without."""

    def __init__(self, noisy, seed=0):
        self.x = np.random.default_rng(seed).normal(size=[4, 3]).astype("float32")
        self.y = (self.x.sum(-1) > 0).astype("int64")
        self.noisy = noisy

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        noise = np.random.normal(scale=0.1, size=3).astype("float32") if self.noisy else 0
        return self.x[index] + noise, self.y[index]


class Drawing(Callback):
    """Hears every event, tells `heard` of it, and draws random numbers there, which go into the outcome.

    While a data set that draws is read ahead, what others draw is another matter.
    """

    def __init__(self, noisy, heard):
        self.drawn, self.fit, self.epoch = {}, 0, 0
        self._noisy, self._heard = noisy, heard

    def _hear(self, learner, event):
        if event == "epoch_begin" and learner.state.batch_number == 0:
            self.epoch += 1
        self._heard(event, self.fit, self.epoch, learner)
        drawn = [paddle.rand([1]).item()]
        if not self._noisy or not any(word in event for word in ("batch", "loss", "update")):
            drawn += [np.random.rand(), random.random()]
        if event != "fit_end" or not learner.state.finished:
            # An epoch that goes on begins a second time.
            batch = 0 if event == "epoch_begin" else learner.state.batch_number
            self.drawn[f"{self.fit}/{self.epoch}/{batch}/{event}"] = drawn

    def state_dict(self):
        return {"drawn": self.drawn, "epoch": self.epoch}

    def set_state_dict(self, state):
        self.drawn, self.epoch = dict(state["drawn"]), state["epoch"]


for _event in EVENTS:
    setattr(Drawing, f"on_{_event}", lambda self, learner, *given, event=_event: self._hear(learner, event))


def seeded():
    paddle.seed(7)
    np.random.seed(7)
    random.seed(7)


def net():
    return nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1D(4), nn.ReLU(), nn.Dropout(0.2), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)
    )  # fmt: skip


def draws():
    return np.array([*paddle.rand([2]).tolist(), *np.random.rand(2), random.random()])


def script(names, noisy):
    """Three fits of a Learner, drawing numbers in between: a function (folder, heard, background, every) → outcome."""

    def run(folder, heard=lambda *at: None, background=False, every=1):
        seeded()
        drawing, ema = Drawing(noisy, heard), hub.EMA(decay=0.8)
        learner = hub.Learner(
            net(), Data(noisy), Data(False, 1), metrics="acc", batch_size=2, progress=False, path=folder,
            cbs=[ema, hub.SaveModelCallback(), drawing],
            checkpoints=hub.Checkpoints(Path(folder) / "ckpt", every=every, background=background),
        )  # fmt: skip
        results, between = [], []
        for number, name in enumerate(names):
            drawing.fit, drawing.epoch = number, 0
            results += FITS[name](learner)
            between.append(draws())
        return {"between": np.array(between), **_outcome(learner, results, drawing, ema)}

    return run


def task(noisy):
    """`finetune_and_eval` of a task under a RunConfig: a function (folder, heard, background, every) → outcome."""

    def run(folder, heard=lambda *at: None, background=False, every=1):
        seeded()
        drawing, ema = Drawing(noisy, heard), hub.EMA(decay=0.8)
        config = hub.RunConfig(
            num_epoch=EPOCHS, batch_size=2, eval_interval=2, save_ckpt_interval=every, log_interval=2,
            checkpoint_dir=str(folder), strategy=hub.AdamWeightDecayStrategy(0.02, warmup_proportion=0.2),
        )  # fmt: skip
        data = {"train": Data(noisy), "dev": Data(False, 1), "test": Data(False, 2)}
        subject = hub.ClassifierTask(net(), data, config, verbose=False, cbs=[ema, drawing])
        if not background:
            subject.learner.journal._store._background = None
        result = subject.finetune_and_eval()
        return {"best": np.array(subject.best_score), **_outcome(subject.learner, [result], drawing, ema)}

    return run


def _outcome(learner, results, drawing, ema):
    """Everything that has to come out equal, as a flat dict of arrays."""
    bound, recorder = learner.run.state_dict(), learner.recorder
    found = {f"model/{name}": value.numpy().copy() for name, value in learner.model.state_dict().items()}
    for name, kinds in bound["optimizer"].items():
        found.update({f"optimizer/{name}/{kind}": value.numpy().copy() for kind, value in kinds.items()})
    found.update({f"best/{name}": value.numpy().copy() for name, value in bound["best_weights"].items()})
    found.update({f"kept/{name}": value.numpy().copy() for name, value in bound["average"].items()})
    plain = {name: repr(value) for name, value in bound.items() if name not in TENSORS}
    plain.update(
        lr=learner.run.optimizer.get_lr(),
        results=repr(results),
        drawn=repr(sorted(drawing.drawn.items())),
        ema=ema.updates,
    )
    for name in ("lrs", "losses", "smooth_losses", "ends", "average"):
        plain[name] = getattr(recorder, name)
    plain.update(values=repr(recorder.values), hps=repr(recorder.hps))
    state = learner.state
    plain["state"] = [state.epoch, state.batch_number, state.step, state.curve_step]
    found.update({name: np.array(value) for name, value in plain.items()})
    found["drawn after"] = draws()
    with ema.averaged():
        found.update({f"average/{n}": value.numpy().copy() for n, value in learner.model.state_dict().items()})
    return found


def scenarios():
    """Name → script: every pair of fits, those by a strategy in phases with one other each, and a task.

    Each on data that draws random numbers and on data that does not.
    """
    found = {}
    for noisy, (a, b) in itertools.product((True, False), PAIRS):
        found[f"{a}, {b}, {a}{', noisy' if noisy else ''}"] = script([a, b, a], noisy)
    return {**found, "task, noisy": task(True), "task": task(False)}


def recorded(run, folder, wanted=lambda kind, fit, epoch: True):
    """The outcome of an unbroken run in an empty folder, and its wanted points; equal files are the same object."""
    points, known, at = [], {}, [0, 0]
    shutil.rmtree(folder, ignore_errors=True)

    def heard(kind, *place):
        at[:] = place[:2] or at
        if wanted(kind, *at):
            files = known.setdefault(found := _files(folder), found)
            points.append(Point(kind, *at, files))

    with _watched(folder, heard):
        return run(folder, heard), points


def outcome(run, folder, files, known=None):
    """What comes out where a run begins with these files in its folder.

    Where it has gone on, at its first event but `fit_begin`, just as another of `known` did, what comes out is that
    one's, and None is returned: all that the two differ in is what they removed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files:
        (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
        if content is not None:
            (Path(folder) / name).write_bytes(content)

    def heard(kind, *place):
        nonlocal known
        if known is not None and place and kind != "fit_begin":
            digest = _digest(folder, *place)
            if digest in known:
                raise Stopped
            known, _ = None, known.add(digest)

    try:
        with _watched(folder, heard):
            return run(folder, heard, every=None)
    except Stopped:
        return None


def _digest(folder, fit, epoch, learner):
    """Of everything on the disk but the lock, and in memory, on which it depends how a run goes on from an event."""
    drawing, ema = (next(cb for cb in learner.callbacks if isinstance(cb, kind)) for kind in (Drawing, hub.EMA))
    files = [file for file in _files(folder) if not file[0].endswith(".lock")]
    plain = [fit, epoch, files, rng.host_state()]
    for part in (learner.state, learner.journal, drawing, ema):
        # Objects of which only the address is seen are the run's own, and hold what `found` is made from.
        plain += [f"{name}: {text}" for name, held in vars(part).items() if " at 0x" not in (text := repr(held))]
    with rng.preserved():
        # Two numbers that are drawn stand for Paddle's generator.
        found = _outcome(learner, [], drawing, ema)
    return hashlib.sha256(repr(plain).encode() + pickle.dumps(found)).hexdigest()


def raised(run, folder, number):
    """What comes out where an exception ends a run at its event `number` and another goes on in the same process."""
    shutil.rmtree(folder, ignore_errors=True)
    left = [number]

    def heard(*at):
        left[0] -= 1
        if left[0] < 0:
            raise Stopped

    try:
        run(folder, heard, background=True)
    except Stopped:
        pass
    else:
        raise AssertionError(f"there are no {number + 1} events")
    return run(folder, background=True)


def _files(folder):
    """The files below a folder, and its folders with None, sorted."""
    found = []
    for place, folders, files in os.walk(folder):
        inner = os.path.relpath(place, folder)
        found += [(os.path.join(inner, name, "."), None) for name in folders]
        for name in files:
            with _original["open"](os.path.join(place, name), "rb") as file:
                found.append((os.path.join(inner, name), file.read()))
    return tuple(sorted(found, key=lambda pair: pair[0]))


_original = {name: getattr(io if name == "open" else os, name) for name in CALLS}


@contextmanager
def _watched(folder, heard):
    """Inside it `heard` is told before each change of a file below the folder; nothing is synced: nothing crashes."""

    def watch(name):
        def call(*args, **options):
            # Relative to an open folder, or an open file: those of `rmtree` and of a sync.
            inside = isinstance(args[0], int) or "dir_fd" in options or str(args[0]).startswith(str(folder))
            if inside and (name != "open" or set("wxa+").intersection(args[1] if len(args) > 1 else "r")):
                heard(name)
            return None if name == "fsync" else _original[name](*args, **options)

        return call

    try:
        for name in CALLS:
            setattr(io if name == "open" else os, name, watch(name))
        yield
    finally:
        for name, function in _original.items():
            setattr(io if name == "open" else os, name, function)
