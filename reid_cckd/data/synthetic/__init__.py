"""Synthetic pedestrians: people, cameras that photograph them, and a set of the pictures on disk."""

from reid_cckd.data.synthetic.writer import ensure_pedestrians, write_pedestrians

__all__ = ["ensure_pedestrians", "write_pedestrians"]
