"""Tasks: a registry of labelled multilingual data sets, and loading them or a user's own file."""

from palam.tasks.loading import available, balanced, load_split, native_language, sample, task_from_file, train_and_dev
from palam.tasks.registry import TASKS, get_task
from palam.tasks.rows import passage, read_rows, read_texts
from palam.tasks.task import Example, Hub, Task, last_number

__all__ = ["TASKS", "Example", "Hub", "Task", "available", "balanced", "get_task", "last_number", "load_split"]
__all__ += ["native_language", "passage", "read_rows", "read_texts", "sample", "task_from_file", "train_and_dev"]
