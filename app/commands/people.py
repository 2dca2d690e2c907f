"""How do people and tokens come in without a page? From a shell on the server's machine."""

import click
from sqlalchemy.orm import Session

from app.config import settings
from app.database import transaction
from app.domain import people, sign_in
from app.errors import NotFound
from app.tables import Person, Role


@click.group()
def user() -> None:
    """Create, list, invite and erase people, set passwords, make sign-in links."""


@user.command(
    "create",
    epilog="""\b
Examples:
  prefloop user create ada@example.org --name "Ada" --owner
""",
)
@click.argument("email")
@click.option("--name", help="As others see it; left out: what stands before the @.")
@click.option("--owner", is_flag=True, help="May create projects and administers all of them.")
def create_user(email: str, name: str | None, owner: bool) -> None:
    """Create a person and print a one-time link to sign in with."""
    with transaction() as session:
        person = people.create_person(
            session, email=email, name=name or email.split("@", maxsplit=1)[0], is_owner=owner
        )
        click.echo(f"Created {person.email}. Sign in once, within the hour:\n  {_link(session, person)}")


@user.command(
    "list",
    epilog="""\b
Examples:
  prefloop user list
""",
)
def list_users() -> None:
    """List everybody."""
    with transaction() as session:
        for person in people.list_people(session):
            click.echo(f"{person.email}\t{person.name}\t{'owner' if person.is_owner else ''}".rstrip())


@user.command(
    "set-password",
    epilog="""\b
Examples:
  prefloop user set-password ada@example.org
""",
)
@click.argument("email")
@click.password_option(help="Asked for where it is left out.")
def set_password(email: str, password: str) -> None:
    """Give a person a new password; their open sessions end."""
    with transaction() as session:
        people.set_password(session, _person(session, email), password)
    click.echo("The password is set.")


@user.command(
    "link",
    epilog="""\b
Examples:
  prefloop user link ada@example.org
""",
)
@click.argument("email")
def link(email: str) -> None:
    """Print a one-time link that signs a person in."""
    with transaction() as session:
        click.echo(_link(session, _person(session, email)))


@user.command(
    "invite",
    epilog="""\b
Examples:
  prefloop user invite ada@example.org
""",
)
@click.argument("email")
def invite_owner(email: str) -> None:
    """Print an invite link that makes one person an owner, in the name of the owner EMAIL."""
    with transaction() as session:
        owner = _person(session, email)
        _, secret = people.create_invite(session, project_id=None, role=Role.ADMIN, created_by=owner)
    click.echo(f"{settings().base_url}/invites/{secret}")


@user.command(
    "erase",
    epilog="""\b
Examples:
  prefloop user erase ada@example.org
""",
)
@click.argument("email")
@click.confirmation_option(prompt="Erase this person for good? Their labels stay, under a pseudonym.")
def erase(email: str) -> None:
    """Empty a person's row for good and end every access of theirs."""
    with transaction() as session:
        people.erase_person(session, _person(session, email), by=None)
    click.echo("The person is erased.")


@click.group()
def token() -> None:
    """Create, list and revoke tokens for the REST interface."""


@token.command(
    "create",
    epilog="""\b
Examples:
  prefloop token create ada@example.org --name notebook
""",
)
@click.argument("email")
@click.option("--name", default="command line", show_default=True, help="To tell it from others.")
def create_token(email: str, name: str) -> None:
    """Print a new token of a person; it is shown this once."""
    with transaction() as session:
        _, secret = sign_in.create_token(session, _person(session, email), name)
    click.echo(secret)


@token.command(
    "list",
    epilog="""\b
Examples:
  prefloop token list ada@example.org
""",
)
@click.argument("email")
def list_tokens(email: str) -> None:
    """List a person's tokens: number, first characters, name, last use."""
    with transaction() as session:
        for row in sign_in.list_tokens(session, _person(session, email)):
            used = f"{row.last_used_at:%Y-%m-%d %H:%M}" if row.last_used_at else "never used"
            click.echo(f"{row.id}\t{row.prefix}\t{row.name}\t{used}")


@token.command(
    "revoke",
    epilog="""\b
Examples:
  prefloop token revoke ada@example.org 3
""",
)
@click.argument("email")
@click.argument("number", type=int)
def revoke_token(email: str, number: int) -> None:
    """Revoke a person's token by the number that `list` shows."""
    with transaction() as session:
        sign_in.revoke_token(session, number, _person(session, email))
    click.echo("The token is revoked.")


def _person(session: Session, email: str) -> Person:
    person = people.find_person(session, email)
    if person is None:
        raise NotFound(f"There is nobody with the address {email}: see `prefloop user list`.")
    return person


def _link(session: Session, person: Person) -> str:
    return f"{settings().base_url}/link/{sign_in.create_sign_in_link(session, person)}"
