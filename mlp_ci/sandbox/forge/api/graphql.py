"""GitHub's GraphQL API, as far as it says what REST does not: all authors of a commit, with their accounts.

GraphQL answers 200 to what it refuses; what is wrong stands in ``errors``, each with GitHub's ``type``.
"""

from __future__ import annotations

import base64
import binascii
import logging
from typing import TYPE_CHECKING, Any

import graphql
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse
from starlette.routing import Route

from mlp_ci.sandbox.forge import access, coauthors, shapes
from mlp_ci.sandbox.forge.api.routing import credentials, error_response, parse_body, read_body
from mlp_ci.sandbox.forge.store import Refusal

if TYPE_CHECKING:
    from starlette.requests import Request

    from mlp_ci.sandbox.forge.access import Actor, Forge
    from mlp_ci.sandbox.forge.objects import Commit, Person
    from mlp_ci.sandbox.forge.records import Repo, User

_MAX_QUERY = 256 * 1024
_MAX_TOKENS = 20_000
_PAGE = 100
_FAULT = "Something went wrong while executing your query. Please include the time of it when reporting this issue."
_log = logging.getLogger(__name__)

SCHEMA = graphql.build_schema('''
"""A Git object's full id."""
scalar GitObjectID
"""An ISO 8601 instant."""
scalar DateTime

type Query {
  "The user whose token it is."
  viewer: User!
  repository(owner: String!, name: String!): Repository
}

type Repository {
  id: ID!
  name: String!
  nameWithOwner: String!
  isPrivate: Boolean!
  object(oid: GitObjectID): GitObject
}

interface GitObject {
  id: ID!
  oid: GitObjectID!
  abbreviatedOid: String!
}

type Commit implements GitObject {
  id: ID!
  oid: GitObjectID!
  abbreviatedOid: String!
  message: String!
  messageHeadline: String!
  messageBody: String!
  authoredDate: DateTime!
  committedDate: DateTime!
  author: GitActor
  committer: GitActor
  "The author first, then those whom `Co-authored-by` trailers name."
  authors(first: Int, after: String): GitActorConnection!
}

type Tree implements GitObject { id: ID!, oid: GitObjectID!, abbreviatedOid: String! }
type Blob implements GitObject { id: ID!, oid: GitObjectID!, abbreviatedOid: String! }
type Tag implements GitObject { id: ID!, oid: GitObjectID!, abbreviatedOid: String! }

type GitActor {
  name: String
  email: String
  date: DateTime
  "The account that the e-mail belongs to, if any."
  user: User
}

type GitActorConnection { nodes: [GitActor], edges: [GitActorEdge], pageInfo: PageInfo!, totalCount: Int! }
type GitActorEdge { cursor: String!, node: GitActor }
type PageInfo { hasNextPage: Boolean!, hasPreviousPage: Boolean!, startCursor: String, endCursor: String }
type User { id: ID!, databaseId: Int, login: String!, name: String }
''')


class Refused(graphql.GraphQLError):
    """One field's refusal; ``kind`` is GitHub's word for it: NOT_FOUND, FORBIDDEN …"""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message, extensions={"type": kind})


def route(forge: Forge) -> Route:
    """``POST /api/graphql``, where a GitHub Enterprise Server has it."""

    async def answer(request: Request) -> JSONResponse:
        try:
            body = await read_body(request, _MAX_QUERY)
            return await run_in_threadpool(_answer, forge, request.headers.get("authorization", ""), body)
        except Refusal as refusal:
            return error_response(refusal)

    return Route("/api/graphql", answer, methods=["POST"])


def _answer(forge: Forge, header: str, body: bytes) -> JSONResponse:
    actor = access.authenticate(forge, credentials(header))
    if actor is None:
        raise Refusal(401, "Bad credentials" if header else "This endpoint requires you to be authenticated.")
    asked = parse_body(body)
    query, variables = asked.get("query"), asked.get("variables") or {}
    if not isinstance(query, str) or not isinstance(variables, dict):
        raise Refusal(400, "A query attribute must be specified and must be a string.")
    try:
        document = graphql.parse(query, max_tokens=_MAX_TOKENS)
        problems = graphql.validate(SCHEMA, document)
    except graphql.GraphQLError as error:
        problems = [error]
    if problems:
        return JSONResponse({"errors": [_error(problem) for problem in problems]})
    name = asked.get("operationName")
    result = graphql.execute_sync(
        SCHEMA, document, _root(forge, actor), None, variables, name if isinstance(name, str) else None
    )
    errors = {"errors": [_error(error) for error in result.errors]} if result.errors else {}
    return JSONResponse({"data": result.data, **errors})


def _error(error: graphql.GraphQLError) -> dict[str, Any]:
    found: dict[str, Any] = {**error.formatted}
    known = isinstance(error.original_error, (graphql.GraphQLError, Refusal, type(None)))
    if not known:
        _log.error("GraphQL", exc_info=error.original_error)
        found["message"] = _FAULT
    kind = (found.pop("extensions", None) or {}).get("type")
    return {"type": kind, **found} if kind else found


def _root(forge: Forge, actor: Actor) -> dict[str, Any]:
    """What the schema's query starts from; a field that is a function is called when it is asked for."""
    return {
        "viewer": lambda _: _user(actor.user),
        "repository": lambda _, owner, name: _repository(forge, actor, owner, name),
    }


def _repository(forge: Forge, actor: Actor, owner: str, name: str) -> dict[str, Any]:
    repo = forge.store.repo(owner, name)
    if repo is None or not access.visible(forge, actor, repo):
        kind = "NOT_FOUND"
        raise Refused(kind, f"Could not resolve to a Repository with the name '{owner}/{name}'.")
    return {
        "id": shapes.node_id(repo),
        "name": repo.name,
        "nameWithOwner": repo.full_name,
        "isPrivate": repo.private,
        "object": lambda _, oid=None: _object(forge, actor, repo, oid),
    }


def _object(forge: Forge, actor: Actor, repo: Repo, oid: Any) -> dict[str, Any] | None:
    if not access.allowed(forge, actor, repo, "contents", "read", "read"):
        refusal = "FORBIDDEN"
        raise Refused(refusal, "Resource not accessible by integration")
    kind = forge.git.kind(repo, str(oid or ""))
    if kind is None:
        return None
    shape = {"__typename": kind.capitalize(), "id": oid, "oid": oid, "abbreviatedOid": oid[:7]}
    return {**shape, **_commit(forge, repo, forge.git.commit(repo, oid))} if kind == "commit" else shape


def _commit(forge: Forge, repo: Repo, commit: Commit) -> dict[str, Any]:
    headline, _, rest = commit.message.partition("\n")
    return {
        "message": commit.message,
        "messageHeadline": headline,
        "messageBody": rest.strip("\n"),
        "authoredDate": commit.author.date,
        "committedDate": commit.committer.date,
        "author": _person(forge, commit.author),
        "committer": _person(forge, commit.committer),
        "authors": lambda _, first=None, after=None: _authors(forge, repo, commit, first, after),
    }


def _authors(forge: Forge, repo: Repo, commit: Commit, first: int | None, after: str | None) -> dict[str, Any]:
    if first is None:
        kind = "MISSING_PAGINATION_BOUNDARIES"
        raise Refused(kind, "You must provide a `first` value to properly paginate the `authors` connection.")
    if not 0 <= first <= _PAGE:
        kind = "EXCESSIVE_PAGINATION"
        raise Refused(kind, f"Requesting {first} records on the `authors` connection exceeds the limit of {_PAGE}.")
    everybody = coauthors.authors(forge, repo, commit)
    start = _place(after) if after else 0
    end = min(start + first, len(everybody))
    edges = [
        {"cursor": _cursor(number), "node": _person(forge, who)}
        for number, who in enumerate(everybody[start:end], start + 1)
    ]
    return {
        "nodes": [edge["node"] for edge in edges],
        "edges": edges,
        "totalCount": len(everybody),
        "pageInfo": {
            "hasNextPage": end < len(everybody),
            "hasPreviousPage": start > 0,
            "startCursor": edges[0]["cursor"] if edges else None,
            "endCursor": edges[-1]["cursor"] if edges else None,
        },
    }


def _person(forge: Forge, person: Person) -> dict[str, Any]:
    account = access.by_email(forge, person.email)
    user = _user(account) if account else None
    return {"name": person.name, "email": person.email, "date": person.date or None, "user": user}


def _user(user: User) -> dict[str, Any]:
    return {"id": shapes.node_id(user), "databaseId": user.id, "login": user.login, "name": user.name}


def _cursor(number: int) -> str:
    return base64.b64encode(f"author:{number}".encode()).decode()


def _place(cursor: str) -> int:
    try:
        place = int(base64.b64decode(cursor, validate=True).decode().removeprefix("author:"))
    except (binascii.Error, ValueError) as error:
        kind = "INVALID_CURSOR_ARGUMENTS"
        raise Refused(kind, f"`{cursor}` does not appear to be a valid cursor.") from error
    return max(place, 0)
