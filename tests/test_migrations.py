"""Do the migrations lead to the tables that the code names, and back without losing what was there before?"""

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.orm import Session, sessionmaker

from app.domain import consent, drafts, queue
from app.tables import Assignment, ProjectVersion
from tests.admin_project import make_comparisons
from tests.conftest import ROOT
from tests.whole_answers import make_whole_answers

KEPT = ("people", "projects", "prompts", "responses", "comparisons", "labels", "label_revisions", "label_ranks")


def configured(connection: Connection) -> Config:
    configuration = Config(ROOT / "alembic.ini")
    configuration.set_main_option("script_location", str(ROOT / "migrations"))
    configuration.attributes["connection"] = connection
    return configuration


def rows(connection: Connection) -> dict[str, int]:
    return {table: connection.scalars(text(f"SELECT count(*) FROM {table}")).one() for table in KEPT}


def fill(session: Session) -> None:
    """Labels with corrections and flags, a draft, and guidelines that were read."""
    place = make_whole_answers(session)
    make_comparisons(session, place.project, 1)
    assignment = queue.next_assignment(session, place.project.id, place.annotator_member.id)
    assert isinstance(assignment, Assignment)
    drafts.save(session, assignment, fields=[["rationale", "Half"]], seconds=1, sequence=1, revision=0)
    version = session.get_one(ProjectVersion, assignment.project_version_id)
    consent.read(session, place.annotator_member.id, version)


def test_a_filled_database_goes_down_and_up_again(database_url: str, committed: sessionmaker[Session]) -> None:
    with committed.begin() as session:
        fill(session)
    engine = create_engine(database_url)
    with engine.connect() as connection:
        before = rows(connection)
        assert all(before.values())
        command.downgrade(configured(connection), "0003")
        connection.commit()
    with engine.connect() as connection:
        assert rows(connection) == before
        command.upgrade(configured(connection), "head")
        connection.commit()
    with engine.connect() as connection:
        assert rows(connection) == before
        command.check(configured(connection))  # raises where the tables of the code are others
    engine.dispose()
