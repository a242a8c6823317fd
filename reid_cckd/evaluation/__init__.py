"""Pure functions: embeddings in, numbers out. Needs numpy and torch only.

Scores are cosine similarities (higher is closer), metrics are fractions in [0, 1].
"""

from reid_cckd.evaluation.identification import IdentificationResult, evaluate_identification
from reid_cckd.evaluation.neighbours import rank_gallery
from reid_cckd.evaluation.retrieval import RetrievalResult, evaluate_retrieval

__all__ = [
    "IdentificationResult",
    "RetrievalResult",
    "evaluate_identification",
    "evaluate_retrieval",
    "rank_gallery",
]
