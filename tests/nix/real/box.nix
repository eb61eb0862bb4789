# Evaluates our modules inside NixOS's own module tree; gives the same as ../box.nix, as far as
# ../parity.py looks at it. With pkgs/ in the checkout the packages are the real ones.
{ nixpkgs, names ? "[]", definition ? "{}", node ? "{}", host ? "", more ? "" }:
let
  lib = import (nixpkgs + "/lib");
  pkgs = import ./packages.nix { inherit lib nixpkgs names; };
  box = import (nixpkgs + "/nixos/lib/eval-config.nix") {
    inherit lib;
    # As people do who write `specialArgs = inputs`.
    specialArgs = lib.genAttrs [ "headwater" "nixpkgs" "self" "disko" ] (_: { nixosModules = { }; });
    system = null;
    modules = [
      ../../../nix/module
      ../../../nix/module/node.nix
      {
        nixpkgs.pkgs = pkgs;
        documentation.enable = false;
        services.headwater = builtins.fromJSON definition;
        services.headwater-node = builtins.fromJSON node;
      }
    ] ++ (if more == "" then [ ] else [ (/. + more) ]) ++ (if host == "" then [
      {
        boot.loader.grub.enable = false;
        fileSystems."/" = { device = "/dev/vda"; fsType = "ext4"; };
        system.stateVersion = "25.11";
      }
    ] else [
      (/. + host)
      # What disko's own module derives from the layout.
      { options.disko = lib.mkOption { type = lib.types.attrsOf lib.types.anything; }; }
      { fileSystems."/" = { device = "/dev/disk/by-partlabel/disk-main-root"; fsType = "ext4"; }; }
      { boot.loader.grub.device = lib.mkDefault "nodev"; }
    ]);
  };
  inherit (box) config;
  ours = lib.filterAttrs (name: _: lib.hasPrefix "headwater" name);
in
{
  failed = map (a: a.message) (lib.filter (a: !a.assertion) config.assertions);
  inherit (config) warnings;
  units = lib.mapAttrs (_: unit: unit.text) (lib.filterAttrs (name: _: lib.hasPrefix "headwater" name) config.systemd.units);
  settings = if config.services.headwater.enable then config.services.headwater.made.settings else null;
  enrolment = config.systemd.services.tailscaled-autoconnect.script or "";
  setting = config.systemd.services.tailscaled-set.script or "";
  services = map (name: "${name}.service") (builtins.attrNames config.systemd.services);
  client = lib.filterAttrs (name: _: name == "SSL_CERT_FILE") (config.systemd.services.tailscaled.environment or { });
  etc = builtins.attrNames (ours config.environment.etc);
  firewall = { inherit (config.networking.firewall) allowedTCPPorts allowedUDPPorts; };
  users = {
    users = lib.mapAttrs (_: user: { inherit (user) group description home; }) (ours config.users.users);
    groups = lib.mapAttrs (_: _: { }) (ours config.users.groups);
  };
  sysctl = lib.filterAttrs (name: _: (import ../../../nix/facts.nix).sysctl ? ${name}) config.boot.kernel.sysctl;
  upgrade = config.systemd.services.nixos-upgrade.postStart or "";
}
