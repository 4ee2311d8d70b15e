"""Ways to read a topic to its end; each runs alone in a process of its own.

``python -m benchmarks.contenders NAME BOOTSTRAP TOPIC COUNT`` reads so many
messages and prints one JSON object: seconds of wall clock and of CPU between the
first message and the last.  Start, join and stop are left out: they cost the
same few seconds however long the topic is.
"""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import msgspec
import trio

from trio_consumer import Consumer, open_consumer

TUNED: dict[str, Any] = {"max_poll_records": 2000, "metrics_enabled": False}
"""The options that the library gives kafka-python by default."""

FASTEST: dict[str, Any] = {
    "fetch.queue.backoff.ms": 0,
    "queued.min.messages": 1_000_000,
    "fetch.message.max.bytes": 4_000_000,
}
"""librdkafka with its delays between fetches taken away, which is the best for a bare loop.
Under this library its queue is full at times, and then a thread of it would spin."""


class Result(msgspec.Struct):
    """What one contender took for all messages.

    Attributes:
        count: Messages read.
        seconds: Wall clock from the first message to the last.
        cpu: Seconds of CPU of the whole process in that time.
    """

    count: int
    seconds: float
    cpu: float


class Watch:
    """Starts with the first message, ends after so many."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._began: tuple[float, float] | None = None

    def start(self) -> None:
        """Begin, if it has not begun."""
        if self._began is None:
            self._began = (time.perf_counter(), time.process_time())

    def stop(self) -> Result:
        """What it took since."""
        assert self._began is not None  # there was a first message
        wall, cpu = self._began
        return Result(self.count, time.perf_counter() - wall, time.process_time() - cpu)


def _group() -> str:
    return f"bench-{os.getpid()}-{time.time_ns()}"


def _poll_loop(bootstrap: str, topic: str, count: int, **options: Any) -> Result:
    from kafka import KafkaConsumer

    client = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=_group(),
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        **options,
    )
    client.subscribe([topic])
    watch = Watch(count)
    seen = 0
    try:
        while seen < count:
            for records in client.poll(timeout_ms=500).values():
                watch.start()
                for _ in records:
                    seen += 1
        return watch.stop()
    finally:
        client.close()


def poll_loop(bootstrap: str, topic: str, count: int) -> Result:
    """kafka-python: poll in a loop, look at each record; with the library's options."""
    return _poll_loop(bootstrap, topic, count, **TUNED)


def poll_loop_default(bootstrap: str, topic: str, count: int) -> Result:
    """kafka-python: the same with the client's own defaults."""
    return _poll_loop(bootstrap, topic, count)


Body = Callable[[Consumer, str, int, Watch], Awaitable[None]]


def _ours(
    bootstrap: str, topic: str, count: int, body: Body, scheme: str = "kafka", **options: Any
) -> Result:
    async def main() -> Result:
        watch = Watch(count)
        async with open_consumer(
            f"{scheme}://{bootstrap}", group=_group(), client_options=options
        ) as consumer:
            await body(consumer, topic, count, watch)
            return watch.stop()

    return trio.run(main)


async def _automatic(consumer: Consumer, topic: str, count: int, watch: Watch) -> None:
    seen = 0
    async with consumer.stream(topic) as stream:
        async for _ in stream:
            if not seen:
                watch.start()
            seen += 1
            if seen == count:
                break


async def _batches(consumer: Consumer, topic: str, count: int, watch: Watch) -> None:
    seen = 0
    async with consumer.stream(topic) as stream:
        async for batch in stream.batches(2000):
            watch.start()
            for _ in batch:
                seen += 1
            if seen >= count:
                break


def automatic(bootstrap: str, topic: str, count: int) -> Result:
    """trio_consumer: ``async for``, each message finished when the loop comes back."""
    return _ours(bootstrap, topic, count, _automatic)


def automatic_confluent(bootstrap: str, topic: str, count: int) -> Result:
    """trio_consumer over confluent-kafka: the same, with the library's own options."""
    return _ours(bootstrap, topic, count, _automatic, "confluent")


def _ours_on_asyncio(bootstrap: str, topic: str, count: int, body: Body) -> Result:
    from trio_consumer.anyio import open_consumer as open_with_anyio

    async def main() -> Result:
        watch = Watch(count)
        async with open_with_anyio(f"kafka://{bootstrap}", group=_group()) as consumer:
            await body(consumer, topic, count, watch)
            return watch.stop()

    return asyncio.run(main())


def automatic_asyncio(bootstrap: str, topic: str, count: int) -> Result:
    """trio_consumer.anyio on asyncio: ``async for``, automatic acknowledgements."""
    return _ours_on_asyncio(bootstrap, topic, count, _automatic)


def batches_asyncio(bootstrap: str, topic: str, count: int) -> Result:
    """trio_consumer.anyio on asyncio: ``stream.batches(2000)``."""
    return _ours_on_asyncio(bootstrap, topic, count, _batches)


def manual(bootstrap: str, topic: str, count: int) -> Result:
    """trio_consumer: ``async for``, each message finished by ``message.ack()``."""

    async def body(consumer: Consumer, topic: str, count: int, watch: Watch) -> None:
        seen = 0
        async with consumer.stream(topic, ack="manual") as stream:
            async for message in stream:
                if not seen:
                    watch.start()
                seen += 1
                message.ack()
                if seen == count:
                    break

    return _ours(bootstrap, topic, count, body)


def one_slow_partition(bootstrap: str, topic: str, count: int) -> Result:
    """trio_consumer: manual acks; those of partition 0 come when all others have been."""

    async def body(consumer: Consumer, topic: str, count: int, watch: Watch) -> None:
        seen, held = 0, []
        async with consumer.stream(topic, ack="manual") as stream:
            async for message in stream:
                if not seen:
                    watch.start()
                seen += 1
                if message.partition:
                    message.ack()
                else:
                    held.append(message)
                if seen == count:
                    break
            for message in held:
                message.ack()

    return _ours(bootstrap, topic, count, body)


def batches(bootstrap: str, topic: str, count: int) -> Result:
    """trio_consumer: ``async for batch in stream.batches(2000)``, each record looked at."""
    return _ours(bootstrap, topic, count, _batches)


def batches_confluent(bootstrap: str, topic: str, count: int) -> Result:
    """trio_consumer over confluent-kafka: the same, with the library's own options."""
    return _ours(bootstrap, topic, count, _batches, "confluent")


def _aiokafka(
    bootstrap: str, topic: str, read: Callable[[Any, Watch], Awaitable[None]], watch: Watch
) -> Result:
    async def main() -> Result:
        from aiokafka import AIOKafkaConsumer

        client = AIOKafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id=_group(),
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        await client.start()
        try:
            await read(client, watch)
            return watch.stop()
        finally:
            await client.stop()

    return asyncio.run(main())


def aiokafka_getmany(bootstrap: str, topic: str, count: int) -> Result:
    """aiokafka: ``getmany`` in a loop, no acknowledgements."""

    async def read(client: Any, watch: Watch) -> None:
        seen = 0
        while seen < watch.count:
            for records in (await client.getmany(timeout_ms=500)).values():
                watch.start()
                for _ in records:
                    seen += 1

    return _aiokafka(bootstrap, topic, read, Watch(count))


def aiokafka_for(bootstrap: str, topic: str, count: int) -> Result:
    """aiokafka: ``async for``, no acknowledgements."""

    async def read(client: Any, watch: Watch) -> None:
        seen = 0
        async for _ in client:
            if not seen:
                watch.start()
            seen += 1
            if seen == watch.count:
                break

    return _aiokafka(bootstrap, topic, read, Watch(count))


def confluent(bootstrap: str, topic: str, count: int) -> Result:
    """confluent-kafka: ``consume(500)`` in a loop, tuned for throughput, no acknowledgements."""
    from confluent_kafka import Consumer as Client

    client = Client(
        {
            "bootstrap.servers": bootstrap,
            "group.id": _group(),
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **FASTEST,
        }
    )
    client.subscribe([topic])
    watch = Watch(count)
    seen = 0
    try:
        while seen < count:
            for _ in client.consume(500, timeout=0.5):
                watch.start()
                seen += 1
        return watch.stop()
    finally:
        client.close()


def confluent_asyncio(bootstrap: str, topic: str, count: int) -> Result:
    """confluent-kafka's AIOConsumer: ``consume(500)``, tuned as above, no acknowledgements."""
    from confluent_kafka.aio import AIOConsumer

    async def main() -> Result:
        client = AIOConsumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": _group(),
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                **FASTEST,
            }
        )
        await client.subscribe([topic])
        watch = Watch(count)
        seen = 0
        try:
            while seen < count:
                for _ in await client.consume(500, timeout=0.5):
                    watch.start()
                    seen += 1
            return watch.stop()
        finally:
            await client.close()

    return asyncio.run(main())


def faust(bootstrap: str, topic: str, count: int) -> Result:
    """faust-streaming: one agent that looks at each message; acknowledges by itself."""
    from faust import App, Worker

    data = tempfile.mkdtemp(prefix="bench-faust-")
    app = App(
        _group(),
        broker=f"kafka://{bootstrap}",
        datadir=data,
        web_enabled=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
        key_serializer="raw",
        value_serializer="raw",
    )
    watch = Watch(count)

    @app.agent(app.topic(topic, value_type=bytes))  # type: ignore[untyped-decorator]
    async def agent(stream: Any) -> None:
        seen = 0
        async for _ in stream:
            if not seen:
                watch.start()
            seen += 1
            if seen == count:
                report(watch.stop())
                shutil.rmtree(data, ignore_errors=True)
                os._exit(0)  # a worker takes seconds to stop, and has nothing more to say

    Worker(app, loglevel="ERROR", redirect_stdouts=False).execute_from_commandline()
    raise RuntimeError("the worker ended before the topic did")


def java(bootstrap: str, topic: str, count: int) -> Result:
    """Apache Kafka's own ConsumerPerformance; seconds are those it spent in fetching."""
    from tests.kafka import java_tool

    output = java_tool(
        "org.apache.kafka.tools.ConsumerPerformance",
        *("--bootstrap-server", bootstrap, "--topic", topic, "--group", _group()),
        *("--messages", str(count), "--timeout", "60000"),
    )
    table = [line for line in output.splitlines() if line.count(",") > 5]
    heads, values = ([cell.strip() for cell in line.split(",")] for line in table)
    found = dict(zip(heads, values, strict=True))
    seconds = float(found["fetch.time.ms"]) / 1000
    return Result(int(found["data.consumed.in.nMsg"]), seconds, 0.0)


def _streams(number: int) -> Run:
    """So many streams over kafka-python, each of them reads everything."""

    def run(bootstrap: str, topic: str, count: int) -> Result:
        async def body(consumer: Consumer, topic: str, count: int, watch: Watch) -> None:
            async def read(stream: Any) -> None:
                seen = 0
                async for _ in stream:
                    if not seen:
                        watch.start()
                    seen += 1
                    if seen == count:
                        break

            async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
                for _ in range(number):
                    stream = await stack.enter_async_context(consumer.stream(topic))
                    nursery.start_soon(read, stream)

        return _ours(bootstrap, topic, count, body)

    return run


Run = Callable[[str, str, int], Result]


class Contender(NamedTuple):
    """One way to read a topic.

    Attributes:
        run: Reads so many messages.
        part: The part of the topic that it reads, if all of it would take minutes.
    """

    run: Run
    part: float = 1.0

    def share(self, count: int) -> int:
        """How many messages it reads out of so many."""
        return max(1, int(count * self.part))


CONTENDERS: dict[str, Contender] = {
    "kafka-python poll loop": Contender(poll_loop),
    "kafka-python poll loop, its defaults": Contender(poll_loop_default),
    "trio_consumer async for, auto": Contender(automatic),
    "trio_consumer async for, manual": Contender(manual),
    "trio_consumer batches": Contender(batches),
    "trio_consumer two streams": Contender(_streams(2)),
    "trio_consumer four streams": Contender(_streams(4)),
    "trio_consumer eight streams": Contender(_streams(8)),
    "trio_consumer sixteen streams": Contender(_streams(16)),
    "trio_consumer one slow partition": Contender(one_slow_partition),
    "trio_consumer on asyncio, async for": Contender(automatic_asyncio),
    "trio_consumer on asyncio, batches": Contender(batches_asyncio),
    "trio_consumer over confluent, async for": Contender(automatic_confluent),
    "trio_consumer over confluent, batches": Contender(batches_confluent),
    "aiokafka getmany": Contender(aiokafka_getmany),
    "aiokafka async for": Contender(aiokafka_for),
    "confluent-kafka consume, tuned": Contender(confluent),
    "confluent-kafka AIOConsumer, tuned": Contender(confluent_asyncio),
    "faust-streaming agent": Contender(faust, part=0.1),
    "Java ConsumerPerformance": Contender(java),
}


def report(result: Result) -> None:
    """Say it to whoever started this process."""
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the contender that the command line names."""
    name, bootstrap, topic, count = sys.argv[1:]
    gc.collect()
    report(CONTENDERS[name].run(bootstrap, topic, int(count)))


if __name__ == "__main__":
    main()
