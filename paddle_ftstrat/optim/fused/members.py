"""The parameters of one update: their tensors, what was asked for each, and the tables filled from both."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from paddle.regularizer import L1Decay, L2Decay

from paddle_ftstrat import _paddle
from paddle_ftstrat._paddle import pointers, updates
from paddle_ftstrat._paddle.pointers import Seen
from paddle_ftstrat.optim.fused import layout
from paddle_ftstrat.optim.fused.rule import Rule, Unfit, check_regularizer
from paddle_ftstrat.optim.regularizer import L2SPDecay, anchor_of

# The state's tensors and the anchors are not the user's, and are changed in place: that they are the same is checked at
# each update, that they still lie where they did only at every 16th. Their memory is held meanwhile.
ASKED = 16


class Members:
    """The parameters that have a gradient now, with the tables for the passes; kept as long as they stay the same.

    Args:
        optimizer: the optimizer.
        rule: its rule.
        seen: the parameters, as `pointers.glance` sees them.
        names: their structured names, for messages.

    Attributes:
        grads: the gradients of this update; held so that their memory stays.
        chunks: the parameters cut into chunks of work.
        at: int64 [number of parameters, ADDRESSES], see `layout`.
        numbers: float32 [number of parameters, NUMBERS], see `layout`.
        powers: for each power of a beta, the addresses of its values.
        clipped: bool [number of parameters], which gradients are clipped.
        rates: LR multiplier of each parameter, float64.

    Raises:
        Unfit: a parameter is not one for the fused update.
    """

    def __init__(self, optimizer: Any, rule: Rule, seen: Seen, names: Sequence[str]) -> None:
        self.params = seen.params
        self.names = list(names)
        self.keys = [param.name for param in self.params]
        self._optimizer = optimizer
        self._rule = rule
        self._anywhere = not pointers.only_cpu()
        _check_plain("the parameter", self.params, names, self._anywhere)
        self._where = seen.places
        self._shapes = pointers.shapes(self.params)
        sizes = [int(np.prod(shape)) for shape in self._shapes]
        if not all(sizes):
            raise Unfit(f"the parameter {names[sizes.index(0)]!r} is empty")
        self.sizes = np.array(sizes, np.int64)
        self.chunks = layout.chunks_of(sizes)
        self.at = np.zeros((len(sizes), layout.ADDRESSES), np.int64)
        self.at[:, layout.PARAM] = self._where
        self.numbers = np.zeros((len(sizes), layout.NUMBERS), np.float32)
        self.grads: list[Any] = []
        self.powers: list[np.ndarray] = []
        self._stored: list[list[Any]] = []
        self._state: list[list[Any]] = []
        self._asked: tuple[Any, ...] = ()
        self._regularizers: list[Any] = []
        self._sources: list[Any] = []
        self._anchors: list[Any] = []
        self._places: list[int | None] = []
        self._held: list[Any] = []
        self._starts: list[int | None] = []
        self._updates = 0
        self._shares: dict[int, list[tuple[int, int]]] = {}
        self._anchored = np.zeros(0, np.int64)
        self._written = self.at[:0]
        self._ranges: tuple[np.ndarray, np.ndarray] = (self.sizes[:0], self.sizes[:0])

    @property
    def moments(self) -> list[list[Any]]:
        """For each accumulator of full size, its tensors."""
        return self._state[: len(self._rule.moments)]

    def fit(self, seen: Seen) -> bool:
        """Whether these are the same parameters, still where they were."""
        return pointers.same(seen.params, self.params) and seen.places == self._where

    def read(self, seen: Seen) -> None:
        """Fill the tables for an update with what was seen.

        Raises:
            Unfit: a gradient, regularizer, anchor or accumulator is not one for the fused update.
        """
        self.grads = seen.grads
        starts = pointers.gradient_addresses(self.grads, self._shapes)
        if None in starts or self._anywhere or not self._asked:
            _check_plain("the gradient of", self.grads, self.names, self._anywhere)
            self._check_shapes("the gradient of", self.grads)
        renewed = self._read_state()
        renewed |= self._read_settings(seen)
        moved = self._read_places(renewed)
        if moved or starts != self._starts:
            self.at[:, layout.GRAD] = self._starts = starts
            self._check_apart()

    def _read_state(self) -> bool:
        """Find the state where the optimizer has other tensors than before; whether that was so."""
        kinds = (*self._rule.moments, *self._rule.powers)
        stored = [updates.stored_state(self._optimizer, kind).values() for kind in kinds]
        if len(self._state) == len(kinds) and all(map(pointers.same, stored, self._stored)):
            return False
        self._find_state(kinds)
        return True

    def _read_places(self, renewed: bool) -> bool:
        """Where the state and the anchors lie; whether that is elsewhere than before."""
        self._updates += 1
        if not renewed and self._updates % ASKED:
            return False
        places = pointers.addresses(chain(*self._state, self._anchors))
        if not renewed and places == self._places:
            return False
        if None in places:
            raise Unfit("a tensor of the optimizer's state, or an L2SP anchor, holds no memory")
        count, moments = len(self.params), len(self._rule.moments)
        rows = np.array(places[: count * len(self._state)], np.int64).reshape(-1, count)
        self.at[:, layout.FIRST : layout.FIRST + moments] = rows[:moments].T
        self.powers = list(rows[moments:])
        self.at[:, layout.ANCHOR] = 0
        self.at[self._anchored, layout.ANCHOR] = places[rows.size :]
        self._places = places
        self._held = pointers.hold_memory(chain(*self._state, self._anchors))
        return True

    def _find_state(self, kinds: Sequence[str]) -> None:
        if any(key not in updates.stored_state(self._optimizer, kind) for kind in kinds for key in self.keys):
            _paddle.create_accumulators(self._optimizer, self.params)
        self._state, self._stored = [], []
        for kind in kinds:
            by_key = updates.stored_state(self._optimizer, kind)
            tensors = [by_key.get(key) for key in self.keys]
            if not pointers.all_there(tensors):
                raise Unfit(f"the optimizer keeps no {kind} of some parameters")
            _check_plain(f"the {kind} of", tensors, self.names, self._anywhere)
            if kind in self._rule.moments:
                self._check_shapes(f"the {kind} of", tensors)
            self._state.append(tensors)
            self._stored.append(list(by_key.values()))

    def _read_settings(self, seen: Seen) -> bool:
        """Take over what was asked for where that is new; whether there are other anchors than before."""
        coupled = updates.coupled_regularizer(self._optimizer)
        # Regularizers may be changed as well as replaced; Momentum's own is made anew at each question.
        common = updates.coefficient(coupled) if type(coupled) is L2Decay else coupled
        now = seen.rates, seen.clipped, seen.regularizers, updates.coefficients(self._regularizers), common
        if now != self._asked:
            self._take(seen, coupled)
            self._asked = (*now[:3], updates.coefficients(self._regularizers), common)
            self._find_anchors()
            return True
        return self._find_anchors()

    def _take(self, seen: Seen, coupled: Any) -> None:
        self.rates = np.array(seen.rates, np.float64)
        self.clipped = np.array([flag is not False for flag in seen.clipped])
        self.numbers[:, [layout.L1, layout.L2]] = 0.0
        in_force = [coupled if own is None else own for own in seen.regularizers]
        anchored = []
        for i, regularizer in enumerate(in_force):
            check_regularizer(self.names[i], regularizer)
            if regularizer is not None:
                column = layout.L1 if type(regularizer) is L1Decay else layout.L2
                self.numbers[i, column] = updates.coefficient(regularizer)
            if type(regularizer) is L2SPDecay:
                anchored.append(i)
        self._regularizers = list(dict.fromkeys(own for own in seen.regularizers if own is not None))
        self._anchored = np.array(anchored, np.int64)
        self._sources = [in_force[i] for i in anchored]
        self._anchors = []

    def _find_anchors(self) -> bool:
        anchors = [source.anchor for source in self._sources]
        if pointers.same(anchors, self._anchors):
            return False
        for k, i in enumerate(self._anchored):
            if anchors[k] is None:
                anchors[k] = self._sources[k].anchor = anchor_of(self.params[i])
            if anchors[k].shape != self._shapes[i]:
                raise Unfit(f"the L2SP anchor of {self.names[i]!r} has shape {anchors[k].shape}")
        _check_plain("the L2SP anchor of", anchors, [self.names[i] for i in self._anchored], self._anywhere)
        self._anchors = anchors
        return True

    def _check_apart(self) -> None:
        """What is written must not be read, or written, under another name."""
        moments = len(self._rule.moments)
        written = self.at[:, [layout.PARAM, layout.FIRST, layout.SECOND][: 1 + moments]]
        if not np.array_equal(written, self._written):
            starts, ends = written.ravel(), (written + 4 * self.sizes[:, None]).ravel()
            if layout.overlap(starts, ends):
                raise Unfit("two parameters, or a parameter and its state, share memory")
            order = np.argsort(starts)
            self._ranges = starts[order], ends[order]
            self._written = written
        read = np.concatenate([self.at[:, layout.GRAD], self.at[self._anchored, layout.ANCHOR]])
        sizes = np.concatenate([self.sizes, self.sizes[self._anchored]])
        if layout.touches(read, read + 4 * sizes, *self._ranges):
            raise Unfit("a gradient or an L2SP anchor shares memory with a parameter or with the optimizer's state")

    def shares(self, threads: int) -> list[tuple[int, int]]:
        """The chunks in shares of equal work."""
        if threads not in self._shares:
            self._shares[threads] = layout.shares(self.chunks, threads)
        return self._shares[threads]

    def _check_shapes(self, what: str, tensors: Sequence[Any]) -> None:
        for name, here, wanted in zip(self.names, pointers.shapes(tensors), self._shapes):
            if here != wanted:
                raise Unfit(f"{what} {name!r} has shape {here}, not {wanted}")


def _check_plain(what: str, tensors: Sequence[Any], names: Sequence[str], anywhere: bool) -> None:
    """Refuse tensors that are not float32, dense, contiguous and, where there are other devices, on the CPU."""
    for name, tensor in zip(names, tensors):
        oddity = pointers.oddity(tensor)
        if oddity:
            raise Unfit(f"{what} {name!r} {oddity}")
    if anywhere and not pointers.on_cpu(tensors):
        raise Unfit(f"{what} {names[0]!r} or another does not lie in the CPU's memory")
