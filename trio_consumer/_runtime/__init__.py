"""The Trio tasks of a consumer: they act on what ``_core`` decides.

One task owns one concern: the fetcher polls, the conductor fans out, the
committer commits, the rebalancer answers the group.  They share the
:class:`~trio_consumer._runtime.partitions.Partitions`.
"""
