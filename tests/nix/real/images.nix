# The derivations of what cannot be built here, from a whole checkout: the program, the container image,
# an example host to its last unit, and the images of one. Also what an unchanged checkout says of the program.
{ nixpkgs, names ? "[]", host }:
let
  lib = import (nixpkgs + "/lib");
  pkgs = import ./packages.nix { inherit lib nixpkgs names; };
  asIs = import ./packages.nix { inherit lib nixpkgs names; asIs = true; };
  evaluate = modules: import (nixpkgs + "/nixos/lib/eval-config.nix") {
    inherit lib;
    system = null;
    specialArgs = { headwater = { }; nixpkgs = { }; self = { }; };
    modules = [ ../../../nix/module { nixpkgs.pkgs = pkgs; documentation.enable = false; } ] ++ modules;
  };
  images = import ../../../nix/images.nix (evaluate [ ../../../nix/hosts/image.nix ]);
  headwater = pkgs.callPackage ../../../nix/package.nix { };
  inherit (import ../../../nix/pyproject.nix { inherit lib; }) tooOld;
in
{
  tooOld = map (each: each.name) (tooOld asIs.python3.pkgs);
  headwater = headwater.drvPath;
  oci = (pkgs.callPackage ../../../nix/oci.nix { inherit headwater; }).drvPath;
  toplevel = (evaluate [
    (/. + host)
    { options.disko = lib.mkOption { type = lib.types.attrsOf lib.types.anything; }; }
    { fileSystems."/" = { device = "/dev/disk/by-partlabel/disk-main-root"; fsType = "ext4"; }; }
    { boot.loader.grub.device = lib.mkDefault "nodev"; }
  ]).config.system.build.toplevel.drvPath;
  images = lib.mapAttrs (_: image: image.drvPath) (lib.filterAttrs (name: _: lib.elem name [ "iso" "qcow2" "qcow2-efi" "raw" "raw-efi" ]) images);
  clouds = builtins.attrNames images;
}
