"""What does a worker print? One line an event, without procrastinate's line for every job."""

import logging


def begin_logging() -> None:
    """Print to standard error from now on."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("procrastinate").setLevel(logging.WARNING)
