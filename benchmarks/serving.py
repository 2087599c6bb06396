"""Load a server of `palam serve` on this machine, and one that reads one request at a time.

Both serve the same bridge and are asked for the same, in turn. See NOTES.md beside this.

    python benchmarks/serving.py bridge --seconds 60 --json FILE.json
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import torch
import transformers
from rich.table import Table

from palam.cli._output import check_writable, print_table
from palam.errors import PalamError
from palam.tasks.loading import load_split
from palam.tasks.registry import get_task

TASK = "demo"
LANGUAGES = ("eng_Latn", "sin_Sinh", "tam_Taml", "hin_Deva", "arb_Arab", "swh_Latn")
BATCHED = "together"
ONE_AT_A_TIME = "one at a time"
LONG_ANSWER = 256
QUESTION = "\nWrite a story about it:"
"""A bridge that labels texts says no more than a label without one."""
REQUEST_SECONDS = 120.0
PATIENCE = (0.02, 0.6)
"""Seconds after which a client of the last arm hangs up, drawn between these."""
SETTLING_SECONDS = 3.0
FREED_WITHIN = 10.0
"""Seconds for which places are waited for."""
BATCH_KINDS = {"classify": "classify", "generate": "decode"}

Ask = Callable[[httpx.AsyncClient, str], Awaitable[str]]


# ---------------------------------------------------------------------- figures
@dataclass(kw_only=True)
class Arm:
    """One load on one server."""

    kind: str
    """`classify` or `generate`."""
    server: str
    clients: int
    seconds: float
    """Until the last request had ended."""
    requests: int
    """That were answered."""
    failures: int
    requests_per_second: float
    p50: float
    """Seconds."""
    p95: float
    batch_size: float
    """Rows of a batch, in the mean over batches."""
    server_cpu: float
    """Seconds of a core that the server took for a request, in the mean."""
    client_cpu: float
    """Share of one core that this script took."""


@dataclass(kw_only=True)
class HangUps:
    """What hanging up costs the others."""

    clients: int
    seconds: float
    answered: int
    hung_up: int
    other_answers: int
    """Than alone: in 16 bits batches round otherwise, in fp32 there are none."""
    lost: int
    """Requests of those who stayed that failed, or got another answer than alone."""
    seconds_until_free: float
    """From when all clients hang up to no place being taken."""
    megabytes_before: float
    megabytes_after: float


class Finished(NamedTuple):
    """One request that came to its end."""

    seconds: float
    ok: bool


class BatchCount(NamedTuple):
    """What a server has read."""

    batches: float
    rows: float


# ---------------------------------------------------------------------- servers
class Server:
    """`palam serve` in a process of its own, on a free port of this machine."""

    def __init__(self, bridge: str, options: Sequence[str]) -> None:
        command = [sys.executable, "-m", "palam", "serve", bridge, "--port", "0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if "http://" not in line:
            raise PalamError("the server did not start; it says why above")
        self.url = line.rpartition(" ")[2].strip()

    @property
    def megabytes(self) -> float:
        """Memory that is resident."""
        return float(psutil.Process(self.process.pid).memory_info().rss / 1e6)

    @property
    def cpu_seconds(self) -> float:
        """Seconds of a core that it has taken."""
        times = psutil.Process(self.process.pid).cpu_times()
        return float(times.user + times.system)

    def metrics(self) -> dict[str, float]:
        """Each metric with its labels, as Prometheus reads it."""
        lines = httpx.get(f"{self.url}/metrics", timeout=30).text.splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
        return {name: float(value) for name, value in pairs}

    def batches(self, kind: str) -> BatchCount:
        """Batches of a kind that were read so far."""
        metrics = self.metrics()
        label = f'{{kind="{BATCH_KINDS[kind]}"}}'
        count = metrics.get(f"palam_batch_size_count{label}", 0.0)
        return BatchCount(count, metrics.get(f"palam_batch_size_sum{label}", 0.0))

    def taken(self) -> float:
        """Places that are taken, and requests that wait for one."""
        metrics = self.metrics()
        return metrics["palam_running"] + metrics["palam_queue"]

    def end(self) -> None:
        """End it in order."""
        self.process.terminate()
        self.process.wait(60)


@contextlib.contextmanager
def serving(bridge: str, *options: str) -> Iterator[Server]:
    """A server, which is ended."""
    server = Server(bridge, options)
    try:
        yield server
    finally:
        server.end()


# ---------------------------------------------------------------------- clients
def short_texts(words: int | None) -> list[str]:
    """The demonstration's test texts in several languages, one of each in turn.

    Args:
        words: how many of each are kept; None is all.
    """
    task = get_task(TASK)
    columns = []
    for language in LANGUAGES:
        rows = load_split(task, "test", language)
        columns.append([" ".join(row.fields["text"].split()[:words]) for row in rows])
    return [text for row in zip(*columns, strict=True) for text in row]


async def classify(client: httpx.AsyncClient, text: str) -> str:
    """Label one text with the bridge's own labels."""
    reply = await client.post("/v1/classify", json={"texts": [text]})
    reply.raise_for_status()
    return str(reply.json()["data"][0]["label"])


def generating(max_tokens: int) -> Ask:
    """Answer a question about one text with so many tokens at most."""

    async def generate(client: httpx.AsyncClient, text: str) -> str:
        parts = [{"type": "foreign_text", "text": text}, {"type": "text", "text": QUESTION}]
        body = {"messages": [{"role": "user", "content": parts}], "max_tokens": max_tokens}
        reply = await client.post("/v1/chat/completions", json=body)
        reply.raise_for_status()
        return str(reply.json()["choices"][0]["message"]["content"])

    return generate


@contextlib.asynccontextmanager
async def client_of(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """One connection, kept."""
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(
        base_url=server.url, timeout=REQUEST_SECONDS, limits=limits, trust_env=False
    ) as client:
        yield client


class Load(NamedTuple):
    """What is asked, how."""

    kind: str
    """`classify` or `generate`."""
    ask: Ask
    texts: Sequence[str]
    seconds: float


async def load(server: Server, work: Load, clients: int) -> list[Finished]:
    """Ask with so many clients, each for the next text when it has been answered."""
    deadline = time.monotonic() + work.seconds
    finished: list[Finished] = []

    async def one_client(number: int) -> None:
        position = number
        async with client_of(server) as client:
            while time.monotonic() < deadline:
                begun = time.monotonic()
                ok = True
                try:
                    await work.ask(client, work.texts[position % len(work.texts)])
                except httpx.HTTPError:
                    ok = False
                finished.append(Finished(time.monotonic() - begun, ok))
                position += clients

    await asyncio.gather(*map(one_client, range(clients)))
    return finished


def measured(server: Server, name: str, work: Load, clients: int) -> Arm:
    """The figures of one load."""
    kind = work.kind
    before = server.batches(kind)
    server_cpu = server.cpu_seconds
    cpu = time.process_time()
    begun = time.monotonic()
    finished = asyncio.run(load(server, work, clients))
    seconds = time.monotonic() - begun
    cpu = time.process_time() - cpu
    server_cpu = server.cpu_seconds - server_cpu
    after = server.batches(kind)
    times = [each.seconds for each in finished if each.ok]
    batches = after.batches - before.batches
    return Arm(
        kind=kind,
        server=name,
        clients=clients,
        seconds=seconds,
        requests=len(times),
        failures=sum(not each.ok for each in finished),
        requests_per_second=len(times) / seconds,
        p50=quantile(times, 50),
        p95=quantile(times, 95),
        batch_size=(after.rows - before.rows) / batches if batches else 0.0,
        server_cpu=server_cpu / max(1, len(finished)),
        client_cpu=cpu / seconds,
    )


def quantile(values: Sequence[float], percent: int) -> float:
    """A percentile; 0 of no values."""
    if len(values) < 2:
        return values[0] if values else 0.0
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


# ---------------------------------------------------------------------- clients that hang up
class Question(NamedTuple):
    """What is asked, and what is answered to it alone."""

    ask: Ask
    text: str
    answer: str


async def questions(server: Server, asks: Sequence[Ask], texts: Sequence[str]) -> list[Question]:
    """Every text in every way, answered one at a time."""
    found = []
    async with client_of(server) as client:
        for text in texts:
            for ask in asks:
                found.append(Question(ask, text, await ask(client, text)))
    return found


async def hang_up(
    server: Server, asked: Sequence[Question], clients: int, seconds: float
) -> Counter[str]:
    """Ask with so many clients, of which every third hangs up soon.

    Returns:
        How many requests were `answered` as alone, got an `other answer`, were `lost`, and `hung
        up`.
    """
    deadline = time.monotonic() + seconds
    counts: Counter[str] = Counter()

    async def one_client(number: int) -> None:
        drawn = random.Random(number)
        while time.monotonic() < deadline:
            question = drawn.choice(asked)
            patience = drawn.uniform(*PATIENCE) if number % 3 == 0 else REQUEST_SECONDS
            async with client_of(server) as client:
                try:
                    answer = await asyncio.wait_for(question.ask(client, question.text), patience)
                except TimeoutError:
                    counts["hung up"] += 1
                except httpx.HTTPError:
                    counts["lost"] += 1
                else:
                    counts["answered" if answer == question.answer else "other answer"] += 1

    await asyncio.gather(*map(one_client, range(clients)))
    return counts


async def all_hang_up(server: Server, asked: Sequence[Question], clients: int) -> None:
    """Ask with so many clients, which all hang up at the same time."""
    async with contextlib.AsyncExitStack() as stack:
        tasks = []
        for number in range(clients):
            client = await stack.enter_async_context(client_of(server))
            question = asked[number % len(asked)]
            tasks.append(asyncio.ensure_future(question.ask(client, question.text)))
        await asyncio.sleep(PATIENCE[1])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def seconds_until_free(server: Server) -> float:
    """How long places are still taken; waits for FREED_WITHIN at most."""
    begun = time.monotonic()
    while server.taken() and time.monotonic() < begun + FREED_WITHIN:
        time.sleep(0.02)
    return time.monotonic() - begun


def measured_hang_ups(server: Server, work: Load, clients: int) -> HangUps:
    """What hanging up costs the others, and the server; `classify` is asked too."""
    texts = work.texts[: 2 * len(LANGUAGES)]
    asked = asyncio.run(questions(server, [classify, work.ask], texts))
    time.sleep(SETTLING_SECONDS)
    before = server.megabytes
    counts = asyncio.run(hang_up(server, asked, clients, work.seconds))
    long = generating(LONG_ANSWER)
    asyncio.run(all_hang_up(server, [Question(long, text, "") for text in texts], clients))
    until_free = seconds_until_free(server)
    time.sleep(SETTLING_SECONDS)
    return HangUps(
        clients=clients,
        seconds=work.seconds,
        answered=counts["answered"],
        hung_up=counts["hung up"],
        other_answers=counts["other answer"],
        lost=counts["lost"],
        seconds_until_free=until_free,
        megabytes_before=before,
        megabytes_after=server.megabytes,
    )


# ---------------------------------------------------------------------- the run
def run(options: argparse.Namespace) -> tuple[list[Arm], HangUps]:
    """All arms."""
    texts = short_texts(options.words)
    loads = [
        Load("classify", classify, texts, options.seconds),
        Load("generate", generating(options.max_tokens), texts, options.seconds),
    ]
    most = max(options.clients)
    arms = []
    with (
        serving(options.bridge, *options.server_options) as together,
        serving(options.bridge, "--batch-size", "1", *options.server_options) as serial,
    ):
        for work in loads:
            for server in (together, serial):
                asyncio.run(load(server, work._replace(seconds=options.warm_up), most))
            for clients in options.clients:
                arms.append(measured(together, BATCHED, work, clients))
            arms.append(measured(serial, ONE_AT_A_TIME, work, most))
        hang_ups = measured_hang_ups(together, loads[-1], most)
    return arms, hang_ups


def ratio(arms: Sequence[Arm], arm: Arm) -> float:
    """How many times as many requests a second as one at a time."""
    (serial,) = [each for each in arms if (each.kind, each.server) == (arm.kind, ONE_AT_A_TIME)]
    return arm.requests_per_second / serial.requests_per_second


def arms_table(arms: Sequence[Arm]) -> Table:
    """One row an arm."""
    columns = ("", "server", "clients", "requests/s", "p50 ms", "p95 ms", "rows a batch")
    table = Table(*columns, "failed", "times one at a time", "CPU ms a request", "client's CPU")
    for arm in arms:
        table.add_row(
            arm.kind,
            arm.server,
            str(arm.clients),
            f"{arm.requests_per_second:.1f}",
            f"{1000 * arm.p50:.0f}",
            f"{1000 * arm.p95:.0f}",
            f"{arm.batch_size:.1f}",
            str(arm.failures),
            f"{ratio(arms, arm):.2f}",
            f"{1000 * arm.server_cpu:.0f}",
            f"{arm.client_cpu:.0%}",
        )
    return table


def hang_ups_table(hang_ups: HangUps) -> Table:
    """The last arm."""
    title = f"{hang_ups.clients} clients, of which every third hangs up"
    columns = (
        "answered",
        "other answer",
        "hung up",
        "lost",
        "places free after",
        "MB before",
        "MB after",
    )
    table = Table(*columns, title=title)
    table.add_row(
        str(hang_ups.answered),
        str(hang_ups.other_answers),
        str(hang_ups.hung_up),
        str(hang_ups.lost),
        f"{hang_ups.seconds_until_free:.2f} s",
        f"{hang_ups.megabytes_before:.0f}",
        f"{hang_ups.megabytes_after:.0f}",
    )
    return table


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("bridge", help="a checkpoint with labels")
    add("--seconds", type=float, default=60.0, help="of each of the nine arms")
    add("--warm-up", type=float, default=3.0, help="seconds, before each kind and server")
    add("--clients", default="1,8,32")
    add("--words", type=int, help="of a text at most; default all, 11 in the median in English")
    add("--max-tokens", type=int, default=32, help="of an answer")
    add("--json", type=Path, help="write all figures to this file")
    options, options.server_options = parser.parse_known_args(arguments)
    options.clients = [int(number) for number in options.clients.split(",")]
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the figures; what is not known here are options of the server."""
    options = parse(arguments)
    if options.json is not None:
        check_writable(options.json)
    arms, hang_ups = run(options)
    print_table(arms_table(arms))
    print_table(hang_ups_table(hang_ups))
    if options.json is not None:
        content: dict[str, Any] = {
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "words": options.words,
            "max_tokens": options.max_tokens,
            "server_options": options.server_options,
            "arms": [dataclasses.asdict(arm) for arm in arms],
            "hang_ups": dataclasses.asdict(hang_ups),
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
