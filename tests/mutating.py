"""Damages files of weights and strategies in a process of its own, reads them, and reports what each of them did.

python tests/mutating.py FOLDER COUNT: COUNT files, the same ones every time. Prints JSON.
"""

import io
import json
import random
import re
import resource
import struct
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import paddle
from paddle import nn

import paddle_ftstrat as hub
from paddle_ftstrat.transfer.files import open_contents

FIXTURES = Path(__file__).parent / "fixtures"
SECONDS, MEMORY, MESSAGE = 2, 256 * 2**20, 1_000
# What a reader of data has no business doing. Reading a file, parsing a literal and decoding text are not in it.
FORBIDDEN = re.compile(
    r"os\.(system|exec|fork|posix_spawn|putenv|remove|rename|mkdir|chmod)|subprocess|socket|shutil|exec$"
)
STRATEGIES = (
    "strategy: ULMFiTStrategy\nlearning_rate: 1e-3\nfrz_blocks: 5\nregularization: {L2: 0.01}\nbeta1: 0.8\n",
    "strategy: CombinedStrategy\noptimizer_name: rmsprop\nscheduler:\n  warmup: 0.1\n"
    "  linear_decay: {start_point: 0.5}\n  discriminative: &a {blocks: 3, factor: 2.0}\n"
    "  gradual_unfreeze: {blocks: 3}\nclip: {GlobalNorm: 1.0}\nrho: 0.9\n",
)
TOKENS = {
    "yaml": [
        b"*a",
        b"&a ",
        b"[",
        b"{",
        b"- ",
        b"? ",
        b": ",
        b"!!bool ",
        b"<<: ",
        b"\n",
        b"  ",
        b"'",
        b"|\n ",
        b"%",
        b"1e999",
    ],
    "json": [b"[", b"{", b"}", b'"', b",", b":", b"null", b"1e999", b"-1", b"true", b"\\u0000", b"9" * 25],
    "pickle": [
        bytes([code]) for code in b"\x80\x95(01N\x88JKMG\x8aX\x8cBC\x8eTU)\x85\x86\x87t]ae}suc\x93Rbqr\x94hj.Q2i"
    ],
    "npz": [b"PK\x01\x02", b"PK\x03\x04", b"\xff\xff\xff\xff", b"(", b"-1", b"'<f4'", b"'|O'", b"9" * 12],
}
TOKENS["safetensors"] = TOKENS["json"]


def net():
    """What the files are of; square, so that nothing is refused for its shape alone."""
    return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1D(4), nn.Linear(4, 4))


def sound_files(folder):
    """(ending, kind, content) of files that are read without an error."""
    model, files = net(), []
    paddle.save(model.state_dict(), str(folder / "a.pdparams"))
    files.append((".pdparams", "pickle", (folder / "a.pdparams").read_bytes()))
    files += [(".pt", "pickle", (FIXTURES / name).read_bytes()) for name in ("encoder.pt", "checkpoint_legacy.pt")]
    for save in (np.savez, np.savez_compressed):
        save(folder / "a.npz", **{name: value.numpy() for name, value in model.state_dict().items()})
        files.append((".npz", "npz", (folder / "a.npz").read_bytes()))
    learner = hub.Learner(model, [(np.ones(4, "float32"), np.int64(1))] * 4, batch_size=4, path=folder, progress=False)
    learner.fit(1, strategy=hub.DefaultStrategy())
    files.append((".safetensors", "safetensors", learner.save("a").read_bytes()))
    files.append((".safetensors", "safetensors", hub.save_pretrained(model, folder).read_bytes()))
    index = {"weight_map": dict.fromkeys(model.state_dict(), "model.safetensors")}
    files.append((".index.json", "json", json.dumps(index).encode()))
    files += [(".yaml", "yaml", text.encode()) for text in STRATEGIES]
    files += [
        (".strategy.json", "json", json.dumps(hub.strategy_from_yaml(text).to_dict()).encode()) for text in STRATEGIES
    ]
    return files


def mutated(content, kind, draw):
    """The content with one damage or some."""
    content = bytearray(content)
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        at = draw.randrange(len(content) + 1)
        end = min(len(content), at + draw.choice([1, 2, 4, 8, 64, 1024]))
        damage = draw.randrange(8)
        if damage == 0 and at < len(content):
            content[at] ^= 1 << draw.randrange(8)
        elif damage == 1:
            content[at:end] = draw.choice([b"\x00", b"\xff"]) * (end - at)
        elif damage == 2:
            del content[at:end]
        elif damage == 3:
            content[at:at] = content[at:end] * draw.choice([1, 2, 50, 5_000])
        elif damage == 4:
            content[at:end] = draw.randbytes(end - at)
        elif damage == 5:
            del content[at:]
        elif damage == 6:
            numbers = list(re.finditer(rb"\d+", content))
            if numbers:
                number = draw.choice(numbers)
                content[slice(*number.span())] = draw.choice(
                    [b"-1", b"0", b"1e5", b"4294967296", b"9" * 19, b"9" * 400]
                )
        else:
            content[at:at] = draw.choice(TOKENS[kind]) * draw.choice([1, 1, 3, 1_000])
    return bytes(content)


def inside(content, kind, draw):
    """Damage behind the checks of the container: a header or a member whose lengths and checksums are right."""
    if kind == "safetensors":
        length = struct.unpack("<Q", content[:8])[0]
        header = mutated(content[8 : 8 + length], kind, draw)
        return struct.pack("<Q", len(header)) + header + content[8 + length :]
    if not content.startswith(b"PK"):
        return mutated(content, kind, draw)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
        chosen = draw.choice(old.namelist()) if kind == "npz" else next(n for n in old.namelist() if n.endswith(".pkl"))
        method = draw.choice([0, 0, 0, 8, 12, 14])
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, mutated(data, kind, draw) if name == chosen else data, method)
    return out.getvalue()


def read(path, kind):
    """Everything the library does with such a file."""
    if kind == "yaml" or path.name.endswith(".strategy.json"):
        hub.strategy_from_yaml(path).plan(20)
        return
    for entry in open_contents(path).entries.values():
        entry.read()
        entry.release()
    if path.suffix != ".pt":  # those of the fixtures are of other models
        hub.load_pretrained(net(), path, ignore_mismatched=True)


def peak():
    """The most memory so far, in bytes; reset for the next file."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return int(re.search(r"VmHWM:\s*(\d+)", status)[1]) * 1024


def main(folder, count):
    """Damage, read, and report: outcomes by kind, and whatever broke a promise."""
    files, outcomes, broken, watching, done = sound_files(folder), Counter(), [], [False], []
    for ending, kind, content in files:
        (folder / f"sound{ending}").write_bytes(content)
        read(folder / f"sound{ending}", kind)
    sys.addaudithook(lambda event, _: done.append(event) if watching[0] and FORBIDDEN.match(event) else None)
    size = int(re.search(r"VmSize:\s*(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (size + 4 * 2**30, resource.RLIM_INFINITY))
    for number in range(count):
        draw = random.Random(number)
        ending, kind, content = files[number % len(files)]
        content = draw.choice([mutated, inside])(content, kind, draw)
        path = folder / f"{number}{ending}"
        path.write_bytes(content)
        peak()
        before, begun, outcome, message = peak(), time.process_time(), "read", ""
        watching[0] = True
        try:
            read(path, kind)
        except BaseException as error:
            outcome, message = type(error).__name__, str(error)
            refused = isinstance(error, (ValueError, TypeError))
        else:
            refused = True
        watching[0] = False
        seconds, memory = time.process_time() - begun, peak() - before - len(content)
        outcomes[f"{ending} {outcome}"] += 1
        if not refused or len(message) > MESSAGE or seconds > SECONDS or memory > MEMORY or done:
            broken.append([number, ending, outcome, message[:300], round(seconds, 2), memory >> 20, done[:]])
            done.clear()
        path.unlink()
    print(json.dumps({"outcomes": dict(outcomes), "broken": broken}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
