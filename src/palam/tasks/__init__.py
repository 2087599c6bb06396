"""Tasks: a registry of labelled multilingual data sets, and loading them or a user's own file."""

from .loading import available as available
from .loading import load_split as load_split
from .loading import native_language as native_language
from .loading import sample as sample
from .loading import task_from_file as task_from_file
from .loading import train_and_dev as train_and_dev
from .registry import TASKS as TASKS
from .registry import get_task as get_task
from .rows import read_rows as read_rows
from .task import Example as Example
from .task import Hub as Hub
from .task import Task as Task
