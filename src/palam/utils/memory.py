"""Memory that did not suffice."""

OUT_OF_MEMORY_SIGNS = ("not enough memory", "can't allocate memory", "out of memory")
"""What torch says of it; on a CPU it has no class of its own for that."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory did not suffice."""
    if isinstance(error, MemoryError):
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and any(sign in message for sign in OUT_OF_MEMORY_SIGNS)
