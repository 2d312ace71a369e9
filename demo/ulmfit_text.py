"""ULMFiT: a language model of any text, adapted to the texts to classify, then a classifier from few labels.

    python demo/ulmfit_text.py
    python demo/ulmfit_text.py --pretrain-csv goods.csv --csv hotels.csv --labels 100 500 2000

The first runs on a small made-up sample (under two minutes) and shows no more than that everything works. Files are
CSV or TSV with a line of headings, UTF-8 with or without byte order mark. Everything is kept in --folder: started
again, the script goes on where it was, also inside an epoch. Writes plan.png and curves.png there.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from ulmfit import sample
from ulmfit.classify import ClassifierRecipe, ClassifierStage, plan_of, train_classifier
from ulmfit.model import Size
from ulmfit.splitting import Splits, split, without
from ulmfit.stages import LanguageRecipe, LanguageStage, LanguageTrainer
from ulmfit.tables import read_table
from ulmfit.vocabulary import Vocabulary

from paddle_ftstrat.pictures import pyplot

ULMFIT, SCRATCH = "ULMFiT", "from scratch"


@dataclass(frozen=True)
class Texts:
    """What there is to learn from: texts without labels (or none), and the labelled ones."""

    unlabelled: list[str]
    splits: Splits


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, help="labelled texts; without it, the built-in sample is used")
    parser.add_argument("--text-column", help="column of the texts (default: text, review, content, …)")
    parser.add_argument("--label-column", help="column of the labels (default: label, class, …)")
    parser.add_argument("--pretrain-csv", type=Path, help="texts to pretrain on; without it, only --csv's are used")
    parser.add_argument("--pretrain-column", help="column of the texts in --pretrain-csv")
    parser.add_argument("--labels", type=int, nargs="+", help="numbers of labelled texts to try (default 100 500)")
    parser.add_argument("--pretrain-epochs", type=int, default=2, help="epochs of pretraining (default 2)")
    parser.add_argument("--adapt-epochs", type=int, default=3, help="epochs on the target's texts (default 3)")
    parser.add_argument("--epochs", type=int, default=8, help="epochs of the classifier (default 8)")
    parser.add_argument("--lr", type=float, default=1e-2, help="peak learning rate of all stages (default 0.01)")
    parser.add_argument("--length", type=int, default=128, help="characters of a text that are read (default 128)")
    parser.add_argument("--width", type=int, default=128, help="width of the network (default 128; sample: 48)")
    parser.add_argument("--seed", type=int, default=0, help="of everything (default 0)")
    parser.add_argument("--folder", type=Path, default=Path("ulmfit_text"), help="for results (default ulmfit_text)")
    parser.add_argument("--no-pictures", action="store_true", help="draw nothing (then matplotlib is not needed)")
    parser.add_argument("--quick", action="store_true", help="the sample, much shortened: a smoke test")
    options = parser.parse_args()
    if options.pretrain_csv and not options.csv:
        parser.error("--pretrain-csv needs --csv, the texts to classify")
    if options.quick:
        options.csv = options.pretrain_csv = None
        options.pretrain_epochs = options.adapt_epochs = 1
        options.epochs, options.folder = 3, options.folder / "quick"
    if options.csv is None:
        options.width, options.length = 48, 64
    return options


def read(options: argparse.Namespace) -> Texts:
    """The texts; says what was skipped and dropped."""
    if options.csv is None:
        print("no --csv: made-up reviews, which show no more than that it runs")
        few = options.quick
        labelled, texts = sample.labelled(300 if few else 1000), sample.unlabelled(600 if few else 3000).texts
    else:
        labelled, texts = read_table(options.csv, options.text_column, options.label_column), []
        print(labelled.summary())
    if options.pretrain_csv:
        table = read_table(options.pretrain_csv, options.pretrain_column, labelled=False)
        print(table.summary())
        texts = table.texts
    splits = split(labelled.texts, labelled.labels, options.seed)
    texts, repeats, shared = without(texts, labelled.texts)
    print(
        f"classes {splits.classes}: {len(splits.train)} texts to train, {len(splits.dev)} dev, {len(splits.test)} test"
    )
    print(f"dropped: {splits.repeats} repeats of labelled texts; {repeats} repeats of texts to pretrain on")
    print(f"         and {shared} of these that are among the labelled ones")
    return Texts(texts, splits)


def language_model(
    texts: Texts, vocabulary: Vocabulary, size: Size, options: argparse.Namespace
) -> dict[str, LanguageStage]:
    """The first two stages, by name; without texts to pretrain on, one."""
    stages: dict[str, LanguageStage] = {}
    target = texts.splits.train.texts
    trainer = LanguageTrainer(options.folder, vocabulary, size)
    recipe = LanguageRecipe(options.pretrain_epochs, options.lr, seed=options.seed)
    if options.csv is None:
        recipe = replace(recipe, window=32, batch=32)
    if not texts.unlabelled:
        recipe = replace(recipe, epochs=options.pretrain_epochs + options.adapt_epochs)
        stages["target texts only"] = trainer.pretrain(target, recipe)
        return stages
    stages["pretraining"] = trainer.pretrain(texts.unlabelled, recipe)
    recipe = replace(recipe, epochs=options.adapt_epochs, lr=options.lr / 2)
    stages["adapting"] = trainer.adapt(target, recipe, stages["pretraining"])
    return stages


def show(classifiers: dict[str, dict[int, ClassifierStage]]) -> None:
    """The accuracies as a table."""
    table = Table(title="test accuracy, one seed")
    for heading in ("labels", *classifiers):
        table.add_column(heading, no_wrap=True)
    for count in sorted(classifiers[ULMFIT]):
        table.add_row(str(count), *(f"{stages[count].test:.3f}" for stages in classifiers.values()))
    Console().print(table)


def main() -> None:
    """All stages."""
    options = arguments()
    if not options.no_pictures:
        pyplot()  # An error about matplotlib is better now than after training.
    texts = read(options)
    counts = options.labels or sorted({min(count, len(texts.splits.train)) for count in (100, 500)})
    vocabulary = Vocabulary.of([*texts.unlabelled, *texts.splits.train.texts], at_least=2, at_most=1500)
    size = Size(options.width)
    language = language_model(texts, vocabulary, size, options)
    for name, stage in language.items():
        print(f"{name}: held-out loss {stage.history[-1]['valid_loss']:.3f} nats per character")
    recipe = ClassifierRecipe(options.epochs, options.lr, options.length, seed=options.seed)
    last = list(language.values())[-1]
    classifiers: dict[str, dict[int, ClassifierStage]] = {ULMFIT: {}, SCRATCH: {}}
    for count in counts:
        for name, start in ((ULMFIT, last), (SCRATCH, None)):
            classifiers[name][count] = train_classifier(
                options.folder, texts.splits, count, vocabulary, size, recipe, start
            )
    show(classifiers)
    if options.no_pictures:
        return
    from ulmfit.pictures import draw_curves

    plan_of(texts.splits, max(counts), vocabulary, size, recipe, last).plot(options.folder / "plan.png")
    histories = {name: stage.history for name, stage in language.items()}
    draw_curves(histories, classifiers, options.folder / "curves.png")
    print(f"pictures: {options.folder / 'plan.png'}, {options.folder / 'curves.png'}")


if __name__ == "__main__":
    warnings.filterwarnings("default", module="paddle_ftstrat")
    main()
