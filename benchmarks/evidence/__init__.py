"""What strategies are for, measured: one file per experiment, one JSON per experiment in benchmarks/results."""

import sys
from pathlib import Path

# Experiments on texts read them, and train language models, as the demo `ulmfit_text.py` does.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "demo"))
