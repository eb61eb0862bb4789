# What pyproject.toml says, so that nothing of it is said twice: version, dependencies, the tools of
# development.
{ lib }:
let
  read = lib.importTOML ../pyproject.toml;
  # "psycopg[binary]>=3.2" is the package psycopg.
  name = requirement: builtins.head (builtins.match "([A-Za-z0-9_-]+).*" requirement);
  pick = requirements: packages: map (requirement: packages.${name requirement}) requirements;
in
{
  inherit (read.project) version description;
  dependencies = pick read.project.dependencies;
  postgresql = pick read.project.optional-dependencies.postgresql;
  dev = pick read.dependency-groups.dev;
}
