"""The processes of one run, as `torchrun` and `accelerate launch` start them.

Everything here also holds in a single process, where it costs nothing. What the processes have in
common is accelerate's `PartialState`. The first process owns files and output. Collective calls
(all but `num_processes`, `process_index`, `is_main`, `own_share` and `claims_report`) must be made
by all processes, in the same order.
"""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar, cast

from palam.errors import PalamError

T = TypeVar("T")

LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""By which a launcher tells each process where the others are."""
TIMEOUT = timedelta(hours=12)
"""How long a process waits for the others: the first may read much before they go on."""
STORE_TIMEOUT = timedelta(seconds=5)
"""How long a process that fails looks for the others."""


def num_processes() -> int:
    """How many processes this run was started with; 1 without a launcher."""
    return _environment_number("WORLD_SIZE", 1)


def process_index() -> int:
    """Which of them this is, from 0."""
    return _environment_number("RANK", 0)


def is_main() -> bool:
    """Whether this process owns files and output."""
    return process_index() == 0


def _environment_number(name: str, default: int) -> int:
    value = os.environ.get(name, "").strip()
    return int(value) if value.isdecimal() else default


def check_single_process(work: str) -> None:
    """Refuse a process that was started as one of several, as `torchrun` does.

    Args:
        work: what is of one process, e.g. `palam align`.

    Raises:
        PalamError: it is one of several.
    """
    processes = num_processes()
    if processes > 1:
        raise PalamError(
            f"WORLD_SIZE is {processes}, but {work} is of one process; "
            "start it without torchrun or accelerate"
        )


def join_processes(device: str) -> None:
    """Meet the other processes of this run, before a device is chosen. Of one process: nothing.

    Args:
        device: `auto`, `cpu` or `cuda`; each process then has a device of its own.

    Raises:
        PalamError: a device that all processes would share, a launcher's setting that is not
            supported, or no launcher.
    """
    if num_processes() == 1:
        return
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
        raise PalamError(
            "DeepSpeed is not supported; start with torchrun, and with --shard-llm for an LLM "
            "that does not fit one device"
        )
    if device not in ("auto", "cpu", "cuda"):
        raise PalamError(
            f"device is {device!r}, but each of {num_processes()} processes needs its own; "
            "give auto, cuda or cpu"
        )
    missing = [name for name in LAUNCHER_VARIABLES if not os.environ.get(name)]
    if missing:
        raise PalamError(
            f"WORLD_SIZE is {num_processes()}, but {', '.join(missing)} are not set; start the "
            "processes with torchrun or accelerate launch, or unset WORLD_SIZE"
        )
    import torch
    from accelerate import PartialState

    on_cpu = device == "cpu" or not torch.cuda.is_available()
    PartialState(cpu=on_cpu, timeout=TIMEOUT)


def leave_processes() -> None:
    """Part from the other processes, once all have come to their end."""
    wait_for_all()
    if _is_joined():
        from accelerate import PartialState

        PartialState().destroy_process_group()


def _is_joined() -> bool:
    """Whether there are other processes and this one has met them."""
    if num_processes() == 1:
        return False
    from torch import distributed

    return distributed.is_available() and distributed.is_initialized()


def wait_for_all() -> None:
    """Go on when all processes have come here."""
    if _is_joined():
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def gather(value: T) -> list[T]:
    """The value of each process, in their order; it must be picklable."""
    if not _is_joined():
        return [value]
    from accelerate.utils import gather_object

    values: list[T] = gather_object([value])
    return values


def any_process(flag: bool) -> bool:
    """Whether the flag is set in one process or more."""
    if not _is_joined():
        return flag
    import torch
    from accelerate import PartialState
    from accelerate.utils import reduce

    flags = torch.tensor(float(flag), device=PartialState().device)
    return bool(reduce(flags, "sum") > 0)


def on_main(function: Callable[[], T]) -> T:
    """Call a function in the first process alone.

    Args:
        function: what it returns must be picklable.

    Returns:
        What it returned, in every process.

    Raises:
        PalamError: what it raised, in every process.
    """
    if not _is_joined():
        return function()
    from accelerate.utils import broadcast_object_list

    outcome: list[Any] = [None, None]
    if is_main():
        try:
            outcome[0] = function()
        except PalamError as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    result, raised = outcome
    if raised is not None:
        raise raised
    return cast(T, result)


def own_share(items: Sequence[T]) -> Sequence[T]:
    """The items that are this process's to work on; [`joined_shares`] is the way back."""
    return items[process_index() :: num_processes()]


def joined_shares(share: Sequence[T]) -> list[T]:
    """What each process made of its share, in the order of all items.

    Args:
        share: one result for each item of [`own_share`].
    """
    shares = gather(list(share))
    joined: list[T] = []
    for position in range(max(len(part) for part in shares)):
        joined.extend(part[position] for part in shares if position < len(part))
    return joined


@cache
def claims_report() -> bool:
    """Whether this process is the one to tell the user why the run ended.

    An error may reach all processes or one alone; the others then lose their connection. The first
    that asks is the one, whichever it is.
    """
    if num_processes() == 1:
        return True
    from torch import distributed

    store_class: Any = distributed.TCPStore  # type: ignore[attr-defined]
    try:
        store = store_class(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            timeout=STORE_TIMEOUT,
            wait_for_workers=False,
        )
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return bool(store.add(f"palam/{attempt}/failed", 1) == 1)
    except (KeyError, ValueError, RuntimeError):  # there is no store: nobody else can tell either
        return is_main()
