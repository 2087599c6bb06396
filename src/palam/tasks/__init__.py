"""Tasks: a registry of labelled multilingual data sets, and loading them or a user's own file."""

from palam.tasks.loading import available as available
from palam.tasks.loading import load_split as load_split
from palam.tasks.loading import native_language as native_language
from palam.tasks.loading import sample as sample
from palam.tasks.loading import task_from_file as task_from_file
from palam.tasks.loading import train_and_dev as train_and_dev
from palam.tasks.registry import TASKS as TASKS
from palam.tasks.registry import get_task as get_task
from palam.tasks.rows import read_rows as read_rows
from palam.tasks.rows import read_texts as read_texts
from palam.tasks.task import Example as Example
from palam.tasks.task import Hub as Hub
from palam.tasks.task import Task as Task
