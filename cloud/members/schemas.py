"""What the API says and accepts about people and sessions."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from cloud.api.access import Role

PASSWORD_LENGTH_MIN = 10
PASSWORD_LENGTH_MAX = 200
Language = Literal["zh_CN", "en"]


class SignInBody(BaseModel):
    """A login attempt."""

    model_config = ConfigDict(extra="forbid")

    login: Annotated[str, Field(min_length=1, max_length=64)]
    password: Annotated[SecretStr, Field(min_length=1, max_length=PASSWORD_LENGTH_MAX)]


class SessionAnswer(BaseModel):
    """Who is signed in. `csrf_token` goes into the header `X-CSRF-Token` of every write made with the cookie."""

    person_id: str
    login: str
    name: str
    role: Role
    language: str
    csrf_token: str


class SignedInAnswer(SessionAnswer):
    """The answer to a successful login. `token` works as a bearer token for programs."""

    token: str
    expires_at: int


class PersonBody(BaseModel):
    """A person to be created."""

    model_config = ConfigDict(extra="forbid")

    login: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{1,63}$", description="lower case, for signing in")]
    name: Annotated[str, Field(min_length=1, max_length=64)]
    role: Role
    password: Annotated[SecretStr, Field(min_length=PASSWORD_LENGTH_MIN, max_length=PASSWORD_LENGTH_MAX)]
    language: Language = "zh_CN"


class PersonAnswer(BaseModel):
    """A person as admins see them; the password never leaves."""

    id: str
    login: str
    name: str
    role: Role
    language: str
    created_at: int
    disabled_at: int | None


class PersonList(BaseModel):
    """One page of people; `next_after` is None on the last one."""

    persons: list[PersonAnswer]
    next_after: str | None
