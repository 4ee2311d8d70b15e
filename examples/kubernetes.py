"""A consumer that Kubernetes may stop, move and start again at any time.

    KAFKA_URL=kafka://kafka:9092 POD_NAME=billing-0 python -m examples.kubernetes

SIGTERM lets handlers finish what they have in hand, commits, and ends with 0.  GET /live and
GET /ready on HEALTH_PORT tell how it is.  See docs/kubernetes.md.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable

import trio

from trio_consumer import Consumer, Message, Stream, Symptom, TopicPartition, open_consumer

URL = os.environ.get("KAFKA_URL", "kafka://localhost:9092")
POD_NAME = os.environ.get("POD_NAME", "billing-0")
HEALTH_PORT = int(os.environ.get("HEALTH_PORT", "8080"))
WORKERS = 4

# Seconds that handlers have to finish after SIGTERM. With commit_timeout and some for the rest
# it has to be less than terminationGracePeriodSeconds of the pod, which is 60.
GRACE = float(os.environ.get("GRACE", "45"))


async def charge(message: Message) -> None:
    """Stands for the work: a database, another service."""
    await trio.sleep(0.05)
    print("charged", message.partition, message.offset, flush=True)


def tell_assigned(assigned: Iterable[TopicPartition]) -> None:
    """Print what this member has got."""
    print("assigned", *sorted(map(str, assigned)), flush=True)


class Pod:
    """The consumer of one pod, how to stop it, and how it is."""

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.consumer: Consumer | None = None
        self.stopping = False

    # -- work -----------------------------------------------------------------------

    async def run(self) -> None:
        """Consume until a signal comes, or something fails."""
        async with trio.open_nursery() as nursery:
            # Before anything else: as process 1 of a container, without a handler,
            # it would not even notice the signal.
            await nursery.start(self.watch_signals)
            await nursery.start(trio.serve_tcp, self.answer, HEALTH_PORT)
            with self.scope:
                await self.consume()
            nursery.cancel_scope.cancel()

    async def consume(self) -> None:
        """Call the handler with each message, four at a time."""
        async with open_consumer(
            URL,
            group="billing",
            commit_timeout=5.0,
            commit_livelock_soft_timeout=120.0,
            on_partitions_assigned=tell_assigned,
            client_options={
                "group_instance_id": POD_NAME,
                "session_timeout_ms": 45_000,
                "partition_assignment_strategy": "cooperative-sticky",
            },
        ) as consumer:
            self.consumer = consumer
            async with consumer.stream("orders") as orders, trio.open_nursery() as workers:
                for _ in range(WORKERS):
                    workers.start_soon(self.work, orders)

    async def work(self, orders: Stream) -> None:
        """Ends after the message in hand when the consumer is closed."""
        async for message in orders:
            await charge(message)

    # -- the end --------------------------------------------------------------------

    async def watch_signals(self, task_status: trio.TaskStatus[None]) -> None:
        """Begin the stop when the kubelet asks for it, or Ctrl-C does."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                self.stop()

    def stop(self) -> None:
        """No more messages; handlers have GRACE seconds, then they are cancelled."""
        self.stopping = True
        if self.consumer is None:
            self.scope.cancel()  # it is connecting: there is nothing to finish
        else:
            self.consumer.close()
            self.scope.deadline = min(self.scope.deadline, trio.current_time() + GRACE)

    # -- health ---------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Whether it is in its group; a member without partitions is ready, too."""
        consumer = self.consumer
        return consumer is not None and not self.stopping and consumer.statistics().rebalances > 0

    def stuck(self) -> list[str]:
        """Messages that a handler does not finish, and which task has them.

        Nothing that a new start would not cure: a broker that is away is none of it.
        """
        if self.consumer is None:
            return []
        now = trio.current_time()
        return [
            str(livelock)
            for tp in self.consumer.assignment
            for livelock in self.consumer.verify_event_path(now, tp)
            if livelock.symptom is Symptom.NOT_FINISHED
        ]

    async def answer(self, stream: trio.SocketStream) -> None:
        """Answer one probe."""
        with trio.move_on_after(5):
            try:
                line = (await stream.receive_some(4096)).partition(b"\r\n")[0]
                stuck = self.stuck()
                healthy = not stuck if line.startswith(b"GET /live ") else self.is_ready()
                status = "200 OK" if healthy else "503 Service Unavailable"
                body = "\n".join(stuck).encode()
                head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close"
                await stream.send_all(f"{head}\r\n\r\n".encode() + body)
            except trio.BrokenResourceError:
                pass  # who asked has gone


if __name__ == "__main__":
    trio.run(Pod().run)
