from setuptools import setup

setup(name="paddle_ftstrat", version="0.1.0", packages=["paddle_ftstrat"])
