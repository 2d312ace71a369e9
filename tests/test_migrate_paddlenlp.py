"""Migrating text scripts to PaddleNLP's models, tokenizers and data, and what goes because only the graph needed it."""

import ast
import textwrap

import pytest

pytest.importorskip("libcst", reason="the tool needs LibCST")

from paddle_ftstrat.tools.migrate import paddlenlp, rewriter

SCRIPT = """\
import paddlehub as hub
module = hub.Module(name="{model}")
inputs, outputs, program = module.context(trainable=True)
data = hub.dataset.{data}
reader = hub.reader.ClassifyReader(dataset=data, vocab_path=module.get_vocab_path(), max_seq_len={length})
task = hub.{task}(data_reader=reader, feature=outputs["pooled_output"], num_classes=data.num_labels, config=c)
"""
USUAL = {"model": "ernie", "data": "ChnSentiCorp()", "task": "ClassifierTask", "length": 64}


def migrated(text, **options):
    result = rewriter.migrate(textwrap.dedent(text.format(**{**USUAL, **options}) if options else text).encode())
    ast.parse(result.code)
    again = rewriter.migrate(result.code)
    assert again.code == result.code
    assert not again.rewritten
    return result.code.decode(), [note.text for note in result.left]


@pytest.mark.parametrize("model", ["ernie_tiny", "bert_chinese_L-12_H-768_A-12", "rbtl3", "chinese-electra-base"])
def test_a_model_is_built_with_its_tokenizer(model):
    code, left = migrated(SCRIPT, model=model)
    weights = paddlenlp.MODELS[model].weights
    assert f'module = AutoModelForSequenceClassification.from_pretrained("{weights}", num_classes=2)\n' in code
    assert f'tokenizer = AutoTokenizer.from_pretrained("{weights}")\n' in code
    assert "from paddlenlp.transformers import AutoModelForSequenceClassification, AutoTokenizer\n" in code
    assert code.endswith("task = hub.ClassifierTask(dataset=reader, model=module, config=c)\n")
    assert not left


PAIRS = {"MRPC", "QQP", "QNLI", "RTE"}
OF_DATA = {
    "GLUE()": ('"glue", "sst-2"', 'tokenizer(row["sentence"],', 'row["labels"]', 2),
    "GLUE('CoLA')": ('"glue", "cola"', 'tokenizer(row["sentence"],', 'row["labels"]', 2),
    "GLUE(sub_dataset='MNLI_m')": (
        '"glue", "mnli"',
        'tokenizer(row["sentence1"], row["sentence2"],',
        'row["labels"]',
        3,
    ),
    **{
        f"GLUE('{task}')": (
            f'"glue", "{task.lower()}"',
            'tokenizer(row["sentence1"], row["sentence2"],',
            'row["labels"]',
            2,
        )
        for task in PAIRS
    },
    "LCQMC()": ('"lcqmc"', 'tokenizer(row["query"], row["title"],', 'row["label"]', 2),
    "XNLI(language='en')": ('"xnli", "en"', 'tokenizer(row["premise"], row["hypothesis"],', 'row["label"]', 3),
    "NLPCC_DBQA()": ('"nlpcc_dbqa"', 'tokenizer(row["text_a"], row["text_b"],', 'row["label"]', 2),
    "TNews()": ('"clue", "tnews"', 'tokenizer(row["sentence"],', 'row["label"]', 15),
}


@pytest.mark.parametrize("data", OF_DATA)
def test_every_kind_of_data_is_loaded_and_encoded(data):
    given, text, label, classes = OF_DATA[data]
    code, left = migrated(SCRIPT, data=data)
    assert f"load_dataset({given}, splits=" in code
    assert f'inputs = {text} max_length=64, padding="max_length", truncation=True)' in code
    assert f'np.array(inputs["token_type_ids"]), {label}\n' in code
    assert f"num_classes={classes})" in code
    assert "reader = {phase: split.map(encode) for phase, split in data.items()}\n" in code
    assert not left


def test_mnli_has_splits_of_other_names():
    code, _ = migrated(SCRIPT, data="GLUE('MNLI_mm')")
    assert 'splits=split) for phase, split in {"train": "train", "dev": "dev_mismatched"}.items()}' in code


def test_regression_has_one_output_and_numbers():
    code, left = migrated(SCRIPT, data="GLUE('STS-B')", task="RegressionTask")
    assert "num_classes=1)" in code
    assert 'np.float32(row["labels"])' in code
    assert not left


def test_l2sp_learns_what_is_pretrained():
    code, left = migrated(SCRIPT + "s = hub.L2SPFinetuneStrategy()\n", model="rbt3")
    assert 'config=c, pretrained="roberta.*")' in code
    assert not left


@pytest.mark.parametrize(
    ("task", "encoding", "left"),
    [("SequenceLabelTask", "is_split_into_words=True, max_length=64", 0), ("ClassifierTask", None, 4)],
)
def test_tags_go_with_a_task_for_tags(task, encoding, left):
    code, todos = migrated(SCRIPT, data="MSRA_NER()", task=task)
    assert (encoding or "hub.dataset.MSRA_NER()") in code
    assert len(todos) == left


@pytest.mark.parametrize(
    "change",
    [
        ("\ntask =", "\nother = hub.ClassifierTask(feature=f, config=c)\ntask ="),  # two tasks
        ("\ndata =", '\nsecond = hub.Module(name="rbt3")\ndata ='),  # two models
        ('"{model}"', "name"),  # a model that is not named
        ('"{model}"', '"ernie_gen"'),  # one that has no counterpart
        ("module", "self.module"),  # not in a variable
        ("hub.{task}", "hub.PairwiseTextMatchingTask"),
        ("hub.{task}", "hub.MultiLabelClassifierTask"),
    ],
)
def test_where_it_is_not_clear_the_model_is_left_to_do(change):
    code, left = migrated(SCRIPT.replace(*change), data="ChnSentiCorp()")
    assert "hub.Module(" in code
    assert not any("from_pretrained(" in line for line in code.splitlines() if not line.startswith("#"))
    assert any(text.startswith("build the model itself") for text in left)


def test_data_of_ones_own_is_left_to_do():
    code, left = migrated(
        """\
        import paddlehub as hub
        module = hub.Module(name="ernie")
        reader = hub.reader.ClassifyReader(dataset=Mine(), max_seq_len=64)
        task = hub.ClassifierTask(data_reader=reader, feature=f, num_classes=5, config=c)
        """
    )
    assert 'AutoModelForSequenceClassification.from_pretrained("ernie-1.0-base-zh", num_classes=5)' in code
    assert [text.partition(":")[0] for text in left] == ["delete", "`dataset` is {'train'"]


def test_version_1_8s_tokenizers_and_data_sets():
    code, left = migrated(
        """\
        import paddlehub as hub
        module = hub.Module(name="ernie_tiny")
        tok = hub.ErnieTinyTokenizer(vocab_file=module.get_vocab_path(), spm_path=module.get_spm_path())
        dataset = hub.dataset.ChnSentiCorp(tokenizer=tok, max_seq_len=args.length)
        task = hub.TextClassifierTask(dataset=dataset, feature=f, num_classes=dataset.num_labels, config=c)
        names = dataset.get_labels()
        print(dataset.num_labels, dataset.get_test_examples())
        """
    )
    assert 'tok = AutoTokenizer.from_pretrained("ernie-tiny")\n' in code
    assert 'inputs = tok(row["text"], max_length=args.length,' in code
    assert 'dataset = {phase: load_dataset("chnsenticorp", splits=phase).map(encode) for phase in ("train"' in code
    assert 'names = dataset["train"].label_list\n' in code
    assert 'print(len(dataset["train"].label_list), dataset.get_test_examples())\n' in code
    assert left == [
        'get_test_examples: dataset is a dict of PaddleNLP\'s data sets now: dataset["train"], dataset["dev"]'
    ]


def test_names_that_the_script_uses_stay_its_own():
    code, _ = migrated(SCRIPT + "tokenizer = encode = 1\n", data="ChnSentiCorp()")
    assert 'tokenizer_ = AutoTokenizer.from_pretrained("ernie-1.0-base-zh")' in code
    assert "def encode_(row):" in code
    assert "split.map(encode_)" in code


def test_functions_of_their_own_cannot_share_a_tokenizer():
    code, left = migrated(
        """\
        import paddlehub as hub
        def model():
            module = hub.Module(name="ernie")
            return module
        def data():
            return hub.dataset.ChnSentiCorp()
        task = hub.ClassifierTask(dataset=data(), feature=f, num_classes=2, config=c)
        """
    )
    assert 'hub.Module(name="ernie")' in code
    assert left


@pytest.mark.parametrize(
    ("given", "new"),
    [
        ('[["a"]]', '[encode({"text": row[0], "label": 0}) for row in [["a"]]]'),
        ("texts", '[encode({"text": row[0], "label": 0}) for row in texts]'),
        ("read(path)", None),
    ],
)
def test_texts_to_predict_are_encoded(given, new):
    code, left = migrated(SCRIPT + f'texts = [["a"]]\ntask.predict(data={given})\n', data="ChnSentiCorp()")
    assert code.endswith(f"task.predict(data={new or given})\n")
    assert len(left) == (new is None)


class TestWhatGoes:
    """The variables of the static graph, where nothing else reads them."""

    HEAD = "import paddlehub as hub\nmodule = hub.Module(name='other')\n"
    CONTEXT = "inputs, outputs, program = module.context(trainable=True)\n"
    TASK = "task = hub.ClassifierTask(feature=pooled, feed_list=feeds, num_classes=2, config=c)\n"

    def left_of(self, text):
        """The lines that are left, but for TODOs, imports and the task."""
        code, _ = migrated(self.HEAD + text + self.TASK)
        return [line for line in code.splitlines() if not line.startswith(("#", "import", "task"))][1:]

    def test_a_chain_of_them(self):
        assert not self.left_of(self.CONTEXT + "pooled = outputs['a']\nfirst = inputs['b']\nfeeds = [first.name]\n")

    @pytest.mark.parametrize("reads", ["print(feeds)", "f(x=pooled.shape)", "def g():\n    return program"])
    def test_what_is_read_stays_with_what_it_needs(self, reads):
        kept = self.left_of(f"{self.CONTEXT}pooled = outputs['a']\nfeeds = [inputs['b'].name]\n{reads}\n")
        assert kept[0] == self.CONTEXT.strip()
        assert kept[-len(reads.splitlines()) :] == reads.splitlines()

    def test_comments_of_it_stay(self):
        code, _ = migrated(
            f"{self.HEAD}# one\n{self.CONTEXT}"
            f"feeds = [  # two\n    inputs['b'].name,  # three\n]  # four\nx = 1\n{self.TASK}"
        )
        lines = code.splitlines()
        assert lines[lines.index("x = 1") - 4 : lines.index("x = 1")] == ["# one", "# two", "# three", "# four"]

    def test_a_guard_of_programs_is_its_body(self):
        code, left = migrated(
            """\
            import paddle.fluid as fluid
            import paddlehub as hub
            def f():
                # above
                with fluid.program_guard(main, start):  # guard
                    # inside
                    x = 1
                    config = hub.RunConfig(num_epoch=2)
                return config
            """
        )
        assert code.splitlines()[1:] == [
            "def f():",
            "    # above",
            "    # guard",
            "    # inside",
            "    x = 1",
            "    config = hub.RunConfig(num_epoch=2)",
            "    return config",
        ]
        assert not left

    def test_a_block_that_loses_all_passes(self):
        assert self.left_of(f"{self.CONTEXT}if c:\n    pooled = outputs['a']\n") == ["if c:", "    pass"]
