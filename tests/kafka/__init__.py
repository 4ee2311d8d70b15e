"""A real Apache Kafka for tests and benchmarks: installed by Maven, run on loopback.

`Cluster` is the way in; `python -m tests.kafka` runs one by hand. Java 17 or later and Maven are
needed.
"""

from .cluster import Cluster as Cluster
from .install import KafkaUnavailable as KafkaUnavailable
from .install import install as install
from .install import java_tool as java_tool
from .nodes import ClusterError as ClusterError
from .nodes import NodeState as NodeState
from .produce import number_of as number_of
from .produce import produce_numbered as produce_numbered
