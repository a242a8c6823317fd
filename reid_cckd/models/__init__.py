"""Embedding networks and frozen teachers."""

from reid_cckd.models.deployed import Deployed
from reid_cckd.models.embedder import Embedder
from reid_cckd.models.pooling import GAP, GeM
from reid_cckd.models.published import PublishedClassifier
from reid_cckd.models.teacher import Teacher

__all__ = ["GAP", "Deployed", "Embedder", "GeM", "PublishedClassifier", "Teacher"]
