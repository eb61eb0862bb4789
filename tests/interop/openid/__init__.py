"""Identity providers of others, started on loopback: oidc-provider (npm), Keycloak, canaille."""
