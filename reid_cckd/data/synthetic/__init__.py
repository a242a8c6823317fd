"""Synthetic pedestrians, and small twins of public data sets in their own formats."""

from reid_cckd.data.synthetic.twins import TWINS, Numbers, write_twin
from reid_cckd.data.synthetic.writer import ensure_pedestrians, write_pedestrians

__all__ = ["TWINS", "Numbers", "ensure_pedestrians", "write_pedestrians", "write_twin"]
