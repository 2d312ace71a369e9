"""What a task takes as its data: phases by name, and the names of the classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from paddle_ftstrat import _errors

PHASES = ("train", "dev", "test")
ALIASES = {"val": "dev", "valid": "dev", "validate": "dev", "predict": "test"}
_LABEL_LISTS = ("label_list", "classes")


def split(dataset: Any) -> dict[str, Any]:
    """Phase → its data, of a dict or of an object with these attributes.

    Raises:
        ValueError: an unknown phase, or no training data.
    """
    if isinstance(dataset, Mapping):
        given = {ALIASES.get(name, name): value for name, value in dataset.items()}
        _errors.check_keys("phase of dataset", given, PHASES)
    else:
        names = {alias: ALIASES.get(alias, alias) for alias in (*PHASES, "val", "valid")}
        given = {name: getattr(dataset, alias) for alias, name in names.items() if getattr(dataset, alias, None)}
    found = {phase: given[phase] for phase in PHASES if given.get(phase) is not None}
    if "train" not in found:
        raise ValueError("dataset has no training data: give a dict with 'train' (and 'dev', 'test')")
    return found


def label_names(given: Sequence[Any] | None, dataset: Any) -> list[str] | None:
    """The names of the classes: as given, or the `label_list` (or `classes`) of the data or of its training part."""
    train = dataset.get("train") if isinstance(dataset, Mapping) else getattr(dataset, "train", None)
    holders = (dataset, train, getattr(train, "dataset", None))
    found = (getattr(holder, name, None) for holder in holders for name in _LABEL_LISTS)
    names = given if given is not None else next((names for names in found if names), None)
    if isinstance(names, (str, bytes)):
        raise TypeError(f"label_list must be a list of names, not {names!r}")
    return None if names is None else [str(name) for name in names]
