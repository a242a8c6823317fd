"""The commands that people run; `reid-cckd NAME` and tools/NAME.py are the same."""
