"""Every private part of kafka-python that this library touches, and why.

kafka-python has no public way to do these things.  :func:`check` fails loudly
when a version moves a name, so that a release cannot quietly lose a mend; the
version is pinned below the next minor for the same reason.  What a new version
may break is to be found in this package, and nowhere else.
"""

# kafka-python has no types; the stubs that pyright brings are of an older one.
# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import kafka
from kafka import KafkaConsumer
from kafka.consumer.fetcher import Fetcher
from kafka.net.transport import KafkaTCPTransport
from kafka.record.default_records import DefaultRecordBatch

from ...._errors import ConfigurationError
from .asking import (
    ask_coordinator,
    call_in_io_thread,
    fetch_committed,
)
from .connections import (
    bootstrap,
    close_all,
    close_failed_sockets,
    close_left_sockets,
    hear_last_words,
    mend_connections,
    read_large_pieces,
    unwatch_connections,
    watch_connections,
)
from .joins import (
    fetch_while_joining,
    finish_joins,
    forget_positions,
    given_up,
    hold_joins,
    is_fenced,
    is_joining,
    lose_before_joining,
)
from .reading import (
    PoisonRecord,
    beginning,
    forget_beginnings,
    position,
    positions,
    read_batches_with,
    release_parked,
    release_poison,
    uncompressed,
)
from .topics import (
    CommitWatch,
    make_topics,
    refresh_metadata,
    remade_topics,
    reset_positions,
    watch_commits,
)

__all__ = [
    "CommitWatch",
    "PoisonRecord",
    "ask_coordinator",
    "beginning",
    "bootstrap",
    "call_in_io_thread",
    "check",
    "close_all",
    "close_failed_sockets",
    "close_left_sockets",
    "fetch_committed",
    "fetch_while_joining",
    "finish_joins",
    "forget_beginnings",
    "forget_positions",
    "given_up",
    "hear_last_words",
    "hold_joins",
    "is_fenced",
    "is_joining",
    "lose_before_joining",
    "make_topics",
    "mend_connections",
    "position",
    "positions",
    "read_batches_with",
    "read_large_pieces",
    "refresh_metadata",
    "release_parked",
    "release_poison",
    "remade_topics",
    "reset_positions",
    "uncompressed",
    "unwatch_connections",
    "watch_commits",
    "watch_connections",
]


def check(consumer: KafkaConsumer) -> None:
    """Raise if this version of kafka-python does not have what is used here.

    Raises:
        ConfigurationError: A name has moved.
    """
    wanted: Iterable[tuple[Any, tuple[str, ...]]] = (
        (consumer, ("_fetcher", "_subscription", "_coordinator", "_cluster", "_net", "_manager")),
        (
            getattr(consumer, "_fetcher", None),
            ("_next_partition_records", "_paused_partition_records", "_completed_fetches"),
        ),
        (
            Fetcher.PartitionRecords,
            (
                *("drain", "__bool__", "_contains_abort_marker", "_is_batch_aborted"),
                "_consume_aborted_transactions_up_to",
            ),
        ),
        (DefaultRecordBatch, ("_maybe_uncompress", "_buffer", "_pos")),
        (getattr(consumer, "_net", None), ("call_soon_threadsafe", "run")),
        (
            getattr(consumer, "_cluster", None),
            ("request_update", "topic_id", "config", "_topics"),
        ),
        (
            getattr(consumer, "_coordinator", None),
            (
                *("fetch_committed_offsets", "need_rejoin", "rejoining", "stable"),
                *("_heartbeat_enabled", "_handle_offset_commit_response", "_generation"),
                *("_send_offset_commit_request", "_manager", "ensure_active_group"),
                *("_do_join_and_sync_async", "_on_join_prepare_async", "_assignors"),
                *("_on_join_complete_async", "_join_task", "poll", "time_to_next_poll"),
            ),
        ),
        (
            getattr(consumer, "_subscription", None),
            (
                *("assignment", "assign_from_subscribed", "partitions_auto_assigned"),
                "assigned_partitions",
                *("request_offset_reset", "has_default_offset_reset_policy"),
            ),
        ),
        (
            getattr(consumer, "_manager", None),
            ("get_connection", "wait_for", "_build_transport", "bootstrap_async"),
        ),
        (KafkaTCPTransport, ("_sock_recv",)),
    )
    for owner, names in wanted:
        missing = [name for name in names if not hasattr(owner, name)]
        if missing:
            raise ConfigurationError(
                f"kafka-python {kafka.__version__} has no {', '.join(missing)}: its internals"
                " have moved; install a version that this release of trio-consumer supports"
            )
