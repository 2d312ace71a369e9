"""Packaging of paddle_ftstrat; everything about it stands in pyproject.toml."""

from setuptools import setup

setup()
