"""The networks: an encoder of characters, a language model with tied weights on it, a classifier on it."""

from __future__ import annotations

from dataclasses import dataclass

import paddle
from paddle import nn

from paddle_ftstrat.param_attr import shared_parameters

PAD = 0
FAR_BELOW = 1e4


@dataclass(frozen=True)
class Size:
    """How large the networks are.

    Attributes:
        width: of a character's vector and of every recurrent layer.
        layers: number of recurrent layers, ≥ 1.
        head: width of the classifier's hidden layer.
        dropout: share of the pooled features that the classifier's head drops in training.
    """

    width: int = 128
    layers: int = 3
    head: int = 64
    dropout: float = 0.2


class Encoder(nn.Layer):
    """Characters [batch, length] → features [batch, length, width]: an embedding and GRUs, left to right.

    Each GRU adds to what comes in: without that, three of them take several times as long to learn.

    Args:
        characters: size of the vocabulary.
        size: widths and number of layers.
        name: name of the embedding's ParamAttr, for a layer that shares it; None: it stands alone.
    """

    def __init__(self, characters: int, size: Size, name: str | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, size.width, weight_attr=_embedding_attr(name))
        self.rnns = nn.LayerList([nn.GRU(size.width, size.width) for _ in range(size.layers)])

    def forward(self, characters):
        """Features [batch, length, width]."""
        features = self.embedding(characters)
        for rnn in self.rnns:
            features = features + rnn(features)[0]
        return features


class TiedSoftmax(nn.Layer):
    """Features [batch, length, width] → logits [batch, length, characters], by the embedding's own weights."""

    def __init__(self, characters: int, width: int, name: str) -> None:
        super().__init__()
        self.weight = self.create_parameter([characters, width], attr=_embedding_attr(name))
        self.bias = self.create_parameter([characters], is_bias=True)

    def forward(self, features):
        """Logits [batch, length, characters]."""
        return paddle.matmul(features, self.weight, transpose_y=True) + self.bias


class LanguageModel(nn.Layer):
    """Predicts each next character; embedding and softmax are one Parameter.

    Args:
        characters: size of the vocabulary.
        size: widths and number of layers.

    Example:
        >>> import paddle
        >>> model = LanguageModel(50, Size(8))
        >>> model.encoder.embedding.weight is model.decoder.weight
        True
        >>> model(paddle.ones([2, 7], "int64")).shape
        [2, 7, 50]
    """

    def __init__(self, characters: int, size: Size) -> None:
        super().__init__()
        name = paddle.utils.unique_name.generate("characters")
        with shared_parameters():
            self.encoder = Encoder(characters, size, name)
            self.decoder = TiedSoftmax(characters, size.width, name)

    def forward(self, characters):
        """Logits [batch, length, characters] of the characters that follow."""
        return self.decoder(self.encoder(characters))


class Head(nn.Layer):
    """Concat pooling and two linear layers: features [batch, length, width], characters → logits [batch, classes].

    Pooled are the features at the last character, their maximum and their mean over the text, padding left out.

    Source: Howard & Ruder (arXiv:1801.06146, section 3.3).
    """

    def __init__(self, width: int, classes: int, size: Size) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1D(3 * width)
        self.dropout = nn.Dropout(size.dropout)
        self.hidden = nn.Linear(3 * width, size.head)
        self.output = nn.Linear(size.head, classes)

    def forward(self, features, characters):
        """Logits [batch, classes]."""
        pooled = self.norm(concat_pooling(features, (characters != PAD).astype(features.dtype)))
        hidden = nn.functional.relu(self.hidden(self.dropout(pooled)))
        return self.output(self.dropout(hidden))


class Classifier(nn.Layer):
    """Characters [batch, length], padded with 0 at the end → logits [batch, classes].

    Example:
        >>> import paddle
        >>> Classifier(50, 2, Size(8))(paddle.ones([3, 7], "int64")).shape
        [3, 2]
    """

    def __init__(self, characters: int, classes: int, size: Size) -> None:
        super().__init__()
        self.encoder = Encoder(characters, size)
        self.head = Head(size.width, classes, size)

    def forward(self, characters):
        """Logits [batch, classes]."""
        return self.head(self.encoder(characters), characters)


def concat_pooling(features, real):
    """[last, maximum, mean] over time → [batch, 3 · width].

    Args:
        features: [batch, length, width], of magnitude below 10⁴.
        real: [batch, length], 1 where there is a character and 0 in the padding at the end; at least one 1 per text.
    """
    lengths = real.sum(1, keepdim=True)
    real = real.unsqueeze(-1)
    ends = (lengths - 1).astype("int64").unsqueeze(-1).expand([-1, 1, features.shape[2]])
    last = paddle.take_along_axis(features, ends, 1).squeeze(1)
    # Not paddle.max: in 3.3.1 its gradient takes a hundred times as long on a CPU.
    hidden_padding = features + (real - 1) * FAR_BELOW
    highest = nn.functional.max_pool2d(hidden_padding.unsqueeze(1), [features.shape[1], 1]).flatten(1)
    return paddle.concat([last, highest, (features * real).sum(1) / lengths], axis=1)


def _embedding_attr(name: str | None) -> paddle.ParamAttr:
    return paddle.ParamAttr(name=name, initializer=nn.initializer.Normal(0.0, 0.1))
