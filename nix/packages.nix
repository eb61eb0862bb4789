# Packages, apps, shells and checks of one system; `image` is the host that images are made of.
{ pkgs, self, image }:
let
  inherit (pkgs) lib;
  project = import ./pyproject.nix { inherit lib; };
  headwater = pkgs.callPackage ./package.nix { };
  nixfmt = import ./formatter.nix { inherit pkgs; };
  python = pkgs.python3.withPackages (ps: project.dependencies ps ++ project.postgresql ps ++ project.dev ps);

  command = program: description: { type = "app"; inherit program; meta.description = description; };
  script = name: text: "${pkgs.writeShellScript name text}";

  # A check of the tree: a command that must end well in a copy of it.
  check = name: tools: text: pkgs.runCommand "headwater-${name}" { nativeBuildInputs = [ python ] ++ tools; } ''
    cp -r ${self} tree && chmod -R u+w tree && cd tree
    export HOME="$TMPDIR"
    ${text}
    touch "$out"
  '';

  # Every story of vm-tests/ that says its machines for NixOS.
  stories = lib.filterAttrs
    (name: kind: kind == "directory" && builtins.pathExists (../vm-tests + "/${name}/default.nix"))
    (builtins.readDir ../vm-tests);
  story = import ./story.nix { inherit pkgs self; };
in
{
  packages = {
    inherit headwater;
    default = headwater;
    oci = pkgs.callPackage ./oci.nix { inherit headwater; };
    wheelhouse = pkgs.callPackage ./wheelhouse.nix { };
    docs = pkgs.runCommand "headwater-docs" { } ''
      cp -r ${../docs} "$out"
      chmod -R u+w "$out" && rm -rf "$out"/*.py "$out"/__pycache__
    '';
  } // import ./images.nix image;

  apps = rec {
    default = headwater-app;
    headwater-app = command "${lib.getExe headwater}" "The command line.";
    dev = command
      (script "headwater-dev" ''exec ${lib.getExe headwater} dev "$@"'')
      "A throw-away server.";
    release = command
      (script "headwater-release" ''exec ${python}/bin/python -m release build "$@"'')
      "The release for Debian, from a checkout.";
  };

  devShells.default = pkgs.mkShell {
    packages = [ python pkgs.gnumake pkgs.go nixfmt pkgs.statix pkgs.deadnix ];
  };
  # Of whole folders, where nixpkgs has it.
  formatter = pkgs.nixfmt-tree or nixfmt;

  checks = {
    package = headwater;
    lint = check "lint" [ ] ''
      ruff check . && ruff format --check . && mypy && lint-imports
    '';
    unit = check "unit" [ pkgs.nix pkgs.nftables pkgs.git ] ''
      python -m pytest -q -m "not interop and not system"
    '';
  } // lib.mapAttrs (name: _: story name) stories;
}
