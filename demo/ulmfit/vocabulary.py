"""Characters and their numbers, and texts as arrays of numbers."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

PAD, UNKNOWN, START = 0, 1, 2
SPECIAL = 3


@dataclass(frozen=True)
class Vocabulary:
    """The characters that have a number of their own; 0 is padding, 1 any other character, 2 the start of a text.

    Attributes:
        characters: in the order of their numbers, which begin at 3.

    Example:
        >>> vocabulary = Vocabulary.of(["好房间", "好早餐"], at_least=1)
        >>> vocabulary.characters[0], len(vocabulary)
        ('好', 8)
        >>> vocabulary.encode("好！").tolist()
        [2, 3, 1]
    """

    characters: str
    numbers: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", {one: SPECIAL + i for i, one in enumerate(self.characters)})

    @classmethod
    def of(cls, texts: Iterable[str], at_least: int = 10, at_most: int = 2000) -> Vocabulary:
        """The characters that occur often enough in some texts, the most frequent first.

        Args:
            texts: the texts.
            at_least: how often a character has to occur.
            at_most: how many to keep.

        Raises:
            ValueError: no character occurs so often.
        """
        counts: collections.Counter[str] = collections.Counter()
        for text in texts:
            counts.update(text)
        often = sorted((one for one, count in counts.items() if count >= at_least), key=lambda one: (-counts[one], one))
        if not often:
            raise ValueError(f"no character occurs {at_least} times in these texts: too little text")
        return cls("".join(often[:at_most]))

    def __len__(self) -> int:
        return SPECIAL + len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """Numbers of a text's characters, int64 [1 + length], after the number of the start."""
        return np.array([START, *(self.numbers.get(one, UNKNOWN) for one in text)], np.int64)

    def padded(self, texts: Sequence[str], length: int) -> np.ndarray:
        """Numbers of several texts [texts, length], cut off or padded with 0 at the end."""
        rows = np.full([len(texts), length], PAD, np.int64)
        for row, text in zip(rows, texts):
            numbers = self.encode(text[: length - 1])
            row[: len(numbers)] = numbers
        return rows

    def windows(self, texts: Iterable[str], length: int) -> tuple[np.ndarray, np.ndarray]:
        """The texts one after the other, cut into windows: characters and the characters that follow, [n, length] each.

        Raises:
            ValueError: there is less text than one window takes.
        """
        stream = np.concatenate([self.encode(text) for text in texts] or [np.zeros(0, np.int64)])
        count = (len(stream) - 1) // length
        if count < 1:
            raise ValueError(f"{len(stream)} characters are too little text for a window of {length}")
        used = stream[: count * length + 1]
        return used[:-1].reshape(count, length), used[1:].reshape(count, length)
