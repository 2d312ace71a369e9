"""Bindings in other loops and libraries: paddle.Model, PaddleNLP, VisualDL, matplotlib."""
