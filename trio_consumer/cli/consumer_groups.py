"""The question to a coordinator that kafka-python lacks: groups of the newer protocol.

``ConsumerGroupDescribe`` (KIP-848) tells of groups of the type "consumer" what
``DescribeGroups`` tells of the type "classic".  kafka-python makes the classes
of messages from schemas by the name of the class; these are in :mod:`.schemas`.
"""

# kafka-python has no types; the stubs that pyright brings are of an older one.
# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import schemas

__all__ = ["ConsumerGroupDescribeRequest", "ConsumerGroupDescribeResponse"]

if TYPE_CHECKING:

    class _Message:
        def __init_subclass__(cls, load_json: Any) -> None: ...

        def __init__(self, **fields: Any) -> None: ...

else:
    from kafka.protocol.api_message import ApiMessage as _Message


class ConsumerGroupDescribeRequest(_Message, load_json=schemas):
    """Describe groups of the type "consumer"."""


class ConsumerGroupDescribeResponse(_Message, load_json=schemas):
    """What they are; kafka-python finds the class by the key of the request."""
