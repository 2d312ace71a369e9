"""Packaging of paddle_ftstrat."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "paddle_ftstrat" / "__init__.py").read_text("utf-8"))[1]

PLOT = ["matplotlib>=3.5"]
METRICS = ["scikit-learn>=1.0"]
SEQUENCE = ["seqeval>=1.2", *METRICS]
VISUALDL = ["visualdl>=2.5"]
MIGRATE = ["libcst>=1.0"]
YAML = ["PyYAML>=5.1"]
FAST = ["numba>=0.57"]
DEMO = [*PLOT, *METRICS]
# The site reads the sources: it needs no Paddle. Ruff formats the signatures.
DOCS = ["mkdocs>=1.6,<2", "mkdocstrings-python>=2,<3", "pymdown-extensions>=10", "ruff==0.17.5"]
TEST = ["pytest>=7", "hypothesis>=6", "ruff==0.17.5", *DEMO, *SEQUENCE, *MIGRATE, *YAML, *FAST]
# paddlepaddle 2.6.2 declares no upper bound for numpy, but crashes with numpy 2.
PADDLE_2_NUMPY = "numpy<2"

setup(
    name="paddle_ftstrat",
    version=VERSION,
    description="PaddleHub's, fastai's and OneFlow's fine-tuning on PaddlePaddle's own optimizers",
    long_description=(HERE / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["paddle_ftstrat", "paddle_ftstrat.*"]),
    python_requires=">=3.9",
    # No Paddle wheel here: paddlepaddle and paddlepaddle-gpu exclude each other, so the choice is the user's.
    install_requires=["numpy>=1.21", "tqdm>=4.60", "rich>=12", "safetensors>=0.4"],
    extras_require={
        "cpu": ["paddlepaddle>=3.3"],
        "gpu": ["paddlepaddle-gpu==2.6.2", PADDLE_2_NUMPY],
        "plot": PLOT,
        "metrics": METRICS,
        "sequence": SEQUENCE,
        "visualdl": VISUALDL,
        "migrate": MIGRATE,
        "yaml": YAML,
        "fast": FAST,
        "demo": DEMO,
        "docs": DOCS,
        "dev": TEST,
    },
    entry_points={"console_scripts": ["ftstrat = paddle_ftstrat.tools.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
