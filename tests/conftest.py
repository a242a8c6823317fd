"""Shared by all tests: one thread each, so that two test processes do not fight for two cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import torch

torch.set_num_threads(1)
