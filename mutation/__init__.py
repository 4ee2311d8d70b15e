"""Mutation testing of the core and of the runtime: docs/mutants.md."""
