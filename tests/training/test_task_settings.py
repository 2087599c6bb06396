"""A task's own settings: they count where nobody gives others, and a method is taken whole."""

from dataclasses import replace

import pytest
import yaml
from helpers import refusal

from palam.bench.recipe import Recipe
from palam.tasks.registry import TASKS
from palam.training.config import TrainConfig, settings_of_task, task_settings

OWN = {"fusion": "last", "init": "random", "lr": 0.008, "epochs": 2, "max_length": 40}
DEFAULTS = TrainConfig.from_settings({"task": "sib200"}).settings()


@pytest.fixture
def own_settings(monkeypatch):
    """`own_settings({...})` gives the task `demo` settings of its own."""

    def give(settings):
        monkeypatch.setitem(TASKS, "demo", replace(TASKS["demo"], settings=settings))

    give(OWN)
    return give


def chosen(**settings):
    """The values of a run on the task of the names in OWN."""
    values = TrainConfig.from_settings({"task": "demo", **settings}).settings()
    return {name: values[name] for name in OWN}


@pytest.mark.parametrize("name", TASKS)
def test_the_registrys_settings_are_settings(name):
    config = TrainConfig.from_settings({"task": name}).settings()
    assert {setting: config[setting] for setting in TASKS[name].settings} == TASKS[name].settings


@pytest.mark.usefixtures("own_settings")
def test_the_tasks_settings_stand_in_for_the_defaults():
    assert chosen() == OWN
    assert TrainConfig.from_settings({"task": "demo"}).optim.batch_size == 16


@pytest.mark.usefixtures("own_settings")
@pytest.mark.parametrize("name", ["lr", "epochs", "max_length"])
def test_what_is_given_goes_before_the_tasks_even_if_it_is_the_default(name):
    assert chosen(**{name: DEFAULTS[name]}) == {**OWN, name: DEFAULTS[name]}


@pytest.mark.usefixtures("own_settings")
@pytest.mark.parametrize(
    "choice",
    [
        {"fusion": "mean"},
        {"fusion": "last"},
        {"init": "solve"},
        {"init_from": "a bridge"},
        {"lora_rank": 2, "llm_only": True},
    ],
)
def test_another_method_has_no_part_of_the_tasks(choice):
    of_method = {name: DEFAULTS[name] for name in ("fusion", "init", "lr")}
    expected = {**OWN, **of_method}
    expected.update({name: value for name, value in choice.items() if name in OWN})
    assert chosen(**choice) == expected


@pytest.mark.usefixtures("own_settings")
def test_a_whole_configuration_stays_as_it_is():
    given = {**DEFAULTS, "task": "demo"}
    config = TrainConfig.from_settings(given)
    assert config.settings() == given
    assert config.with_settings(seed=1).settings() == {**given, "seed": 1}


@pytest.mark.usefixtures("own_settings")
def test_raw_text_and_other_tasks_have_none():
    assert task_settings({"text_file": "raw.txt"}) == {}
    assert task_settings({"task": "nothing"}) == {}
    assert task_settings({"task": "sib200"}) == {}


@pytest.mark.parametrize("name", ["rate", "task", "seed", "passage_words"])
def test_a_setting_that_is_none_of_a_task_is_one_line(own_settings, name):
    own_settings({name: 1})
    line = refusal(TrainConfig.from_settings, {"task": "demo"})
    assert line.startswith(f"task \"demo\": there is no setting '{name}' for a task; ")


@pytest.mark.usefixtures("own_settings")
def test_which_settings_are_as_the_task_has_them():
    config = TrainConfig.from_settings({"task": "demo", "lr": 0.1})
    of_task = settings_of_task("demo", config.settings())
    assert of_task == {name: value for name, value in OWN.items() if name != "lr"}
    assert settings_of_task(None, config.settings()) == {}


# ---------------------------------------------------------------------- recipes
def recipe_of(train, **methods):
    content = {"train": {"task": "demo", **train}, "methods": methods}
    return Recipe.parse(yaml.safe_load(yaml.safe_dump(content)))


@pytest.mark.usefixtures("own_settings")
def test_a_recipe_that_sets_nothing_trains_as_the_command_does():
    recipe = recipe_of({}, own={})
    assert recipe.learning_rates("own") == (0.008,)
    assert recipe.config("own") == TrainConfig.from_settings({"task": "demo"})


@pytest.mark.usefixtures("own_settings")
def test_a_recipes_own_settings_go_before_the_tasks():
    recipe = recipe_of({"epochs": 3}, own={}, mean={"fusion": "mean"}, tried={"lr": [1e-3, 2e-3]})
    own = recipe.config("own")
    assert (own.optim.epochs, own.optim.lr, own.model.fusion) == (3, 0.008, "last")
    mean = recipe.config("mean")
    assert (mean.optim.init, mean.optim.lr, mean.model.max_length) == ("solve", 1e-3, 40)
    tried = recipe.config("tried")
    assert (tried.optim.lr, tried.optim.init) == (1e-3, "random")
    assert recipe.learning_rates("tried") == (1e-3, 2e-3)
