"""Checkpoints of a training in progress: when they are written, and how a later run goes on from one."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from paddle_ftstrat import _errors
from paddle_ftstrat.binding import Binding
from paddle_ftstrat.plan import mode_of
from paddle_ftstrat.strategies import DefaultStrategy
from paddle_ftstrat.training import data, distributed, rng
from paddle_ftstrat.training.callbacks import better
from paddle_ftstrat.training.checkpoint import contents
from paddle_ftstrat.training.checkpoint.store import Checkpoint, Store
from paddle_ftstrat.training.distributed import Ranks
from paddle_ftstrat.training.recorder import bar
from paddle_ftstrat.training.state import Position, Span, Training

_ON_LENGTH = ("extend", "restart", "keep")
_ON_LR = ("keep", "restart", "new")


@dataclass(frozen=True)
class Checkpoints:
    """When and where a Learner saves its state, so that the same script, started again, goes on.

    The state is everything: weights and buffers, optimizer state, place on the curve, unfreezing phase, L2SP anchors,
    order of the data and place in it, random numbers, callbacks, recorded losses. It is saved at the end of each epoch
    and fit, and as often in between as `every` says.

    Args:
        folder: where the checkpoints are; a run that finds some of its own there goes on from the newest undamaged one.
        every: updates between checkpoints inside an epoch; None: none but at the ends.
        keep: how many of the newest are kept, ≥ 1; the best one is kept besides.
        background: write while training goes on.
        monitor: what makes a checkpoint the best: a value of the epoch's results; None: `valid_loss`, where there is
            validation data, else `train_loss`. Names with loss, error, mse, mae, mape or
            perplexity in them are better when lower, all else when higher.
        on_length_change: how to go on where the fit now has another number of epochs: "extend" goes on at the same
            update of the longer (or shorter) curve; "restart" begins a new curve over the updates that are left;
            "keep" stays on the old curve, and at its last value past its end. None raises.
        on_lr_change: how to go on where the strategy now has another learning rate, schedule, or LR by depth: "keep"
            goes on with those of the checkpoint; "new" takes the new ones from here on, at the same place of their
            curve; "restart" begins the new curve over the updates that are left. Weights and optimizer state go on in
            each case. None raises.

    Raises:
        ValueError: a number out of range, an unknown choice.
        TypeError: a number that is none, or `background` neither True nor False.

    Example:
        >>> Checkpoints("ckpt_reviews", every=100).keep
        2
    """

    folder: str | os.PathLike[str]
    every: int | None = None
    keep: int = 2
    background: bool = True
    monitor: str | None = None
    on_length_change: str | None = None
    on_lr_change: str | None = None

    def __post_init__(self) -> None:
        if self.every is not None:
            _errors.check_whole("every", self.every, minimum=1)
        _errors.check_whole("keep", self.keep, minimum=1)
        if not isinstance(self.background, bool):
            raise TypeError(f"background must be True or False, not {self.background!r}")
        for name, choices in (("on_length_change", _ON_LENGTH), ("on_lr_change", _ON_LR)):
            if getattr(self, name) is not None and getattr(self, name) not in choices:
                raise ValueError(f"{name}: " + _errors.unknown("choice", getattr(self, name), choices))


@dataclass(frozen=True)
class Start:
    """How a fit begins: at `position`, on a curve over `span`, with `seed`.

    Attributes:
        resumed: the checkpoint that it goes on from, which ends with the fit.
        finished: the random numbers of Python and numpy at its end, where an earlier process finished it.
        strategy: what trains in place of the given one, as a dict, where the checkpoint's LR is kept.
    """

    position: Position
    span: Span
    seed: int
    resumed: Checkpoint | None = None
    finished: dict[str, Any] | None = None
    strategy: dict[str, Any] | None = None


class CheckpointManager:
    """A Learner's checkpoints: numbers its fits, saves them, and finds out what a fit that begins has behind it.

    `given` are `Checkpoints`, or only their folder; None saves nothing. Of several processes the first one writes.
    """

    def __init__(self, given: Any, who: Ranks) -> None:
        if not isinstance(given, (str, Path, Checkpoints, type(None))):
            raise TypeError(f"checkpoints must be a folder or Checkpoints, not {given!r}")
        settings: Checkpoints | None = Checkpoints(given) if isinstance(given, (str, Path)) else given
        self.settings, self._who = settings, who
        self._store = None if settings is None else Store(settings.folder, settings.keep, settings.background)
        self._fits: list[dict[str, Any]] = []
        self._found: Checkpoint | None = None
        self._looked = False
        self._best: float | None = None
        self._best_at = -1
        self._saved_at = -1
        self._asked_for = False

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Inside it no other fit writes to the folder; where one does already, all processes raise.

        Raises:
            OSError, RuntimeError: as `Store.writing`.
        """
        if self._store is None:
            yield
            return
        with ExitStack() as held:
            error = None
            try:
                if self._who.is_main_process:
                    held.enter_context(self._store.writing())
            except (OSError, RuntimeError) as caught:
                error = caught
            why = distributed.gather_facts(error and str(error), self._who)[0]
            if why:
                raise error or RuntimeError(why)
            yield

    def begin(
        self, learner: Training, about: Mapping[str, Any], start_epoch: int, updates: int, strategy: DefaultStrategy
    ) -> Start:
        """What the fit that begins now, by a strategy, has behind it.

        Raises:
            ValueError: the checkpoint is one of another training; the differences are listed.
        """
        settings, n_epoch, self._asked_for = self.settings, about[contents.LENGTH], False
        if settings is not None and settings.monitor is not None:
            _errors.check_keys("value to monitor", [settings.monitor], learner.value_names())
        found = self._find()
        seed = distributed.gather_facts(rng.draw_seed(), self._who)[0]
        fresh = Start(Position(start_epoch + 1, 0, start_epoch * updates), Span(0, n_epoch * updates), seed)
        number, before = len(self._fits), found.facts["fits"] if found else []
        if settings is None or found is None or number >= len(before):
            self._found = None
            results = [len(learner.recorder.values), None]
            self._fits.append({"about": dict(about), "seed": seed, "results": results, "ended": None})
            return fresh
        saved, last = before[number]["about"], number + 1 == len(before)
        same_but_lr = last and contents.only_lr_differs(saved, about, strategy, updates)
        changed = _lr_goes_on(settings, found, saved, about, same_but_lr)
        if changed == "keep":
            about = {**about, "strategy": saved["strategy"]}
        entry, was = {**before[number], "about": dict(about)}, saved[contents.LENGTH]
        if entry["ended"] and was == n_epoch:
            return self._pass_over(learner, found, fresh, entry, last)
        if not last:
            raise ValueError(
                f"{found.path}: fit {number + 1} of {len(before)} was finished with {was} epochs, and later ones "
                f"have built on it: it cannot become one of {n_epoch}"
            )
        contents.check_callbacks(learner, found)
        position = contents.position_of(found, learner)
        span = _span(settings, found, position, n_epoch, was, updates)
        if changed == "restart":
            span = Span(position.step, n_epoch * updates - position.step)
        # Only now: after an error the checkpoint is still the one to go on from.
        self._found = None
        self._fits.append({**entry, "ended": None})
        kept = about["strategy"] if changed == "keep" else None
        return Start(position, span, found.facts["seed"], resumed=found, strategy=kept)

    def begin_epoch(self, learner: Training, begin: Position, resumed: Checkpoint | None) -> None:
        """Have the random numbers of Python and numpy be those with which the epoch of `begin` began, and keep them."""
        if resumed is not None and begin.batch:
            rng.set_host_state(self._mine(resumed)["epoch"])
        learner.state.epoch_host = rng.host_state()

    def restore(self, learner: Training, run: Binding, saved: Checkpoint) -> None:
        """Put a fit that goes on where its checkpoint was; the callbacks have heard that it begins."""
        now, then = (fits[len(self._fits) - 1]["about"] for fits in (self._fits, saved.facts["fits"]))
        contents.restore(learner, run, saved, now.get("strategy") == then.get("strategy"))
        rng.set_host_state(self._mine(saved)["now"])

    def batches(self, learner: Training, begin: Position, resumed: Checkpoint | None) -> Generator[Any, None, None]:
        """The batches of an epoch, from `begin` on, with the random numbers of data sets as if it had never stopped.

        Closed before its end, it leaves the random numbers of Python and numpy as they were when the epoch began: how
        far the loader has read ahead by then differs from run to run.
        """
        state, loader = learner.state, learner.train
        before = state.reading_host = rng.host_state()
        then = {} if resumed is None else self._mine(resumed)
        if begin.batch == state.batches:
            rng.set_host_state(then["now"])
            return
        skips = resumed is not None and begin.batch > 0 and resumed.facts["data"]["fixed"]
        data.begin_epoch(loader, begin.epoch, begin.batch if skips else 0)
        try:
            with closing(data.read(loader)) as batches:
                if begin.batch and not skips:
                    label = f"epoch {begin.epoch}: reading up to batch {begin.batch}"
                    for _ in bar(range(begin.batch), desc=label, unit="batch", disable=learner.quiet):
                        next(batches, None)
                    if rng.host_state() == before:
                        # Reading draws no random numbers, so whatever the training itself drew has to be put back.
                        rng.set_host_state(then["now"])
                yield from batches
        except GeneratorExit:
            rng.set_host_state(before)
            raise

    def after_batch(self, learner: Training, run: Binding) -> None:
        """Save, if an update has just ended and it is time."""
        state, every = learner.state, self.settings and self.settings.every
        ended = state.batch_number % learner.accumulate == 0 or state.batch_number == state.batches
        due = every and state.step and state.step % every == 0 and len(learner.recorder.losses) != self._saved_at
        if ended and (due or self._asked_for):
            self._save(learner, run, state.position)

    def ask(self) -> None:
        """Save after the update that runs.

        Raises:
            ValueError: this Learner saves no checkpoints.
        """
        self._needed()
        self._asked_for = True

    def after_epoch(self, learner: Training, run: Binding) -> None:
        """Note whether the epoch was the best so far, and save what a later run needs to begin the next one."""
        if self.settings is None:
            return
        values = learner.recorder.values[-1]
        name = self.settings.monitor or ("valid_loss" if "valid_loss" in values else "train_loss")
        score = values[name] if mode_of(name) == "min" else -values[name]
        if better(score, self._best, "min"):
            self._best, self._best_at = score, len(learner.recorder.losses)
        self._save(learner, run, Position(learner.state.epoch + 1, 0, learner.state.step))

    def finish(self, learner: Training, run: Binding) -> None:
        """Save that the fit is over."""
        entry = self._fits[-1]
        entry["results"][1] = len(learner.recorder.values)
        entry["ended"] = distributed.gather_facts(rng.host_state(), self._who)
        if self.settings is not None:
            self._save(learner, run, Position(learner.state.epoch + 1, 0, learner.state.step))

    def results(self, learner: Training) -> list[dict[str, float]]:
        """The results of the epochs of the last fit."""
        first, last = self._fits[-1]["results"]
        return learner.recorder.values[first:last]

    def wait(self) -> None:
        """Return when everything that was saved is on disk."""
        if self._store is not None and self._who.is_main_process:
            self._store.wait()

    def checkpoint(self, best: bool) -> Checkpoint:
        """The newest undamaged checkpoint, or the best one.

        Raises:
            ValueError: the Learner saves none.
            FileNotFoundError: there is none.
        """
        store = self._needed()
        self.wait()
        distributed.wait_for_all(self._who)
        found = store.latest(best)
        if found is None:
            raise FileNotFoundError(f"there is no {'best ' if best else ''}checkpoint in {store.folder}")
        return found

    def _needed(self) -> Store:
        if self._store is None:
            raise ValueError("this Learner saves no checkpoints: give Learner(checkpoints=...)")
        return self._store

    def _find(self) -> Checkpoint | None:
        """The checkpoint to go on from, looked for once; all processes take the one that the first finds."""
        if self._looked or self._store is None:
            return self._found
        self._looked, self._found = True, self._store.latest()
        steps = distributed.gather_facts(self._found.step if self._found else None, self._who)
        if len(set(steps)) > 1:
            raise ValueError(
                f"the processes see different checkpoints in {self._store.folder}, of updates {steps} by rank: the "
                "folder has to be one that all of them share"
            )
        if self._found is not None:
            self._best, self._best_at = self._found.facts["best"]
        return self._found

    def _pass_over(
        self, learner: Training, found: Checkpoint, fresh: Start, entry: dict[str, Any], last: bool
    ) -> Start:
        """How a fit begins that an earlier process finished."""
        self._fits.append(entry)
        fresh = replace(fresh, seed=entry["seed"], finished=self._mine(entry["ended"]))
        if not last:
            if len(self._fits) == 1:
                # Weights and records are those of the last fit already: the ones in between are not kept.
                contents.restore_learner(learner, found)
            return fresh
        self._found = None
        position, span = Position(**found.facts["position"]), Span(**found.facts["span"])
        return replace(fresh, position=position, span=span, resumed=found)

    def _save(self, learner: Training, run: Binding, position: Position) -> None:
        state, updates = learner.state, len(learner.recorder.losses)
        hosts = distributed.gather_facts({"now": rng.host_state(), "epoch": state.epoch_host}, self._who)
        self._saved_at, self._asked_for = updates, False
        if not self._who.is_main_process or self._store is None:
            return
        parts, facts = contents.collect(learner, run)
        facts.update(
            fits=self._fits,
            best=[self._best, self._best_at],
            seed=state.seed,
            span=asdict(state.span),
            position=asdict(position),
            hosts=hosts,
        )
        self._store.save(updates, parts, facts, best=updates == self._best_at)

    def _mine(self, saved: Checkpoint | list[dict[str, Any]]) -> dict[str, Any]:
        """The random numbers of this process, of all processes'; where there were fewer, those of one of them."""
        hosts = saved.facts["hosts"] if isinstance(saved, Checkpoint) else saved
        return hosts[self._who.rank % len(hosts)]


def _lr_goes_on(
    settings: Checkpoints, found: Checkpoint, saved: Mapping[str, Any], about: Mapping[str, Any], same_but_lr: bool
) -> str | None:
    """How the LR goes on where it is another one and nothing else is; None where all is the same."""
    lines = contents.differences(saved, about)
    if not lines:
        return None
    if same_but_lr:
        if settings.on_lr_change is not None:
            return settings.on_lr_change
        lines.append('or say how the LR goes on: Checkpoints(on_lr_change="keep" | "restart" | "new")')
    raise ValueError(
        f"the checkpoint {found.path} is of another training:\n  {contents.listing(lines)}\n"
        f"Restore these settings, or use another folder than {settings.folder} to train anew"
    )


def _span(settings: Checkpoints, found: Checkpoint, position: Position, n_epoch: int, was: int, updates: int) -> Span:
    """The curve of a fit that goes on with `n_epoch` epochs, of `was`."""
    span, choice = Span(**found.facts["span"]), settings.on_length_change
    if n_epoch == was:
        return span
    if choice is None:
        raise ValueError(
            f"the checkpoint {found.path} is of a fit of {was} epochs, this one has {n_epoch}: say how to go on with "
            'Checkpoints(on_length_change="extend" | "restart" | "keep")'
        )
    if position.epoch > n_epoch:
        raise ValueError(
            f"the checkpoint {found.path} has {position.epoch - 1} epochs behind it, this fit only {n_epoch}"
        )
    if choice == "keep":
        return span
    if choice == "restart":
        return Span(position.step, n_epoch * updates - position.step)
    return Span(span.begin, span.length + (n_epoch - was) * updates)
