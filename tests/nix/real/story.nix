# Evaluates a story of vm-tests/ in NixOS's own test framework: what every machine would run, and the
# script.
{ nixpkgs, names ? "[]", story }:
let
  lib = import (nixpkgs + "/lib");
  pkgs = import ./packages.nix { inherit lib nixpkgs names; };
  evaluate = test: (import (nixpkgs + "/nixos/lib/testing") { inherit lib; }).evalTest {
    imports = [ test ];
    hostPkgs = pkgs;
    node.pkgs = pkgs;
    defaults.documentation.enable = false;
  };
  result = import ../../../nix/story.nix {
    pkgs = pkgs // { testers.runNixOSTest = evaluate; callPackage = file: given: if baseNameOf file == "testnode.nix" then pkgs.hello else pkgs.callPackage file given; };
    self.nixosModules.default = ../../../nix/module;
  } story;
  machines = result.config.nodes;
in
{
  script = result.config.testScriptString;
  failed = lib.concatLists (lib.mapAttrsToList (name: c: map (a: "${name}: ${a.message}") (lib.filter (a: !a.assertion) c.assertions)) machines);
  units = lib.mapAttrs (_: c: lib.filter (lib.hasPrefix "headwater") (builtins.attrNames c.systemd.units)) machines;
  ports = lib.mapAttrs (_: c: c.networking.firewall.allowedTCPPorts) machines;
}
