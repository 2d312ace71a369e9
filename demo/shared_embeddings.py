"""One word table for two texts, filled with vectors of one's own, and a softmax tied to it.

python demo/shared_embeddings.py
"""

from __future__ import annotations

import argparse

import numpy as np
import paddle
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.param_attr import configure, describe, embedding_attr, export_parameters, shared_parameters

REVIEW = "the room was clean and quiet but breakfast had no coffee friendly staff great view bad smell"
WORDS = REVIEW.split()
WIDTH = 8


class Matcher(nn.Layer):
    """Scores whether two texts fit together; query and title share one table by its name."""

    def __init__(self, vectors: dict[str, np.ndarray]) -> None:
        super().__init__()
        attr = embedding_attr(vectors, vocab=["<pad>", *WORDS], name="words", padding_idx=0, oov="zeros")
        with shared_parameters():
            self.query = nn.Embedding(len(WORDS) + 1, WIDTH, weight_attr=attr)
            self.title = nn.Embedding(len(WORDS) + 1, WIDTH, weight_attr=paddle.ParamAttr(name="words"))
        self.score = nn.Bilinear(WIDTH, WIDTH, 1)

    def forward(self, query, title):
        """Logits [batch, 1] of word numbers [batch, length] each."""
        return self.score(self.query(query).mean(1), self.title(title).mean(1))


def main() -> None:
    """Build, look at the settings, train, export the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few updates: a smoke test")
    updates = 5 if parser.parse_args().quick else 200

    paddle.seed(0)
    np.random.seed(0)
    vectors = {word: np.random.randn(WIDTH).astype("float32") for word in WORDS[:-2]}
    model = Matcher(vectors)
    assert model.query.weight is model.title.weight
    configure(model, [("query", {"learning_rate": 0.1})])
    print(describe(model))

    run = hub.CombinedStrategy("adam", 0.02, clip={"GlobalNorm": 1.0}).bind(model)
    for update in range(updates):
        words = paddle.randint(1, len(WORDS) + 1, [16, 4])
        same = paddle.randint(0, 2, [16, 1])
        title = paddle.where(same.astype("bool"), words, paddle.randint(1, len(WORDS) + 1, [16, 4]))
        loss = nn.functional.binary_cross_entropy_with_logits(model(words, title), same.astype("float32"))
        loss.backward()
        run.step()
        if (update + 1) % max(1, updates // 5) == 0:
            print(f"update {update + 1}: loss {float(loss):.4f}")
    table = export_parameters(model, "query", "words.npz")["query.weight"]
    print(f"exported {table.shape[0]} × {table.shape[1]} vectors to words.npz")


if __name__ == "__main__":
    main()
