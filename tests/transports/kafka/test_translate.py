"""The client's errors in our words; without a broker."""

from __future__ import annotations

import pytest
from kafka import errors

from trio_consumer import ConfigurationError
from trio_consumer.transports.kafka.translate import poll_error


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (
            errors.InvalidSessionTimeoutError(),
            r"choose one between its group\.min\.session\.timeout",
        ),
        (
            errors.InconsistentGroupProtocolError(),
            r"give all of them the same, or choose another g",
        ),
    ],
)
def test_refused_join_says_what_to_do(error: Exception, match: str) -> None:
    """It is the options that have to be mended."""
    with pytest.raises(ConfigurationError, match=rf"^cannot read: .*{match}"):
        raise poll_error(error, None)
