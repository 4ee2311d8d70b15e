"""``trio-consumer inspect``: brokers, groups with their members, topics with their ends."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import groupby

import click
import trio
from rich.console import Console
from rich.text import Text

from .. import OffsetAndMetadata, TopicPartition
from .cluster import Broker, Cluster, GroupDescription, Partition, PartitionOffsets
from .errors import reporting, traceback_option
from .finding import find_group, find_topics
from .opening import open_cluster
from .options import (
    Value,
    client_options_option,
    json_option,
    named,
    timeout_option,
    url_option,
)
from .output import TextTable, counted, number, print_json

__all__ = ["Inspection", "inspect"]


@dataclass(frozen=True, slots=True)
class AssignedMember:
    """A member and its partitions."""

    member_id: str
    client_id: str
    host: str
    instance_id: str | None
    assignment: tuple[TopicPartitions, ...]


@dataclass(frozen=True, slots=True)
class TopicPartitions:
    """Partitions of one topic."""

    topic: str
    partitions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CommittedOffset:
    """What a group has committed of one partition."""

    topic: str
    partition: int
    offset: int
    metadata: str


@dataclass(frozen=True, slots=True)
class InspectedGroup:
    """A group.

    Attributes:
        group: Its name.
        state: Such as ``"Stable"`` or ``"Empty"``.
        type: ``"classic"``, ``"consumer"`` (KIP-848) or another one.
        protocol_type: ``"consumer"`` for groups of consumers.
        assignor: The strategy in use; None if the group was not asked for by name,
            as the rest.
        members: Its members, by client id.
        committed: Its committed offsets.
    """

    group: str
    state: str
    type: str
    protocol_type: str
    assignor: str | None = None
    members: tuple[AssignedMember, ...] | None = None
    committed: tuple[CommittedOffset, ...] | None = None


@dataclass(frozen=True, slots=True)
class InspectedPartition:
    """A partition; ``first`` and ``end`` are None while nobody leads it."""

    partition: int
    leader: int | None
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]
    first: int | None
    end: int | None


@dataclass(frozen=True, slots=True)
class InspectedTopic:
    """A topic.

    Attributes:
        topic: Its name.
        partition_count: How many partitions it has.
        partitions: Each of them; None if the topic was not asked for by name.
    """

    topic: str
    partition_count: int
    partitions: tuple[InspectedPartition, ...] | None = None


@dataclass(frozen=True, slots=True)
class Inspection:
    """What ``--json`` prints."""

    brokers: tuple[Broker, ...]
    groups: tuple[InspectedGroup, ...]
    topics: tuple[InspectedTopic, ...]


async def ask(cluster: Cluster, groups: Collection[str], topics: Collection[str]) -> Inspection:
    """Look at groups and topics; at the lists of all if none are named.

    Raises:
        Failure: One does not exist.
    """
    brokers = tuple(await cluster.brokers())
    if not groups and not topics:
        listed = await cluster.groups()
        known = await cluster.topics()
        return Inspection(
            brokers,
            tuple(InspectedGroup(g.group, g.state, g.type, g.protocol_type) for g in listed),
            tuple(
                InspectedTopic(name, len(parts))
                for name, parts in known.items()
                # What a broker keeps for itself.
                if not name.startswith("__")
            ),
        )
    described = [_group(*await find_group(cluster, group)) for group in groups]
    looked: list[InspectedTopic] = []
    if topics:
        known = await cluster.topics()
        find_topics(known, topics, cluster.address)
        partitions = [partition for topic in topics for partition in known[topic]]
        offsets = await cluster.offsets(partitions, committed_only=False)
        looked = [
            InspectedTopic(
                topic,
                len(known[topic]),
                tuple(_partition(each, offsets.get(each.tp)) for each in known[topic]),
            )
            for topic in topics
        ]
    return Inspection(brokers, tuple(described), tuple(looked))


def _group(
    found: GroupDescription, committed: dict[TopicPartition, OffsetAndMetadata]
) -> InspectedGroup:
    return InspectedGroup(
        found.group,
        found.state,
        found.type,
        found.protocol_type,
        found.assignor,
        tuple(
            AssignedMember(
                member.member_id,
                member.client_id,
                member.host,
                member.instance_id,
                _by_topic(member.assignment),
            )
            for member in found.members
        ),
        tuple(
            CommittedOffset(tp.topic, tp.partition, stored.offset, stored.metadata)
            for tp, stored in sorted(committed.items())
        ),
    )


def _by_topic(tps: Iterable[TopicPartition]) -> tuple[TopicPartitions, ...]:
    return tuple(
        TopicPartitions(topic, tuple(tp.partition for tp in each))
        for topic, each in groupby(sorted(tps), key=lambda tp: tp.topic)
    )


def _partition(partition: Partition, offsets: PartitionOffsets | None) -> InspectedPartition:
    return InspectedPartition(
        partition.tp.partition,
        partition.leader,
        partition.replicas,
        partition.in_sync,
        None if offsets is None else offsets.first,
        None if offsets is None else offsets.end,
    )


@click.command(short_help="Look at brokers, groups and topics.")
@url_option("kafka://host:port,host:port, or confluent:// for the same.")
@click.option(
    "--group",
    "groups",
    multiple=True,
    callback=named,
    help="Show the members of this group, their partitions, and what is committed; may be"
    " repeated.",
)
@click.option(
    "--topic",
    "topics",
    multiple=True,
    callback=named,
    help="Show the partitions of this topic, their leaders and their ends; may be repeated.",
)
@json_option("Print one JSON document.")
@client_options_option
@timeout_option
@traceback_option
def inspect(
    url: str,
    groups: tuple[str, ...],
    topics: tuple[str, ...],
    as_json: bool,
    options: dict[str, Value],
    timeout: float,
    show_traceback: bool,
) -> None:
    """Look at a cluster: its brokers, groups and topics.

    Without --group and --topic: the lists of all. With them: who is in the group,
    which partitions each member has and what is committed; where the partitions
    of the topic begin and end, and who leads them. Changes nothing.

    \b
        trio-consumer inspect --url kafka://localhost:9092
        trio-consumer inspect --url kafka://localhost:9092 --group billing
        trio-consumer inspect --url kafka://localhost:9092 --topic orders --json
    """  # noqa: D301 - click wants the character

    async def main() -> Inspection:
        async with open_cluster(url, options, timeout) as cluster:
            return await ask(cluster, groups, topics)

    with reporting(show_traceback):
        found = trio.run(main)
        if as_json:
            print_json(found)
            return
        console = Console(highlight=False)
        if groups or topics:
            for group in found.groups:
                _show_group(group, console)
            for topic in found.topics:
                _show_topic(topic, console)
        else:
            _show_lists(found, console)


def _heading(text: str, console: Console) -> None:
    console.print(Text(text, style="bold"), soft_wrap=True)


def _show_lists(found: Inspection, console: Console) -> None:
    brokers = TextTable("broker", "address")
    for broker in found.brokers:
        brokers.add(str(broker.id), f"{broker.host}:{broker.port}")
    brokers.show(console)
    console.print()
    groups = TextTable("group", "state", "type", "protocol")
    for group in found.groups:
        groups.add(group.group, group.state or "-", group.type or "-", group.protocol_type or "-")
    if found.groups:
        groups.show(console)
    else:
        console.print("no groups")
    console.print()
    topics = TextTable("topic", ">partitions")
    for topic in found.topics:
        topics.add(topic.topic, str(topic.partition_count))
    if found.topics:
        topics.show(console)
    else:
        console.print("no topics")


def _show_group(group: InspectedGroup, console: Console) -> None:
    assignor = f", assigned by {group.assignor}" if group.assignor else ""
    _heading(f"group {group.group}: {group.state}, type {group.type}{assignor}", console)
    members = TextTable("client", "host", "member", "static member", "partitions")
    for member in group.members or ():
        partitions = " ".join(
            f"{each.topic}[{','.join(map(str, each.partitions))}]" for each in member.assignment
        )
        members.add(
            member.client_id,
            member.host,
            member.member_id,
            member.instance_id or "-",
            partitions or "-",
        )
    members.drop_empty("static member")
    if group.members:
        members.show(console)
    else:
        console.print("no members")
    console.print()
    committed = TextTable("partition", ">committed", "metadata")
    for stored in group.committed or ():
        tp = TopicPartition(stored.topic, stored.partition)
        committed.add(str(tp), str(stored.offset), stored.metadata)
    committed.drop_empty("metadata")
    if group.committed:
        committed.show(console)
    else:
        console.print("nothing committed")
    console.print()


def _show_topic(topic: InspectedTopic, console: Console) -> None:
    _heading(f"topic {topic.topic}: {counted(topic.partition_count, 'partition')}", console)
    table = TextTable("partition", ">leader", ">first", ">end", "replicas", "in sync")
    for each in topic.partitions or ():
        table.add(
            str(TopicPartition(topic.topic, each.partition)),
            number(each.leader),
            number(each.first),
            number(each.end),
            ",".join(map(str, each.replicas)),
            ",".join(map(str, each.in_sync)),
        )
    table.show(console)
    console.print()
