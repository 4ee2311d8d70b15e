"""Two members, one partition, a few offsets: every order of everything that can happen.

The machine knows nothing of the library.  It says in a page what the library
promises to do: what a member may commit, when a commit counts, what a hand-over
waits for.  The search in :mod:`.search` visits every state that can be reached
and asks three things of each:

* *safe*: every offset below the committed one was finished by somebody;
* *forward*: no commit went back behind one before it;
* *live*: all can still be finished and committed from here.

Each field of :class:`Rules` that is set breaks one rule, as other consumers do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Machine", "Member", "Rules", "State"]


@dataclass(frozen=True)
class Rules:
    """Which rules are broken.

    Attributes:
        commits_past_gaps: What is committed is the offset behind the highest
            finished one (Faust, in a fresh group).
        commits_position: What is committed is the position (automatic commits of
            most clients).
        commits_at_revocation_what_is_in_hand: At a revocation the position is
            committed, without waiting for what is in hand.
        accepts_any_generation: The broker stores a commit of a member that has
            been thrown out.
        gives_up_before_the_answer: A hand-over does not wait for a commit that is
            on its way, and the broker looks at no generation in this group (a
            commit "from outside").
        believes_in_a_failed_commit: A commit that failed is noted as stored.
    """

    commits_past_gaps: bool = False
    commits_position: bool = False
    commits_at_revocation_what_is_in_hand: bool = False
    accepts_any_generation: bool = False
    gives_up_before_the_answer: bool = False
    believes_in_a_failed_commit: bool = False


class Member(NamedTuple):
    """What one member believes.

    Attributes:
        generation: In which it has the partition, 0 if it does not have it.
        start: Where it began to read.
        position: Offset behind what was delivered to it.
        finished: Bits of what it has finished since ``start``.
        known: The offset that it believes to be committed.
        sent: Offset and generation of a commit on its way.
    """

    generation: int = 0
    start: int = 0
    position: int = 0
    finished: int = 0
    known: int = 0
    sent: tuple[int, int] | None = None


class State(NamedTuple):
    """Everything there is.

    Attributes:
        members: The two.
        owner: Who has the partition at the broker, None between two owners.
        generation: That of the group.
        committed: The offset that the broker has.
        finished: Bits of what anybody has ever finished.
    """

    members: tuple[Member, Member]
    owner: int | None = None
    generation: int = 0
    committed: int = 0
    finished: int = 0


class Machine:
    """What can happen next.

    Args:
        offsets: How many records the partition has.
        rebalances: How often the partition may change hands: what makes the
            number of states finite.
        rules: Which rules are broken.
    """

    def __init__(self, offsets: int, rebalances: int, rules: Rules | None = None) -> None:
        self.offsets = offsets
        self.rebalances = rebalances
        self.rules = rules or Rules()

    def first(self) -> State:
        """Nobody has anything."""
        return State((Member(), Member()))

    def done(self, state: State) -> bool:
        """Whether everything is committed."""
        return state.committed == self.offsets

    def safe(self, state: State) -> bool:
        """Whether everything below the committed offset was finished."""
        below = (1 << state.committed) - 1
        return state.finished & below == below

    def committable(self, member: Member) -> int:
        """What a member would commit."""
        if self.rules.commits_position:
            return member.position
        if self.rules.commits_past_gaps and member.finished:
            return max(member.start, member.finished.bit_length())
        offset = member.start
        while offset < member.position and member.finished >> offset & 1:
            offset += 1
        return offset

    def following(self, state: State) -> Iterator[tuple[str, State]]:
        """Each thing that can happen, and what is then."""
        if state.owner is None:
            yield from self._assign(state)
        for which in (0, 1):
            member = state.members[which]
            if member.sent is not None:
                yield from self._answers(state, which)
            if member.generation:
                yield from self._works(state, which)
                yield from self._goes(state, which)

    # -- the parts ---------------------------------------------------------------------

    def _assign(self, state: State) -> Iterator[tuple[str, State]]:
        if state.generation > self.rebalances:
            return
        generation = state.generation + 1
        for which in (0, 1):
            # Who still believes to have it is a zombie: it has not heard yet.
            if not state.members[which].generation:
                begin = state.committed
                new = Member(generation, begin, begin, 0, begin, state.members[which].sent)
                yield (
                    f"{name(which)} is assigned from {begin}",
                    state._replace(
                        members=put(state, which, new), owner=which, generation=generation
                    ),
                )

    def _works(self, state: State, which: int) -> Iterator[tuple[str, State]]:
        member = state.members[which]
        if member.position < self.offsets:
            more = member._replace(position=member.position + 1)
            yield (
                f"{name(which)} gets {member.position}",
                state._replace(members=put(state, which, more)),
            )
        for offset in range(member.start, member.position):
            if not member.finished >> offset & 1:
                bit = 1 << offset
                more = member._replace(finished=member.finished | bit)
                yield (
                    f"{name(which)} finishes {offset}",
                    state._replace(members=put(state, which, more), finished=state.finished | bit),
                )
        offset = self.committable(member)
        if member.sent is None and offset != member.known:
            sent = member._replace(sent=(offset, member.generation))
            yield (
                f"{name(which)} sends a commit of {offset}",
                state._replace(members=put(state, which, sent)),
            )

    def _answers(self, state: State, which: int) -> Iterator[tuple[str, State]]:
        member = state.members[which]
        assert member.sent is not None
        offset, generation = member.sent
        idle = member._replace(sent=None)
        current = generation == state.generation and state.owner == which
        if current or self.rules.accepts_any_generation or self.rules.gives_up_before_the_answer:
            mine = generation == member.generation
            told = idle._replace(known=offset) if mine else idle
            yield (
                f"the commit of {offset} by {name(which)} is stored",
                state._replace(members=put(state, which, told), committed=offset),
            )
            yield (
                f"the commit of {offset} by {name(which)} is stored, the answer lost",
                state._replace(members=put(state, which, idle), committed=offset),
            )
        if self.rules.believes_in_a_failed_commit and generation == member.generation:
            idle = idle._replace(known=offset)
        yield (
            f"the commit of {offset} by {name(which)} fails",
            state._replace(members=put(state, which, idle)),
        )

    def _goes(self, state: State, which: int) -> Iterator[tuple[str, State]]:
        member = state.members[which]
        gone = Member(sent=member.sent)
        if state.owner != which or member.generation != state.generation:
            yield (
                f"{name(which)} hears that it has lost the partition",
                state._replace(members=put(state, which, gone)),
            )
            return
        # Thrown out, and it does not know.
        yield f"{name(which)} is thrown out", state._replace(owner=None)
        # Nothing of a dead process remains, but what is on its way may arrive.
        yield (
            f"{name(which)} crashes",
            state._replace(members=put(state, which, gone), owner=None),
        )
        # An orderly hand-over has no commit on its way, and makes a last one.
        if member.sent is None or self.rules.gives_up_before_the_answer:
            yield (
                f"{name(which)} gives the partition up without a commit",
                state._replace(members=put(state, which, gone), owner=None),
            )
            last = self.committable(member)
            if self.rules.commits_at_revocation_what_is_in_hand:
                last = member.position
            if last == member.known:
                return  # it believes that there is nothing to commit
            yield (
                f"{name(which)} gives the partition up with a commit of {last}",
                state._replace(members=put(state, which, gone), owner=None, committed=last),
            )


def name(which: int) -> str:
    """Of a member."""
    return "AB"[which]


def put(state: State, which: int, member: Member) -> tuple[Member, Member]:
    """Both members, with one of them changed."""
    return (member, state.members[1]) if which == 0 else (state.members[0], member)
