"""What a bridge is compared with: the commonest label, the LLM alone or with a translator, a head on the encoder."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM

from palam.errors import PalamError
from palam.inference import evaluation as evaluate
from palam.models.backbones.encoder import encode
from palam.models.backbones.loading import load_tokenizer, load_weights
from palam.models.processing import clean, language_ids, source_language
from palam.tasks.sampling import sample
from palam.tasks.task import Example, Task
from palam.training.build import Bases, build_model
from palam.training.config import TrainConfig
from palam.training.data import TrainingData
from palam.utils.device import resolve_placement

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
SHOTS = 4
BEAMS = 4
ROLE = "translator"
Rows = dict[str, list[Example]]
Found = tuple[list[dict[str, Any]], dict[str, Any]]  # predictions, and what was chosen


def majority(data: TrainingData, rows: Rows) -> Found:
    """The label that is commonest in the training data."""
    label = Counter(example.label for example in data.train).most_common(1)[0][0]
    said = [(code, one) for code, some in rows.items() for one in some]
    return [
        {"language": c, "row": e.row, "label": e.label, "prediction": label} for c, e in said
    ], {"label": label}


def llm_only(
    settings: TrainConfig, bases: Bases, data: TrainingData, task: Task, rows: Rows, batch_size: int
) -> Found:
    """The LLM reads the text itself: plainly, in its chat template, or after four English examples.

    The best of these on the English validation rows is taken.
    """
    assert data.task is not None
    prompt = settings.prompt or data.task.prompt
    shown = sample(data.train, SHOTS, settings.seed)
    shots = [
        prompt.replace("{text}", data.task.render(one)) + f" {data.task.answer(one.label)}\n\n"
        for one in shown
    ]
    few = (
        "".join(shots).replace("{text}", "( text )") + prompt
    )  # a text that names the slot would be one
    ways = {"plain": ("prompt", prompt), "chat": ("chat", prompt), f"{SHOTS}-shot": ("prompt", few)}
    dev, tried = {data.language: data.dev}, {}
    for name, (mode, text) in ways.items():
        if mode == "chat" and not getattr(load_tokenizer(settings.llm), "chat_template", None):
            continue
        model = build_model(
            replace(settings, mode=mode, prompt=text, fusion="mean", rank=None), data, bases
        )
        tried[name] = (
            evaluate(model, data.task, "dev", dev, llm_only=True, batch_size=batch_size).macro,
            model,
        )
    best = max(tried, key=lambda name: tried[name][0])
    found = evaluate(tried[best][1], task, "", rows, llm_only=True, batch_size=batch_size)
    return found.predictions, {
        "way": best,
        "validation": {name: accuracy for name, (accuracy, _) in tried.items()},
    }


def translated(
    settings: TrainConfig, rows: Rows, into: str, translator: str, batch_size: int
) -> Rows:
    """The rows in the language `into`, for an LLM that reads translations (translate-test).

    Args:
        translator: hub id or folder of NLLB, M2M100 or mBART; it decodes with four beams.

    Raises:
        PalamError: no such model, or one that is not told languages, or does not know one of these.
    """
    tokenizer, longest = load_tokenizer(translator), settings.max_length or 256
    if not hasattr(tokenizer, "src_lang"):
        raise PalamError(
            f"the translator {translator!r} is not told languages; give NLLB, M2M100 or mBART"
        )
    target = source_language(tokenizer, into, ROLE)
    sources = {
        code: source
        for code in rows
        if (source := source_language(tokenizer, code, ROLE)) != target
    }
    where, kind = (
        resolve_placement(settings.device, settings.dtype),
        AutoModelForSeq2SeqLM.from_pretrained,
    )
    model: Any = load_weights(kind, translator, translator, ROLE, dtype=where["dtype"]).to(
        where["device"]
    )
    first_token = language_ids(tokenizer)[target]

    def read(texts: list[str]) -> list[str]:
        texts = [clean(text) for text in texts]
        batch = tokenizer(
            texts, padding=True, truncation=True, max_length=longest, return_tensors="pt"
        )
        ids = model.generate(
            **batch.to(model.device),
            forced_bos_token_id=first_token,
            num_beams=BEAMS,
            max_new_tokens=longest,
        )
        said = tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [new if old.strip() else old for old, new in zip(texts, said, strict=True)]

    found = dict(rows)
    for code, source in sources.items():
        tokenizer.src_lang = source
        texts = [text for one in rows[code] for text in one.fields.values()]
        said = iter(
            [
                new
                for i in range(0, len(texts), batch_size)
                for new in read(texts[i : i + batch_size])
            ]
        )
        found[code] = [
            replace(one, fields={name: next(said) for name in one.fields}) for one in rows[code]
        ]
    return found


def head(
    settings: TrainConfig, bases: Bases, data: TrainingData, task: Task, rows: Rows, layers: str
) -> Found:
    """Logistic regression on the mean of a text's token states, each layer normalised.

    Args:
        layers: `"last"`, or the `"mean"` of all layers.

    The penalty with the lowest English validation loss is taken. The problem is convex: there is no seed.
    """
    tokenizer, labels = load_tokenizer(settings.encoder), list(task.labels)

    def read(examples: list[Example], language: str) -> tuple[Tensor, Tensor]:
        found = _features(
            bases[0],
            tokenizer,
            [task.render(e) for e in examples],
            settings.max_length or 256,
            layers,
        )
        return found, torch.tensor([labels.index(example.label) for example in examples])

    if task.number:
        raise PalamError(f"a head gives a label, and {task.name} has none")
    if hasattr(tokenizer, "src_lang"):
        raise PalamError("the head's encoder must not need to be told the language")
    (x, y), (dev_x, dev_y) = read(data.train, data.language), read(data.dev, data.language)
    heads = {penalty: _fit(x, y, len(labels), penalty) for penalty in PENALTIES}
    losses = {penalty: F.cross_entropy(one(dev_x), dev_y).item() for penalty, one in heads.items()}
    best = min(losses, key=lambda penalty: losses[penalty])
    predictions = []
    for code, some in rows.items():
        said = heads[best](read(some, code)[0]).argmax(1).tolist()
        predictions += [
            {"language": code, "row": e.row, "label": e.label, "prediction": labels[i]}
            for e, i in zip(some, said, strict=True)
        ]
    return predictions, {"penalty": best, "validation_loss": losses[best]}


@torch.no_grad()
def _features(encoder: Any, tokenizer: Any, texts: list[str], longest: int, layers: str) -> Tensor:
    """[texts, d] in fp32 on the CPU."""
    parts = []
    for first in range(0, len(texts), 32):
        options: dict[str, Any] = {
            "padding": True,
            "truncation": True,
            "max_length": longest,
            "return_tensors": "pt",
        }
        batch = tokenizer(texts[first : first + 32], **options).to(encoder.device)
        mask = batch["attention_mask"][..., None].float()
        states = encode(encoder, batch["input_ids"], batch["attention_mask"])
        chosen = states[-1:] if layers == "last" else states
        normal = [F.layer_norm(state.float(), state.shape[-1:]) for state in chosen]
        parts.append(
            torch.stack([(one * mask).sum(1) / mask.sum(1) for one in normal]).mean(0).cpu()
        )
    return torch.cat(parts)


def _fit(x: Tensor, y: Tensor, classes: int, penalty: float) -> Callable[[Tensor], Tensor]:
    """A head on standardised features: cross-entropy + penalty / 2 · |W|²."""
    mean, deviation = x.mean(0), x.std(0).clamp(min=1e-6)
    linear = torch.nn.Linear(x.shape[1], classes)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    optimizer = torch.optim.LBFGS(linear.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        loss = (
            F.cross_entropy(linear((x - mean) / deviation), y)
            + penalty / 2 * linear.weight.square().sum()
        )
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return lambda rows: linear((rows - mean) / deviation).detach()
