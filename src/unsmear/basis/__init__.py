"""Kernels, kernel banks and masks: the parts of Eq. 2 besides the photograph."""
