"""Named metrics against their definitions, written out in numpy."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_ftstrat.plan import mode_of
from paddle_ftstrat.training import evaluation, metrics
from paddle_ftstrat.training.callbacks import better

seeds = st.integers(0, 2**31 - 1)


def score(name, outputs, labels, kind="classes", parts=3, **options):
    """The metric over a few batches."""
    found = evaluation.Evaluation(evaluation.find(name, kind, **options))
    for output, label in zip(np.array_split(outputs, parts), np.array_split(labels, parts)):
        if len(label):
            found.add(paddle.to_tensor(output), paddle.to_tensor(label), 0.0, len(label))
    return found.values()[name]


def counts(predicted, labels, which):
    true = np.sum((predicted == which) & (labels == which))
    return true, np.sum(predicted == which), np.sum(labels == which)


def f_measures(predicted, labels, classes):
    """(precision, recall, f1), each the mean over the classes; 0 where there is nothing to divide by."""
    rows = []
    for which in classes:
        true, found, there = counts(predicted, labels, which)
        p, r = true / found if found else 0.0, true / there if there else 0.0
        rows.append((p, r, 2 * p * r / (p + r) if p + r else 0.0))
    return np.mean(rows, axis=0)


@settings(max_examples=40)
@given(seeds, st.integers(2, 5), st.integers(1, 30))
def test_classes(seed, classes, samples):
    rng = np.random.RandomState(seed)
    logits, labels = rng.randn(samples, classes).astype("float32"), rng.randint(0, classes, samples)
    predicted = logits.argmax(-1)
    there = sorted(set(predicted) | set(labels))
    wanted = dict(zip(("precision", "recall", "f1"), f_measures(predicted, labels, there)))
    for name, value in wanted.items():
        assert score(name, logits, labels) == pytest.approx(value)
    assert score("acc", logits, labels) == pytest.approx(np.mean(predicted == labels))


@given(seeds)
def test_matthews_of_two_classes(seed):
    rng = np.random.RandomState(seed)
    logits, labels = rng.randn(20, 2).astype("float32"), rng.randint(0, 2, 20)
    predicted = logits.argmax(-1)
    wanted = np.corrcoef(predicted, labels)[0, 1] if predicted.std() and labels.std() else 0.0
    assert score("matthews", logits, labels) == pytest.approx(wanted, abs=1e-7)


@settings(max_examples=40)
@given(seeds, st.integers(1, 4), st.integers(2, 20))
def test_labels(seed, labels, samples):
    rng = np.random.RandomState(seed)
    logits, truth = rng.randn(samples, labels).astype("float32"), rng.randint(0, 2, (samples, labels))
    held = (logits > 0).astype(int)
    assert score("acc", logits, truth, "labels") == pytest.approx(np.mean((held == truth).all(-1)))
    if labels > 1:
        columns = [f_measures(held[:, i], truth[:, i], [1]) for i in range(labels)]
        for name, value in zip(("precision", "recall", "f1"), np.mean(columns, axis=0)):
            assert score(name, logits, truth, "labels") == pytest.approx(value)
    # The area under the curve is the share of (positive, negative) pairs in the right order.
    areas = []
    for i in range(labels):
        positive, negative = logits[truth[:, i] == 1, i], logits[truth[:, i] == 0, i]
        if len(positive) and len(negative):
            areas.append(np.mean(positive[:, None] > negative[None]))
    assert score("auc", logits, truth, "labels") == pytest.approx(np.mean(areas) if areas else np.nan, nan_ok=True)


@given(seeds, st.integers(3, 30), st.booleans())
def test_values(seed, samples, column):
    rng = np.random.RandomState(seed)
    outputs, labels = rng.randn(samples).astype("float32"), rng.randn(samples).astype("float32")
    shaped = outputs[:, None] if column else outputs
    ranks = [np.argsort(np.argsort(values)) for values in (outputs, labels)]
    wanted = {
        "mse": np.mean((outputs - labels) ** 2),
        "mae": np.mean(abs(outputs - labels)),
        "r2": 1 - np.sum((outputs - labels) ** 2) / np.sum((labels - labels.mean()) ** 2),
        "pearson": np.corrcoef(outputs, labels)[0, 1],
        "spearman": np.corrcoef(*ranks)[0, 1],
    }
    for name, value in wanted.items():
        assert score(name, shaped, labels, "values") == pytest.approx(value, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["spearman", "pearson"])
def test_a_constant_correlates_with_nothing(name, recwarn):
    assert np.isnan(score(name, np.ones(5, "float32"), np.arange(5, dtype="float32"), "values"))
    assert np.isnan(score(name, np.ones(1, "float32"), np.ones(1, "float32"), "values"))
    assert not recwarn.list


TAGS = ["O", "B-A", "I-A", "B-B", "I-B"]


def chunks(row):
    """(kind, first, last) of each chunk, by the rules of conlleval: an I of another kind begins a chunk, too."""
    found, kind, first = set(), None, 0
    for at, tag in enumerate([*row, "O"]):
        begins = tag[0] == "B" or (tag[0] == "I" and tag[2:] != kind)
        if kind is not None and (begins or tag == "O"):
            found.add((kind, first, at - 1))
            kind = None
        if begins:
            kind, first = tag[2:], at
    return found


@settings(max_examples=40)
@given(seeds, st.integers(1, 6), st.integers(1, 9))
def test_tokens_and_chunks(seed, samples, length):
    rng = np.random.RandomState(seed)
    logits = rng.randn(samples, length, len(TAGS)).astype("float32")
    labels = rng.randint(0, len(TAGS), (samples, length))
    lengths = rng.randint(1, length + 1, samples)
    for row, end in zip(labels, lengths):
        row[end:] = -100
    predicted, counted = logits.argmax(-1), labels != -100
    pairs = [[chunks([TAGS[i] for i in row[:end]]) for row, end in zip(some, lengths)] for some in (predicted, labels)]
    right = sum(len(a & b) for a, b in zip(*pairs))
    found, there = (sum(map(len, some)) for some in pairs)
    p, r = right / found if found else 0.0, right / there if there else 0.0
    wanted = {"precision": p, "recall": r, "f1": 2 * p * r / (p + r) if p + r else 0.0}
    wanted["acc"] = np.mean(predicted[counted] == labels[counted])
    classes = sorted(set(predicted[counted]) | set(labels[counted]))
    token = f_measures(predicted[counted], labels[counted], classes)
    wanted.update(zip(("token_precision", "token_recall", "token_f1"), token))
    for name, value in wanted.items():
        assert score(name, logits, labels, "tokens", label_list=TAGS) == pytest.approx(value)


def test_batches_of_tokens_may_differ_in_length():
    found = evaluation.Evaluation(evaluation.find(["f1", "acc", "token_f1"], "tokens", label_list=TAGS))
    for length in (3, 5):
        labels = np.tile([1, 2, 0, 3, 4], (2, 1))[:, :length]
        logits = np.eye(5, dtype="float32")[labels]
        found.add(paddle.to_tensor(logits), paddle.to_tensor(labels), 1.0, 2)
    assert found.values() == {"loss": 1.0, "f1": 1.0, "acc": 1.0, "token_f1": 1.0}


@given(seeds)
def test_another_ignore_index(seed):
    rng = np.random.RandomState(seed)
    logits, labels = rng.randn(3, 4, 5).astype("float32"), rng.randint(0, 5, (3, 4))
    padded = np.where(rng.rand(3, 4) < 0.3, 99, labels)
    kept = padded != 99
    wanted = np.mean(logits.argmax(-1)[kept] == labels[kept]) if kept.any() else np.nan
    if kept.any():
        assert score("acc", logits, padded, "tokens", ignore_index=99) == pytest.approx(wanted)


@pytest.mark.parametrize("kind", metrics.KINDS)
def test_half_precision_and_no_batches(kind):
    names = list(metrics.names(kind))
    found = evaluation.find(names, kind, label_list=TAGS)
    assert list(found) == names
    nothing = evaluation.Evaluation(found).values()
    # Paddle's own accuracy is 0 without a batch.
    assert all(np.isnan(value) for name, value in nothing.items() if (kind, name) != ("classes", "acc"))
    output = paddle.to_tensor(np.random.randn(4, 3, 5).astype("float32")).astype("bfloat16")
    label = paddle.to_tensor(np.random.randint(0, 2, (4, 3)))
    if kind == "classes":
        output, label, found = output[:, 0], label[:, 0], evaluation.find(names[1:], kind)
    elif kind != "tokens":
        output, label = output[:, :, 0], label.astype("float32" if kind == "values" else "int64")
    found = evaluation.Evaluation(found)
    found.add(output, label, 0.0, 4)
    assert all(np.isfinite(value) or name == "auc" for name, value in found.values().items())


def test_what_is_better():
    nan = float("nan")
    pairs = ((0.5, None), (0.6, 0.5), (0.5, 0.5), (nan, 0.5), (nan, None))
    assert [better(*pair, "max") for pair in pairs] == [True, True, False, False, False]
    for lower in ("loss", "mse", "mae"):
        assert better(0.4, 0.5, mode_of(lower))
        assert not better(0.6, 0.5, mode_of(lower))


def test_outputs_of_other_forms():
    class Output(dict):
        pass

    logits = paddle.ones([2, 3])
    for output in (logits, (logits, 1), [logits], {"logits": logits}, Output(hidden=0, logits=logits), {"x": logits}):
        assert evaluation.main_output(output) is logits


@pytest.mark.parametrize(
    ("name", "kind", "options", "kind_of_error", "message"),
    [
        ("f2", None, {}, ValueError, "unknown metric 'f2'. Did you mean 'f1'.* auc, .*spearman"),
        ("f2", "classes", {}, ValueError, "unknown metric 'f2'. Did you mean 'f1'"),
        ("matthews", "labels", {}, ValueError, "unknown metric 'matthews'.* auc, acc"),
        ("spearmanr", "values", {}, ValueError, "Did you mean 'spearman'"),
        ("f1", "tokens", {}, ValueError, "there is no label_list; 'token_f1' counts tokens"),
        ("f1", "tokens", {"label_list": ["O", "PER"]}, ValueError, "'PER' is none"),
        (3, "classes", {}, TypeError, "'int' object|must be a name"),
    ],
)
def test_errors(name, kind, options, kind_of_error, message):
    with pytest.raises(kind_of_error, match=message):
        evaluation.find([name], kind, **options)


@pytest.mark.parametrize(
    ("name", "kind", "missing", "message"),
    [
        ("f1", "classes", "sklearn.metrics", r"needs scikit-learn>=1\.0: pip install 'paddle_ftstrat\[metrics\]'"),
        ("auc", "labels", "sklearn.metrics", "needs scikit-learn"),
        ("spearman", "values", "scipy.stats", "needs scipy"),
        ("f1", "tokens", "seqeval.metrics", r"needs seqeval>=1\.2: pip install 'paddle_ftstrat\[sequence\]'"),
    ],
)
def test_a_package_that_is_missing_is_named(monkeypatch, name, kind, missing, message):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=message):
        evaluation.find([name], kind, label_list=TAGS)


def test_a_package_that_is_too_old_is_named(monkeypatch):
    def f1_score(y_true, y_pred, average="micro", suffix=False):
        """That of seqeval before 1.2."""

    monkeypatch.setitem(sys.modules, "seqeval.metrics", SimpleNamespace(f1_score=f1_score))
    with pytest.raises(ImportError, match=r"needs seqeval>=1\.2: .*\[sequence\]") as caught:
        evaluation.find(["f1"], "tokens", label_list=TAGS)
    assert "has no zero_division" in str(caught.value.__cause__)


def test_the_versions_that_are_asked_for_are_those_of_the_extras():
    project = (Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8")
    for package, extra in metrics._PACKAGES.values():
        if ">" in package:
            assert re.search(rf'^{extra} = \["{package}"', project, re.M)
