"""A broker that speaks TLS only and asks for a password (SCRAM-SHA-512)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from kafka import KafkaAdminClient
from kafka.admin import ScramMechanism, UserScramCredentialUpsertion

from trio_consumer import AuthenticationError, Message, open_consumer

from ..cli.support import assert_one_line, call
from ..kafka.cluster import Cluster
from ..kafka.produce import produce_numbered
from ..kafka.properties import HOST

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
USER, PASSWORD = "bob", "bob-secret"

_serial = itertools.count(1)


@dataclass(frozen=True)
class Secured:
    """A cluster whose listener ``SASL`` is behind TLS, and who signed its certificate."""

    cluster: Cluster
    authority: Path
    stranger: Path
    """Another authority, that has signed nothing here."""

    @property
    def address(self) -> str:
        return self.cluster.sasl_bootstrap


def server_keys(authority: trustme.CA, path: Path) -> Path:
    """Write a node's key and certificate as Kafka reads them: the key in PKCS #8."""
    issued = authority.issue_cert(HOST)
    key = load_pem_private_key(issued.private_key_pem.bytes(), password=None)
    chain = [blob.bytes() for blob in issued.cert_chain_pems]
    parts = [key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), *chain]
    path.write_bytes(b"".join(parts))
    return path


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A broker with a certificate made for the occasion, and one user."""
    folder = tmp_path_factory.mktemp("keys")
    authority, stranger = trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    stranger.cert_pem.write_to_path(str(folder / "stranger.pem"))
    properties = {
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL",
        "listener.name.sasl.ssl.keystore.type": "PEM",
        "listener.name.sasl.ssl.keystore.location": str(
            server_keys(authority, folder / "server.pem")
        ),
        "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.sasl.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
    }
    with Cluster(nodes=1, properties=properties) as cluster:
        admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
        try:
            admin.alter_user_scram_credentials(
                [UserScramCredentialUpsertion(USER, ScramMechanism.SCRAM_SHA_512, PASSWORD)]
            )
        finally:
            admin.close()
        yield Secured(cluster, folder / "authority.pem", folder / "stranger.pem")


def client_options(scheme: str, authority: Path, password: str) -> dict[str, Any]:
    """What docs/security.md tells: the options of the client, under its own names."""
    from examples.secured import confluent_options, kafka_options

    options = kafka_options if scheme == "kafka" else confluent_options
    return options(str(authority), USER, password)


async def consume(
    scheme: str, secured: Secured, topic: str, count: int, password: str, authority: Path
) -> list[Message]:
    messages: list[Message] = []
    with trio.fail_after(60):
        async with (
            open_consumer(
                f"{scheme}://{secured.address}",
                group=f"secured-{next(_serial)}",
                connect_timeout=5.0,
                client_options=client_options(scheme, authority, password),
            ) as consumer,
            consumer.stream(topic) as stream,
        ):
            async for message in stream:
                messages.append(message)
                if len(messages) == count:
                    break
    return messages


def topic_of(secured: Secured, count: int) -> str:
    name = f"secured-{next(_serial)}"
    secured.cluster.create_topic(name, 2)
    produce_numbered(secured.cluster.bootstrap, name, count, 2)
    return name


@pytest.mark.parametrize("scheme", ["kafka", "confluent"])
def test_consumes_through_tls_with_a_password(secured: Secured, scheme: str) -> None:
    """Records of a fetch that takes many TLS records arrive whole."""
    name = topic_of(secured, 20_000)
    messages = trio.run(consume, scheme, secured, name, 20_000, PASSWORD, secured.authority)
    assert len({(message.partition, message.offset) for message in messages}) == 20_000


@pytest.mark.parametrize("scheme", ["kafka", "confluent"])
@pytest.mark.parametrize("trouble", ["password", "certificate"])
def test_refusal_says_which_side_refused_what(secured: Secured, scheme: str, trouble: str) -> None:
    """A wrong password and a certificate of a stranger are errors that name themselves."""
    name = topic_of(secured, 1)
    password = "wrong" if trouble == "password" else PASSWORD
    authority = secured.stranger if trouble == "certificate" else secured.authority
    words = r"(?i)authentication" if trouble == "password" else r"(?i)certificate"
    with pytest.raises(AuthenticationError, match=words) as caught:
        trio.run(consume, scheme, secured, name, 1, password, authority)
    assert "\n" not in str(caught.value)
    # What the page tells of it.
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    told = re.findall(r"\| `(.+)` \|$", page, re.MULTILINE)
    assert any(each in str(caught.value) for each in told), str(caught.value)


@pytest.mark.parametrize("scheme", ["kafka", "confluent"])
def test_program_of_the_page_prints_what_it_reads(
    secured: Secured,
    scheme: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With the password out of the environment."""
    from examples import secured as program

    name = topic_of(secured, 10)
    source = (
        Path(program.__file__).read_text("utf-8").replace('stream("orders")', f'stream("{name}")')
    )
    names: dict[str, Any] = {"__name__": "secured"}
    exec(compile(source, program.__file__, "exec"), names)
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)
    printed = ""

    async def main() -> None:
        nonlocal printed
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                url = f"{scheme}://{secured.address}"
                nursery.start_soon(names["main"], url, str(secured.authority), USER)
                while printed.count("\n") < 10:
                    await trio.sleep(0.05)
                    printed += capsys.readouterr().out
                nursery.cancel_scope.cancel()

    trio.run(main)
    assert printed.count("\n") == 10


def test_transaction_goes_through_tls(secured: Secured) -> None:
    """The producer of a transaction is secured as the consumer is."""
    name, copy = topic_of(secured, 500), f"copy-{next(_serial)}"
    secured.cluster.create_topic(copy, 2)
    options = client_options("kafka", secured.authority, PASSWORD)

    async def main() -> None:
        done = 0
        with trio.fail_after(60):
            async with (
                open_consumer(
                    f"kafka://{secured.address}",
                    group=f"secured-{next(_serial)}",
                    transactional_id=f"secured-{next(_serial)}",
                    client_options=options,
                ) as consumer,
                consumer.stream(name, ack="manual") as stream,
            ):
                async for batch in stream.batches(max_size=100):
                    async with consumer.transaction() as transaction:
                        for message in batch:
                            await transaction.send(copy, message.value)
                            message.ack()
                    done += len(batch)
                    if done == 500:
                        break

    trio.run(main)
    assert sum(secured.cluster.end_offsets(copy).values()) >= 500


@pytest.mark.parametrize("scheme", ["kafka", "confluent"])
@pytest.mark.parametrize("password", [PASSWORD, "wrong-hush"])
def test_command_line_asks_with_a_password(secured: Secured, scheme: str, password: str) -> None:
    """The options of ``run`` are those of ``lag``; a wrong password is one line without it."""
    name, group = topic_of(secured, 10), f"secured-{next(_serial)}"
    secured.cluster.commit_for(group, name, 0, 2)
    options = client_options(scheme, secured.authority, password)
    result = call(
        *("lag", "--group", group, "--url", f"{scheme}://{secured.address}", "--timeout", "600"),
        *(part for option in options.items() for part in ("-o", "=".join(option))),
    )
    if password == PASSWORD:
        assert result.exit_code == 0, result.output
        assert f"{group}: Empty, 0 members; lag 3 over 1 partition" in result.stdout
    else:
        assert_one_line(result, 1, r".* refused the connection: (?i:.*authentication).*check")
        assert password not in result.output
