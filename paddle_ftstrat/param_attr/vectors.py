"""Tables of pretrained vectors as they come: an array, an `.npy` file, KeyedVectors or a mapping from words."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from paddle_ftstrat import _errors

Vocabulary = Mapping[Any, int]

_ROWS_PER_MAPPING = 64


@dataclass(frozen=True)
class Vectors:
    """Rows that are read on demand.

    `take(indices)` gives rows as an array (len(indices), dim); `dtype` is None where the numbers are Python's, which
    have no precision of their own; `words` says which word is in which row, None if nobody knows.
    """

    take: Callable[[np.ndarray], np.ndarray]
    count: int
    dim: int
    dtype: np.dtype | None
    words: Vocabulary | None


def vectors_of(source: Any, words: Any = None, vocab: Vocabulary | None = None) -> Vectors:
    """Vectors from whatever holds them, in the forms of `embedding_attr`; nothing is copied.

    Of a mapping from word to vector only the words of `vocab`, word → row, are read.

    Raises:
        ValueError, TypeError, FileNotFoundError: it is none of these forms, malformed, or not there.

    Example:
        >>> vectors_of({"a": [1.0, 2.0], "b": [3.0, 4.0]}, vocab={"b": 0, "c": 1}).take(np.array([0]))
        array([[3., 4.]])
    """
    known = None if words is None else words_to_rows("words", words)
    if isinstance(source, (str, os.PathLike)):
        return _from_file(Path(source), known)
    if isinstance(source, (np.ndarray, paddle.Tensor, list, tuple)):
        return _from_array(to_array(source), known, dtype_of(source))
    if words is not None:
        raise ValueError(f"words= is for an array or a file; {type(source).__name__} knows its words itself")
    if hasattr(source, "key_to_index") and hasattr(source, "vectors"):
        array = np.asarray(source.vectors)
        return _from_array(array, words_to_rows("key_to_index", source.key_to_index), array.dtype)
    if hasattr(source, "__getitem__") and hasattr(source, "__contains__"):
        return _from_mapping(source, vocab)
    raise TypeError(
        "vectors must be an array, the path of an .npy file, KeyedVectors or a mapping from word to vector, "
        f"not {type(source).__name__}"
    )


def words_to_rows(what: str, words: Any) -> Vocabulary:
    """A vocabulary as word → row, from a mapping or from a list whose positions are the rows.

    Raises:
        ValueError, TypeError: neither of these, a row twice or no whole number ≥ 0, or a word twice.
    """
    if isinstance(words, Mapping):
        rows = {word: _errors.check_whole(f"{what}[{word!r}]", row) for word, row in words.items()}
        _check_once(what, "row", rows.values())
        return rows
    if isinstance(words, (str, bytes)) or not isinstance(words, (Sequence, np.ndarray)):
        raise TypeError(f"{what} must be a mapping from word to row or a list of words, not {type(words).__name__}")
    words = list(words)
    _check_once(what, "word", words)
    return {word: row for row, word in enumerate(words)}


def to_array(values: Any) -> np.ndarray:
    """Values as an array, without a copy where there is one already; numpy has no bfloat16, so that widens."""
    if isinstance(values, paddle.Tensor):
        return (values.astype("float32") if values.dtype == paddle.bfloat16 else values).numpy()
    return np.asarray(values)


def dtype_of(values: Any) -> np.dtype | None:
    """The dtype that values bring with them, None for Python's numbers."""
    return to_array(values).dtype if hasattr(values, "dtype") else None


def _from_array(array: np.ndarray, words: Vocabulary | None, dtype: np.dtype | None) -> Vectors:
    _check_table(array, words, "the array of vectors")
    count, dim = array.shape
    return Vectors(array.__getitem__, count, dim, dtype, words)


def _from_file(path: Path, words: Vocabulary | None) -> Vectors:
    if path.suffix != ".npy":
        raise ValueError(f"{path} is no .npy file. Save the vectors with numpy.save(path, array), or give the array")
    if not path.is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        header = _map(path)
    except ValueError as error:
        raise ValueError(f"{path} is damaged or no .npy file: {error}") from error
    _check_table(header, words, str(path))
    count, dim = header.shape
    return Vectors(partial(_take_from_file, path), count, dim, header.dtype, words)


def _map(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _take_from_file(path: Path, rows: np.ndarray) -> np.ndarray:
    # Mapped anew every few rows: until it is closed, a mapping's pages count as this process's memory, and with each
    # page the kernel brings in its neighbours, so that rows in random places soon hold the whole file.
    pieces = range(0, len(rows), _ROWS_PER_MAPPING)
    return np.concatenate([_map(path)[rows[start : start + _ROWS_PER_MAPPING]] for start in pieces])


def _from_mapping(mapping: Any, vocab: Vocabulary | None) -> Vectors:
    if vocab is None:
        raise ValueError("vectors by word need vocab=, a mapping from word to row or a list of words")
    found = [word for word in vocab if word in mapping]
    lengths: dict[Any, Any] = {}
    dtypes = set()
    for word in found:
        vector = mapping[word]
        lengths.setdefault(to_array(vector).shape, word)
        dtypes.add(dtype_of(vector))
    if len(lengths) > 1 or any(len(shape) != 1 for shape in lengths):
        shapes = ", ".join(f"{list(shape)} for {word!r}" for shape, word in lengths.items())
        raise ValueError(f"vectors must be one-dimensional and of one length, but have shape {shapes}")
    dtypes.discard(None)
    return Vectors(
        take=lambda rows: np.stack([to_array(mapping[found[row]]) for row in rows]),
        count=len(found),
        dim=next(iter(lengths))[0] if lengths else 0,
        dtype=np.result_type(*dtypes) if dtypes else None,
        words={word: row for row, word in enumerate(found)},
    )


def _check_table(array: np.ndarray, words: Vocabulary | None, what: str) -> None:
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise ValueError(
            f"{what} must hold numbers of shape [words, dim]; it has shape {list(array.shape)} and dtype {array.dtype}"
        )
    last = max(words.values(), default=-1) if words else -1
    if last >= len(array):
        raise ValueError(f"{what} has {len(array)} rows, but a word is said to be in row {last}")


def _check_once(what: str, kind: str, items: Iterable[Any]) -> None:
    twice = [item for item, times in Counter(items).items() if times > 1]
    if twice:
        raise ValueError(f"{what} has the same {kind} more than once: {_errors.listing(twice)}")
