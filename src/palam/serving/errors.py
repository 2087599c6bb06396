"""What a client is told when a request cannot be answered."""

from palam.errors import PalamError
from palam.utils.memory import is_out_of_memory as is_out_of_memory

INVALID_REQUEST = "invalid_request_error"
"""The API's kind of error that the client can mend."""
SERVER_ERROR = "server_error"


class RequestError(PalamError):
    """A request that is refused, or could not be finished.

    Args:
        message: what is wrong, and what would be right. It holds no text of the client's.
        status: of HTTP.
        kind: the API's `type` of error.
        code: a name that a program can compare.
        param: the field that is wrong.
        retry_after: seconds after which the client may try again.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = INVALID_REQUEST,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.retry_after = retry_after


def server_error(
    message: str, *, status: int, code: str, retry_after: int | None = None
) -> RequestError:
    """An error that is not the client's to mend; see [`RequestError`]."""
    return RequestError(
        message, status=status, kind=SERVER_ERROR, code=code, retry_after=retry_after
    )


def failure_of(error: BaseException) -> RequestError:
    """What the client is told of an error inside the engine."""
    if isinstance(error, RequestError):
        return error
    if is_out_of_memory(error):
        return server_error(
            "this request needs more memory than the server has; send a shorter one",
            status=503,
            code="out_of_memory",
            retry_after=10,
        )
    message = f"the model failed on this request ({type(error).__name__})"
    if isinstance(error, PalamError):
        message = str(error)
    return server_error(message, status=500, code="model_error")


def timed_out() -> RequestError:
    """What the client is told after the time that a request may take."""
    return server_error(
        "the request took longer than this server allows", status=504, code="timeout"
    )


def shutting_down() -> RequestError:
    """What the client is told while the server stops."""
    return server_error(
        "the server is shutting down", status=503, code="shutting_down", retry_after=10
    )
