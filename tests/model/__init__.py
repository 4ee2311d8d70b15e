"""The rules of account, commit and hand-over as a small machine, searched to its last state."""
