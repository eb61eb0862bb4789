"""What an operator should do when an authority refuses: one sentence for each kind of problem.

Not for the refusal itself, which is quoted beside it. Pure.
Source: RFC 8555 section 6.7 (kinds of problems).
"""

from __future__ import annotations

from typing import Any

from appliance.tls.acme.link import AuthorityError, clean

_PLACES = {"tls-alpn-01": "port 443", "http-01": "port 80"}

_ANSWERS_OF_OTHERS = ("unauthorized", "tls", "incorrectResponse", "malformed")
"""What an authority calls it when somebody else answers, or nobody; only we know which."""

_ADVICE = {
    "rateLimited": "nothing to do: it is asked again when its limit allows; tls.staging is for trying",
    "caa": "the zone's CAA record must name this authority, or be taken away",
    "rejectedIdentifier": "this authority does not certify the name: use a public one, or another"
    " authority (tls.directory)",
    "unsupportedIdentifier": "this authority does not certify addresses, or not with this profile:"
    " use a name, or another authority (tls.directory)",
    "externalAccountRequired": "this authority wants an account of its own first: set tls.eab",
    "invalidContact": "tls.email is not an address that this authority takes",
    "unsupportedContact": "tls.email is not an address that this authority takes",
    "userActionRequired": "the authority wants you to do something, at the address that it names",
    "invalidProfile": "choose one of its profiles in tls.profile, or leave that out",
    "network": "this machine must reach the authority by https: look at its name servers, its"
    " firewall, its clock and tls.ca_file",
    "protocol": "tls.directory must be the URL of an ACME directory",
    "local": "the state directory must have room and be writable",
    "noChallenge": "allow a kind of challenge that the authority offers in tls.challenge",
    "serverInternal": "nothing to do: the authority has trouble of its own and is asked again",
    "dns": "the name must exist in the public DNS and lead to this machine",
    "tls": "something else answers on port 443 at the name's address: it must be this server",
    "connection": "the authority must reach this machine: look at the name's addresses (A and AAAA),"
    " the firewall, port forwarding, and whether another server answers there",
    "incorrectResponse": "something else answers at the name's address: it must be this server",
    "unauthorized": "something else answers at the name's address, or the record is not the one"
    " that was asked for",
}


def advice_for(error: BaseException) -> str:
    """Return advice on a failed attempt; empty where nobody knows."""
    return _ADVICE.get(error.type, "") if isinstance(error, AuthorityError) else ""


def validation_failed(
    authorization: dict[str, Any], kind: str, asked: int | None, record: str
) -> AuthorityError:
    """Make the error of an authorisation that ended without being valid."""
    about = authorization.get("identifier")
    name = clean(about.get("value", "")) if isinstance(about, dict) else "the name"
    challenges = authorization.get("challenges")
    problem: dict[str, Any] = {}
    for each in challenges if isinstance(challenges, list) else ():
        if isinstance(each, dict) and isinstance(each.get("error"), dict):
            problem = each["error"]
    detail = clean(problem.get("detail", "")) or "no reason given"
    type_ = clean(problem.get("type", "")).rpartition(":")[2]
    seen, blamed = "", type_
    if kind in _PLACES and asked is not None:
        seen = (
            f"; somebody did ask this server {asked} times"
            if asked
            else f"; nobody asked this server: {_PLACES[kind]} of {name} does not lead here"
        )
        if not asked and type_ in _ANSWERS_OF_OTHERS:
            blamed = "connection"
    elif record:
        seen = f"; the record must be: {record}"
    told = f"{name} was not validated by {kind}: {detail} ({type_ or 'no kind named'}){seen}"
    return AuthorityError(told, type=blamed)
