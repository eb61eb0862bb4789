# The machines of this story on NixOS; `debian.py` says the same for Debian.
{ pkgs, box, client, tools, ... }:
let
  inherit (pkgs) lib;
  authority = import ../authority.nix { inherit pkgs; hosts = [ "front" ]; };
  trusting = {
    imports = [ client ];
    security.pki.certificateFiles = [ "${authority}/ca.pem" ];
  };
in
{
  nodes = {
    server = box ./site.json { };
    front = {
      imports = [ tools ];
      networking.firewall.allowedTCPPorts = [ 443 ];
      environment.etc."story/fullchain.pem".source = "${authority}/front/fullchain.pem";
      environment.etc."story/key.pem".source = "${authority}/front/key.pem";
      services.nginx = { enable = true; appendHttpConfig = builtins.readFile ./nginx.conf; };
      services.caddy = { enable = true; configFile = ./Caddyfile; };
      # The story starts one after the other; both want the same port.
      systemd.services.nginx.wantedBy = lib.mkForce [ ];
      systemd.services.caddy.wantedBy = lib.mkForce [ ];
    };
    laptop = trusting;
    desktop = trusting;
  };
}
