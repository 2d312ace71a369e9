"""Training for long does not take more and more memory."""

import os

import processes
import pytest

SCRIPT = """
import paddle_ftstrat as hub
import ctypes, numpy as np, paddle, sys
from paddle import nn

# glibc gives threads that allocate at the same moment arenas of their own, up to eight for each core, each once: on a
# busy machine the threads that save get some late. M_ARENA_MAX leaves one, so that only what piles up is seen.
if hasattr(ctypes.CDLL(None), "mallopt"):
    ctypes.CDLL(None).mallopt(-8, 1)

class Resident(hub.Callback):
    def __init__(self):
        self.at = {}

    def on_batch_end(self, learner):
        if learner.state.step in (2000, 7000):
            # Without the pages of files, which come when something in them is first used.
            line = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))
            self.at[learner.state.step] = int(line.split()[1])

x = np.random.normal(size=[100, 8]).astype("float32")
pairs = [(row, np.int64(row.sum() > 0)) for row in x]
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 2))
resident = Resident()
learner = hub.Learner(
    model, pairs, batch_size=2, progress=False, cbs=[resident, hub.EMA(0.99)],
    checkpoints=hub.Checkpoints(sys.argv[1], every=500), num_threads=1,
)
learner.fit(140, strategy=hub.ULMFiTStrategy(0.01).add_clip("GlobalNorm", 1.0), pretrained="*")
print(resident.at[7000] / resident.at[2000] - 1)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="resident memory is read from Linux's /proc")
def test_five_thousand_updates_take_no_more_memory(tmp_path):
    told = processes.run_code(tmp_path, SCRIPT, tmp_path / "ckpt")
    assert float(told.splitlines()[-1]) < 0.01
