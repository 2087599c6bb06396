"""Compare fusions and starts on one task: train on English, read other languages, several seeds.

Every learning rate of the grid is tried with the first seed; the one with the lowest English validation loss (it is
far less noisy than the accuracy on a hundred rows) is used for the other seeds. Each finished cell is a line of the
results file and is not repeated.

    python benchmarks/compare.py --task sib200 --data DIR --results FILE.jsonl --languages en,si,ta
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from rich.console import Console

from palam.device import place
from palam.encoder import load_encoder
from palam.llm import load_llm
from palam.reading import evaluate, load_languages
from palam.tasks import get_task
from palam.training import TrainSettings, train


def main() -> None:
    """Run every cell that is not in the results file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="sib200")
    parser.add_argument("--eval-task", help="another task of the same family to read")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("compare-work"), help="where checkpoints go")
    parser.add_argument("--methods", default="last,mean,global_softmax,transformer_softmax")
    parser.add_argument("--starts", default="solve,random")
    parser.add_argument("--normalize", default="layer")
    parser.add_argument("--lr-solve", default="5e-4,1e-3,2e-3")
    parser.add_argument("--lr-random", default="1e-3,2e-3,4e-3")
    parser.add_argument("--mixing-lr", type=float)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--languages", default="en")
    parser.add_argument("--limit", type=int, help="rows of each language")
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--max-steps", type=int, default=-1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--train-limit", type=int)
    parser.add_argument("--passage-words", type=int, help="0 reads whole texts; not set is as the task has it")
    args = parser.parse_args()

    options = place()
    bases = load_encoder("starter:encoder", **options), load_llm("starter:llm", **options)
    task = get_task(args.eval_task or args.task)
    rows = load_languages(task, "dev", args.languages.split(","), data_dir=args.data, limit=args.limit)
    done = {}
    if args.results.exists():
        for line in args.results.read_text().splitlines():
            cell = json.loads(line)
            done[cell["method"], cell["start"], cell["lr"], cell["seed"]] = cell

    def cell(method: str, start: str, lr: float, seed: int, read: bool) -> dict:
        key = (method, start, lr, seed)
        out = args.work / "-".join(map(str, key))
        known = done.get(key)
        if known and ("results" in known or not read):
            return known
        if known and out.exists():
            from palam import PalamModel

            model = PalamModel.from_pretrained(out, **options)
        else:
            began = time.time()
            settings = TrainSettings(
                task=args.task,
                data=args.data,
                fusion=method,
                normalize=args.normalize,
                init=start,
                lr=lr,
                mixing_lr=args.mixing_lr,
                seed=seed,
                epochs=args.epochs,
                max_steps=args.max_steps,
                batch_size=args.batch_size,
                max_length=args.max_length,
                limit=args.train_limit,
                passage_words=args.passage_words,
            )
            model = train(settings, out, bases=bases, console=Console(stderr=True))
            facts = json.loads((out / "results.json").read_text())
            known = {
                "method": method,
                "start": start,
                "lr": lr,
                "seed": seed,
                "dev_accuracy": facts["validation_accuracy"],
                "dev_loss": facts["validation_loss"],
                "steps": facts["steps"],
                "seconds": round(time.time() - began, 1),
                "r2": facts.get("solved", {}).get("r2"),
            }
        if read:
            evaluation = evaluate(model, task, "dev", rows)
            known |= {
                "task": task.name,
                "n": {code: len(right) for code, right in evaluation.correct.items()},
                "results": {code: evaluation.accuracy(code) for code in evaluation.correct},
            }
        done[key] = known
        with args.results.open("a") as file:
            file.write(json.dumps(known) + "\n")
        print(json.dumps(known), file=sys.stderr, flush=True)
        return known

    seeds = [int(seed) for seed in args.seeds.split(",")]
    for start in args.starts.split(","):
        grid = [float(lr) for lr in getattr(args, f"lr_{start}").split(",")]
        for method in args.methods.split(","):
            tried = [cell(method, start, lr, seeds[0], False) for lr in grid]
            best = min(tried, key=lambda one: one["dev_loss"])["lr"]
            for seed in seeds:
                cell(method, start, best, seed, True)
            for lr in grid:
                if lr != best:
                    shutil.rmtree(args.work / f"{method}-{start}-{lr}-{seeds[0]}", ignore_errors=True)


if __name__ == "__main__":
    main()
