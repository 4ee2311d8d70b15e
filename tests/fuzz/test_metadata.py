"""Group metadata out of opaque bytes: what was written, or a ValueError, never something else."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from trio_consumer._types import GroupMetadata
from trio_consumer.transports.confluent.internals import MAGIC, read_metadata, serialized_metadata

from .support import fuzzed

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9)
metadata = st.builds(
    GroupMetadata, texts, st.integers(-(2**31), 2**31 - 1), texts, st.none() | texts
)


@fuzzed(500)
@given(metadata)
def test_what_was_written(written: GroupMetadata) -> None:
    """Reading gives it back."""
    assert read_metadata(serialized_metadata(written)) == written


@fuzzed(1000)
@given(st.binary(max_size=40) | st.binary(max_size=40).map(MAGIC.__add__))
@example(b"")
@example(MAGIC)
@example(MAGIC + b"\0\0")
@example(MAGIC + b"\0\0\0\0g\0m\0")
@example(MAGIC + b"\0\0\0\0g\0m\0\0x")
@example(MAGIC + b"\0\0\0\0\xff\0m\0\1")
def test_any_bytes(raw: bytes) -> None:
    """Nothing passes that would be written in another way."""
    try:
        found = read_metadata(raw)
    except ValueError:
        return
    assert serialized_metadata(found) == raw


@fuzzed(500)
@given(metadata, st.data())
def test_cut_off_or_changed(written: GroupMetadata, data: st.DataObject) -> None:
    """A cut is noticed, wherever it is."""
    raw = serialized_metadata(written)
    cut = raw[: data.draw(st.integers(0, len(raw) - 1))]
    assume(cut[-1:] not in (b"\1", b"\0") or len(cut) < len(MAGIC) + 6)
    with pytest.raises(ValueError, match=r"group metadata|unpack|decode|codec"):
        read_metadata(cut)
