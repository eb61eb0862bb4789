# Evaluates the modules with a definition that comes as JSON, and gives what the tests look at.
#   definition  the value of services.headwater
#   node        the value of services.headwater-node
#   more        path of a further module, for what JSON cannot say
#   nixpkgs     path of a nixpkgs checkout (or of its lib) whose library is used in place of ours
#   overlay     name of the package that an overlay calls `headwater`
#   inputs      names that are handed to modules as specialArgs, as people do with their flake's inputs
{ definition ? "null", node ? "null", more ? "", nixpkgs ? "", overlay ? "", inputs ? "[\"headwater\", \"nixpkgs\", \"self\"]" }:
let
  lib =
    if nixpkgs == "" then import ./minilib.nix
    else if builtins.pathExists (nixpkgs + "/lib/default.nix") then import (nixpkgs + "/lib")
    else import nixpkgs;
  given = name: json:
    let value = builtins.fromJSON json; in
    if value == null then [ ] else [ { services.${name} = value; } ];
  pkgs = import ./stub/pkgs.nix { inherit lib; };
  box = import ./stub/eval.nix {
    inherit lib;
    pkgs = pkgs // lib.optionalAttrs (overlay != "") { headwater = pkgs.${overlay}; };
    specialArgs = lib.genAttrs (builtins.fromJSON inputs) (name: { outPath = "/nix/store/${name}"; nixosModules = { }; });
    modules = [ ../../nix/module ../../nix/module/node.nix ]
      ++ given "headwater" definition
      ++ given "headwater-node" node
      ++ (if more == "" then [ ] else [ (/. + more) ]);
  };
  inherit (box) config;
in
{
  inherit (box) failed units;
  inherit (config) warnings users;
  settings = if config.services.headwater.enable then config.services.headwater.made.settings else null;
  configFile = if config.services.headwater.enable then config.environment.etc."headwater/config.json".source.text else "";
  siteFile = if config.services.headwater.enable then config.environment.etc."headwater/config.json".source.environment.site.text else "";
  etc = builtins.attrNames config.environment.etc;
  firewall = config.networking.firewall;
  sysctl = config.boot.kernel.sysctl or { };
  tailscale = config.services.tailscale;
  environment = builtins.mapAttrs (_: s: s.environment) config.systemd.services;
  postStart = builtins.mapAttrs (_: s: s.postStart) config.systemd.services;
  autoUpgrade = config.system.autoUpgrade;
  triggers = builtins.mapAttrs (_: s: { restart = s.restartTriggers; reload = map (f: f.name or f) s.reloadTriggers; inherit (s) stopIfChanged; }) config.systemd.services;
  reloads = builtins.mapAttrs (_: cert: cert.reloadServices) config.security.acme.certs;
  packages = map (p: p.name) config.environment.systemPackages;
}
