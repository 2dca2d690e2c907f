"""How does the process of one step begin? `python -m worker.step RUN ATTEMPT`: it never outlives the worker."""

import os
import sys

from app import children

_ABANDONED = 3


def main() -> None:
    """Watch over the parent first, since reading torch takes seconds; then execute the attempt."""
    children.when_parent_ends(lambda: os._exit(_ABANDONED))
    from worker.execution import execute

    execute(int(sys.argv[1]), int(sys.argv[2]))


if __name__ == "__main__":
    main()
