"""``python -m trio_consumer`` is the command ``trio-consumer``."""

from .cli import main

if __name__ == "__main__":
    main(prog_name="python -m trio_consumer")
