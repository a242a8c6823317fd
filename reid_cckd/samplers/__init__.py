"""Batch samplers: CUR, SUR and uniform random, exact, seeded, distributed and resumable; superclasses found."""

from reid_cckd.samplers.agreement import SuperclassReport, superclass_report
from reid_cckd.samplers.batch_samplers import ClassUniformSampler, SuperclassUniformSampler, UniformSampler
from reid_cckd.samplers.clustering import build_superclasses
from reid_cckd.samplers.refreshed import RefreshedSuperclassSampler
from reid_cckd.samplers.superclasses import Superclasses, superclasses_of_epoch

__all__ = [
    "ClassUniformSampler",
    "RefreshedSuperclassSampler",
    "SuperclassReport",
    "SuperclassUniformSampler",
    "Superclasses",
    "UniformSampler",
    "build_superclasses",
    "superclass_report",
    "superclasses_of_epoch",
]
