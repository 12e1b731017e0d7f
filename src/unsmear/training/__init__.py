"""Training: a recipe in, a folder with checkpoints, a log and pictures out."""

from unsmear.training.loop import train
from unsmear.training.recipe import PatchStage, Recipe, Validation, make_recipe, read_recipe, to_toml

__all__ = ["PatchStage", "Recipe", "Validation", "make_recipe", "read_recipe", "to_toml", "train"]
