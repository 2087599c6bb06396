"""The HTTP interface of an engine."""

import re
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from starlette.exceptions import HTTPException

import palam
from palam.models.model_card import public_name
from palam.serving.bridges import ServedBridge
from palam.serving.engine import Engine
from palam.serving.errors import INVALID_REQUEST, SERVER_ERROR, RequestError, server_error
from palam.serving.guard import Guard, GuardOptions, error_response
from palam.serving.job_stream import JobStream
from palam.serving.jobs import AnswerJob, Classified, ClassifyJob, Event, LayersJob, LayersRead
from palam.serving.limits import ServeLimits
from palam.serving.metrics import HttpMetrics, add_gauge, metrics_text
from palam.serving.pages import Pages
from palam.serving.prompts import ContentPart, Message
from palam.serving.replies import (
    AnswerForm,
    ChatForm,
    CompletionForm,
    classify_reply,
    event_stream,
)
from palam.serving.sampling import SamplingOptions
from palam.serving.schemas import (
    AnswerRequest,
    BridgeNotes,
    ChatMessage,
    ChatReply,
    ChatRequest,
    ClassifyReply,
    ClassifyRequest,
    CompletionReply,
    CompletionRequest,
    ErrorReply,
    ForeignTextPart,
    LayersReply,
    LayersRequest,
    ModelList,
    ServedModel,
    Status,
)

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorReply, "description": "The request cannot be answered as it is."},
    401: {"model": ErrorReply, "description": "The key is missing or wrong."},
    404: {"model": ErrorReply, "description": "No such bridge."},
    413: {"model": ErrorReply, "description": "The request is too long."},
    421: {
        "model": ErrorReply,
        "description": "The server is called by a name that is not its own.",
    },
    429: {"model": ErrorReply, "description": "Too many wait; see Retry-After."},
    503: {"model": ErrorReply, "description": "Shutting down, or too little memory."},
    504: {"model": ErrorReply, "description": "It took too long."},
}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "Whole, or a stream."}
}
DESCRIPTION = (
    "Texts in any language that the encoder knows, read by an English LLM through a small trained "
    "bridge. Chat and completions have the form of OpenAI's API."
)

MESSAGES = {
    "extra_forbidden": "is not known to this server; leave it out",
    "missing": "is missing",
    "too_short": "has too few entries; it needs {min_length} at least",
    "model_attributes_type": "the body is a JSON object, sent as application/json",
    "union_tag_invalid": "has a type that is none of text and foreign_text",
    "union_tag_not_found": "has no type; it is text or foreign_text",
}
"""What is said of errors that pydantic calls by these names, where its own words are unclear.

A name in braces is from the error's context.
"""
MAX_LABEL_CHARACTERS = 1024
"""The ids of labels are remembered, so they must not be of any length."""
NAME_OR_NUMBER = re.compile(r"[A-Za-z_]\w{0,60}|[0-9]+", re.ASCII)
"""A step of an error's place; pydantic has its own types among them."""

router = APIRouter()


def _unheard(event: Event) -> None:
    """A job's `deliver` until it has a stream."""


class Service:
    """What the routes need.

    Args:
        engine: that answers.
        registry: of what is counted.
        pages: the pages for people.
    """

    def __init__(self, engine: Engine, registry: CollectorRegistry, pages: Pages) -> None:
        self.engine = engine
        self.registry = registry
        self.pages = pages

    @property
    def limits(self) -> ServeLimits:
        """Of the server."""
        return self.engine.limits

    def bridge(self, name: str | None) -> ServedBridge:
        """The bridge that a request asks.

        Raises:
            RequestError: there is none of that name, or no name among several.
        """
        bridges = self.engine.bridges
        if name is None and len(bridges) == 1:
            return next(iter(bridges.values()))
        if name is None:
            raise RequestError(
                f"model is missing; it is one of: {', '.join(bridges)}", param="model"
            )
        if name not in bridges:
            raise RequestError(
                f"there is no such model; the models are: {', '.join(bridges)}",
                status=404,
                param="model",
                code="model_not_found",
            )
        return bridges[name]


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceOf = Annotated[Service, Depends(_service)]


def create_app(
    engine: Engine,
    registry: CollectorRegistry | None = None,
    guard: GuardOptions | None = None,
    *,
    root_path: str = "",
) -> FastAPI:
    """The application; the engine is started and closed by its caller.

    Args:
        engine: that answers.
        registry: where the engine's observer counts too; None is a new one.
        guard: who may ask, and how much.
        root_path: under which a proxy shows the server, `/palam`; the ASGI server is told too.
    """
    registry = registry or CollectorRegistry()
    add_gauge(registry, "palam_queue", "Requests that wait.", lambda: engine.num_waiting)
    add_gauge(registry, "palam_running", "Answers being made.", lambda: engine.num_running)
    app = FastAPI(
        title="Palam",
        version=palam.__version__,
        description=DESCRIPTION,
        docs_url=None,  # FastAPI's own page loads its scripts from elsewhere
        redoc_url=None,
    )
    app.include_router(router)
    app.state.service = Service(engine, registry, Pages(engine, root_path))
    app.add_exception_handler(RequestError, _on_request_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_middleware(Guard, options=guard or GuardOptions(), metrics=HttpMetrics(registry))
    return app


# ------------------------------------------------------------------ errors
def _on_request_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError)
    return error_response(error)


def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    """Say what is wrong with a body, without repeating it."""
    assert isinstance(error, RequestValidationError)
    details = max(error.errors(), key=lambda each: len(each["loc"]))  # the most exact of a union
    if details["type"] == "json_invalid":
        return error_response(RequestError("the body is no JSON", code="invalid_json"))
    names = [str(name) for name in details["loc"] if NAME_OR_NUMBER.fullmatch(str(name))]
    context = details.get("ctx", {})
    param = context.get("field") or ".".join(names[1:]) or None
    message = details["msg"]
    if details["type"] in MESSAGES:
        message = MESSAGES[details["type"]].format(**context)
    if param is not None and not message.startswith(param):
        message = f"{param}: {message}"
    return error_response(RequestError(message[:500], param=param))


def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    kind = SERVER_ERROR if error.status_code >= 500 else INVALID_REQUEST
    response = error_response(RequestError(error.detail, status=error.status_code, kind=kind))
    response.headers.update(error.headers or {})
    return response


# ------------------------------------------------------------------ answers
@router.post(
    "/v1/chat/completions", response_model=ChatReply, responses={**ERRORS, **EVENTS}, tags=["API"]
)
async def chat(body: ChatRequest, request: Request, service: ServiceOf) -> Response | ChatReply:
    """Answer a conversation.

    A user's plain string is read through the bridge, in the bridge's own template. In a message of
    parts, the LLM reads `text` itself, and `foreign_text` is read through the bridge.
    """
    bridge = service.bridge(body.model)
    messages = [_message(message) for message in body.messages]
    if messages[-1].role == "assistant":
        raise RequestError("the last message is the assistant's; it must be one to answer")
    _check_counts(service.limits, messages)
    form = ChatForm(bridge.name)
    answer: Response | ChatReply = await _answer(service, bridge, body, messages, form, request)
    return answer


@router.post(
    "/v1/completions", response_model=CompletionReply, responses={**ERRORS, **EVENTS}, tags=["API"]
)
async def complete(
    body: CompletionRequest, request: Request, service: ServiceOf
) -> Response | CompletionReply:
    """Answer a text, which is read through the bridge, in the bridge's own template."""
    bridge = service.bridge(body.model)
    message = Message("user", (ContentPart(body.text),), is_plain=True)
    form = CompletionForm(bridge.name)
    answer: Response | CompletionReply = await _answer(
        service, bridge, body, [message], form, request
    )
    return answer


async def _answer(
    service: Service,
    bridge: ServedBridge,
    body: AnswerRequest,
    messages: Sequence[Message],
    form: AnswerForm,
    request: Request,
) -> Any:
    """The answer to messages, whole or as a stream."""
    job = AnswerJob(
        bridge=bridge.name,
        deliver=_unheard,
        messages=messages,
        language=body.language,
        max_new_tokens=_checked_tokens(service.limits, body.wanted_tokens),
        sampling=SamplingOptions(
            temperature=body.temperature or 0.0,
            top_p=1.0 if body.top_p is None else body.top_p,
            seed=body.seed,
            guidance_scale=body.guidance_scale,
            best_of=body.best_of or 1,
        ),
        stops=body.stops,
    )
    for message in messages:
        _check_sizes(service.limits, [part.text for part in message.parts], "messages")
    stream = JobStream(service.engine, job, request)
    if not body.stream:
        return form.whole(await stream.answer())
    started = await stream.started()
    include_usage = body.stream_options is not None and body.stream_options.include_usage
    events = event_stream(form, stream, started, include_usage=include_usage)
    return StreamingResponse(events, media_type="text/event-stream")


def _message(message: ChatMessage) -> Message:
    if isinstance(message.content, str):
        return Message(message.role, (ContentPart(message.content),), is_plain=True)
    parts = []
    for part in message.content:
        if isinstance(part, ForeignTextPart):
            parts.append(ContentPart(part.text, is_foreign=True, language=part.language))
        else:
            parts.append(ContentPart(part.text))
    return Message(message.role, tuple(parts))


def _check_counts(limits: ServeLimits, messages: Sequence[Message]) -> None:
    """Refuse more messages or parts than the server reads."""
    most = limits.max_messages
    if len(messages) > most or any(len(message.parts) > most for message in messages):
        raise RequestError(
            f"this server reads {most} messages and {most} parts of each at most", param="messages"
        )


def _check_sizes(limits: ServeLimits, texts: Sequence[str], param: str) -> None:
    """Refuse a text by its characters, before it is tokenised."""
    most = limits.max_text_characters
    longest = max(map(len, texts), default=0)
    if longest > most:
        raise RequestError(
            f"a text has {longest} characters; this server reads {most} at most",
            param=param,
            code="context_length_exceeded",
        )


def _checked_tokens(limits: ServeLimits, wanted: int | None) -> int | None:
    if wanted is not None and wanted > limits.max_new_tokens:
        raise RequestError(
            f"max_tokens is {wanted}; this server makes {limits.max_new_tokens} at most",
            param="max_tokens",
        )
    return wanted


# ------------------------------------------------------------------ classification
@router.post("/v1/classify", responses=ERRORS, tags=["API"])
async def classify(body: ClassifyRequest, request: Request, service: ServiceOf) -> ClassifyReply:
    """Label texts: how likely the LLM finds each label as the answer to each text."""
    bridge = service.bridge(body.model)
    words_by_label = bridge.words_by_label
    if body.labels is not None:
        words_by_label = {label: label for label in body.labels}
    _check_classification(service.limits, body, words_by_label)
    languages = body.languages or [body.language] * len(body.texts)
    job = ClassifyJob(
        bridge=bridge.name,
        deliver=_unheard,
        texts=body.texts,
        languages=languages,
        labels=tuple(words_by_label.values()),
    )
    stream = JobStream(service.engine, job, request)
    classified = await stream.result(Classified)
    return classify_reply(bridge.name, list(words_by_label), classified)


def _check_classification(
    limits: ServeLimits, body: ClassifyRequest, words_by_label: dict[str, str]
) -> None:
    """Refuse what can be known to be wrong before anything is read.

    Raises:
        RequestError: too many or too few texts, labels or languages, or one that is too long.
    """
    if not words_by_label:
        raise RequestError(
            "this bridge was not trained on a task with labels; give labels", param="labels"
        )
    if body.labels is not None and len(words_by_label) < len(body.labels):
        raise RequestError("a label is given twice", param="labels")
    if len(body.texts) > limits.max_texts:
        raise RequestError(f"this server labels {limits.max_texts} texts at most", param="texts")
    if len(words_by_label) > limits.max_labels and body.labels is not None:
        raise RequestError(f"this server takes {limits.max_labels} labels at most", param="labels")
    if body.languages is not None and len(body.languages) != len(body.texts):
        raise RequestError(
            f"there are {len(body.texts)} texts but {len(body.languages)} languages; give one "
            "language for each text",
            param="languages",
        )
    if body.languages is not None and body.language is not None:
        raise RequestError("give one of language and languages", param="languages")
    _check_sizes(limits, body.texts, "texts")
    if any(len(label) > MAX_LABEL_CHARACTERS for label in body.labels or ()):
        raise RequestError(
            f"this server takes labels of {MAX_LABEL_CHARACTERS} characters at most", param="labels"
        )


@router.post("/v1/layers", responses=ERRORS, tags=["API"])
async def layers(body: LayersRequest, request: Request, service: ServiceOf) -> LayersReply:
    """Show how much each of the encoder's layers counts for each token of a text."""
    bridge = service.bridge(body.model)
    _check_sizes(service.limits, [body.text], "text")
    job = LayersJob(bridge=bridge.name, deliver=_unheard, text=body.text, language=body.language)
    read = await JobStream(service.engine, job, request).result(LayersRead)
    return LayersReply(model=bridge.name, tokens=read.tokens, shares=read.shares, cut=read.cut)


# ------------------------------------------------------------------ what there is
@router.get("/v1/models", responses={401: ERRORS[401]}, tags=["API"])
async def models(service: ServiceOf) -> ModelList:
    """List the bridges."""
    return ModelList(data=[_described(bridge) for bridge in service.engine.bridges.values()])


@router.get("/v1/models/{name}", responses={401: ERRORS[401], 404: ERRORS[404]}, tags=["API"])
async def one_model(name: str, service: ServiceOf) -> ServedModel:
    """Describe a bridge."""
    return _described(service.bridge(name))


def _described(bridge: ServedBridge) -> ServedModel:
    config = bridge.model.config
    notes = BridgeNotes(
        encoder=public_name(config.encoder),
        second_encoder=config.second_encoder and public_name(config.second_encoder),
        llm=public_name(config.llm),
        labels=list(bridge.words_by_label),
        max_length=bridge.model.processor.max_length,
    )
    return ServedModel(id=bridge.name, created=bridge.created, palam=notes)


@router.get("/health", tags=["Operation"])
async def health() -> Status:
    """Whether the process lives."""
    return Status(status="alive")


@router.get("/ready", responses={503: ERRORS[503]}, tags=["Operation"])
async def ready(service: ServiceOf) -> Status:
    """Whether the server takes requests: not while it loads or shuts down."""
    if not service.engine.is_ready:
        raise server_error("not ready", status=503, code="not_ready")
    return Status(status="ready")


@router.get("/metrics", include_in_schema=False)
async def metrics(service: ServiceOf) -> Response:
    """What is counted, for Prometheus."""
    return Response(metrics_text(service.registry), media_type=CONTENT_TYPE_LATEST)


# ------------------------------------------------------------------ pages
@router.get("/", include_in_schema=False)
async def page(service: ServiceOf) -> Response:
    """The page on which people try a bridge."""
    return service.pages.trial()


@router.get("/docs", include_in_schema=False)
async def reference(request: Request, service: ServiceOf) -> Response:
    """The interface, described."""
    return service.pages.reference(request.app.openapi())
