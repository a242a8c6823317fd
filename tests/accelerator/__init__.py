"""Checks on a pretend accelerator, run by tests/test_accelerator.py in a process of their own."""
