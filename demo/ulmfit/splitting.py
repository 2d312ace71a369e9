"""Labelled texts into train, dev and test, without repeats, and labelled samples of a size."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

LEAST = 10


@dataclass(frozen=True)
class Examples:
    """Texts with the numbers of their classes."""

    texts: list[str]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.texts)

    def only(self, positions: Iterable[int]) -> Examples:
        """The examples at these positions."""
        positions = np.asarray(list(positions), np.int64)
        return Examples([self.texts[i] for i in positions], self.labels[positions])


@dataclass(frozen=True)
class Splits:
    """One data set, split by a seed; no text is in two parts.

    Attributes:
        classes: labels as the file has them; their positions are the classes' numbers.
        train: what labelled samples are drawn from; all of its texts may serve without labels, too.
        dev: to choose on.
        test: to report.
        repeats: number of texts that were dropped because an equal one came before.
    """

    classes: list[str]
    train: Examples
    dev: Examples
    test: Examples
    repeats: int


def essence(text: str) -> str:
    """A text's letters and digits alone, by which repeats are recognised.

    Example:
        >>> essence("Ｇｏｏｄ room, 好！") == essence("good room好")
        True
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(one for one in folded if one.isalnum()) or folded.strip()


def split(texts: Sequence[str], labels: Sequence[str], seed: int, dev: float = 0.1, test: float = 0.2) -> Splits:
    """Drop repeats, and split each class in the same proportions.

    Args:
        texts: the texts.
        labels: one each.
        seed: of the split.
        dev: share for choosing.
        test: share for reporting.

    Raises:
        ValueError: one class only, or a class with fewer than 10 texts.
    """
    first: dict[str, int] = {}
    for i, text in enumerate(texts):
        first.setdefault(essence(text), i)
    kept = list(first.values())
    classes = sorted({labels[i] for i in kept})
    numbers = np.array([classes.index(labels[i]) for i in kept])
    _check_classes(classes, numbers)
    everything = Examples([texts[i] for i in kept], numbers)
    rng, parts = np.random.RandomState(seed), ([], [], [])
    for number in range(len(classes)):
        mine = rng.permutation(np.flatnonzero(numbers == number))
        cuts = np.cumsum([max(1, int(len(mine) * share)) for share in (test, dev)])
        for part, positions in zip(parts, np.split(mine, cuts)):
            part.extend(positions)
    test_part, dev_part, train_part = (everything.only(rng.permutation(part)) for part in parts)
    return Splits(classes, train_part, dev_part, test_part, len(texts) - len(kept))


def _check_classes(classes: Sequence[str], numbers: np.ndarray) -> None:
    counts = {name: int((numbers == number).sum()) for number, name in enumerate(classes)}
    if len(counts) < 2:
        raise ValueError(f"a classifier needs two classes or more, but every label is {next(iter(counts))!r}")
    few = {name: count for name, count in counts.items() if count < LEAST}
    if few:
        named = ", ".join(f"{name!r} has {count}" for name, count in few.items())
        raise ValueError(
            f"too few examples to train, choose and test on: label {named}; each needs at least {LEAST}. "
            "Give more rows, or leave these labels out"
        )


def labelled_sample(pool: Examples, classes: Sequence[str], size: int, seed: int) -> Examples:
    """`size` examples, each class with its share of the pool (rounded) and at least two.

    Raises:
        ValueError: the pool has fewer, or the size leaves a class with too few.
    """
    if size > len(pool):
        raise ValueError(f"{size} labels were asked for, but there are {len(pool)} training examples")
    if size < 2 * len(classes):
        raise ValueError(f"{size} labels are too few for {len(classes)} classes: each needs at least 2")
    rng = np.random.RandomState(seed)
    chosen: list[int] = []
    for number, count in enumerate(_counts_of(pool, len(classes), size)):
        chosen.extend(rng.permutation(np.flatnonzero(pool.labels == number))[:count])
    return pool.only(rng.permutation(chosen))


def _counts_of(pool: Examples, classes: int, size: int) -> np.ndarray:
    """How many of each class, `size` in all: its share rounded down, but two at least; the rest where most is due."""
    there = np.bincount(pool.labels, minlength=classes)
    due = size * there / len(pool)
    counts = np.maximum(2, due.astype(np.int64))
    while counts.sum() != size:
        step = 1 if counts.sum() < size else -1
        possible = counts < there if step > 0 else counts > 2
        lack = np.where(possible, step * (due - counts), -np.inf)
        counts[lack.argmax()] += step
    return counts


def without(texts: Iterable[str], others: Iterable[str]) -> tuple[list[str], int, int]:
    """Texts without repeats and without those that occur in `others`.

    Returns:
        The texts, the number of repeats dropped, the number dropped because `others` has them.
    """
    foreign = {essence(text) for text in others}
    kept: dict[str, str] = {}
    repeats = shared = 0
    for text in texts:
        key = essence(text)
        if key in foreign:
            shared += 1
        elif key in kept:
            repeats += 1
        else:
            kept[key] = text
    return list(kept.values()), repeats, shared
