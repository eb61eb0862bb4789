# The release for Debian: an archive for every Python and processor, as the Ansible role installs it.
# Wheels come from the package index, each by its hash in requirements/run.txt; the hash over all of
# them is in wheels.json, written by `python -m tests.nix.wheels`.
{ lib, runCommand, python3, cacert }:
let
  tools = python3.withPackages (ps: [ ps.packaging ps.pip ps.setuptools ]);
  tree = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../appliance
      ../release
      ../requirements
      ../pyproject.toml
      ../README.md
      ../LICENSE
    ];
  };
  collect = ''
    import os
    from pathlib import Path
    from release.targets import MACHINES, PYTHONS, Target
    from release.wheelhouse import collect

    for python in PYTHONS:
        for machine in MACHINES:
            collect(Target(python, machine), Path("requirements/run.txt"), Path(os.environ["out"]))
  '';
  wheels = runCommand "headwater-wheels"
    {
      nativeBuildInputs = [ tools ];
      SSL_CERT_FILE = "${cacert}/etc/ssl/certs/ca-bundle.crt";
      outputHashMode = "recursive";
      outputHashAlgo = "sha256";
      outputHash = (lib.importJSON ./wheels.json).hash;
      inherit collect;
    } ''
    cd ${tree}
    export HOME="$TMPDIR" PYTHONDONTWRITEBYTECODE=1
    python -c "$collect"
  '';
in
runCommand "headwater-wheelhouse" { nativeBuildInputs = [ tools ]; } ''
  cp -r ${tree} tree && cp -r ${wheels} wheels && chmod -R u+w tree wheels && cd tree
  export HOME="$TMPDIR"
  python -m release build --cache ../wheels --out "$out"
''
