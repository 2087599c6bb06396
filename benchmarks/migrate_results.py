"""Bring results folders of before 0.1.0 to today's form: option names in recipe.yaml, then pack.

    python benchmarks/migrate_results.py FOLDER…

A folder that is in today's form stays as it is.
"""

import sys
from pathlib import Path
from typing import Any

import yaml

from palam.bench.pack import pack
from palam.bench.recipe import Recipe
from palam.bench.results import PREDICTIONS_FOLDER, RECIPE_FILE, ResultsFolder

RENAMED_SETTINGS = {
    "accumulate": "gradient_accumulation_steps",
    "augment": "append_source_tokens",
    "average": "average_weights_from",
    "dev_limit": "max_eval_samples",
    "direct": "llm_only",
    "limit": "max_train_samples",
    "mixing_lr": "fusion_lr",
    "prompts": "prompts_file",
    "solve_text": "solve_text_file",
    "start": "init_from",
    "text": "text_file",
}
FUSION_OPTIONS = {"faithful": "paper_temperature", "rank": "rank"}
"""Settings that have become options of a fusion."""
RENAMED_BASELINES = {"direct": "llm_only"}


def migrate(folder: Path) -> None:
    """Rewrite a folder's recipe, and pack its predictions.

    Args:
        folder: that `palam bench` wrote, of any version.
    """
    path = folder / RECIPE_FILE
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["train"] = renamed_settings(content["train"])
    content["methods"] = {
        name: renamed_method(method) for name, method in content["methods"].items()
    }
    ResultsFolder(folder).write_recipe(Recipe.parse(content))
    if (folder / PREDICTIONS_FOLDER).is_dir():
        pack(folder)


def renamed_method(method: dict[str, Any]) -> dict[str, Any]:
    """A method with today's names."""
    if "best_of" in method:
        return method
    if "baseline" in method:
        baseline = method["baseline"]
        return {**method, "baseline": RENAMED_BASELINES.get(baseline, baseline)}
    return renamed_settings(method)


def renamed_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of training with today's names."""
    renamed: dict[str, Any] = {}
    fusion_options: dict[str, Any] = {}
    for name, value in settings.items():
        if name not in FUSION_OPTIONS:
            renamed[RENAMED_SETTINGS.get(name, name)] = value
        elif value:  # none was the fusion's own default
            fusion_options[FUSION_OPTIONS[name]] = value
    if fusion_options:
        renamed["fusion_options"] = fusion_options
    return renamed


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        migrate(Path(argument))
