"""Who changed what? The audit trail of a project, newest first."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.domain import audit
from app.web.admin_page import PAGE_ROWS, admin_page, listing
from app.web.numbers import Id
from app.web.session import Database, ProjectAdmin

router = APIRouter()


@router.get("/audit")
def audit_page(request: Request, session: Database, project: ProjectAdmin, after: Id | None = None) -> HTMLResponse:
    """Every administrative act."""
    rows = audit.list_events(session, project.id, after_id=after, limit=PAGE_ROWS + 1)
    return admin_page(
        request, project, "audit.html", section="audit", found=listing(request, rows, key=lambda row: row[0].id)
    )
