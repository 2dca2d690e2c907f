"""How does one step execute? `python -m worker.step RUN ATTEMPT`, a child of the worker that never outlives it."""

import logging
import os
import sys

from sqlalchemy.exc import InterfaceError, OperationalError

from app import children
from app.config import settings
from app.database import transaction
from app.domain import rounds
from app.errors import PrefloopError, StaleAttempt
from app.tables import Run

logger = logging.getLogger(__name__)

_ABANDONED = 3


def main(run_id: int, number: int) -> None:
    """Execute one attempt of a run. What goes wrong becomes a message in the run's row."""
    children.when_parent_ends(lambda: os._exit(_ABANDONED))
    try:
        _execute(run_id, number)
    except StaleAttempt as error:
        logger.warning("%s", error)
    except Exception as error:
        logger.exception("attempt %s of run %s broke off", number, run_id)
        try:
            with transaction() as session:
                rounds.fail_step(session, run_id, number, _in_words(error), may_pass=_may_pass(error))
        except StaleAttempt as stale:
            logger.warning("%s", stale)


def _execute(run_id: int, number: int) -> None:
    # Imported here, so that the watch over the parent stands before torch is read.
    import torch

    from worker import artifacts
    from worker.attempt import Attempt
    from worker.learning.models import pick_device
    from worker.steps import STEPS

    if (threads := settings().threads) is not None:
        torch.set_num_threads(threads)
    with transaction() as session:
        run = session.get_one(Run, run_id)
    artifacts.discard_earlier(run, number)
    STEPS[run.step](Attempt(run_id, number, pick_device(settings().device)))


def _may_pass(error: BaseException) -> bool:
    """Whether trying again may help: memory ran out, or a connection broke."""
    import torch

    return isinstance(
        error, MemoryError | torch.OutOfMemoryError | ConnectionError | TimeoutError | OperationalError | InterfaceError
    )


def _in_words(error: BaseException) -> str:
    """A sentence for the run's page: what a rule or a learning function says, else the error's name and text."""
    text = str(error).strip() or type(error).__name__
    return text if isinstance(error, ValueError | PrefloopError) else f"{type(error).__name__}: {text}"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    main(int(sys.argv[1]), int(sys.argv[2]))
