"""The address ``memory://name``: a broker looked up by name when connecting."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import ClassVar

from ..._errors import ConfigurationError
from ..base import (
    ProducerSettings,
    RebalanceListener,
    SessionSettings,
    TransactionalProducer,
)
from .broker import MemoryBroker
from .session import MemorySession

__all__ = ["MemoryTransport"]


class MemoryTransport:
    """The broker of a ``memory://name`` address, looked up when connecting.

    Args:
        name: The name, or the whole address.
    """

    closed_errors: ClassVar[tuple[type[BaseException], ...]] = MemoryBroker.closed_errors

    def __init__(self, name: str) -> None:
        self.name: str = name.removeprefix("memory://").rstrip("/")
        if not self.name:
            raise ConfigurationError(
                f"cannot use {name!r} as an address: a memory broker has a name, memory://name"
            )

    def __repr__(self) -> str:
        return f"<MemoryTransport memory://{self.name}>"

    @property
    def broker(self) -> MemoryBroker:
        """The broker of this name."""
        return MemoryBroker.named(self.name)

    def connect(
        self, settings: SessionSettings, listener: RebalanceListener
    ) -> AbstractAsyncContextManager[MemorySession]:
        """As :meth:`MemoryBroker.connect`."""
        return self.broker.connect(settings, listener)

    def producer(
        self, settings: ProducerSettings
    ) -> AbstractAsyncContextManager[TransactionalProducer]:
        """As :meth:`MemoryBroker.producer`."""
        return self.broker.producer(settings)
