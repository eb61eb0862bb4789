# The program, from the Python packages of nixpkgs. Whether they are new enough for pyproject.toml is
# checked here already, before anything is built.
{ lib, python3, withPostgresql ? true }:
let
  project = import ./pyproject.nix { inherit lib; };
  tooOld = project.tooOld python3.pkgs;
  told = lib.concatMapStringsSep ", " (each: "${each.name} ${each.version} (${each.minimum} or newer)") tooOld;
in
if tooOld != [ ] then
  throw "headwater: found ${told} in nixpkgs ${lib.trivial.release or ""}; allowed: NixOS 26.11 or newer, nixos-unstable; fix: take a newer nixpkgs, or raise these in an overlay (pythonPackagesExtensions)"
else python3.pkgs.buildPythonApplication {
  pname = "headwater";
  inherit (project) version;
  pyproject = true;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [ ../appliance ../pyproject.toml ../README.md ../LICENSE ];
  };

  build-system = [ python3.pkgs.setuptools ];
  dependencies =
    project.dependencies python3.pkgs
    ++ lib.optionals withPostgresql (project.postgresql python3.pkgs);

  pythonImportsCheck = [ "appliance.serve.server" "appliance.cli.root" ];

  meta = {
    inherit (project) description;
    license = lib.licenses.bsd3;
    mainProgram = "headwater";
    platforms = lib.platforms.linux;
  };
}
