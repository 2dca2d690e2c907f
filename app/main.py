"""How does the server hang together? `create_app()`: its routers, error pages and middleware. Nothing else."""

from fastapi import Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from sqlalchemy import text
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware

from app.api.application import create_api
from app.config import resource
from app.errors import PrefloopError
from app.web import account, admin, desk, languages, my_data, my_labels, pages, projects, sign_in
from app.web.assets import Assets
from app.web.body_limit import BodyLimit
from app.web.headers import SecurityHeaders
from app.web.languages import Languages, speak_to
from app.web.session import Database, forbid_forgery

ROUTERS = (
    sign_in.router,
    languages.router,
    account.router,
    my_data.router,
    projects.router,
    desk.router,
    my_labels.router,
    admin.router,
)


def create_app() -> FastAPI:
    """The server's application."""
    app = FastAPI(title="prefloop", docs_url=None, redoc_url=None, openapi_url=None)
    for router in ROUTERS:
        app.include_router(router, dependencies=[Depends(speak_to), Depends(forbid_forgery)])
    app.add_api_route("/healthz", healthy, include_in_schema=False)
    # Only static files are compressed: a compressed page could give its form token away (the BREACH attack).
    app.mount("/static", GZipMiddleware(Assets(directory=resource("static")), minimum_size=500), name="static")
    app.mount("/api/v1", create_api(), name="api")
    app.add_exception_handler(PrefloopError, pages.refused)
    app.add_exception_handler(RequestValidationError, pages.malformed)
    app.add_exception_handler(HTTPException, pages.not_served)
    app.add_exception_handler(Exception, pages.failed)
    app.add_middleware(BodyLimit)
    app.add_middleware(Languages)
    app.add_middleware(SecurityHeaders)
    return app


def healthy(session: Database) -> PlainTextResponse:
    """Whether this server reaches its database."""
    session.execute(text("SELECT 1"))
    return PlainTextResponse("ok")
