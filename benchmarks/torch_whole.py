"""torch's side of bench_whole.py: the same models, AdamW (fused) and clip. Run by it in a Python that has torch.

Arguments: --worker torch MODEL [--quick]
"""

import sys

import torch
from torch import nn
from whole_sizes import CLASSES, QUICK, SIZES
from workers import serve

LR = 1e-4
# Sandler et al. 2018, table 2: expansion, channels, repetitions, stride.
MOBILENET = [
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)
]  # fmt: skip


def convolution(inputs, outputs, kernel, stride=1, groups=1, activation=None):
    """Convolution, normalisation and, where there is one, an activation."""
    layers = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([activation] if activation else []))


class Block(nn.Module):
    """Two 3×3 convolutions beside a way past them (He et al. 2015)."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.way = nn.Sequential(
            convolution(inputs, outputs, 3, stride, activation=nn.ReLU()), convolution(outputs, outputs, 3)
        )
        same = inputs == outputs and stride == 1
        self.past = nn.Identity() if same else convolution(inputs, outputs, 1, stride)

    def forward(self, x):
        """[batch, inputs, height, width] → [batch, outputs, height / stride, width / stride]."""
        return torch.relu(self.way(x) + self.past(x))


class Inverted(nn.Module):
    """Widen, a depthwise convolution, narrow; past it where the shape is the same (Sandler et al. 2018)."""

    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        width = inputs * expansion
        self.way = nn.Sequential(
            *([convolution(inputs, width, 1, activation=nn.ReLU6())] if expansion > 1 else []),
            convolution(width, width, 3, stride, width, nn.ReLU6()),
            convolution(width, outputs, 1),
        )
        self.same = stride == 1 and inputs == outputs

    def forward(self, x):
        """[batch, inputs, height, width] → [batch, outputs, height / stride, width / stride]."""
        return x + self.way(x) if self.same else self.way(x)


def resnet18():
    """ResNet-18 as in Paddle."""
    layers, inputs = [convolution(3, 64, 7, 2, activation=nn.ReLU()), nn.MaxPool2d(3, 2, 1)], 64
    for outputs, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [Block(inputs, outputs, stride), Block(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES))


def mobilenet_v2():
    """MobileNetV2 as in Paddle."""
    layers, inputs = [convolution(3, 32, 3, 2, activation=nn.ReLU6())], 32
    for expansion, outputs, repetitions, stride in MOBILENET:
        for index in range(repetitions):
            layers.append(Inverted(inputs, outputs, 1 if index else stride, expansion))
            inputs = outputs
    layers += [convolution(inputs, 1280, 1, activation=nn.ReLU6()), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(0.2), nn.Linear(1280, CLASSES))


class Encoder(nn.Module):
    """Embedding, encoder layers, a classifier of the mean."""

    def __init__(self, size):
        super().__init__()
        self.embedding = nn.Embedding(size.vocabulary, size.width)
        layer = nn.TransformerEncoderLayer(
            size.width, size.heads, 4 * size.width, size.dropout, size.activation, batch_first=True
        )
        self.body = nn.TransformerEncoder(layer, size.layers)
        self.head = nn.Linear(size.width, CLASSES)

    def forward(self, ids):
        """Token ids [batch, length] → logits [batch, classes]."""
        return self.head(self.body(self.embedding(ids)).mean(1))


class LanguageModel(nn.Module):
    """Embedding, LSTM layers, scores of the next word."""

    def __init__(self, size):
        super().__init__()
        self.embedding = nn.Embedding(size.vocabulary, size.width)
        self.body = nn.LSTM(size.width, size.width, size.layers, batch_first=True)
        self.head = nn.Linear(size.width, size.vocabulary)

    def forward(self, ids):
        """Token ids [batch, length] → logits [batch·length, vocabulary]."""
        return self.head(self.body(self.embedding(ids))[0]).flatten(0, 1)


def main():
    """Measure whenever asked to."""
    name, size = sys.argv[3], (QUICK if "--quick" in sys.argv else SIZES)[sys.argv[3]]
    torch.manual_seed(0)
    if size.vocabulary:
        inputs = torch.randint(0, size.vocabulary, size.batch)
        model = LanguageModel(size) if name == "lstm" else Encoder(size)
    else:
        inputs, model = torch.randn(size.batch), {"resnet18": resnet18, "mobilenet_v2": mobilenet_v2}[name]()
    labels = inputs.flatten() if name == "lstm" else torch.randint(0, CLASSES, (len(inputs),))
    optimizer = torch.optim.AdamW(model.parameters(), LR, fused=True)

    def step():
        nn.functional.cross_entropy(model(inputs), labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    serve(step, size.steps)


if __name__ == "__main__":
    main()
