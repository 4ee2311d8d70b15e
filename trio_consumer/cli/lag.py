"""``trio-consumer lag``: how far a group has committed, and who has which partition."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import click
import trio
from rich.console import Console
from rich.text import Text

from .. import OffsetAndMetadata, TopicPartition
from .cluster import Cluster, GroupDescription, Member, Partition, PartitionOffsets
from .errors import Failure, reporting, traceback_option
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

__all__ = ["GroupLag", "LagExceeded", "Owner", "PartitionLag", "lag", "lag_of"]


class LagExceeded(Failure):
    """The lag is above what ``--fail-above`` allows."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class Owner:
    """The member that has a partition."""

    member_id: str
    client_id: str
    host: str
    instance_id: str | None


@dataclass(frozen=True, slots=True)
class PartitionLag:
    """One partition of a group.

    Attributes:
        topic: Its topic.
        partition: Its number.
        committed: The offset that the group has committed, None without a commit.
        first: Where the partition begins, None if nobody leads it or it is gone.
        end: Where it ends, likewise.
        lag: Offsets from the committed one to the end, None if either is unknown.
        metadata: What was committed beside the offset.
        member: Who has it, None if nobody.
    """

    topic: str
    partition: int
    committed: int | None
    first: int | None
    end: int | None
    lag: int | None
    metadata: str
    member: Owner | None

    @property
    def unread(self) -> int | None:
        """The lag; without a commit all that the partition holds; None if unknown."""
        if self.first is None or self.end is None:
            return None
        return self.end - self.first if self.lag is None else self.lag


@dataclass(frozen=True, slots=True)
class GroupLag:
    """A group and its partitions, by topic and number; what ``--json`` prints.

    Attributes:
        group: Its name.
        state: Such as ``"Stable"`` or ``"Empty"``.
        type: ``"classic"`` or ``"consumer"``.
        isolation_level: Whose end it is: the high watermark, or the last stable offset.
        members: How many members the group has.
        lag: Sum over the partitions of which it is known.
        without_commit: Partitions without a committed offset.
        partitions: Those with a commit, those that a member has, and those of the
            topics that were asked for.
    """

    group: str
    state: str
    type: str
    isolation_level: str
    members: int
    lag: int
    without_commit: int
    partitions: tuple[PartitionLag, ...]

    @property
    def unread(self) -> int | None:
        """Sum of what is to be read, None if it is unknown of a partition."""
        parts = [each.unread for each in self.partitions]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None


def lag_of(
    description: GroupDescription,
    committed: Mapping[TopicPartition, OffsetAndMetadata],
    tps: Collection[TopicPartition],
    offsets: Mapping[TopicPartition, PartitionOffsets],
    isolation_level: str,
) -> GroupLag:
    """Put together what a cluster has answered; ``tps`` are the partitions to tell of."""
    owners = {tp: member for member in description.members for tp in member.assignment}
    partitions = tuple(
        _partition(tp, committed.get(tp), offsets.get(tp), owners.get(tp)) for tp in sorted(tps)
    )
    return GroupLag(
        group=description.group,
        state=description.state,
        type=description.type,
        isolation_level=isolation_level,
        members=len(description.members),
        lag=sum(each.lag for each in partitions if each.lag is not None),
        without_commit=sum(each.committed is None for each in partitions),
        partitions=partitions,
    )


def _partition(
    tp: TopicPartition,
    stored: OffsetAndMetadata | None,
    offsets: PartitionOffsets | None,
    member: Member | None,
) -> PartitionLag:
    known = stored is not None and offsets is not None
    return PartitionLag(
        topic=tp.topic,
        partition=tp.partition,
        committed=None if stored is None else stored.offset,
        first=None if offsets is None else offsets.first,
        end=None if offsets is None else offsets.end,
        # A commit past the end is left over from a topic that was made again.
        lag=max(0, offsets.end - stored.offset) if known else None,  # type: ignore[union-attr]  # known
        metadata="" if stored is None else stored.metadata,
        member=None
        if member is None
        else Owner(member.member_id, member.client_id, member.host, member.instance_id),
    )


async def ask(
    cluster: Cluster, group: str, wanted: Collection[str], isolation_level: str
) -> GroupLag:
    """Ask a cluster for the lag of a group, in all topics or in those that are wanted.

    Raises:
        Failure: There is no such group, or no such topic.
    """
    description, committed = await find_group(cluster, group)
    topics = await cluster.topics()
    find_topics(topics, wanted, cluster.address)
    tps = set(committed).union(*(member.assignment for member in description.members))
    if wanted:
        tps = {partition.tp for topic in wanted for partition in topics[topic]}
    known: dict[TopicPartition, Partition] = {p.tp: p for each in topics.values() for p in each}
    offsets = await cluster.offsets(
        [known[tp] for tp in sorted(tps) if tp in known],
        committed_only=isolation_level == "read_committed",
    )
    return lag_of(description, committed, tps, offsets, isolation_level)


@click.command(short_help="Show how far a group is behind.")
@url_option("kafka://host:port,host:port, or confluent:// for the same.")
@click.option("--group", required=True, callback=named, help="Any consumer group, of any client.")
@click.option(
    "--topic",
    "topics",
    multiple=True,
    callback=named,
    help="Only this topic, with all its partitions; may be repeated.",
)
@click.option(
    "--isolation-level",
    type=click.Choice(["read_uncommitted", "read_committed"]),
    default="read_uncommitted",
    help="read_committed: count to the first open transaction, not to the high watermark.",
)
@click.option(
    "--fail-above",
    type=click.IntRange(0),
    metavar="MESSAGES",
    show_default=False,
    help="Exit with 3 if more is to be read, or if that is unknown. A partition without a"
    " commit counts with all it holds.",
)
@json_option("Print one JSON document.")
@client_options_option
@timeout_option
@traceback_option
def lag(
    url: str,
    group: str,
    topics: tuple[str, ...],
    isolation_level: str,
    fail_above: int | None,
    as_json: bool,
    options: dict[str, Value],
    timeout: float,
    show_traceback: bool,
) -> None:
    """Show how far a group is behind, and who reads what.

    For each partition: the committed offset, the end, the lag between them, and
    the member that has it. A group without a commit there has "-". Works on the
    groups of every client, joins none and changes nothing.

    \b
        trio-consumer lag --url kafka://localhost:9092 --group billing
        trio-consumer lag --url kafka://localhost:9092 --group billing \\
            --topic orders --json

    In a script that watches, exit code 3 above 1000 messages:

    \b
        trio-consumer lag --url kafka://localhost:9092 --group billing \\
            --fail-above 1000

    Behind TLS, with a password that 'ps' does not show:

    \b
        export TRIO_CONSUMER_OPTIONS="security_protocol=SASL_SSL \\
            ssl_cafile=ca.pem sasl_mechanism=SCRAM-SHA-512 \\
            sasl_plain_username=bob sasl_plain_password=..."
        trio-consumer lag --url kafka://localhost:9093 --group billing
    """  # noqa: D301 - click wants the character

    async def main() -> GroupLag:
        async with open_cluster(url, options, timeout) as cluster:
            return await ask(cluster, group, topics, isolation_level)

    with reporting(show_traceback):
        found = trio.run(main)
        if as_json:
            print_json(found)
        else:
            _show(found, Console(highlight=False))
        if fail_above is not None:
            _check(found, fail_above)


def _show(found: GroupLag, console: Console) -> None:
    table = TextTable(
        *("partition", ">committed", ">end", ">lag", "client", "host", "member", "static member"),
        "metadata",
    )
    for each in found.partitions:
        owner = each.member
        table.add(
            str(TopicPartition(each.topic, each.partition)),
            number(each.committed),
            number(each.end),
            Text(number(each.lag), style="yellow" if each.lag else ""),
            "-" if owner is None else owner.client_id,
            "-" if owner is None else owner.host,
            "-" if owner is None else owner.member_id,
            "-" if owner is None else owner.instance_id or "-",
            each.metadata,
        )
    table.drop_empty("static member", "metadata")
    if found.partitions:
        table.show(console)
        console.print()
    console.print(Text(_summary(found)), soft_wrap=True)


def _summary(found: GroupLag) -> str:
    count = len(found.partitions) - found.without_commit
    text = (
        f"{found.group}: {found.state}, {counted(found.members, 'member')}; lag {found.lag} over"
        f" {counted(count, 'partition')}"
    )
    if found.without_commit:
        text += f"; {counted(found.without_commit, 'partition')} without a commit"
    return text


def _check(found: GroupLag, most: int) -> None:
    unread = found.unread
    if unread is None:
        unknown = [
            str(TopicPartition(each.topic, each.partition))
            for each in found.partitions
            if each.unread is None
        ]
        raise LagExceeded(
            f"the group {found.group!r} may be more than {most} behind: the end of"
            f" {', '.join(unknown)} is unknown; check whether its brokers run and its"
            " topic is still there"
        )
    if unread > most:
        raise LagExceeded(
            f"the group {found.group!r} is {unread} messages behind, more than {most}"
            " (--fail-above); let more members read, or look what holds them up"
        )
