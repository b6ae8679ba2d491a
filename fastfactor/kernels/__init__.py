"""Compiled kernels: no validation, no Python objects, no input or output."""
