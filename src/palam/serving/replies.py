"""Replies in the form of OpenAI's API, whole or as server-sent events."""

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol
from uuid import uuid4

import torch

from palam.serving.errors import RequestError
from palam.serving.job_stream import Answer, JobStream
from palam.serving.jobs import Classified, Started, TextDelta
from palam.serving.schemas import (
    AssistantMessage,
    ChatChoice,
    ChatReply,
    ClassifiedText,
    ClassifyReply,
    CompletionChoice,
    CompletionReply,
    LabelScore,
    PalamNotes,
    Usage,
)

DONE = "data: [DONE]\n\n"


def usage(prompt_tokens: int, completion_tokens: int) -> Usage:
    """How many tokens a request took."""
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
    )


def error_content(error: RequestError) -> dict[str, Any]:
    """An error as JSON."""
    details = {
        "message": str(error),
        "type": error.kind,
        "param": error.param,
        "code": error.code,
    }
    return {"error": details}


class AnswerForm(Protocol):
    """How an endpoint writes an answer."""

    def whole(self, answer: Answer) -> ChatReply | CompletionReply:
        """The whole answer."""
        ...

    def first_choice(self) -> dict[str, Any] | None:
        """What a stream begins with."""
        ...

    def choice(self, text: str, reason: str | None) -> dict[str, Any]:
        """A piece of a stream, or its end with a reason."""
        ...

    def head(self) -> dict[str, Any]:
        """What every piece of a stream says of itself."""
        ...


class ChatForm:
    """Answers of `/v1/chat/completions`.

    Args:
        model: the bridge's name.
    """

    def __init__(self, model: str) -> None:
        self.id = f"chatcmpl-{uuid4().hex}"
        self.created = int(time.time())
        self.model = model

    def whole(self, answer: Answer) -> ChatReply:
        """See [`AnswerForm`]."""
        message = AssistantMessage(content=answer.text)
        return ChatReply(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=[ChatChoice(message=message, finish_reason=answer.reason)],
            usage=usage(answer.prompt_tokens, answer.completion_tokens),
            palam=PalamNotes(cut_texts=answer.cut_texts),
        )

    def first_choice(self) -> dict[str, Any]:
        """See [`AnswerForm`]."""
        return self._choice({"role": "assistant", "content": ""}, None)

    def choice(self, text: str, reason: str | None) -> dict[str, Any]:
        """See [`AnswerForm`]."""
        return self._choice({"content": text} if text else {}, reason)

    def _choice(self, delta: dict[str, str], reason: str | None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}

    def head(self) -> dict[str, Any]:
        """See [`AnswerForm`]."""
        return {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
        }


class CompletionForm:
    """Answers of `/v1/completions`.

    Args:
        model: the bridge's name.
    """

    def __init__(self, model: str) -> None:
        self.id = f"cmpl-{uuid4().hex}"
        self.created = int(time.time())
        self.model = model

    def whole(self, answer: Answer) -> CompletionReply:
        """See [`AnswerForm`]."""
        return CompletionReply(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=[CompletionChoice(text=answer.text, finish_reason=answer.reason)],
            usage=usage(answer.prompt_tokens, answer.completion_tokens),
            palam=PalamNotes(cut_texts=answer.cut_texts),
        )

    def first_choice(self) -> None:
        """See [`AnswerForm`]."""
        return None

    def choice(self, text: str, reason: str | None) -> dict[str, Any]:
        """See [`AnswerForm`]."""
        return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}

    def head(self) -> dict[str, Any]:
        """See [`AnswerForm`]."""
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
        }


async def event_stream(
    form: AnswerForm, stream: JobStream, started: Started, *, include_usage: bool
) -> AsyncIterator[str]:
    """An answer as server-sent events, the last of them `[DONE]`; an error ends it.

    Args:
        form: how pieces are written.
        stream: of the job.
        started: what its start has told.
        include_usage: whether a last piece tells the usage.
    """

    def piece(choices: Sequence[Mapping[str, Any]], **more: Any) -> str:
        return server_sent({**form.head(), "choices": list(choices), **more})

    try:
        first = form.first_choice()
        if first is not None:
            yield piece([first])
        async for event in stream.rest():
            if isinstance(event, TextDelta):
                yield piece([form.choice(event.text, None)])
                continue
            yield piece([form.choice("", event.reason)], palam={"cut_texts": started.cut_texts})
            if include_usage:
                total = usage(started.prompt_tokens, event.completion_tokens)
                yield piece([], usage=total.model_dump())
        yield DONE
    except RequestError as error:
        yield server_sent(error_content(error))
    finally:
        stream.end()


def server_sent(content: Mapping[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"


def classify_reply(model: str, labels: Sequence[str], classified: Classified) -> ClassifyReply:
    """The reply to a classification.

    Args:
        model: the bridge's name.
        labels: in the order of the scores.
        classified: the scores.
    """
    data = []
    for index, (scores, cut) in enumerate(zip(classified.scores, classified.cut, strict=True)):
        probabilities = torch.tensor(scores, dtype=torch.float64).softmax(-1).tolist()
        label_scores = [
            LabelScore(label=label, probability=probability, log_probability=score)
            for label, probability, score in zip(labels, probabilities, scores, strict=True)
        ]
        best = max(label_scores, key=lambda scored: scored.log_probability)
        data.append(ClassifiedText(index=index, label=best.label, cut=cut, scores=label_scores))
    return ClassifyReply(model=model, data=data)
