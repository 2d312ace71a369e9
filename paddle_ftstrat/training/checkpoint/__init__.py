"""Checkpoints: files of tensors, a folder of them that survives anything, and trainings that go on from one."""
