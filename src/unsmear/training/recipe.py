"""The recipe of a training: every setting with its meaning; the defaults are the paper's."""

import difflib
import json
import tomllib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from unsmear.errors import RecipeError
from unsmear.pairs import GuideSettings, PairSettings


def _listed(value: object) -> object:
    return [value] if isinstance(value, str | Path) else value


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PatchStage(_Table):
    """A later stage of the training with another patch size or batch (progressive patches)."""

    from_step: int = Field(gt=0, description="first step (counted from 0) that uses this size and batch")
    size: int = Field(gt=0, description="height and width of a patch, in pixels")
    batch: int = Field(gt=0, description="patches in one step")


class Adversarial(_Table):
    """The critic that a network is trained against; the defaults are DeblurGAN's."""

    weight: float = Field(
        default=0.01,
        gt=0,
        description="weight of -D(f(v)) beside the loss; 0.01: its perceptual loss has 100",
    )
    critic_steps: int = Field(default=5, gt=0, description="steps of the critic for each of the network")
    penalty: float = Field(default=10.0, ge=0, description="weight of the critic's gradient penalty")
    width: int = Field(default=64, gt=0, description="channels of the critic's first convolution")


class Validation(_Table):
    """The fixed pairs on which the gain over the blurred input is measured."""

    every: int = Field(
        default=500, gt=0, description="steps between two validations; the last step has one, too"
    )
    count: int = Field(default=16, ge=0, description="number of fixed pairs; 0: no validation")
    size: int = Field(default=256, gt=0, description="height and width of a validation pair, in pixels")
    seed: int = Field(default=1, ge=0, description="seed of the pairs and of which photographs are held out")
    held_out: float = Field(
        default=0.02,
        ge=0,
        lt=1,
        description="share of the photographs, or of the written pairs the first, kept from the training",
    )


class Recipe(_Table):
    """All that decides a training. The defaults are the paper's (section 4: Adam, 1e-4, batch 4, 256, MSE).

    The paper names no value for what is not in that list; those defaults are ours and leave the method plain
    (constant rate, no average, no clipping, fp32).
    """

    # what is trained
    network: str = Field(default="sglrn-b", description="name in the table of networks")
    arguments: dict[str, Any] = Field(
        default={}, description="constructor arguments that differ from the name's own"
    )
    low_rank: Any = Field(
        default=None, description="low-rank module in the bottleneck; absent: as the name says"
    )
    weights: Path | None = Field(default=None, description="checkpoint to start from (weights only, step 0)")

    # on what
    sharp: Annotated[list[Path], BeforeValidator(_listed)] = Field(
        default=[], description="folders (or files) of sharp photographs"
    )
    bank: Path | None = Field(
        default=None, description="kernel bank file; absent: kernels are simulated on the fly"
    )
    pairs: PairSettings = Field(
        default=PairSettings.model_validate({}), description="what the blur of the pairs looks like"
    )
    written: Path | None = Field(
        default=None,
        description="folder of pairs that `unsmear pairs` wrote; patches are cut from them instead of making "
        "new blur",
    )
    guides: GuideSettings = Field(
        default=GuideSettings.model_validate({}),
        description="how wrong the kernels are that a guided network is shown",
    )
    size: int = Field(default=256, gt=0, description="height and width of a patch, in pixels")
    batch: int = Field(default=4, gt=0, description="patches in one step, over all processes together")
    patches: list[PatchStage] = Field(default=[], description="later stages with another size and batch")

    # how
    iterations: int = Field(default=10_000, gt=0, description="number of steps")
    loss: Literal["mse", "l1", "charbonnier", "psnr", "psnr-soft", "perceptual"] = Field(
        default="mse", description="what is made small"
    )
    vgg: Path | None = Field(
        default=None, description="VGG19's weights in torchvision's layout, for the perceptual loss alone"
    )
    adversarial: Adversarial | None = Field(default=None, description="a critic to train against")
    optimizer: Literal["adam", "adamw"] = Field(default="adam", description="the rule of the steps")
    learning_rate: float = Field(default=1e-4, gt=0, description="rate after the warm-up")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="decay of Adam's two averages")
    weight_decay: float = Field(default=0.0, ge=0, description="AdamW's decay, on every parameter")
    schedule: Literal["constant", "cosine", "polynomial", "halving"] = Field(
        default="constant", description="rate after the warm-up"
    )
    warmup: int = Field(default=0, ge=0, description="steps in which the rate rises linearly from 0")
    hold: int = Field(default=0, ge=0, description="steps at the full rate before cosine or polynomial begin")
    power: float = Field(default=1.0, gt=0, description="exponent of the polynomial; 1: a straight line")
    halve_at: list[int] = Field(default=[], description="steps from which on the rate is half of that before")
    final_learning_rate: float = Field(default=0.0, ge=0, description="rate that cosine or polynomial end at")
    clip: float = Field(default=0.0, ge=0, description="largest norm of the gradient; 0: no clipping")
    ema: float = Field(
        default=0.0, ge=0, lt=1, description="decay of the average of the weights; 0: no average"
    )
    accumulation: int = Field(default=1, gt=0, description="pieces that a batch is cut into to save memory")
    seed: int = Field(
        default=0, ge=0, description="seed of the first weights, the pairs and the network's own chance"
    )

    # where
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="bf16: autocast, weights stay fp32"
    )
    channels_last: bool = Field(default=False, description="keep images with the channel as fastest axis")
    deterministic: bool = Field(
        default=False, description="refuse operations that differ from run to run (GPU)"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    threads: int = Field(
        default=0, ge=0, description="threads of the training process; 0: torch's own choice"
    )
    workers: int = Field(default=2, ge=0, description="processes that make pairs; 0: the training's own")

    # what is kept
    run: Path = Field(default=Path("runs/unnamed"), description="folder of this run")
    validation: Validation = Field(default=Validation(), description="the fixed pairs")
    log_every: int = Field(default=50, gt=0, description="steps between two lines of log.jsonl")
    samples_every: int = Field(default=1000, ge=0, description="steps between two sample pictures; 0: none")
    checkpoint_seconds: float = Field(default=600.0, gt=0, description="longest time between two checkpoints")
    checkpoint_steps: int = Field(
        default=0, ge=0, description="steps between two checkpoints; 0: by time only"
    )
    tensorboard: bool = Field(default=True, description="write TensorBoard's event files if it is installed")

    @model_validator(mode="before")
    @classmethod
    def _no_samples_without_validation(cls, values: Any) -> Any:
        """Without validation pairs the default is no sample pictures, and written down as that."""
        if isinstance(values, dict) and "samples_every" not in values:
            validation = values.get("validation", {})
            count = (
                validation.get("count")
                if isinstance(validation, dict)
                else getattr(validation, "count", None)
            )
            values = values | {"samples_every": 0} if count == 0 else values
        return values

    def model_post_init(self, context: Any) -> None:
        """Refuse settings that contradict one another.

        Raises:
            RecipeError: naming the keys.
        """
        for message in _contradictions(self):
            raise RecipeError(f"recipe: {message}")

    @property
    def stages(self) -> list[PatchStage]:
        """Every stage in order; the first begins at step 0 with `size` and `batch`."""
        first = PatchStage.model_construct(from_step=0, size=self.size, batch=self.batch)
        return [first, *self.patches]

    def without_folders(self) -> dict[str, Any]:
        """The recipe as plain values for a published checkpoint: of each path only the last part stays."""
        plain = self.model_dump(mode="json", exclude_none=True)
        for key in ("run", "weights", "bank", "written", "vgg"):
            if key in plain:
                plain[key] = Path(plain[key]).name
        plain["sharp"] = [Path(folder).name for folder in plain["sharp"]]
        return plain


def _contradictions(recipe: Recipe) -> Iterator[str]:
    if recipe.weight_decay and recipe.optimizer == "adam":
        yield "weight_decay: Adam has none; set optimizer = 'adamw' or leave weight_decay out"
    if not all(0 <= beta < 1 for beta in recipe.betas):
        yield f"betas: each must lie in [0, 1), got {list(recipe.betas)}"
    if recipe.warmup + recipe.hold >= recipe.iterations:
        key = "hold" if recipe.hold else "warmup"
        yield f"{key}: {recipe.warmup + recipe.hold} steps do not fit into iterations = {recipe.iterations}"
    if recipe.schedule in ("constant", "halving"):
        for key in ("final_learning_rate", "hold"):
            if getattr(recipe, key):
                yield f"{key}: a {recipe.schedule} schedule has none; set schedule = 'cosine' or leave it out"
    if recipe.power != 1 and recipe.schedule != "polynomial":
        yield f"power: a {recipe.schedule} schedule has none; set schedule = 'polynomial' or leave it out"
    if bool(recipe.halve_at) != (recipe.schedule == "halving"):
        yield "halve_at: goes with schedule = 'halving', and that with halve_at"
    if (recipe.vgg is not None) != (recipe.loss == "perceptual"):
        yield (
            "vgg: loss = 'perceptual' needs VGG19's weights, a file that you have (--set vgg=FILE), and no "
            "other loss takes them"
        )
    if recipe.final_learning_rate > recipe.learning_rate:
        yield "final_learning_rate: must not be above learning_rate"
    starts = [stage.from_step for stage in recipe.stages]
    if starts != sorted(set(starts)):
        yield f"patches: from_step must rise from stage to stage, got {starts[1:]}"
    for stage in recipe.stages:
        if stage.batch % recipe.accumulation:
            pieces = recipe.accumulation
            yield f"accumulation: a batch of {stage.batch} cannot be cut into {pieces} equal pieces"
    if recipe.written:
        given = {"sharp": recipe.sharp, "bank": recipe.bank, "pairs": recipe.pairs != PairSettings()}
        for key in (key for key, value in given.items() if value):
            yield f"{key}: written pairs are there already and need none; leave {key} or written out"
    if recipe.samples_every and not recipe.validation.count:
        yield "samples_every: pictures show validation pairs, but validation.count is 0"


def read_recipe(
    path: str | Path, *, changes: Iterable[str] = (), base: dict[str, Any] | None = None
) -> Recipe:
    """Read a recipe from a TOML file that lists only what differs from the defaults.

    Args:
        path: the TOML file. Without a key `run`, the run's folder is runs/NAME for NAME.toml.
        changes: `key=value` texts that win over the file; `validation.every=100` reaches into a table. A
            value is read as TOML, and as plain text where it is no TOML (`--set network=uformer-t`).
        base: values that the file wins over.

    Raises:
        RecipeError: file missing or no TOML, unknown key (with the nearest known one), value of a wrong kind,
            contradiction.
    """
    path = Path(path)
    try:
        values = {"run": f"runs/{path.stem}", **(base or {}), **tomllib.loads(path.read_text("utf-8"))}
    except OSError as error:
        raise RecipeError(
            f"{path}: cannot be read ({error.strerror}); expected a recipe, a TOML file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not a TOML file: {error}") from error
    changes = list(changes)
    for change in changes:
        _change(values, change)
    return make_recipe(
        values, source=str(path), changed=[change.partition("=")[0].strip() for change in changes]
    )


def make_recipe(values: dict[str, Any], *, source: str = "recipe", changed: Collection[str] = ()) -> Recipe:
    """Check plain values and make a `Recipe` of them; `source` begins the messages, --set those on `changed`.

    Raises:
        RecipeError: see `read_recipe`.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(
            "\n".join(_explain(source, problem, changed) for problem in error.errors())
        ) from error


def _explain(source: str, problem: Any, changed: Collection[str]) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    source = "--set" if place in changed else source
    if problem["type"] == "value_error":  # a table that contradicts itself says so in its own words
        return f"{source}: {place}: {problem['ctx']['error']}"
    if problem["type"] == "model_type":
        given = problem["input"]
        return f"{source}: {place}: expected a table of keys, such as {place}.KEY = VALUE, got {given!r}"
    if problem["type"] != "extra_forbidden":
        return f"{source}: {place}: {problem['msg']}, got {problem['input']!r}"
    tables: dict[str, type[BaseModel]] = {
        "validation": Validation,
        "patches": PatchStage,
        "adversarial": Adversarial,
        "pairs": PairSettings,
        "guides": GuideSettings,
    }
    known = tables[str(problem["loc"][0])] if len(problem["loc"]) > 1 else Recipe
    near = difflib.get_close_matches(str(problem["loc"][-1]), known.model_fields, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known.model_fields)}"
    return f"{source}: unknown key {place!r}; {hint}"


def _change(values: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {change}: expected key=value, for example --set batch=8")
    *tables, last = key.strip().split(".")
    for table in tables:
        inner = values.setdefault(table, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"--set {change}: {table!r} is not a table")
        values[table] = values = dict(inner)
    try:
        values[last] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        values[last] = text.strip()


class Difference(NamedTuple):
    """One key in which two recipes differ."""

    key: str
    before: Any
    after: Any


# What may change when a run goes on: nothing here alters what a step to come computes, except `iterations`,
# which stretches or shortens the schedule on purpose; `device` and `threads` say where and by how many it is
# computed, and move the last bits only. Photographs, bank, pairs and VGG19 are compared by content, not by
# path.
HARMLESS = {
    "iterations",
    "workers",
    "threads",
    "device",
    "sharp",
    "bank",
    "written",
    "vgg",
    "weights",
    "run",
    "validation.every",
    "validation.count",
    "validation.size",
    "log_every",
    "samples_every",
    "checkpoint_seconds",
    "checkpoint_steps",
    "tensorboard",
}


def differences(before: dict[str, Any], recipe: Recipe) -> list[Difference]:
    """Keys that a resumed run may not change: `before` holds the values kept with its checkpoint.

    A key that this version of unsmear no longer knows is passed over; one that `before` lacks counts as its
    default.
    """
    old, after, defaults = (
        _flat(values) for values in (before, recipe.model_dump(mode="json"), Recipe().model_dump(mode="json"))
    )
    keys = [key for key in after | old if key.split(".")[0] in Recipe.model_fields and key not in HARMLESS]
    pairs = [(key, old.get(key, defaults.get(key)), after.get(key, defaults.get(key))) for key in keys]
    return [Difference(key, was, now) for key, was, now in pairs if was != now]


def _flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Nested tables as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
    return flat


def to_toml(recipe: Recipe) -> str:
    """The whole recipe as TOML, each key under a comment that says what it means."""
    plain = recipe.model_dump(mode="json", exclude_none=True)
    lines, tables = [], []
    for key, field in Recipe.model_fields.items():
        if key not in plain:
            lines.append(f"# {field.description}\n# {key} is not set")
        elif isinstance(plain[key], dict):
            inner = [f"{_key(name)} = {_value(value)}" for name, value in plain[key].items()]
            tables.append("\n".join([f"# {field.description}", f"[{key}]", *inner]))
        else:
            lines.append(f"# {field.description}\n{key} = {_value(plain[key])}")
    return "\n".join(lines) + "\n\n" + "\n\n".join(tables) + "\n"


def _key(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else _value(name)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None)
        return "{" + inner + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    # as JSON writes it, but that TOML wants DEL escaped
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
