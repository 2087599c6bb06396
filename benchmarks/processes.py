"""Training in several processes against one with as many threads, on the CPU: tokens a second.

    python benchmarks/processes.py --processes 2 --repeats 3 --json out.json

The two take turns. What is compared is the median of the log's `tokens_per_second`, without the
first entries, in which memory is still being allocated.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TRAIN = ["train", "--task", "demo", "--device", "cpu", "--init", "random", "--patience", "0"]
FIRST_ENTRIES = 2
"""Of a log, which are left out."""


def tokens_per_second(launcher: list[str], threads: int, options: list[str]) -> float:
    """Train with a launcher in front of `-m palam`, and give the median rate of its log."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bridge"
        subprocess.run(
            [*launcher, "-m", "palam", *TRAIN, *options, "--out", str(out)],
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            check=True,
            capture_output=True,
        )
        lines = (out / "log.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    rates = [entry["tokens_per_second"] for entry in entries if "loss" in entry]
    return statistics.median(rates[FIRST_ENTRIES:])


def main() -> None:
    """Measure, print, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments, options = parser.parse_known_args()
    processes = arguments.processes
    options += ["--max-steps", str(arguments.steps)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", str(processes)]
    rates: dict[str, list[float]] = {"one process": [], f"{processes} processes": []}
    one, several = rates
    for _ in range(arguments.repeats):
        rates[one].append(tokens_per_second([sys.executable], processes, options))
        rates[several].append(tokens_per_second(torchrun, 1, options))
    ratios = [b / a for a, b in zip(rates[one], rates[several], strict=True)]
    for name, values in rates.items():
        listed = ", ".join(f"{value:,.0f}" for value in values)
        print(f"{name}: {statistics.median(values):,.0f} tokens a second ({listed})")
    listed = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"ratio: {statistics.median(ratios):.2f} ({listed})")
    if arguments.json:
        figures: dict[str, Any] = {"options": options, "rates": rates, "ratios": ratios}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
