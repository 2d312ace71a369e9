"""Loads from and saves to checkpoint folders that were changed at random. Usage: mutated_folders.py FOLDER."""

import hashlib
import json
import os
import random
import resource
import shutil
import sys
import warnings
from functools import partial
from pathlib import Path

import numpy as np

import paddle_ftstrat.training.checkpoint.folder as store_folder
from paddle_ftstrat.training.checkpoint.store import Store

CASES, STEPS = 220, (1, 2, 3)
BYTES = 2**20  # of a checkpoint's weights
HOSTILE = [None, -1, 1.5, 2**80, True, "x" * 10**5, [], {}, [[]], {"size": 1}, float("nan"), "../../x", "1" * 4000]


def state(step):
    return {"model": {"w": np.random.default_rng(step).standard_normal(BYTES // 8)}, "more": {"n": np.asarray(step)}}


def flip(draw, file):
    content = bytearray(file.read_bytes())
    for _ in range(draw.randint(1, 9)):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    file.write_bytes(content)


def truncate(draw, file):
    os.truncate(file, draw.randrange(file.stat().st_size))


def append(draw, file):
    """Some bytes, or a hole of gigabytes."""
    size = file.stat().st_size
    os.truncate(file, size + draw.choice([1, 100, 2**31]))


def zero(draw, file):
    size = file.stat().st_size
    first = draw.randrange(size)
    with file.open("r+b") as stream:
        stream.seek(first)
        stream.write(bytes(draw.randint(1, size - first)))


def delete(draw, file):
    file.unlink()


def swap(draw, file):
    """With a file of the same name, or of another, in this checkpoint or another."""
    other = draw.choice(sorted(file.parent.parent.glob("step_*/*")))
    other.replace(file)


def pipe(draw, file):
    file.unlink()
    os.mkfifo(file)


def link(draw, file):
    target = draw.choice(["/dev/zero", "nowhere", str(file.parent), str(file), "/dev/full"])
    file.unlink()
    file.symlink_to(target)


def forge(draw, file):
    """A manifest that has its own checksum, and says something else; other files are made to fit it."""
    manifest = file.parent / "manifest.json"
    if file != manifest:
        if file.name == "facts.json":
            file.write_text(draw.choice(["[", "3", "[" * 10**5, "null", '"x"', "{} {}"]))
        else:
            flip(draw, file)
    content = json.loads(manifest.read_text())
    del content["checksum"]
    data = file.read_bytes()
    if file != manifest:
        content["files"][file.name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    else:
        at = draw.choice([content, content["files"], content["files"]["facts.json"]])
        key = draw.choice([*at, "new"])
        at[key] = draw.choice(HOSTILE)
        if draw.random() < 0.3:
            del at[key]
    manifest.write_bytes(store_folder.encode(content))


def whole_folder(draw, file):
    """The checkpoint as a whole becomes something else."""
    folder, kind = file.parent, draw.choice(["gone", "pipe", "link", "file", "another"])
    aside = folder.parent / f"aside {folder.name}"
    folder.rename(aside)
    if kind == "another":
        for other in sorted(folder.parent.glob("step_*"))[:1]:
            other.rename(folder)
    elif kind == "pipe":
        os.mkfifo(folder)
    elif kind == "link":
        folder.symlink_to(aside)
    elif kind == "file":
        folder.write_text("")


MUTATIONS = [flip, truncate, append, zero, delete, swap, pipe, link, forge, whole_folder]


def attempt(act, folder):
    """What an action gave, or its error, which has to name what it is about in few words."""
    try:
        return act()
    except (ValueError, OSError) as error:
        check(str(error), folder)
        return error


def check(message, folder):
    assert len(message) <= 1000, message[:2000]
    assert str(folder) in message, message


def intact(found):
    """Whether a checkpoint that was loaded is one that was saved, and not a mixture."""
    wanted = state(found.step)
    same = all(
        np.array_equal(found.parts[part][name].numpy(), value)
        for part, arrays in wanted.items()
        for name, value in arrays.items()
    )
    return same and found.facts == {"step": found.step}


def mutate(draw, folder, first):
    """Mutate a file of a checkpoint, or of each one; whether checksums were forged."""
    forged = False
    for step in STEPS if draw.random() < 0.4 else [draw.choice(STEPS)]:
        checkpoint, mutation = folder / f"step_{step:09d}", first or draw.choice(MUTATIONS)
        files = sorted(checkpoint.iterdir()) if checkpoint.is_dir() else []
        # What was swapped in may be a hole of gigabytes.
        files = [file for file in files if file.is_file() and 0 < file.stat().st_size < 2 * BYTES]
        if files and (checkpoint / "manifest.json") in files:
            mutation(draw, draw.choice(files))
            forged, first = forged or mutation is forge, None
    return forged


def main(root):
    draw, outcomes = random.Random(20), {"taken": 0, "refused": 0, "cases": CASES}
    base = root / "base"
    for step in STEPS:
        Store(base, keep=9, background=False).save(step, state(step), {"step": step}, best=step == 2)
    assert intact(Store(base).latest())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for case in range(CASES):
        folder = root / "case"
        shutil.copytree(base, folder)
        forged = mutate(draw, folder, MUTATIONS[case % len(MUTATIONS)])
        store = Store(folder, keep=2)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            found = attempt(store.latest, folder)
            attempt(partial(store.latest, best=True), folder)
        for warning in warned:
            check(str(warning.message), folder)
        refused = found is None or isinstance(found, Exception)
        # Who makes the checksums fit may have other weights loaded.
        assert refused or forged or intact(found), (case, found)
        outcomes["refused" if refused else "taken"] += 1
        attempt(lambda store=store: (store.save(9, state(9), {"step": 9}), store.wait()), folder)
        shutil.rmtree(folder)
    outcomes["megabytes"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
