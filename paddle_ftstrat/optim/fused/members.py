"""The parameters of one update: their tensors, what was asked for each, and the tables that the passes read.

The addresses have a row per parameter: int64 addresses of float32 values, 0 for none. Where TRAINS has 0, a value does
not change, and its gradient is 0. The numbers have a row, too, float32:
x = clamp(SCALE·g, LOW, HIGH) + L2·fisher·(p − anchor) + L1·sign(p), no clamp where LOW ≥ HIGH, fisher 1 where none is;
p ← (p + BEFORE·p − LR·rule(x))·AFTER, where the rule has the constants A, B and EPS;
average ← (average − p)·KEEP + p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from paddle.regularizer import L1Decay, L2Decay

from paddle_ftstrat import _paddle
from paddle_ftstrat._paddle import pointers
from paddle_ftstrat._paddle.pointers import Seen
from paddle_ftstrat.optim.regularizer import EWCDecay, L2SPDecay, anchor_of

ADDRESSES = 8
PARAM, GRAD, ANCHOR, FISHER, TRAINS, FIRST, SECOND, AVERAGE = range(ADDRESSES)


class Constants(NamedTuple):
    """A row of the numbers, as the passes read it."""

    scale: np.float32
    l2: np.float32
    l1: np.float32
    low: np.float32
    high: np.float32
    lr: np.float32
    before: np.float32
    after: np.float32
    a: np.float32
    b: np.float32
    eps: np.float32
    keep: np.float32


NUMBERS = len(Constants._fields)
SCALE, L2, L1, LOW, HIGH, LR, BEFORE, AFTER, A, B, EPS, KEEP = range(NUMBERS)

Addresses = npt.NDArray[np.int64]
Table = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]
Range = tuple[int, int]

# The state's tensors and the anchors are not the user's, and are changed in place: that they are the same is checked at
# each update, that they still lie where they did only at every 16th. Their memory is held meanwhile.
ASKED = 16
_REGULARIZERS = (type(None), L1Decay, L2Decay, L2SPDecay, EWCDecay)

CHUNK = 1 << 16


@dataclass(frozen=True)
class Chunks:
    """Stretches of parameters, in their order.

    Attributes:
        table: of each chunk the number of its parameter, from which of its values on, and how many.
        first: the number of each parameter's first chunk.
        ends: the number of values up to the end of each chunk.
    """

    table: Table
    first: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]

    def shares(self, count: int) -> list[Range]:
        """`count` ranges (first, past the last) of about equal numbers of values; empty ones are left out."""
        if count == 1:
            return [(0, len(self.ends))]
        targets = [int(self.ends[-1]) * part / count for part in range(1, count)]
        # A chunk belongs to the share in which its middle lies.
        middles = self.ends - self.table[2] / 2
        cuts = [0, *np.searchsorted(middles, targets).tolist(), len(self.ends)]
        return [(a, b) for a, b in zip(cuts, cuts[1:]) if b > a]


def chunks_of(sizes: npt.NDArray[np.int64]) -> Chunks:
    """Cut parameters of these numbers of values into chunks of at most CHUNK."""
    counts = np.maximum(-(-sizes // CHUNK), 1)
    first = np.cumsum(counts) - counts
    index = np.repeat(np.arange(len(sizes)), counts)
    start = (np.arange(len(index)) - first[index]) * CHUNK
    length = np.minimum(sizes[index] - start, CHUNK)
    return Chunks((index, start, length), first, np.cumsum(length))


def overlap(starts: Addresses, ends: Addresses) -> bool:
    """Whether any two of the byte ranges [start, end) share a byte."""
    order = np.argsort(starts)
    return bool(np.any(starts[order][1:] < ends[order][:-1]))


def touches(starts: Addresses, ends: Addresses, low: Addresses, high: Addresses) -> bool:
    """Whether any of the byte ranges [start, end) meets one of [low, high), which are sorted and apart."""
    if len(starts) > CHUNK // 32:  # so many are found faster in order
        order = np.argsort(starts)
        starts, ends = starts[order], ends[order]
    before = np.searchsorted(low, ends) - 1
    return bool(np.any((before >= 0) & (high[before] > starts)))


class NotFusable(Exception):
    """This update, or every one, is not one for the fused pass; the message says why."""


class FusedParams:
    """The parameters that have a gradient now, with the tables for the passes; kept as long as they stay the same.

    Args:
        optimizer: the optimizer.
        moments: the names of its accumulators of full size.
        powers: those of one value, the powers of the betas.
        seen: the parameters, as `pointers.glance` sees them.
        names: their structured names, for messages.

    Attributes:
        grads: the gradients of this update; held so that their memory stays.
        chunks: the parameters cut into chunks of work.
        addresses: int64 [number of parameters, ADDRESSES].
        numbers: float32 [number of parameters, number of NUMBERS].
        powers: for each power of a beta, the addresses of its values.
        clipped: bool [number of parameters], which gradients are clipped.
        rates: LR multiplier of each parameter, float64.

    Raises:
        NotFusable: a parameter is not one for the fused update.
    """

    def __init__(
        self, optimizer: Any, moments: Sequence[str], powers: Sequence[str], seen: Seen, names: Sequence[str]
    ) -> None:
        self.params, self.names = seen.params, list(names)
        self.keys = [param.name for param in self.params]
        self._optimizer, self._kinds, self._moments = optimizer, (*moments, *powers), len(moments)
        self._anywhere = not pointers.only_cpu()
        self._check("the parameter", self.params)
        self._shapes = [param.shape for param in self.params]
        self.sizes = np.array([int(np.prod(shape)) for shape in self._shapes], np.int64)
        if not self.sizes.all():
            raise NotFusable(f"the parameter {names[int(self.sizes.argmin())]!r} is empty")
        self.chunks = chunks_of(self.sizes)
        self.addresses = np.zeros((len(self.keys), ADDRESSES), np.int64)
        self.addresses[:, PARAM] = self._places = seen.places
        self.numbers = np.zeros((len(self.keys), NUMBERS), np.float32)
        self.powers: list[Addresses] = []
        self._updates = 0
        self._regularizers: list[Any] = []
        self._sources: list[tuple[Any, str]] = []
        self._masks: list[Any] = []
        self._starts: list[int] = []
        self._others: list[int] = []
        self._written: tuple[Addresses, Addresses] = (np.zeros(0, np.int64), np.zeros(0, np.int64))
        self._averages: list[Any] = []
        self._averages_at = np.zeros(len(self.keys), np.int64)
        self._averaged: list[str] = []
        self._known: list[Any] = []  # what `_asked` gave when the tables were made

    def are(self, seen: Seen) -> bool:
        """Whether these are the same parameters, still where they were."""
        return pointers.same(seen.params, self.params) and seen.places == self._places

    def read(self, seen: Seen) -> None:
        """Fill the tables for an update with what was seen.

        Raises:
            NotFusable: a gradient, regularizer, anchor or accumulator is not one for the fused update.
        """
        self.grads = seen.grads
        starts = pointers.gradient_addresses(self.grads, self._shapes)
        if 0 in starts or self._anywhere or not self._known:
            self._check("the gradient of", self.grads, self._shapes)
        renewed = not self._known or not all(map(pointers.same, self._asked(seen), self._known))
        if renewed:
            self._take_settings(seen)
            self._take_state()
            self._known = list(map(list, self._asked(seen)))
        self._updates += 1
        moved = (renewed or self._updates % ASKED == 0) and self._take_places(renewed)
        if moved or starts != self._starts:
            self.addresses[:, GRAD] = self._starts = starts
            read = np.concatenate([self.addresses[:, GRAD], self.addresses[self._fixed_at]])
            sizes = np.concatenate([self.sizes, self.sizes[self._fixed_at[0]]])
            if touches(read, read + 4 * sizes, *self._written):
                raise NotFusable("a gradient or an L2SP anchor shares memory with a parameter or the optimizer's state")

    def average(self, averages: Sequence[Any], keep: float) -> list[str]:
        """Have the pass move averages of the parameters, too (None for none); the names of those that have one.

        Raises:
            NotFusable: one is not a tensor for the fused update.
        """
        self.numbers[:, KEEP] = keep
        if pointers.same(averages, self._averages) and self._updates % ASKED:
            self.addresses[:, AVERAGE] = self._averages_at
            return self._averaged
        rows = [i for i, average in enumerate(averages) if average is not None]
        tensors = [averages[i] for i in rows]
        self._check("the average of", tensors, self._shapes, rows)
        self._averages, self._averages_held = list(averages), pointers.hold_memory(tensors)
        starts = np.array(pointers.addresses(tensors), np.int64)
        if rows and touches(starts, starts + 4 * self.sizes[rows], *self._written):
            raise NotFusable("an average shares memory with a parameter or the optimizer's state")
        self._averages_at[:] = 0
        self._averages_at[rows] = starts
        self.addresses[:, AVERAGE] = self._averages_at
        self._averaged = [self.names[i] for i in rows]
        return self._averaged

    def _asked(self, seen: Seen) -> list[Any]:
        """All objects from which the tables follow, addresses and the numbers of the very update excepted.

        Regularizers may be changed as well as replaced; Momentum's own is made anew at each question.
        """
        common, state = _paddle.coupled_regularizer(self._optimizer), _paddle.accumulators(self._optimizer)
        return [
            seen.rates,
            seen.clipped,
            seen.regularizers,
            seen.noted,
            list(map(_paddle.coefficient, self._regularizers)),
            [_paddle.coefficient(common) if type(common) is L2Decay else common],
            *(state.get(kind, {}).values() for kind in self._kinds),
            self._fixed(),
        ]

    def _take_settings(self, seen: Seen) -> None:
        coupled = _paddle.coupled_regularizer(self._optimizer)
        self.rates = np.array(seen.rates, np.float64)
        self.clipped = np.array([flag is not False for flag in seen.clipped])
        self.numbers[:, [L1, L2]] = 0.0
        in_force = [coupled if own is None else own for own in seen.regularizers]
        for i, regularizer in enumerate(in_force):
            if type(regularizer) not in _REGULARIZERS:
                raise NotFusable(f"the regularizer of {self.names[i]!r} is {type(regularizer).__name__}")
            if regularizer is not None:
                column = L1 if type(regularizer) is L1Decay else L2
                self.numbers[i, column] = _paddle.coefficient(regularizer)
        self._regularizers = list(dict.fromkeys(own for own in seen.regularizers if own is not None))
        anchored = [i for i, own in enumerate(in_force) if isinstance(own, L2SPDecay)]
        weighted = [i for i in anchored if type(in_force[i]) is EWCDecay]
        self._sources = [(in_force[i], "anchor") for i in anchored] + [(in_force[i], "fisher") for i in weighted]
        held = [i for i, frozen in enumerate(seen.noted) if frozen is not None]
        self._masks = [seen.noted[i].others(self._shapes[i]) for i in held]
        rows = [*anchored, *weighted, *held]
        columns = [ANCHOR] * len(anchored) + [FISHER] * len(weighted) + [TRAINS] * len(held)
        self._fixed_at = np.array(rows, np.int64), np.array(columns, np.int64)
        for i, (regularizer, _) in zip(anchored, self._sources):
            if regularizer.anchor is None:
                regularizer.anchor = anchor_of(self.params[i])
        self._check("an anchor of", self._fixed(), self._shapes, rows)

    def _fixed(self) -> list[Any]:
        """What is read and never written: anchors, Fisher information, which rows train."""
        return [*(getattr(regularizer, kind) for regularizer, kind in self._sources), *self._masks]

    def _take_state(self) -> None:
        state = _paddle.accumulators(self._optimizer)
        if any(key not in state.get(kind, ()) for kind in self._kinds for key in self.keys):
            _paddle.create_accumulators(self._optimizer, self.params)
        self._state = []
        for number, kind in enumerate(self._kinds):
            tensors = list(map(state.get(kind, {}).get, self.keys))
            if any(tensor is None for tensor in tensors):
                raise NotFusable(f"the optimizer keeps no {kind} of some parameters")
            self._check(f"the {kind} of", tensors, self._shapes if number < self._moments else None)
            self._state.append(tensors)

    def _take_places(self, renewed: bool) -> bool:
        """Where the state and the anchors lie; whether that may be elsewhere than before."""
        tensors = [*chain(*self._state), *self._fixed()]
        places = pointers.addresses(tensors)
        if not renewed and places == self._others:
            return False
        if 0 in places:
            raise NotFusable("a tensor of the optimizer's state, or an L2SP anchor, holds no memory")
        self._others, self._held = places, pointers.hold_memory(tensors)
        count, last = len(self.keys), FIRST + self._moments
        rows = np.array(places[: count * len(self._state)], np.int64).reshape(-1, count)
        self.addresses[:, FIRST:last], self.powers = rows[: self._moments].T, list(rows[self._moments :])
        self.addresses[:, [ANCHOR, FISHER, TRAINS]] = 0
        self.addresses[self._fixed_at] = places[rows.size :]
        # What is written must not be read, or written, under another name.
        written = self.addresses[:, [PARAM, *range(FIRST, last)]]
        starts, ends = written.ravel(), (written + 4 * self.sizes[:, None]).ravel()
        if overlap(starts, ends):
            raise NotFusable("two parameters, or a parameter and its state, share memory")
        order = np.argsort(starts)
        self._written = starts[order], ends[order]
        return True

    def _check(self, what: str, tensors: Sequence[Any], shapes: Any = None, rows: Any = None) -> None:
        """Refuse tensors that are not float32, dense, contiguous, of these shapes and on the CPU."""
        for i, tensor in zip(range(len(self.names)) if rows is None else rows, tensors):
            oddity = pointers.oddity(tensor)
            if oddity:
                raise NotFusable(f"{what} {self.names[i]!r} {oddity}")
            if shapes is not None and tensor.shape != shapes[i]:
                raise NotFusable(f"{what} {self.names[i]!r} has shape {tensor.shape}, not {shapes[i]}")
        if self._anywhere and not _paddle.on_cpu(tensors):
            raise NotFusable(f"{what} {self.names[0]!r} or another does not lie in the CPU's memory")
