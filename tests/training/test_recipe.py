import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unsmear.errors import RecipeError
from unsmear.models import NETWORKS
from unsmear.pairs import PairSettings, read_settings
from unsmear.training.recipe import Recipe, differences, make_recipe, read_recipe, to_toml
from unsmear.training.schedule import learning_rate


def write(folder, text):
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_defaults_are_the_papers():
    recipe = Recipe()
    assert (recipe.optimizer, recipe.learning_rate, recipe.batch, recipe.size) == ("adam", 1e-4, 4, 256)
    assert (recipe.iterations, recipe.loss, recipe.schedule, recipe.ema) == (10_000, "mse", "constant", 0.0)


def test_every_key_says_what_it_means():
    assert all(field.description for field in Recipe.model_fields.values())


def test_file_and_changes(tmp_path):
    path = write(tmp_path, 'sharp = "photos"\niterations = 7\n[validation]\nevery = 3\n')
    recipe = read_recipe(path, changes=["validation.count=2", "network=uformer-t", "learning_rate=2e-4"])
    assert recipe.run.as_posix() == "runs/mine"
    assert [folder.name for folder in recipe.sharp] == ["photos"]
    assert (recipe.validation.every, recipe.validation.count) == (3, 2)
    assert (recipe.network, recipe.learning_rate, recipe.iterations) == ("uformer-t", 2e-4, 7)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"lerning_rate": 1.0}, "'lerning_rate'; did you mean 'learning_rate'"),
        ({"xyzzy": 1.0}, "unknown key 'xyzzy'; expected one of network, arguments, .*, tensorboard"),
        ({"validation": 3}, "validation: expected a table of keys, such as validation.KEY = VALUE, got 3"),
        ({"validation": {"evry": 1}}, "'validation.evry'; did you mean 'every'"),
        ({"patches": [{"from": 1, "size": 8, "batch": 1}]}, "did you mean 'from_step'"),
        ({"pairs": {"most_bases": 0}}, "pairs.most_bases"),
        ({"pairs": {"largest_kernel": 4}}, "largest_kernel is 4"),
        ({"pairs": {"noize": 0}}, "did you mean 'noise'"),
        ({"iterations": "many"}, "iterations"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"loss": "l3"}, "loss"),
        ({"weight_decay": 0.1}, "weight_decay: Adam has none"),
        ({"betas": [0.9, 1.0]}, "betas"),
        ({"warmup": 10, "iterations": 10}, "warmup: 10 steps do not fit"),
        ({"final_learning_rate": 1e-6}, "final_learning_rate: a constant schedule"),
        ({"final_learning_rate": 1.0, "schedule": "cosine"}, "final_learning_rate: must not be above"),
        ({"hold": 5}, "hold: a constant schedule has none"),
        ({"hold": 10, "iterations": 10, "schedule": "cosine"}, "hold: 10 steps do not fit"),
        ({"power": 2.0, "schedule": "cosine"}, "power: a cosine schedule has none"),
        ({"halve_at": [3]}, "halve_at: goes with schedule = 'halving'"),
        ({"schedule": "halving"}, "halve_at: goes with schedule = 'halving'"),
        ({"loss": "perceptual"}, "vgg: loss = 'perceptual' needs VGG19's weights"),
        ({"vgg": "vgg19.pth"}, "vgg: .* no other loss takes them"),
        ({"adversarial": {"wieght": 1.0}}, "'adversarial.wieght'; did you mean 'weight'"),
        ({"accumulation": 3}, "accumulation: a batch of 4"),
        ({"samples_every": 5, "validation": {"count": 0}}, "samples_every"),
        (
            {"patches": [{"from_step": n, "size": 8, "batch": 4} for n in (5, 5)]},
            "patches: from_step must rise",
        ),
    ],
)
def test_nonsense_is_refused_by_name(values, words):
    with pytest.raises(RecipeError, match=words.replace("(", r"\(")):
        make_recipe(values)


def test_broken_files(tmp_path):
    with pytest.raises(RecipeError, match=r"nowhere\.toml: cannot be read"):
        read_recipe(tmp_path / "nowhere.toml")
    with pytest.raises(RecipeError, match="not a TOML file"):
        read_recipe(write(tmp_path, "iterations = \n"))
    with pytest.raises(RecipeError, match="expected key=value"):
        read_recipe(write(tmp_path, ""), changes=["iterations"])
    with pytest.raises(RecipeError, match="'batch' is not a table"):
        read_recipe(write(tmp_path, "batch = 4"), changes=["batch.size=3"])


def test_what_a_change_got_wrong_is_not_blamed_on_the_file(tmp_path):
    path = write(tmp_path, "")
    for change in ("lerning_rate=1", "validation.evry=1", "batch=0"):
        with pytest.raises(RecipeError, match=f"^--set: .*{change.partition('=')[0]}"):
            read_recipe(path, changes=[change])
    with pytest.raises(RecipeError, match=r"mine\.toml: unknown key 'lerning_rate'"):
        read_recipe(write(tmp_path, "lerning_rate = 1"), changes=["batch=2"])


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@given(
    texts,
    st.floats(1e-30, 1e3),
    st.dictionaries(
        texts, st.integers(-9, 9) | texts | st.booleans() | st.lists(st.floats(0, 1)), max_size=3
    ),
)
def test_written_recipe_reads_back(network, rate, arguments):
    recipe = make_recipe(
        {
            "network": network,
            "learning_rate": rate,
            "arguments": arguments,
            "sharp": ["a b/ü", 'quote"'],
            "patches": [{"from_step": 3, "size": 8, "batch": 2}],
            "adversarial": {"weight": rate},
        }
    )
    assert make_recipe(tomllib.loads(to_toml(recipe))) == recipe


def test_only_what_alters_coming_steps_is_a_difference():
    before = make_recipe({"sharp": "a"}).model_dump(mode="json")
    harmless = {
        "iterations": 20_000,
        "workers": 0,
        "threads": 2,
        "sharp": "b",
        "validation": {"every": 9},
        "run": "else",
    }
    assert differences(before, make_recipe(harmless)) == []
    found = differences(
        before, make_recipe({"batch": 8, "validation": {"seed": 3}, "pairs": {"noise": [0, 0]}})
    )
    assert {item.key for item in found} == {"batch", "validation.seed", "pairs.noise"}
    assert ("batch", 4, 8) in found


def test_older_recipe_lacks_keys_and_has_others():
    before = Recipe().model_dump(mode="json")
    del before["clip"]
    before["forgotten"] = 1
    assert differences(before, Recipe()) == []
    assert [item.key for item in differences(before, make_recipe({"clip": 1.0}))] == ["clip"]


def test_published_recipe_names_no_folder(tmp_path):
    recipe = make_recipe({"sharp": str(tmp_path / "photos"), "bank": str(tmp_path / "b.safetensors")})
    plain = recipe.without_folders()
    assert str(tmp_path) not in str(plain)
    assert plain["sharp"] == ["photos"]
    assert plain["bank"] == "b.safetensors"


@pytest.mark.parametrize("name", ["mscnn", "srn", "srn-lstm", "pss-srn", "deblurgan"])
def test_common_recipes_are_the_papers_defaults(name, pytestconfig):
    recipe = read_recipe(pytestconfig.rootpath / "recipes" / f"{name}.toml")
    assert recipe == make_recipe({"network": name, "run": f"runs/{name}"})


@pytest.mark.parametrize("name", ["mscnn", "srn", "deblurgan"])
def test_published_recipes_train_their_network_down_to_the_end(name, pytestconfig):
    path = pytestconfig.rootpath / "recipes" / f"{name}-published.toml"
    recipe = read_recipe(path)
    assert recipe.network == name
    assert len(path.read_text("utf-8").splitlines()) <= 15
    assert learning_rate(recipe, 0) == 1e-4
    assert learning_rate(recipe, recipe.iterations - 1) < 1.5e-5
    assert (recipe.adversarial is not None) == (name == "deblurgan")


RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(RECIPES.rglob("*.toml")) if path.stem != "guided-s-pairs"],
    ids=lambda path: path.relative_to(RECIPES).as_posix(),
)
def test_shipped_recipes(path):
    recipe = read_recipe(path)
    assert recipe.network in NETWORKS
    if path.stem == "paper":
        assert recipe == make_recipe({"run": "runs/paper"})


def test_shipped_settings_of_pairs(pytestconfig):
    settings = read_settings(pytestconfig.rootpath / "recipes" / "guided-s-pairs.toml")
    assert settings != PairSettings() and sum(settings.weights().values()) == pytest.approx(1.0)


def test_without_validation_pairs_there_are_no_samples_and_the_recipe_reads_itself():
    made = make_recipe({"sharp": "photos", "validation": {"count": 0}})
    assert made.samples_every == 0 and make_recipe({"sharp": "photos"}).samples_every == 1000
    assert Recipe.model_validate(made.model_dump(mode="json", exclude_none=True)) == made
