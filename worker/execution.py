"""What becomes of an attempt? Its step is executed, and what goes wrong becomes a message in the run's row."""

import logging

import torch
from sqlalchemy import select
from sqlalchemy.exc import InterfaceError, OperationalError
from transformers.utils import logging as transformers_logging

from app.config import settings
from app.database import transaction
from app.domain import rounds
from app.errors import PrefloopError, StaleAttempt
from app.tables import Run, RunState
from worker import artifacts
from worker.attempt import Attempt
from worker.learning.models import pick_device
from worker.log import begin_logging
from worker.steps import STEPS

logger = logging.getLogger(__name__)

_MAY_PASS = (MemoryError, torch.OutOfMemoryError, ConnectionError, TimeoutError, OperationalError, InterfaceError)
"""Errors after which trying again may help: memory ran out, or a connection broke."""


def execute(run_id: int, number: int) -> None:
    """Execute one attempt of a run in this process."""
    begin_logging()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        _execute(run_id, number)
    except StaleAttempt as error:
        logger.warning("%s", error)
    except Exception as error:
        logger.exception("attempt %s of run %s broke off", number, run_id)
        _fail(run_id, number, error)


def _execute(run_id: int, number: int) -> None:
    if (threads := settings().threads) is not None:
        torch.set_num_threads(threads)
    with transaction() as session:
        run = session.get_one(Run, run_id)
        is_over = Run.id.in_(artifacts.runs_with_states()), Run.state.not_in({RunState.WAITING, RunState.RUNNING})
        over = session.scalars(select(Run.id).where(*is_over)).all()
    for ended in over:
        artifacts.discard_states(ended)
    artifacts.discard_earlier(run, number)
    STEPS[run.step](Attempt(run_id, number, pick_device(settings().device)))


def _fail(run_id: int, number: int, error: Exception) -> None:
    try:
        with transaction() as session:
            rounds.fail_step(session, run_id, number, _in_words(error), may_pass=isinstance(error, _MAY_PASS))
    except StaleAttempt as stale:
        logger.warning("%s", stale)


def _in_words(error: Exception) -> str:
    """A sentence for the run's page: what a rule or a learning function says, else the error's name and text."""
    text = str(error).strip() or type(error).__name__
    return text if isinstance(error, ValueError | PrefloopError) else f"{type(error).__name__}: {text}"
