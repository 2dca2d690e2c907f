"""Which settings does this process run with? Read once, from the environment."""

from functools import cache
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

_PACKAGE = Path(__file__).parent


class Settings(BaseSettings):
    """Every setting, by its environment variable. `docs/settings.md` lists the same, held by a test."""

    model_config = SettingsConfigDict(env_prefix="PREFLOOP_", populate_by_name=True)

    database_url: str | None = Field(
        default=None,
        validation_alias="DATABASE_URL",
        description="Postgres to use: postgresql://user:password@host/name. Unset: an embedded one in PREFLOOP_HOME.",
    )
    home: Path = Field(
        default=Path(".prefloop"),
        description="Folder for the embedded database, artifacts and the demo's files.",
    )
    artifacts: str | None = Field(
        default=None,
        description="Where weights are kept: a folder or any fsspec URI (s3://bucket/path). Unset: HOME/artifacts.",
    )
    base_url: str = Field(
        default="http://127.0.0.1:8000",
        description="The address people reach the server at; links in invites begin with it.",
    )
    secure_cookies: bool = Field(
        default=False,
        description="Send session cookies over HTTPS only. Turn on behind TLS.",
    )
    session_days: int = Field(default=14, ge=1, description="Days until a sign-in must be renewed.")
    max_upload_mb: int = Field(default=100, ge=1, description="Largest upload that an import accepts, in MB.")
    device: str = Field(default="auto", description="Where the worker learns: auto, cpu, cuda or cuda:N.")
    heartbeat_seconds: float = Field(
        default=5.0,
        ge=1,
        le=60,
        description="Seconds between a worker's signs of life. Its work is begun anew when three of them are missing.",
    )
    threads: int | None = Field(default=None, ge=1, description="CPU threads for learning. Unset: torch decides.")

    @property
    def artifacts_uri(self) -> str:
        """The URI below which every weight lies."""
        return self.artifacts or str((self.home / "artifacts").resolve())


@cache
def settings() -> Settings:
    """The settings of this process."""
    return Settings()


def resource(name: str) -> Path:
    """The folder `templates`, `static` or `migrations`: inside the installed package, or beside it in a checkout."""
    installed = _PACKAGE / "resources" / name
    return installed if installed.exists() else _PACKAGE.parent / name
