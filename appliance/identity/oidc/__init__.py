"""Logins with OpenID Connect: this server as relying party of any number of providers."""
