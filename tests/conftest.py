"""Shared by all tests: one thread each, so that two test processes do not fight for two cores."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start too, whatever the shell says
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import torch

torch.set_num_threads(1)
