"""Clients of an engine."""

import queue
from types import SimpleNamespace

from palam.serving.jobs import (
    AnswerJob,
    Classified,
    ClassifyJob,
    Failed,
    Finished,
    LayersRead,
    Started,
    TextDelta,
)
from palam.serving.prompts import ContentPart, Message
from palam.serving.sampling import SamplingOptions

SECONDS = 60


def plain(text, role="user"):
    return Message(role, (ContentPart(text),), is_plain=True)


class Client:
    """Submits one job and collects what comes of it."""

    def __init__(self, engine, job):
        self.events = queue.Queue()
        self.job = job
        job.deliver = self.events.put
        engine.submit(job)

    def next(self):
        return self.events.get(timeout=SECONDS)

    def result(self):
        """The answer's text, reason and tokens; the scores; or the error."""
        pieces = []
        started = None
        while True:
            event = self.next()
            if isinstance(event, Started):
                started = event
            elif isinstance(event, TextDelta):
                pieces.append(event.text)
            elif isinstance(event, Finished):
                return SimpleNamespace(
                    text="".join(pieces), pieces=pieces, started=started, **event._asdict()
                )
            elif isinstance(event, Classified | LayersRead):
                return event
            elif isinstance(event, Failed):
                return event.error


def ask(engine, text, bridge=None, max_new_tokens=8, stops=(), **options):
    messages = [plain(text)] if isinstance(text, str) else text
    language = options.pop("language", None)
    job = AnswerJob(
        bridge=bridge or next(iter(engine.bridges)),
        deliver=print,
        messages=messages,
        language=language,
        max_new_tokens=max_new_tokens,
        sampling=SamplingOptions(**options),
        stops=stops,
    )
    return Client(engine, job)


def classify(engine, texts, labels, bridge=None, languages=None):
    job = ClassifyJob(
        bridge=bridge or next(iter(engine.bridges)),
        deliver=print,
        texts=texts,
        languages=languages or [None] * len(texts),
        labels=tuple(labels),
    )
    return Client(engine, job)
