"""A linear head on the frozen encoder: what the encoder itself knows of a task, without an LLM.

Logistic regression on the mean of a text's token states, each layer normalised: of the last layer, and of the mean
of all layers. The penalty with the lowest English validation loss is taken. The problem is convex: there is no seed.

    python benchmarks/head.py --task sib200 --data DIR --languages en,si,ta
"""

import argparse
import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from palam.device import place
from palam.encoder import encode, load_encoder, load_tokenizer
from palam.reading import load_languages
from palam.tasks import Example, Task, get_task, native_language, train_and_dev

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FEATURES = {"last": lambda layers: layers[:, -1], "mean": lambda layers: layers.mean(1)}


def main() -> None:
    """Train on English, read the languages, print a JSON line for each kind of features."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="starter:encoder")
    parser.add_argument("--task", default="sib200")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--languages", default="en")
    args = parser.parse_args()
    encoder = load_encoder(args.encoder, **place())
    tokenizer, task = load_tokenizer(args.encoder), get_task(args.task)
    labels = list(task.labels)

    def read(examples: list[Example]) -> tuple[Tensor, Tensor]:
        return sentence_states(encoder, tokenizer, task, examples), torch.tensor(
            [labels.index(e.label) for e in examples]
        )

    english = native_language(task, "en", data_dir=args.data)
    train, dev, _ = train_and_dev(task, data_dir=args.data, seed=0, language=english)
    rows = load_languages(task, "dev", args.languages.split(","), data_dir=args.data)
    train_set, dev_set = read(train), read(dev)
    sets = {code: read(examples) for code, examples in rows.items()}
    for name, features in FEATURES.items():
        heads = [fit(features(train_set[0]), train_set[1], len(labels), penalty) for penalty in PENALTIES]
        losses = [F.cross_entropy(head(features(dev_set[0])), dev_set[1]).item() for head in heads]
        head = heads[losses.index(min(losses))]
        right = {code: (head(features(x)).argmax(1) == y).float().mean().item() for code, (x, y) in sets.items()}
        print(json.dumps({"features": name, "penalty": PENALTIES[losses.index(min(losses))], "results": right}))


@torch.no_grad()
def sentence_states(encoder, tokenizer, task: Task, examples: list[Example]) -> Tensor:
    """The mean over each text's tokens of each normalised layer [texts, L, d]."""
    parts = []
    for first in range(0, len(examples), 32):
        texts = [task.render(example, "prompt") for example in examples[first : first + 32]]
        batch = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt").to(encoder.device)
        mask = batch["attention_mask"][..., None].float()
        states = encode(encoder, batch["input_ids"], batch["attention_mask"])
        layers = [F.layer_norm(state.float(), state.shape[-1:]) for state in states]
        parts.append(torch.stack([(layer * mask).sum(1) / mask.sum(1) for layer in layers], 1).cpu())
    return torch.cat(parts)


def fit(x: Tensor, y: Tensor, classes: int, penalty: float):
    """A head on standardised features: cross-entropy + penalty / 2 · |W|²."""
    mean, deviation = x.mean(0), x.std(0).clamp(min=1e-6)
    linear = torch.nn.Linear(x.shape[1], classes)
    torch.nn.init.zeros_(linear.weight)
    optimizer = torch.optim.LBFGS(linear.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(linear((x - mean) / deviation), y) + penalty / 2 * linear.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return lambda rows: linear((rows - mean) / deviation).detach()


if __name__ == "__main__":
    main()
