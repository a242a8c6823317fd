"""What a run costs while it runs: images a second, memory."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch


class Meter:
    """Counts training images between two readings; evaluation is not training time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._images = 0
        self._seconds = 0.0
        self._since = time.perf_counter()

    def start(self) -> None:
        """Training begins, or goes on after something else."""
        self._since = time.perf_counter()

    def count(self, images: int) -> None:
        """A step is done."""
        now = time.perf_counter()
        self._images += images
        self._seconds += now - self._since
        self._since = now

    def take(self) -> dict[str, float]:
        """The reading, and start anew: images a second; megabytes resident now and most allocated on the GPU."""
        reading = {
            "images_per_second": round(self._images / max(self._seconds, 1e-9), 1),
            "memory_mb": round(resident_mb(), 1),
        }
        if self.device.type == "cuda":
            reading["gpu_memory_mb"] = round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1)
        self._images, self._seconds = 0, 0.0
        return reading


def resident_mb() -> float:
    """Memory of this process, workers not included; where the system does not tell, the most it had; 0 if unknown."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024
    try:
        import resource
    except ImportError:
        return 0.0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 1024)
