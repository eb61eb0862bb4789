# A story of vm-tests/ as a test of the NixOS framework: its `default.nix` says the machines, its
# `story.py` is the same body that runs on Debian.
{ pkgs, self }:
name:
let
  inherit (pkgs) lib;
  folder = ../vm-tests;
  node = pkgs.callPackage ./testnode.nix { };
  # What stories ask machines with, besides what every system has.
  tools = {
    environment.systemPackages = with pkgs; [ curl netcat-openbsd nftables python3 ];
    networking.nftables.enable = true;
  };
  machines = import (folder + "/${name}/default.nix") {
    inherit lib pkgs tools;
    # A machine with our server, from a site file as the Debian machines have it.
    box = site: more: {
      imports = [ self.nixosModules.default tools more ];
      services.headwater = {
        enable = true;
        package = pkgs.callPackage ./package.nix { };
        openFirewall = true;
        settings = lib.importJSON site;
      };
    };
    # A machine with the stock client that the stories drive.
    client = {
      imports = [ tools ];
      environment.systemPackages = [ node ];
    };
  };
in
pkgs.testers.runNixOSTest {
  name = "headwater-${lib.replaceStrings [ "_" ] [ "-" ] name}";
  inherit (machines) nodes;
  skipTypeCheck = true;
  testScript = ''
    import sys
    sys.path.insert(0, "${folder}")
    from driver.face import Machines
    from ${name}.story import story
    start_all()
    story(Machines({machine.name: machine for machine in machines}, start_all, subtest, log.info))
  '';
}
