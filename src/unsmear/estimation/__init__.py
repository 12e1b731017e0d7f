"""Eq. 3: the kernels and masks of Eq. 2 from photographs, with the sharp photograph or without it."""
