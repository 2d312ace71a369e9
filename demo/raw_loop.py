"""A strategy in a loop of one's own: what is frozen when, and what each parameter's settings are.

python demo/raw_loop.py
"""

from __future__ import annotations

import argparse

import numpy as np
import paddle
from paddle import nn

import paddle_ftstrat as hub


class Classifier(nn.Layer):
    """Embedding, a transformer encoder and a head, on rows of word numbers."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(200, 32)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(32, 4, 64), layers)
        self.head = nn.Linear(32, 2)

    def forward(self, words):
        """Logits [batch, 2] of words [batch, length]."""
        return self.head(self.encoder(self.embedding(words)).mean(1))


def main() -> None:
    """Train with ULMFiT's three techniques, with L2SP, decay and clipping beside them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two batches per epoch: a smoke test")
    batches_per_epoch = 2 if parser.parse_args().quick else 20

    paddle.seed(0)
    np.random.seed(0)
    model = Classifier(layers=4)
    batches = [paddle.randint(0, 200, [16, 12]) for _ in range(batches_per_epoch)]
    strategy = hub.ULMFiTStrategy(learning_rate=3e-3, frz_blocks=3)
    strategy.add_regularization("L2SP", 1e-3).add_regularization("weight_decay", 0.01).add_clip("GlobalNorm", 1.0)
    run = strategy.bind(
        model,
        num_epoch=4,
        steps_per_epoch=len(batches),
        sample_input=batches[0],
        pretrained=["embedding", "encoder"],
    )
    print(strategy)
    print(run.describe())
    for epoch in range(1, 5):
        run.begin_epoch()
        total = 0.0
        for words in batches:
            labels = (words.sum(1) % 2).astype("int64")
            loss = nn.functional.cross_entropy(model(words), labels)
            loss.backward()
            run.step()
            total += float(loss)
        trained = sum(not param.stop_gradient for param in model.parameters())
        print(f"epoch {epoch}: loss {total / len(batches):.4f}, {trained} of {len(model.parameters())} tensors trained")
    run.plot("raw_loop_plan.png")
    print("the plan: raw_loop_plan.png")


if __name__ == "__main__":
    main()
