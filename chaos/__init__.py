"""Three Kafka nodes, groups of consuming processes, and everything that can happen to them.

``python -m chaos`` runs it, ``nox -s chaos`` installs what it needs; a seed draws the
schedule of faults.  Nothing here is part of the package, and the checker shares no code
with it: it knows what the members wrote into their journals, and what another client
read as the offsets of their groups.
"""
