"""Values of parameters: embeddings from pretrained vectors, values set by hand, and values as arrays and files."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import paddle
from paddle import nn

from paddle_ftstrat import _errors
from paddle_ftstrat._files import replacing
from paddle_ftstrat._paddle import layers
from paddle_ftstrat.param_attr import select
from paddle_ftstrat.param_attr.vectors import Vectors, Vocabulary, dtype_of, to_array, vectors_of, words_to_rows

# Rows are read and written this many bytes at a time: all that loading needs beside the parameter itself.
_CHUNK_BYTES = 8 << 20
_SAMPLE_ROWS = 4096


@dataclass(frozen=True)
class Coverage:
    """How many of a vocabulary's words have a vector, and which have none.

    Example:
        >>> print(Coverage(total=4, missing=("zyzzyva",)))
        3 of 4 words have a vector (75.00 %); without: zyzzyva
    """

    total: int
    missing: tuple[Any, ...]

    @property
    def found(self) -> int:
        """Number of words that have a vector."""
        return self.total - len(self.missing)

    def __str__(self) -> str:
        text = f"{self.found} of {self.total} words have a vector ({100 * self.found / self.total:.2f} %)"
        return f"{text}; without: {_errors.listing(self.missing)}" if self.missing else text


@dataclass(frozen=True, eq=False)
class TableInitializer(nn.initializer.Initializer):
    """Fills a parameter with the rows of a table; refuses one of another shape or dtype when the layer is built.

    `index[r]` is the row of `vectors` that goes to row r of the parameter, −1 for none. Those rows are drawn from
    N(0, `deviation`²); where that is None they keep what `first` puts into the whole parameter before.
    """

    vectors: Vectors
    index: np.ndarray
    first: nn.initializer.Initializer
    deviation: float | None
    zero_row: int | None
    cast: bool
    coverage: Coverage

    def __deepcopy__(self, memo: dict[int, Any]) -> TableInitializer:
        # Paddle copies a ParamAttr twice on the way to the parameter, and a model's copies would each hold a table.
        return self

    def __call__(self, param: Any, block: Any = None) -> Any:
        """Check the parameter, then fill it, now or when `paddle.LazyGuard` lets it."""
        if not paddle.in_dynamic_mode():
            raise RuntimeError("embedding_attr works in dygraph mode; call paddle.disable_static() first")
        try:
            _check_fits(param.name, (len(self.index), self.vectors.dim), self.vectors.dtype, param, self.cast)
        except ValueError:
            layers.forget_name(param.name)
            raise
        return super().__call__(param, block)

    def forward(self, param: Any, block: Any = None) -> None:
        """Write the rows, a few at a time."""
        # Not by calling it: under paddle.LazyGuard a call only takes note of what is to be done.
        self.first.forward(param, block)
        step = max(1, _CHUNK_BYTES // (8 * self.vectors.dim))
        with paddle.no_grad():
            for start in range(0, len(self.index), step):
                self._write_rows(param, start, min(start + step, len(self.index)))
            if self.zero_row is not None:
                param[self.zero_row] = 0.0

    def _write_rows(self, param: Any, start: int, stop: int) -> None:
        index = self.index[start:stop]
        found = index >= 0
        rows = self.vectors.take(index[found]) if found.any() else np.empty((0, self.vectors.dim), np.float32)
        if not found.all():
            rest = self._without_vector(param[start:stop], ~found)
            mixed = np.empty((len(index), self.vectors.dim), np.result_type(rows, rest))
            mixed[found], mixed[~found] = rows, rest
            rows = mixed
        param[start:stop] = _tensor(rows, param)

    def _without_vector(self, rows: Any, missing: np.ndarray) -> np.ndarray:
        if self.deviation is None:
            return to_array(rows)[missing]
        # Only as many as are needed: a whole table of normal numbers takes the CPU a minute and its own size again.
        drawn = paddle.standard_normal([int(missing.sum()), self.vectors.dim], dtype="float32")
        return to_array(drawn * self.deviation)


def embedding_attr(
    vectors: Any,
    vocab: Any = None,
    name: str | None = None,
    trainable: bool = True,
    *,
    words: Any = None,
    num_embeddings: int | None = None,
    padding_idx: int | None = None,
    oov: str | nn.initializer.Initializer = "normal",
    cast: bool = False,
    learning_rate: float = 1.0,
    regularizer: Any = None,
    need_clip: bool = True,
) -> paddle.ParamAttr:
    """The `weight_attr` of an Embedding that starts from pretrained vectors.

    Row r of the weight is the vector of the word that `vocab` puts in row r; without a vocab the rows are the table's
    own. The weight has shape [num_embeddings, dim]. The table is read when the layer is built, a few rows at a time,
    and neither copied nor loaded as a whole. `attr.initializer.coverage` says which words have no vector.

    Args:
        vectors: an array, tensor or nested list (words, dim); the path of an `.npy` file, which is memory-mapped;
            gensim's KeyedVectors, or anything with `key_to_index` and `vectors`; or a mapping from word to vector.
        vocab: the words of the layer: a mapping from word to row, or a list whose positions are the rows. Needed for a
            mapping; for an array or a file together with `words`.
        name: the parameter's name. Default: Paddle makes one.
        trainable: False freezes the embedding.
        words: the words of an array's or a file's rows, in the same forms as `vocab`.
        num_embeddings: rows of the layer, where it has more than the vocab. Default: the last row of the vocab + 1.
        padding_idx: the row that is zero; negative counts from the end, as in `paddle.nn.Embedding`.
        oov: what rows without a vector get: "normal", N(0, s²) with s the root mean square of the first 4096 vectors
            that are used; "zeros"; or a Paddle initializer, which is applied to the whole weight first.
        cast: allow a conversion that loses precision, such as a float64 table into a float32 layer.
        learning_rate, regularizer, need_clip: as in `paddle.ParamAttr`.

    Raises:
        ValueError: no word has a vector, a malformed table or vocab; when the layer is built, another shape or dtype
            than the layer's (both are shown).
        TypeError: vectors, vocab, words or oov of a kind that is not listed above.

    Example:
        >>> table = {"the": [1.0, 2.0], "of": [3.0, 4.0]}
        >>> attr = embedding_attr(table, vocab=["[PAD]", "of", "the"], padding_idx=0, trainable=False)
        >>> layer = nn.Embedding(3, 2, padding_idx=0, weight_attr=attr)
        >>> layer.weight.tolist()
        [[0.0, 0.0], [3.0, 4.0], [1.0, 2.0]]
        >>> print(attr.initializer.coverage)
        2 of 2 words have a vector (100.00 %)
    """
    rows = None if vocab is None else words_to_rows("vocab", vocab)
    source = vectors_of(vectors, words, rows)
    size = _size(source, rows, num_embeddings)
    zero_row = _row(padding_idx, size)
    index = _index(source, rows, size)
    coverage = _coverage(source, rows, index, zero_row)
    first, deviation = _without_vectors(oov, source, index, zero_row)
    initializer = TableInitializer(source, index, first, deviation, zero_row, cast, coverage)
    return paddle.ParamAttr(name, initializer, learning_rate, regularizer, trainable, need_clip=need_clip)


def set_parameters(layer: nn.Layer, weight: Any = None, bias: Any = None, *, cast: bool = False, **others: Any) -> None:
    """Set parameters of one layer in place: `set_parameters(fc, weight=w, bias=b)`.

    All values are checked before the first is written. The Parameter objects stay, so optimizers and layers that share
    them see the new values; do it before binding, as L2SP keeps the values that it found.

    Args:
        layer: the layer that holds the parameters itself.
        weight: new values of `layer.weight`, in its shape; for `paddle.nn.Linear` that is [in_features, out_features].
            An array, tensor or nested list. Default: unchanged.
        bias: new values of `layer.bias`.
        cast: allow a conversion that loses precision, such as float64 values for a float32 parameter.
        others: values of the layer's other parameters by attribute name, such as `weight_ih_l0=` of an LSTM.

    Raises:
        ValueError: no such parameter, another shape or dtype.

    Example:
        >>> fc = nn.Linear(2, 1)
        >>> set_parameters(fc, weight=[[1.0], [2.0]], bias=[0.5])
        >>> fc(paddle.to_tensor([[10.0, 100.0]])).tolist()
        [[210.5]]

    Source: the parameter FAQ of PaddlePaddle, "how to set the weight and bias of a fully connected layer".
    """
    own = dict(select.own_parameters(layer))
    given = {name: v for name, v in {"weight": weight, "bias": bias, **others}.items() if v is not None}
    if not given:
        raise ValueError(f"set_parameters got no values; {type(layer).__name__} has {_errors.listing(own) or 'none'}")
    if not own:
        raise ValueError(f"{type(layer).__name__} holds no parameters itself; give the layer inside it that does")
    _errors.check_keys(f"parameter of {type(layer).__name__}", given, own)
    for name, values in given.items():
        _check_fits(name, np.shape(to_array(values)), dtype_of(values), own[name], cast)
    for name, values in given.items():
        own[name].set_value(_tensor(to_array(values), own[name]))


def export_parameters(model: nn.Layer, patterns: Any, path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Copies of parameters as arrays, by structured name, and in a file if wanted: `export_parameters(model, "fc.*")`.

    Numbers are the parameter's own bits; bfloat16, which numpy lacks, widens to float32 without loss. A parameter that
    several layers share stands under its first name.

    Args:
        model: the model.
        patterns: what `select` takes, one or a list: globs, names of sublayers, compiled regexes, functions, layers.
        path: an `.npz` or `.safetensors` file to write too; its folder is made. Default: none.

    Raises:
        ValueError: a pattern that matches nothing, or a file name with another ending.
        OSError: the file cannot be written; an older one stays as it was.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> {name: array.shape for name, array in export_parameters(model, "1.*").items()}
        {'1.weight': (3, 1), '1.bias': (1,)}
    """
    target = None if path is None else Path(path)
    if target is not None and target.suffix not in _WRITERS:
        raise ValueError("path: " + _errors.unknown("file ending", target.suffix, _WRITERS))
    chosen = select.select_all(model, patterns)
    arrays = {name: to_array(p) for name, p in select.named_weights(model).items() if name in chosen}
    if target is not None:
        with replacing(target) as file:
            _WRITERS[target.suffix](file, arrays)
    return arrays


def _write_npz(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    # numpy.savez takes the names as its keyword arguments, among which `file` is its own.
    with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        for name, array in arrays.items():
            with archive.open(name + ".npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _size(source: Vectors, rows: Vocabulary | None, num_embeddings: int | None) -> int:
    least = source.count if rows is None else max(rows.values(), default=-1) + 1
    if rows is not None and source.words is None:
        raise ValueError("vocab needs words=, the words of the array's rows: without them no word has a vector")
    if num_embeddings is None:
        return least
    return _errors.check_whole("num_embeddings", num_embeddings, minimum=least)


def _row(padding_idx: int | None, size: int) -> int | None:
    if padding_idx is None:
        return None
    if isinstance(padding_idx, bool) or not hasattr(padding_idx, "__index__"):
        raise TypeError(f"padding_idx must be a whole number, not {padding_idx!r}")
    if not -size <= padding_idx < size:
        raise ValueError(f"padding_idx = {padding_idx} is outside what is allowed: −{size} … {size - 1}")
    return int(padding_idx) % size


def _index(source: Vectors, rows: Vocabulary | None, size: int) -> np.ndarray:
    index = np.full(size, -1, np.int64)
    if rows is None:
        index[: source.count] = np.arange(source.count)
    else:
        known: Vocabulary = source.words or {}
        for word, row in rows.items():
            index[row] = known.get(word, -1)
    return index


def _coverage(source: Vectors, rows: Vocabulary | None, index: np.ndarray, zero_row: int | None) -> Coverage:
    if rows is None:
        return Coverage(source.count, ())
    # The padding row is zero whether its word has a vector or not.
    wanted = [word for word, row in rows.items() if row != zero_row]
    missing = tuple(word for word in wanted if index[rows[word]] < 0)
    if len(missing) == len(wanted):
        known = f"; the vectors have {_errors.listing(source.words, 5)}" if source.words else ""
        raise ValueError(f"no word of the vocab has a vector: the vocab has {_errors.listing(rows, 5)}{known}")
    return Coverage(len(wanted), missing)


def _without_vectors(
    oov: Any, source: Vectors, index: np.ndarray, zero_row: int | None
) -> tuple[nn.initializer.Initializer, float | None]:
    """What fills the whole weight first, and the standard deviation of rows that are drawn instead, if any."""
    if not isinstance(oov, (str, nn.initializer.Initializer)):
        raise TypeError(f'oov must be "normal", "zeros" or a Paddle initializer, not {oov!r}')
    if isinstance(oov, str):
        _errors.check_keys("oov", [oov], ["normal", "zeros"])
    unfilled = index < 0
    if zero_row is not None:
        unfilled[zero_row] = False
    zeros = nn.initializer.Constant(0.0)
    if not unfilled.any() or oov == "zeros":
        return zeros, None
    if isinstance(oov, nn.initializer.Initializer):
        return oov, None
    sample = source.take(index[index >= 0][:_SAMPLE_ROWS]).astype(np.float64)
    return zeros, float(np.sqrt(np.mean(sample**2)))


def _check_fits(what: str, shape: Any, dtype: np.dtype | None, param: Any, cast: bool) -> None:
    shape, wanted, kind = list(shape), list(param.shape), str(param.dtype).rpartition(".")[2]
    # Python's numbers take the parameter's precision; numpy has no bfloat16, and none of its types fits into it.
    exact = dtype is None or (kind != "bfloat16" and np.can_cast(dtype, np.dtype(kind), "safe"))
    if shape == wanted and (exact or cast):
        return
    hint = ""
    if shape != wanted and shape == wanted[::-1]:
        hint = ". The transposed values would fit"
    elif shape == wanted:
        hint = ". Convert them, or allow the loss of precision with cast=True"
    raise ValueError(
        f"values for {what!r} have shape {shape} and dtype {dtype or 'of Python numbers'}, "
        f"but the parameter has shape {wanted} and dtype {kind}{hint}"
    )


def _tensor(values: np.ndarray, param: Any) -> Any:
    # Paddle reads an array of the other byte order as if it were its own.
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return paddle.to_tensor(native, place=param.place).astype(param.dtype)


def _write_safetensors(file: Any, arrays: Mapping[str, np.ndarray]) -> None:
    # Not save_file: it leaves a file that only its owner may read.
    from safetensors.numpy import save

    file.write(save(dict(arrays), {"format": "pd"}))


_WRITERS = {".npz": _write_npz, ".safetensors": _write_safetensors}
