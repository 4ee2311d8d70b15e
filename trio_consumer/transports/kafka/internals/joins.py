"""How a member joins its group, and what it gives up and keeps meanwhile."""

# kafka-python has no types; the stubs that pyright brings are of an older one.
# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kafka import KafkaConsumer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from ...._types import TopicPartition

__all__ = [
    "fetch_while_joining",
    "finish_joins",
    "forget_positions",
    "given_up",
    "hold_joins",
    "is_fenced",
    "is_joining",
    "lose_before_joining",
]


def forget_positions(consumer: KafkaConsumer, revoked: Iterable[TopicPartition]) -> None:
    """Take revoked partitions out of the client's assignment, with their positions.

    In an eager rebalance kafka-python leaves the old assignment in place while
    it joins, and a partition that comes back keeps the position it had been
    *fetched* to (3.0.12; the Java client clears it).  What was fetched but not
    processed before the revocation would then never be delivered, and the next
    commit would pass it.  Call it in the IO thread, at the end of the listener.
    """
    subscription = consumer._subscription
    gone = set(revoked)
    kept = [tp for tp in subscription.assigned_partitions() if tp not in gone]
    if subscription.partitions_auto_assigned():
        subscription.assign_from_subscribed(kept)


def given_up(consumer: KafkaConsumer, revoked: Iterable[TopicPartition]) -> bool:
    """Whether revoked partitions have left the client's assignment already.

    That is so when a cooperative join has ended: they go with the next join.
    """
    assignment = consumer._subscription.assignment
    return not any(tp in assignment for tp in revoked)


def hold_joins(consumer: KafkaConsumer, until: Any) -> None:
    """Have the client poll on instead of joining, until a future is resolved.

    While a cooperative member hands some partitions over, its listener would keep
    ``poll`` from fetching the others (3.0.12; Java's client blocks, too).  If the
    listener returns at once and the next join waits instead, they go on, with
    heartbeats, and nobody gets the partitions before that join.  Call it in the
    IO thread.
    """
    coordinator = consumer._coordinator
    held = coordinator.__dict__.get("_trio_consumer_holds")
    if held is None:
        held = coordinator._trio_consumer_holds = set()
        need_rejoin = coordinator.need_rejoin
        coordinator.need_rejoin = lambda: not held and need_rejoin()
    held.add(until)
    until.add_both(lambda _: held.discard(until))


def finish_joins(consumer: KafkaConsumer) -> None:
    """Have the client finish each join that it has begun.

    A join goes on when a poll ends, and a later poll takes up its result, but
    only if it still finds that it has to join.  What made it join may be settled
    by then, because the request says so (other topics, or other partitions of
    them): the result is never taken up, and the member has no partition, sends
    no heartbeat and never joins again (3.0.12).  Polls in short steps come upon
    that whenever the machine is busy.

    If the join ends between two polls, its result is thrown away in any case, and
    the member joins again; when it is the leader, so does the whole group.  So the
    second attempt gets the result of the first.
    """
    coordinator = consumer._coordinator
    need_rejoin = coordinator.need_rejoin
    join, complete = coordinator._do_join_and_sync_async, coordinator._on_join_complete_async
    # The generation that was joined, and the answer.
    unclaimed: list[Any] = []

    async def join_once() -> Any:
        if not (unclaimed and unclaimed[0] is coordinator._generation):
            answer = await join()
            unclaimed[:] = coordinator._generation, answer
        return unclaimed[1]

    async def complete_join(*args: Any) -> None:
        unclaimed.clear()
        await complete(*args)

    coordinator.need_rejoin = lambda: coordinator.rejoining or need_rejoin()
    coordinator._do_join_and_sync_async = join_once
    coordinator._on_join_complete_async = complete_join


JOIN_LOOK = 0.02
"""Seconds after which a poll that waits for records looks whether a join has ended."""


def fetch_while_joining(consumer: KafkaConsumer) -> None:
    """Have ``poll`` go on reading what the member keeps while its join waits for others.

    The broker answers a join when all members have sent theirs, which takes the
    others a heartbeat interval or, if they are busy, up to their
    ``max_poll_interval_ms``.  The client fetches nothing meanwhile (3.0.12; Java's
    has since KAFKA-8421), though nobody else may have these partitions: a
    cooperative member gives up only what it was told to, *before* it joins, and an
    eager one everything.  One that was thrown out keeps nothing either, but is told
    in the middle of its join, so that there is no reading then.

    The poll that begins a join does not wait for its end either, or what stays would
    be silent for the rest of that poll.  Only that one: a join that has failed is
    tried again after a pause, and none of no length.
    """
    coordinator, subscription = consumer._coordinator, consumer._subscription
    poll, time_to_next_poll = coordinator.poll, coordinator.time_to_next_poll
    ensure_active_group = coordinator.ensure_active_group

    def reads_on() -> bool:
        join = coordinator._join_task
        return (
            coordinator.rejoining
            and join is not None
            and not join.is_done
            and not coordinator._generation.is_lost()
            and bool(subscription.fetchable_partitions())
        )

    def poll_unless_joining(timeout_ms: Any = None) -> Any:
        return reads_on() or poll(timeout_ms=timeout_ms)

    def begin_join(timeout_ms: Any = None) -> Any:
        begins = not coordinator.rejoining and subscription.fetchable_partitions()
        return ensure_active_group(timeout_ms=0 if begins else timeout_ms)

    coordinator.ensure_active_group = begin_join
    # No heartbeat is due in a join, so the client would not wait at all.
    coordinator.poll = poll_unless_joining
    coordinator.time_to_next_poll = lambda: JOIN_LOOK if reads_on() else time_to_next_poll()


def is_joining(consumer: KafkaConsumer) -> bool:
    """Whether polls have to carry a join on."""
    return bool(consumer._coordinator.need_rejoin())


def lose_before_joining(consumer: KafkaConsumer) -> None:
    """Have the client give up what it has lost before it joins without a generation.

    It looks once, before the first attempt of a join, whether it is still a member.
    If it learns later, from the answer to that attempt, that it has been thrown out,
    it tries again as a new member and keeps its partitions (3.0.12; the Java client
    looks again).  In the cooperative protocol they would then be *revoked* after the
    join, and the last commit for them, under the new generation, would go over what
    their new owner has committed.

    Its assignor remembers them all the same and names them in the join as its own
    (3.0.12): nobody else is given them in this rebalance, and as they are not revoked
    from anybody no other one follows.  They would be read by nobody.
    """
    coordinator = consumer._coordinator
    subscription = consumer._subscription
    join = coordinator._do_join_and_sync_async

    async def join_as_what_it_is() -> Any:
        now = coordinator._generation
        if now.is_lost() and subscription.assigned_partitions():
            await coordinator._on_join_prepare_async(now.generation_id, now.member_id)
        if now.is_lost():
            for assignor in coordinator._assignors.values():
                if isinstance(assignor, CooperativeStickyAssignor):
                    assignor.member_assignment = None
        return await join()

    coordinator._do_join_and_sync_async = join_as_what_it_is


def is_fenced(consumer: KafkaConsumer) -> bool:
    """Whether another member has taken this one's ``group_instance_id``.

    A heartbeat learns of it and is just not sent any more (3.0.12): a member with
    nothing to commit would go on reading for ever, beside its successor.  Call it
    in the polling thread, where no join can end meanwhile.
    """
    coordinator = consumer._coordinator
    return (
        coordinator.group_instance_id is not None
        and coordinator.stable()
        and not coordinator.rejoining
        and not coordinator._heartbeat_enabled
    )
