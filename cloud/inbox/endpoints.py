"""Notices over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from cloud.api.access import Person, allow
from cloud.api.services import service
from cloud.inbox.schemas import NoticeList
from cloud.inbox.service import InboxService

router = APIRouter(prefix="/api/v1/inbox", tags=["inbox"])


@router.get("")
async def list_notices(
    inbox: Annotated[InboxService, Depends(service(InboxService))],
    person: Annotated[Person, Depends(allow("crew", "admin"))],
    before: Annotated[int | None, Query(ge=1, le=2**53, description="`next_before` of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> NoticeList:
    """What people on duty were told in the application, newest first."""
    return await inbox.notices(person, before=before, limit=limit)
