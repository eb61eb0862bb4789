# The program, from the Python packages of nixpkgs. Whether they are new enough is checked by the
# build itself, against pyproject.toml.
{ lib, python3, withPostgresql ? true }:
let
  project = import ./pyproject.nix { inherit lib; };
in
python3.pkgs.buildPythonApplication {
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
