"""What the library costs, always beside the bare client in the same run.

Each script states its question in its docstring and runs alone, for example
``python -m benchmarks.throughput``; ``nox -s bench`` installs what they need.
A broker comes from the tests' own harness unless ``--bootstrap`` names one.
"""
