"""Classes by name, imported only when they are used: listing the names costs nothing."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TypeVar

from palam.errors import PalamError

Item = TypeVar("Item")


class Registry(Mapping[str, type[Item]]):
    """A mapping from names to classes.

    Only `registry[name]` (and what needs the classes: `values`, `items`) imports one; iterating
    over the names and `name in registry` do not.

    Args:
        kind: what the classes are, for messages: `"fusion"`.
        entries: by name, where each class is: `"package.module:Class"`.
    """

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries: dict[str, str | type[Item]] = dict(entries)

    def __getitem__(self, name: str) -> type[Item]:
        entry = self._entries[name]
        if isinstance(entry, str):
            module, _, attribute = entry.partition(":")
            entry = getattr(import_module(module), attribute)
            self._entries[name] = entry
        return entry

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def lookup(self, name: str) -> type[Item]:
        """The class of that name.

        Raises:
            PalamError: there is none; the message lists the names.
        """
        self.check(name)
        return self[name]

    def check(self, name: str) -> None:
        """Refuse a name that is not registered, without importing anything.

        Raises:
            PalamError: see [`Registry.lookup`].
        """
        if name not in self:
            known = ", ".join(self)
            raise PalamError(f"{self.kind} {name!r} is not known; it must be one of: {known}")

    def register(self, name: str, item: type[Item]) -> None:
        """Add a class, or replace the one that has this name."""
        self._entries[name] = item
