# Machines of yours with Headwater on them: `nix flake init -t github:example/headwater` puts these files
# into an empty folder. Change what common.nix marks; docs/nixos.md says how to install and to upgrade.
{
  description = "Machines with Headwater";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    headwater.url = "github:example/headwater";
    headwater.inputs.nixpkgs.follows = "nixpkgs";
    disko.url = "github:nix-community/disko";
    disko.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs = { self, nixpkgs, headwater, disko }:
    let
      host = modules: nixpkgs.lib.nixosSystem {
        modules = [ headwater.nixosModules.default ] ++ modules;
      };
    in
    {
      nixosConfigurations = {
        vps = host [ disko.nixosModules.disko ./vps.nix ];
        metal = host [ disko.nixosModules.disko ./metal.nix ];
        image = host [ ./image.nix { nixpkgs.hostPlatform = "x86_64-linux"; } ];
      };
      # nix build .#iso, .#qcow2, .#raw and, with a cloud's name, .#amazon and others.
      packages.x86_64-linux = headwater.lib.images self.nixosConfigurations.image;
    };
}
