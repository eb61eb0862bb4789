{
  description = "Headwater: a self-contained control server for Tailscale clients";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";
    disko.url = "github:nix-community/disko";
    disko.inputs.nixpkgs.follows = "nixpkgs";
  };

  outputs = { self, nixpkgs, disko }:
    let
      inherit (nixpkgs) lib;
      systems = [ "x86_64-linux" "aarch64-linux" ];
      each = f: lib.genAttrs systems (system: f (import ./nix/packages.nix {
        pkgs = nixpkgs.legacyPackages.${system};
        inherit self;
      }));
      host = module: lib.nixosSystem {
        modules = [
          self.nixosModules.default
          disko.nixosModules.disko
          { nixpkgs.overlays = [ self.overlays.default ]; }
          module
        ];
      };
    in
    {
      overlays.default = final: _: { headwater = final.callPackage ./nix/package.nix { }; };
      nixosModules = {
        default = { imports = [ ./nix/module ]; };
        node = { imports = [ ./nix/module/node.nix ]; };
      };
      nixosConfigurations = {
        vps = host ./nix/hosts/vps.nix;
        metal = host ./nix/hosts/metal.nix;
      };
      packages = each (made: made.packages);
      apps = each (made: made.apps);
      devShells = each (made: made.devShells);
      checks = each (made: made.checks);
      formatter = each (made: made.formatter);
    };
}
