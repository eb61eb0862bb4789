# `pkgs` for NixOS's own module tree: the real ones where the checkout has them, and the stand-in
# elsewhere. Python packages that are too old for us are called newer: a checkout between two releases
# evaluates all the same (that it would be refused is tested apart).
{ lib, nixpkgs, names, asIs ? false }:
let
  project = import ../../../nix/pyproject.nix { inherit lib; };
  whole = builtins.pathExists (nixpkgs + "/pkgs/top-level/default.nix");
  called = _: super: lib.listToAttrs (map
    (each: lib.nameValuePair each.name (super.${each.name}.overridePythonAttrs { version = each.minimum; }))
    (project.tooOld unchanged.python3.pkgs));
  system = "x86_64-linux";
  unchanged = import nixpkgs { inherit system; overlays = [ ]; };
in
if whole && asIs then unchanged
else if whole then
  import nixpkgs {
    inherit system;
    overlays = [ (_: old: { pythonPackagesExtensions = old.pythonPackagesExtensions ++ [ called ]; }) ];
  }
else import ./pkgs.nix { inherit lib; names = builtins.fromJSON names; }
