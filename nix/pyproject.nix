# What pyproject.toml says, so that nothing of it is said twice: version, dependencies, the tools of
# development.
{ lib }:
let
  read = lib.importTOML ../pyproject.toml;
  # "psycopg[binary]>=3.2" is the package psycopg.
  name = requirement: builtins.head (builtins.match "([A-Za-z0-9_-]+).*" requirement);
  # What a nixpkgs lacks of a list: packages that are older than it says.
  tooOld = requirements: packages: builtins.filter
    (each: each.minimum != null && each.version != null && builtins.compareVersions each.version each.minimum < 0)
    (map
      (requirement:
        let
          asked = builtins.match "[^>=<;]*>=([0-9.]+).*" requirement;
          found = packages.${name requirement};
        in
        {
          name = name requirement;
          minimum = if asked == null then null else builtins.head asked;
          version = found.version or null;
        })
      requirements);
  pick = requirements: packages: map (requirement: packages.${name requirement}) requirements;
in
{
  inherit (read.project) version description;
  dependencies = pick read.project.dependencies;
  postgresql = pick read.project.optional-dependencies.postgresql;
  # Every package that anything here asks for.
  names = map name (
    read.build-system.requires
    ++ read.project.dependencies
    ++ lib.concatLists (builtins.attrValues read.project.optional-dependencies)
    ++ lib.concatLists (builtins.attrValues read.dependency-groups)
  );
  tooOld = tooOld (read.project.dependencies ++ read.project.optional-dependencies.postgresql);
  dev = pick read.dependency-groups.dev;
}
