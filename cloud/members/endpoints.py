"""Sessions and people over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlalchemy import Row

from cloud.api.access import Person, allow, public
from cloud.api.services import service
from cloud.members.schemas import PersonAnswer, PersonBody, PersonList, SessionAnswer, SignedInAnswer, SignInBody
from cloud.members.service import MemberService, SignedIn

router = APIRouter(prefix="/api/v1", tags=["members"])

Members = Annotated[MemberService, Depends(service(MemberService))]
Anybody = Annotated[Person, Depends(allow("employee", "crew", "admin"))]
Admin = Annotated[Person, Depends(allow("admin"))]


def address_of(request: Request) -> str:
    """The asker's network address as the server sees it; behind a proxy uvicorn takes it from the proxy's header."""
    return request.client.host if request.client else "unknown"


def set_session_cookie(response: Response, members: MemberService, signed_in: SignedIn) -> None:
    """Give the browser its session; scripts of a page can't read it."""
    response.set_cookie(
        members.cookie_name,
        signed_in.token,
        max_age=signed_in.lifetime_s,
        path="/",
        secure=members.secure_cookies,
        httponly=True,
        samesite="lax",
    )


def clear_session_cookie(response: Response, members: MemberService) -> None:
    """Take it away again."""
    response.delete_cookie(members.cookie_name, path="/", secure=members.secure_cookies, httponly=True, samesite="lax")


@router.post("/session", status_code=201, dependencies=[Depends(public("this is how one signs in"))])
async def sign_in(body: SignInBody, request: Request, response: Response, members: Members) -> SignedInAnswer:
    """Sign in. The answer sets the session cookie and names the token for programs."""
    signed_in = await members.sign_in(body.login, body.password.get_secret_value(), address_of(request))
    set_session_cookie(response, members, signed_in)
    return SignedInAnswer(
        **_session(signed_in.person).model_dump(), token=signed_in.token, expires_at=signed_in.expires_at
    )


@router.get("/session")
async def who_am_i(person: Anybody) -> SessionAnswer:
    """Who is signed in, and the token that confirms writes made with the cookie."""
    return _session(person)


@router.delete("/session", status_code=204)
async def sign_out(request: Request, response: Response, members: Members, _person: Anybody) -> None:
    """End this session."""
    await members.sign_out(request)
    clear_session_cookie(response, members)


@router.get("/persons")
async def persons(
    members: Members,
    _admin: Admin,
    after: Annotated[str, Query(max_length=64)] = "",
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> PersonList:
    """People ordered by login; `after` is `next_after` of the page before."""
    rows = await members.persons(after, limit + 1)
    return PersonList(
        persons=[_answer(row) for row in rows[:limit]], next_after=rows[limit - 1].login if len(rows) > limit else None
    )


@router.post("/persons", status_code=201)
async def create_person(body: PersonBody, members: Members, admin: Admin) -> PersonAnswer:
    """Add a person."""
    return _answer(await members.create(body, admin))


@router.post("/persons/{person_id}/disable", status_code=204)
async def disable_person(person_id: str, members: Members, admin: Admin) -> None:
    """Close an account; all its sessions end."""
    await members.disable(person_id, admin)


def _session(person: Person) -> SessionAnswer:
    return SessionAnswer(
        person_id=person.id,
        login=person.login,
        name=person.name,
        role=person.role,
        language=person.language,
        csrf_token=person.csrf_token,
    )


def _answer(row: Row[Any]) -> PersonAnswer:
    return PersonAnswer.model_validate(row, from_attributes=True)
