"""ULMFiT on text: tables as they come, splits, the networks, stages that go on after a break, the whole demo."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent / "demo"))

import ulmfit_text
from ulmfit import sample, stages
from ulmfit.classify import ClassifierRecipe, plan_of, train_classifier
from ulmfit.model import PAD, Classifier, LanguageModel, Size, concat_pooling
from ulmfit.splitting import Examples, essence, labelled_sample, split, without
from ulmfit.stages import LanguageRecipe, LanguageTrainer, dataset, pretrained_classifier
from ulmfit.tables import read_table
from ulmfit.vocabulary import SPECIAL, START, UNKNOWN, Vocabulary

from paddle_ftstrat.binding import Binding
from paddle_ftstrat.param_attr.depth import find_units

TINY = Size(width=8, layers=3, head=4)
RECIPE = LanguageRecipe(epochs=2, lr=1e-2, window=16, batch=8)
# What csv and our rules both take as it is: no control characters, no lone surrogates, nothing that strip() removes.
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12)
LINES = st.lists(st.tuples(WORDS, st.text('ab",\n好', min_size=1).map(lambda t: f"<{t}>")), min_size=1, max_size=8)


def written(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


class TestTables:
    @settings(max_examples=40)
    @given(LINES, st.sampled_from(["utf-8", "utf-8-sig"]), st.sampled_from(["\n", "\r\n"]))
    def test_what_csv_writes_is_read_back(self, tmp_path_factory, rows, encoding, end):
        path = tmp_path_factory.mktemp("t") / "a.csv"
        with path.open("w", encoding=encoding, newline="") as file:
            csv.writer(file, lineterminator=end).writerows([("label", "review"), *rows])
        table = read_table(path)
        assert list(zip(table.labels, table.texts)) == rows
        assert table.broken == []

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
    def test_tsv_takes_quotes_as_they_stand(self, tmp_path, encoding):
        path = written(tmp_path / "a.tsv", 'text_a\tlabel\n"房间\t1\r\n早"餐"\t0\n', encoding)
        table = read_table(path)
        assert (table.texts, table.labels, table.broken) == (['"房间', '早"餐"'], ["1", "0"], [])

    @pytest.mark.parametrize(
        ("bad", "problem"),
        [
            ("1", "1 fields instead of 2"),
            ("1,a,b", "3 fields instead of 2"),
            ("1,  ", "nothing in column 'review'"),
            (",好", "nothing in column 'label'"),
            ('1,"abc"d', "',' expected after '\"'"),
            ('1,"never closed', None),
            ("1,x\0y", None),
            ("1," + "长" * 140_000, "field larger than field limit (131072)"),
        ],
    )
    def test_a_broken_row_costs_no_other(self, tmp_path, bad, problem):
        path = written(tmp_path / "a.csv", f'label,review\n1,一\n0,"二\n二"\n{bad}\n1,三\n0,"四"\n\n1,五\n')
        table = read_table(path)
        good = {"一", "二\n二", "三", "四", "五"}
        if "\0" in bad and sys.version_info >= (3, 11):
            good |= {"x\0y"}
            assert table.broken == []
        else:
            assert [number for number, _ in table.broken] == [5]
            assert problem is None or table.broken[0][1] == problem
            assert "1 broken rows were skipped:\n  line 5: " in table.summary()
        assert set(table.texts) == good

    def test_a_broken_byte_costs_its_row(self, tmp_path):
        (tmp_path / "a.csv").write_bytes("label,review\n1,好\n0,".encode() + b"\xff\xfe\n1," + "早".encode() + b"\n")
        table = read_table(tmp_path / "a.csv")
        assert table.texts == ["好", "早"]
        assert table.broken == [(3, "not UTF-8 in column 'review'")]

    def test_many_broken_rows_are_counted_and_some_shown(self, tmp_path):
        table = read_table(written(tmp_path / "a.csv", "label,review\n1,好\n" + "1\n" * 12))
        assert len(table.broken) == 12
        assert table.summary().endswith("  line 7: 1 fields instead of 2\n  and 7 more")

    @pytest.mark.parametrize(
        ("content", "options", "message"),
        [
            ("a,b\n1,2\n", {}, "no text column: looked for any of text, review, .* has \\['a', 'b'\\]; give --text-co"),
            ("review,b\n1,2\n", {}, "no label column"),
            ("review,label\n1,2\n", {"text": "Review"}, "looked for 'Review'"),
            ("review,label\n", {}, "no usable row"),
            ("", {}, "no text column.* has \\[\\]"),
            ("review,label\n,\n", {}, "no usable row.*\n  line 2: nothing in column 'review'"),
        ],
    )
    def test_unusable_files(self, tmp_path, content, options, message):
        with pytest.raises(ValueError, match=message):
            read_table(written(tmp_path / "a.csv", content), **options)

    def test_another_encoding(self, tmp_path):
        with pytest.raises(ValueError, match="Is the file UTF-8"):
            read_table(written(tmp_path / "a.csv", "review,label\n很好,1\n很差,0\n", "gb18030"))

    def test_no_file(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            read_table(tmp_path / "none.csv")


class TestSplitting:
    @given(st.lists(st.integers(10, 60), min_size=2, max_size=4), st.integers(0, 9))
    def test_every_text_is_in_one_part_and_every_class_in_all(self, counts, seed):
        texts = [f"text {label} {i}" for label, count in enumerate(counts) for i in range(count)]
        labels = [str(label) for label, count in enumerate(counts) for _ in range(count)]
        parts = split(texts, labels, seed)
        together = [*parts.train.texts, *parts.dev.texts, *parts.test.texts]
        assert sorted(together) == sorted(texts)
        for part, share in ((parts.test, 0.2), (parts.dev, 0.1)):
            found = np.bincount(part.labels, minlength=len(counts))
            assert found.tolist() == [max(1, int(count * share)) for count in counts]
        for text, label in zip(parts.train.texts, parts.train.labels):
            assert text.split()[1] == parts.classes[label]

    def test_repeats_are_dropped_whatever_their_punctuation(self):
        texts = [f"{i} 好" for i in range(20)] + ["０ 好！", "1好"]
        parts = split(texts, ["a", "b"] * 11, 0)
        assert parts.repeats == 2
        assert len(parts.train) + len(parts.dev) + len(parts.test) == 20

    @pytest.mark.parametrize(("few", "shown"), [(9, "'b' has 9"), (1, "'b' has 1")])
    def test_a_class_with_too_few_examples(self, few, shown):
        texts = [str(i) for i in range(30 + few)]
        with pytest.raises(ValueError, match=f"too few examples .* label {shown}; each needs at least 10"):
            split(texts, ["a"] * 30 + ["b"] * few, 0)

    def test_one_class(self):
        with pytest.raises(ValueError, match="needs two classes or more, but every label is 'a'"):
            split([str(i) for i in range(30)], ["a"] * 30, 0)

    @given(st.lists(st.integers(5, 40), min_size=2, max_size=4), st.data())
    def test_labelled_samples(self, counts, data):
        pool = Examples(
            [f"{k} {i}" for k, n in enumerate(counts) for i in range(n)], np.repeat(range(len(counts)), counts)
        )
        classes = [str(k) for k in range(len(counts))]
        small, large = sorted(data.draw(st.integers(2 * len(counts), len(pool))) for _ in range(2))
        one, other = (labelled_sample(pool, classes, size, 3) for size in (small, large))
        assert (len(one), len(set(one.texts))) == (small, small)
        assert np.bincount(one.labels, minlength=len(counts)).min() >= 2
        due = small * np.array(counts) / len(pool)
        if due.min() >= 2:
            assert np.abs(np.bincount(one.labels) - due).max() < 1
        assert small != large or one.texts == other.texts

    def test_too_many_or_too_few_labels(self):
        pool = Examples(["a", "b", "c", "d", "e"], np.array([0, 0, 1, 1, 1]))
        with pytest.raises(ValueError, match="6 labels were asked for, but there are 5"):
            labelled_sample(pool, ["a", "b"], 6, 0)
        with pytest.raises(ValueError, match="3 labels are too few for 2 classes"):
            labelled_sample(pool, ["a", "b"], 3, 0)

    def test_without(self):
        assert without(["一", "二", "二！", "三"], ["三。"]) == (["一", "二"], 1, 1)
        assert essence("？！") == "?!"


class TestVocabulary:
    @given(st.lists(st.text("abcdef好", max_size=30), min_size=1), st.integers(1, 9))
    def test_windows_are_the_texts_in_order(self, texts, length):
        vocabulary = Vocabulary("abc好")
        stream = np.concatenate([vocabulary.encode(text) for text in texts])
        if len(stream) <= length:
            with pytest.raises(ValueError, match="too little text for a window"):
                vocabulary.windows(texts, length)
            return
        here, following = vocabulary.windows(texts, length)
        used = len(here) * length
        assert here.ravel().tolist() == stream[:used].tolist()
        assert following.ravel().tolist() == stream[1 : used + 1].tolist()
        assert len(stream) - 1 - used < length

    def test_numbers(self):
        vocabulary = Vocabulary.of(["bba", "abc"], at_least=2)
        assert vocabulary.characters == "ba"
        assert vocabulary.encode("abz").tolist() == [START, SPECIAL + 1, SPECIAL, UNKNOWN]
        assert vocabulary.padded(["a", "abab", ""], 3).tolist() == [[2, 4, 0], [2, 4, 3], [2, 0, 0]]
        assert len(Vocabulary.of(["abc"], at_least=1, at_most=2)) == SPECIAL + 2
        with pytest.raises(ValueError, match="no character occurs 3 times"):
            Vocabulary.of(["ab"], at_least=3)


class TestModel:
    def test_embedding_and_softmax_are_one_parameter(self):
        model = LanguageModel(20, TINY)
        assert model.encoder.embedding.weight is model.decoder.weight
        shapes = [parameter.shape for parameter in model.parameters()]
        assert shapes.count([20, 8]) == 1
        model(paddle.ones([2, 5], "int64")).sum().backward()
        # The rows of characters that do not occur get a gradient from the softmax alone.
        assert float(model.decoder.weight.grad[7].abs().sum()) > 0

    def test_two_models_share_nothing(self):
        one, other = LanguageModel(20, TINY), LanguageModel(20, TINY)
        assert one.decoder.weight is not other.decoder.weight

    def test_concat_pooling_is_numpys(self):
        features, lengths = np.random.randn(3, 6, 4).astype("float32"), [6, 1, 3]
        real = (np.arange(6) < np.array(lengths)[:, None]).astype("float32")
        found = concat_pooling(paddle.to_tensor(features), paddle.to_tensor(real)).numpy()
        for row, values, length in zip(found, features, lengths):
            values = values[:length]
            np.testing.assert_allclose(
                row, np.concatenate([values[-1], values.max(0), values.mean(0)]), rtol=1e-5, atol=1e-6
            )

    def test_padding_changes_nothing(self):
        model = Classifier(20, 2, TINY)
        model.eval()
        text = paddle.randint(1, 20, [3, 7])
        padded = paddle.concat([text, paddle.full([3, 5], PAD, "int64")], axis=1)
        np.testing.assert_allclose(model(text).numpy(), model(padded).numpy(), rtol=1e-5, atol=1e-6)

    def test_layers_bottom_to_top(self):
        names = [unit.name for unit in find_units(Classifier(20, 2, TINY), paddle.ones([2, 5], "int64"))]
        assert names == ["encoder.embedding", "encoder.rnns.0", "encoder.rnns.1", "encoder.rnns.2", "head"]


@pytest.fixture(scope="module")
def texts():
    return sample.unlabelled(120).texts


@pytest.fixture(scope="module")
def vocabulary(texts):
    return Vocabulary.of(texts, at_least=2)


@pytest.fixture(scope="module")
def splits():
    table = sample.labelled(150)
    return split(table.texts, table.labels, 0)


class Interrupted(BaseException):
    """Ends a training in the middle, as a kill would: nothing catches it."""


def interrupt_after(monkeypatch, updates):
    step, done = Binding.step, []

    def stepping(self, *given):
        done.append(None)
        if len(done) > updates:
            raise Interrupted
        return step(self, *given)

    monkeypatch.setattr(Binding, "step", stepping)


class TestStages:
    def test_what_is_finished_is_not_done_again(self, tmp_path, texts, vocabulary, monkeypatch):
        first = LanguageTrainer(tmp_path, vocabulary, TINY).pretrain(texts, RECIPE)
        assert [row["epoch"] for row in first.history] == [1, 2]
        assert first.history[1]["valid_loss"] < first.history[0]["valid_loss"] < np.log(len(vocabulary)) + 0.5
        interrupt_after(monkeypatch, 0)
        again = LanguageTrainer(tmp_path, vocabulary, TINY).pretrain(texts, RECIPE)
        assert (again.path, again.history) == (first.path, first.history)
        for other in (
            (texts[1:], TINY, RECIPE),
            (texts, Size(4), RECIPE),
            (texts, TINY, LanguageRecipe(3, 1e-2, 16, 8)),
        ):
            with pytest.raises(Interrupted):
                LanguageTrainer(tmp_path, vocabulary, other[1]).pretrain(other[0], other[2])

    def test_same_seed_same_weights(self, tmp_path, texts, vocabulary):
        one, other = (LanguageTrainer(tmp_path / name, vocabulary, TINY).pretrain(texts, RECIPE) for name in "ab")
        assert one.path.read_bytes() == other.path.read_bytes()
        assert one.history == other.history

    @pytest.mark.parametrize("after", [0, 3, 17, 25])
    def test_interrupted_and_begun_again_gives_the_same_weights(self, tmp_path, texts, vocabulary, monkeypatch, after):
        whole = LanguageTrainer(tmp_path / "whole", vocabulary, TINY).pretrain(texts, RECIPE)
        with monkeypatch.context() as patch:
            interrupt_after(patch, after)
            with pytest.raises(Interrupted):
                LanguageTrainer(tmp_path, vocabulary, TINY).pretrain(texts, RECIPE)
        assert not list(tmp_path.glob("*.safetensors"))
        resumed = LanguageTrainer(tmp_path, vocabulary, TINY).pretrain(texts, RECIPE)
        assert resumed.path.read_bytes() == whole.path.read_bytes()
        assert resumed.history == whole.history
        assert sorted(path.suffix for path in tmp_path.iterdir() if path.is_file()) == [".json", ".safetensors"]

    def test_from_language_model_to_classifier(self, tmp_path, texts, vocabulary, splits):
        first = LanguageTrainer(tmp_path, vocabulary, TINY).pretrain(texts, RECIPE)
        stage = LanguageTrainer(tmp_path, vocabulary, TINY).adapt(splits.train.texts, RECIPE, first)
        language = LanguageModel(len(vocabulary), TINY)
        stages.hub.load_pretrained(language, stage.path, strict=True)
        model = pretrained_classifier(vocabulary, 2, TINY, stage)
        for name, value in language.encoder.state_dict().items():
            np.testing.assert_array_equal(model.encoder.state_dict()[name].numpy(), value.numpy())
        recipe = ClassifierRecipe(3, 1e-2, length=32, batch=16)
        found = train_classifier(tmp_path, splits, 40, vocabulary, TINY, recipe, stage)
        assert (len(found.losses), len(found.epochs)) == (9, 3)
        trained = Classifier(len(vocabulary), 2, TINY)
        stages.hub.load_pretrained(trained, found.path, strict=True)
        logits = stages.hub.Learner(trained, dataset(vocabulary, splits.dev, 32)).predict(
            dataset(vocabulary, splits.test, 32)
        )
        assert found.test == (logits.argmax(1).numpy() == splits.test.labels).mean()
        run = plan_of(splits, 40, vocabulary, TINY, recipe, stage)
        assert run.plan.max_train_steps == 9
        assert [len(block) for block in run.blocks] == [5, 8, 6]

    def test_interrupted_classifier(self, tmp_path, vocabulary, splits, monkeypatch):
        recipe = ClassifierRecipe(4, 1e-2, length=32, batch=8)
        whole = train_classifier(tmp_path / "whole", splits, 40, vocabulary, TINY, recipe, None)
        with monkeypatch.context() as patch:
            interrupt_after(patch, 13)
            with pytest.raises(Interrupted):
                train_classifier(tmp_path, splits, 40, vocabulary, TINY, recipe, None)
        resumed = train_classifier(tmp_path, splits, 40, vocabulary, TINY, recipe, None)
        assert (resumed.test, resumed.losses, resumed.epochs) == (whole.test, whole.losses, whole.epochs)
        assert resumed.path.read_bytes() == whole.path.read_bytes()


class TestDemo:
    def run(self, monkeypatch, capsys, *given):
        monkeypatch.setattr(sys, "argv", ["ulmfit_text.py", *map(str, given)])
        ulmfit_text.main()
        return capsys.readouterr().out

    def test_files_in_and_a_table_and_pictures_out(self, tmp_path, monkeypatch, capsys):
        made = sample.labelled(120)
        rows = [f"{text},{label}" for text, label in zip(made.texts, made.labels)]
        target = written(tmp_path / "target.csv", "\n".join(["comment,mood", *rows, "一,二,三", ""]), "utf-8-sig")
        goods = written(tmp_path / "goods.tsv", "\n".join(["text", *sample.unlabelled(150).texts, made.texts[0], ""]))
        given = ["--csv", target, "--text-column", "comment", "--label-column", "mood", "--pretrain-csv", goods]
        given += ["--labels", 20, 40, "--pretrain-epochs", 1, "--adapt-epochs", 1, "--epochs", 3, "--width", 8]
        given += ["--length", 32, "--folder", tmp_path / "out"]
        said = self.run(monkeypatch, capsys, *given)
        assert "target.csv: 120 rows; 1 broken rows were skipped:\n  line 122: 3 fields instead of 2" in said
        assert (
            "dropped: 0 repeats of labelled texts; 0 repeats of texts to pretrain on\n         and 1 of these" in said
        )
        for picture in ("plan.png", "curves.png"):
            assert (tmp_path / "out" / picture).read_bytes()[:4] == b"\x89PNG"
        tested = {json.loads(path.read_text("utf-8"))["test"] for path in (tmp_path / "out").glob("classifier-*.json")}
        assert all(f"{accuracy:.3f}" in said for accuracy in tested)
        interrupt_after(monkeypatch, 0)
        # Nothing trains any more, so no epochs are told.
        told = [line for line in said.splitlines() if not line.startswith("epoch ")]
        assert self.run(monkeypatch, capsys, *given).splitlines() == told

    def test_no_matplotlib_is_said_before_training(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        interrupt_after(monkeypatch, 0)
        with pytest.raises(ImportError, match="pictures need matplotlib"):
            self.run(monkeypatch, capsys, "--folder", tmp_path)

    def test_pretraining_text_alone_is_refused(self, tmp_path, monkeypatch, capsys):
        with pytest.raises(SystemExit):
            self.run(monkeypatch, capsys, "--pretrain-csv", tmp_path / "a.csv")
        assert "--pretrain-csv needs --csv" in capsys.readouterr().err
