"""Correlation congruence knowledge distillation for person re-identification, faces and image retrieval."""

__version__ = "0.1.0"
