"""Numbers in, files and text out: tables, provenance, picture sheets, curves."""

from reid_cckd.report.congruence import Point, retention_plot, similarity_histograms, similarity_maps
from reid_cckd.report.curves import cmc_curves, roc_curves, training_curves
from reid_cckd.report.provenance import provenance
from reid_cckd.report.scores import score_plot
from reid_cckd.report.sheets import RankedRow, choose_rows, ranked_sheet
from reid_cckd.report.table import format_table, score_heading

__all__ = [
    "Point",
    "RankedRow",
    "choose_rows",
    "cmc_curves",
    "format_table",
    "provenance",
    "ranked_sheet",
    "retention_plot",
    "roc_curves",
    "score_heading",
    "score_plot",
    "similarity_histograms",
    "similarity_maps",
    "training_curves",
]
