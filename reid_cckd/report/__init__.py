"""Numbers in, files and text out: tables, provenance, picture sheets, curves."""

from reid_cckd.report.curves import cmc_curves, roc_curves, training_curves
from reid_cckd.report.provenance import provenance
from reid_cckd.report.sheets import RankedRow, choose_rows, ranked_sheet
from reid_cckd.report.table import format_table

__all__ = [
    "RankedRow",
    "choose_rows",
    "cmc_curves",
    "format_table",
    "provenance",
    "ranked_sheet",
    "roc_curves",
    "training_curves",
]
