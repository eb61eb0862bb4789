"""``headwater generate``: keys that are made on the spot, without a server."""

from __future__ import annotations

import secrets

import click

from appliance.cli.output import emit
from appliance.cli.root import Group, Invocation


@click.group(cls=Group)
def generate() -> None:
    """Make keys.

    \b
    Example:
      (umask 077; headwater generate mesh-key > mesh.key)
    """


@generate.verb("private-key")
@click.pass_obj
def private_key(invocation: Invocation) -> None:
    """Print a new Curve25519 private key, as the key files have it.

    \b
    Example:
      (umask 077; headwater generate private-key > derp.key)
    """
    from appliance.wire.keys import PrivateKey  # loads libsodium

    text = PrivateKey.generate(secrets.token_bytes).reveal_text()
    emit(invocation.output, {"private_key": text}, text)


@generate.verb("mesh-key")
@click.pass_obj
def mesh_key(invocation: Invocation) -> None:
    """Print a new key for the relays of one region (derp.server.mesh.key_file)."""
    text = secrets.token_hex(32)
    emit(invocation.output, {"mesh_key": text}, text)
