"""Every error that unsmear raises on purpose.

    UnsmearError
    ├── PhotoError          a photograph cannot be read or written
    │   ├── UnreadablePhoto     missing, truncated, empty, not an image, too large, no permission
    │   └── UnwritablePhoto     exists already, no permission, disk full, unknown format
    ├── KernelError         kernels or masks that are no blur (shape, sign, sum)
    ├── PairsError          a folder of pairs that is not one
    ├── ModelError          unknown network, broken or foreign checkpoint
    ├── RecipeError         a training recipe that contradicts itself
    ├── TrainingError       training stopped (NaN, nothing to resume)
    └── EvaluationError     images that cannot be compared

A message says what was read, what was expected and what to do next.
"""


class UnsmearError(Exception):
    """Anything that unsmear reports to a person; the command line prints it and exits with 1."""


class PhotoError(UnsmearError):
    """A photograph cannot be read or written."""


class UnreadablePhoto(PhotoError):
    """The file is missing, truncated, empty, not an image, too large, or may not be read."""


class UnwritablePhoto(PhotoError):
    """The file exists already, its folder may not be written, the disk is full, or the format is unknown."""


class KernelError(UnsmearError):
    """Kernels or masks of the wrong shape, negative, or not summing to one."""


class PairsError(UnsmearError):
    """A folder that holds no pairs, or pairs that do not match."""


class ModelError(UnsmearError):
    """An unknown network, or a checkpoint that is broken or belongs to another network."""


class RecipeError(UnsmearError):
    """A training recipe with an unknown key or a contradiction."""


class TrainingError(UnsmearError):
    """Training stopped for a reason that the message names."""


class EvaluationError(UnsmearError):
    """Images that cannot be compared."""
