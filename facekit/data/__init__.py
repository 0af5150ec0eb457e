"""Labelled data: readers of every format, what a sample is, splits, faults, and tensors on the device."""
