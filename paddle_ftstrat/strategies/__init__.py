"""Strategies: named, validated, serialisable options that compile to a plan."""
