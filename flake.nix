{
  description = "Headwater: a self-contained control server for Tailscale clients";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [ "x86_64-linux" "aarch64-linux" ];
      # The host of nix/hosts/ that images are made of; the others need disko, and are a template.
      image = system: lib.nixosSystem {
        modules = [
          self.nixosModules.default
          { nixpkgs.hostPlatform = system; }
          ./nix/hosts/image.nix
        ];
      };
      each = f: lib.genAttrs systems (system: f (import ./nix/packages.nix {
        pkgs = nixpkgs.legacyPackages.${system};
        image = image system;
        inherit self;
      }));
    in
    {
      overlays.default = final: _: { headwater = final.callPackage ./nix/package.nix { }; };
      nixosModules = {
        default = { imports = [ ./nix/module ]; };
        node = { imports = [ ./nix/module/node.nix ]; };
      };
      nixosConfigurations.image = image "x86_64-linux";
      templates.default = {
        path = ./nix/hosts;
        description = "Machines with Headwater: a VPS, a bare-metal host, images";
      };
      lib.images = import ./nix/images.nix;
      packages = each (made: made.packages);
      apps = each (made: made.apps);
      devShells = each (made: made.devShells);
      checks = each (made: made.checks);
      formatter = each (made: made.formatter);
    };
}
