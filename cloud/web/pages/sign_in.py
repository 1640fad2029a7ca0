"""Signing in and out, and choosing the language."""

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Form, Query, Request, Response
from fastapi.responses import HTMLResponse

from cloud.api.access import Person, allow, public
from cloud.api.problem import ProblemError
from cloud.api.services import service
from cloud.members.endpoints import address_of, clear_session_cookie, set_session_cookie
from cloud.members.service import MemberService
from cloud.web.language import LANGUAGE_COOKIE, LANGUAGES, language_of
from cloud.web.pages.base import Anybody, go_to, local_path
from cloud.web.templating import render

router = APIRouter(include_in_schema=False)

Members = Annotated[MemberService, Depends(service(MemberService))]
_YEAR_S = 365 * 86_400


@router.get("/login", response_class=HTMLResponse, dependencies=[Depends(public("this is how one signs in"))])
async def login_page(
    request: Request, members: Members, next_path: Annotated[str, Query(alias="next", max_length=500)] = "/"
) -> Response:
    """The form; somebody who is signed in goes on."""
    if await members.person_of(request) is not None:
        return go_to(local_path(next_path))
    return _form(request, next_path)


@router.post("/login", response_class=HTMLResponse, dependencies=[Depends(public("this is how one signs in"))])
async def login(
    request: Request,
    members: Members,
    login_name: Annotated[str, Form(alias="login", max_length=64)] = "",
    password: Annotated[str, Form(max_length=200)] = "",
    next_path: Annotated[str, Form(alias="next", max_length=500)] = "/",
) -> Response:
    """Check the form; the same page again with the reason if it is wrong."""
    try:
        signed_in = await members.sign_in(login_name, password, address_of(request))
    except ProblemError as problem:
        return _form(request, next_path, problem=problem, login_name=login_name)
    response = go_to(local_path(next_path))
    set_session_cookie(response, members, signed_in)
    return response


@router.post("/logout")
async def logout(request: Request, members: Members, _person: Anybody) -> Response:
    """End this session."""
    await members.sign_out(request)
    response = go_to("/login")
    clear_session_cookie(response, members)
    return response


@router.post("/language")
async def choose_language(
    members: Members,
    person: Annotated[Person, Depends(allow("employee", "crew", "admin"))],
    language: Annotated[str, Form(max_length=10)],
    back: Annotated[str, Form(max_length=500)] = "/",
) -> Response:
    """Remember the language of somebody who is signed in."""
    if language in LANGUAGES:
        await members.set_language(person, language)
    return _remember(go_to(local_path(back)), language)


@router.get("/language/{language}", dependencies=[Depends(public("the login page speaks both languages"))])
async def try_language(language: str, back: Annotated[str, Query(max_length=500)] = "/login") -> Response:
    """Choose the language before signing in."""
    return _remember(go_to(local_path(back)), language)


def _remember(response: Response, language: str) -> Response:
    if language in LANGUAGES:
        response.set_cookie(LANGUAGE_COOKIE, language, max_age=_YEAR_S, path="/", samesite="lax", httponly=True)
    return response


def _form(request: Request, next_path: str, problem: ProblemError | None = None, login_name: str = "") -> HTMLResponse:
    response = render(
        "login.html",
        language_of(request, None),
        problem.status if problem else 200,
        next_path=local_path(next_path),
        problem=problem,
        login_name=login_name,
        person=None,
    )
    if problem and "retry_after_s" in problem.extra:
        response.headers["retry-after"] = str(cast(int, problem.extra["retry_after_s"]))
    return response
