"""What strategies are for, measured: one file per experiment, one JSON per experiment in benchmarks/results."""
